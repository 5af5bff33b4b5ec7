"""Steps that are recorded once and replayed: as a CUDA graph a step costs one launch instead of hundreds, as a tape on
a CPU it is spared the Python of a small model (`arm_core.samplers.tape`).

What is recorded is a whole step with all that it changes in place; samples are the same. Whatever takes part says that
it can be recorded by an attribute `recordable`: ARMs, span caches, noise, processors, forecasters. It means that all
shapes are fixed, that nothing waits for the device, and that nothing comes from the host. A forecaster that cannot be
recorded is asked before each replay; with anything else that cannot, steps run as they are.
"""

from collections.abc import Callable

import torch

from arm_core.samplers.step import guesses, step
from arm_core.samplers.tape import taped
from arm_core.samplers.work import Work

WARM_UP = {"cpu": 3, "cuda": 2}
"""Steps of each width before its recording, by device: on a GPU the libraries set up in them what they need, on a CPU
a recording costs what some ten replays save."""
Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Carries a call out, and returns what does it again."""


class CudaGraphs:
    """Records calls as CUDA graphs that share their memory: one of them runs at a time."""

    def __init__(self) -> None:
        self.stream, self.pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def __call__(self, call: Callable[[], None]) -> Callable[[], None]:
        """What replays the call, after the first time."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.stream(self.stream):
            graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
            try:
                call()
            finally:
                graph.capture_end()
        torch.cuda.synchronize()
        replay: Callable[[], None] = graph.replay
        replay()  # nothing was carried out so far
        return replay


class Steps:
    """Takes work on by one step a call, with spans that begin at the frontiers, or over whole images.

    Args:
        work: changed in place.
        whole: every step covers the whole image of every slot.
        record: how steps are recorded; None: as CUDA graphs or tapes where that is possible, and not at all elsewhere.
    """

    def __init__(self, work: Work, *, whole: bool = False, record: Record | None = None) -> None:
        self.work, self.whole = work, whole
        self.record = record
        self._guess: torch.Tensor | None = None
        if not getattr(work.forecaster, "recordable", False):
            self._guess = torch.zeros_like(work.state.x, memory_format=torch.contiguous_format)
        self._replays: dict[int, Callable[[], None]] = {}
        self._taken: dict[int, int] = {}
        self._version = work.version

    def __call__(self, width: int | None = None, seam: int | None = None, *, trial: bool = False) -> bool:
        """One step; whether it took as long as others of this width, or had its recording to bear.

        Args:
            width: of the spans in dims; None: all that the cache takes.
            seam: see `step`; not where steps are recorded, since fixed shapes gain nothing by it.
            trial: few steps of this width may come, so that none is recorded as a tape.
        """
        if self.record is None and self.work.recordable:
            self.record = CudaGraphs() if self.work.x.is_cuda else None if self.whole else taped
        if self.record is None or (trial and self.record is taped):
            step(self.work, *self._spans(width), seam=seam)
            return True
        if self.work.version != self._version:
            self._replays, self._taken, self._version = {}, {}, self.work.version
        wide = self.work.dims if self.whole else self.work.wide(width)
        if self._guess is not None:
            self.work.place(*self._spans(width))
            self._guess.copy_(guesses(self.work.forecaster, self.work.state))
        if wide in self._replays:
            self._replays[wide]()
            return True
        self._taken[wide], device = self._taken.get(wide, 0) + 1, self.work.x.device.type
        if self._taken[wide] > WARM_UP.get(device, 2):
            self._replays[wide] = self.record(lambda: self._step(wide))
            return False
        self._step(wide)
        return device == "cpu"

    def _step(self, wide: int) -> None:
        step(self.work, *self._spans(wide), guess=self._guess)

    def _spans(self, width: int | None) -> tuple[torch.Tensor, int]:
        return (torch.zeros_like(self.work.full), self.work.dims) if self.whole else self.work.spans(width)
