"""What something costs on a device: seconds, memory, joules. The CPU's meter is the GPU's without its events."""

import importlib
import time
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import torch

T = TypeVar("T")


class Measured(NamedTuple, Generic[T]):
    """A result and its costs; see the columns of the same names."""

    result: T
    seconds: float
    host_s: float
    peak_mem_bytes: int | None
    joules: float | None

    def costs(self) -> dict[str, Any]:
        """All but the result, as parts of a row."""
        return {name: getattr(self, name) for name in ("seconds", "host_s", "peak_mem_bytes", "joules")}


class Meter:
    """Measures what runs on the CPU.

    Args:
        clock: seconds, from any origin.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock

    def __call__(self, run: Callable[[], T]) -> Measured[T]:
        """Run it once."""
        before = self.clock()
        result = run()
        took = self.clock() - before
        return Measured(result, took, took, None, None)

    def wait(self) -> None:
        """Until the device has done all that it was told."""

    def allocated(self) -> int | None:
        """Bytes that are allocated on the device now."""
        return None


class CudaMeter(Meter):
    """Measures what runs on a GPU: between two events, and by the clock of the host until the GPU has finished.

    Args:
        device: the GPU.
        joules: what it has used so far, or None where nothing tells.
        clock: of the host.
    """

    def __init__(
        self,
        device: torch.device,
        joules: Callable[[], float | None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(clock)
        self.device, self.joules = device, joules

    def __call__(self, run: Callable[[], T]) -> Measured[T]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.wait()
        torch.cuda.reset_peak_memory_stats(self.device)
        used, before = self.joules(), self.clock()
        start.record()
        result = run()
        end.record()
        self.wait()
        took, more = self.clock() - before, self.joules()
        spent = None if used is None or more is None else more - used
        peak = torch.cuda.max_memory_allocated(self.device)
        return Measured(result, start.elapsed_time(end) / 1000, took, peak, spent)

    def wait(self) -> None:
        torch.cuda.synchronize(self.device)

    def allocated(self) -> int:
        return torch.cuda.memory_allocated(self.device)


def meter_for(device: torch.device) -> Meter:
    """The meter of a device."""
    return CudaMeter(device, energy_counter(device)) if device.type == "cuda" else Meter()


def energy_counter(device: torch.device) -> Callable[[], float | None]:
    """Reads the joules that a GPU has used since its driver was loaded; None where NVML does not tell."""
    try:
        pynvml = importlib.import_module("pynvml")
        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # whatever NVML, its binding or its permissions lack: there is no energy then
        return lambda: None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
