"""``LIT_VAE_STAGE``: the data of a job on each node's own disk, on a real SLURM of two nodes."""

import re
import sys
from pathlib import Path

import pytest
import yaml
from data_helpers import write_mnist
from local_slurm import LocalSlurm

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
OPENED = """
import os, sys

def note(event, arguments):
    if event == "open" and str(arguments[0]).endswith("train-images-idx3-ubyte"):
        with open(os.environ["OPENED"] + "." + os.environ["SLURMD_NODENAME"], "a") as file:
            file.write(f"{arguments[0]}\\n")

if any(argument == "fit" for argument in sys.orig_argv):
    sys.addaudithook(note)
"""
LAUNCHER = """#!/bin/sh
# a disk of its own for each node; that of one of them may be full
export SLURM_TMPDIR=$DISKS/$SLURMD_NODENAME
if [ "$SLURMD_NODENAME" = "$WITHOUT_DISK" ]; then SLURM_TMPDIR=/dev/null; fi
exec "$@"
"""


def test_each_node_reads_a_copy_of_its_own_or_what_is_shared(
    slurm: LocalSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = write_mnist(tmp_path / "data", num_train=72, num_test=4)
    config = yaml.safe_load((ROOT / "configs" / "vae" / "mnist.yaml").read_text())
    config["trainer"] = {"max_epochs": 1, "accelerator": "cpu", "callbacks": []}
    config["data"]["init_args"] |= {"root": str(shared), "num_val": 40, "batch_size": 4}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(OPENED)
    launcher = tmp_path / "launcher"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/path:{ROOT}")
    monkeypatch.setenv("LIT_VAE_PYTHON", sys.executable)
    monkeypatch.setenv("LIT_VAE_LAUNCHER", str(launcher))
    monkeypatch.setenv("DISKS", str(tmp_path / "disks"))
    site = tmp_path / "site.env"
    monkeypatch.setenv("LIT_VAE_SITE", str(site))

    def job(name: str, stage: str, without: str = "") -> tuple[str, str, dict[str, list[str]]]:
        """Its id, its log, and the training images that each node has opened."""
        site.write_text(stage)
        monkeypatch.setenv("WITHOUT_DISK", without)
        monkeypatch.setenv("OPENED", str(tmp_path / f"{name}.opened"))
        options = ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", f"--output={tmp_path}/{name}.log"]
        script = [ROOT / "slurm" / "train.sbatch", tmp_path / name, "--config", tmp_path / "config.yaml"]
        number = slurm.run("sbatch", "--parsable", *options, *script).strip()
        assert slurm.wait(number, 300) == {number: "COMPLETED"}, (tmp_path / f"{name}.log").read_text()
        opened = {node: (tmp_path / f"{name}.opened.{node}").read_text().split() for node in slurm.nodes}
        return number, (tmp_path / f"{name}.log").read_text(), opened

    file = "MNIST/raw/train-images-idx3-ubyte"
    _, log, opened = job("plain", "")
    assert "is copied" not in log
    assert all(set(paths) == {f"{shared}/{file}"} for paths in opened.values())

    number, log, opened = job("staged", f"LIT_VAE_STAGE={shared}\n")
    copies = {node: tmp_path / "disks" / node / f"lit_vae-{number}" for node in slurm.nodes}
    assert {node: set(paths) for node, paths in opened.items()} == {
        node: {f"{copy}/data/{file}"} for node, copy in copies.items()
    }
    for node, copy in copies.items():
        assert f"{shared} is copied to {copy}/data on {node}\n" in log
        assert copy.parent.is_dir()
        assert not copy.exists()  # removed at the end
    for recorded in ("config.yaml", "metrics.csv"):
        assert (tmp_path / "staged" / recorded).read_text() == (tmp_path / "plain" / recorded).read_text()

    number, log, opened = job("fallback", f"LIT_VAE_STAGE={shared}\n", without=slurm.nodes[1])
    first, second = slurm.nodes
    assert set(opened[first]) == {f"{tmp_path}/disks/{first}/lit_vae-{number}/data/{file}"}
    assert set(opened[second]) == {f"{shared}/{file}"}
    assert re.search(rf"warning: {shared} is not copied to {second} \(.*\), so {shared} itself is read\.", log)
    assert (tmp_path / "fallback" / "metrics.csv").read_text() == (tmp_path / "plain" / "metrics.csv").read_text()
