"""Images that are broken or not finite: named with the rank that met them; no hang, and no checkpoint is spoilt."""

import re
from pathlib import Path

import pytest
import yaml
from injected_faults import fault
from PIL import Image
from test_ranks_fail import ROOT, train

from lit_vae.run.checkpoints import AtomicCheckpointIO


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two ranks, each with a data worker, and a checkpoint at every step."""
    content = yaml.safe_load((ROOT / "configs" / "vae" / "digits.yaml").read_text())
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(48):
        Image.new("L", (8, 8), i).save(folder / f"{i:02d}.png")
    data = {"root": str(folder), "size": 8, "channels": 1, "num_val": 8, "num_test": 8, "batch_size": 4}
    data |= {"in_memory_mb": 0, "num_workers": 1}
    content["data"] = {"class_path": "lit_vae.data.ImageFolder", "init_args": data}
    callbacks = [{"class_path": "injected_faults.Fault"}, {"class_path": "callbacks.NaNGuard"}]
    content["trainer"] |= {"callbacks": callbacks, "accelerator": "cpu", "devices": 2, "strategy": "ddp"}
    content["last_checkpoint"] = {"every_n_steps": 1}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.slow
def test_an_image_that_breaks_in_training_is_named_by_the_rank_that_reads_it(config: Path, tmp_path: Path) -> None:
    ended = train(config, tmp_path / "run", **fault("break", "on_train_batch_start"), BROKEN=str(tmp_path / "photos"))
    assert ended.code != 0
    assert ended.left == []
    assert ended.seconds < 15
    named = rf"\[rank\d\]: ValueError: {re.escape(str(tmp_path))}/photos/\d+\.png: not a complete image \(.*Delete"
    assert re.search(named, ended.said)


@pytest.mark.slow
def test_an_image_that_is_not_finite_stops_both_ranks_and_spoils_no_checkpoint(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = train(config, run, **fault("nan", "on_train_batch_start"))
    assert ended.code == 1
    assert ended.left == []
    assert ended.said.count("NaNGuard: not finite at step 7, before the optimizer changed a weight") == 1
    assert "the images themselves (1 of 8 images, on rank 1)" in ended.said
    assert "Traceback" not in ended.said
    content = AtomicCheckpointIO().load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert content["global_step"] == 7
    assert all(bool(value.isfinite().all()) for value in content["state_dict"].values())
