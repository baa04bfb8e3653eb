"""Whether the network may be used: ``LIT_VAE_OFFLINE``, which jobs on a cluster set.

``HF_HUB_OFFLINE`` is not read: it is about the Hugging Face hub alone, and many set it while they download MNIST.
"""

import os
import warnings

VARIABLE = "LIT_VAE_OFFLINE"


def is_offline() -> bool:
    """Whether downloads and uploads are forbidden.

    Raises:
        ValueError: the variable is neither 0 nor 1.
    """
    given = os.environ.get(VARIABLE) or "0"
    if given not in ("0", "1"):
        raise ValueError(
            f"{VARIABLE} (={given}) must be 1 (do not use the network) or 0. Set it to one of them, or unset it."
        )
    return given == "1"


def keep_others_offline() -> None:
    """If offline, set the switches of W&B and of the Hugging Face hub, too."""
    if not is_offline():
        return
    mode = os.environ.get("WANDB_MODE")
    if mode not in (None, "", "offline", "disabled"):
        warnings.warn(f"WANDB_MODE (={mode}) is overruled by {VARIABLE} (=1): W&B is offline.", stacklevel=2)
    os.environ["WANDB_MODE"] = "disabled" if mode == "disabled" else "offline"
    os.environ["WANDB_ERROR_REPORTING"] = "false"  # it sends as soon as it is imported
    os.environ["HF_HUB_OFFLINE"] = "1"  # for components of a user's own
