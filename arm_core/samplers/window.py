"""Which window to use: the one that is asked for, or the one that proves fastest while sampling.

A window can change from call to call without changing a sample, so it is chosen on the samples that are wanted anyway:
neighbours on a ladder of windows take turns for a few calls each, and the one that has confirmed the most dimensions a
second is used until they are compared again, after ever longer pauses. The ladder reaches from one granule (cached
sequential sampling) to some rows. Where crossing into a new row is dear, windows of up to a row end with the row.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from arm_core.contracts import AutoregressiveModel
from arm_core.errors import whole
from arm_core.samplers.recorded import Steps

ROWS = (1 / 8, 1 / 4, 1 / 2, 1, 3 / 2, 2, 3)
"""Windows on the ladder in rows of the image, beside the granule."""
START = ((4, 3 / 2), (32, 1.0), (2**63, 1 / 2))
"""(most slots, rows to begin with): the more slots, the more of a call's cost goes with its work (measured on CPUs)."""
START_ON_GPU = 2.0
"""Rows to begin with where a call costs what its launches cost (measured on an H200, 1 to 1,024 slots)."""
TURN = 4
"""Calls of a window before its neighbour has its turn."""
PAUSE = 16
"""Calls between the first two comparisons that change nothing; then twice as many, and so on."""
MARGIN = 1.05
"""How many times faster a neighbour must be than the window in use."""
LOGITS = 2**25
"""Most logits of a call, over all slots; wider windows are not tried."""


class Rung(NamedTuple):
    """Of the ladder: a window in dims, and the seam that ends its spans, see `step`."""

    window: int
    seam: int | None


class WindowChoice:
    """The window of each call.

    Args:
        arm: the ARM that samples.
        window: dims; None: to be chosen.
        slots: that it will be used for.
        clock: seconds, from any origin.
    """

    def __init__(
        self,
        arm: AutoregressiveModel,
        window: int | None,
        slots: int,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        dims, row = arm.layout.dims, arm.layout.width * arm.layout.channels
        self.clock = clock
        on_gpu = any(parameter.is_cuda for parameter in arm.parameters())
        if window is not None or arm.granule is None:
            self.ladder = [Rung(dims if window is None else whole("window", window, 1), None)]
        else:
            granules = {1, *(max(1, round(rows * row / arm.granule)) for rows in ROWS)}
            most = max(1, LOGITS // (slots * arm.granule * arm.layout.categories))  # granules of a slot
            windows = {min(granule * arm.granule, dims) for granule in granules if granule <= most}
            seam = None if on_gpu else arm.seam
            rungs = [Rung(each, seam if seam and each <= seam else None) for each in windows]
            if seam in windows:
                rungs.append(Rung(seam, None))
            self.ladder = sorted(rungs, key=lambda rung: (rung.window, rung.seam is None))
        start = row * (START_ON_GPU if on_gpu else next(rows for fewest, rows in START if slots <= fewest))
        self.center = min(range(len(self.ladder)), key=lambda place: abs(self.ladder[place].window - start))
        self.widest = self.ladder[-1].window
        self.confirmed, self.seconds = [0.0] * len(self.ladder), [0.0] * len(self.ladder)
        self.turns, self.pause, self.rest = self._turns(), PAUSE, 0

    @property
    def _near(self) -> range:
        """The places of the window in the middle and its neighbours."""
        return range(max(0, self.center - 1), min(len(self.ladder), self.center + 2))

    def _turns(self) -> list[int]:
        """The places of the coming calls."""
        return [place for place in self._near for _ in range(TURN)] if len(self._near) > 1 else []

    @property
    def rung(self) -> Rung:
        """Of the next call."""
        return self.ladder[self.turns[0] if self.turns else self.center]

    def step(self, take: Steps) -> None:
        """One call with the window whose turn it is."""
        if not self.turns:
            take(*self.rung)
            self.rest -= 1
            if self.rest == 0:
                self.turns = self._turns()
            return
        rung, place, work = self.rung, self.turns[0], take.work
        before, started = work.progress(), self.clock()
        is_usual = take(*rung)
        confirmed = work.progress() - before
        if not is_usual:
            return  # what a recording takes says nothing of later calls: the turn is still to come
        self.turns.pop(0)
        self.confirmed[place] += confirmed
        self.seconds[place] += self.clock() - started
        if not self.turns:
            self._compare()

    def _compare(self) -> None:
        """Move to the fastest neighbour, or rest for longer than before."""
        rates = [dims / max(seconds, 1e-9) for dims, seconds in zip(self.confirmed, self.seconds, strict=True)]
        best = max(self._near, key=lambda place: rates[place])
        if rates[best] > MARGIN * rates[self.center]:
            self.center = best
            self.turns = self._turns()
        else:
            self.rest, self.pause = self.pause, 2 * self.pause
