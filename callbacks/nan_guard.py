"""Stops training at the first loss or gradient that is not finite, with a diagnosis."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lit_vae.models.module import Model
from lit_vae.ranks import rank
from lit_vae.run.checkpoints import CHECKPOINTS, AtomicCheckpointIO
from lit_vae.run.errors import TrainingStopped
from lit_vae.run.finite import not_finite
from lit_vae.run.weights import some

NAMED = 5  # parameters named in a message
IMAGES, LOSS = "the images themselves", "loss of the batch"
SUMS = ("elbo", "loss")  # named last: sums of terms, one of which is the cause


class NaNGuard(Callback):
    """Stops before the optimizer step if a loss term or gradient is not finite, while the weights still are.

    The error names the terms, the number of images and the ranks with such values, the first parameters with such
    gradients, and the checkpoint to resume from. All ranks stop at the same step with the same message. The check waits
    for the device once per step. With float16 only terms are checked, because its loss scaler skips the steps of
    gradients that overflow.

    Args:
        check_gradients: also check every gradient, which reads as many numbers as there are weights.
    """

    def __init__(self, check_gradients: bool = True) -> None:
        self.check_gradients = check_gradients
        self._forget()

    def _forget(self) -> None:
        self._num_images = 0
        self._counts: dict[str, Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse models without per-image terms, before training starts."""
        self._forget()
        if not isinstance(pl_module, Model):
            raise ValueError(
                f"NaNGuard: it needs a lit_vae.models.module.Model, the model is a {type(pl_module).__name__}."
                " Remove callbacks.NaNGuard from trainer.callbacks."
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count input images that are not finite."""
        x = batch[0]
        if isinstance(x, Tensor) and x.is_floating_point():
            self._count(IMAGES, torch.where(torch.isfinite(x), 0.0, torch.nan).flatten(1).sum(1))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Count the images for which each term is not finite, over all batches of a step."""
        assert isinstance(pl_module, Model)  # by `setup`
        for name, term in pl_module.last_terms.items():
            self._count(name, term)
        self._num_images += max((len(term) for term in pl_module.last_terms.values()), default=0)
        self._count(LOSS, loss)

    def _count(self, name: str, values: Tensor) -> None:
        self._counts[name] = self._counts.get(name, 0) + (~torch.isfinite(values.detach())).sum()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Check the counts and gradients of the step.

        Raises:
            TrainingStopped: something is not finite.
        """
        names, num_images = list(self._counts), self._num_images * trainer.world_size
        found = [*self._counts.values(), self._unusable_gradients(trainer, optimizer)]
        self._forget()
        of_ranks = torch.zeros(trainer.world_size, len(found), dtype=torch.int64, device=pl_module.device)
        of_ranks[rank()] = torch.stack([count.to(pl_module.device) for count in found])
        of_ranks = trainer.strategy.reduce(of_ranks, reduce_op="sum")
        if not bool(of_ranks.any()):
            return
        counts = of_ranks.sum(0)
        terms = {name: count for name, count in zip(names, counts.tolist(), strict=False) if count and name != LOSS}
        terms = dict(sorted(terms.items(), key=lambda item: item[0] in SUMS))
        on = {name: _on_ranks(of_ranks[:, names.index(name)]) for name in terms}
        parts = [f"{name} ({count} of {num_images} images{on[name]})" for name, count in terms.items()]
        if gradients := not_finite((n, p.grad) for n, p in pl_module.named_parameters() if p.grad is not None):
            parts.append(f"gradients of {some(gradients, NAMED)}")
        if not terms and LOSS in names and counts[names.index(LOSS)]:
            parts.insert(0, "the loss, but none of its per-image terms: a penalty on the networks")
        raise TrainingStopped(
            f"NaNGuard: not finite at step {trainer.global_step}, before the optimizer changed a weight:"
            f" {'; '.join(parts)}.\n{_resume_hint(trainer)}\n{_advice(terms, str(trainer.precision))}"
        )

    def _unusable_gradients(self, trainer: Trainer, optimizer: Optimizer) -> Tensor:
        """Number of the optimizer's parameters with a gradient that is not finite, ``()`` int64."""
        scales = getattr(trainer.precision_plugin, "scaler", None) is not None
        groups = optimizer.param_groups if self.check_gradients and not scales else []
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        if not gradients:
            return torch.zeros((), dtype=torch.int64)
        # the largest absolute value, since a sum of squares may overflow for finite gradients
        largest = torch.stack(torch._foreach_norm(gradients, torch.inf))
        return (~torch.isfinite(largest)).sum()


def _on_ranks(counts: Tensor) -> str:
    """Names the ranks with a positive count, ``(ranks,)``, if there are several ranks."""
    ranks = [str(number) for number in counts.nonzero().flatten().tolist()]
    return f", on rank {' and '.join(ranks)}" if len(counts) > 1 else ""


def _resume_hint(trainer: Trainer) -> str:
    """A sentence with the run's newest checkpoint that has finite weights."""
    folder = Path(trainer.default_root_dir) / CHECKPOINTS
    spoilt = []
    for path in (folder / "last.ckpt", folder / "best.ckpt"):
        if not path.is_file():
            continue
        content = AtomicCheckpointIO().load_checkpoint(path)
        if not not_finite({**content["state_dict"], **content.get("current_model_state", {})}.items()):
            return f"{path} of step {content['global_step']} has finite weights: resume with --ckpt_path {path}."
        spoilt.append(path.name)
    return f"No checkpoint to resume from in {folder}{': not finite are ' + ', '.join(spoilt) if spoilt else ''}."


def _advice(terms: Mapping[str, int], precision: str) -> str:
    """The most common remedies for this failure."""
    if IMAGES in terms:
        return "Try: repair or remove those images; the model is not the cause."
    remedies = ["a lower or warmed up learning rate"]
    if not terms:
        remedies.append("trainer.gradient_clip_val, since only gradients are not finite")
    if "16" in precision:
        remedies.append(f"trainer.precision 32-true in place of {precision}")
    return f"Try: {'; '.join(remedies)}."
