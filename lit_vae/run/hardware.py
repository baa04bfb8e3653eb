"""What a run, or a measurement, took place on."""

import platform
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lit_vae.run.threads import cores, in_words, is_ours, keep

SMALL = 2e8
"""Floating-point operations of one batch on its way through a network that a second thread does not make faster: the
MLPs of 0.1e9 (MNIST) and 0.03e9 (digits) train as fast with one thread, and the second one waits most of the time."""


def processor() -> tuple[str, str]:
    """Name of the processor and its instructions for bfloat16, as far as the system tells."""
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
    """Name of a GPU, or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()[0]


def peak_memory(device: torch.device) -> int:
    """Bytes: of a GPU the most that tensors took there in this process, else the most that the process took at all."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


class CountOperations(TorchDispatchMode):
    """Counts the floating-point operations of matrix products and convolutions within the block, in ``total``.

    torch's own FlopCounterMode also follows modules, by hooks that fail under ``no_grad`` where a module is given a
    parameter.
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


def settle_threads(trainer: Trainer, operations: float) -> str:
    """Set torch's threads for this process and those that it starts, unless the user has; a line for the log.

    On a CPU there is one for a small network, else one for each core that is this rank's. What decides is the same
    in every start of a run, since sums of other numbers of threads differ in the last digit.

    Args:
        trainer: on which devices, and by how many processes here.
        operations: of one batch on its way through the network, floating-point; 0: not known.
    """
    if not is_ours():
        return in_words(torch.get_num_threads(), "OMP_NUM_THREADS")
    number, limit = cores(trainer.num_devices)
    if trainer.strategy.root_device.type == "cpu" and 0 < operations < SMALL and number > 1:
        number, limit = 1, "a small network"
    keep(number)
    torch.set_num_threads(number)
    return in_words(number, limit)
