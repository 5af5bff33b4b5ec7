"""Which window to use: the one that is asked for, or the one that proves fastest while sampling.

A window can change from call to call without changing a sample, so it is chosen on the samples that are wanted anyway:
neighbours on a ladder of windows take turns for a few calls each, and the one that confirms the most dimensions a
second is kept once no neighbour beats it. The ladder reaches from one granule (cached sequential sampling) to
some rows.
"""

import time
from collections.abc import Callable

from arm_core.contracts import AutoregressiveModel
from arm_core.samplers.slots import Slots

ROWS = (1 / 8, 1 / 4, 1 / 2, 1, 3 / 2, 2, 3)
"""Windows on the ladder in rows of the image, beside the granule."""
TURN, TURNS = 8, 3
"""Calls of a window before its neighbour has its turn, and turns of each before they are compared."""


class WindowChoice:
    """The window of each call.

    Args:
        arm: the ARM that samples.
        window: dims; None: to be chosen.
        clock: seconds, from any origin.
    """

    def __init__(
        self, arm: AutoregressiveModel, window: int | None, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        dims, row = arm.layout.dims, arm.layout.width * arm.layout.channels
        self.clock = clock
        if window is not None or arm.granule is None:
            self.ladder = [dims if window is None else window]
        else:
            granules = {1, *(max(1, round(rows * row / arm.granule)) for rows in ROWS)}
            self.ladder = sorted({min(granule * arm.granule, dims) for granule in granules})
        self.center = min(range(len(self.ladder)), key=lambda place: abs(self.ladder[place] - row))
        self.widest = self.ladder[-1]
        self._begin()

    def _begin(self) -> None:
        """Compare the window in the middle with its neighbours."""
        near = range(max(0, self.center - 1), min(len(self.ladder), self.center + 2))
        self.rates = {place: [0.0, 0.0] for place in near}  # dimensions confirmed, seconds
        turns = TURNS if len(near) > 1 else 0
        self.turns = [place for _ in range(turns) for place in near for _ in range(TURN)]

    @property
    def window(self) -> int:
        """Of the next call."""
        return self.ladder[self.turns[0] if self.turns else self.center]

    def step(self, work: Slots) -> None:
        """One call with the window whose turn it is."""
        window = self.window
        if not self.turns:  # nothing left to compare
            work.step(window)
            return
        rate = self.rates[self.turns.pop(0)]
        before, started = int(work.state.known.sum()), self.clock()
        work.step(window)
        rate[0] += int(work.state.known.sum()) - before  # reading it waits for the device
        rate[1] += self.clock() - started
        if not self.turns:
            best = max(self.rates, key=lambda place: self.rates[place][0] / max(self.rates[place][1], 1e-9))
            if best != self.center:
                self.center = best
                self._begin()
