"""Many mutations in a few processes."""

import shutil
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fuzz_bases
import yaml
from fake_configs import ROOT, covering, name, settings_of
from fuzz_mutations import Case, Places, cases, written
from fuzz_oracle import faults
from fuzz_workers import Ended, in_a_process, lightning
from hypothesis import HealthCheck, Phase, given, seed, settings

settings.register_profile(
    "mutations",
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Outcome:
    """What became of a case, and what was wrong with that."""

    case: Case
    ended: Ended
    faults: tuple[str, ...]


def bases(folder: Path, pool: ThreadPoolExecutor) -> dict[str, Any]:
    """The configurations that are mutated, by name."""
    ended = in_a_process(folder / "feature_net", fuzz_bases.feature_net, folder / "feature_net")
    assert ended.code == 0, ended.err
    checkpoint = folder / "feature_net" / "run" / "checkpoints" / "last.ckpt"

    paths = covering(fuzz_bases.shipped(), settings_of)
    callbacks = fuzz_bases.few_callbacks(paths)

    def completed(path: Path) -> Any:
        here = folder / name(path).replace("/", "-").removesuffix(".yaml")
        ended = in_a_process(here, fuzz_bases.completed, path, here, checkpoint, callbacks[path])
        assert ended.code == 0, ended.err
        return yaml.safe_load((here / "base.yaml").read_text())

    return dict(zip(map(name, paths), pool.map(completed, paths), strict=True))


ALL = 300
"""Of fewer cases each is one of this many, evenly: the first ones that hypothesis draws are much alike."""


def drawn(trees: dict[str, Any], count: int, start: int | None = None) -> list[Case]:
    """The cases: the same ones each time, or those of a seed. No edit comes twice."""
    every = _drawn(trees, max(count, ALL), start)
    return [every[i * len(every) // count] for i in range(count)]


def _drawn(trees: dict[str, Any], count: int, start: int | None) -> list[Case]:
    found: list[Case] = []
    seen: set[str] = set()

    def collect(case: Case) -> None:
        edits = {f"{edit.kind} {edit.at} {edit.value!r}" for edit in case.all}
        if len({edit.at for edit in case.all}) == len(edits) == len(case.all) and not edits & seen:
            seen.update(edits)
            found.append(case)

    profile = settings(settings.get_profile("mutations"), max_examples=6 * count, derandomize=start is None)
    draw = profile(given(cases({name: Places(tree) for name, tree in trees.items()}))(collect))
    (draw if start is None else seed(start)(draw))()
    assert len(found) >= count
    return found[:count]


def outcome(case: Case, trees: dict[str, Any], folder: Path, overlays: Path) -> Outcome:
    """Run a case in a folder, and remove that unless something was wrong."""
    folder.mkdir()
    ended = in_a_process(folder, lightning, *written(case, trees[case.base], folder, overlays))
    wrong = tuple(faults(case, trees[case.base], folder, ended))
    if not wrong:
        shutil.rmtree(folder)
    return Outcome(case, ended, wrong)


def campaign(folder: Path, count: int, processes: int, start: int | None = None) -> Iterable[Outcome]:
    """Run so many cases; in the order in which they end."""
    with ThreadPoolExecutor(processes) as pool:
        trees = bases(folder / "bases", pool)
        run = partial(outcome, trees=trees, overlays=ROOT / "configs" / "overlays")
        folders = (folder / f"{number:04d}" for number in range(count))
        yield from pool.map(lambda case, folder: run(case, folder=folder), drawn(trees, count, start), folders)


def table(outcomes: list[Outcome]) -> str:
    """How many were accepted and refused, and of each kind of fault how many."""
    kinds = Counter(fault.split(":")[0] for outcome in outcomes for fault in outcome.faults)
    accepted = sum(outcome.ended.code == 0 for outcome in outcomes)
    head = f"{len(outcomes)} mutations: {accepted} accepted, {len(outcomes) - accepted} refused"
    return "; ".join([head, *(f"{count} {kind}" for kind, count in kinds.most_common())])
