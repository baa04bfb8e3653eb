"""Configurations of the repository with few made-up images in place of their data."""

import importlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lit_vae.run.config_folders import BASE, with_base
from lit_vae.tools.configurations import complete_config
from lit_vae.tools.priors import encode

Lightning = Callable[..., None]
ROOT = Path(__file__).resolve().parents[2]
FEW = {"num_train": 24, "num_val": 24, "num_test": 24, "batch_size": 12}
ONE_BATCH = {"limit_train_batches": 1, "limit_val_batches": 1, "limit_test_batches": 1}
SHORT = {"max_epochs": 1, "check_val_every_n_epoch": 1, "log_every_n_steps": 1}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "configs"))


HEAVY = {  # seconds a step on a processor
    "compare/bsds/learned_variance.yaml",
    "compare/bsds/mse.yaml",
    "compare/bsds/perceptual.yaml",
    "compare/bsds/perceptual_gan.yaml",
    "compare/bsds/vector_perceptual_gan.yaml",
    "compare/bsds/vector_perceptual_gan_variance.yaml",
    "compare/cifar10/vector_perceptual_gan.yaml",
    "compare/cifar10/vector_perceptual_gan_variance.yaml",
    "diffusion/cifar10.yaml",
    "diffusion/ddpm_cifar10.yaml",
    "diffusion/edm_cifar10.yaml",
    "diffusion/vdm_cifar10.yaml",
    "hvae/celeba64.yaml",
    "hvae/cifar10.yaml",
    "hvae/image_folder.yaml",
    "hvae/nvae_cifar10.yaml",
    "hvae/nvae_mnist.yaml",
    "hvae/vdvae_cifar10.yaml",
    "hvae/vdvae_imagenet32.yaml",
    "kl_autoencoder/bsds_crops64.yaml",
    "kl_autoencoder/cifar10.yaml",
    "kl_autoencoder/image_folder256.yaml",
    "kl_autoencoder/kl_f16.yaml",
    "kl_autoencoder/kl_f4.yaml",
    "kl_autoencoder/kl_f8.yaml",
    "kl_autoencoder/sd_vae_ft_mse.yaml",
    "latent_diffusion/dit_s2_imagenet256.yaml",
    "latent_diffusion/dit_xl2_imagenet256.yaml",
    "latent_diffusion/ldm4_imagenet256.yaml",
    "latent_diffusion/lightningdit_like.yaml",
    "latent_diffusion/sit_xl2_imagenet256.yaml",
    "pixelcnn/cifar10.yaml",
    "pixelcnn/mnist.yaml",
    "pixelcnn/mnist_binary_large.yaml",
    "pixelcnn/mnist_short.yaml",
    "prior/vqvae2_ffhq256.yaml",
    "vqvae2/ffhq256.yaml",
    "vqvae/vqgan_imagenet256.yaml",
    "vae/celeba64.yaml",
    "vae/cifar10.yaml",
    "vae/image_folder.yaml",
    "vqvae2/imagenet256.yaml",
}
WIDE = {  # seconds a test on a processor
    "compare/cifar10/learned_variance.yaml",
    "compare/mnist/perceptual_gan.yaml",
    "compare/mnist/vq_perceptual_gan.yaml",
    "likelihood/mnist_binary/diffusion.yaml",
    "hvae/mnist.yaml",
    "hvae/mnist_binary.yaml",
    "kl_autoencoder/mnist.yaml",
    "likelihood/mnist_binary/hvae.yaml",
    "likelihood/mnist_binary/pixelcnn.yaml",
    "likelihood/mnist_binary/pixelvae.yaml",
    "pixelcnn/mnist_binary.yaml",
    "pixelvae/mnist_binary.yaml",
    "pixelvae/mnist_two_grids.yaml",
    "prior/mnist_transformer.yaml",
    "prior/vqvae2_cifar10.yaml",
    "vqvae/image_folder.yaml",
    "vqvae2/celeba.yaml",
}
NARROW = {"width": 32, "residual_width": 8, "head_width": 8, "layers": 1, "blocks": 1, "heads": 4, "attention_every": 1}
NARROW |= {
    "widths": 16,
    "encoder_blocks": 1,
    "num_images": 8,
    "multipliers": 2,
    "pairs": 2,
    "dims": 2,
    "steps": 3,
    "num_levels": 5,
}
"""The most of each setting of a network, a panel or a sampling that is made small."""
NARROWED = ("lit_vae.networks.", "lit_vae.hierarchies.", "lit_vae.diffusion.Sampling", "callbacks.")
SIDES = {"image_shape": 1, "latent_shape": 1, "grid": 0, "grids": 0, "attention": 0}
"""What has sides of images or of maps, and from which place of each list on."""


def configurations() -> list[Path]:
    """The shipped configurations of experiments, without what some of them are laid over."""
    found = sorted((ROOT / "configs").rglob("*.yaml"))
    return [path for path in found if path.parent.name not in {"overlays", "sweeps"} and path.name != BASE]


