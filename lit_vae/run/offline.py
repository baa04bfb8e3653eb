"""Whether the network may be touched: ``LIT_VAE_OFFLINE``, which jobs on a cluster set.

``HF_HUB_OFFLINE`` is not asked: it speaks of the Hugging Face hub, and is set by people whose other data sets are still
to be fetched.
"""

import os
import warnings

VARIABLE = "LIT_VAE_OFFLINE"


def is_offline() -> bool:
    """Whether nothing may be fetched or sent.

    Raises:
        ValueError: the variable is neither 0 nor 1.
    """
    given = os.environ.get(VARIABLE) or "0"
    if given not in ("0", "1"):
        raise ValueError(f"{VARIABLE} (={given}) must be 1 (the network is not touched) or 0. Set it, or unset it.")
    return given == "1"


def keep_others_offline() -> None:
    """Tell libraries that have a switch of their own, if we are offline: W&B, and the Hugging Face hub."""
    if not is_offline():
        return
    mode = os.environ.get("WANDB_MODE")
    if mode not in (None, "", "offline", "disabled"):
        warnings.warn(f"WANDB_MODE (={mode}) yields to {VARIABLE} (=1): W&B is offline.", stacklevel=2)
    os.environ["WANDB_MODE"] = "disabled" if mode == "disabled" else "offline"
    os.environ["WANDB_ERROR_REPORTING"] = "false"  # it sends from the import on
    os.environ["HF_HUB_OFFLINE"] = "1"  # for components of a user's own
