"""What every model is: one step, from which training and evaluation follow, and terms that are averaged exactly."""

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lit_vae.metrics.split_mean import SplitMean
from lit_vae.models.optimized import Optimized
from lit_vae.noise import FIXED, Draws, key
from lit_vae.objectives.step import Step
from lit_vae.ranks import RankPositions, rank, world_size
from lit_vae.run.lightning_internals import CLASS_PATH, batch_index, is_built_from_configuration
from lit_vae.run.weights import differences, shapes_of

EVALUATION_SEED = 2**31 - 1


class Model(Optimized, ABC):
    """A LightningModule whose every number is a mean over images of a per-image term: ``{train,val,test}/<term>``."""

    term_names: tuple[str, ...]
    """Per-image terms of an evaluation, as in ``val/<term>``."""

    batch_terms: dict[str, tuple[int, ...]] = {}  # noqa: RUF012  (never mutated)
    """Shapes of what an evaluation also averages over the split, by name, for `batch_losses`."""

    has_added_terms: bool = False
    """Whether the loss has terms beside the family's own; see `add_terms`."""

    num_classes: int = 0
    """Number of labels that it is conditioned on; 0: labels are ignored."""

    class_names: tuple[str, ...] = ()
    """Names of the labels of the data that it was trained on, kept in its checkpoints; empty if they have none."""

    def __init__(self, optimizer: OptimizerCallable, lr_scheduler: LRSchedulerCallable | None) -> None:
        super().__init__(optimizer, lr_scheduler)
        # From the command line the plain configuration is kept, and a checkpoint alone builds the model again. From
        # Python there are only built components, which a checkpoint that loads with weights_only=True cannot hold.
        if is_built_from_configuration():
            self.save_hyperparameters()
        shapes = {**dict.fromkeys(self.term_names, ()), **self.batch_terms}
        self.epoch_means = nn.ModuleDict(
            {split: nn.ModuleDict({k: SplitMean(shape) for k, shape in shapes.items()}) for split in ("val", "test")}
        )
        self.noise_seed: int | None = None
        self._batch_index = 0
        self._positions = RankPositions()
        self.last_logged: tuple[int, dict[str, Any]] = (-1, {})
        self.last_terms: dict[str, Tensor] = {}
        self._means_of_step: tuple[int, list[Tensor]] = (-1, [])

    @abstractmethod
    def step(self, batch: Any, step: int | None, draws: Draws | None) -> Step:
        """The family's algorithm, in training and in evaluation: from a batch to its per-image terms, in nats.

        Args:
            batch: inputs and labels.
            step: optimizer steps taken, for schedules. None: an evaluation, with the terms in `term_names` and the
                final values of schedules. No value may depend on which other images are in the batch then: what a loss
                has of a whole batch is made of `batch_terms`.
            draws: noise of the batch's images; None: of torch's generator.
        """

    def add_terms(self, result: Step, batch: Any, step: int | None) -> Step:
        """The result of a family's `step` with what is composed with the family, if it `has_added_terms`."""
        return result

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss in nats, averaged over the images of the batch; all terms are logged."""
        result = self.step(batch, self.global_step, self.step_draws(len(batch[-1])))
        if self.has_added_terms:
            result = self.add_terms(result, batch, self.global_step)
        self.log_train(result.terms, **result.scalars)
        loss = result.terms["loss"].mean()
        return loss if result.other_loss is None else loss + result.other_loss

    def evaluation_terms(self, batch: Any, draws: Draws | None) -> dict[str, Tensor]:
        """Per-image terms ``(B,)`` of an evaluation, in nats, and ``(n, *shape)`` for each of `batch_terms`."""
        result = self.step(batch, None, draws)
        if self.has_added_terms:
            result = self.add_terms(result, batch, None)
        return {**result.terms, **result.of_batch}

    def batch_losses(self, means: dict[str, Tensor]) -> dict[str, Tensor | float]:
        """What is added to the means of terms, by their names: made of the split's means of `batch_terms`."""
        return {}

    @abstractmethod
    def problems(self, spec: Any) -> list[str]:
        """Everything that keeps it from being trained on such data, each with its remedy; empty if nothing does."""

    def loss_problems(self) -> list[str]:
        """Why its loss cannot be computed, such as a missing file; pictures do without the loss. By default nothing."""
        return []

    def check_networks(self) -> list[str]:
        """What a pass of blanks through its networks says of wrong shapes, before any data is read."""
        return []

    def labels_for(self, n: int, y: Tensor | None) -> Tensor:
        """``y`` if given; else one of each class in turn ``(n,)``, or -1 where labels mean nothing."""
        if y is not None:
            return y.to(self.device)
        if self.num_classes:
            return torch.arange(n, device=self.device) % self.num_classes
        return torch.full((n,), -1, device=self.device)

    def class_name(self, label: int) -> str:
        """The name of a label, or its number where the data has no names."""
        return self.class_names[label] if 0 <= label < len(self.class_names) else str(label)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the names of the classes."""
        if self.class_names:
            checkpoint["class_names"] = list(self.class_names)

    def condition(self, y: Tensor) -> Tensor | None:
        """What networks are told of labels ``y (B,)``: one-hot ``(B, num_classes)``, or None for a model without."""
        return F.one_hot(y, self.num_classes).to(self.dtype) if self.num_classes else None

    def _label_problems(self, num_classes: int) -> list[str]:
        """Why the labels of data with ``num_classes`` of them do not do; a model without labels takes any data."""
        if not self.num_classes or 0 < num_classes <= self.num_classes:
            return []
        return [
            f"{type(self).__name__}: model.num_classes (={self.num_classes}) must be the number of the data's labels"
            f" (={num_classes}). Set model.init_args.num_classes, to 0 for a model without labels."
        ]

    def is_settled(self, step: int) -> bool:
        """Whether the weights after ``step`` optimizer steps may be the run's best, by what a validation sees."""
        return True

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Know the names of the classes; refuse, within a run, weights of another model.

        Raises:
            ValueError: naming what is missing, unexpected or of another shape.
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
        """Agree on the noise's seed, give each rank but the first a generator of its own, warn of lonely statistics.

        All are seeded alike, for equal weights; dropout and augmentations are not to be the same on every rank.
        """
        self.class_names = tuple(getattr(self.data_spec, "class_names", ()))
        if self.noise_seed is None:
            self.noise_seed = self.trainer.strategy.broadcast(torch.initial_seed())
        if rank():
            torch.manual_seed(key(self.noise_seed, rank()))
        alone = [name for name, m in self.named_modules() if type(m) in (nn.BatchNorm1d, nn.BatchNorm2d)]
        if world_size() > 1 and alone:
            rank_zero_warn(
                f"{type(self).__name__}: {alone[0]} normalises over the batch of each rank alone: {world_size()} ranks"
                " do not train what one process would. Set trainer.sync_batchnorm: true (on GPUs), or take group"
                " normalization."
            )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Know which batch of the whole training this is: the time of its noise."""
        self._batch_index = batch_index(self.trainer)

    def step_draws(self, n: int) -> Draws | None:
        """Noise for the ``n`` images of this rank in a training step; outside of a trainer None, torch's own.

        It belongs to a batch of all ranks and to a place in it: ``W`` ranks of ``B`` images draw what one process of
        ``W B`` draws.
        """
        if self.noise_seed is None:
            return None
        places = self.global_rank * n + torch.arange(n, device=self.device)
        return Draws(self.noise_seed, self._batch_index, places)

    # ---- numbers ----------------------------------------------------------------------------------------------------
    @property
    def data_spec(self) -> Any:
        """The `ImageSpec` or `CodeSpec` of the data module at hand; None without one."""
        return getattr(getattr(self.trainer_or_none, "datamodule", None), "spec", None)

    @property
    def trainer_or_none(self) -> Trainer | None:
        """The trainer that runs this model; None outside of a trainer, where ``trainer`` raises."""
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
        """Log means of per-image terms over the batches of all ranks as ``train/<term>``, on logging steps only.

        Where a step accumulates the gradients of several batches, they are means over those batches. A logged key costs
        Lightning a third of a millisecond on *every* step, as much as a small network's backward.
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
        """The mean of this and all earlier batches of the same optimizer step, which count alike in its gradient."""
        step, earlier = self._means_of_step
        self._means_of_step = self.global_step, [*(earlier if step == self.global_step else []), means]
        return torch.stack(self._means_of_step[1]).mean(0)

    def evaluation_names(self, spec: Any) -> set[str]:
        """Names of the numbers that a validation on such data logs, ``val/<term>``."""
        means = self._with_derived({name: torch.zeros(()) for name in self.term_names}, "val", spec)
        return {f"val/{name}" for name in self._reported(means, spec)}

    def _reported(self, terms: dict[str, Any], spec: Any) -> dict[str, Any]:
        """Those terms that mean something for such data; by default all."""
        return terms

    def _with_derived(self, means: dict[str, Tensor], split: str, spec: Any) -> dict[str, Tensor]:
        """Epoch means and what follows from them, such as bits per dimension; by default nothing does."""
        return means

    def _evaluation_step(self, split: str, batch: Any) -> None:
        _, y = batch
        # An image has the same noise at every evaluation and on any number of ranks: numbers differ by the weights.
        draws = Draws(EVALUATION_SEED, FIXED, self._positions.indices(len(y), self.device))
        for name, value in self.evaluation_terms(batch, draws).items():
            self.epoch_means[split][name].update(value, len(y))  # type: ignore[index]

    def _evaluation_epoch_end(self, split: str) -> None:
        means = {name: metric.compute() for name, metric in self.epoch_means[split].items()}  # type: ignore[operator]
        for metric in self.epoch_means[split].values():  # type: ignore[operator]
            metric.reset()
        of_batch = {name: means.pop(name) for name in self.batch_terms}
        for name, value in self.batch_losses(of_batch).items():
            means[name] = means[name] + value
        spec = self.data_spec
        means = self._reported(self._with_derived(means, split, spec), spec)
        values = {f"{split}/{name}": value.float() for name, value in means.items()}
        # the means are those of all ranks already: syncing them again changes nothing and says so to Lightning
        self.log_dict(values, prog_bar=split == "val", sync_dist=True)

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """The per-image terms of an evaluation; families with latents give those instead."""
        terms = self.evaluation_terms(batch, None)
        return {name: terms[name] for name in self.term_names}

    def on_validation_epoch_start(self) -> None:
        """Count the images from the first."""
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
