"""Processors, temperature and ties: every sampler decides a row in the same way."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arm_core import (
    InputError,
    KeyedNoise,
    Layout,
    ancestral_sample,
    min_p,
    predictive_sample,
    resampled_sample,
    sample_many,
    sample_noise,
    top_k,
    top_p,
)
from arm_core.decision import Decision
from arm_core.forecasters import fixed_point, zeros
from arm_core.samplers import cached_sequential_sample, gs_jacobi_sample, jacobi_gs_sample, jacobi_sample
from tests.conftest import ConstantArm, SpanTableArm, TableArm

LAYOUT = Layout(2, 2, 3, 7)


def shifted(rows):
    """In place, as a user's may be: forbids the category 3, prefers 5."""
    rows[:, 3] = -torch.inf
    rows[:, 5] += 1
    return rows


class TwoArguments:
    """As the processors of transformers are called."""

    def __call__(self, input_ids, scores):
        return scores.masked_fill(scores < scores.mean(dim=-1, keepdim=True), -torch.inf)


PROCESSORS = {
    "none": None,
    "top_k": top_k(3),
    "top_p": top_p(0.6),
    "min_p": min_p(0.3),
    "list": [top_k(5), [shifted, top_p(0.9)]],
    "in place": shifted,
    "two arguments": TwoArguments(),
}
PEERS = {
    "jacobi": jacobi_sample,
    "gs_jacobi": lambda *args, **options: gs_jacobi_sample(*args, block=4, **options),
    "jacobi_gs": lambda *args, **options: jacobi_gs_sample(*args, block=4, **options),
    "cached_sequential": cached_sequential_sample,
}


@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("name", PROCESSORS)
def test_every_sampler_equals_ancestral_sampling_with_every_processor(name, temperature):
    arm = SpanTableArm(LAYOUT, 2)
    prefix = torch.tensor([[1, 6, 2]] * 4)
    for known in (None, prefix):
        options = {"prefix": known, "temperature": temperature, "logits_processor": PROCESSORS[name]}
        noise = sample_noise(LAYOUT, seed=3, sample_ids=range(4), dtype=torch.float64)
        keyed = KeyedNoise(LAYOUT, seed=3, sample_ids=range(4), dtype=torch.float64)
        expected = ancestral_sample(arm, noise, **options).x
        assert torch.equal(ancestral_sample(arm, keyed, **options).x, expected)
        for source in (noise, keyed):
            for window in (None, 2, 5):
                assert torch.equal(predictive_sample(arm, source, fixed_point, window=window, **options).x, expected)
            for peer, sample in PEERS.items():
                assert torch.equal(sample(arm, source, **options).x, expected), peer
        assert torch.equal(sample_many(arm, count=4, seed=3, slots=2, window=4, **options).x, expected)


def test_processors_change_samples_at_all():
    arm = SpanTableArm(LAYOUT, 1)
    noise = sample_noise(LAYOUT, seed=3, sample_ids=range(9), dtype=torch.float64)
    found = {name: ancestral_sample(arm, noise, logits_processor=one).x for name, one in PROCESSORS.items()}
    plain = found.pop("none")
    assert not any(torch.equal(x, plain) for x in found.values())
    assert not (found["in place"] == 3).any()


