"""Compiles networks in place."""

from collections.abc import Iterator

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lit_vae.features.base import Frozen
from lit_vae.models.base import Autoencoder
from lit_vae.models.with_realism import WithRealism
from lit_vae.realism import R1

RECOMPILE_LIMIT = 64
"""Blocks of one class share the limit of its ``forward``. Each shape, batch size and mode counts once."""


class Compile(Callback):
    """Compiles encoder, decoder, discriminator and perceptual network with ``torch.compile``, for a fit.

    Compilation is in place, so checkpoints do not change. The first steps and the first validation wait for the
    compiler. Two parts are not compiled:

    - With an adaptive weight, the block of the decoder that holds the last layer: the weight needs a backward pass
      through that layer only. The other blocks are compiled one by one.
    - With R1, the discriminator: compiled code cannot be differentiated twice.

    Args:
        mode: mode of ``torch.compile``, such as ``max-autotune-no-cudagraphs``; null: its default.
        backend: backend of ``torch.compile``.
    """

    def __init__(self, mode: str | None = None, backend: str = "inductor") -> None:
        known = torch._dynamo.list_backends(exclude_tags=())
        if backend not in known:
            raise ValueError(
                f"Compile: backend (={backend!r}) must be one of {', '.join(known)}."
                " Set init_args.backend of callbacks.Compile."
            )
        self.mode, self.backend = mode, backend

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Mark the modules; each is compiled when it first runs."""
        if stage != "fit":
            return
        if not isinstance(pl_module, Autoencoder):
            raise ValueError(
                f"Compile: it needs an autoencoder, the model is a {type(pl_module).__name__}."
                " Remove callbacks.Compile from trainer.callbacks."
            )
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
        for module in _parts(pl_module):
            module.compile(mode=self.mode, backend=self.backend)


def _parts(model: Autoencoder) -> Iterator[nn.Module]:
    """Modules to compile, none inside another."""
    realism = model.realism if isinstance(model, WithRealism) else None
    perceptual = realism.perceptual if realism is not None else None
    adversary = realism.adversary if realism is not None else None
    encoder = getattr(model, "encoder", None)
    if isinstance(encoder, nn.Module):
        yield from _whole(encoder)
    if adversary is not None and adversary.max_adaptive_weight is not None:
        yield from _blocks(model.decoder, getattr(model.decoder, "last_layer", None))
    else:
        yield from _whole(model.decoder)
    for module in perceptual.modules() if perceptual is not None else ():
        if isinstance(module, Frozen):
            yield from _whole(module.network)
    if adversary is not None and any(isinstance(penalty, R1) for penalty in adversary.penalties):
        rank_zero_info("Compile: R1 differentiates the discriminator twice, so it is not compiled.")
    elif adversary is not None:
        assert adversary.discriminator is not None  # by `Autoencoder`
        yield adversary.discriminator


def _whole(network: nn.Module) -> Iterator[nn.Module]:
    """The network, or its blocks if callers use its ``maps`` or ``features`` instead of calling it."""
    if hasattr(network, "maps") or hasattr(network, "features"):
        return _blocks(network, None)
    return iter((network,))


def _blocks(module: nn.Module, last_layer: Tensor | None) -> Iterator[nn.Module]:
    """The largest callable submodules with several layers and without the last layer."""
    for child in module.children():
        if isinstance(child, nn.ModuleList) or any(parameter is last_layer for parameter in child.parameters()):
            yield from _blocks(child, last_layer)
        elif any(True for _ in child.children()):
            yield child
