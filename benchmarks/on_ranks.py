"""What a training on several ranks is measured with: a callback that times steps and weighs what ranks exchange."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.futures import Future
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.timing import now

RESULT_FILE = "ranks.json"


class Measured(NamedTuple):
    """Of one training: seconds a step, and of its last step what a rank put into all-reduces and computed.

    ``gradients`` and ``others`` are bytes; ``calls`` is the number of the others, of which each is waited for, without
    the one that asks for a stop (there is none in a last step). ``flops`` are of all images of a rank.
    """

    seconds: float
    gradients: int
    others: int
    calls: int
    flops: int


class Weighed:
    """The bytes of every all-reduce since it was `reset`, those of gradients apart."""

    def __init__(self) -> None:
        self._all_reduce = dist.all_reduce
        self._of_gradients = False
        self.reset()
        dist.all_reduce = self._weighing

    def reset(self) -> None:
        """Begin anew."""
        self.gradients = self.others = self.calls = 0

    def hook(self, state: None, bucket: dist.GradBucket) -> Future[Tensor]:
        """DDP's own way to average gradients, through here."""
        self._of_gradients = True
        try:
            return allreduce_hook(state, bucket)  # type: ignore[arg-type]
        finally:
            self._of_gradients = False

    def _weighing(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self._of_gradients:
            self.gradients += tensor.nbytes
        else:
            self.others += tensor.nbytes
            self.calls += 1
        return self._all_reduce(tensor, *args, **kwargs)


class Operations(TorchDispatchMode):
    """Counts the operations of matrix products and convolutions, by torch's own formulas.

    Not torch's ``FlopCounterMode``, which follows modules and fails where gradients are taken within a step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


class Weigh(Callback):
    """Measures a training and writes ``RUN/ranks.json``, a `Measured`.

    Args:
        warmup: steps that are not timed.
        count_flops: of the last step, which then takes longer.
    """

    def __init__(self, warmup: int, count_flops: bool = False) -> None:
        self.warmup = warmup
        self.counter = Operations() if count_flops else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.weighed = Weighed()
        if trainer.world_size > 1:
            trainer.strategy.model.register_comm_hook(None, self.weighed.hook)  # type: ignore[union-attr, operator]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.warmup:
            self.start = now(pl_module.device)
        if batch_idx + 1 == trainer.num_training_batches:
            self.weighed.reset()
            if self.counter is not None:
                self.counter.__enter__()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 < trainer.num_training_batches:
            return
        seconds = (now(pl_module.device) - self.start) / (trainer.global_step - self.warmup)
        flops = 0
        if self.counter is not None:
            self.counter.__exit__(None, None, None)
            flops = self.counter.total
        measured = Measured(seconds, self.weighed.gradients, self.weighed.others, self.weighed.calls, flops)
        if trainer.is_global_zero:
            Path(trainer.default_root_dir, RESULT_FILE).write_text(json.dumps(measured._asdict()))
