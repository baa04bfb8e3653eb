"""The two-stage path on digits, trained once for all tests that look at it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from two_stages_helpers import CONFIGS, QUIET, TwoStages

from lit_vae.cli import main as lightning_main
from lit_vae.tools import main as lit_vae_main


@pytest.fixture(scope="session")
def two_stages(tmp_path_factory: pytest.TempPathFactory) -> TwoStages:
    """Train both stages with small networks, for two epochs."""
    folder = tmp_path_factory.mktemp("two_stages")
    made = TwoStages(folder / "stage1", folder / "codes", folder / "prior")
    with pytest.MonkeyPatch.context() as patch:

        def run(main: Callable[[], None], *args: Any) -> None:
            patch.setattr(sys, "argv", [*map(str, args)])
            main()

        stage1 = ["--config", CONFIGS / "vqvae" / "digits.yaml", "--run_dir", made.stage1, "--trainer.callbacks=[]"]
        stage1 += [f"--model.{network}.width=16" for network in ("encoder", "decoder")]
        run(lightning_main, "lightning", "fit", *stage1, "--trainer.max_epochs=2", *QUIET)
        run(lit_vae_main, "lit-vae", "encode", made.stage1, "--out", made.codes)
        prior = ["--config", CONFIGS / "prior" / "digits.yaml", "--run_dir", made.prior, "--data.root", made.codes]
        prior += ["--model.networks.width=16", "--model.networks.head_width=16"]
        run(lightning_main, "lightning", "fit", *prior, "--trainer.max_epochs=2", *QUIET)
    return made


@pytest.fixture(scope="session")
def feature_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a FeatureNet of colour images, which measures grey ones too; hardly trained."""
    config = yaml.safe_load((CONFIGS / "feature_net" / "digits.yaml").read_text())
    config["model"]["init_args"]["image_shape"] = [3, 8, 8]
    few = {"num_train": 24, "num_val": 24, "num_test": 24, "batch_size": 12}
    init_args = {"channels": 3, "size": 8, "num_classes": 10, "values": "uint8", **few}
    config["data"] = {"class_path": "lit_vae.data.FakeImages", "init_args": init_args}
    config["trainer"] = {"max_epochs": 1, "log_every_n_steps": 1, "callbacks": []}
    folder = tmp_path_factory.mktemp("feature_net")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lightning", "fit", "--config", f"{folder}/config.yaml", f"--run_dir={folder}/run"])
        lightning_main()
    return folder / "run" / "checkpoints" / "last.ckpt"


@pytest.fixture
def lit_vae(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The ``lit-vae`` command, run in this process."""

    def run(*args: str | Path) -> None:
        monkeypatch.setattr(sys, "argv", ["lit-vae", *map(str, args)])
        lit_vae_main()

    return run
