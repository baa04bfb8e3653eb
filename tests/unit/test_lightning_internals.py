"""Private and undocumented names of Lightning and jsonargparse are read in one module, and are there."""

import ast
import importlib
import importlib.util
import inspect
import re
import subprocess
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import jsonargparse
import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from lit_vae.run import lightning_internals
from lit_vae.run.lightning_internals import (
    CLASS_PATH,
    INSTANTIATE_MODULE,
    INSTANTIATOR,
    SUPPORTED,
    batch_index,
    import_rules_given_back,
    started_processes,
    validation_interval,
)

ROOT = Path(__file__).parents[2]
THEIRS = ("lightning", "lightning_fabric", "pytorch_lightning", "jsonargparse", "argparse")
NAMES = {
    "lightning.pytorch.core.mixins.hparams_mixin": ("_given_hyperparameters",),
    "jsonargparse._common": ("parsing_settings",),
}
"""The private names that `lightning_internals` imports, by module."""

INSIDE_A_TRAINER = {
    "fit_loop", "total_batch_idx", "val_check_batch", "procs", "epoch_loop", "validate_loop", "test_loop",
    "predict_loop", "batch_progress", "optim_progress", "batch_loop", "automatic_optimization_loop",
}  # fmt: skip
OF_A_LOGGER = {"_wandb_init", "_experiment"}
"""The arguments of ``wandb.init`` and the run. Once a logger is made, there is no documented way to change them."""


OF_NAMED_TUPLES = {"_replace", "_asdict", "_fields"}


@pytest.fixture
def trainer_of(tmp_path):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return lambda **given: Trainer(accelerator="cpu", devices=1, default_root_dir=tmp_path, **quiet, **given)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name.strip("_") != ""


@cache
def their_names() -> frozenset[str]:
    """Private names that are defined anywhere in Lightning, jsonargparse or argparse."""
    roots = [Path(str(importlib.util.find_spec(name).origin)) for name in ("lightning", "jsonargparse", "argparse")]
    files = [f for root in roots for f in (root.parent.rglob("*.py") if root.name == "__init__.py" else [root])]
    defined = re.compile(r"def (_\w+)|class (_\w+)|(?:self|cls)\.(_\w+)\s*[:=]|^\s*(_\w+)\s*[:=]", re.MULTILINE)
    return frozenset(name for f in files for found in defined.findall(f.read_text()) for name in found if name)


def used_by_class(tree: ast.AST) -> set[str]:
    """Private names that a class defines, or reads of itself or of ``super()``."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "cls", "super()"):
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return {name for name in found if is_private(name)}


@cache
def private_names(base: type) -> set[str]:
    """Of a class of Lightning or jsonargparse; none of any other."""
    if base.__module__.partition(".")[0] not in THEIRS:
        return set()
    mangled = {name for name in vars(base) if name.startswith(f"_{base.__name__}__")}
    return used_by_class(ast.parse(inspect.getsource(base))) | mangled


def complaints(source: str, classes: dict[str, type], own: set[str]) -> list[str]:
    """Private and undocumented names of Lightning and jsonargparse in a source.

    Args:
        source: of a module.
        classes: those that it defines.
        own: private names that lit_vae defines anywhere.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in THEIRS:
            parts = [*node.module.split("."), *(alias.name for alias in node.names)]
            found += [f"imports {node.module}.{part}" for part in parts if is_private(part)]
        elif isinstance(node, ast.Attribute):
            private = is_private(node.attr) and node.attr in their_names() - own
            # what torch calls alike is torch's: `torch._dynamo`, `module._apply`
            if node.attr in INSIDE_A_TRAINER or (private and not ast.unparse(node.value).startswith("torch")):
                found.append(f"reads {ast.unparse(node)}")
        elif isinstance(node, ast.Constant) and node.value in (CLASS_PATH, INSTANTIATOR, *INSIDE_A_TRAINER):
            found.append(f"names {node.value!r}")
        elif isinstance(node, ast.ClassDef) and node.name in classes:
            inherited = set().union(*map(private_names, classes[node.name].__mro__))
            found += [f"{node.name} uses {name}" for name in used_by_class(node) & inherited]
    return found


def sources() -> dict[str, str]:
    files = [path for package in ("lit_vae", "callbacks") for path in (ROOT / package).rglob("*.py")]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path.read_text()
        for path in sorted(files)
    }


def test_no_other_module_reads_a_private_name():
    own = OF_NAMED_TUPLES.union(*(used_by_class(ast.parse(source)) for source in sources().values()))
    found = []
    for name, source in sources().items():
        if name == lightning_internals.__name__:
            continue
        classes = {key: value for key, value in vars(importlib.import_module(name)).items() if isinstance(value, type)}
        said = complaints(source, classes, own)
        if name in ("lit_vae.run.wandb_logger", "lit_vae.run.wandb_reopened", "lit_vae.tools.upload.wandb_upload"):
            said = [one for one in said if one.rpartition(" ")[2] not in OF_A_LOGGER]
        found += [f"{name} {one}" for one in said]
    assert not found, "\n".join(found)