@given(st.integers(0, 10_000), st.integers(1, 9), st.floats(0.01, 1), st.floats(0, 1))
def test_filters_keep_what_they_say(seed, k, p, least):
    logits = torch.randn(5, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    probability = logits.softmax(dim=-1)
    for row, kept in enumerate(top_k(k)(logits).isfinite()):
        assert int(kept.sum()) == min(k, 8)
        assert logits[row][kept].min() >= logits[row][~kept].max() if not kept.all() else True
    for row, kept in enumerate(top_p(p)(logits).isfinite()):
        assert probability[row][kept].sum() >= p - 1e-12
        assert probability[row][kept].sum() - probability[row][kept].min() < p + 1e-12
    for row, kept in enumerate(min_p(least)(logits).isfinite()):
        assert torch.equal(kept, probability[row] >= least * probability[row].max() * (1 - 1e-12))


def test_equals_are_kept_together_and_the_lowest_category_wins_a_tie():
    logits = torch.tensor([[1.0, 2.0, 2.0, 2.0, 0.0]])
    assert top_k(2)(logits).isfinite().tolist() == [[False, True, True, True, False]]
    assert top_p(0.3)(logits).isfinite().tolist() == [[False, True, True, True, False]]
    assert Decision()(logits, torch.zeros(1, 5)).values.tolist() == [1]
    layout = Layout(1, 1, 3, 4)
    arm = ConstantArm(layout, torch.zeros(1, 3, 4, dtype=torch.float64))
    nothing = torch.zeros(2, 3, 4, dtype=torch.float64)
    for trace in (ancestral_sample(arm, nothing), predictive_sample(arm, nothing, zeros), jacobi_sample(arm, nothing)):
        assert trace.x.tolist() == [[0, 0, 0]] * 2


def test_a_row_with_minus_infinity_leaves_those_categories_out():
    layout = Layout(1, 1, 4, 3)
    logits = torch.tensor([[[0.0, -torch.inf, 0.0]] * 4], dtype=torch.float64)
    arm = ConstantArm(layout, logits)
    noise = sample_noise(layout, seed=0, sample_ids=range(50), dtype=torch.float64)
    x = ancestral_sample(arm, noise).x
    assert set(x.flatten().tolist()) == {0, 2}
    assert torch.equal(predictive_sample(arm, noise, fixed_point).x, x)


def nothing_left(rows):
    return torch.full_like(rows, -torch.inf)


def test_a_processor_that_leaves_no_category_is_named():
    arm = SpanTableArm(LAYOUT, 1)
    noise = sample_noise(LAYOUT, seed=3, sample_ids=range(2), dtype=torch.float64)
    for processors in ([top_k(2), nothing_left], nothing_left):
        for sample in (
            lambda **options: ancestral_sample(arm, noise, **options),
            lambda **options: predictive_sample(arm, noise, zeros, **options),
            lambda **options: sample_many(arm, count=2, seed=0, slots=2, window=3, **options),
            lambda **options: jacobi_sample(arm, noise, **options),
        ):
            with pytest.raises(InputError, match="logits processor nothing_left leaves no category of dimension 0"):
                sample(logits_processor=processors)


class Fussy(TableArm):
    """Has no value for dimension 2 after a 1 in dimension 0; samples do not go there, wrong forecasts may."""

    def forward(self, x):
        output = super().forward(x)
        output.logits[:, 0, 1] = -torch.inf
        output.logits[x[:, 0] == 1, 2] = torch.nan
        return output


def test_rows_without_a_choice_are_no_fault_where_only_a_wrong_forecast_leads_there():
    arm = Fussy(LAYOUT)
    noise = sample_noise(LAYOUT, seed=3, sample_ids=range(3), dtype=torch.float64)
    ones = lambda state: torch.ones_like(state.x)  # noqa: E731 a forecaster in one line
    assert torch.equal(predictive_sample(arm, noise, ones).x, ancestral_sample(arm, noise).x)
    prefix = torch.ones(3, 1, dtype=torch.int64)  # and what is given is nobody's choice
    for sample in (ancestral_sample, lambda *args, **options: predictive_sample(*args, zeros, **options)):
        with pytest.raises(InputError, match="the ARM's logits of dimension 2 are NaN"):
            sample(arm, noise, prefix=prefix)
        assert sample(arm, noise, prefix=prefix.expand(3, 3)).x.shape == (3, LAYOUT.dims)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: top_k(0), "top_k must be a whole number of at least 1, got 0"),
        (lambda: top_p(0.0), r"top_p must be in \(0, 1\], got 0"),
        (lambda: top_p(1.1), "top_p must be in"),
        (lambda: min_p(-0.1), "min_p must be in"),
        (lambda: Decision(temperature=float("nan")), "temperature must be a finite number of at least 0, got nan"),
        (lambda: Decision("top_k"), "must be a callable on rows"),
        (
            lambda: Decision(lambda rows: rows[:, :2])(torch.zeros(3, 4), torch.zeros(3, 4)),
            "must return floats of shape",
        ),
        (lambda: Decision(lambda rows: None)(torch.zeros(3, 4), torch.zeros(3, 4)), "got NoneType"),
    ],
)
def test_what_cannot_be_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        wrong()


def test_a_processor_that_reads_history_is_refused_by_name():
    class RepetitionPenalty:
        def __call__(self, input_ids, scores):
            return scores.scatter(1, input_ids, 0.0)

    class Minimum:
        def __call__(self, input_ids, scores):
            return scores[:, input_ids.shape[-1] :]

    arm = TableArm(LAYOUT)
    noise = sample_noise(LAYOUT, seed=3, sample_ids=range(2), dtype=torch.float64)
    for processor in (RepetitionPenalty(), Minimum()):
        with pytest.raises(InputError, match=f"logits processor {type(processor).__name__} .*the tokens so far"):
            predictive_sample(arm, noise, zeros, logits_processor=processor)


def test_fresh_noise_follows_the_processed_law():
    """Each of the two categories that top-k keeps; a right sampler fails with a probability under 1e-6."""
    layout = Layout(1, 1, 2, 5)
    logits = torch.tensor([[[1.0, 0.5, 0.0, 0.0, -1.0]] * 2], dtype=torch.float64)
    options = {"batch": 20_000, "generator": torch.Generator().manual_seed(0), "forecaster": zeros}
    x = resampled_sample(ConstantArm(layout, logits), logits_processor=top_k(2), temperature=0.5, **options).x
    assert set(x.flatten().tolist()) == {0, 1}
    share = (x == 0).double().mean(dim=0)
    expected = 1 / (1 + torch.tensor(-1.0).exp().item())  # logits 0.5 apart at temperature 0.5
    assert ((share - expected).abs() < 5 * (expected * (1 - expected) / 20_000) ** 0.5).all()
