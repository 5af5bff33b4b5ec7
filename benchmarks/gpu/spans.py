"""How the spans of a PixelCNN are evaluated: the ways that its `SpanCache` has, each by its name.

compact: what a span does not cover is left out; its shapes change from call to call.
fixed:   every call has the same shapes; what is not covered is computed in vain.
graph:   fixed shapes, captured as CUDA graphs and replayed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from arm_core import AutoregressiveModel
from arm_core.arms.pixelcnn_windows import PixelCNNSpans
from arm_core.contracts import SpanCache

Maker = Callable[[int, int], SpanCache]


def ways(arm: AutoregressiveModel) -> dict[str, Maker]:
    """The ways that there are for this ARM and on its device: (slots, window) -> an empty cache."""
    return {
        "compact": lambda slots, window: PixelCNNSpans(arm, slots, window, compact=True),  # type: ignore[arg-type]
        "fixed": lambda slots, window: PixelCNNSpans(arm, slots, window, compact=False),  # type: ignore[arg-type]
    }


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
