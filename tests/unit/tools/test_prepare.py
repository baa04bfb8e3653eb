"""``lit-vae prepare``: what is fetched and computed, from a server that is a folder; what is said of it."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from data_helpers import served, write_mnist_archives
from lightning.pytorch import Callback
from torch import Tensor, nn
from torchvision import datasets

from lit_vae.features import ImageFeatures, weights
from lit_vae.likelihoods import LearnedGaussian
from lit_vae.run.needs import Need, NeededFile, sha256

ROOT = Path(__file__).resolve().parents[3]
Run = Callable[..., str]
pytestmark = pytest.mark.usefixtures("published")


class Corner(ImageFeatures):
    """The levels of nine pixels."""

    name = "corner"
    num_features = 9

    def __init__(self, weights: str) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, u: Tensor) -> Tensor:
        return u[:, 0, 10:13, 10:13].flatten(1).float()

    def provenance(self) -> dict[str, str]:
        return {"features": "nine pixels", "weights_sha256": sha256([Path(self.weights)])}

    def needs(self) -> Iterable[Need]:
        return [NeededFile("corner", self.weights, "Make it.")]


class Reader(LearnedGaussian):
    """A part of a model that reads a file."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.part = nn.Identity()
        self.part.needs = lambda: [NeededFile("file of a part", file, "Write it.")]  # type: ignore[assignment]


