"""What the tests of ``lit-vae`` look at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lit_vae.tools.runs import find_run, load_data, load_model

Tools = Callable[..., str]
Fails = Callable[..., str]
RunCopy = Callable[[str], Path]
CPU = torch.device("cpu")


def model_of(run: Path) -> Any:
    return load_model(find_run(str(run), "best"), CPU)


def data_of(run: Path) -> Any:
    return load_data(find_run(str(run), "best"), model_of(run), None, [])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)
