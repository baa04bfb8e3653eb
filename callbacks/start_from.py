"""Starts training from the weights of another run."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lit_vae.interop import load_into
from lit_vae.models.base import Autoencoder
from lit_vae.models.with_realism import WithRealism
from lit_vae.ranges import checked
from lit_vae.run.checkpoints import AtomicCheckpointIO
from lit_vae.run.needs import Need, NeededFile
from lit_vae.run.weights import differences, shapes_of

OF_A_RECIPE = ("likelihood", "objective", "realism")
"""Parts that a recipe may change: they start anew if those of the checkpoint differ or are missing."""

TRAINED_WITH_A_DECODER = ("decoder", *OF_A_RECIPE)


class StartFrom(Callback):
    """Starts a fit with the weights of a checkpoint of this project, a diffusers folder or a CompVis file.

    A file written by ``torch.save(model.state_dict(), path)`` works, too. A resumed run ignores it and uses its own
    checkpoint. Networks, quantizers and prior must match the checkpoint; with `callbacks.EMA` its average is used.
    Likelihood, objective and realism (the discriminator) are loaded if they match. Otherwise they start anew, with a
    message; files of other libraries have none of the three.

    ``train: decoder`` fine-tunes the decoder and keeps latents bitwise unchanged, so a diffusion model on them stays
    valid (sd-vae-ft-mse). Only decoder, likelihood and realism are trained; all else, such as a codebook, is frozen.

    Args:
        path: file or folder of the weights.
        train: all, or only the decoder.
    """

    @checked
    def __init__(self, path: str, train: Literal["all", "decoder"] = "all") -> None:
        self.path = Path(path)
        self.train = train

    def needs(self, data: Any) -> Iterable[Need]:
        """The weights."""
        return [NeededFile("weights to start from", self.path, "Set init_args.path of callbacks.StartFrom.")]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze parts that are not trained, before the optimizer and DDP's buckets are made."""
        if stage != "fit":
            return
        if not isinstance(pl_module, Autoencoder):
            raise ValueError(
                f"StartFrom: it needs an autoencoder, the model is a {type(pl_module).__name__}."
                " Remove callbacks.StartFrom from trainer.callbacks; resume a run with --ckpt_path."
            )
        for part in self._frozen(pl_module):
            part.requires_grad_(False)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the weights, unless the run is resumed, which is only known here.

        Raises:
            ValueError: the file is missing or does not fit. It names the differences.
        """
        assert isinstance(pl_module, Autoencoder)  # by `setup`
        if trainer.ckpt_path is not None:
            return
        if not self.path.exists():
            raise ValueError(
                f"StartFrom: path (={str(self.path)!r}) must be a .ckpt file of a run, a diffusers folder or a CompVis"
                " file, and there is none. Set init_args.path of callbacks.StartFrom."
            )
        if (state := _read_own_weights(self.path)) is None:
            load_into(pl_module, self.path)
        else:
            self._load(pl_module, state)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put frozen parts in evaluation mode; validations restore it."""
        for part in self._frozen(pl_module):
            part.eval()

    def _frozen(self, model: LightningModule) -> list[nn.Module]:
        if self.train == "all":
            return []
        return [part for name, part in model.named_children() if name not in TRAINED_WITH_A_DECODER]

    def _load(self, model: Autoencoder, state: Mapping[str, Tensor]) -> None:
        own = shapes_of(model.state_dict())
        given = {name: value for name, value in state.items() if _part(name) not in OF_A_RECIPE}
        expected = {name: shape for name, shape in own.items() if _part(name) not in OF_A_RECIPE}
        if different := differences(shapes_of(given), expected):
            raise ValueError(
                f"StartFrom: {self.path} is not of this {type(model).__name__}: {different}. Take the model.init_args"
                " of its run (config.yaml), or another checkpoint."
            )
        anew = []
        for part in OF_A_RECIPE:
            theirs = {name: value for name, value in state.items() if _part(name) == part}
            expected = {name: shape for name, shape in own.items() if _part(name) == part}
            if shapes_of(theirs) == expected:
                given |= theirs
            elif expected:
                anew.append(part)
        model.load_state_dict(given, strict=False)
        if isinstance(model, WithRealism) and model.adversary is not None:
            model.adversary.scale.fill_(1.0)  # undo the back-off of the other run
        rank_zero_info(f"StartFrom: weights of {self.path}" + (f"; anew: {', '.join(anew)}." if anew else "."))


def _part(name: str) -> str:
    return name.partition(".")[0]


def _read_own_weights(path: Path) -> Mapping[str, Tensor] | None:
    """Weights of a file of this project; None for files of other libraries."""
    if path.is_dir() or path.suffix == ".safetensors":
        return None
    try:
        content = AtomicCheckpointIO().read(path)
    except ValueError:
        return None  # `read_autoencoder` reports the problem
    state = content.get("state_dict", content)  # a checkpoint, or weights alone
    theirs = any(str(name).endswith("encoder.conv_in.weight") for name in state)
    return None if theirs or not all(isinstance(value, Tensor) for value in state.values()) else state or None