class Unready(Callback):
    """A callback that cannot say what it needs."""

    def needs(self, data: Any) -> Iterable[Need]:
        raise ValueError("Unready: not yet. Wait.")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small VAE of MNIST, measured in the features of a file; the images lie on a server."""
    mirror, resources = write_mnist_archives(tmp_path / "mirror")
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    monkeypatch.setenv("LIT_VAE_CACHE", str(tmp_path / "cache"))
    content = yaml.safe_load((ROOT / "configs" / "vae" / "mnist.yaml").read_text())
    features = {"class_path": "test_prepare.Corner", "init_args": {"weights": str(tmp_path / "corner")}}
    distances = [{"class_path": f"lit_vae.metrics.{name}"} for name in ("Frechet", "Kernel")]
    quality = {"features": features, "distances": distances, "num_images": 12, "every_n_epochs": 2, "num_val_images": 5}
    content["trainer"] = {"accelerator": "gpu", "callbacks": [{"class_path": "callbacks.SampleQuality"}]}
    content["trainer"]["callbacks"][0]["init_args"] = quality
    content["data"]["init_args"] |= {"root": str(tmp_path / "data"), "num_val": 20}
    (tmp_path / "study").mkdir()
    path = tmp_path / "study" / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    with served(mirror) as url:
        monkeypatch.setattr(datasets.MNIST, "mirrors", [url])
        yield path


def changed(config: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    content = yaml.safe_load(config.read_text())
    change(content)
    path = config.with_name(name)
    path.write_text(yaml.safe_dump(content))
    return path


def state(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_all_that_a_configuration_needs_is_fetched_and_computed_once(
    config: Path, prepare: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corner").write_text("weights")
    monkeypatch.setattr("callbacks.references.rank_zero_info", print)
    monkeypatch.chdir(tmp_path)
    before = state(tmp_path)
    said = prepare(config.parent).splitlines()
    made = {Path(path).name for path in state(tmp_path).keys() - before.keys()}
    assert {"train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"} <= made
    assert not {"run_id", "config.yaml", "metrics.csv"} & made  # nothing of a run
    digest = hashlib.sha256()
    size = 0
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        content = (tmp_path / "data" / "MNIST" / "raw" / f"{name}-ubyte").read_bytes()
        digest.update(content)
        size += len(content)
    lines = [line for line in said if line.rpartition(": ")[2] in ("there", "fetched", "computed")]
    first, second, *references = lines
    assert first == f"MNIST: {tmp_path}/data, {size / 2**20:.1f} MiB, sha256 {digest.hexdigest()[:12]}: fetched"
    corner = hashlib.sha256(b"weights").hexdigest()[:12]
    assert second == f"corner: {tmp_path}/corner, 0.0 MiB, sha256 {corner}: there"
    assert [line.partition(": ")[0] for line in references] == [
        "corner of MNIST train, 5 of them kept",
        "corner of MNIST train, 12 of them kept",
    ]
    assert all(
        line.endswith(": computed") and f"{tmp_path}/cache/references/MNIST-train-" in line for line in references
    )
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    monkeypatch.setattr(datasets.MNIST, "download", None)
    monkeypatch.setattr("callbacks.references._compute", None)
    there, names = [line.rpartition(": ")[0] for line in lines], state(tmp_path)
    for again in (prepare(config), prepare(config, "--check", "true")):
        assert again.splitlines() == [f"{line}: there" for line in there]
    assert state(tmp_path) == names


def test_the_references_are_those_that_a_test_looks_for(
    config: Path, prepare: Run, lightning: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corner").write_text("weights")
    prepare(config)
    monkeypatch.setattr("callbacks.references._compute", None)  # computing them again would fail
    run = tmp_path / "run"
    quick = ["--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1"]
    lightning(
        "fit", "--config", config, "--run_dir", run, *quick, "--trainer.log_every_n_steps=1", "--trainer.logger=false"
    )
    lightning("test", "--config", run / "config.yaml", "--ckpt_path", "last")
    assert "test/fd_corner" in json.loads((run / "test_metrics.json").read_text())["metrics"]


def test_all_that_is_missing_is_said_at_once_and_nothing_is_touched(
    config: Path, fails: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def more(content: dict[str, Any]) -> None:
        content["trainer"]["callbacks"].append({"class_path": "test_prepare.Unready"})
        reader = {"class_path": "test_prepare.Reader", "init_args": {"file": str(tmp_path / "file")}}
        content["model"]["init_args"]["likelihood"] = reader

    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("trainer: {max_epochs: 3}\n")
    path, before = changed(config, "more.yaml", more), state(tmp_path)
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    monkeypatch.setattr(datasets.MNIST, "download", None)
    said = fails(path, "alexnet", "--config", overlay, "--check", "true").splitlines()
    assert said[0] == f"error: lit-vae prepare {path} alexnet: not all is there."
    problems = [line.partition(": missing: ")[::2] for line in said[1:-1]]
    assert [what for what, _ in problems] == [
        f"weights of alexnet: {weights.cache_path('alexnet')}",
        f"MNIST: {tmp_path}/data",
        f"file of a part: {tmp_path}/file",
        f"corner: {tmp_path}/corner",
        f"corner of MNIST train, 5 of them kept: {tmp_path}/cache/references",
        f"corner of MNIST train, 12 of them kept: {tmp_path}/cache/references",
        "Unready",
    ]
    assert "Put MNIST/raw/train-images-idx3-ubyte" in problems[1][1]
    assert [problem for _, problem in problems[2:]] == [
        f"there is no {tmp_path}/file. Write it.",
        f"there is no {tmp_path}/corner. Make it.",
        *["the images, or the weights of the features, are not there."] * 2,
        "Unready: not yet. Wait.",
    ]
    assert said[-1] == (
        f"Run  lit-vae prepare {path} alexnet --config {overlay}  where there is internet: it brings what can be"
        " fetched or computed."
    )
    assert state(tmp_path) == before


@pytest.mark.parametrize("forbidden", [False, True])
def test_without_files_and_network_one_error_says_what_to_do_by_hand(
    forbidden: bool, config: Path, published: Path, fails: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corner").write_text("weights")
    if forbidden:
        monkeypatch.setenv("LIT_VAE_OFFLINE", "1")
        for name in ("WANDB_MODE", "WANDB_ERROR_REPORTING", "HF_HUB_OFFLINE"):
            monkeypatch.setenv(name, "offline")  # put back afterwards
    else:
        monkeypatch.setattr(datasets.MNIST, "mirrors", [(tmp_path / "nowhere").as_uri() + "/"])
        published.unlink()
    first, alexnet, mnist, *follow = fails(config, "alexnet").splitlines()
    assert first == f"error: lit-vae prepare {config} alexnet: not all is there."
    assert alexnet.endswith(f"Fetch it elsewhere, and put it at {weights.cache_path('alexnet')}.")
    assert published.as_uri() in alexnet
    assert mnist.endswith("t10k-images-idx3-ubyte, MNIST/raw/t10k-labels-idx1-ubyte there (data.init_args.root).")
    how = "LIT_VAE_OFFLINE (=1) forbids" if forbidden else ""
    assert how in alexnet
    assert how in mnist
    assert [line.rpartition(": missing: ")[2] for line in follow] == [
        "the images, or the weights of the features, are not there."
    ] * 2
    assert not (tmp_path / "data" / "MNIST").exists()


def test_a_mistake_in_any_configuration_is_said_before_anything_is_fetched(
    config: Path, fails: Run, tmp_path: Path
) -> None:
    wrong = changed(config, "wrong.yaml", lambda content: content["data"]["init_args"].update(num_val=0))
    other = changed(config, "other.yaml", lambda content: content["model"]["init_args"].pop("encoder"))
    said = fails(config.parent)
    assert f"{wrong}: " in said
    assert f"{other}: " in said
    assert "num_val (=0) must be at least 1" in said
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("fault", ["archive", "file", "truncated"])
def test_damaged_mnist_is_told(fault: str, config: Path, prepare: Run, fails: Run, tmp_path: Path) -> None:
    (tmp_path / "corner").write_text("weights")
    prepare(config)
    raw = tmp_path / "data" / "MNIST" / "raw" / "train-images-idx3-ubyte"
    archive = raw.with_name(f"{raw.name}.gz")
    damaged = archive if fault == "archive" else raw
    content = damaged.read_bytes()
    if fault == "truncated":
        archive.unlink()
        damaged.write_bytes(content[:-1])
    else:
        damaged.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    said = fails(config, "--check", "true")
    assert {
        "archive": "does not have the checksum of the data set",
        "file": f"does not equal the content of {archive}",
        "truncated": "the file is truncated or damaged",
    }[fault] in said
    assert f"MNIST: {tmp_path}/data: damaged: {damaged}" in said
    assert f"Delete what is damaged of MNIST, then run  lit-vae prepare {config}  where there is internet" in said
    assert "Delete what is damaged of MNIST" in fails(config)  # `prepare` does not write over it
    damaged.unlink()
    raw.unlink(missing_ok=True)
    assert "MNIST: " in prepare(config)  # as it was told
    prepare(config, "--check", "true")


def test_the_data_may_lie_elsewhere(config: Path, prepare: Run, fails: Run, tmp_path: Path) -> None:
    (tmp_path / "corner").write_text("weights")
    said = fails(config, "--data_root", tmp_path / "else where", "--check", "true")
    assert (
        f"MNIST: {tmp_path}/else where: missing: root (='{tmp_path}/else where') does not contain the data set." in said
    )
    assert f"Run  lit-vae prepare {config} --data_root '{tmp_path}/else where'  where there is internet" in said
    prepare(config, "--data_root", tmp_path / "else where")
    assert (tmp_path / "else where" / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file()
    assert not (tmp_path / "data").exists()


def test_a_configuration_that_needs_nothing_is_said_to(prepare: Run, digits_config: Path) -> None:
    assert prepare(digits_config) == f"{digits_config}: nothing needed\n"


def test_a_folder_of_data_that_nothing_reads_is_refused(config: Path, fails: Run, digits_config: Path) -> None:
    for given in ([digits_config], ["inception"]):
        said = fails(*given, "--data_root", "x", "--check", "true")
        assert "--data_root (=x) is the folder of data, and nothing given reads one" in said
        assert "Leave --data_root out." in said
    assert "nothing given reads one" not in fails(digits_config, config, "--data_root", "x", "--check", "true")


def test_two_that_need_other_files_of_one_folder_are_two(config: Path, fails: Run, tmp_path: Path) -> None:
    changed(config, "other.yaml", lambda content: content["data"]["init_args"].update(seed=1))
    changed(config, "binary.yaml", _binarized)
    said = fails(config.parent, "--check", "true")
    assert said.count("MNIST: ") == 1
    assert said.count("MNIST of Larochelle: ") == 1
    assert "Put binarized_mnist_train.amat" in said


def _binarized(content: dict[str, Any]) -> None:
    content["data"]["init_args"] |= {"binarization": "larochelle", "dequantize": False}


def test_mnist_that_nobody_may_fetch_is_left_alone(config: Path, fails: Run, tmp_path: Path) -> None:
    (tmp_path / "corner").write_text("weights")
    path = changed(config, "no.yaml", lambda content: content["data"]["init_args"].update(download=False))
    assert "download (=False) forbids downloads" in fails(path)
    assert not (tmp_path / "data").exists()
