"""What all tests share."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

for variable in [name for name in os.environ if name.startswith("SLURM_")]:
    del os.environ[variable]  # a test within an allocation is not a job
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "disabled")
torch.set_num_threads(1)  # two threads and a busy neighbour slow small operations a hundredfold


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What runs keep for one another is neither found nor left in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIT_VAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


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
    folder = os.environ.get("LIT_VAE_DATA")
    if not folder:
        pytest.skip("LIT_VAE_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def _inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lit_vae.features.inception import build_network

    with pytest.warns(UserWarning, match=r"Inception: weights \(='random'\): the numbers are no FID"):
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
