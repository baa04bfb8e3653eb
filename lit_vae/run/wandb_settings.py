"""Where a W&B run goes, and what it is called: the user's variables, the run directory and the configuration say so."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_vae.run.offline import is_offline

SETTINGS_FILE = Path("wandb") / "settings.yaml"
"""The project, name, group, tags and configuration of the W&B run, for an upload on another machine."""

SETTINGS = ("project", "entity", "name", "group", "tags", "notes", "job_type")
"""The arguments of ``wandb.init`` that `SETTINGS_FILE` keeps."""

ID_FILE = Path("wandb") / "run_id"


def wandb_project() -> str:
    """``WANDB_PROJECT`` if set, else ``lit_vae``."""
    return os.environ.get("WANDB_PROJECT") or "lit_vae"


def wandb_mode() -> str:
    """``WANDB_MODE`` if set; ``online`` where the user is logged in and there is a network; else ``offline``."""
    return os.environ.get("WANDB_MODE") or ("online" if logged_in() and not is_offline() else "offline")


def logged_in() -> bool:
    """Whether there is an API key for W&B's server: in a variable or ``~/.netrc``."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc

    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc.netrc().authenticators(host) is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False


def group_of(run_dir: Path) -> str | None:
    """The folders between ``runs`` and the run, which are the study; without ``runs`` the folder above the run.

    ``runs/compare/mnist/gan`` -> ``compare/mnist``.
    """
    above = run_dir.parts[:-1]
    below = above[len(above) - above[::-1].index("runs") :] if "runs" in above else above[-1:]
    return "/".join(below) or None


def tags_of(config: Mapping[str, Any]) -> list[str]:
    """The family, and the classes that make up its objective: ``[VAE, FixedGaussian, ELBO, Perceptual, Adversary]``."""
    model = config.get("model") or {}
    arguments = model.get("init_args") or {}
    realism = (arguments.get("realism") or {}).get("init_args") or {}
    parts = [model, *(arguments.get(name) for name in ("likelihood", "objective")), *realism.values()]
    return [part["class_path"].rpartition(".")[2] for part in parts if isinstance(part, dict) and "class_path" in part]
