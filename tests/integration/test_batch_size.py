"""The numbers of an evaluation are those of the split, whatever its batches."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_configs import SHORT, Lightning, content, covering, name, on_fake_data
from test_configs import CONFIGS

from lit_vae.intervals import GROUPS

OF_A_BATCH = {"vae/mnist_binary_cyclical.yaml", "vqvae/digits_gradient.yaml", "vqvae/digits_lfq.yaml"}
"""Free bits, and the entropy penalties: of these training minimises what only a batch has."""

DRAW = ("Curves", "Reconstructions", "Samples", "Interpolations", "Traversals", "Draws", "ClassSheet", "GANHealth")
ONLY_TRAIN = ("lit_vae.data.", "torch.", *(f"callbacks.{panel}" for panel in DRAW))


def classes(part: Any) -> set[str]:
    """Every class that a configuration names and that an evaluation meets."""
    if isinstance(part, Path):
        return classes(content(part))
    if isinstance(part, str) and part.startswith(("lit_vae.", "callbacks.")) and not part.startswith(ONLY_TRAIN):
        return {part}
    parts = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return set().union(*map(classes, parts))


CHOSEN = covering(CONFIGS, classes)
"""A number depends on batches by what makes it: each class is in one of these configurations at least."""
MARKED = [
    pytest.param(path, marks=() if name(path) in OF_A_BATCH else pytest.mark.slow, id=name(path))
    for path in sorted({*CHOSEN, *(path for path in CONFIGS if name(path) in OF_A_BATCH)})
]


@pytest.mark.parametrize("path", MARKED)
@pytest.mark.filterwarnings("ignore:(LPIPS|Inception).*random")
def test_an_evaluation_does_not_depend_on_the_batch_size(
    path: Path, lightning: Lightning, feature_net: Path, tmp_path: Path
) -> None:
    """24 images, or 8 large ones, in batches of which the last is not full, and one at a time; in float64."""
    config = on_fake_data(path, tmp_path, lightning, feature_net)
    if name(path) in OF_A_BATCH:  # their own terms alone: what callbacks measure is tried in the slow set
        config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"trainer": {**SHORT, "callbacks": []}}))
    run, found, without_each = tmp_path / "run", [], []
    lightning("fit", "--config", config, "--run_dir", run)
    for batch_size in (7, 1):
        whole = ["--trainer.limit_test_batches=1.0", "--trainer.precision=64-true"]
        given = ["--ckpt_path", "last", f"--data.init_args.batch_size={batch_size}", *whole]
        lightning("test", "--config", run / "config.yaml", *given)
        record = json.loads((run / "test_metrics.json").read_text())
        found.append(record["metrics"])
        without_each.append(record["replicates"])
    assert found[1] == pytest.approx(found[0], rel=1e-5, abs=1e-5)
    assert without_each[0].keys() == without_each[1].keys()
    for metric, replicates in without_each[0].items():
        assert len(replicates) == GROUPS
        assert without_each[1][metric] == pytest.approx(replicates, rel=1e-5, abs=1e-5)
        assert sum(replicates) / GROUPS == pytest.approx(found[0][metric], rel=0.2, abs=0.2)
