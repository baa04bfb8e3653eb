"""Everything that a comparison shows, before any of it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lit_vae.tools.compare.charts import Chart, curves, scatters
from lit_vae.tools.compare.comparable import Comparison, compare_numbers
from lit_vae.tools.compare.configs import config_differences
from lit_vae.tools.compare.gather import Entry, gather
from lit_vae.tools.runs import Checkpoint, Split, choose_device

if TYPE_CHECKING:
    from lit_vae.tools.compare.pictures import Group, Pictures


@dataclass(frozen=True)
class Request:
    """What a user asks for; see `lit_vae.tools.compare.compare`."""

    runs: tuple[str, ...]
    split: Split
    num_images: int
    checkpoint: Checkpoint
    data_root: str | None
    seed: int
    device: str | None


@dataclass(frozen=True)
class Study:
    """The runs, what each has to show and what they have in common.

    Args:
        name: of the comparison.
        request: what was asked for.
        entries: the runs.
        pictures: of each run.
        groups: runs that were shown the same images.
        comparison: their numbers.
        scatters: what is paid in one number for another.
        curves: numbers of validation over steps.
        configs: keys whose values differ, and the value of each run.
    """

    name: str
    request: Request
    entries: Sequence[Entry]
    pictures: Sequence["Pictures"]
    groups: Sequence["Group"]
    comparison: Comparison
    scatters: Sequence[Chart]
    curves: Sequence[Chart]
    configs: dict[str, list[str]]

    @property
    def has_reconstructions(self) -> bool:
        """Of any run."""
        return any(group.errors for group in self.groups)

    @property
    def has_samples(self) -> bool:
        """Of any run."""
        return any(picture.samples is not None for picture in self.pictures)


def study(name: str, request: Request) -> Study:
    """Read, reconstruct, draw samples, compare.

    Raises:
        ValueError: a run is none, its data is not there, or it cannot be compared at all.
    """
    from lit_vae.tools.compare.pictures import group, groups_of, look

    device = choose_device(request.device)
    entries = gather(request.runs, request.checkpoint)
    pictures = [
        look(entry, request.split, request.num_images, request.seed, request.data_root, device) for entry in entries
    ]
    groups = group(pictures)
    shown = groups_of(groups, len(entries))
    comparison = compare_numbers(entries, shown)
    return Study(
        name,
        request,
        entries,
        pictures,
        groups,
        comparison,
        scatters(comparison),
        curves(entries, shown),
        config_differences([entry.records.config for entry in entries]),
    )
