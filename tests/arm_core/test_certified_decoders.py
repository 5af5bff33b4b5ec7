"""Repairs through the cache of a decoder: keys and values that are wrong now and then, in drafts and in repairs."""

import pytest
import torch

from arm_core import sample_many, sample_noise, top_k
from arm_core.arms import Guided, TransformersARM
from arm_core.arms.transformers.adapter import KeyValues
from tests.arm_core.test_transformers_arm import LAYOUT, OFFSET, PROMPTS, START, decoder, plain_loop

COUNT = 10
CONTEXTS = PROMPTS * 2


class Faulty(KeyValues):
    """Reads the last known token wrongly in one call of `RARE`: its keys and values stay in the cache as they are."""

    RARE, calls = 4, 0

    def evaluate(self, x, start, stop):
        Faulty.calls += 1
        if Faulty.calls % self.RARE == 0:
            slot = int(start.argmin())
            x = x.clone()
            x[slot, (start[slot] - 1).clamp_min(0)] ^= 1
        return super().evaluate(x, start, stop)


class FaultyARM(TransformersARM):
    def span_cache(self, slots, window):
        return Faulty(self, slots, window)


@pytest.mark.parametrize(
    ("contexts", "scale", "draft_dtype"),
    [(None, None, None), (CONTEXTS, None, torch.float32), (CONTEXTS, 2.0, None), (CONTEXTS, 2.0, torch.float32)],
    ids=["start", "prompts", "guided", "guided, drafts in float32"],
)
def test_a_fault_in_keys_and_values_is_caught_repaired_and_named(contexts, scale, draft_dtype):
    model = decoder()
    arm = TransformersARM(model, LAYOUT, start=START, offset=OFFSET)
    arm.__class__ = FaultyARM  # after it has been checked
    arm = arm if scale is None else Guided(arm, scale=scale, null_context=None)
    noise = sample_noise(LAYOUT, seed=3, sample_ids=range(COUNT), dtype=torch.float64)
    expected = plain_loop(model, contexts or [[START]] * COUNT, noise, scale=scale or 1.0, keep=5)
    options = {"count": COUNT, "seed": 3, "slots": 3, "window": 5, "context": contexts, "logits_processor": top_k(5)}
    assert (sample_many(arm, **options).x != expected).any()
    trace = sample_many(arm, certified=True, draft_dtype=draft_dtype, **options)
    assert torch.equal(trace.x, expected)
    assert trace.repairs.any() and trace.overruled.max() > 1e-3, "by more than rounding could"
