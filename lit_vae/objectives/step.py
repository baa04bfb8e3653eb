"""Result of one step: per-image terms of a batch."""

from typing import NamedTuple

from torch import Tensor

from lit_vae.distributions import Distribution


class Step(NamedTuple):
    """The terms of a batch of B images, in training or in an evaluation.

    Attributes:
        terms: per-image terms by their logged names, ``(B,)`` in nats; one of them is ``loss``.
        decoded: ``p(x | z)``, parameters ``(B, ...)``, or ``(L, B, ...)`` for L draws; None without a decoder.
        scalars: other numbers that a training step logs, ``()`` each.
        of_batch: in an evaluation, ``(n, *shape)`` for each of `Model.batch_terms`: one row per image (n = B), or
            their sum over the batch (n = 1).
        target: the images that ``decoded`` is of, ``(B, C, H, W)``; None: those of the batch.
        other_loss: what the step minimises beside the terms of images, ``()``: the loss of a discriminator, or a
            penalty of weights.
    """

    terms: dict[str, Tensor]
    decoded: Distribution | None = None
    scalars: dict[str, Tensor | float] = {}  # noqa: RUF012  (never mutated)
    of_batch: dict[str, Tensor] = {}  # noqa: RUF012
    target: Tensor | None = None
    other_loss: Tensor | float = 0.0
