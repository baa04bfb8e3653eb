"""The wheel works from an empty folder, with a configuration passed by path."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_wheel_works_from_an_empty_folder(digits_config: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)], check=True)
    wheel = next(tmp_path.glob("lit_vae-*.whl"))
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", str(tmp_path / "site"), str(wheel)], check=True
    )
    templates = tmp_path / "site" / "lit_vae" / "tools" / "compare" / "templates"
    there = {path.name: path.read_bytes() for path in templates.iterdir()}
    assert there == {
        path.name: path.read_bytes() for path in (ROOT / templates.relative_to(tmp_path / "site")).iterdir()
    }
    assert set(there) == {"macros.html", "page.css", "page.html", "page.js"}
    empty = tmp_path / "empty"
    empty.mkdir()
    command = [sys.executable, "-c", "from lit_vae.cli import main; main()", "fit", "--config", str(digits_config)]
    fast = ["--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1", "--trainer.limit_train_batches=2"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "WANDB_MODE": "disabled"}
    where = "import lit_vae, callbacks; print(lit_vae.__file__, callbacks.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=empty, env=environment, check=True, capture_output=True, text=True
    )
    assert found.stdout.count(str(tmp_path / "site")) == 2
    subprocess.run([*command, *fast], cwd=empty, env=environment, check=True, stdin=subprocess.DEVNULL)
    assert list((empty / "runs" / "vae-digits").glob("*/media/samples/step_2.png"))
    for name in ("study.sbatch", "train.sbatch", "site.env.example"):  # what `lit-vae` submits, and what it needs
        file = tmp_path / "site" / "lit_vae" / "tools" / "cluster" / name
        assert not file.is_symlink()
        assert file.read_text() == (ROOT / "slurm" / name).read_text()
