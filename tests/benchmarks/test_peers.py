"""Tokens a call on the toy: as an independent simulation found them (12 samples each, so to a tenth)."""

import pytest

from benchmarks.peers import SCALES, toy

SIMULATED = {  # nats a token, SJD, SCD with its Gumbel coupling, equality under fixed noise
    SCALES[0]: (4.8, 2.48, 4.79, 4.08),
    SCALES[1]: (3.4, 1.52, 2.97, 2.91),
    SCALES[2]: (2.3, 1.33, 2.38, 2.35),
    SCALES[3]: (1.6, 1.31, 2.19, 2.18),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "scale", [SCALES[0], *(pytest.param(each, marks=pytest.mark.nightly) for each in SCALES[1:3]), SCALES[3]]
)
def test_tokens_a_call_agree_with_a_simulation_of_its_own(scale):
    found, (nats, *tokens) = toy(scale), SIMULATED[scale]
    assert found["nats"] == pytest.approx(nats, abs=0.2)
    for name, expected in zip(("sjd", "scd, gumbel", "ours"), tokens, strict=True):
        assert found[name] == pytest.approx(expected, rel=0.1), name
    for name in ("sjd", "scd"):
        assert found[f"{name}, lock-step"] < found["sjd" if name == "sjd" else "scd, gumbel"]
