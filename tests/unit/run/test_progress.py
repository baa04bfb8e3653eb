"""Progress that can be read in a log file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lit_vae.run.progress import LogProgress, TerminalProgress, _shown, progress_bar


def test_a_log_file_gets_lines_and_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: False)
    assert isinstance(progress_bar(), LogProgress)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert isinstance(progress_bar(), TerminalProgress)


def test_lines_hold_the_terms_that_matter_and_no_carriage_return(
    lightning: Callable[..., None], digits_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=3", "--trainer.check_val_every_n_epoch=1"]
    lightning("fit", "--config", digits_config, "--run_dir", tmp_path / "run", *fast, "--trainer.log_every_n_steps=1")
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("epoch ")]
    assert "\r" not in out
    assert lines[0].startswith("epoch 1/2  step 1/6  elbo ")
    assert [line.split("  ")[1] for line in lines if "val elbo" in line] == ["step 3/6", "step 6/6"]
    assert all("val rate" in line and "val distortion" in line for line in lines if "val elbo" in line)
    assert lines[-1].endswith("0:00:00 left")
    assert out.splitlines()[-1].strip().endswith(".png")  # the pictures are named last


@pytest.mark.parametrize(
    ("terms", "shown"),
    [
        ({"elbo": -9.0, "loss": 9.0, "rate": 4.0, "distortion": 5.0}, ["elbo", "rate", "distortion"]),
        ({"elbo": -9.0, "loss": 5.000004, "rate": 4.0, "distortion": 5.0}, ["loss", "rate", "distortion"]),
        ({"elbo": -9.0, "loss": 12.0, "rate": 4.0, "distortion": 5.0}, ["loss", "rate", "distortion"]),
        ({"loss": 1.0}, ["loss"]),
    ],
    ids=["a VAE", "a small weight of the rate", "a perceptual term", "a classifier"],
)
def test_a_line_leads_with_what_is_optimised(terms: dict[str, float], shown: list[str]) -> None:
    metrics = {f"{split}/{name}": value for split in ("train", "val") for name, value in terms.items()}
    assert list(_shown(metrics)) == [*shown, *(f"val {name}" for name in shown)]
