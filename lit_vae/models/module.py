"""Base class of all models: one `step` for training and evaluation, with exact means of its terms."""

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lit_vae.metrics.split_mean import TermMeans
from lit_vae.models.optimized import Optimized
from lit_vae.noise import FIXED, Draws, key
from lit_vae.objectives.step import Step
from lit_vae.ranks import RankPositions, rank, world_size
from lit_vae.run.lightning_internals import CLASS_PATH, batch_index, is_built_from_configuration
from lit_vae.run.weights import differences, shapes_of

EVALUATION_SEED = 2**31 - 1


class Model(Optimized, ABC):
    """A LightningModule that logs ``{train,val,test}/<term>``, means over images of per-image terms."""

    term_names: tuple[str, ...]
    """Names of the per-image terms of an evaluation, as in ``val/<term>``."""

    batch_terms: dict[str, tuple[int, ...]] = {}  # noqa: RUF012  (never mutated)
    """Shapes, by name, of the other tensors that an evaluation averages over the split, for `batch_losses`."""

    has_added_terms: bool = False
    """Whether the loss has terms from outside the family; see `add_terms`."""

    num_classes: int = 0
    """Number of labels that it is conditioned on; 0: labels are ignored."""

    class_names: tuple[str, ...] = ()
    """Names of the labels of the training data, saved in checkpoints; empty if they have none."""

    def __init__(self, optimizer: OptimizerCallable, lr_scheduler: LRSchedulerCallable | None) -> None:
        super().__init__(optimizer, lr_scheduler)
        # The configuration of the command line lets a checkpoint build the model again. In Python there are only built
        # components, which a checkpoint for weights_only=True cannot hold.
        if is_built_from_configuration():
            self.save_hyperparameters()
        self.epoch_means = nn.ModuleDict({s: TermMeans(self.term_names, self.batch_terms) for s in ("val", "test")})
        self.noise_seed: int | None = None
        self._batch_index = 0
        self._positions = RankPositions()
        self.last_logged: tuple[int, dict[str, Any]] = (-1, {})
        self.last_terms: dict[str, Tensor] = {}
        self.replicates: dict[str, list[float]] = {}  # of the last evaluation: see lit_vae.intervals
        self._means_of_step: tuple[int, list[Tensor]] = (-1, [])

    @abstractmethod
    def step(self, batch: Any, step: int | None, draws: Draws | None) -> Step:
        """The family's algorithm in training and evaluation: per-image terms of a batch, in nats.

        Args:
            batch: inputs and labels.
            step: optimizer steps taken, for schedules. None: evaluation, with the terms in `term_names` and the final
                values of schedules. Then no term may depend on the other images of the batch; return the parts of
                the loss that do as `batch_terms`.
            draws: noise of the batch's images; None: noise from torch's generator.
        """

    def add_terms(self, result: Step, batch: Any, step: int | None) -> Step:
        """Add terms from outside the family to the result of `step`, if the model `has_added_terms`."""
        return result

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss in nats, averaged over the batch. Logs all terms."""
        result = self.step(batch, self.global_step, self.step_draws(len(batch[-1])))
        if self.has_added_terms:
            result = self.add_terms(result, batch, self.global_step)
        self.log_train(result.terms, **result.scalars)
        return result.terms["loss"].mean() + result.other_loss

    def evaluation_terms(self, batch: Any, draws: Draws | None) -> dict[str, Tensor]:
        """Per-image terms ``(B,)`` of an evaluation, in nats, and ``(n, *shape)`` for each of `batch_terms`."""
        result = self.step(batch, None, draws)
        if self.has_added_terms:
            result = self.add_terms(result, batch, None)
        return {**result.terms, **result.of_batch}

    def batch_losses(self, means: dict[str, Tensor]) -> dict[str, Tensor | float]:
        """Values to add to the means of terms, by name, from the split's means of `batch_terms`."""
        return {}

    @abstractmethod
    def problems(self, spec: Any) -> list[str]:
        """Problems between this model and the data, one message each; empty if there are none."""

    def loss_problems(self) -> list[str]:
        """Reasons why its loss cannot be computed, such as a missing file. Pictures do not need the loss."""
        return []

    def check_networks(self) -> list[str]:
        """Problems with the shapes of its networks, found with a blank input before any data is read."""
        return []

    def labels_for(self, n: int, y: Tensor | None) -> Tensor:
        """``y`` if given; else the classes in turn ``(n,)``, or -1 for a model without labels."""
        if y is not None:
            return y.to(self.device)
        if self.num_classes:
            return torch.arange(n, device=self.device) % self.num_classes
        return torch.full((n,), -1, device=self.device)

    def class_name(self, label: int) -> str:
        """The name of a label, or its number where the data has no names."""
        return self.class_names[label] if 0 <= label < len(self.class_names) else str(label)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the names of the classes."""
        if self.class_names:
            checkpoint["class_names"] = list(self.class_names)

    def condition(self, y: Tensor) -> Tensor | None:
        """Labels ``y (B,)`` as networks read them: one-hot ``(B, num_classes)``; None for a model without labels."""
        return F.one_hot(y, self.num_classes).to(self.dtype) if self.num_classes else None

    def _label_problems(self, num_classes: int) -> list[str]:
        """Problems with data of ``num_classes`` labels. A model without labels takes any data."""
        if not self.num_classes or 0 < num_classes <= self.num_classes:
            return []
        return [
            f"{type(self).__name__}: model.num_classes (={self.num_classes}) must be the number of the data's labels"
            f" (={num_classes}). Set model.init_args.num_classes, to 0 for a model without labels."
        ]

    def is_settled(self, step: int) -> bool:
        """Whether a checkpoint after ``step`` optimizer steps may count as the run's best."""
        return True

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the names of the classes.

        Raises:
            ValueError: within a run, the weights are of another model. It names the differences.
        """
        self.class_names = tuple(checkpoint.get("class_names", ()))
        if self.trainer_or_none is None:
            return
        different = differences(shapes_of(checkpoint["state_dict"]), shapes_of(self.state_dict()))
        theirs = str(checkpoint.get("hyper_parameters", {}).get(CLASS_PATH, "")).rpartition(".")[2]
        if different:
            own = type(self).__name__
            whose = "the checkpoint is of " + (f"a {theirs}" if theirs not in ("", own) else "another one")
            raise ValueError(
                f"{own}: {whose}: {different}. Give the checkpoint with the config.yaml of its own run. To train this"
                " model from its weights, leave --ckpt_path out and list callbacks.StartFrom in trainer.callbacks, with"
                " the checkpoint as init_args.path: what has changed starts anew."
            )

    # ---- noise ------------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Share the noise seed, seed each other rank's generator, and see to the batch statistics of single ranks."""
        self.class_names = tuple(getattr(self.data_spec, "class_names", ()))
        if self.noise_seed is None:
            self.noise_seed = self.trainer.strategy.broadcast(torch.initial_seed())
        if rank():  # one seed gave all ranks the same weights; dropout and augmentations must differ
            torch.manual_seed(key(self.noise_seed, rank()))
        alone = [name for name, m in self.named_modules() if type(m) in (nn.BatchNorm1d, nn.BatchNorm2d)]
        if world_size() > 1 and alone:
            rank_zero_warn(
                f"{type(self).__name__}: {alone[0]} normalises over the batch of each rank alone, so {world_size()}"
                " ranks do not train what one process would. Set trainer.sync_batchnorm: true (on GPUs), or take group"
                " normalization."
            )
        if isinstance(self.trainer.strategy.model, DistributedDataParallel):  # other buffers are equal on all ranks
            self.trainer.strategy.model.broadcast_buffers = bool(alone)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Count the batches of the whole training: the noise depends on the number."""
        self._batch_index = batch_index(self.trainer)

    def step_draws(self, n: int) -> Draws | None:
        """Noise for the ``n`` images of this rank in a training step; None (torch's noise) outside of a trainer.

        It depends on the place of an image in the batch of all ranks: ``W`` ranks with ``B`` images each draw the same
        noise as one process with ``W B`` images.
        """
        if self.noise_seed is None:
            return None
        places = self.global_rank * n + torch.arange(n, device=self.device)
        return Draws(self.noise_seed, self._batch_index, places)

    # ---- numbers ----------------------------------------------------------------------------------------------------
    @property
    def data_spec(self) -> Any:
        """The `ImageSpec`, `CodeSpec` or `LatentSpec` of the trainer's data module; None without one."""
        return getattr(getattr(self.trainer_or_none, "datamodule", None), "spec", None)

    @property
    def trainer_or_none(self) -> Trainer | None:
        """The trainer that runs this model; None if there is none (``trainer`` raises then)."""
        try:
            return self.trainer
        except RuntimeError:
            return None

    @property
    def logs_this_step(self) -> bool:
        """Whether this is a training step whose terms are logged."""
        trainer: Any = self.trainer_or_none
        return trainer is not None and (self.global_step + 1) % trainer.log_every_n_steps == 0

    def log_train(self, terms: dict[str, Tensor], **scalars: Tensor | float) -> None:
        """Log means of per-image terms over all ranks as ``train/<term>``, on logging steps only.

        If a step accumulates gradients, they are means over its batches. Only on logging steps, because each logged key
        costs Lightning a third of a millisecond, as much as a small network's backward pass.
        """
        self.last_terms = {name: value.detach() for name, value in terms.items()}
        if not self.logs_this_step:
            return
        terms = self._reported(terms, self.data_spec)
        means = torch.stack([value.detach().mean() for value in terms.values()])
        means = self._over_step(self.trainer.strategy.reduce(means, reduce_op="mean"))
        values = dict(zip(terms, means.unbind(), strict=True))
        self.log_dict({f"train/{name}": value for name, value in values.items()}, prog_bar=True)
        numbers = {f"train/{name}": float(value) for name, value in scalars.items()}
        self.log_dict(numbers)
        # loggers get it after the step's checkpoint is written: a run killed in between would miss a row
        self.last_logged = self.global_step, {**{f"train/{name}": value for name, value in values.items()}, **numbers}

    def _over_step(self, means: Tensor) -> Tensor:
        """The mean over this and the earlier batches of the same optimizer step."""
        step, earlier = self._means_of_step
        self._means_of_step = self.global_step, [*(earlier if step == self.global_step else []), means]
        return torch.stack(self._means_of_step[1]).mean(0)

    def evaluation_names(self, spec: Any) -> set[str]:
        """Names of the numbers that a validation logs for these data, ``val/<term>``."""
        means = self._with_derived({name: torch.zeros(()) for name in self.term_names}, "val", spec)
        return {f"val/{name}" for name in self._reported(means, spec)}

    def _reported(self, terms: dict[str, Any], spec: Any) -> dict[str, Any]:
        """The terms that are meaningful for these data; by default all."""
        return terms

    def _with_derived(self, means: dict[str, Tensor], split: str, spec: Any) -> dict[str, Tensor]:
        """Epoch means, and numbers derived from them such as bits per dimension; by default none."""
        return means

    def _evaluation_step(self, split: str, batch: Any) -> None:
        # same noise for an image in every evaluation and on any number of ranks: only weights change the numbers
        index = self._positions.indices(len(batch[1]), self.device)
        terms = self.evaluation_terms(batch, Draws(EVALUATION_SEED, FIXED, index))
        self.epoch_means[split].update(terms, index)  # type: ignore[operator]

    def _evaluation_epoch_end(self, split: str) -> None:
        rows, of_batch = self.epoch_means[split].take()  # type: ignore[operator]
        rows = rows if split == "test" else rows[:1]
        added, spec = self.batch_losses(of_batch), self.data_spec
        sums = ({n: mean + added.get(n, 0.0) for n, mean in means.items()} for means in rows)
        numbers, *without_each = (self._reported(self._with_derived(m, split, spec), spec) for m in sums)
        self.replicates = {n: [float(other[n]) for other in without_each] for n in numbers if n not in added}
        # the means are over all ranks already; sync_dist only avoids Lightning's warning
        self.log_dict(
            {f"{split}/{name}": value.float() for name, value in numbers.items()},
            prog_bar=split == "val",
            sync_dist=True,
        )

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """The per-image terms of an evaluation. Families with latents return latents instead."""
        terms = self.evaluation_terms(batch, None)
        return {name: terms[name] for name in self.term_names}

    def on_validation_epoch_start(self) -> None:
        """Count images from zero again."""
        self._positions = RankPositions()

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Accumulate ``val/<term>``."""
        self._evaluation_step("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Accumulate ``test/<term>``."""
        self._evaluation_step("test", batch)

    def on_validation_epoch_end(self) -> None:
        """Log ``val/<term>``, exact means over all images of all ranks."""
        self._evaluation_epoch_end("val")
        self._step_plateau_schedulers()

    def on_test_epoch_end(self) -> None:
        """Log ``test/<term>``, exact means over all images of all ranks."""
        self._evaluation_epoch_end("test")
