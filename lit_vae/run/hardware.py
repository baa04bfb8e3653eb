"""The processor, GPU, memory and threads of a run or a measurement."""

import platform
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lit_vae.run.threads import cores, export, is_default, summary

SMALL = 2e8
"""Floating-point operations of a batch's forward pass below which a second thread does not help: the MLPs of 0.1e9
(MNIST) and 0.03e9 (digits) train as fast with one thread."""


def processor() -> tuple[str, str]:
    """The processor's name and its bfloat16 instructions, as far as the system says."""
    info = Path("/proc/cpuinfo")
    fields: dict[str, str] = {}
    for line in info.read_text().splitlines() if info.exists() else ():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = fields.get("flags", "").split()
    units = [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
    model = fields.get("model name") or platform.processor() or platform.machine()
    return model, ", ".join(units) or "none known"


def device_name(device: torch.device) -> str:
    """The name of a GPU, or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()[0]


def peak_memory(device: torch.device) -> int:
    """Peak bytes: of this process's tensors on a GPU, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


class CountOperations(TorchDispatchMode):
    """Counts the floating-point operations of matrix products and convolutions within the block, in ``total``.

    torch's FlopCounterMode also hooks modules. These hooks fail under ``no_grad`` if a module is given a parameter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count it."""
        result = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


def set_threads(trainer: Trainer, operations: float) -> str:
    """Set torch's threads for this process and those that it starts, unless the user has; return a line for the log.

    On a CPU a small network gets one thread, any other one thread for each core of this rank. Every start of a run gets
    the same number, since the number of threads changes the last digit of a sum. ``operations`` are those of a batch's
    forward pass; 0: unknown.
    """
    if not is_default():
        return summary(torch.get_num_threads(), "OMP_NUM_THREADS")
    number, limit = cores(trainer.num_devices)
    if trainer.strategy.root_device.type == "cpu" and 0 < operations < SMALL and number > 1:
        number, limit = 1, "a small network"
    export(number)
    torch.set_num_threads(number)
    return summary(number, limit)
