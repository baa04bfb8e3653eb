"""What a perceptual loss costs, forward and backward to the reconstruction, against the package ``lpips``.

Both with the same random trunk, which costs what a trained one does. The targets' features can be kept where targets
repeat, as do those of a small set from epoch to epoch.
"""

import warnings
from collections.abc import Callable
from importlib import metadata

import torch
from torch import Tensor

from benchmarks.timing import Row, interleave, now, ratio, spread
from lit_vae.features import LPIPS

NETWORK = "vgg16"
BATCH, SIZE, ROUNDS = 8, 64, 9
QUICK_BATCH, QUICK_SIZE = 1, 16
OURS, CACHED = "lit_vae", "lit_vae, targets' features kept"
WITH_TARGETS, WITHOUT_TARGETS = 1.0, 0.75  # of the package's time, on a CPU


def distances(device: torch.device) -> tuple[LPIPS, torch.nn.Module]:
    """Ours, and the package's with the same weights."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ours says that its weights are random, the package uses what is deprecated
        ours = LPIPS(NETWORK, weights="random")
        slices = ours.trunk.network.slices
        package = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    for layers, name in zip(slices, ("slice1", "slice2", "slice3", "slice4", "slice5"), strict=True):  # type: ignore[arg-type]
        for ours_weight, weight in zip(layers.parameters(), getattr(package.net, name).parameters(), strict=True):
            weight.data.copy_(ours_weight)
    return ours.to(device), package.to(device)


def seconds(distance: Callable[[Tensor], Tensor], x_hat: Tensor) -> float:
    """Of a forward and a backward to ``x_hat``."""
    x_hat = x_hat.detach().requires_grad_()
    start = now(x_hat.device)
    distance(x_hat).mean().backward()
    return now(x_hat.device) - start


def run(device: torch.device, quick: bool) -> list[Row]:
    """Time of each; the ratios are to the package's."""
    batch, size = (QUICK_BATCH, QUICK_SIZE) if quick else (BATCH, SIZE)
    generator = torch.Generator().manual_seed(0)
    x, x_hat = (torch.rand(batch, 3, size, size, generator=generator).to(device) * 2.0 - 1.0 for _ in range(2))
    ours, package = distances(device)
    with torch.no_grad():
        target = ours.embed(x)
    name = f"lpips {metadata.version('lpips')}"
    times = interleave(
        {
            name: lambda: seconds(lambda y: package(x, y), x_hat),
            OURS: lambda: seconds(lambda y: ours(x, y), x_hat),
            CACHED: lambda: seconds(lambda y: ours.distance(target, y), x_hat),
        },
        1 if quick else ROUNDS,
    )
    section = f"lpips, VGG16, {batch} x {size} x {size}"
    targets = {OURS: WITH_TARGETS, CACHED: WITHOUT_TARGETS} if device.type == "cpu" and not quick else {}
    rows = [Row(section, name, 1e3 * spread(times[name]).median, "ms")]
    for variant in (OURS, CACHED):
        median = 1e3 * spread(times[variant]).median
        rows.append(Row(section, variant, median, "ms", name, ratio(times, variant, name), targets.get(variant)))
    return rows
