"""``lit-vae import``: a run made of an autoencoder from another library, to measure, draw, export or train."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lit_vae.run.files import CONFIG_FILE, replacing
from lit_vae.run.lightning_internals import CLASS_PATH, INSTANTIATE_MODULE, INSTANTIATOR
from lit_vae.tools.runs import check_arguments

if TYPE_CHECKING:
    from lit_vae.interop import Architecture


def import_autoencoder(
    path: str,
    out: str | None = None,
    data: str = "images",
    size: int = 256,
    labels: Literal["folders"] | None = None,
    lpips: bool = False,
    rfid: bool = False,
) -> None:
    """Make a run of an autoencoder from elsewhere: a diffusers folder (AutoencoderKL, VQModel) or a CompVis checkpoint.

    Writes RUN/config.yaml and RUN/checkpoints/last.ckpt. Weights do not say how they were trained, so the configuration
    assumes a Laplace likelihood of scale 1 and, for a Gaussian posterior, a KL of weight 1e-6.

    Args:
        path: Folder with config.json and its weights, or a .ckpt, .pt or .safetensors file of CompVis.
        out: Run directory to write; it must not hold a run. Default: runs/ and the name of the folder or file.
        data: Folder of images to measure the run on. It is not read yet.
        size: Height and width of the images.
        labels: folders: the folder of an image is its class, for a second stage with classes. Default: no labels.
        lpips: Also measure LPIPS, beside MSE, PSNR, SSIM and sharpness. Needs lit-vae prepare vgg16.
        rfid: Also measure the FID of the reconstructions to their originals. Needs lit-vae prepare inception.
    """
    import yaml
    from lightning import __version__ as lightning_version
    from lightning.pytorch.cli import instantiate_module

    from lit_vae.interop import load_into, read_autoencoder
    from lit_vae.models import VQVAE, KLAutoencoder
    from lit_vae.run.checkpoints import CHECKPOINTS, AtomicCheckpointIO

    check_arguments("import", {"size": (size, 1)})
    run = Path("runs") / Path(path).stem if out is None else Path(out)
    if (run / CONFIG_FILE).exists() or (run / CHECKPOINTS).exists():
        raise ValueError(f"--out {run} already holds a run. Give another directory; nothing was written.")
    imported = read_autoencoder(path)
    images = {"root": data, "size": size, "channels": imported.architecture.image_channels, "labels": labels}
    config = _config(imported.architecture, {**images, "batch_size": 8}, lpips, rfid)
    model_class = VQVAE if imported.architecture.num_embeddings else KLAutoencoder
    model = instantiate_module(model_class, _hyperparameters(config["model"]))
    load_into(model, imported)
    checkpoint = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": lightning_version,
        "state_dict": model.state_dict(),
        "hyper_parameters": {**_hyperparameters(config["model"]), INSTANTIATOR: INSTANTIATE_MODULE},
        "datamodule_hyper_parameters": {**_hyperparameters(config["data"]), INSTANTIATOR: INSTANTIATE_MODULE},
        "published_scaling": {"scaling_factor": imported.scaling_factor, "shift_factor": imported.shift_factor},
    }
    AtomicCheckpointIO().save_checkpoint(checkpoint, run / CHECKPOINTS / "last.ckpt")
    with replacing(run / CONFIG_FILE) as partial:
        partial.write_text(f"# weights of {path}\n" + yaml.safe_dump(config, sort_keys=False))
    print(run)


def _hyperparameters(component: dict[str, Any]) -> dict[str, Any]:
    """A class and its arguments as Lightning keeps them in a checkpoint."""
    return {CLASS_PATH: component["class_path"], **component["init_args"]}


def _config(architecture: "Architecture", images: dict[str, Any], lpips: bool, rfid: bool) -> dict[str, Any]:
    """The complete configuration; see `import_autoencoder` for what it assumes."""
    size = images["size"]
    latent_shape = list(architecture.latent_shape(size, size))
    if architecture.num_embeddings:
        sizes = {"num_embeddings": architecture.num_embeddings, "embedding_dim": architecture.latent_channels}
        family = "VQVAE"
        own: dict[str, Any] = {
            "grid": latent_shape[1:],
            "quantizer": {"class_path": "lit_vae.quantizers.VectorQuantizer", "init_args": sizes},
        }
    else:
        family = "KLAutoencoder"
        own = {
            "latent_shape": latent_shape,
            "objective": {"class_path": "lit_vae.objectives.ELBO", "init_args": {"beta": 1.0e-6}},
        }
    model = {
        "image_shape": [architecture.image_channels, size, size],
        **own,
        "encoder": {"class_path": "lit_vae.networks.LDMEncoder", "init_args": architecture.init_args(size)},
        "decoder": {"class_path": "lit_vae.networks.LDMDecoder", "init_args": architecture.init_args(size)},
        "likelihood": {"class_path": "lit_vae.likelihoods.Laplace", "init_args": {"scale": 1.0, "learned": False}},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1.0e-5}},
    }
    measured: list[dict[str, Any]] = [{"class_path": f"callbacks.{name}"} for name in ("ImageQuality", "LatentReport")]
    if lpips:
        distance = {"distance": {"class_path": "lit_vae.features.LPIPS"}}
        measured.append({"class_path": "callbacks.PerceptualDistance", "init_args": distance})
    if rfid:
        features = {"features": {"class_path": "lit_vae.features.Inception"}}
        measured.append({"class_path": "callbacks.ReconstructionFrechet", "init_args": features})
    return {
        "seed_everything": 0,
        "trainer": {"callbacks": measured},
        "model": {"class_path": f"lit_vae.models.{family}", "init_args": model},
        "data": {"class_path": "lit_vae.data.ImageFolder", "init_args": images},
    }
