"""Monitors whether decoder and discriminator still learn from each other: plot, warnings, back-off."""

import math
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.drawing import new_figure, rasterize
from callbacks.periodic import Periodic
from lit_vae.models.base import Autoencoder
from lit_vae.models.with_realism import WithRealism
from lit_vae.ranges import AboveHalf, BelowOne, OpenUnitInterval, PositiveInt, checked
from lit_vae.realism import Adversary
from lit_vae.run.panels import log_panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUMBERS = (
    "discriminator_accuracy",
    "logits_real",
    "logits_fake",
    "logit_gap",
    "adaptive_weight",
    "grad_norm_nll",
    "grad_norm_adversarial",
    "adversarial",
    "adversarial_nats",
)
WON, LOST = 0.98, 0.55
"""Mean accuracy over a window: above ``WON`` or below ``LOST`` the two no longer learn from each other."""


class BackOff:
    """Multiplies the adversarial weight by ``factor`` after each window in which the discriminator wins.

    Args:
        threshold: mean accuracy of a window above which the discriminator wins.
        factor: factor on the weight.
        least: smallest share of the weight that remains.
    """

    @checked
    def __init__(self, threshold: AboveHalf = WON, factor: OpenUnitInterval = 0.5, least: BelowOne = 0.01) -> None:
        self.threshold, self.factor, self.least = threshold, factor, least

    @torch.no_grad()
    def apply(self, adversary: Adversary) -> None:
        """Lower the weight once."""
        adversary.scale.mul_(self.factor).clamp_(min=self.least)


