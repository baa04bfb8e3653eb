"""Every configuration of the repository runs: two batches of training, a validation with all pictures, and a test."""

import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_vae.tools.codes import encode

Lightning = Callable[..., None]
ROOT = Path(__file__).resolve().parents[2]
NO_EXPERIMENTS = ("overlays", "sweeps")
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name not in NO_EXPERIMENTS)
OVERLAYS = sorted((ROOT / "configs" / "overlays").glob("*.yaml"))
UNTRIED = {"ddp": ("strategy", "ddp"), "compile": ("callbacks", "callbacks.Compile")}
"""Overlays that need several devices, or a compiler for a minute, and what they set."""


FEW = {"num_train": 24, "num_val": 24, "num_test": 24, "batch_size": 12}
ONE_BATCH = {"limit_train_batches": 1, "limit_val_batches": 1, "limit_test_batches": 1}
SHORT = {"max_epochs": 1, "check_val_every_n_epoch": 1, "log_every_n_steps": 1}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "configs"))


HEAVY = {  # seconds a step on a processor
    "compare/bsds/vector_perceptual_gan.yaml",
    "kl_autoencoder/bsds_crops64.yaml",
    "kl_autoencoder/cifar10.yaml",
    "kl_autoencoder/image_folder256.yaml",
    "kl_autoencoder/kl_f16.yaml",
    "kl_autoencoder/kl_f4.yaml",
    "kl_autoencoder/kl_f8.yaml",
    "kl_autoencoder/sd_vae_ft_mse.yaml",
    "pixelcnn/cifar10.yaml",
    "pixelcnn/mnist.yaml",
    "pixelcnn/mnist_binary_large.yaml",
    "pixelcnn/mnist_short.yaml",
    "prior/vqvae2_ffhq256.yaml",
    "vqvae2/ffhq256.yaml",
    "vqvae/vqgan_imagenet256.yaml",
    "vqvae2/imagenet256.yaml",
}
MARKED = [pytest.param(p, marks=pytest.mark.slow if name(p) in HEAVY else (), id=name(p)) for p in CONFIGS]


def on_fake_data(path: Path, tmp_path: Path, lightning: Lightning, feature_net: Path) -> Path:
    """The configuration with few images, or codes of them, in place of its data."""
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    if config["data"]["class_path"] != "lit_vae.data.Codes":
        return on_fake_images(path, tmp_path, feature_net)
    config["data"]["init_args"] |= {"root": str(fake_codes(config["model"]["init_args"], tmp_path, lightning))}
    config["data"]["init_args"] |= {"batch_size": 12, "collapse_threshold": 0.0}
    config["trainer"].update(SHORT)
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
    init_args = {"channels": 1, "size": size, "num_classes": prior.get("num_classes", 0), "values": "uint8", **FEW}
    config["data"] = {"class_path": "lit_vae.data.FakeImages", "init_args": init_args}
    config["trainer"] = {**SHORT, "callbacks": []}
    (tmp_path / "stage1.yaml").write_text(yaml.safe_dump(config))
    lightning("fit", "--config", tmp_path / "stage1.yaml", "--run_dir", tmp_path / "stage1")
    encode(str(tmp_path / "stage1"), str(tmp_path / "codes"), checkpoint="last")
    return tmp_path / "codes"


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
        init_args = {**config["init_args"], "weight": 0.5, "train_from": 0}
        return {**config, "init_args": init_args}
    if _is(config, "lit_vae.networks.LDM"):  # a sixteenth of the work of the published width
        init_args = {**config["init_args"], "width": min(32, config["init_args"]["width"])}
        return {**config, "init_args": init_args}
    if _is(config, "callbacks.SampleQuality"):
        config = {**config, "init_args": {**config["init_args"], "num_images": 12}}
    if _is(config, "lit_vae.features.LPIPS") or _is(config, "lit_vae.features.Inception"):
        return {**config, "init_args": {**config.get("init_args", {}), "weights": "random"}}
    return {key: with_small_networks(part, feature_net) for key, part in config.items()}


def _is(part: Any, class_path: str) -> bool:
    return isinstance(part, dict) and str(part.get("class_path", "")).startswith(class_path)


