"""``run.json``: what became of a run, and what it cost."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from lit_vae.data import FakeImages
from lit_vae.likelihoods import LearnedGaussian
from lit_vae.models import AE
from lit_vae.networks import MLP
from lit_vae.run.files import RECORD_FILE, read_json, replacing, write_json
from lit_vae.run.record import RunRecord, count_parameters


def fit(folder: Path, *callbacks: Callback, ckpt_path: Path | None = None, epochs: int = 2) -> dict:
    """Train a small autoencoder; its record."""
    network = lambda *shapes: MLP(*shapes, hidden=[4])  # noqa: E731
    model = AE([1, 4, 4], [2], network, network, LearnedGaussian(), lambda p: torch.optim.Adam(p, lr=1e-2))
    data = FakeImages(num_train=16, num_val=8, num_test=8, size=4, batch_size=8)
    trainer = Trainer(
        callbacks=list(callbacks), default_root_dir=folder, max_epochs=epochs, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
    trainer.save_checkpoint(folder / "last.ckpt")
    return read_json(folder / RECORD_FILE)


class Slow(Callback):
    """Takes a tenth of a second for each batch."""

    def on_train_batch_start(self, *args) -> None:
        """Wait."""
        import time

        time.sleep(0.1)


class Fails(Callback):
    """Ends a run in its third batch."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_batch_start(self, trainer, *args) -> None:
        """Raise."""
        if trainer.global_step == 2:
            raise self.error


def test_a_run_that_comes_to_its_end(tmp_path):
    record = fit(tmp_path, RunRecord(), Slow())
    assert (record["status"], record["step"], record["epoch"]) == ("finished", 4, 2)
    assert record["parameters"] == {
        "likelihood": 1,
        "encoder": 16 * 4 + 4 + 4 * 2 + 2,
        "decoder": 2 * 4 + 4 + 4 * 16 + 16,
    }
    assert 0.4 <= record["seconds"] < 60
    assert record["peak_memory_bytes"] > 2**26  # the process has torch in it
    assert (record["model"], record["ranks"], record["precision"]) == ("AE", 1, "32-true")


def test_a_resumed_run_goes_on_counting_seconds(tmp_path):
    first = fit(tmp_path, RunRecord(), Slow())
    second = fit(tmp_path, RunRecord(), ckpt_path=tmp_path / "last.ckpt", epochs=3)
    assert second["step"] == 6
    assert first["seconds"] < second["seconds"] < first["seconds"] + 60


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [(ValueError("no more\nsecond line"), "failed", "no more"), (RuntimeError(), "failed", "RuntimeError")],
)
def test_a_run_that_fails_says_of_what(tmp_path, error, status, words):
    with pytest.raises(type(error)):
        fit(tmp_path, RunRecord(), Fails(error))
    record = read_json(tmp_path / RECORD_FILE)
    assert (record["status"], record["error"], record["step"]) == (status, words, 2)


def test_a_run_that_is_killed_reads_as_running_at_its_last_validation(tmp_path):
    class Killed(Callback):
        seen: dict = {}  # noqa: RUF012

        def on_train_batch_start(self, trainer, *args) -> None:
            if trainer.global_step == 3:
                Killed.seen = read_json(tmp_path / RECORD_FILE)

    fit(tmp_path, RunRecord(), Killed())
    assert (Killed.seen["status"], Killed.seen["step"]) == ("running", 2)


def test_numbers_of_validations_keep_what_they_are_of(tmp_path):
    class Measures(Callback):
        protocols = {"fid": {"num_images": 8}}  # noqa: RUF012

    expected = {"val/fid": {"num_images": 8}}
    assert fit(tmp_path, RunRecord(), Measures())["protocols"] == expected
    # numbers of before are still there when a run goes on without measuring again
    assert fit(tmp_path, RunRecord(), ckpt_path=tmp_path / "last.ckpt", epochs=3)["protocols"] == expected


def test_parameters_that_belong_to_no_part_are_counted_once():
    model = nn.Module()
    model.part, model.weight, model.empty = nn.Linear(2, 3), nn.Parameter(torch.zeros(5)), nn.Identity()
    assert count_parameters(model) == {"part": 9, "own": 5}


def test_files_are_whole_or_absent(tmp_path):
    path = tmp_path / "new" / "x.json"
    write_json(path, {"a": 1})

    def write_half() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert read_json(path) == {"a": 1}
    assert [file.name for file in path.parent.iterdir()] == ["x.json"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}
    assert read_json(tmp_path / "none.json") == {}
    path.write_text("{")
    with pytest.raises(ValueError, match=r"x.json is not JSON .* Restore the file"):
        read_json(path)