class GANHealth(Periodic):
    """Plots the adversarial terms of training, and warns once if decoder or discriminator stops learning.

    Panel ``gan_health``: the discriminator's accuracy and logits, the gradient norms of the adaptive weight, and the
    generator's term, on logging steps, over all ranks. Checkpoints save the history.

    It warns if over a whole window

    - the mean accuracy is above 0.98 while the adversarial term is active,
    - the mean accuracy is below 0.55, after at least one more window of training, or
    - lambda is at its maximum.

    Args:
        every_n_epochs: see `Periodic`; epochs between two pictures.
        window: optimizer steps per check.
        back_off: lowers the adversarial weight when the discriminator wins; null: only warn. The remaining share of the
            weight is logged as ``train/adversarial_scale`` and saved with the model.
    """

    name = "gan_health"

    @checked
    def __init__(
        self, every_n_epochs: PositiveInt = 1, window: PositiveInt = 200, back_off: BackOff | None = None
    ) -> None:
        super().__init__(every_n_epochs)
        self.window, self.back_off = window, back_off
        self.steps: list[int] = []
        self.values: dict[str, list[float]] = {name: [] for name in NUMBERS}
        self._warned: list[str] = []
        self._backed_off = -window

    def check_model(self, model: Autoencoder) -> None:
        """Only models with an adversary."""
        if _adversary(model) is None:
            raise self._refuse(
                f"{type(model).__name__} has no adversary.",
                "Set model.init_args.realism.init_args.adversary, or remove it from trainer.callbacks.",
            )

    def state_dict(self) -> dict[str, Any]:
        """The history, as tensors because it is long."""
        values = {name: torch.tensor(numbers, dtype=torch.float32) for name, numbers in self.values.items()}
        return {
            "steps": torch.tensor(self.steps, dtype=torch.int64),
            "values": values,
            "warned": list(self._warned),
            "backed_off": self._backed_off,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the history."""
        self.steps = state_dict["steps"].tolist()
        self.values = {name: state_dict["values"][name].tolist() for name in NUMBERS}
        self._warned, self._backed_off = list(state_dict["warned"]), state_dict["backed_off"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Append a logged step, and check the window that it ends."""
        assert isinstance(pl_module, Autoencoder)  # by `setup`
        step, logged = pl_module.last_logged
        if step != trainer.global_step - 1 or not logged or (self.steps and step <= self.steps[-1]):
            return
        adversary = _adversary(pl_module)
        assert adversary is not None  # by `check_model`
        self.steps.append(step)
        for name, numbers in self.values.items():
            numbers.append(float(logged.get(f"train/{name}", math.nan)))
        self._judge(adversary)
        if self.back_off is not None:
            scale = float(adversary.scale)
            pl_module.log("train/adversarial_scale", scale)
            logged["train/adversarial_scale"] = scale  # checkpoints save it with the step's other numbers

    def _judge(self, adversary: Adversary) -> None:
        """Warn or back off. All ranks have the same numbers and decide alike."""
        step, active = self.steps[-1], self.felt_since
        accuracy = _mean(self._window("discriminator_accuracy"))
        if active is not None and step - active + 1 >= self.window:
            if accuracy > WON:
                self._warn(
                    f"over the last {self.window} steps the discriminator's accuracy was {accuracy:.3f}: it"
                    " wins, and the decoder learns little from it. Lower its learning rate (adversary.optimizer), add"
                    " augmentations or a penalty (LeCAM, R1), or give GANHealth a back_off.",
                    "won",
                )
            most, adaptive = adversary.max_adaptive_weight, self._window("adaptive_weight")
            if most is not None and adaptive and min(adaptive) >= most * (1.0 - 1e-6):
                self._warn(
                    f"for the last {self.window} steps lambda was at its largest (max_adaptive_weight = {most:g}): the"
                    " discriminator gives the decoder no gradient, or the reconstruction's gradient is too large. See"
                    " grad_norm_adversarial in media/gan_health; raise adversary.max_adaptive_weight, or set it"
                    " to null.",
                    "capped",
                )
            waited = step - self._backed_off >= self.window
            if self.back_off is not None and waited and accuracy > self.back_off.threshold:
                self.back_off.apply(adversary)
                self._backed_off = step
        if step - adversary.start_step + 1 >= 2 * self.window and accuracy < LOST:
            self._warn(
                f"over the last {self.window} steps the discriminator's accuracy was {accuracy:.3f}, after"
                f" {step - adversary.start_step + 1} steps of training: it learns nothing, or real and fake no longer"
                " differ. Raise its learning rate (adversary.optimizer) or width, take fewer augmentations or a smaller"
                " penalty.",
                "lost",
            )

    @property
    def felt_since(self) -> int | None:
        """The first step in the history with an active adversarial term."""
        values = zip(self.steps, self.values["adversarial"], strict=True)
        return next((step for step, value in values if math.isfinite(value)), None)

    def _window(self, name: str) -> list[float]:
        """Values of the logged steps in the last window."""
        first = len(self.steps)
        while first > 0 and self.steps[first - 1] > self.steps[-1] - self.window:
            first -= 1
        return [value for value in self.values[name][first:] if math.isfinite(value)]

    def _warn(self, what: str, key: str) -> None:
        if key not in self._warned:
            self._warned.append(key)
            rank_zero_warn(f"GANHealth: {what}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the history so far."""
        if trainer.state.fn == TrainerFn.FITTING and self.due(trainer) and trainer.is_global_zero and self.steps:
            caption = "Accuracy and logits of the discriminator, gradient norms at the last layer, generator's term"
            log_panel(trainer, self.name, rasterize(self.figure()), caption)

    def figure(self) -> "Figure":
        """Four plots over the optimizer steps; a dotted line marks the start of the adversarial term."""
        figure = new_figure(8.0, 5.6)
        accuracy, logits, norms, term = figure.subplots(2, 2, sharex=True).flat
        self._plot(accuracy, {"discriminator_accuracy": ("accuracy", "tab:blue", "-")})
        accuracy.axhline(0.5, color="tab:gray", linestyle="--", linewidth=1.0, label="chance")
        accuracy.set(title="discriminator", ylabel="accuracy over patches", ylim=(-0.02, 1.02))
        real, fake = ("images", "tab:blue", "-"), ("reconstructions", "tab:orange", "-")
        self._plot(logits, {"logits_real": real, "logits_fake": fake, "logit_gap": ("gap", "tab:gray", "--")})
        logits.set(title="mean logits", ylabel="logit")
        nll, adversarial = ("reconstruction", "tab:green", "-"), ("adversarial", "tab:red", "-")
        balance = {"grad_norm_nll": nll, "grad_norm_adversarial": adversarial}
        self._plot(norms, {**balance, "adaptive_weight": (r"ratio $\lambda$", "black", "--")})
        norms.set(title="gradients at the decoder's last layer", ylabel="norm")
        if any(value > 0.0 for name in (*balance, "adaptive_weight") for value in self.values[name]):
            norms.set_yscale("log")
        self._plot(term, {"adversarial_nats": ("weighted", "tab:red", "-")})
        term.set(title="generator's term")
        term.set_ylabel("weighted (nats per image)", color="tab:red")
        raw = term.twinx()
        self._plot(raw, {"adversarial": ("raw", "tab:purple", "-")})
        raw.set_ylabel("raw", color="tab:purple")
        if self.felt_since is not None:
            accuracy.plot([], [], color="black", linestyle=":", linewidth=1.0, label="adversarial term on")
        for axes in (accuracy, logits, norms, term):
            if self.felt_since is not None:
                axes.axvline(self.felt_since, color="black", linestyle=":", linewidth=1.0)
            axes.title.set_fontsize(10)
            axes.grid(alpha=0.2, linewidth=0.5)
            axes.spines["top"].set_visible(False)
            if axes is not term and axes.get_legend_handles_labels()[0]:
                axes.legend(frameon=False, fontsize=8)
        raw.spines["top"].set_visible(False)
        for axes in (norms, term):
            axes.set_xlabel("optimizer step")
        return figure

    def _plot(self, axes: "Axes", series: dict[str, tuple[str, str, str]]) -> None:
        """Plot the series that have values; ``series`` gives label, colour and style by name."""
        for name, (label, colour, style) in series.items():
            if any(map(math.isfinite, self.values[name])):
                marker = "o" if len(self.steps) < 30 else ""
                values = self.values[name]
                axes.plot(self.steps, values, style, color=colour, lw=1.0, label=label, marker=marker, markersize=3)


def _adversary(model: Autoencoder) -> Adversary | None:
    return model.adversary if isinstance(model, WithRealism) else None


def _mean(values: list[float]) -> float:
    """The mean; NaN for an empty list, so that every comparison is false."""
    return sum(values) / len(values) if values else math.nan
