"""Calls on a CPU as straight-line code: a step then costs its arithmetic, and not the Python that led to it.

A call of fixed shapes runs the same operations of torch on the same memory every time. They are seen once, at torch's
dispatcher, and written down one below the other as a function of no arguments: hundreds of modules, properties and
checks of shapes are left out, and the arithmetic is that of the call, bit for bit.
"""

from collections.abc import Callable
from functools import lru_cache
from types import CodeType
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from arm_core.host_reads import HostReads


def taped(call: Callable[[], None]) -> Callable[[], None]:
    """Carries a call out, and returns what does it again; under `sampling_mode`, as everything that samples.

    Args:
        call: of fixed shapes: what it reads of the host, such as Python numbers, stays as it is now. One that takes
            values of tensors to the host is not written down; it is what does it again.
    """
    with HostReads() as reads, Tape() as tape:
        call()
    return call if reads.seen else tape.code()


class Tape(TorchDispatchMode):
    """Writes down what runs. Tensors that were there before are constants: memory that is read and written in place."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, list[str]]] = []  # what is done, and the results that it makes or reads
        self.constants: dict[str, Any] = {}
        self._named: dict[int, str] = {}  # constants by identity
        self._made = 0  # results so far; each tensor bears its name, and the tape that gave it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        tensors = [one for one in _flat([*args, *kwargs.values()]) if isinstance(one, Tensor)]
        if not func._schema.is_mutable:
            if any(result is one for one in tensors):  # a conversion to what it was
                return result
            if tensors and all(self._result(one) is None for one in tensors) and _is_view(result, tensors):
                return result  # of memory that stays: a constant itself
        names: list[str] = []
        given = [self._name(one, names) for one in args]
        given += [f"{name}={self._name(one, names)}" for name, one in kwargs.items()]
        does = f"{self._constant(func._op)}({', '.join(given)})"
        self.lines.append((f"{self._target(result, tensors, names)} = {does}", names))
        return result

    def code(self) -> Callable[[], None]:
        """A function that does again what was written down; it lets go of each result after its last use."""
        last = {name: number for number, (_, names) in enumerate(self.lines) for name in names}
        body = [
            does + "".join(f"; del {name}" for name in dict.fromkeys(names) if last[name] == number)
            for number, (does, names) in enumerate(self.lines)
        ]
        scope = dict(self.constants)
        given = ", ".join(f"{name}={name}" for name in scope)  # local names are found faster
        exec(_compiled(f"def replay({given}):\n " + "\n ".join([*body, "return"])), scope)
        replay: Callable[[], None] = scope["replay"]
        return replay

    def _name(self, value: Any, names: list[str]) -> str:
        if isinstance(value, tuple | list) and any(isinstance(one, Tensor) for one in value):
            return f"[{', '.join(self._name(one, names) for one in value)}]"
        name = self._result(value) if isinstance(value, Tensor) else None
        if name is None:
            return self._constant(value)
        names.append(name)
        return name

    def _result(self, tensor: Tensor) -> str | None:
        tape, name = getattr(tensor, "_taped", (None, None))
        return name if tape is self else None

    def _target(self, result: Any, given: list[Tensor], names: list[str]) -> str:
        if isinstance(result, tuple | list):
            return "".join(f"{self._target(one, given, names)}, " for one in result).join("()")
        if not isinstance(result, Tensor) or any(result is one for one in given):
            return "_"
        self._made += 1
        names.append(f"v{self._made}")
        result._taped = self, names[-1]  # type: ignore[attr-defined]
        return names[-1]

    def _constant(self, value: Any) -> str:
        if id(value) not in self._named:
            self._named[id(value)] = f"c{len(self.constants)}"
            self.constants[self._named[id(value)]] = value  # kept, so that no other gets its identity
        return self._named[id(value)]


@lru_cache(maxsize=16)
def _compiled(text: str) -> CodeType:
    """Streams of the same shapes give the same text, and to read it takes as long as three calls of a small decoder."""
    return compile(text, "<tape>", "exec")


def _flat(values: Any) -> list[Any]:
    return [inner for one in values for inner in (_flat(one) if isinstance(one, tuple | list) else [one])]


def _is_view(result: Any, of: list[Tensor]) -> bool:
    return isinstance(result, Tensor) and any(
        result.untyped_storage()._cdata == one.untyped_storage()._cdata for one in of
    )
