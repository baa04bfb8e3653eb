"""Which verb reads which file of a run, in which ways a file can be damaged, and which of all cases are tried."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

CHECKPOINT, MIXTURE = "checkpoints/best.ckpt", "priors/gmm.pt"
RECORDS = ("run.json", "test_metrics.json", "evaluation.json", "priors/gmm.json", "latents.json")
FILES = (CHECKPOINT, MIXTURE, *RECORDS, "config.yaml", "metrics.csv")

VERBS: dict[str, list[str]] = {
    "sample": ["sample", "RUN", "--n", "4"],
    "sample gmm": ["sample", "RUN", "--n", "4", "--prior", "gmm"],
    "reconstruct": ["reconstruct", "RUN", "--n", "2"],
    "interpolate": ["interpolate", "RUN", "--pairs", "1", "--steps", "3"],
    "traverse": ["traverse", "RUN", "--dims", "1", "--steps", "2"],
    "encode": ["encode", "RUN"],
    "fit-prior": ["fit-prior", "RUN", "--components", "1"],
    "evaluate": ["evaluate", "RUN", "--features", "pca", "--num_images", "130"],
    "evaluate gmm": ["evaluate", "RUN", "--features", "pca", "--num_images", "130", "--prior", "gmm"],
    "latents": ["latents", "RUN"],
    "export": ["export", "RUN"],
    "table": ["table", "RUN", "--out", "OUT/table.md"],
    "compare": ["compare", "RUN", "RUN@gmm", "--num_images", "2", "--out", "OUT/page"],
    "prepare": ["prepare", "RUN/config.yaml", "--check", "true"],
    "submit": ["submit", "RUN/config.yaml", "--gpus", "0", "--dry_run", "true"],
    "study": ["study", "OUT/study", "--out", "OUT/runs", "--part", "runs"],
    "sync": ["sync", "RUN", "--dry_run", "true"],
}
REFUSE_A_VAE = {
    "export": "its networks are MLP and MLP, which others do not have",
    "sync": "there is no wandb/",
}
"""What these say of this run, whole or not; before that they read files."""
NO_CHECKPOINT = ("table", "prepare", "submit", "study", "sync")
READ_BY = {
    CHECKPOINT: [verb for verb in VERBS if verb not in NO_CHECKPOINT],
    MIXTURE: ["sample gmm", "evaluate gmm", "compare"],
    "run.json": ["table", "compare"],
    "test_metrics.json": ["table", "compare", "export"],
    "evaluation.json": ["table", "compare", "evaluate", "evaluate gmm"],
    "priors/gmm.json": ["table", "compare"],
    "latents.json": ["export"],
    "config.yaml": ["table", "compare", "prepare", "submit"],
    "metrics.csv": ["compare"],
}


def other_form(path: Path) -> bytes:
    """A file of the same kind that is of something else."""
    if path.suffix in (".ckpt", ".pt"):
        file = io.BytesIO()
        torch.save([torch.zeros(2)], file)
        return file.getvalue()
    return {".json": b"[1, 2]\n", ".yaml": b"- model\n- data\n", ".csv": b"a,b\n1,2\n"}[path.suffix]


def wrong_values(path: Path) -> bytes:
    """The right keys with values that cannot be."""
    if path.suffix in (".ckpt", ".pt"):
        content = torch.load(path, weights_only=True)
        for tensor in [*content.get("state_dict", content).values()]:
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                tensor.fill_(torch.nan)
        file = io.BytesIO()
        torch.save(content, file)
        return file.getvalue()
    if path.suffix == ".json":
        return json.dumps({key: {"metrics": 3} for key in json.loads(path.read_text())}).encode()
    return {".yaml": b"model: 3\ndata: [1]\n", ".csv": b"\xff\xfe\x00"}[path.suffix]


DAMAGES: dict[str, Callable[[Path], bytes]] = {
    "emptied": lambda path: b"",
    "cut in half": lambda path: path.read_bytes()[: path.stat().st_size // 2],
    "text": lambda path: b"no \x00 such: thing [\n",
    "of another form": other_form,
    "of wrong values": wrong_values,
}
GONE = "gone"
READERS = [verb for verb in VERBS if any(verb in verbs for verbs in READ_BY.values())]
HARMLESS = {("metrics.csv", "cut in half"), ("config.yaml", "cut in half")}  # what is left can be of a run

FIRST = {
    CHECKPOINT: "sample", MIXTURE: "sample gmm", "run.json": "table", "test_metrics.json": "table",
    "evaluation.json": "evaluate", "priors/gmm.json": "table", "latents.json": "export", "config.yaml": "table",
    "metrics.csv": "compare",
}  # fmt: skip
"""The reader of each file that comes to it first."""


def cases() -> list[Any]:
    """All triples of a verb, a file that it reads and a damage. The sixth damage is that the file is gone."""
    return [
        pytest.param(verb, name, damage, id=f"{verb}-{name}-{damage}")
        for verb in READERS
        for name in FILES
        for damage in (*DAMAGES, GONE)
        if verb in READ_BY[name] and (name, damage) not in HARMLESS
    ]


def damaged_to_no_harm(verb: str) -> list[tuple[str, str]]:
    """A damage for each file that a verb does not read; all damages come, and each file has several."""
    kinds = [*DAMAGES, GONE]
    unread = [name for name in FILES if verb not in READ_BY[name]]
    return [(name, kinds[([*VERBS].index(verb) + i) % len(kinds)]) for i, name in enumerate(unread)]
