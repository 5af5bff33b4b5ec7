"""SJD-PAC: proactive drafting and adaptive continuation (CVPR 2026, arXiv 2603.18599)."""

from functools import partial
from typing import Any, Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, Forecaster, SampleTrace
from arm_core.errors import whole
from arm_core.samplers.peers.batch import Options
from arm_core.samplers.peers.branches import join, spread
from arm_core.samplers.peers.drafts import DraftedWork, drafted_sample, drawn


def pac_sample(
    arm: AutoregressiveModel,
    *,
    batch: int,
    generator: torch.Generator,
    window: int,
    branches: int = 3,
    depth: int = 3,
    slots: int | None = None,
    first: Forecaster | None = None,
    **options: Unpack[Options],
) -> SampleTrace:
    """`sjd_sample` with several drafts of the next dims, tested one after the other, and a tail that is kept.

    The two parts of SJD-PAC. Adaptive continuation: what was drafted past a rejection stays with the most probability
    that is possible, the maximal coupling of `scd_sample`. Proactive drafting: where the frontier stands, drafts are
    worth least, since what decides them has just changed; so there are `branches` of them. A rejected one leaves
    max(0, p - q) to the next, and a draw from what the last one leaves ends the call (Miao et al., "SpecInfer", ASPLOS
    2024); whatever is taken has law p. Exact in law only, as `sjd_sample`.

    Args:
        arm, batch, generator, window, slots, first, options: as for `sjd_sample`; the authors use a window of 64.
        branches: drafts of a sample, each in a slot of its own.
        depth: dims from the frontier on in which they are drawn anew; further on they share the draft.

    Returns:
        As `sjd_sample`; the work is that of all branches.

    Raises:
        InputError: branches or depth below 1; otherwise as `sjd_sample`.

    Note:
        The authors put a tree, three wide and three deep, into one call by a mask of attention. Here a cache holds
        chains, so that a tree is so many chains, which costs their number of times the work, and whose drafts part at
        the frontier only: `branches` candidates there, fewer further on. Which law the authors draw the alternatives
        from was not seen; here it is what the ARM last said of the dim.
    """
    branches, depth = whole("branches", branches, 1), whole("depth", depth, 1)
    return drafted_sample(
        arm,
        batch=batch,
        generator=generator,
        window=window,
        coupling="maximal",
        slots=slots,
        first=first,
        branches=branches,
        make=partial(BranchedWork, branches=branches, depth=depth),
        **options,
    )


class BranchedWork(DraftedWork):
    """`DraftedWork` with several branches a sample; see `pac_sample`."""

    def __init__(self, *of_work: Any, branches: int, depth: int, **drafting: Any) -> None:
        super().__init__(*of_work, **drafting)
        self.branches, self.depth = branches, depth
        self.winner = torch.zeros(self.slots // branches, dtype=torch.int64, device=self.x.device)

    def evaluate(self, width: int) -> float:
        """See `Work`; all rows are decided at once, since branches decide together."""
        found = self._cache(width).evaluate(self.state.x, self.state.start, self.state.stop)
        self._decide(found)
        return found.work

    def _verified(
        self, law: Float[Tensor, "n k"], drafted: Float[Tensor, "n k"], drafts: Tensor, slot: Tensor, dim: Tensor
    ) -> Int[Tensor, " n"]:
        said = super()._verified(law, drafted, drafts, slot, dim).clone()
        row_of = torch.full((self.slots + 1, self.dims + 1), -1, device=law.device)
        row_of[slot, dim] = torch.arange(len(slot), device=law.device)
        row_of = row_of[: self.slots].view(-1, self.branches, self.dims + 1)
        known = self.state.known.view(-1, self.branches)[:, :1]  # the same in all branches
        alive = torch.ones_like(row_of[..., 0], dtype=torch.bool)
        self.winner.zero_()
        for ahead in range(self.depth):
            place = (known + ahead).clamp_max(self.dims).expand(-1, self.branches)
            rows = row_of.gather(2, place[..., None])[..., 0]
            tested = alive & (rows >= 0)
            rows = rows.clamp_min(0)
            value = self._chosen(law, drafted, drafts, rows, tested)[:, None].expand_as(rows)
            said[rows[tested]] = value[tested]
            alive = tested & (drafts[rows] == value)
            best = (tested.long() + alive).argmax(dim=1)  # the first that goes on, or else that came so far
            self.winner.copy_(torch.where(tested.any(dim=1), best, self.winner))
        return said

    def _chosen(
        self,
        law: Float[Tensor, "n k"],
        drafted: Float[Tensor, "n k"],
        drafts: Int[Tensor, " n"],
        rows: Int[Tensor, "groups branches"],
        tested: Bool[Tensor, "groups branches"],
    ) -> Int[Tensor, " groups"]:
        """A value a group, of the law of its tested rows, which is one: their drafts in turn, then what they leave."""
        left = law[rows.gather(1, tested.long().argmax(dim=1, keepdim=True))[:, 0]]
        value = torch.full_like(rows[:, 0], -1)
        for row, asked in zip(rows.T, tested.T, strict=True):
            draft, q = drafts[row], drafted[row]
            chance = torch.rand(len(row), dtype=law.dtype, device=law.device, generator=self.generator)
            taken = chance * q.gather(1, draft[:, None])[:, 0] < left.gather(1, draft[:, None])[:, 0]
            asked = asked & (value < 0)
            value = torch.where(asked & taken, draft, value)
            rest = (left - q).clamp_min(0)
            total = rest.sum(dim=1, keepdim=True)
            left = torch.where((asked & ~taken)[:, None] & (total > 0), rest / total, left)
        return torch.where(value < 0, drawn(left, self.generator), value)

    def settle(self) -> None:
        """See `DraftedWork`: all branches go on from the winner; all but the first draw the next dims anew."""
        join(self, self.branches, self.winner)
        spread([self.drafts, self.laws], self.branches, self.winner)
        slots = torch.arange(self.slots, device=self.x.device)
        slots = slots[slots % self.branches > 0]
        for ahead in range(self.depth):
            place = self.state.known[slots] + ahead
            slot, dim = slots[place < self.dims], place[place < self.dims]
            law, seen = self.laws[slot, dim % self.laws.shape[1]], self.state.evaluated[slot, dim]
            self.drafts[slot, dim] = drawn(torch.where(seen[:, None], law, 1), self.generator)  # the first: uniform
