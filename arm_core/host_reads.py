"""Whether code takes values of tensors to the host: its course depends on data then, and cannot be recorded."""

from contextlib import ExitStack
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

OPERATIONS = {"_local_scalar_dense", "item", "nonzero", "masked_select", "lift_fresh", "equal", "is_nonzero"}
"""Of torch: they wait for the device, or have a shape that depends on data."""
METHODS = (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__)
"""They read the memory of a CPU without an operation."""


class HostReads:
    """Within it `seen` becomes true as soon as a value goes to the host."""

    def __init__(self) -> None:
        self.seen = False

    def __enter__(self) -> "HostReads":
        self._modes = ExitStack()
        for mode in (_Methods(self), _Operations(self)):
            self._modes.enter_context(mode)
        return self

    def __exit__(self, *error: Any) -> None:
        self._modes.__exit__(*error)


class _Operations(TorchDispatchMode):
    def __init__(self, reads: HostReads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.reads.seen |= func.overloadpacket.__name__ in OPERATIONS
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    def __init__(self, reads: HostReads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.reads.seen |= func in METHODS
        return func(*args, **(kwargs or {}))
