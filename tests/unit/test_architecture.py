"""Who may import whom, read from the sources; and that importing the package is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FREE = (
    "lit_vae.images", "lit_vae.encoded", "lit_vae.codes", "lit_vae.latents", "lit_vae.noise", "lit_vae.ranks",
    "lit_vae.factories", "lit_vae.ranges", "lit_vae.intervals",
    "lit_vae.run.forms", "lit_vae.run.lightning_internals", "lit_vae.run.needs", "lit_vae.run.offline",
    "lit_vae.run.staging", "lit_vae.run.threads", "lit_vae.run.weights",
)  # fmt: skip

# The first entry whose name begins that of a module holds for it: itself and those below may be imported, besides FREE.
ARROWS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(FREE, ()),
    "lit_vae.schedules": (),
    "lit_vae.sampling": (),
    "lit_vae.quantizers": ("lit_vae.quantizers",),
    "lit_vae.distributions": ("lit_vae.distributions",),
    "lit_vae.likelihoods": ("lit_vae.distributions",),
    "lit_vae.flows": ("lit_vae.distributions",),
    "lit_vae.priors": ("lit_vae.priors", "lit_vae.distributions", "lit_vae.flows"),
    "lit_vae.equivariance": (),
    "lit_vae.posteriors": ("lit_vae.distributions", "lit_vae.flows"),
    "lit_vae.objectives": ("lit_vae.objectives", "lit_vae.distributions", "lit_vae.schedules"),
    "lit_vae.networks": ("lit_vae.networks",),
    "lit_vae.hierarchies": (
        "lit_vae.hierarchies", "lit_vae.networks", "lit_vae.distributions", "lit_vae.objectives",
    ),
    "lit_vae.diffusion": ("lit_vae.diffusion", "lit_vae.distributions", "lit_vae.likelihoods"),
    "lit_vae.features": ("lit_vae.features", "lit_vae.networks", "lit_vae.run.loading"),
    "lit_vae.interop": (
        "lit_vae.interop", "lit_vae.models.base", "lit_vae.models.abilities", "lit_vae.networks", "lit_vae.quantizers",
    ),
    "lit_vae.realism": (
        "lit_vae.realism", "lit_vae.features", "lit_vae.objectives", "lit_vae.schedules",
    ),
    "lit_vae.models": (
        "lit_vae.models", "lit_vae.objectives", "lit_vae.networks", "lit_vae.likelihoods", "lit_vae.priors",
        "lit_vae.posteriors", "lit_vae.equivariance", "lit_vae.distributions", "lit_vae.schedules", "lit_vae.metrics",
        "lit_vae.quantizers", "lit_vae.sampling", "lit_vae.realism", "lit_vae.hierarchies", "lit_vae.diffusion",
    ),
    "lit_vae.data": ("lit_vae.data",),
    "lit_vae.metrics": ("lit_vae.metrics", "lit_vae.distributions", "lit_vae.features"),
    "lit_vae.run": ("lit_vae.run", "lit_vae.models.base", "lit_vae.models.module"),
    "lit_vae.tools": ("lit_vae", "callbacks"),
    "lit_vae.cli": ("lit_vae",),
    # what the interface of base.py returns is a distribution, and panels ask which
    "callbacks": (
        "callbacks", "lit_vae.models.base", "lit_vae.models.abilities", "lit_vae.models.module",
        "lit_vae.models.denoising", "lit_vae.diffusion",
        "lit_vae.models.with_realism", "lit_vae.metrics", "lit_vae.run",
        "lit_vae.distributions", "lit_vae.sampling", "lit_vae.features", "lit_vae.interop", "lit_vae.realism",
    ),
    "lit_vae": ("lit_vae.__version__",),
}  # fmt: skip
# Rooms of lit_vae.tools, and the rooms whose files each may import; all may import the files beside the rooms.
ROOMS: dict[str, tuple[str, ...]] = {
    "priors": (),
    "pictures": ("priors",),
    "measure": ("priors",),
    "exchange": ("measure",),
    "compare": ("priors",),
    "upload": (),
    "cluster": (),
    "study": ("compare", "cluster"),
}
ENTRY_POINTS = ("lit_vae.cli", "lit_vae.tools")
SHARED_BY_FAMILIES = (
    "lit_vae.models", "lit_vae.models.module", "lit_vae.models.optimized", "lit_vae.models.base",
    "lit_vae.models.abilities",
    "lit_vae.models.with_realism", "lit_vae.models.vae", "lit_vae.models.hierarchical_vae",
    "lit_vae.models.pixel_decoder", "lit_vae.models.discrete", "lit_vae.models.denoising",
)  # fmt: skip


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports_of(source: str, module: str, package: str) -> set[str]:
    """Modules of this project that a source imports anywhere, also inside of functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:  # `from lit_vae import distributions` is the module, not the package
                name = f"{base}.{alias.name}"
                found.add(name if is_module(name) else base)
    return {name for name in found if name.split(".")[0] in ("lit_vae", "callbacks")}


