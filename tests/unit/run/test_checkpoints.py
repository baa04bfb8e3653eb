"""Checkpoints are whole, plain, and hold every random state."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_vae.run.checkpoints import AtomicCheckpointIO
from lit_vae.run.random_state import random_state, set_random_state


def draws() -> tuple[float, float, torch.Tensor]:
    return random.random(), float(np.random.rand()), torch.rand(3)  # noqa: NPY002


def test_random_states_are_restored_from_plain_data(tmp_path: Path) -> None:
    torch.save(random_state(), tmp_path / "state")
    a = draws()
    draws()
    set_random_state(torch.load(tmp_path / "state", weights_only=True))
    b = draws()
    assert a[:2] == b[:2]
    assert torch.equal(a[2], b[2])


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"step": 1}, path)

    def full_disk(checkpoint: dict[str, Any], file: Any) -> None:
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        io.save_checkpoint({"step": 2}, path)
    assert io.read(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"evil": Path("x").exists}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"cannot be read \(it holds Python objects, and only plain data are loaded: "):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "evil.ckpt", weights_only=False)


def test_a_missing_checkpoint_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"checkpoint: .*none.ckpt does not exist. Give the path of a .ckpt file"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "none.ckpt")


def test_a_file_that_is_no_checkpoint_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "junk.ckpt").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"checkpoint: .*junk.ckpt cannot be read .* Give another checkpoint\."):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "junk.ckpt")


def test_an_interrupted_write_is_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch cannot close the file that was being written, and says that instead."""
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"step": 1}, path)

    def stumbling(checkpoint: dict[str, Any], file: Any) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("unexpected pos 374080 vs 374032")

    monkeypatch.setattr(torch, "save", stumbling)
    with pytest.raises(KeyboardInterrupt):
        io.save_checkpoint({"step": 2}, path)
    assert io.read(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
