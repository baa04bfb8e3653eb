"""After ``lit-vae prepare`` a run touches no network: every attempt of its process is an error, and is written down."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import warm
import yaml
from data_helpers import write_mnist
from two_stages_helpers import TwoStages

from lit_vae.data import Codes
from lit_vae.tools.prepare import prepare

ROOT = Path(__file__).resolve().parents[2]
NO_NETWORK = """
import os, sys

def local(host):
    return host is None or str(host) in ("", "localhost", "::1", "0.0.0.0", "::") or str(host).startswith("127.")

def refuse(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # else the socket of a file
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if not local(host.decode() if isinstance(host, bytes) else host):
        with open(os.environ["ATTEMPTS"], "a") as file:
            file.write(f"{event} {host}\\n")
        raise OSError("the network is not there")

sys.addaudithook(refuse)
"""
FIT_AND_TEST = """
import sys
from lit_vae.cli import main
config, overlay, run = sys.argv[1:]
sys.argv = ["lightning", "fit", "--config", config, "--config", overlay, "--run_dir", run]
main()
sys.argv = ["lightning", "test", "--config", f"{run}/config.yaml", "--ckpt_path", "last"]
main()
"""


def random_weights(part: Any) -> Any:
    """The same with random weights of Inception, and few samples."""
    if isinstance(part, list):
        return [random_weights(each) for each in part]
    if not isinstance(part, dict):
        return part
    changed = {key: random_weights(value) for key, value in part.items()}
    if part.get("class_path") == "lit_vae.features.Inception":
        changed["init_args"] = {"weights": "random"}
    if part.get("class_path") == "callbacks.SampleQuality":
        changed["init_args"]["num_images"] = 6
    return changed


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A small VAE of MNIST in ``data``, which is not there yet, with all its pictures and W&B; the overlay ``fid``."""
    config = yaml.safe_load((ROOT / "configs" / "vae" / "mnist.yaml").read_text())
    config["trainer"] |= {"max_epochs": 1, "accelerator": "cpu"}
    kept = ("callbacks.Samples", "callbacks.Reconstructions", "callbacks.ImageQuality")
    config["trainer"]["callbacks"] = [c for c in config["trainer"]["callbacks"] if c["class_path"] in kept]
    config["data"]["init_args"] |= {"root": str(tmp_path / "data"), "num_val": 66, "batch_size": 4}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    overlay = random_weights(yaml.safe_load((ROOT / "configs" / "overlays" / "fid.yaml").read_text()))
    (tmp_path / "fid.yaml").write_text(yaml.safe_dump(overlay))
    return tmp_path / "config.yaml", tmp_path / "fid.yaml"


def environment(tmp_path: Path, offline: str) -> dict[str, str]:
    """Return the variables of a process that has no network; W&B would be online."""
    (tmp_path / "path").mkdir(exist_ok=True)
    (tmp_path / "path" / "sitecustomize.py").write_text(NO_NETWORK)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    kept |= {"PYTHONPATH": f"{tmp_path}/path:{ROOT}", "ATTEMPTS": str(tmp_path / "attempts")}
    return kept | {"LIT_VAE_OFFLINE": offline, "WANDB_API_KEY": "0" * 40}


def command_without_network(
    tmp_path: Path, module: str, *arguments: Any, offline: str
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return warm.run(command, env=environment(tmp_path, offline), cwd=tmp_path, capture_output=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Inception.*random")
def test_a_run_that_was_prepared_touches_no_network(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIT_VAE_CACHE", str(tmp_path / "cache"))
    write_mnist(tmp_path / "data", num_train=72, num_test=4)
    prepare([str(files[0])], config=[str(files[1])])
    references = sorted((tmp_path / "cache").rglob("*.pt"))
    assert len(references) == 2
    command = [sys.executable, "-c", FIT_AND_TEST, *map(str, files), str(tmp_path / "run")]  # imports touch none either
    variables = environment(tmp_path, offline="1")
    done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    attempts = tmp_path / "attempts"
    assert not attempts.exists(), attempts.read_text()
    assert sorted((tmp_path / "cache").rglob("*.pt")) == references
    assert "reference statistics:" not in done.stdout + done.stderr  # which says that they are computed
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    metrics = json.loads((tmp_path / "run" / "test_metrics.json").read_text())["metrics"]
    assert {"test/fd_inception_random", "test/rfd_inception_random"} <= metrics.keys()


@pytest.mark.slow
def test_without_files_and_network_it_is_one_error(files: tuple[Path, Path], tmp_path: Path) -> None:
    config, overlay = files
    arguments = ["prepare", config, "--config", overlay]
    done = command_without_network(tmp_path, "lit_vae.tools", *arguments, offline="0")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    mnist = done.stderr.splitlines()[-2]
    assert "the network is not there" in mnist
    assert mnist.endswith("MNIST/raw/t10k-labels-idx1-ubyte there (data.init_args.root).")
    attempts = (tmp_path / "attempts").read_text()
    assert "socket.getaddrinfo ossci-datasets.s3.amazonaws.com" in attempts  # what the other test would see
    (tmp_path / "attempts").unlink()
    arguments = ["fit", "--config", config, "--run_dir", tmp_path / "run"]
    fit = command_without_network(tmp_path, "lit_vae.cli", *arguments, offline="1")
    assert fit.returncode == 1
    assert (
        "LIT_VAE_OFFLINE (=1) forbids downloads. Run  lit-vae prepare CONFIG  on a machine with internet" in fit.stderr
    )
    assert not (tmp_path / "attempts").exists()


def test_codes_need_the_very_checkpoint_that_made_them(two_stages: TwoStages, tmp_path: Path) -> None:
    folder, stage1 = Codes(str(two_stages.codes)).needs()
    assert folder.problem() is None
    assert folder.measure().size == sum(path.stat().st_size for path in two_stages.codes.rglob("*") if path.is_file())
    assert stage1.problem() is None
    assert stage1.where.is_relative_to(two_stages.stage1)
    manifest = json.loads((two_stages.codes / "codes.json").read_text())
    manifest["checkpoint"]["path"] = str(tmp_path / "other.ckpt")
    moved = tmp_path / "codes"
    moved.mkdir()
    for split in two_stages.codes.iterdir():
        (moved / split.name).symlink_to(split)
    (moved / "codes.json").unlink()
    (moved / "codes.json").write_text(json.dumps(manifest))
    _, gone = Codes(str(moved)).needs()
    assert str(gone.problem()).startswith(f"there is no {tmp_path}/other.ckpt. Restore it, or encode again")
    (tmp_path / "other.ckpt").write_text("another")
    assert f"the SHA-256 of {tmp_path}/other.ckpt begins with" in str(gone.problem())
