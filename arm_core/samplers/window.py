"""Which window to use: the one that is asked for, or the one that proves fastest while sampling.

A window can change from call to call without changing a sample, so it is chosen on the samples that are wanted anyway:
neighbours on a ladder of windows take turns for a few calls, and the one that confirms the most dimensions a second is
used until they are compared again, after ever longer pauses. What a call of one window confirmed also tells what a
smaller one would have: as much, but no more than it covers. So neighbours are compared on the same calls, and only
their times are their own. The ladder reaches from one granule (cached sequential sampling) to some rows. Where crossing
into a new row is dear, windows of up to a row end with the row.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from arm_core.contracts import AutoregressiveModel
from arm_core.errors import whole
from arm_core.samplers.recorded import Steps
from arm_core.samplers.work import Work

ROWS = (1 / 8, 1 / 4, 1 / 2, 1, 3 / 2, 2, 3)
"""Windows on the ladder in rows of the image, beside the granule."""
START = ((32, 1.0), (2**63, 1 / 2))
"""(most slots, rows to begin with): the more slots, the more of a call's cost goes with its work (measured on CPUs)."""
FEW = 4
"""Slots up to which spans begin without a seam: there calls cost more than what they evaluate."""
START_ON_GPU = 2.0
"""Rows to begin with where a call costs what its launches cost (measured on an H200, 1 to 1,024 slots)."""
TURN = 3
"""Calls of each window in a comparison."""
PAUSE = 96
"""Calls before the first comparison; after each that changes nothing twice as many as before it."""
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
        few = slots <= FEW
        start = row * (START_ON_GPU if on_gpu else next(rows for fewest, rows in START if slots <= fewest))
        self.center = min(
            range(len(self.ladder)),
            key=lambda place: (abs(self.ladder[place].window - start), (self.ladder[place].seam is not None) == few),
        )
        self.widest = self.ladder[-1].window
        self.moves: list[list[Tensor]] = [[] for _ in self.ladder]  # frontiers before and after each call
        self.seconds: dict[int, float] = {}
        self.turns: list[int] = []
        self.pause, self.rest = PAUSE, PAUSE  # what the first dims of all samples confirm says little of the others

    @property
    def _near(self) -> range:
        """The places of the window in the middle and its neighbours."""
        return range(max(0, self.center - 1), min(len(self.ladder), self.center + 2))

    def _turns(self) -> list[int]:
        """The places of the coming calls, up and down: samples move on meanwhile, and calls may get dearer."""
        near = list(self._near)
        return [place for turn in range(TURN) for place in near[:: 1 - turn % 2 * 2]] if len(near) > 1 else []

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
        before, started = work.progress().cpu(), self.clock()
        is_usual = take(*rung, trial=True)
        after = work.progress().cpu()  # waits for the device
        if not is_usual:
            return  # what a recording takes says nothing of later calls: the turn is still to come
        seconds = self.clock() - started
        self.turns.pop(0)
        self.moves[place].append(torch.stack([before, after])[:, before < after])
        self.seconds[place] = min(seconds, self.seconds.get(place, seconds))
        if not self.turns:
            self._compare(work)

    def _compare(self, work: Work) -> None:
        """Move to the fastest neighbour, or rest for longer than before."""
        rates = {place: self._dims_a_call(work, place) / max(self.seconds[place], 1e-9) for place in self._near}
        best, self.seconds = max(rates, key=rates.__getitem__), {}
        if rates[best] > MARGIN * rates[self.center]:
            self.center = best
            self.turns = self._turns()
        else:
            self.pause *= 2
            self.rest = self.pause

    def _dims_a_call(self, work: Work, place: int) -> float:
        """What a call confirms of a sample, by all calls of this window and of larger ones."""
        before, after = torch.cat([move for moves in self.moves[place:] for move in moves], dim=1)
        start = before.div(work.granule, rounding_mode="floor") * work.granule
        return float((torch.minimum(after, work.ends(start, *self.ladder[place])) - before).double().mean())
