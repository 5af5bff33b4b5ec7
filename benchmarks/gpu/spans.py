"""How the spans of a PixelCNN are evaluated: the ways that its `SpanCache` has, each by its name.

compact:  what a span does not cover is left out; its shapes change from call to call.
fixed:    every call has the same shapes; what is not covered is computed in vain.
recorded: fixed shapes; samplers record whole steps of them as CUDA graphs (`arm_core.samplers.recorded`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from arm_core import AutoregressiveModel
from arm_core.arms import PixelCNN
from arm_core.arms.pixelcnn.spans import PixelCNNSpans
from arm_core.contracts import SpanCache

Maker = Callable[[int, int], SpanCache]


def ways(arm: AutoregressiveModel) -> dict[str, Maker]:
    """The ways that there are for a PixelCNN on its device: (slots, window) -> an empty cache."""
    assert isinstance(arm, PixelCNN)

    def spans(slots: int, window: int, *, compact: bool) -> PixelCNNSpans:
        cache = PixelCNNSpans(arm, slots, window, compact=compact)
        cache.recordable = False
        return cache

    found: dict[str, Maker] = {"compact": partial(spans, compact=True), "fixed": partial(spans, compact=False)}
    if arm.head.weight.is_cuda:
        found["recorded"] = partial(PixelCNN.span_cache, arm)
    return found


def best_way(arm: AutoregressiveModel) -> str:
    """The fastest that there is: recorded, where the device can."""
    there = list(ways(arm))
    return "recorded" if "recorded" in there else there[0]


@contextmanager
def spans_by(arm: AutoregressiveModel, way: str) -> Iterator[None]:
    """Let every sampler evaluate the ARM's spans in one of the ways."""
    arm.span_cache = ways(arm)[way]  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        del arm.span_cache
