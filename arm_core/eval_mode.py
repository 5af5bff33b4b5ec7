"""Eval mode for a while: what every evaluation of a network stands in."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(module: nn.Module, parts: Iterable[nn.Module] | None = None) -> Iterator[None]:
    """Eval mode inside; afterwards every part of the module is in the mode in which it came.

    Args:
        module: of any kind.
        parts: its modules, if they are at hand; listing them can take as long as a small call.
    """
    training = [part for part in (module.modules() if parts is None else parts) if part.training]
    try:
        if training:
            module.eval()
        yield
    finally:
        for part in training:
            part.training = True
