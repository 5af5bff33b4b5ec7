"""Calls of fixed shapes, recorded once and replayed: as a CUDA graph a call costs one launch instead of hundreds."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from arm_core.contracts import Contexts, SpanCache, SpanOutput

WARM_UP = 3
"""Calls before the recording, in which the libraries set up what they need."""
Record = Callable[[Callable[[], SpanOutput]], tuple[SpanOutput, Callable[[], Any]]]


class CudaGraphs:
    """Records calls as CUDA graphs that share their memory: one of them runs at a time."""

    def __init__(self) -> None:
        self.stream, self.pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def __call__(self, call: Callable[[], SpanOutput]) -> tuple[SpanOutput, Callable[[], Any]]:
        """What `call` returns once it is replayed, and what replays it."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(WARM_UP):
                call()
        torch.cuda.current_stream().wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            output = call()
        return output, graph.replay


class GraphedSpans:
    """A `SpanCache` whose calls are recorded at the first one of each window, and replayed from then on.

    The tensors of a `SpanOutput` are those of the recording: the next call of the same window overwrites them.

    Args:
        spans: a `SpanCache` with `narrowed`. Whatever the spans, its calls have the same shapes, wait for nothing and
            take nothing from the host; a call made twice leaves what one leaves; `begin` changes tensors in place.
        record: runs a call; returns its result and what makes that call again, into the tensors of that result.
    """

    def __init__(self, spans: SpanCache, record: Record) -> None:
        self.spans, self.record, self.window = spans, record, spans.window
        self._widths: dict[int, GraphedSpans] = {}
        self._inputs: tuple[Tensor, ...] = ()

    def narrowed(self, window: int) -> "GraphedSpans":
        """The same cache for narrower spans; the same object for the same window."""
        if window not in self._widths:
            self._widths[window] = GraphedSpans(self.spans.narrowed(window), self.record)  # type: ignore[attr-defined]
        return self._widths[window]

    def begin(self, slots: list[int], contexts: Contexts) -> None:
        """See `SpanCache`."""
        self.spans.begin(slots, contexts)  # type: ignore[attr-defined]

    def evaluate(
        self, x: Int[Tensor, "slots dims"], start: Int[Tensor, " slots"], stop: Int[Tensor, " slots"]
    ) -> SpanOutput:
        """See `SpanCache`."""
        if not self._inputs:
            self._inputs = x.clone(), start.clone(), stop.clone()
            self._output, self._replay = self.record(partial(self.spans.evaluate, *self._inputs))
        for kept, given in zip(self._inputs, (x, start, stop), strict=True):
            kept.copy_(given)
        self._replay()
        return self._output
