"""What a node runs jobs with: versions, the code of this package, its GPUs, and whether it sees the store.

The driver asks every node for its facts and compares them with its own (see `harness.execution.preflight`).
"""

import hashlib
import platform
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch

from harness.jobs.machine import nvidia_smi


class Gpu(NamedTuple):
    """A GPU as its driver names it, and its compute capability, (6, 1) for a GTX 1080 Ti."""

    name: str
    capability: tuple[int, int]


@dataclass(frozen=True)
class Stack:
    """The facts of one node.

    Attributes:
        versions: of Python, Ray, torch, CUDA, cuDNN and this package; "none" for what a node has not.
        driver: of the GPUs; None without one.
        gpus: that the node has.
        architectures: that the installed torch has code for, such as sm_70.
        token: what the store's marker says; None: the store is not there.
    """

    host: str
    versions: dict[str, str]
    driver: str | None
    gpus: tuple[Gpu, ...]
    architectures: tuple[str, ...]
    token: str | None


def stack(marker: Path) -> Stack:
    """The facts of the node that this runs on.

    Args:
        marker: a file that the driver put into the store.
    """
    driver, gpus = _gpus()
    return Stack(platform.node(), _versions(), driver, gpus, _architectures(), _token(marker))


def runs_on(capability: tuple[int, int], architectures: tuple[str, ...]) -> bool:
    """Whether a torch with code for these architectures runs on a GPU of this compute capability.

    Machine code (sm_86) runs on the same major number and a minor one at least as large; intermediate code
    (compute_90) is compiled for every later GPU.
    """
    for name in architectures:
        kind, _, digits = name.partition("_")
        number = digits.rstrip("af")
        if not number.isdigit():
            continue
        major, minor = divmod(int(number), 10)
        if kind == "sm" and major == capability[0] and minor <= capability[1]:
            return True
        if kind == "compute" and (major, minor) <= capability:
            return True
    return False


def _versions() -> dict[str, str]:
    return {
        "Python": platform.python_version(),
        "Ray": metadata.version("ray"),
        "torch": torch.__version__,
        "CUDA": torch.version.cuda or "none",
        "cuDNN": str(torch.backends.cudnn.version() or "none"),
        "arm-sampling": f"{metadata.version('arm-sampling')} (code {_code()})",
    }


@cache
def _code() -> str:
    """A digest of the source of both packages: two checkouts may bear the same version."""
    root, digest = Path(__file__).resolve().parents[2], hashlib.sha256()
    for file in sorted([*root.glob("arm_core/**/*.py"), *root.glob("harness/**/*.py")]):
        digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()[:10]


def _gpus() -> tuple[str | None, tuple[Gpu, ...]]:
    """The driver and the GPUs, of all the node: Ray hides from a task those that it was not given."""
    rows = [row for row in nvidia_smi("--query-gpu=driver_version,name,compute_cap") if len(row) == 3]
    gpus = []
    for _, name, capability in rows:
        major, _, minor = capability.partition(".")
        if major.isdigit() and minor.isdigit():
            gpus.append(Gpu(name, (int(major), int(minor))))
    return (rows[0][0] if rows else None), tuple(gpus)


def _architectures() -> tuple[str, ...]:
    """As torch.cuda.get_arch_list, which says nothing where no GPU is given to the process."""
    flags = getattr(torch._C, "_cuda_getArchFlags", None)
    return tuple((flags() or "").split()) if flags is not None else ()


def _token(marker: Path) -> str | None:
    try:
        return marker.read_text(encoding="utf-8")
    except OSError:
        return None
