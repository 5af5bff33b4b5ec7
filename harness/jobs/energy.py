"""Joules that a GPU has used, by NVML, or a machine's processors, by RAPL; nothing where neither answers.

Counters count for everybody: what other processes use meanwhile is in them, as it is in the seconds. They move every
few milliseconds (RAPL) to a tenth of a second (NVML), so what is shorter is told roughly.
"""

import ctypes
import math
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows RAPL (kernel documentation, power/powercap); on most systems to root only."""


class Counter(NamedTuple):
    """Joules at some moment, and at how many the counter starts again from 0."""

    joules: float
    wraps_at: float


def counters(device: torch.device, powercap: Path = POWERCAP) -> dict[str, Counter]:
    """Every counter that answers now, by its name: the GPU's, or one a processor package."""
    if device.type != "cuda":
        return {zone.name: found for zone in sorted(powercap.glob("*:*")) if (found := _package(zone)) is not None}
    used, nvml = ctypes.c_ulonglong(), _nvml()
    if nvml is None or nvml[0].nvmlDeviceGetTotalEnergyConsumption(nvml[1], ctypes.byref(used)):
        return {}  # an answer other than 0 is an error: Volta and later count
    return {"gpu": Counter(used.value / 1e3, math.inf)}


def joules_between(before: dict[str, Counter], after: dict[str, Counter]) -> float | None:
    """What was used between two readings; None where nobody counted."""
    used = [(after[name].joules - each.joules) % each.wraps_at for name, each in before.items() if name in after]
    return sum(used) if used else None


def _package(zone: Path) -> Counter | None:
    """A package's counter; None for its parts, which it includes, and for what cannot be read."""
    try:
        name, used, most = ((zone / file).read_text().strip() for file in ("name", "energy_uj", "max_energy_range_uj"))
        return Counter(int(used) / 1e6, int(most) / 1e6) if name.startswith("package") else None
    except (OSError, ValueError):
        return None


@cache
def _nvml() -> tuple[Any, Any] | None:
    """(the driver's library, its handle of this job's GPU)."""
    try:
        library, handle = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p()
        uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}".encode()
        if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle)):
            return None
    except (OSError, AttributeError, RuntimeError):
        return None
    return library, handle
