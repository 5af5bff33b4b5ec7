"""Kernels in C++ for CPUs, compiled on the machine that runs them: off, unless `native_kernels()` is around.

`layers.hpp` runs all layers of a PixelCNN on spans as one operation. It multiplies rows where they lie, which torch
has to gather first, and does what follows a product before the result goes to memory; its threads meet between layers
and do not go back to Python. `attention.hpp` is attention of a few queries a slot, of which each reads as far as its
own place: torch's takes all places, and multiplies small matrices by a library made for large ones. Sums are added up
in another order than torch's, so that a near tie in float32 may fall otherwise; in float64 samples are the same.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from arm_core.contracts import AutoregressiveModel
from arm_core.errors import InputError

SOURCE = Path(__file__).with_name("kernels.cpp")
INSTRUCTIONS = {
    "AVX512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx2", "-mfma", "-mf16c"],
    "AVX2": ["-mavx2", "-mfma", "-mf16c"],
}
"""By what torch finds that the CPU can do; on others the compiler's own choice."""

_wanted: ContextVar[bool] = ContextVar("native_kernels", default=False)


@contextmanager
def native_kernels(wanted: bool = True) -> Iterator[None]:
    """Within it, samplers that are called on a CPU use the kernels, in float32 and float64; in this thread only.

    The first use on a machine compiles them, in some ten seconds, into the folder `arm_core` of the user's cache.

    Raises:
        InputError: this is no Linux, there is no C++ compiler, or it cannot compile them.
    """
    if wanted:
        _load()
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


def are_wanted() -> bool:
    """Whether `native_kernels()` is around."""
    return _wanted.get()


def serves(weight: Tensor) -> bool:
    """Whether what has this weight is to use the kernels."""
    return _wanted.get() and _knows(weight)


def check_native(arm: AutoregressiveModel) -> None:
    """Raises an InputError unless the spans of this ARM, as it is, can use the kernels, which are compiled then."""
    if not arm.native:
        raise InputError(f"{type(arm).__name__} has no spans with native kernels; leave native out")
    weight = next(arm.parameters())
    if not _knows(weight):
        raise InputError(
            f"native kernels are for float32 and float64 on a CPU, the ARM is {weight.dtype} on {weight.device.type}; "
            "leave native out"
        )
    _load()


def _knows(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)


@cache
def _load() -> None:
    if sys.platform != "linux":
        raise InputError(f"native kernels are for Linux only, not for {sys.platform}; leave native out")
    library = _library()
    try:
        if not library.exists():
            _compile(library)
        torch.ops.load_library(str(library))
    except OSError as error:
        raise InputError(
            f"native kernels cannot be kept at {library}, or loaded from there ({error.__cause__ or error}); "
            "remove that file, name another folder by XDG_CACHE_HOME, or leave native out"
        ) from error


def _flags() -> list[str]:
    capability = torch.backends.cpu.get_cpu_capability()
    instructions = INSTRUCTIONS.get(capability, [])
    if instructions:
        instructions = [*instructions, f"-DCPU_CAPABILITY={capability}", f"-DCPU_CAPABILITY_{capability}"]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    return ["-std=c++20", "-O3", "-fPIC", "-fopenmp", abi, *instructions]


def compiler() -> list[str]:
    """The command that compiles C++, `c++` unless CXX names another; empty if there is none."""
    command = shlex.split(os.environ.get("CXX") or "c++")
    return command if shutil.which(command[0]) is not None else []


def _library() -> Path:
    """Its file: another one for every version of the source, of torch, of the compiler, and of the flags."""
    if not (command := compiler()):
        raise InputError(
            f"native kernels need a C++ compiler, and there is no {os.environ.get('CXX') or 'c++'!r}; install g++ "
            "(or name one by CXX=), or leave native out"
        )
    version = subprocess.run([*command, "--version"], capture_output=True, text=True).stdout
    sources = [path.read_text() for path in sorted(SOURCE.parent.glob("*.[ch]pp"))]
    made_of = [*sources, torch.__version__, command, version, platform.machine(), *_flags()]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    return home / "arm_core" / f"kernels-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]}.so"


def _compile(library: Path) -> None:
    """Under another name first: who is killed, or compiles at the same time, leaves nothing half done."""
    from torch.utils.cpp_extension import include_paths, library_paths

    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        compiled, linked = f"{folder}/kernels.o", f"{folder}/kernels.so"
        includes, paths = [f"-I{path}" for path in include_paths()], [f"-L{path}" for path in library_paths()]
        for command in (  # linked against torch alone, whose threads are those of the OpenMP that it has loaded
            [*compiler(), "-c", str(SOURCE), *_flags(), *includes, "-o", compiled],
            [*compiler(), "-shared", compiled, *paths, "-ltorch_cpu", "-lc10", "-o", linked],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[-200:])
                raise InputError(f"{command[0]} cannot compile {SOURCE.name} ({first}); leave native out")
        os.replace(linked, library)
