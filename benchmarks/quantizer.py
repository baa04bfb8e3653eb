"""What a step of a vector quantizer costs, against vector-quantize-pytorch: forward, backward and moving averages.

The peer makes several matrices of all vectors against all codes, distances and one-hot ones. Its memory so grows with
the product of their numbers, and at many codes it is computed instead of measured.
"""

import importlib
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import Row, interleave, now, ratio, spread
from lit_vae.quantizers import EMACodebook, VectorQuantizer, update_codebooks

DIM = 64
COMMITMENT_COST = 0.25
OURS = "lit_vae"
PEER = "vector-quantize-pytorch"
INSTALL = f"{PEER} is not installed: pip install -e '.[bench]'"
FASTER, SMALLER = 10.0, 20.0  # the targets, on a CPU from `TARGET_FROM` codes on
TARGET_FROM = 1024
LIMIT = 16 * 2**30  # bytes; a peer that would take more is not run
MIB = 2.0**20


class Case(NamedTuple):
    """Vectors of a few images, and a number of codes."""

    shape: tuple[int, int, int, int]
    num_embeddings: int
    rounds: int

    @property
    def name(self) -> str:
        batch, dim, height, width = self.shape
        return f"quantizer, {batch * height * width:,} vectors of {dim}, K = {self.num_embeddings}"


IMAGES = (16, DIM, 32, 32)
CASES = (Case(IMAGES, 512, 9), Case(IMAGES, 1024, 9), Case(IMAGES, 8192, 5), Case(IMAGES, 65_536, 3))
QUICK = (Case((2, DIM, 4, 4), 32, 1), Case((2, DIM, 4, 4), 64, 1))


class Step:
    """A training step of a quantizer, at the same vectors each time.

    Args:
        quantize: ``z_e -> (z_q, indices, commitment)``, this one weighted and a mean over all numbers.
        z_e: ``(B, d, H, W)``.
    """

    def __init__(self, quantize: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]], z_e: Tensor) -> None:
        self.quantize = quantize
        self.z_e = z_e.detach().requires_grad_()
        self.towards = torch.linspace(-1.0, 1.0, z_e.numel(), dtype=z_e.dtype, device=z_e.device).view_as(z_e)

    def __call__(self) -> tuple[Tensor, Tensor]:
        """The codes ``(B, H, W)``, and the gradient to ``z_e`` of the commitment and of a decoder's stand-in."""
        z_q, indices, commitment = self.quantize(self.z_e)
        gradients = (self.towards, torch.ones_like(commitment))
        return indices, torch.autograd.grad((z_q, commitment), self.z_e, gradients)[0]

    def seconds(self) -> float:
        """Of one step."""
        start = now(self.z_e.device)
        self()
        return now(self.z_e.device) - start


def ours(codes: Tensor, z_e: Tensor) -> tuple[VectorQuantizer, Step]:
    """`VectorQuantizer` in training mode, starting at ``codes (K, d)``."""
    quantizer = VectorQuantizer(len(codes), DIM, COMMITMENT_COST, codebook=EMACodebook)
    quantizer.to(z_e).train().codebook.replace(torch.arange(len(codes), device=z_e.device), codes)

    def quantize(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quantized = quantizer(z)
        update_codebooks([quantizer], [quantized])
        return quantized.z_q, quantized.indices, quantized.loss.sum() / z.numel()

    return quantizer, Step(quantize, z_e)


def peer(codes: Tensor, z_e: Tensor) -> tuple[nn.Module, Step]:
    """The same of vector-quantize-pytorch; by default it would rotate the gradient instead of copying it."""
    module: Any = importlib.import_module(PEER.replace("-", "_"))
    quantizer = module.VectorQuantize(
        dim=DIM,
        codebook_size=len(codes),
        decay=0.99,
        eps=1e-5,
        commitment_weight=COMMITMENT_COST,
        threshold_ema_dead_code=0,
        rotation_trick=False,
        accept_image_fmap=True,
    )
    quantizer.to(z_e.device).train()
    for buffer in (quantizer._codebook.embed, quantizer._codebook.embed_avg):
        buffer.copy_(codes)
    return quantizer, Step(quantizer, z_e)


def peak_bytes(step: Callable[[], object], device: torch.device) -> int:
    """The most bytes of tensors alive at one time in ``step()``, those from before it left out."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    assert record.profiler is not None
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


def installed_peer() -> str | None:
    """Its name and version."""
    try:
        return f"{PEER} {metadata.version(PEER)}"
    except metadata.PackageNotFoundError:
        return None


def run(device: torch.device, quick: bool) -> list[Row]:
    """Time and peak memory of both for each number of codes; the ratios are the peer's to ours."""
    peer_name = installed_peer()
    rows = []
    bytes_per_score = 0.0
    for case in QUICK if quick else CASES:
        generator = torch.Generator().manual_seed(0)
        z_e = torch.randn(case.shape, generator=generator).to(device)
        codes = torch.randn(case.num_embeddings, DIM, generator=generator).to(device)
        scores = z_e.numel() // DIM * case.num_embeddings
        expected = bytes_per_score * scores
        steps = {OURS: ours(codes, z_e)[1]}
        if peer_name and expected <= LIMIT:
            steps[PEER] = peer(codes, z_e)[1]
        seconds = interleave({name: step.seconds for name, step in steps.items()}, case.rounds)
        peak = {PEER: expected} | {name: peak_bytes(step, device) for name, step in steps.items()}
        bytes_per_score = peak[PEER] / scores

        has_target = device.type == "cpu" and case.num_embeddings >= TARGET_FROM
        faster, smaller = (FASTER, SMALLER) if has_target and PEER in steps else (None, None)  # computed: meets none
        milliseconds = {name: 1e3 * spread(values).median for name, values in seconds.items()}
        our_name = OURS if peer_name else f"{OURS} ({INSTALL})"
        rows.append(Row(case.name, our_name, milliseconds[OURS], "ms"))
        if PEER in steps:
            slower = ratio(seconds, PEER, OURS)
            rows.append(Row(case.name, f"{peer_name}", milliseconds[PEER], "ms", OURS, slower, faster, ">="))
        rows.append(Row(case.name, f"{OURS}, peak memory", peak[OURS] / MIB, "MiB"))
        if peer_name:
            variant = f"{peer_name}, peak memory" + ("" if PEER in steps else ", computed: too much to run it")
            larger = spread([peak[PEER] / peak[OURS]])
            rows.append(Row(case.name, variant, peak[PEER] / MIB, "MiB", f"{OURS}, peak memory", larger, smaller, ">="))
    return rows
