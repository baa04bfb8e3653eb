"""What a family makes of a batch."""

from typing import NamedTuple

from torch import Tensor

from lit_vae.distributions import Distribution


class Step(NamedTuple):
    """The terms of a batch of B images, in training or in an evaluation.

    Attributes:
        terms: per image, ``(B,)`` in nats, by the names that they are logged under; ``loss`` among them.
        decoded: ``p(x | z)``, parameters ``(B, ...)`` or, of L draws, ``(L, B, ...)``; None without a decoder.
        scalars: what else a training step logs, ``()``.
        of_batch: in an evaluation, ``(n, *shape)`` for each of `Model.batch_terms`: for each image (n = B), or added up
            over the batch (n = 1).
        other_loss: what another player minimises in the same step, such as a discriminator, ``()``, or None.
    """

    terms: dict[str, Tensor]
    decoded: Distribution | None = None
    scalars: dict[str, Tensor | float] = {}  # noqa: RUF012  (never mutated)
    of_batch: dict[str, Tensor] = {}  # noqa: RUF012
    other_loss: Tensor | None = None
