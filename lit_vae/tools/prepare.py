"""``lit-vae prepare``: fetch or compute data, published weights and reference statistics before a run needs them."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_vae.run.config_folders import configurations_in, with_base
from lit_vae.run.needs import Measured, Need, needs_of

if TYPE_CHECKING:
    from lit_vae.tools.configurations import Components


def prepare(
    what: list[str], config: list[str] | None = None, data_root: str | None = None, check: bool = False
) -> None:
    """Fetch and compute what runs need: data, published weights, reference statistics. What exists is kept.

    Prints a line for each: its path, size and checksum, and what was done. At the end it lists what is still missing,
    and how to get it.

    Args:
        what: Configurations, folders of them, or names of published weights.
        config: Overlay for each configuration.
        data_root: Folder of the data, instead of the one in the configurations.
        check: Only verify: fetch and compute nothing, and use no network.
    """
    missing, need = Missing(), None
    for need in _all_needs(what, [Path(overlay) for overlay in config or []], data_root):
        problem, did = _settle(need, check)
        if problem is None:
            size, checksum = need.measure()
            print(f"{need.what}: {need.where}, {size / 2**20:.1f} MiB, {checksum}: {did}", flush=True)
        else:
            missing.add(need, problem)
    if need is None:
        print(f"{' '.join(what)}: nothing needed")
    if missing.explained:
        lines = missing.lines(what, config or [], data_root) if check or missing.damaged else missing.explained
        raise ValueError("\n".join([f"lit-vae prepare {' '.join(what)}: not all is there.", *lines]))


def unprepared(components: "Components") -> list[str]:
    """What a run of these components lacks, and the command that brings it; empty if nothing is missing."""
    missing = Missing()
    for need in _once(need for need in _needs(components) if need.blocks):
        if problem := need.problem():
            missing.add(need, problem)
    first, *overlays = map(str, components.files)
    return missing.lines([first], overlays)


class Missing:
    """Lines about what is missing."""

    def __init__(self) -> None:
        self.explained: list[str] = []
        self._problems: list[str] = []
        self._can_be_had = False
        self.damaged: list[str] = []

    def add(self, need: Need, problem: str) -> None:
        """Add a line, unless the component failed only because of a problem that is listed already."""
        if isinstance(need, Unknown) and any(known in problem for known in self._problems):
            return
        self._problems.append(problem)
        where = "" if isinstance(need, Unknown) else f"{need.where}: "
        if damaged := need.is_damaged():
            self.damaged.append(need.what)
        self.explained.append(f"{need.what}: {where}{'damaged' if damaged else 'missing'}: {problem}")
        self._can_be_had |= need.provides is not None

    def lines(self, what: Sequence[str], overlays: Sequence[str], data_root: str | None = None) -> list[str]:
        """All lines. If anything can be fetched or computed, the last one is the command for that."""
        if not self._can_be_had:
            return self.explained
        command = ["lit-vae", "prepare", *what, *(word for overlay in overlays for word in ("--config", overlay))]
        command += ["--data_root", data_root] if data_root else []
        first = f"Delete what is damaged of {', '.join(self.damaged)}, then run" if self.damaged else "Run"
        last = f"{first}  {shlex.join(command)}  where there is internet: it brings what can be fetched or computed."
        return [*self.explained, last]


class Unknown(Need):
    """Stands for the needs of a component that cannot list them yet, since something else is missing."""

    def __init__(self, component: object, error: Exception) -> None:
        self.what, self.error = type(component).__name__, error

    @property
    def where(self) -> Path:
        """Nowhere."""
        return Path()

    def problem(self) -> str:
        """The error that kept it from listing its needs."""
        return str(self.error)

    def measure(self) -> Measured:
        """Nothing."""
        return Measured(0, "")


def _all_needs(what: list[str], overlays: list[Path], data_root: str | None) -> Iterator[Need]:
    """All needs, each once. Every configuration is read before anything is fetched."""
    from lit_vae.features.weights import PUBLISHED, PublishedWeights

    unknown = [name for name in what if not Path(name).exists() and name not in PUBLISHED]
    if unknown:
        raise ValueError(
            f"lit-vae prepare: there is no {', '.join(unknown)}. Give configurations (.yaml), folders of them, or of"
            f" the weights {', '.join(PUBLISHED)}."
        )
    weights = [PublishedWeights(name) for name in what if name in PUBLISHED]
    files = [file for name in what if name not in PUBLISHED for file in _configurations(Path(name))]
    return _once(chain(weights, *_read_all([[*with_base(file), *overlays] for file in files], data_root)))


def _configurations(path: Path) -> list[Path]:
    return configurations_in(path) if path.is_dir() else [path]


def _read_all(configurations: list[list[Path]], data_root: str | None) -> list[Iterator[Need]]:
    """The needs of each configuration; no model is kept."""
    from lit_vae.tools.configurations import build_components, takes_root

    found, problems, takes = [], [], False
    for files in configurations:
        try:
            components = build_components(files)
            if data_root is not None and takes_root(components.data):
                components, takes = build_components(files, [f"--data.init_args.root={data_root}"]), True
            found.append(_needs(components))
        except ValueError as error:
            problems.append(f"{' with '.join(map(str, files))}: {error}")
    if problems:
        raise ValueError("\n".join(problems))
    if data_root is not None and not takes:
        raise ValueError(
            f"lit-vae prepare: --data_root (={data_root}) is the folder of data, and nothing given reads one: no"
            " data.init_args.root. Leave --data_root out."
        )
    return found


def _needs(components: "Components") -> Iterator[Need]:
    """What data, model and callbacks need, in this order."""
    of_model = [need for module in components.model.modules() for need in _asked(module)]
    return _in_order(components.data, of_model, components.callbacks)


def _in_order(data: Any, of_model: Sequence[Need], callbacks: Sequence[Any]) -> Iterator[Need]:
    """Ask the callbacks last: they may have to read the data to list their needs."""
    yield from _asked(data)
    yield from of_model
    for callback in callbacks:
        yield from _asked(callback, data)


def _asked(component: Any, *given: Any) -> Iterator[Need]:
    try:
        yield from needs_of(component, *given)
    except (ValueError, OSError) as error:
        yield Unknown(component, error)


def _once(needs: Iterable[Need]) -> Iterator[Need]:
    seen = set()
    for need in needs:
        name = need.what, str(need.where)
        if name not in seen:
            seen.add(name)
            yield need


def _settle(need: Need, check: bool) -> tuple[str | None, str]:
    """Provide what is missing. Returns the remaining problem (None if all is well) and what was done."""
    problem = need.problem()
    if problem is None or check or need.provides is None:
        return problem, "there"
    try:
        need.provide()
    except (ValueError, OSError) as error:
        return str(error), ""
    return need.problem(), need.provides