def on_fake_images(path: Path, tmp_path: Path, feature_net: Path | None = None) -> Path:
    """The configuration with few images of the same kind in place of its data, and few samples of its likelihood."""
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    if feature_net is not None:
        config = with_small_networks(config, feature_net)
    config["trainer"].pop("accumulate_grad_batches", None)
    config["trainer"].pop("sync_batchnorm", None)
    module, cls = config["data"]["class_path"].rsplit(".", 1)
    spec = getattr(importlib.import_module(module), cls)(**config["data"].get("init_args", {})).spec
    assert spec.height == spec.width
    init_args = {"channels": spec.channels, "size": spec.height, "num_classes": spec.num_classes, "values": spec.values}
    few = {**FEW, "batch_size": 2} if name(path) in HEAVY else FEW
    config["data"] = {"class_path": "lit_vae.data.FakeImages", "init_args": {**init_args, **few}}
    config["trainer"].update(SHORT)
    config["trainer"].pop("val_check_interval", None)
    if name(path) in HEAVY:
        kept = [c for c in config["trainer"]["callbacks"] if c["class_path"] != "callbacks.Draws"]
        config["trainer"] |= {"callbacks": kept, **ONE_BATCH}
    for callback in config["trainer"]["callbacks"]:
        if callback["class_path"] == "callbacks.ImportanceSampledNLL":
            callback["init_args"] = {"num_samples": 3, "chunk": 2}
    fake = tmp_path / path.name
    fake.write_text(yaml.safe_dump(config))
    return fake


@pytest.mark.parametrize("path", MARKED)
@pytest.mark.filterwarnings("ignore:(LPIPS|Inception).*random")
def test_a_configuration_trains_draws_and_tests(
    path: Path, lightning: Lightning, feature_net: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    lightning("fit", "--config", on_fake_data(path, tmp_path, lightning, feature_net), "--run_dir", run)
    panels = {folder.name for folder in (run / "media").glob("*")}
    wanted = {callback["class_path"] for callback in yaml.safe_load(path.read_text())["trainer"]["callbacks"]}
    assert ("callbacks.Reconstructions" in wanted) == ("reconstructions" in panels)
    assert ("callbacks.LatentScatter" in wanted) == ("latent_scatter" in panels)
    assert ("callbacks.Draws" in wanted and name(path) not in HEAVY) == ("draws" in panels)
    lightning("test", "--config", run / "config.yaml", "--ckpt_path", "last")
    metrics = json.loads((run / "test_metrics.json").read_text())["metrics"]
    assert ("callbacks.ImageQuality" in wanted) == ("test/psnr" in metrics)
    assert all(math.isfinite(value) for value in metrics.values())
    assert {"test/elbo", "test/distortion", "test/nll", "test/rate", "test/cross_entropy"} & set(metrics)
    if "callbacks.ImportanceSampledNLL" in wanted:
        # a tighter bound of the same quantity; three samples of a handful of images can miss by chance, not by much
        assert metrics["test/nll_iw3"] < -metrics["test/elbo"] + 0.05 * abs(metrics["test/elbo"])


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_a_configuration_says_how_it_is_run(path: Path) -> None:
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"lightning fit --config configs/{name(path)}" in line for line in head)


@pytest.mark.parametrize(
    "overlay",
    [  # Inception looks at a hundred images
        pytest.param(path, marks=pytest.mark.slow if path.stem == "fid" else (), id=path.stem)
        for path in OVERLAYS
        if path.stem not in UNTRIED
    ],
)
@pytest.mark.filterwarnings("ignore:(LPIPS|Inception).*random")
def test_an_overlay_lies_over_a_configuration(
    overlay: Path, lightning: Lightning, feature_net: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = on_fake_images(ROOT / "configs" / "vae" / "mnist.yaml", tmp_path)
    small = tmp_path / f"small_{overlay.name}"
    small.write_text(yaml.safe_dump(with_small_networks(yaml.safe_load(overlay.read_text()), feature_net)))
    lightning("fit", "--config", config, "--config", small, "--run_dir", run)
    saved = yaml.safe_load((run / "config.yaml").read_text())["trainer"]
    if overlay.stem == "bf16":
        assert saved["precision"] == "bf16-mixed"
        assert [callback["class_path"] for callback in saved["callbacks"]][-1] == "callbacks.ChannelsLast"
        assert len(saved["callbacks"]) > 1
    if overlay.stem == "fid":
        lightning("test", "--config", run / "config.yaml", "--ckpt_path", "last")
        metrics = json.loads((run / "test_metrics.json").read_text())["metrics"]
        kinds = ("fd", "rfd", "kd", "precision", "recall", "density", "coverage")
        assert all(math.isfinite(metrics[f"test/{kind}_inception_random"]) for kind in kinds)
    if overlay.stem == "tensorboard":
        assert list((run / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.parametrize("overlay", UNTRIED)
def test_an_overlay_parses(overlay: str, lightning: Lightning, capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / "configs" / "overlays" / f"{overlay}.yaml"
    with pytest.raises(SystemExit) as exit_info:
        lightning("fit", "--config", ROOT / "configs" / "vae" / "mnist.yaml", "--config", path, "--print_config")
    assert exit_info.value.code == 0
    key, value = UNTRIED[overlay]
    assert value in str(yaml.safe_load(capsys.readouterr().out)["trainer"][key])
