"""Which window to use: the one that is asked for, or the one that proves fastest while sampling.

A window can change from call to call without changing a sample, so it is chosen on the samples that are wanted anyway.
Now and then neighbours on a ladder of windows take turns for a few calls. A line through their costs tells what a call
takes: some seconds, and some more for each dim that it evaluates. What a call confirmed tells what a smaller window
would have: as much, but no more than it covers. So it shows which window confirms the most dims a second, of all up to
the largest that was tried. The ladder goes from one granule to some rows; a window may end with the row (a seam).
"""

import time
from collections.abc import Callable
from itertools import combinations
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from arm_core.contracts import AutoregressiveModel
from arm_core.errors import whole
from arm_core.samplers.recorded import Steps
from arm_core.samplers.work import Work

ROWS = (1 / 8, 1 / 4, 1 / 2, 1, 3 / 2, 2, 3)
"""Windows on the ladder in rows of the image, beside the granule."""
START, START_ON_GPU = 1.0, 2.0
"""Rows to begin with (CPUs, 1 to 64 slots; an H200, 1 to 1,024 slots)."""
LIGHT, FEW, START_LIGHT = 2**14, 8, 1.5
"""An ARM of fewer parameters a logit of a granule pays more for logits than for layers: its spans begin without a seam,
and up to so many slots with so many rows (of six ARMs two have below 8,000, those with a seam else above 100,000)."""
BEGUN = 1 / 2
"""What a span pays for each row that it begins where there is a seam, in rows."""
TURN = 2
"""Calls of each window in a comparison."""
PAUSE, PAUSE_RECORDED, LONGER = 16, 96, 4
"""Calls before the first comparison (later where steps are recorded); before the next, times as many."""
MARGIN, DOUBT = 0.05, 4.0
"""How much faster than the window in use another must seem: this share, or `DOUBT` over the pause if that is more."""
LOGITS = 2**25
"""Most logits of a call, over all slots; wider windows are not tried."""


Clock = Callable[[], float]


class Rung(NamedTuple):
    """Of the ladder: a window in dims, and the seam that ends its spans, see `step`."""

    window: int
    seam: int | None


class WindowChoice:
    """The window of each call of an ARM with some slots: `window` dims, or chosen (None); the clock tells seconds."""

    def __init__(
        self, arm: AutoregressiveModel, window: int | None, slots: int, *, clock: Clock = time.perf_counter
    ) -> None:
        dims, row, self.clock, self.seam = arm.layout.dims, arm.layout.width * arm.layout.channels, clock, arm.seam
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
        weights = sum(parameter.numel() for parameter in arm.parameters())
        light = arm.seam is not None and weights < LIGHT * (arm.granule or dims) * arm.layout.categories
        start = row * (START_ON_GPU if on_gpu else START_LIGHT if light and slots <= FEW else START)
        distance = [(abs(rung.window - start), (rung.seam is None) != light) for rung in self.ladder]
        self.center, self.widest = distance.index(min(distance)), self.ladder[-1].window
        self.spread = max(PAUSE, arm.layout.height)  # calls in which samples come to be at different places
        self.pause = self.rest = 0  # until the first call, which knows whether steps are recorded
        self.moves: list[tuple[int, Tensor, Tensor]] = []  # of calls: place, frontiers before and after
        self.timed: list[tuple[float, float]] = []  # of calls: cost, seconds
        self.turns: list[int] = []

    @property
    def rung(self) -> Rung:
        """Of the next call."""
        return self.ladder[self.turns[0] if self.turns else self.center]

    def step(self, take: Steps) -> None:
        """One call with the window whose turn it is."""
        if self.pause == 0:
            self.pause = self.rest = PAUSE_RECORDED if take.work.recordable else self.spread
        trial = bool(self.turns)
        if not trial and (self.rest > 2 * PAUSE or len(self.ladder) == 1):
            take(*self.rung)
            self.rest -= 1
            return
        place, work = self.turns[0] if trial else self.center, take.work
        before, started = work.progress().cpu(), self.clock()
        is_usual = take(*self.rung, trial=trial)
        after = work.progress().cpu()  # waits for the device
        seconds = self.clock() - started
        if trial and not is_usual:
            return  # what a recording takes says nothing of later calls: the turn is still to come
        self.moves.append((place, before, after))
        if trial:
            self.timed.append((self._cost(work, before, place), seconds))
            self.turns.pop(0)
            if not self.turns:
                self._compare(work)
        else:
            self.rest -= 1
            if self.rest == 0:  # up and down: samples move on meanwhile, and calls may get dearer
                near = range(max(0, self.center - 1), min(len(self.ladder), self.center + 2))
                self.turns = [each for turn in range(TURN) for each in near[:: 1 - turn % 2 * 2]]

    def _compare(self, work: Work) -> None:
        """Move to the window that seems the fastest of all up to the largest that was tried, and rest for longer."""
        slopes = [(t - s) / (y - x) for (x, s), (y, t) in combinations(self.timed, 2) if x != y]
        slope = max(0.0, median(slopes or [0.0]))  # a median, since some calls come late
        fixed = max(1e-9, median(seconds - slope * cost for cost, seconds in self.timed))
        used, *frontiers = zip(*self.moves, strict=True)
        before, after = map(torch.cat, frontiers)
        places = torch.tensor(used).repeat_interleave(work.slots)
        seconds, covered, gains = [], [], []
        for place in range(int(places.max()) + 1):
            seconds.append(fixed + slope * self._cost(work, before, place) / len(self.moves))
            covered.append(torch.minimum(after, self._spans(work, before, place)[1]) - before)
        for place, dims in enumerate(covered):
            seen = places >= max(place, self.center)  # calls that tell of both windows
            more = float(dims[seen].sum() / covered[self.center][seen].sum().clamp_min(1))
            gains.append(more * seconds[self.center] / seconds[place])
        if max(gains) > 1 + max(MARGIN, DOUBT / self.pause):
            self.center = gains.index(max(gains))
        self.pause *= LONGER
        self.rest, self.moves, self.timed = self.pause, [], []

    def _spans(self, work: Work, before: Tensor, place: int) -> tuple[Tensor, Tensor]:
        """Where the spans of this window begin and end that go on from these frontiers."""
        start = before // work.granule * work.granule
        return start, work.ends(start, *self.ladder[place])

    def _cost(self, work: Work, before: Tensor, place: int) -> float:
        """The dims that such spans evaluate, and what they pay for the rows that they begin."""
        start, stop = self._spans(work, before, place)
        rows = (stop - 1) // self.seam - (start - 1) // self.seam if self.seam else start * 0
        return float((stop - start + BEGUN * (self.seam or 0) * rows).sum())
