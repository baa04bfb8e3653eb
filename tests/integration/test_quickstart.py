"""The quickstart learns something: it explains held-out digits better than the best linear model of its size."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Lightning = Callable[..., None]


@pytest.mark.slow
def test_the_quickstart_beats_principal_components(lightning: Lightning, digits_config: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(digits_config.read_text())
    config["model"] = {"class_path": "lit_vae.models.PCA", "init_args": {"image_shape": [1, 8, 8], "latent_dim": 8}}
    config["trainer"] |= {"max_epochs": 1, "check_val_every_n_epoch": 1}
    pca = tmp_path / "pca.yaml"
    pca.write_text(yaml.safe_dump(config))
    metrics = {}
    for name, path in (("vae", digits_config), ("pca", pca)):
        run = tmp_path / name
        lightning("fit", "--config", path, "--run_dir", run)
        lightning("test", "--config", run / "config.yaml", "--ckpt_path", "best")
        metrics[name] = json.loads((run / "test_metrics.json").read_text())["metrics"]
    # of PCA the likelihood is exact; of the VAE it is bounded, with the tighter bound below the looser one
    assert metrics["vae"]["test/nll_iw128"] < -metrics["vae"]["test/elbo"] < -metrics["pca"]["test/elbo"]
    assert metrics["pca"]["test/nll_iw128"] == pytest.approx(-metrics["pca"]["test/elbo"], rel=1e-4)
    assert metrics["vae"]["test/psnr"] > metrics["pca"]["test/psnr"]
