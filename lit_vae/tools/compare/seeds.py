"""Trainings that differ in their seed alone: means over them, and intervals for another seed's training."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lit_vae.intervals import Estimate, over_repetitions
from lit_vae.tools.compare.gather import Entry
from lit_vae.tools.compare.metric_table import metric, ordered
from lit_vae.tools.compare.numbers import Number

SEED = "seed_everything"
LENGTH = ("max_steps", "min_steps")


@dataclass(frozen=True)
class OverSeeds:
    """Trainings of one configuration: labels of the first and of the others, and by metric the mean over them.

    `against_first` is the mean of the differences to the first configuration, seed by seed.
    """

    label: str
    others: tuple[str, ...]
    means: Mapping[str, Estimate]
    against_first: Mapping[str, Estimate]


def by_seed(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Runs in groups of one configuration and number of steps, and of different seeds; in their order."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        config = _but_seed_and_length(entry)
        alike = json.dumps(config, sort_keys=True, default=str) if entry.records.config else entry.given
        while any(_seed(entry) == _seed(other) for other in groups.get(alike, ())):
            alike += " again"  # the same seed twice: another checkpoint of a run, or a copy
        groups.setdefault(alike, []).append(entry)
    return list(groups.values())


def over_seeds(groups: Sequence[Sequence[Entry]]) -> list[OverSeeds]:
    """The numbers that decide, of every configuration that was trained with several seeds."""
    first = groups[0]
    return [
        OverSeeds(group[0].label, tuple(entry.label for entry in group[1:]), _means(group), _differences(group, first))
        for group in groups
        if len(group) > 1
    ]


def metrics_of(rows: Sequence[OverSeeds]) -> list[str]:
    """The metrics that some row has, in the order of the page."""
    return ordered({name for row in rows for name in row.means})


def _means(group: Sequence[Entry]) -> dict[str, Estimate]:
    values = {name: [entry.numbers[name].value for entry in group] for name in _deciding(group)}
    return {name: over_repetitions(found) for name, found in values.items()}


def _differences(group: Sequence[Entry], first: Sequence[Entry]) -> dict[str, Estimate]:
    theirs = {_seed(entry): entry for entry in first}
    pairs = [(entry, theirs[_seed(entry)]) for entry in group if _seed(entry) in theirs]
    if group is first or len(pairs) < 2:
        return {}
    both = [entry for pair in pairs for entry in pair]
    return {
        name: over_repetitions([mine.numbers[name].value - other.numbers[name].value for mine, other in pairs])
        for name in _deciding(both)
    }


def _deciding(entries: Sequence[Entry]) -> list[str]:
    """Metrics that decide and that all runs have, of the same split, measured alike."""
    first = entries[0].numbers
    decide = [name for name, number in first.items() if number.split and metric(name).decides]
    return [name for name in decide if all(_measured_alike(first[name], e.numbers.get(name)) for e in entries)]


def _measured_alike(one: Number, other: Number | None) -> bool:
    return other is not None and (one.split, one.protocol) == (other.split, other.protocol)


def _but_seed_and_length(entry: Entry) -> list[object]:
    """What makes two runs alike: also how long they trained, not how long they were to (see ``--budget_from``).

    A budget by the clock gives each seed its own number of steps.
    """
    config = {key: value for key, value in entry.records.config.items() if key != SEED}
    trainer = {key: value for key, value in config.get("trainer", {}).items() if key not in LENGTH}
    steps = entry.records.run.get("step") if trainer.get("max_time") is None else None
    return [entry.variant, {**config, "trainer": trainer}, steps]


def _seed(entry: Entry) -> object:
    return entry.records.config.get(SEED)