@cache
def content(path: Path) -> dict[str, Any]:
    """What a file says, read once by libyaml: modules of tests choose among all configurations, in every process."""
    return yaml.load(path.read_text(), yaml.CSafeLoader)


def read(path: Path) -> dict[str, Any]:
    """A configuration; of a row of a comparison, what it is with its base, and with all defaults."""
    return yaml.safe_load(path.read_text()) if len(with_base(path)) == 1 else complete_config(with_base(path))


def settings_of(path: Path) -> set[tuple[str, str]]:
    """Every key of every class that a configuration sets."""
    return {key for file in with_base(path) for key in _set_in(content(file), "")}


def _set_in(tree: Any, component: str) -> Iterator[tuple[str, str]]:
    if isinstance(tree, list):
        for part in tree:
            yield from _set_in(part, component)
    elif isinstance(tree, dict):
        component = tree.get("class_path", component)
        for key, value in tree.items():
            yield component, key
            yield from _set_in(value, component)


def covering(paths: list[Path], of: Callable[[Path], set[Any]]) -> list[Path]:
    """Return a few of the configurations that together have what all of them have."""
    of_each = {path: of(path) for path in paths}
    left = set().union(*of_each.values())
    chosen = []
    while left:
        best = max(paths, key=lambda path: len(of_each[path] & left))
        chosen.append(best)
        left -= of_each[best]
    return sorted(chosen)


def on_fake_data(path: Path, tmp_path: Path, lightning: Lightning, feature_net: Path) -> Path:
    """The configuration with few images, or codes or latents of them, in place of its data."""
    config = read(path)
    encoded = {"lit_vae.data.Codes": fake_codes, "lit_vae.data.Latents": fake_latents}
    if config["data"]["class_path"] not in encoded:
        return on_fake_images(path, tmp_path, feature_net)
    config["trainer"] = with_small_networks(config["trainer"], feature_net)
    if name(path) in HEAVY | WIDE:
        config["model"] = narrowed(config["model"])
    if name(path) in HEAVY:
        config["model"] = quartered(config["model"])
    root = encoded[config["data"]["class_path"]](config["model"]["init_args"], tmp_path, lightning)
    config["data"]["init_args"] |= {"root": str(root), "batch_size": 12}
    if encoded[config["data"]["class_path"]] is fake_codes:
        config["data"]["init_args"]["collapse_threshold"] = 0.0
    config["trainer"].update(SHORT)
    config["trainer"].pop("val_check_interval", None)
    config["trainer"]["callbacks"] = narrowed(config["trainer"]["callbacks"])
    if name(path) in HEAVY:  # and 5120 codes are not drawn one by one in a test
        config["trainer"] |= {"callbacks": [], **ONE_BATCH}
        config["data"]["init_args"]["batch_size"] = 1
    fake = tmp_path / path.name
    fake.write_text(yaml.safe_dump(config))
    return fake


def fake_codes(prior: dict[str, Any], tmp_path: Path, lightning: Lightning) -> Path:
    """Codes of a small stage 1 with the grids and the numbers of codes that a prior is for."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "vqvae2" / "cifar10.yaml").read_text())
    size = 2 * prior["grids"][-1][0]
    quantizer = {"class_path": "lit_vae.quantizers.VectorQuantizer", "init_args": {"embedding_dim": 4}}
    model = config["model"]["init_args"]
    model |= {"image_shape": [1, size, size], "grids": prior["grids"]}
    model["quantizers"] = [
        {**quantizer, "init_args": {**quantizer["init_args"], "num_embeddings": k}} for k in prior["num_embeddings"]
    ]
    for network in ("encoder", "decoder"):
        model[network]["init_args"] = {"width": 8, "residual_width": 4, "blocks": 1}
    return _encoded(config, size, prior.get("num_classes", 0), tmp_path / "codes", lightning)


def fake_latents(prior: dict[str, Any], tmp_path: Path, lightning: Lightning) -> Path:
    """Latents of a small stage 1 with the shape that a prior is for."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "vae" / "digits.yaml").read_text())
    config["model"]["init_args"] |= {"image_shape": [1, 16, 16]}
    config["model"]["init_args"]["prior"]["init_args"]["shape"] = prior["latent_shape"]
    return _encoded(config, 16, prior.get("num_classes", 0), tmp_path / "latents", lightning)


def _encoded(config: dict[str, Any], size: int, num_classes: int, root: Path, lightning: Lightning) -> Path:
    """What a stage 1, trained shortly on grey images, makes of them."""
    init_args = {"channels": 1, "size": size, "num_classes": num_classes, "values": "uint8", **FEW}
    config["data"] = {"class_path": "lit_vae.data.FakeImages", "init_args": init_args}
    config["trainer"] = {**SHORT, "callbacks": []}
    stage1 = root.with_name("stage1")
    (root.parent / "stage1.yaml").write_text(yaml.safe_dump(config))
    lightning("fit", "--config", root.parent / "stage1.yaml", "--run_dir", stage1)
    encode(str(stage1), str(root), checkpoint="last")
    return root


