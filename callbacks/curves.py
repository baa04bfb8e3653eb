"""Plots the loss terms of a run."""

import math
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.drawing import new_figure, rasterize
from callbacks.periodic import Periodic
from lit_vae.models.module import Model
from lit_vae.ranges import PositiveInt, checked
from lit_vae.run.panels import log_panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNITLESS = ("perceptual", "adversarial", "discriminator", "discriminator_accuracy", "accuracy")
COLOURS = {"train": "tab:gray", "val": "tab:blue"}


class Curves(Periodic):
    """Plots rate, distortion and loss over the optimizer steps, at each validation: panel ``curves``.

    Checkpoints save the history, so a resumed run plots all of it. Training values are those of the last logged batch
    before a validation.

    Args:
        terms: names after ``train/`` and ``val/``. Terms that a family does not log, or that repeat another, are left
            out.
        every_n_epochs: epochs between two pictures; the history has every validation.
    """

    name = "curves"
    accepts = Model

    @checked
    def __init__(self, terms: list[str] = ["rate", "distortion", "loss"], every_n_epochs: PositiveInt = 1) -> None:  # noqa: B006
        super().__init__(every_n_epochs)
        self.terms = list(terms)
        self.steps: list[int] = []
        self.values: dict[str, list[float]] = {f"{split}/{term}": [] for term in self.terms for split in COLOURS}

    def state_dict(self) -> dict[str, Any]:
        """The history, as plain lists."""
        return {"steps": list(self.steps), "values": {key: list(values) for key, values in self.values.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the history. A term that it does not have starts now."""
        self.steps = list(state_dict["steps"])
        missing = [math.nan] * len(self.steps)
        self.values = {key: list(state_dict["values"].get(key, missing)) for key in self.values}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Append and draw. It runs after the model has logged in its own ``on_validation_epoch_end``."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        logged = trainer.callback_metrics  # on every rank, since reading it may reduce values over ranks
        self.steps.append(trainer.global_step)
        for key, values in self.values.items():
            values.append(float(logged[key]) if key in logged else math.nan)
        if self.due(trainer) and trainer.is_global_zero:
            log_panel(
                trainer, self.name, rasterize(self.figure()), "Rate, distortion and loss over the optimizer steps"
            )

    def figure(self) -> "Figure":
        """One plot per term, side by side."""
        shown: list[str] = []
        for term in self.terms:  # the loss of some families is one of the other terms
            values = self.values[f"val/{term}"]
            if any(map(math.isfinite, values)) and all(values != self.values[f"val/{other}"] for other in shown):
                shown.append(term)
        figure = new_figure(3.4 * max(len(shown), 1), 2.8)
        for index, term in enumerate(shown):
            axes = figure.add_subplot(1, len(shown), index + 1)
            for split, colour in COLOURS.items():
                values = self.values[f"{split}/{term}"]
                if any(map(math.isfinite, values)):
                    marker = "o" if len(self.steps) < 30 else ""
                    axes.plot(self.steps, values, color=colour, marker=marker, markersize=3, label=split)
            axes.set_xlabel("optimizer step")
            axes.set_ylabel(_label(term))
            axes.grid(alpha=0.2, linewidth=0.5)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False)
        return figure


def _label(term: str) -> str:
    """A term with its unit; ``<term>_nats`` is the weighted value of a term that is also logged unweighted."""
    return term if term in UNITLESS else f"{term.removesuffix('_nats')} (nats per image)"
