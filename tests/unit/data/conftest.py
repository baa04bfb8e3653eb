from collections.abc import Callable
from pathlib import Path

import pytest
from data_helpers import write_image, write_mnist


@pytest.fixture(scope="session")
def mnist_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_mnist(tmp_path_factory.mktemp("mnist")))


@pytest.fixture
def picture_folder(tmp_path: Path) -> Callable[..., str]:
    """Return a function that fills a folder with ``n`` pictures; picture ``i`` is of level ``i``."""

    def make(n: int = 20, name: str = "photos", suffix: str = ".png") -> str:
        for i in range(n):
            write_image(tmp_path / name / f"{i:03d}{suffix}", level=i)
        return str(tmp_path / name)

    return make