def with_small_networks(config: Any, feature_net: Path) -> Any:
    """The configuration with that FeatureNet, random weights for pretrained ones, and the game from the first step."""
    if isinstance(config, list):
        kept = [part for part in config if not _is(part, "callbacks.StartFrom")]
        return [with_small_networks(part, feature_net) for part in kept]
    if not isinstance(config, dict):
        return config
    if _is(config, "lit_vae.features.FeatureNet"):
        return {**config, "init_args": {"checkpoint": str(feature_net)}}
    if _is(config, "lit_vae.realism.Adversary"):  # from the first step on
        init_args = {**config["init_args"], "weight": 0.5, "start_step": 0}
        return {**config, "init_args": init_args}
    if _is(config, "lit_vae.networks.LDM"):  # a sixteenth of the work of the published width
        init_args = {**config["init_args"], "width": min(32, config["init_args"]["width"])}
        return {**config, "init_args": init_args}
    if _is(config, "lit_vae.priors.VampPrior"):  # at most as many as there are images
        return {**config, "init_args": {**config["init_args"], "num_pseudo_inputs": FEW["batch_size"]}}
    if _is(config, "callbacks.SampleQuality"):
        config = {**config, "init_args": {**config["init_args"], "num_images": 12}}
    if _is(config, "lit_vae.features.LPIPS") or _is(config, "lit_vae.features.Inception"):
        return {**config, "init_args": {**config.get("init_args", {}), "weights": "random"}}
    return {key: with_small_networks(part, feature_net) for key, part in config.items()}


def narrowed(tree: Any) -> Any:
    """A configuration, or part of one: small networks of the same kinds, few levels and steps, small pictures."""
    if isinstance(tree, list):
        return [narrowed(part) for part in tree]
    if not isinstance(tree, dict):
        return tree
    kept = {key: narrowed(value) for key, value in tree.items()}
    if str(tree.get("class_path", "")).startswith(NARROWED):
        kept["init_args"] = {key: _least(value, NARROW.get(key)) for key, value in kept.get("init_args", {}).items()}
    if (shapes := tree.get("latent_shapes")) is not None:  # two levels on each grid
        kept["latent_shapes"] = [shape for i, shape in enumerate(shapes) if shapes[:i].count(shape) < 2]
    return kept


def _least(value: Any, most: int | None) -> Any:
    if most is None:
        return value
    return [min(number, most) for number in value] if isinstance(value, list) else min(value, most)


def quartered(tree: Any, start: int | None = None) -> Any:
    """The model of images, or maps of codes, with a quarter of the height and the width."""
    if isinstance(tree, list):
        first = start or 0
        return [*tree[:first], *(quartered(part, start) for part in tree[first:])]
    if isinstance(tree, dict):
        return {key: quartered(value, SIDES.get(key)) for key, value in tree.items()}
    return tree // 4 if start is not None else tree


def _is(part: Any, class_path: str) -> bool:
    return isinstance(part, dict) and str(part.get("class_path", "")).startswith(class_path)


def on_fake_images(path: Path, tmp_path: Path, feature_net: Path | None = None) -> Path:
    """The configuration with few images of the same kind in place of its data, and few samples of its likelihood."""
    config = read(path)
    if feature_net is not None:
        config = with_small_networks(config, feature_net)
    config["trainer"].pop("accumulate_grad_batches", None)
    config["trainer"].pop("sync_batchnorm", None)
    module, cls = config["data"]["class_path"].rsplit(".", 1)
    spec = getattr(importlib.import_module(module), cls)(**config["data"].get("init_args", {})).spec
    assert spec.height == spec.width
    init_args = {"channels": spec.channels, "size": spec.height, "num_classes": spec.num_classes, "values": spec.values}
    few = FEW
    if name(path) in HEAVY:
        config, few = narrowed(config), {"num_train": 8, "num_val": 8, "num_test": 8, "batch_size": 2}
        if spec.height > 64:
            config["model"], init_args["size"] = quartered(config["model"]), spec.height // 4
    config["data"] = {"class_path": "lit_vae.data.FakeImages", "init_args": {**init_args, **few}}
    config["trainer"].update(SHORT)
    config["trainer"].pop("val_check_interval", None)
    config["trainer"]["callbacks"] = narrowed(config["trainer"]["callbacks"])
    if name(path) in WIDE:
        config["model"] = narrowed(config["model"])
    if name(path) in HEAVY:
        kept = [c for c in config["trainer"]["callbacks"] if c["class_path"] != "callbacks.Draws"]
        config["trainer"] |= {"callbacks": kept, **ONE_BATCH}
    for callback in config["trainer"]["callbacks"]:
        if callback["class_path"] == "callbacks.ImportanceSampledNLL":
            callback["init_args"] = {"num_samples": 3, "chunk": 2}
    fake = tmp_path / path.name
    fake.write_text(yaml.safe_dump(config))
    return fake
