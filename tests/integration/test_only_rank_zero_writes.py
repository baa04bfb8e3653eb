"""Of two ranks the first alone writes into the run directory; a prediction has a file of each rank by design."""

import os
import sys
from pathlib import Path

import pytest
import warm
import yaml

ROOT = Path(__file__).resolve().parents[2]
AUDIT = """if True:
    import os, sys
    RUN, SEEN = os.environ["AUDITED_RUN"], os.environ["AUDITED_SEEN"]
    CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.utime")
    def audit(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND):
                return
        elif event not in CHANGES:
            return
        paths = [os.fsdecode(name) for name in arguments[:2] if isinstance(name, (str, bytes, os.PathLike))]
        for path in paths:
            if os.path.abspath(path).startswith(RUN):
                with os.fdopen(os.open(f"{SEEN}/{os.environ.get('LOCAL_RANK', '0')}", FLAGS), "a") as file:
                    file.write(f"{event} {path}\\n")
    FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    sys.addaudithook(audit)
"""


@pytest.mark.slow
def test_only_rank_zero_writes_into_the_run_directory(tmp_path: Path) -> None:
    """With the quickstart's own pictures and measurements, averaged weights, checkpoints within epochs, and W&B."""
    run, seen, path = tmp_path / "run", tmp_path / "seen", tmp_path / "path"
    seen.mkdir()
    path.mkdir()
    (path / "sitecustomize.py").write_text(AUDIT)
    content = yaml.safe_load((ROOT / "configs" / "vae" / "digits.yaml").read_text())
    content["trainer"] |= {"max_epochs": 1, "check_val_every_n_epoch": 1, "accelerator": "cpu", "devices": 2}
    content["trainer"] |= {"strategy": "ddp", "log_every_n_steps": 1}
    content["trainer"] |= {"limit_train_batches": 3, "limit_val_batches": 1}
    content["trainer"]["callbacks"].append({"class_path": "callbacks.EMA"})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    environment = os.environ | {"WANDB_MODE": "offline", "PYTHONPATH": f"{path}:{ROOT}", "AUDITED_RUN": str(run)}
    command = [sys.executable, "-m", "lit_vae.cli", "fit", "--config", f"{tmp_path}/config.yaml", "--run_dir", str(run)]
    warm.run(
        [*command, "--last_checkpoint.every_n_steps=2"],
        env=environment | {"AUDITED_SEEN": str(seen)}, check=True, capture_output=True,
    )  # fmt: skip
    assert not (seen / "1").exists(), (seen / "1").read_text()
    first = (seen / "0").read_text()  # the oracle works: the first rank's files are all there
    written = ("config.yaml", "metrics.csv", "run.json", "last.ckpt", "best.ckpt", "step_3.png", "run_id", "run.lock",
               "settings.yaml")  # fmt: skip
    assert [name for name in written if name not in first] == []
    assert list((run / "media").glob("*/step_*.png"))
