"""What all tests share."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

# A test within an allocation is not a job, and nothing that a user has set for trainings of his own changes one.
OF_A_USER = ("SLURM_", "WANDB_", "OMP_", "GOMP_", "KMP_", "LIT_VAE_", "HF_HUB_OFFLINE")
for variable in [name for name in os.environ if name.startswith(OF_A_USER) and name != "LIT_VAE_DATA"]:
    del os.environ[variable]
os.environ |= {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
torch.set_num_threads(1)  # two threads and a busy neighbour slow small operations a hundredfold


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What runs keep for one another is neither found nor left in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIT_VAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _environment_as_before() -> Iterator[None]:
    """What a command sets for the processes that it starts is gone after a test."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ |= before


@pytest.fixture
def float64() -> Iterator[None]:
    """Tensors in float64 unless said otherwise, and the same random numbers whatever ran before: for oracles."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def digits_config() -> Path:
    """The quickstart."""
    return ROOT / "configs" / "vae" / "digits.yaml"


@pytest.fixture
def real_data() -> Path:
    """Folder of real images, from LIT_VAE_DATA."""
    folder = Path(os.environ.get("LIT_VAE_DATA") or "/nowhere")
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip("LIT_VAE_DATA does not name a folder of real images: MNIST/raw, cifar10-jpeg.tar, bsds500")
    return folder


@pytest.fixture(scope="session")
def _inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lit_vae.features.inception import build_network

    with pytest.warns(UserWarning, match=r"Inception: weights \(='random'\): the numbers are not FIDs"):
        state = build_network("random").state_dict()
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path.rename(path.with_name(f"weights-inception-2015-12-05-{digest[:8]}.pth"))


@pytest.fixture
def inception_file(_inception_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights of Inception in the place of the published ones: a file whose name says how its hash begins."""
    from lit_vae.features import weights

    monkeypatch.setitem(weights.PUBLISHED, "inception", weights.Published(_inception_file.as_uri()))
    return _inception_file


@pytest.fixture
def lightning(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The ``lightning`` command, run in this process."""
    from lit_vae.cli import main

    def run(*args: str | Path) -> None:
        monkeypatch.setattr(sys, "argv", ["lightning", *map(str, args)])
        main()

    return run
