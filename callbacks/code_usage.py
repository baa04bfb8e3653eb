"""Measures how a model uses its codes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.drawing import new_figure, rasterize
from callbacks.periodic import Measurement
from lit_vae import metrics
from lit_vae.codes import CodeStatistics
from lit_vae.images import Batch
from lit_vae.models.abilities import HasCodes
from lit_vae.run.panels import log_panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class CodeUsage(Measurement):
    """Logs the perplexity and the share of used codes over the whole split, and draws the panel ``code_use``.

    ``{val,test}/perplexity`` and ``code_usage``; with several levels ``perplexity_0``, ``code_usage_0``,
    ``perplexity_1``, ..., coarsest first. In validations the panel is ``code_use_val``. For definitions see
    `lit_vae.codes.CodeStatistics`.

    Args:
        every_n_epochs: see `Periodic`; null: in tests only.
    """

    accepts = HasCodes

    def numbers(self, model: HasCodes, data: Any) -> list[str]:
        """Two per level."""
        levels = model.num_embeddings
        return [f"{name}{_suffix(i, levels)}" for i in range(len(levels)) for name in ("perplexity", "code_usage")]

    def start(self, trainer: Trainer, model: HasCodes) -> None:
        """Start new counts."""
        self.metrics = [metrics.CodeUsage(k).to(model.device) for k in model.num_embeddings]

    def update(self, model: HasCodes, batch: Batch) -> None:
        """Count the codes of a batch."""
        levels = model.encode_codes(*batch)
        for metric, level in zip(self.metrics, levels, strict=True):
            metric.update(level)

    def compute(self) -> dict[str, Tensor]:
        """Perplexity and usage of each level."""
        self.levels: list[CodeStatistics] = [metric.compute() for metric in self.metrics]
        values: dict[str, Tensor] = {}
        for index, level in enumerate(self.levels):
            suffix = _suffix(index, self.levels)
            values |= {f"perplexity{suffix}": level.perplexity, f"code_usage{suffix}": level.usage}
        return values

    def report(self, trainer: Trainer, split: str) -> None:
        """Draw how often each code is used."""
        if trainer.is_global_zero:
            name = "code_use" if split == "test" else f"code_use_{split}"
            total = sum(int(level.counts.sum()) for level in self.levels)
            caption = f"Share of each code among the {total} codes of the {split} images, most used first"
            log_panel(trainer, name, rasterize(usage_figure(self.levels)), caption, self.step(trainer))


def _suffix(level: int, levels: Sequence[Any]) -> str:
    return f"_{level}" if len(levels) > 1 else ""


def usage_figure(levels: list[CodeStatistics]) -> "Figure":
    """The share of each code, most used first: one plot per level, coarsest first."""
    figure = new_figure(max(5.0, 4.0 * len(levels)), 3.0)
    for index, (axes, level) in enumerate(zip(figure.subplots(1, len(levels), squeeze=False)[0], levels, strict=True)):
        _draw_level(axes, level)
        heading = f"level {index}\n" if len(levels) > 1 else ""
        axes.set_title(
            f"{heading}perplexity {float(level.perplexity):.1f} of {len(level.counts)} codes, "
            f"{100.0 * float(level.usage):.1f} % used",
            fontsize=10,
        )
    figure.axes[0].set_ylabel("share of all codes")
    return figure


def _draw_level(axes: "Axes", level: CodeStatistics) -> None:
    shares = (level.counts.double() / level.counts.sum()).cpu().sort(descending=True).values
    used, uniform = shares[shares > 0], 1.0 / len(shares)
    # a log axis has no zero: bars start at half of the smallest value
    bottom, top = 0.5 * min(float(used[-1]), uniform), 2.0 * max(float(used[0]), uniform)
    edges = [rank + 0.5 for rank in range(len(used) + 1)]
    axes.stairs(used.tolist(), edges, baseline=bottom, fill=True, color="tab:blue")
    axes.axhline(uniform, color="black", linestyle="--", linewidth=1.0, label=f"uniform, 1/{len(shares)}")
    axes.set_yscale("log")
    axes.set_ylim(bottom, top)
    axes.set_xlim(0.5, len(shares) + 0.5)
    axes.set_xlabel("rank of the code, most used first")
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    axes.spines[["top", "right"]].set_visible(False)
