"""What a run, or a measurement, took place on."""

import platform
import resource
import sys
from pathlib import Path

import torch


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