class Overriding(Trainer):
    def _run(self, *args, **kwargs):
        return super()._run(*args, **kwargs)


@pytest.mark.parametrize(
    "source",
    [
        "from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher",
        "def f():\n    from jsonargparse._common import parsing_settings",
        "def f(trainer):\n    return trainer.fit_loop.total_batch_idx",
        "def f(trainer):\n    return getattr(trainer, 'val_check_batch', None)",
        "def f(module):\n    return module._trainer is None",
        "def f(parser):\n    return parser._actions",
        "CLASS = hparams['_class_path']",
        inspect.getsource(Overriding),
    ],
)
def test_an_offending_source_is_named(source):
    assert complaints(source, {"Overriding": Overriding}, own=set())


def test_the_names_are_those_that_the_module_imports():
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(lightning_internals))) if isinstance(node, ast.Call)]
    imported = [tuple(a.value for a in call.args) for call in calls if ast.unparse(call.func) == "_imported"]
    assert sorted(imported) == sorted((module, name) for module, names in NAMES.items() for name in names)


def test_every_private_name_is_there():
    for module, names in NAMES.items():
        for name in names:
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
    module, _, name = INSTANTIATE_MODULE.rpartition(".")
    assert callable(getattr(importlib.import_module(module), name))
    for name in OF_A_LOGGER:
        assert name in inspect.getsource(importlib.import_module("lightning.pytorch.loggers.wandb")), name


class Seen(Callback):
    def __init__(self):
        self.batches = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch_index(trainer))


def test_batches_are_counted_through_all_epochs(trainer_of):
    seen = Seen()
    trainer = trainer_of(callbacks=[seen], max_epochs=2, limit_train_batches=6, accumulate_grad_batches=3)
    trainer.fit(BoringModel())
    assert seen.batches == list(range(12))


@pytest.mark.parametrize(("given", "expected"), [(1.0, 6), (0.5, 3), (2, 2), ("00:00:01:00", None)])
def test_the_interval_of_validations_is_in_batches(given, expected, trainer_of):
    trainer = trainer_of(val_check_interval=given, max_epochs=1, limit_train_batches=6, limit_val_batches=1)
    trainer.fit(BoringModel())
    assert validation_interval(trainer) == expected


def test_only_processes_that_lightning_has_started_are_taken_over(trainer_of):
    assert started_processes(trainer_of()) == []  # there is no launcher
    launcher = importlib.import_module("lightning.pytorch.strategies.launchers.subprocess_script")
    theirs = launcher._SubprocessScriptLauncher(None, num_processes=2, num_nodes=1)
    assert theirs.procs == []
    with subprocess.Popen(["true"]) as process:
        theirs.procs.append(process)
        found = started_processes(SimpleNamespace(strategy=SimpleNamespace(launcher=theirs)))
        assert found == [process]
    found.clear()
    assert theirs.procs == []  # the list itself, or Lightning would end the run
    theirs.procs.append("a process of multiprocessing")
    assert started_processes(SimpleNamespace(strategy=SimpleNamespace(launcher=theirs))) == []


def test_the_rules_of_imports_are_given_back():
    def allowed(name: str) -> bool:
        parser = jsonargparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("--kind", type=type)
        try:
            return parser.parse_args([f"--kind={name}"]).kind is not None
        except jsonargparse.ArgumentError:
            return False

    assert allowed("torch.nn.Linear")
    with import_rules_given_back():
        jsonargparse.set_parsing_settings(import_path_denylist=["*"])
        assert not allowed("torch.nn.Linear")
    assert allowed("torch.nn.Linear")


@pytest.mark.parametrize(
    ("package", "name"), [(m.partition(".")[0], f"{m}.{n}") for m, ns in NAMES.items() for n in ns]
)
def test_a_name_that_has_gone_says_which_version_to_install(package, name, monkeypatch):
    module, _, attribute = name.rpartition(".")
    monkeypatch.delattr(importlib.import_module(module), attribute)
    reads = {
        "lightning": lightning_internals.is_built_from_configuration,
        "jsonargparse": import_rules_given_back().__enter__,
    }
    with pytest.raises(ImportError, match=re.escape(f"has no {name}, which lit_vae needs")) as caught:
        reads[package]()
    assert SUPPORTED[package] in str(caught.value)


def test_an_attribute_that_has_gone_says_so_too():
    with pytest.raises(ImportError, match=r"has no Trainer\.fit_loop\.total_batch_idx"):
        batch_index(SimpleNamespace(fit_loop=None))


def test_the_versions_are_those_of_the_package():
    requirements = (ROOT / "pyproject.toml").read_text()
    assert all(f'"{given}"' in requirements for given in SUPPORTED.values())
