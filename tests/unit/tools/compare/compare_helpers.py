"""Run directories of files alone, as the tests of ``lit-vae compare`` need them."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml

from lit_vae.tools.compare.gather import Entry, read_entry
from lit_vae.tools.compare.numbers import Number
from lit_vae.tools.records import Records

DIGITS = {"class_path": "lit_vae.data.Digits", "init_args": {"seed": 0, "dequantize": True, "batch_size": 64}}
SHA = "0" * 64


def make_run(
    folder: Path,
    name: str,
    test: dict[str, float | None] | None = None,
    model: str = "VAE",
    data: dict[str, Any] | None = None,
    run: dict[str, Any] | None = None,
    csv: str = "",
    checkpoints: dict[str, Any] | None = None,
    of: dict[str, Any] | None = None,
) -> str:
    """A run directory; ``of`` replaces what ``test_metrics.json`` says of its numbers."""
    path = folder / name
    path.mkdir(parents=True)
    config = {"model": {"class_path": f"lit_vae.models.{model}", "init_args": {"image_shape": [1, 8, 8]}}}
    (path / "config.yaml").write_text(yaml.safe_dump({**config, "data": data or DIGITS}))
    if test is not None:
        record = {"checkpoint": "best.ckpt", "checkpoint_sha256": SHA, "data": "Digits", "data_seed": 0}
        record |= {"image_shape": [1, 8, 8], "values": "dequantized", "num_images": 180, **(of or {})}
        write(path / "test_metrics.json", {**record, "metrics": {f"test/{k}": v for k, v in test.items()}})
    if run is not None:
        write(path / "run.json", run)
    if csv:
        (path / "metrics.csv").write_text(csv)
    for file, content in (checkpoints or {}).items():
        (path / "checkpoints").mkdir(exist_ok=True)
        torch.save({"state_dict": {}, **content}, path / "checkpoints" / f"{file}.ckpt")
    return str(path)


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def read(run: str, checkpoint: Any = "best") -> Entry:
    return read_entry(run, Path(run).name, checkpoint)


def entry(label: str, numbers: dict[str, Number] | None = None, **records: Any) -> Entry:
    """A run that is in no directory."""
    empty: dict[str, Any] = {"config": {}, "run": {}, "test": {}, "priors": {}, "evaluation": {}}
    known = Records(Path("runs") / label, **{**empty, **records})
    return Entry(label, label, known, None, "", None, numbers or {}, {}, ())


def number(value: float, split: str = "test", protocol: dict[str, Any] | None = None, **data: Any) -> Number:
    return Number(value, split, data, protocol or {})
