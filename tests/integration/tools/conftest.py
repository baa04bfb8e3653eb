"""Small runs of the quickstart, and the ``lit-vae`` command."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from study_helpers import Pages, stand_in
from tools_helpers import ROOT, Fails, RunCopy, Tools, trained

from lit_vae.cli import main as lightning_main
from lit_vae.tools import main


def config_of(family: str) -> dict[str, Any]:
    """The quickstart's configuration, small, for another family: a CVAE with averaged weights, an AE with a map."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "vae" / "digits.yaml").read_text())
    config["trainer"] |= {"max_epochs": 2, "limit_train_batches": 6, "check_val_every_n_epoch": 1, "callbacks": []}
    config["trainer"] |= {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    model = config["model"]["init_args"]
    if family == "CVAE":
        config["trainer"]["callbacks"] = [{"class_path": "callbacks.EMA"}]
        model["num_classes"] = 10
        prior = {"class_path": "lit_vae.priors.ClassConditionalNormal", "init_args": {"shape": [8], "num_classes": 10}}
        model["prior"] = prior
    if family == "AE":
        del model["prior"], model["objective"]
        model["latent_shape"] = [2, 4, 4]
        for name in ("encoder", "decoder"):
            init_args = {"width": 8, "multipliers": [1, 1]}
            model[name] = {"class_path": f"lit_vae.networks.Conv{name.title()}", "init_args": init_args}
    config["model"]["class_path"] = f"lit_vae.models.{family}"
    return config


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each family; nobody writes into them but below ``sheets``."""
    folder = tmp_path_factory.mktemp("runs")
    trained = {}
    with pytest.MonkeyPatch.context() as patch:
        for family in ("VAE", "CVAE", "AE"):
            config, trained[family] = folder / f"{family}.yaml", folder / family
            config.write_text(yaml.safe_dump(config_of(family)))
            patch.setattr(sys, "argv", ["lightning", "fit", "--config", str(config), "--run_dir", str(folder / family)])
            lightning_main()
    return trained


@pytest.fixture(scope="session")
def hierarchy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step of a hierarchy of three levels."""
    folder = tmp_path_factory.mktemp("hierarchy")
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "hvae" / "digits.yaml").read_text())
    config["trainer"] = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1, "logger": False}
    config["trainer"] |= {"enable_progress_bar": False, "enable_model_summary": False}
    return trained(config, folder)


@pytest.fixture(scope="session")
def pixelcnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a PixelCNN on binary digits that is not told labels."""
    folder = tmp_path_factory.mktemp("pixelcnn")
    network = {"width": 8, "layers": 2, "kernel_size": 3, "head_width": 8}
    config: dict[str, Any] = {
        "trainer": {"max_epochs": 1, "limit_train_batches": 2, "logger": False, "enable_progress_bar": False},
        "model": {
            "class_path": "lit_vae.models.PixelCNN",
            "init_args": {
                "image_shape": [1, 8, 8],
                "network": {"class_path": "lit_vae.networks.GatedPixelCNN", "init_args": network},
                "likelihood": {"class_path": "lit_vae.likelihoods.Bernoulli"},
                "optimizer": {"class_path": "torch.optim.Adam"},
            },
        },
        "data": {"class_path": "lit_vae.data.Digits", "init_args": {"binarization": "static"}},
    }
    config["trainer"]["enable_model_summary"] = False
    return trained(config, folder)


@pytest.fixture(scope="session")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step of a small network on digits, with classes and guidance."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "diffusion" / "digits.yaml").read_text())
    config["trainer"] = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1, "logger": False}
    config["trainer"] |= {"enable_progress_bar": False, "enable_model_summary": False}
    model = config["model"]["init_args"]
    model["network"]["init_args"] = {"width": 8, "multipliers": [1], "blocks": 1}
    model["sampling"]["init_args"]["steps"] = 4
    return trained(config, tmp_path_factory.mktemp("diffusion"))


@pytest.fixture
def run_copy(runs: dict[str, Path], tmp_path: Path) -> RunCopy:
    """A copy of a run, to write into."""
    return lambda family: Path(shutil.copytree(runs[family], tmp_path / family))


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tools:
    """The ``lit-vae`` command, run in this process; returns what it prints."""

    def run(*args: Any) -> str:
        monkeypatch.setattr(sys, "argv", ["lit-vae", *map(str, args)])
        main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fails:
    """The ``lit-vae`` command that must fail with this code; returns its message."""

    def run(code: int, *args: Any) -> str:
        monkeypatch.setattr(sys, "argv", ["lit-vae", *map(str, args)])
        with pytest.raises(SystemExit) as exit_info:
            main()
        assert exit_info.value.code == code
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert "Traceback" not in message
        return message

    return run


@pytest.fixture
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def pages() -> Iterator[Pages]:
    """No page is made; see `study_helpers.stand_in`."""
    with stand_in() as made:
        yield made
