"""What is mutated: the shipped configurations, with small networks and few images, completed by the parser."""

import contextlib
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from data_helpers import write_mnist
from fake_configs import FEW, HEAVY, ROOT, configurations, name, narrowed, on_fake_data, read
from fuzz_workers import lightning
from PIL import Image

CALLBACKS = 3
LARGE = {path for path in HEAVY if path.split("/")[0] != "compare"}
"""Of these every setting is also set by a smaller one, but for what `test_every_setting...` names."""
SHORT = {"max_steps": 2, "limit_val_batches": 1, "limit_train_batches": 2}


def shipped() -> list[Path]:
    """The configurations of experiments, but for those that take seconds a step whatever is made small."""
    return [path for path in configurations() if name(path) not in LARGE]


def few_callbacks(paths: list[Path]) -> dict[Path, list[str]]:
    """At most `CALLBACKS` of the callbacks of each configuration, and each somewhere: drawing takes long."""
    had: Counter[str] = Counter()
    kept = {}
    for path in paths:
        listed = [callback["class_path"] for callback in read(path)["trainer"]["callbacks"]]
        kept[path] = sorted(dict.fromkeys(listed), key=lambda class_path: had[class_path])[:CALLBACKS]
        had.update(kept[path])
    return kept


def feature_net(folder: Path) -> None:
    """Train a FeatureNet hardly at all: ``folder/run``."""
    config = yaml.safe_load((ROOT / "configs" / "feature_net" / "digits.yaml").read_text())
    config["model"]["init_args"]["image_shape"] = [3, 8, 8]
    init_args = {"channels": 3, "size": 8, "num_classes": 10, "values": "uint8", **FEW}
    config["data"] = {"class_path": "lit_vae.data.FakeImages", "init_args": init_args}
    config["trainer"] = {"max_epochs": 1, "log_every_n_steps": 1, "callbacks": []}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    lightning("fit", "--config", folder / "config.yaml", "--run_dir", folder / "run")


def completed(path: Path, folder: Path, feature_net: Path, callbacks: list[str]) -> None:
    """Write ``folder/base.yaml``: the configuration on few images, with every default in it."""
    small = yaml.safe_load(on_fake_data(path, folder, lightning, feature_net).read_text())
    shipped_data = read(path)["data"]
    if shipped_data["class_path"] in OWN_DATA and name(path) not in HEAVY:
        small["data"] = OWN_DATA[shipped_data["class_path"]](shipped_data, folder)
    small = narrowed(small)
    kept = [callback for callback in small["trainer"]["callbacks"] if callback["class_path"] in callbacks]
    small["trainer"] |= {**SHORT, "callbacks": kept}
    (folder / "small.yaml").write_text(yaml.safe_dump(small))
    said = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said):
        lightning("fit", "--config", folder / "small.yaml", "--print_config")
    (folder / "base.yaml").write_text(said.getvalue())


def _folder_of_images(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    for i in range(40):
        path = folder / "photos" / f"kind_{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
    few = {"root": str(folder / "photos"), "num_val": 16, "num_test": 8, "batch_size": 6, "num_workers": 0}
    init_args = {key: value for key, value in data["init_args"].items() if key != "resize"}
    return {**data, "init_args": {**init_args, **few}}


def _mnist(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    few = {"root": str(write_mnist(folder / "data", 60, 20)), "num_val": 24, "batch_size": 12}
    return {**data, "init_args": {**data["init_args"], **few}}


def _digits(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {**data, "init_args": {**data["init_args"], "batch_size": 12}}


OWN_DATA = {
    "lit_vae.data.ImageFolder": _folder_of_images,
    "lit_vae.data.MNIST": _mnist,
    "lit_vae.data.Digits": _digits,
}
