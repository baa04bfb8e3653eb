"""What the tests of ``lit-vae`` look at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lit_vae.cli import main as lightning_main
from lit_vae.tools.runs import find_run, load_data, load_model

Tools = Callable[..., str]
Fails = Callable[..., str]
RunCopy = Callable[[str], Path]
CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[3]


def trained(config: dict[str, Any], folder: Path) -> Path:
    """The run of a configuration."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        command = ["lightning", "fit", "--config", str(folder / "config.yaml"), "--run_dir", str(folder / "run")]
        patch.setattr("sys.argv", command)
        lightning_main()
    return folder / "run"


def model_of(run: Path) -> Any:
    return load_model(find_run(str(run), "best"), CPU)


def data_of(run: Path) -> Any:
    return load_data(find_run(str(run), "best"), model_of(run), None, [])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)
