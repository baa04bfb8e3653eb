"""What it saves to sample from an autoregressive network position by position, against its forward pass for each."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.timing import Row, interleave, now, ratio, spread
from lit_vae.networks.autoregressive import Autoregressive, generate
from lit_vae.networks.pixelcnn import GatedPixelCNN
from lit_vae.networks.transformer import CausalTransformer
from lit_vae.sampling import CodeSampling

CACHED = "generate, whole image"
NAIVE = "naive: seconds of one full forward x H x W"


class Case(NamedTuple):
    """A network on a square grid."""

    name: str
    network: Callable[[int, int, tuple[int, int]], Autoregressive]
    size: int
    rounds: int
    batch: int = 16
    num_embeddings: int = 512
    embedding_dim: int = 64
    target: float | None = None  # of the ratio, on a CPU

    @property
    def title(self) -> str:
        return f"sampling, {self.name}, {self.size} x {self.size}, batch {self.batch}"


class Draws:
    """Codes ``(B, H, W)`` from a network as it is initialised, and from fixed uniforms: both ways draw the same."""

    def __init__(self, case: Case, device: torch.device) -> None:
        torch.manual_seed(0)
        grid = (case.size, case.size)
        self.network = case.network(case.embedding_dim, case.num_embeddings, grid).to(device).eval()
        self.table = torch.randn(case.num_embeddings, case.embedding_dim).to(device)
        self.uniforms = torch.rand(case.size**2, case.batch).to(device)
        self.sampling = CodeSampling()
        self.batch, self.size, self.device = case.batch, case.size, device

    def cached(self) -> Tensor:
        """At the cost of one position each."""
        uniforms = iter(self.uniforms)
        return generate(
            self.network,
            draw=lambda logits: self.sampling.draw(logits, next(uniforms)),
            embed=lambda codes: self.table[codes],
            batch=self.batch,
        )

    @torch.no_grad()
    def draw_at(self, position: int, codes: Tensor) -> None:
        """The step of the naive loop: all outputs, of which those at one position are used."""
        row, column = divmod(position, self.size)
        logits = self.network(self.table[codes].movedim(-1, 1))
        codes[:, row, column] = self.sampling.draw(logits[:, :, row, column], self.uniforms[position])

    def no_codes(self) -> Tensor:
        """Where the naive loop starts."""
        return torch.zeros(self.batch, self.size, self.size, dtype=torch.int64, device=self.device)

    def cached_seconds(self) -> float:
        """Of the whole image, measured."""
        start = now(self.device)
        self.cached()
        return now(self.device) - start

    def naive_seconds(self) -> float:
        """Of the whole image, from its first step: the others cost as much."""
        codes = self.no_codes()
        start = now(self.device)
        self.draw_at(0, codes)
        return (now(self.device) - start) * self.size**2


PIXELCNN = partial(GatedPixelCNN, width=64, layers=8)
CASES = (
    Case("gated PixelCNN", PIXELCNN, 8, rounds=9),
    Case("gated PixelCNN", PIXELCNN, 16, rounds=7),
    Case("gated PixelCNN", PIXELCNN, 32, rounds=5, target=400.0),
    Case("gated PixelCNN", PIXELCNN, 64, rounds=2),
    Case("gated PixelCNN with attention", partial(PIXELCNN, attention_every=4), 16, rounds=7),
    Case("causal transformer", CausalTransformer, 16, rounds=7),
)
QUICK = tuple(
    case._replace(size=3, rounds=1, batch=2, num_embeddings=8, embedding_dim=4) for case in (CASES[0], *CASES[-2:])
)


def run(device: torch.device, quick: bool) -> list[Row]:
    """Rows of every case: both ways, and the ratio of the naive one."""
    rows = []
    for case in QUICK if quick else CASES:
        draws = Draws(case, device)
        seconds = interleave({CACHED: draws.cached_seconds, NAIVE: draws.naive_seconds}, case.rounds)
        cached, naive = (spread(seconds[name]).median for name in (CACHED, NAIVE))
        target = case.target if device.type == "cpu" else None
        rows.append(Row(case.title, CACHED, cached, "s"))
        rows.append(Row(case.title, NAIVE, naive, "s", CACHED, ratio(seconds, NAIVE, CACHED), target, ">="))
    return rows
