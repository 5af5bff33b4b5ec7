"""Several drafts of a sample at once: the sample stays, calls can only be saved, and caches get what they are promised."""

import pytest
import torch

from arm_core import Layout, ancestral_sample, sample_noise
from benchmarks.ideas import draw, ideas, runner_up
from tests.conftest import SpanTableArm

LAYOUT = Layout(2, 3, 4, 3)
COUNT = 6


def ancestral(arm):
    return ancestral_sample(arm, sample_noise(LAYOUT, seed=0, sample_ids=range(COUNT), dtype=torch.float64)).x


def right(x, share):
    """Drafts that are right, but for some."""
    wrong = torch.rand(x.shape, generator=torch.Generator().manual_seed(int(100 * share))) < share

    def forecast(state, *_):
        branches = len(state.x) // len(x)
        return torch.where(wrong, (x + 1) % 3, x).repeat_interleave(branches, dim=0)

    return forecast


@pytest.mark.parametrize("window", [2, 6, 24])
def test_the_best_of_several_drafts_goes_on_and_the_sample_stays(window):
    arm = SpanTableArm(LAYOUT, 2)
    x = ancestral(arm)
    alone = draw(arm, COUNT, window, right(x, 0.3))
    both = draw(arm, COUNT, window, right(x, 0.3), alternatives=(right(x, 0.25), right(x, 0.2)))
    assert torch.equal(alone.x, x) and torch.equal(both.x, x)
    assert both.arm_calls.sum() < alone.arm_calls.sum()
    assert (both.converged_at.diff(dim=1) >= 0).all()
    assert torch.equal(both.converged_at[:, -1], both.arm_calls)


def test_a_branch_that_is_always_wrong_saves_and_costs_no_call():
    arm = SpanTableArm(LAYOUT, 2)
    x = ancestral(arm)
    alone, beside = (draw(arm, COUNT, 24, right(x, 0.3), alternatives=more) for more in ((), (right(x, 1.0),)))
    assert torch.equal(alone.converged_at, beside.converged_at)
    assert torch.equal(alone.mistakes, beside.mistakes)
    assert (beside.arm_work >= 2 * alone.arm_work).all(), "both are evaluated, and the wrong one falls behind"


@pytest.mark.parametrize(
    ("name", "settings"), list(ideas(8)), ids=lambda given: given if isinstance(given, str) else ""
)
def test_no_idea_changes_a_sample(name, settings):
    arm = SpanTableArm(LAYOUT, 2)
    assert torch.equal(draw(arm, COUNT, **{"window": 8, **settings}).x, ancestral(arm))


def test_a_runner_up_is_the_second_best_of_the_least_certain_dim():
    arm, seen = SpanTableArm(LAYOUT, 2), []

    def watched(state, drafts, branch):
        found = runner_up(state, drafts, branch)
        seen.append((found != drafts).sum(dim=1).max().item())
        return found

    draw(arm, COUNT, 8, alternatives=(watched,))
    assert set(seen) <= {0, 1} and 1 in seen
