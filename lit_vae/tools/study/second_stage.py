"""The second stage of a study: a prior that is trained on the latents of each of its runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from lit_vae.run.config_folders import SECOND_STAGE
from lit_vae.run.files import replacing
from lit_vae.tools.study.experiments import Experiment, Step

LATENTS = "latents"
"""Folder of the latents in the run directory of a first stage."""


@dataclass(frozen=True)
class SecondStageExperiment(Experiment):
    """A prior for the latents of one run, its first stage. It needs the latents before it is trained."""

    first: Experiment

    @classmethod
    def after(cls, first: Experiment, overlays: Sequence[Path] = ()) -> "SecondStageExperiment":
        """The second stage of a run, at ``<run>_prior``, with the overlays of the study and of the run's seed."""
        config, run = first.config.with_name(SECOND_STAGE), first.run.with_name(f"{first.name}_prior")
        return cls(config, tuple(overlays), run, first.checkpoint, first)

    @property
    def task(self) -> str:
        """Name of the first stage: both are trained by one job."""
        return self.first.task

    @property
    def files(self) -> tuple[Path, ...]:
        """The configuration, its overlays, and what names the latents, once they are there."""
        return (self.config, *self.overlays, *([self._of_latents] if self._of_latents.is_file() else []))

    @property
    def latents(self) -> Path:
        """Folder of the latents."""
        return self.first.run / LATENTS

    def for_as_long(self, leader: Experiment) -> "SecondStageExperiment":
        """The experiment itself: the budget of a study is that of its first stages."""
        return self

    def next_step(self) -> Step:
        """Also "encode", before it can be trained."""
        step = super().next_step()
        return "encode" if step == "train" and not self.latents.is_dir() else step

    def command(self, step: Step) -> list[str]:
        """Also encoding. Before the training, the overlay that names the latents and their shape is written.

        Raises:
            ValueError: the first stage is not done, or the latents are of another checkpoint.
        """
        if step == "encode":
            if self.first.next_step() != "nothing":
                raise ValueError(f"its first stage, {self.first.name}, is not trained and tested.")
            arguments = [str(self.first.run), "--checkpoint", self.checkpoint, "--out", str(self.latents)]
            return ["lit_vae.tools", "encode", *arguments]
        if step == "train":
            self._name_latents()
        return super().command(step)

    def _name_latents(self) -> None:
        from lit_vae.data import Latents
        from lit_vae.run.loading import identity

        spec, compared = Latents(str(self.latents)).spec, self.first.run / "checkpoints" / f"{self.checkpoint}.ckpt"
        if spec.checkpoint_sha256 != identity(compared):
            raise ValueError(
                f"{self.latents} has latents of {spec.checkpoint} ({spec.checkpoint_sha256[:12]}), which is not"
                f" {compared}. Move the folder away."
            )
        settings = {
            "model": {"init_args": {"latent_shape": list(spec.shape)}},
            "data": {"init_args": {"root": str(self.latents)}},
        }
        with replacing(self._of_latents) as partial:
            partial.write_text(f"# the latents of {self.first.name}\n{yaml.safe_dump(settings, sort_keys=False)}")

    @property
    def _of_latents(self) -> Path:
        return self.run.with_name(f"{self.name}.yaml")


def with_second_stages(every: Sequence[Experiment], folder: Path) -> list[Experiment]:
    """Each run followed by its second stage, if the folder has a ``second_stage.yaml``."""
    if not (folder / SECOND_STAGE).is_file():
        return list(every)
    return [e for first in every for e in (first, SecondStageExperiment.after(first, first.overlays))]
