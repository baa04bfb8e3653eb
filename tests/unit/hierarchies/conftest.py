"""All tests of this folder are oracles in float64."""

import pytest


@pytest.fixture(autouse=True)
def _oracles_in_float64(float64: None) -> None:
    """See the folder."""
