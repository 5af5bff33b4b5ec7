"""Where a run took place: device, driver, versions, commit, date."""

import hashlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu.rows import Row

ROOT = Path(__file__).resolve().parents[2]


def facts(device: torch.device, commit: str | None) -> dict[str, str]:
    """What to know of the machine and the code.

    Args:
        device: on which the run takes place.
        commit: of the code; None: asked of git, which a copy without its history cannot tell.
    """
    return {
        "device": device_name(device),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit or _said("git", "-C", str(ROOT), "rev-parse", "HEAD") or "unknown",
        "arm_core": f"sha256 {_sha256(ROOT / 'arm_core')[:16]} of its files",
        "driver": _smi("driver_version") if device.type == "cuda" else "none",
        "power limit": _smi("power.limit") if device.type == "cuda" else "none",
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "host": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads",
        **_gpu(device),
    }


def fact_rows(device: torch.device, commit: str | None) -> list[Row]:
    """The facts as rows."""
    return [{"kind": "fact", "what": name, "note": value} for name, value in facts(device, commit).items()]


def device_name(device: torch.device) -> str:
    """As its driver names it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _gpu(device: torch.device) -> dict[str, str]:
    if device.type != "cuda":
        return {}
    found = torch.cuda.get_device_properties(device)
    return {
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": str(found.multi_processor_count),
        "memory": f"{found.total_memory / 2**30:.1f} GiB",
        "clocks at the start": _smi("clocks.sm") + ", memory " + _smi("clocks.mem"),
    }


def _smi(what: str) -> str:
    return _said("nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader") or "unknown"


def _said(*command: str) -> str | None:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip().splitlines()[0] if answer.stdout.strip() else None


def _sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
