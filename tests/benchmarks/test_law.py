"""The law test: every sampler fits the law of ARMs that can be enumerated, and known errors do not."""

import pytest
import torch

from arm_core.gumbel import KeyedNoise
from arm_core.samplers.peers.drafts import DraftedWork
from benchmarks.law import ARMS, FALSE_FAILURE, SAMPLERS, chi_square, every_sequence, fits, law_of


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1500, pytest.param(20_000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_have_the_law_of_the_arm_whatever_window_and_decision(name, samples):
    """Draws are seeded; over seeds a right sampler fails with a probability of 16 x 1e-6."""
    for about, fit in fits({name: SAMPLERS[name]}, samples=samples):
        assert fit.p_value > FALSE_FAILURE, (about, fit)


def fails(name):
    return any(fit.p_value < FALSE_FAILURE for _, fit in fits({name: SAMPLERS[name]}, samples=4000))


@pytest.mark.slow
def test_the_noise_of_a_rejected_draft_in_the_place_of_fresh_noise_is_caught(monkeypatch):
    """What vLLM shipped (#47386, #54282): drafts share noise, and the test by ratio draws the rest with it."""

    def shared(self, weights, slot, dim):
        assert isinstance(self.noise.source, KeyedNoise)
        return (weights.log() + self.noise.at(slot, dim)).argmax(dim=-1)

    monkeypatch.setattr(DraftedWork, "_instead", shared)
    assert fails("scd")


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
