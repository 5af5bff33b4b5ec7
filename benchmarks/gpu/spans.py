"""How the spans of a PixelCNN are evaluated: the ways that its `SpanCache` has, each by its name.

compact: what a span does not cover is left out; its shapes change from call to call.
fixed:   every call has the same shapes; what is not covered is computed in vain.
graph:   fixed shapes, captured as CUDA graphs and replayed.
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
        return PixelCNNSpans(arm.layout, arm.trunk, slots, window, compact=compact)

    found: dict[str, Maker] = {"compact": partial(spans, compact=True), "fixed": partial(spans, compact=False)}
    if arm.head.weight.is_cuda:
        found["graph"] = partial(PixelCNN.span_cache, arm)
    return found


def best_way(arm: AutoregressiveModel) -> str:
    """The fastest that there is: graphs, where the device has them."""
    there = list(ways(arm))
    return "graph" if "graph" in there else there[0]


@contextmanager
def spans_by(arm: AutoregressiveModel, way: str) -> Iterator[None]:
    """Let every sampler evaluate the ARM's spans in one of the ways."""
    arm.span_cache = ways(arm)[way]  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        del arm.span_cache
