"""A training step asks the device for no number: it would wait until all queued work is done."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_configs import HEAVY, configurations, name, on_fake_images
from torch.utils._python_dispatch import TorchDispatchMode

from lit_vae.models import HierarchicalVAE
from lit_vae.tools.configurations import build_components

aten = torch.ops.aten
WAITING = (
    aten._local_scalar_dense,
    aten.equal,
    aten.is_nonzero,
    aten.masked_select,
    aten.nonzero,
    aten.unique_consecutive,
    aten.unique_dim,
    aten._unique2,
)
"""Their results are numbers or shapes that depend on values."""


class Waits(TorchDispatchMode):
    """Counts the operations for which a GPU's host would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masks = func.overloadpacket in (aten.index, aten.index_put, aten.index_put_)
        if func.overloadpacket in WAITING or (masks and any(_is_mask(index) for index in args[1])):
            self.found[str(func.overloadpacket)] += 1
        return func(*args, **kwargs or {})


def _is_mask(index: Any) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


PRIORS = {"vae/mnist_binary_vamp.yaml", "vae/mnist_binary_flow_prior.yaml", "vae/mnist_binary_iaf.yaml"}
PATHS = [path for path in configurations() if name(path).startswith("hvae/") or name(path) in PRIORS]


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=name(p), marks=pytest.mark.slow if name(p) in HEAVY else ()) for p in PATHS]
)
def test_a_step_waits_for_nothing(path: Path, tmp_path: Path) -> None:
    parts = build_components([on_fake_images(path, tmp_path)])
    model: Any = parts.model
    model.noise_seed = 0  # as in a trainer
    parts.data.setup("fit")
    batch = next(iter(parts.data.train_dataloader()))
    with Waits() as waits:
        model.training_step(batch, 0).backward()
    assert not waits.found
    assert all(p.grad is not None for p in model.parameters()) or not isinstance(model, HierarchicalVAE)


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.mean()),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: torch.equal(x, x),
        lambda x: x.masked_fill(x > 0, 1.0)[x > 0],
    ],
)
def test_what_waits_is_found(wait: Any) -> None:
    with Waits() as waits:
        wait(torch.randn(5))
    assert sum(waits.found.values()) == 1