def complaints(module: str, imported: set[str]) -> list[str]:
    """What is wrong with a module's imports, each as one sentence that names the import."""
    owner = next(name for name in ARROWS if within(module, name))
    allowed = (*ARROWS[owner], *FREE)
    found = []
    for name in sorted(imported):
        if any(within(name, entry) for entry in ENTRY_POINTS) and not any(within(module, e) for e in ENTRY_POINTS):
            found.append(f"{module} imports {name}: nothing imports the entry points")
        elif not any(within(name, package) for package in allowed):
            found.append(f"{module} imports {name}: {owner} may import {', '.join(allowed)} and nothing else of ours")
        elif (
            within(module, "lit_vae.models")
            and module != "lit_vae.models"
            and within(name, "lit_vae.models")
            and name not in SHARED_BY_FAMILIES[1:]
        ):
            found.append(f"{module} imports {name}: families import vae.py and what they share, never each other")
    return found


def sources() -> list[Path]:
    return sorted(path for package in ("lit_vae", "callbacks") for path in (ROOT / package).rglob("*.py"))


def module_of(path: Path) -> tuple[str, str]:
    """Its name and that of its package."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__":
        return ".".join(parts[:-1]), ".".join(parts[:-1])
    return ".".join(parts), ".".join(parts[:-1])


def test_every_import_follows_the_arrows():
    assert sources()
    found = []
    for path in sources():
        module, package = module_of(path)
        found += complaints(module, imports_of(path.read_text(), module, package))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source", "named"),
    [
        ("lit_vae.objectives.bounds", "from lit_vae.likelihoods import Likelihood", "lit_vae.likelihoods"),
        ("lit_vae.networks.conv", "import lit_vae.distributions", "lit_vae.distributions"),
        ("lit_vae.networks.conv", "from ..priors import Prior", "lit_vae.priors"),
        ("lit_vae.data.mnist", "def f():\n    from lit_vae import models", "lit_vae.models"),
        ("lit_vae.models.vae", "from lit_vae.data.base import ImageData", "lit_vae.data"),
        ("lit_vae.models.vae", "from lit_vae.models.ae import AE", "families import"),
        ("lit_vae.models.vae", "from callbacks import FID", "callbacks"),
        ("lit_vae.distributions", "from lit_vae.cli import main", "nothing imports the entry points"),
        ("callbacks.samples", "from lit_vae.models.vae import VAE", "lit_vae.models.vae"),
        ("callbacks.samples", "from lit_vae.models import VAE", "lit_vae.models"),
        ("lit_vae.run.loggers", "from callbacks.panel import Panel", "callbacks"),
        ("lit_vae.metrics.latents", "from lit_vae.models.base import Autoencoder", "lit_vae.models.base"),
    ],
)
def test_an_offending_import_is_named(module, source, named):
    (complaint,) = complaints(module, imports_of(source, module, module.rpartition(".")[0]))
    assert complaint.startswith(f"{module} imports ")
    assert named in complaint


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lit_vae.objectives.bounds", "from lit_vae import distributions, images"),
        ("lit_vae.models.vae", "from lit_vae.models.base import Autoencoder\nfrom .with_realism import X"),
        ("callbacks.samples", "from lit_vae.models.base import Autoencoder\nimport torch\nfrom . import panel"),
        ("lit_vae.cli", "from lit_vae.run import directory\nfrom lit_vae.models import base"),
    ],
)
def test_an_import_that_follows_the_arrows_is_not_complained_of(module, source):
    assert complaints(module, imports_of(source, module, module.rpartition(".")[0])) == []


def test_rooms_of_tools_import_the_rooms_below_and_the_command_line_their_front_doors():
    tools = ROOT / "lit_vae" / "tools"
    assert set(ROOMS) == {path.parent.name for path in tools.glob("*/__init__.py")}
    found = []
    for path in tools.rglob("*.py"):
        module, package = module_of(path)
        for name in imports_of(path.read_text(), module, package):
            room, mine = (each.split(".")[2:3] for each in (name, module))
            if mine and mine[0] in ROOMS:
                allowed = not room or room[0] not in ROOMS or room == mine or room[0] in ROOMS[mine[0]]
            else:
                allowed = not room or room[0] not in ROOMS or name.count(".") == 2
            found += [] if allowed else [f"{module} imports {name}"]
    assert not found, "\n".join(found)


def test_importing_is_light():
    """The package and the parser of ``lit-vae`` cost nothing, and its mathematics no more than torch."""
    code = """if True:
        import sys
        heavy = ("lightning", "wandb", "scipy", "sklearn", "matplotlib", "torchvision", "torchmetrics")
        import lit_vae, lit_vae.tools
        print([name for name in ("torch", *heavy) if name in sys.modules])
        import lit_vae.distributions, lit_vae.likelihoods, lit_vae.networks, lit_vae.objectives, lit_vae.priors
        print([name for name in heavy if name in sys.modules])
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["[]", "[]"]
