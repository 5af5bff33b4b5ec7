"""Whether code takes values of tensors to the host: its course depends on data then, and cannot be recorded."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

OPERATIONS = {"_local_scalar_dense", "item", "nonzero", "masked_select", "lift_fresh", "equal", "is_nonzero"}
"""Of torch: they wait for the device, or have a shape that depends on data."""
METHODS = (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__)
"""They read the memory of a CPU without an operation."""


class HostReads(TorchDispatchMode, TorchFunctionMode):
    """Within it `seen` becomes true as soon as a value goes to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __enter__(self) -> "HostReads":
        TorchFunctionMode.__enter__(self)
        TorchDispatchMode.__enter__(self)
        return self

    def __exit__(self, *error: Any) -> None:
        TorchDispatchMode.__exit__(self, *error)
        TorchFunctionMode.__exit__(self, *error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen |= func.overloadpacket.__name__ in OPERATIONS
        return func(*args, **(kwargs or {}))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen |= func in METHODS
        return func(*args, **(kwargs or {}))
