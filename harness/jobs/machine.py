"""Where and with what a result came about: the provenance columns of every row."""

import contextlib
import ctypes
import os
import platform
import resource
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_KEPT = {-1: 2**30, -2: 2**26, -3: 2**25}
"""In bytes. M_TRIM_THRESHOLD: free memory at the end of the heap that is kept. M_TOP_PAD: the same for the heaps of
threads, 64 MiB each. M_MMAP_THRESHOLD: the largest piece that is taken from a heap, 32 MiB at most. Any one of them set
alone would freeze the others where they are."""


def device_of_this_job() -> torch.device:
    """The GPU that the job was given, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def provenance() -> dict[str, Any]:
    """Time, machine, versions and commit, as they are now."""
    device = device_of_this_job()
    return {
        "started_at": datetime.now(UTC),
        "host": platform.node(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "cpu": _cpu_name(),
        "cores": available_cpus(),
        "threads": torch.get_num_threads(),
        "load_1m": os.getloadavg()[0],
        **device_state(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "package": metadata.version("arm-sampling"),
        **_commit(),
    }


def available_cpus() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let the allocator of glibc keep what is freed: a step frees all that the next one asks for.

    By default it may give megabytes back to the system in every step, and each page costs a fault when it is asked for
    again; whether it does depends on what else the process has allocated. Elsewhere nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for parameter, size in _KEPT.items():
        mallopt(parameter, size)


def other_cpu_seconds() -> float | None:
    """CPU time that others on this machine have used since it started; None where nobody counts it.

    What this process has started and waited for is not others'.
    """
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq = map(int, fields[:7])
    own = os.times()
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK") - sum(own[:4])


def device_state(device: torch.device) -> dict[str, Any]:
    """The clock of the device and how many other processes use it; None where nobody tells."""
    return _gpu_state() if device.type == "cuda" else _cpu_state(Path("/proc"))


def _gpu_state() -> dict[str, Any]:
    gpu = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
    clocks = [row[0] for row in nvidia_smi("-i", gpu, "--query-gpu=clocks.sm") if row[0].isdigit()]
    processes = [row[0] for row in nvidia_smi("-i", gpu, "--query-compute-apps=pid") if row[0].isdigit()]
    return {
        "clock_mhz": float(clocks[0]) if clocks else None,
        "device_processes": sum(int(pid) != os.getpid() for pid in processes) if clocks else None,
    }


def nvidia_smi(*query: str) -> list[list[str]]:
    """What the driver's tool answers, a row of cells each line; none where there is no such tool."""
    command = ["nvidia-smi", *query, "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    return [[cell.strip() for cell in line.split(",")] for line in answer.stdout.splitlines()]


def _cpu_state(proc: Path) -> dict[str, Any]:
    try:
        clocks = [
            float(line.partition(":")[2])
            for line in (proc / "cpuinfo").read_text().splitlines()
            if line.startswith("cpu MHz")
        ]
        running = int((proc / "loadavg").read_text().split()[3].partition("/")[0]) - 1  # this one runs too
    except (OSError, ValueError, IndexError):
        return {"clock_mhz": None, "device_processes": None}
    return {"clock_mhz": sum(clocks) / len(clocks) if clocks else None, "device_processes": max(running, 0)}


def forget_peak_memory() -> None:
    """Start `peak_memory` anew: this process may have run other jobs. Where the system cannot, it goes on counting."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)  # what earlier jobs have freed is kept, and would count
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: torch.device) -> int:
    """Most bytes held since `forget_peak_memory`: on the GPU if there is one, otherwise in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
    unit = 1 if platform.system() == "Darwin" else 1024  # what getrusage counts in
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@cache
def _commit() -> dict[str, Any]:
    """The commit of the checkout that this package runs from, if it runs from one."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return {"commit": None, "dirty": None}
    git = ["git", "-C", str(checkout)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        # What the bench itself writes into the checkout makes no difference to what ran.
        paths = ["arm_core", "harness", "sweeps", "pyproject.toml"]
        status = subprocess.run(
            [*git, "status", "--porcelain", "--", *paths], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}
