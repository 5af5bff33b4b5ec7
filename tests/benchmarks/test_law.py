"""The law test: every sampler fits the law of ARMs that can be enumerated, and known errors do not."""

import pytest
import torch

from arm_core.forecasters import row_above
from arm_core.samplers import scd_sample
from arm_core.samplers.peers.drafts import DraftedWork
from benchmarks.law import (
    ARMS,
    FALSE_FAILURE,
    PLANTED,
    PLANTED_SAMPLES,
    SAMPLERS,
    chi_square,
    drafted,
    every_sequence,
    fit_of,
    fits,
    law_of,
    ordinary_arms,
)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1500, pytest.param(20_000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_have_the_law_of_the_arm_whatever_window_and_decision(name, samples):
    """Draws are seeded; over seeds a right sampler fails with a probability of 16 x 1e-6."""
    for about, fit in fits({name: SAMPLERS[name]}, samples=samples):
        assert fit.p_value > FALSE_FAILURE, (about, fit)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_noise_that_is_shared_with_a_draft_is_caught_by_ordinary_arms(number):
    """What vLLM shipped: drafts share noise, and the test by ratio draws with it what replaces them.

    The ARMs are the first three: none was chosen. `--power` counts many (docs/samplers.md).
    """
    about, arm = list(ordinary_arms(3))[number]
    fit = fit_of(PLANTED, arm, PLANTED_SAMPLES)
    assert fit.p_value < FALSE_FAILURE, (about, fit)
    right = drafted(scd_sample, first=row_above)
    assert fit_of(right, arm, PLANTED_SAMPLES).p_value > FALSE_FAILURE


def fails(name):
    return any(fit.p_value < FALSE_FAILURE for _, fit in fits({name: SAMPLERS[name]}, samples=4000))


def test_a_redrawn_draft_that_is_not_of_the_rest_is_caught(monkeypatch):
    """A rejected draft that is drawn from p: the law of text-book rejection, done wrong."""

    def from_the_arm(self, law, drafted, drafts, slot, dim):
        said = DraftedWork.__dict__["plain"](self, law, drafted, drafts, slot, dim)
        return torch.where(said == drafts, said, self._instead(law, slot, dim))

    monkeypatch.setattr(DraftedWork, "plain", DraftedWork._verified, raising=False)
    monkeypatch.setattr(DraftedWork, "_verified", from_the_arm)
    assert fails("sjd")


def test_the_law_is_a_law_and_chi_square_knows_it():
    arm = ARMS["peaked"]()
    law = law_of(arm, {})
    assert torch.allclose(law, arm.log_prob(every_sequence(arm.layout)).exp()) and float(law.sum()) == pytest.approx(1)
    draws = every_sequence(arm.layout)[torch.multinomial(law, 5000, True, generator=torch.Generator().manual_seed(0))]
    right = chi_square(draws, arm.layout, law)
    assert right.p_value > 1e-3 and 0.5 < right.statistic / right.freedom < 2
    assert chi_square(draws, arm.layout, law.roll(1)).p_value < FALSE_FAILURE
    impossible = law.clone()
    impossible[law.argmax()] = 0
    assert chi_square(draws, arm.layout, impossible).p_value == 0
