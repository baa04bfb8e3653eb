"""Autoregressive priors over the codes of a trained autoencoder: stage 2 of VQ-VAE and VQ-VAE-2."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Generator, Tensor, nn

from lit_vae.codes import CodeBatch, CodeSpec
from lit_vae.encoded import EncodedSpec
from lit_vae.models.abilities import SamplesCodes
from lit_vae.networks.autoregressive import AutoregressiveFactory, evaluating, generate
from lit_vae.networks.vqvae import join
from lit_vae.noise import Draws
from lit_vae.objectives import Step
from lit_vae.ranges import BelowOne, NotNegativeInt, PositiveInt, checked
from lit_vae.sampling import CodeSampling

Grid = tuple[int, int]
ConditioningFactory = Callable[[int, int, Grid, Grid], nn.Module]
"""``(in_channels, out_channels, in_grid, out_grid) -> network`` from the levels above to this level."""


class CodePrior(SamplesCodes):
    """``p(codes | y) = prod_l p(c_l | c_<l, y)``, each level position by position: algorithm 2 of Razavi et al. 2019.

    One autoregressive network per level, the coarsest first. Each lower level is conditioned on the codes of all levels
    above through a residual stack. All levels are trained together and share no parameters, so each trains as it would
    alone (unless gradients are clipped by their joint norm).

    The rate is the exact code length. Minus the sum of rate and distortion of stage 1 is an ELBO of the images.

    Args:
        grids: ``[height, width]`` of each level's map of codes, the coarsest first.
        num_embeddings: number of codes of each level.
        networks: one autoregressive network per level, such as `lit_vae.networks.GatedPixelCNN`.
        optimizer: over all parameters.
        lr_scheduler: stepped with every optimizer step.
        conditioning: network from the levels above, `lit_vae.networks.ConditioningStack`; null for one level.
        embedding_dim: dimension of this prior's embeddings of the codes.
        num_classes: number of labels that it is conditioned on; 0: none.
        label_smoothing: smoothing in the training loss; the reported rate is never smoothed.
    """

    @checked
    def __init__(
        self,
        grids: list[list[PositiveInt]],
        num_embeddings: list[PositiveInt],
        networks: list[AutoregressiveFactory],
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        conditioning: ConditioningFactory | None = None,
        embedding_dim: PositiveInt = 64,
        num_classes: NotNegativeInt = 0,
        label_smoothing: BelowOne = 0.0,
    ) -> None:
        levels = len(grids)
        if not 0 < levels == len(num_embeddings) == len(networks) or (levels > 1) != (conditioning is not None):
            raise ValueError(
                f"CodePrior: grids (={levels} given), num_embeddings (={len(num_embeddings)}) and networks"
                f" (={len(networks)}) must be one for each level, with a conditioning if there are several"
                f" ({'none' if conditioning is None else 'one'} given). Set them in model.init_args."
            )
        per_level = [f"rate_{level}" for level in range(levels)] if levels > 1 else []
        self.term_names = ("loss", "rate", *per_level)
        super().__init__(optimizer, lr_scheduler)
        self.grids: tuple[Grid, ...] = tuple((height, width) for height, width in grids)
        self.num_embeddings = tuple(num_embeddings)
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.embeddings = nn.ModuleList(nn.Embedding(k, embedding_dim) for k in num_embeddings)
        self.networks = nn.ModuleList()
        self.conditionings = nn.ModuleList()
        self.embeddings_above = nn.ModuleList()  # separate per level, so that levels share no parameters
        for level, (grid, k, network) in enumerate(zip(self.grids, num_embeddings, networks, strict=True)):
            self.networks.append(network(embedding_dim, k, grid, num_classes, embedding_dim if level else 0))
            if level and conditioning is not None:
                above = level * embedding_dim
                self.conditionings.append(conditioning(above, embedding_dim, self.grids[level - 1], grid))
                self.embeddings_above.append(
                    nn.ModuleList(nn.Embedding(k, embedding_dim) for k in num_embeddings[:level])
                )

    # ---- the model --------------------------------------------------------------------------------------------------

    def logits(self, level: int, codes: Sequence[Tensor], y: Tensor) -> Tensor:
        """Logits ``(B, K_l, h_l, w_l)`` of ``p(c_l[i] | c_l[<i], c_<l, y)`` for codes of this level and those above."""
        h = _embed(self.embeddings[level], codes[level])
        return self.networks[level](h, self.condition(y), self._spatial(level, codes))

    def step(self, batch: CodeBatch, step: int | None, draws: Draws | None) -> Step:
        """Exact code length in nats per image, total and per level. The training loss may be smoothed."""
        return Step(self._terms(batch, 0.0 if step is None else self.label_smoothing))

    @torch.no_grad()
    def sample_codes(
        self,
        n: int,
        y: Tensor | None = None,
        sampling: CodeSampling = CodeSampling(),  # noqa: B008  (frozen)
        generator: Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[Tensor, ...]:
        """``n`` draws, the coarsest level first: ``(n, h_l, w_l)`` int64 each. Calls ``progress(done, total)``."""
        cond = self.condition(self.labels_for(n, y))
        positions = [math.prod(grid) for grid in self.grids]
        device = self.device if generator is None else generator.device
        codes: list[Tensor] = []

        def draw(logits: Tensor) -> Tensor:
            u = torch.rand(n, generator=generator, device=device, dtype=torch.float64)
            return sampling.draw(logits, u.to(logits.device))

        def report(done: int, of: int) -> None:
            if progress is not None:
                progress(sum(positions[: len(codes)]) + done, sum(positions))

        with evaluating(self), torch.autocast(self.device.type, enabled=False):
            for level, network in enumerate(self.networks):
                spatial = self._spatial(level, codes)
                codes.append(generate(network, draw, self.embeddings[level], n, cond, spatial, report))  # type: ignore[arg-type]
        return tuple(codes)

    def _terms(self, batch: CodeBatch, label_smoothing: float) -> dict[str, Tensor]:
        codes, y = batch
        losses, rates = [], []
        for level in range(len(self.grids)):
            logits = self.logits(level, codes, y)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            rates.append(F.cross_entropy(logits, codes[level], reduction="none").flatten(1).sum(1))
            losses.append(rates[-1])
            if label_smoothing:
                smoothed = F.cross_entropy(logits, codes[level], reduction="none", label_smoothing=label_smoothing)
                losses[-1] = smoothed.flatten(1).sum(1)
        rate = torch.stack(rates).sum(0)
        per_level = {f"rate_{level}": r for level, r in enumerate(rates)} if len(rates) > 1 else {}
        return {"loss": torch.stack(losses).sum(0), "rate": rate, **per_level}

    def _spatial(self, level: int, codes: Sequence[Tensor]) -> Tensor | None:
        """The condition of a level: features of the levels above."""
        if not level:
            return None
        tables: Any = self.embeddings_above[level - 1]
        return self.conditionings[level - 1](join([_embed(table, c) for table, c in zip(tables, codes, strict=False)]))

    # ---- before training, and numbers -------------------------------------------------------------------------------

    def problems(self, spec: Any) -> list[str]:
        """Images instead of codes, other grids, another number of codes, missing labels."""
        if not isinstance(spec, CodeSpec):
            what = "latents" if isinstance(spec, EncodedSpec) else "images"
            return [f"CodePrior: it is a prior of codes, and the data are {what}. Take lit_vae.data.Codes."]
        found = []
        if self.grids != spec.grids:
            found.append(
                f"CodePrior: model.grids (={_lists(self.grids)}) are not those of the codes, {_lists(spec.grids)}"
                " (the coarsest first). Set model.init_args.grids."
            )
        elif self.num_embeddings != spec.num_embeddings:
            found.append(
                f"CodePrior: model.num_embeddings (={list(self.num_embeddings)}) must be those of the codes,"
                f" {list(spec.num_embeddings)}. Set model.init_args.num_embeddings."
            )
        return found + self._label_problems(spec.num_classes)

    def check_networks(self) -> list[str]:
        """Run one blank map of codes through each level."""
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                codes = tuple(torch.zeros(1, *grid, dtype=torch.int64, device=self.device) for grid in self.grids)
                self._terms(CodeBatch(codes, self.labels_for(1, None)), 0.0)
        except RuntimeError as error:
            return [f"CodePrior: networks and conditioning do not fit together: {error}"]
        return []

    def _with_derived(self, means: dict[str, Tensor], split: str, spec: Any) -> dict[str, Tensor]:
        """Add bits per code, and, if the distortion of stage 1 is known, ELBO and bits per dimension of the images."""
        codes = sum(math.prod(grid) for grid in self.grids)
        found = {**means, "bits_per_code": means["rate"] / (codes * math.log(2.0))}
        if isinstance(spec, CodeSpec) and split in spec.distortion:
            found["elbo"] = -(spec.distortion[split] + means["rate"])
            if spec.bits_per_dim is not None:
                dims, offset = spec.bits_per_dim
                found["bits_per_dim"] = -found["elbo"] / (dims * math.log(2.0)) + offset
        return found


def _embed(table: nn.Module, codes: Tensor) -> Tensor:
    """``(B, h, w)`` int64 ``-> (B, embedding_dim, h, w)``."""
    vectors: Tensor = table(codes)
    return vectors.movedim(-1, 1)


def _lists(grids: Sequence[Grid]) -> list[list[int]]:
    return [list(grid) for grid in grids]
