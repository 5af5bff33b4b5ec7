"""Decoders of transformers, unmodified, give the samples of a plain loop: in windows, at places of their own, refilled."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.pytorch_utils import Conv1D

from arm_core import (
    InputError,
    Layout,
    load_arm,
    predictive_sample,
    product,
    sample_many,
    sample_noise,
    save_arm,
    top_k,
)
from arm_core.arms import Guided, TransformersARM, TransformersConfig, TransformersDecoder
from arm_core.arms.transformers import adapter
from arm_core.arms.transformers.adapter import KeyValues
from arm_core.decision import Decision
from arm_core.forecasters import (
    ForecastingConfig,
    ForecastingModules,
    LearnedForecaster,
    fixed_point,
    fixed_point_above,
    row_above,
)
from arm_core.gumbel import DenseNoise
from arm_core.samplers import recorded
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.recorded import WARM_UP, Steps
from arm_core.samplers.tape import taped
from arm_core.samplers.work import Work
from arm_core.testing import arm_checks, randomise
from arm_core.training import Training, TrainingConfig, fit
from tests.arm_core.test_recorded import Recordings

LAYOUT, OFFSET, START, VOCABULARY = Layout(1, 4, 4, 7), 2, 20, 23
FAMILIES = {
    "llama": {"num_key_value_heads": 2},
    "gpt2": {"tie_word_embeddings": True},
    "qwen2": {"num_key_value_heads": 1, "tie_word_embeddings": True},
    "mistral": {"sliding_window": None},
    "gpt_neox": {"rotary_pct": 0.5},
    "olmo2": {},
    "phi": {"partial_rotary_factor": 0.5},
    "cohere": {"logit_scale": 2.0, "tie_word_embeddings": True},
    "stablelm": {"use_qkv_bias": True},
    "falcon": {"alibi": False, "tie_word_embeddings": True},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "gemma2": {"head_dim": 16, "final_logit_softcapping": 3.0},
}
PROMPTS = [[1], [4, 5, 6, 0], [21, 22], [3, 3, 3, 3, 3, 3], [22, 1, 0]]


def decoder(family="llama", dtype=torch.float64, **options):
    """A model with random weights, none of them zero or symmetric."""
    sizes = dict(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=64,
        vocab_size=VOCABULARY,
        max_position_embeddings=32,
        tie_word_embeddings=False,
    )
    tokens = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    known = FAMILIES.get(family, {})
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**sizes, **tokens, **known, **options}))
    randomise(model, scale=0.35)
    return model.to(dtype).eval()


def arm_of(family="llama", **options):
    return TransformersARM(decoder(family, **options), LAYOUT, start=START, offset=OFFSET)


def rows_of(model, prompt, x):
    """Logits of every dimension as the model itself gives them."""
    tokens = torch.tensor([[*prompt, *(OFFSET + x[:-1]).tolist()]])
    return model(input_ids=tokens).logits[0, len(prompt) - 1 :, OFFSET : OFFSET + LAYOUT.categories]


@torch.inference_mode()
def plain_loop(model, prompts, noise, *, scale=1.0, temperature=1.0, keep=LAYOUT.categories):
    """One token after the other, without a cache, as anyone would write it."""
    x = torch.zeros(len(prompts), LAYOUT.dims, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        for i in range(LAYOUT.dims):
            logits = rows_of(model, prompt, x[row])[i]
            if scale != 1:
                null = rows_of(model, [START], x[row])[i]
                logits = null + scale * (logits - null)
            kept = logits.topk(keep).indices
            scores = torch.full_like(logits, -torch.inf)
            scores[kept] = logits[kept] + temperature * noise[row, i, kept]
            x[row, i] = scores.argmax()
    return x


def noise_for(count=5):
    return sample_noise(LAYOUT, seed=0, sample_ids=range(count), dtype=torch.float64)


@pytest.mark.parametrize("family", FAMILIES)
def test_windows_with_refill_give_the_samples_of_a_plain_loop(family):
    arm = arm_of(family)
    expected = plain_loop(arm.model, PROMPTS, noise_for(), temperature=0.9, keep=5)
    assert len(expected.unique()) > 3
    for window in (1, 6, LAYOUT.dims):
        trace = sample_many(
            arm, count=5, seed=0, slots=2, window=window, context=PROMPTS, temperature=0.9, logits_processor=top_k(5)
        )
        assert torch.equal(trace.x, expected), window


@pytest.mark.parametrize("family", ["llama", "gpt2", "cohere"])
def test_guidance_gives_the_samples_of_a_plain_loop(family):
    arm = arm_of(family)
    expected = plain_loop(arm.model, PROMPTS, noise_for(), scale=3.0, keep=4)
    guided = Guided(arm, scale=3.0, null_context=None)
    trace = sample_many(guided, count=5, seed=0, slots=2, window=5, context=PROMPTS, logits_processor=top_k(4))
    assert torch.equal(trace.x, expected)
    assert not torch.equal(sample_many(arm, count=5, seed=0, slots=2, context=PROMPTS).x, expected)


@torch.inference_mode()
@pytest.mark.parametrize("family", FAMILIES)
def test_cached_and_uncached_logits_agree_with_the_models_own(family):
    arm = arm_of(family)
    x = torch.randint(7, (5, LAYOUT.dims), generator=torch.Generator().manual_seed(1))
    cache, where = arm.span_cache(5, LAYOUT.dims), torch.tensor
    cache.begin(list(range(5)), PROMPTS)
    cache.evaluate(x.flip(1), where([0, 0, 0, 0, 0]), where([16, 9, 16, 2, 0]))  # drafts, each at a place of its own
    spans = [cache.evaluate(x, where([0, 0, 0, 0, 0]), where([3, 0, 16, 1, 16]))]
    spans += [cache.evaluate(x, where([3, 0, 16, 1, 16]), where([16, 16, 16, 16, 16]))]
    cached = {
        name: torch.zeros(80, getattr(arm(x), name).shape[-1], dtype=x.double().dtype) for name in ("logits", "hidden")
    }
    for span in spans:
        cached["logits"][span.where], cached["hidden"][span.where] = span.logits, span.hidden
    uncached = arm(x, PROMPTS)
    own = torch.stack([rows_of(arm.model, prompt, row) for prompt, row in zip(PROMPTS, x, strict=True)])
    size = own.abs().max()
    # Gemma2's attention, in eager mode, has its softmax in float32 whatever the dtype of the model
    allowed = 1e-6 if family == "gemma2" else 1e-12
    assert (uncached.logits - own).abs().max() <= allowed * size
    assert (cached["logits"].view_as(own) - own).abs().max() <= allowed * size
    assert (cached["hidden"].view_as(uncached.hidden) - uncached.hidden).abs().max() <= allowed * 100
    assert (own[:, 5] - rows_of(arm.model, [0], x[0])[5]).abs().min(dim=0).values.max() > 1e-4 * size  # prompts matter


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon"])
def test_products_of_spans_are_those_of_the_model_and_leave_it_as_it_is(family, monkeypatch):
    counted, by_onednn = [], product._by_onednn
    monkeypatch.setattr(product, "ENOUGH", 1)
    monkeypatch.setattr(product, "_by_onednn", lambda *given: counted.append(given) or by_onednn(*given))
    arm = arm_of(family, dtype=torch.float32)  # looks at a few spans itself
    counted.clear()
    kinds, x = [type(part) for part in arm.modules()], torch.randint(7, (3, 16))
    expected = arm(x).logits.flatten(0, 1).detach()
    assert not counted  # gradients go through torch's own
    with sampling_mode(arm):
        found = arm.span_cache(3, 16).evaluate(x, torch.zeros(3, dtype=torch.int64), torch.full((3,), 16))
    layers = [part for part in arm.modules() if type(part) in (nn.Linear, Conv1D)]
    assert len(counted) == len(layers)
    torch.testing.assert_close(found.logits, expected[found.where.clone()], rtol=1e-4, atol=1e-5)
    assert [type(part) for part in arm.modules()] == kinds


def test_without_contexts_samples_follow_the_start_token():
    arm = arm_of()
    expected = plain_loop(arm.model, [[START]] * 5, noise_for())
    for context in (None, [None] * 5, torch.full((5,), START), torch.full((5, 1), START)):
        assert torch.equal(sample_many(arm, count=5, seed=0, slots=2, window=5, context=context).x, expected)
        assert torch.equal(predictive_sample(arm, noise_for(), fixed_point, context=context).x, expected)


def test_keys_and_values_keep_their_grouped_heads_and_grow_as_far_as_samples_do():
    arm = arm_of(num_key_value_heads=2)
    cache, x = arm.span_cache(2, 4), torch.zeros(2, LAYOUT.dims, dtype=torch.int64)
    cache.begin([0, 1], [[1], [1, 2, 3, 4]])
    for first in range(0, LAYOUT.dims, 4):
        start = torch.full((2,), first)
        cache.evaluate(x, start, start + 4)
        assert all(part.shape[1] <= 2 * (3 + first + 4) + 1 for pair in cache.memory.kept for part in pair)
    assert [tuple(part.shape) for pair in cache.memory.kept for part in pair] == [(2, 3 + 16 + 1, 2, 8)] * 4


def test_models_in_16_bits_are_sampled_with_noise_in_float32():
    """Nothing but noise decides here; rounded to 16 bits, ties of the largest would go to the lowest category."""
    model, layout = decoder(dtype=torch.bfloat16, vocab_size=4096), Layout(1, 4, 4, 4096)
    torch.nn.init.zeros_(model.lm_head.weight)
    arm = TransformersARM(model, layout, start=1)
    noise = sample_noise(layout, seed=0, sample_ids=range(32))
    trace = sample_many(arm, count=32, seed=0, slots=8, window=5)
    assert torch.equal(trace.x, noise.argmax(dim=-1)) and not torch.equal(trace.x, noise.bfloat16().argmax(dim=-1))
    assert torch.equal(predictive_sample(arm, noise, fixed_point).x, trace.x)


def test_slots_begin_in_any_order():
    arm, x = arm_of(), torch.zeros(3, LAYOUT.dims, dtype=torch.int64)
    cache, start = arm.span_cache(3, LAYOUT.dims), torch.zeros(3, dtype=torch.int64)
    cache.begin([2, 0, 1], [PROMPTS[3], PROMPTS[1], PROMPTS[4]])
    logits = cache.evaluate(x, start, start + LAYOUT.dims).logits
    assert (logits.view(3, 16, 7) - arm(x, [PROMPTS[1], PROMPTS[4], PROMPTS[3]]).logits).abs().max() < 1e-12


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "falcon"])
def test_recorded_steps_in_fixed_shapes_give_the_same_samples(family, monkeypatch):
    """Samples that begin while others are in work, one with a prompt that needs more room: recordings are made anew."""
    monkeypatch.setitem(WARM_UP, "cpu", 2)
    arm, prompts = arm_of(family), [*PROMPTS[:2], [4, 5, 6, 0, 2, 9]]
    expected = plain_loop(arm.model, prompts, noise_for()[:3], scale=2.0)
    guided = Guided(arm, scale=2.0, null_context=None)
    for record in (Recordings(), taped):
        assert torch.equal(streamed(guided, prompts, record), expected)


def streamed(guided, prompts, record):
    """Three samples through two slots, by steps of changing widths that are recorded."""
    calls = []
    with sampling_mode(guided):
        work = Work(guided, 2, guided.recorded_cache(2, 6), fixed_point, DenseNoise(noise_for()), Decision())
        assert work.recordable
        take, widths, found = Steps(work, record=lambda call: calls.append(call) or record(call)), [3, 6], {}
        work.begin([0, 1], [0, 1], contexts=prompts[:2])
        holds = {0: 0, 1: 1}
        while holds:
            widths.reverse()
            take(widths[0])
            for slot in [slot for slot in holds if work.finished()[slot]]:
                found[holds.pop(slot)] = work.state.x[slot].clone()
                if len(found) == 1:
                    work.begin([slot], [2], contexts=prompts[2:])
                    holds[slot] = 2
    assert len(calls) > len(widths)
    return torch.stack([found[row] for row in range(3)])


def test_small_calls_have_fixed_shapes_and_large_ones_do_not(monkeypatch):
    arm, calls = arm_of(), []
    monkeypatch.setattr(recorded, "taped", lambda call: calls.append(call) or taped(call))
    expected = sample_many(arm, count=8, seed=0, slots=1, window=3, context=PROMPTS[:1] * 8).x
    assert len(calls) == 1 and torch.equal(expected, plain_loop(arm.model, PROMPTS[:1] * 8, noise_for(8)))
    assert arm.span_cache(1, 3).compact and not arm.recorded_cache(1, 3).compact  # peers and repairs record nothing
    monkeypatch.setattr(adapter, "FIXED_WORK", 0)
    assert arm.recorded_cache(1, 3).compact
    assert torch.equal(sample_many(arm, count=8, seed=0, slots=1, window=3, context=PROMPTS[:1] * 8).x, expected)
    assert len(calls) == 1


class OwnSpans(KeyValues):
    made = 0


class OwnARM(TransformersARM):
    def span_cache(self, slots, window):
        OwnSpans.made += 1
        return OwnSpans(self, slots, window)


def test_a_span_cache_of_a_subclass_is_used_in_small_streams_too():
    arm = OwnARM(decoder(), LAYOUT, offset=OFFSET)
    expected = plain_loop(arm.model, PROMPTS, noise_for())
    assert torch.equal(sample_many(arm, count=5, seed=0, slots=2, window=5, context=PROMPTS).x, expected)
    assert arm.fixed_shapes and OwnSpans.made == 1


@pytest.mark.parametrize("read", [lambda x: x.tolist()[0], lambda x: x[0].item(), lambda x: int(x.numpy()[0])])
def test_a_call_that_takes_values_to_the_host_is_not_written_down(read):
    x = torch.zeros(1, dtype=torch.int64)
    again = taped(lambda: x.add_(1 + read(x)))
    again()
    assert x.tolist() == [3]


def test_a_model_that_takes_something_from_the_host_is_not_recorded():
    assert not arm_of("falcon").fixed_shapes  # splits its heads with a list as an index


def test_eager_attention_gives_the_same_samples():
    model = decoder()
    expected = plain_loop(model, PROMPTS, noise_for())
    model.set_attn_implementation("eager")
    arm = TransformersARM(model, LAYOUT, offset=OFFSET)
    assert torch.equal(sample_many(arm, count=5, seed=0, slots=2, window=5, context=PROMPTS).x, expected)


@pytest.mark.parametrize("window", [1, 3, 16])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_arm_work_agrees_with_the_flop_counter(family, window):
    arm = arm_of(family, attn_implementation="eager")  # the counter does not know sdpa on CPUs
    arm.model.set_attn_implementation("eager")
    start = torch.zeros(1, dtype=torch.int64)
    with FlopCounterMode(display=False) as one, torch.inference_mode():
        arm.span_cache(1, LAYOUT.dims).evaluate(torch.zeros(1, LAYOUT.dims, dtype=torch.int64), start, start + 16)
    with FlopCounterMode(display=False) as run:
        trace = sample_many(arm, count=5, seed=0, slots=2, window=window, context=PROMPTS if window < 16 else None)
    assert trace.arm_work.sum().item() * one.get_total_flops() == pytest.approx(run.get_total_flops(), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "classes"), [("llama", 0), ("gpt2", 4)])
def test_a_decoder_of_our_own_keeps_the_contract_of_an_arm(architecture, classes):
    config = TransformersConfig(architecture, width=16, heads=2, layers=1, classes=classes)
    for name, check in arm_checks(lambda layout: TransformersDecoder(layout, config), [Layout(3, 4, 4, 3)]):
        try:
            check()
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def test_a_decoder_trains_like_any_arm():
    torch.manual_seed(0)
    arm = TransformersDecoder(Layout(1, 4, 4, 3), TransformersConfig(width=16, heads=2, kv_heads=1, layers=2))
    training = Training(arm, None, TrainingConfig(iterations=40, batch_size=8, learning_rate=1e-2), seed=0)
    images = torch.tensor([[0] * 16, [1] * 16, [2] * 16] * 8, dtype=torch.uint8)  # 0.1 bits a dimension
    bits = [step.figures["train_bits_per_dim"] for step in fit(training, images)]
    assert bits[0] > 1.2 and bits[-1] < 0.2
    assert all(parameter.grad is not None for parameter in arm.parameters())


@pytest.mark.parametrize("inputs", [("hidden",), ("hidden", "noise")])
def test_forecasting_modules_on_hidden_states_change_no_sample_whatever_they_forecast(inputs):
    arm, noise = arm_of(), noise_for()
    modules = ForecastingModules(LAYOUT, ForecastingConfig(3, 8, inputs=inputs), arm.hidden_features).double()
    randomise(modules)
    expected = plain_loop(arm.model, PROMPTS, noise)
    for window in (3, 8, LAYOUT.dims):
        learned = LearnedForecaster(modules, fallback=fixed_point_above)
        drawn = predictive_sample(arm, noise, learned, window=window, context=PROMPTS)
        assert torch.equal(drawn.x, expected)
        streamed = sample_many(
            arm, count=len(PROMPTS), seed=0, slots=2, window=window, forecaster=learned, context=PROMPTS
        )
        assert torch.equal(streamed.x, expected)


def test_forecasting_modules_learn_from_the_hidden_states_of_a_decoder():
    torch.manual_seed(0)
    layout = Layout(1, 4, 4, 3)
    arm = TransformersDecoder(layout, TransformersConfig(width=16, heads=2, layers=2))
    modules = ForecastingModules(layout, ForecastingConfig(2, 8, inputs=("hidden", "noise")), arm.hidden_features)
    training = Training(arm, modules, TrainingConfig(iterations=40, batch_size=8, learning_rate=1e-2), seed=0)
    steps = list(fit(training, torch.randint(3, (32, 16), dtype=torch.uint8)))
    first, last = (steps[k].figures["forecasting_kl_nats"] for k in (0, -1))
    assert last < 0.5 * first


@pytest.mark.parametrize("forecaster", [row_above, fixed_point_above])
def test_the_row_above_is_a_draft_in_windows_as_on_whole_images(forecaster):
    arm, noise = arm_of(), noise_for()
    expected = plain_loop(arm.model, PROMPTS, noise)
    for window in (2, 6, LAYOUT.dims):
        assert torch.equal(predictive_sample(arm, noise, forecaster, window=window, context=PROMPTS).x, expected)


def test_labels_are_the_tokens_after_the_start_token():
    arm = TransformersDecoder(LAYOUT, TransformersConfig(width=16, heads=2, layers=2, classes=3, offset=2)).double()
    assert (arm.tokens, arm.start) == (2 + 7 + 1 + 3, 9)
    randomise(arm)
    labels = torch.tensor([-1, 0, 2, 2])
    expected = plain_loop(arm.model, [[9], [10], [12], [12]], noise_for()[:4])
    for context in (labels, labels.tolist(), [None, [10], 2, torch.tensor([12])]):
        assert torch.equal(sample_many(arm, count=4, seed=0, slots=3, window=5, context=context).x, expected)
    with pytest.raises(InputError, match=r"labels must be in \[0, 2\], or -1 for none, got 3"):
        arm(torch.zeros(1, LAYOUT.dims, dtype=torch.int64), [3])


def test_a_decoder_trains_on_labels_and_is_guided_by_them():
    torch.manual_seed(0)
    arm = TransformersDecoder(Layout(1, 4, 4, 3), TransformersConfig(width=16, heads=2, layers=1, classes=3))
    training = Training(arm, None, TrainingConfig(iterations=60, batch_size=8, learning_rate=2e-2), seed=0)
    images, labels = torch.tensor([[0] * 16, [1] * 16, [2] * 16] * 8, dtype=torch.uint8), torch.tensor([0, 1, 2] * 8)
    list(fit(training, images, labels=labels))
    guided = Guided(arm.double(), scale=2.0, null_context=-1)
    x = sample_many(guided, count=6, seed=0, slots=4, context=labels[:6]).x
    assert (x[:, 0] == labels[:6]).all()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_folder_of_save_pretrained_becomes_a_checkpoint_without_pickle(family, tmp_path):
    model = decoder(family)
    model.save_pretrained(tmp_path / "model")
    arm = TransformersDecoder.load(tmp_path / "model", LAYOUT, start=START, offset=OFFSET, dtype=torch.float64)
    save_arm(arm, tmp_path / "checkpoint")
    loaded = load_arm(tmp_path / "checkpoint")
    assert {file.suffix for file in (tmp_path / "checkpoint").iterdir()} == {".safetensors", ".json"}
    assert type(loaded) is TransformersDecoder and loaded.start == START
    assert (
        json.loads((tmp_path / "checkpoint" / "manifest.json").read_text())["content"]["arm"]["class"] == "transformers"
    )
    x = torch.randint(7, (2, LAYOUT.dims), generator=torch.Generator().manual_seed(1))
    assert torch.equal(
        loaded(x, PROMPTS[:2]).logits, TransformersARM(model, LAYOUT, offset=OFFSET)(x, PROMPTS[:2]).logits
    )


def test_a_decoder_is_built_on_the_meta_device_for_its_size_alone():
    with torch.device("meta"):
        arm = TransformersDecoder(Layout(1, 24, 24, 16384), TransformersConfig(width=512, heads=8))
    assert sum(parameter.numel() for parameter in arm.parameters()) > 2 * 16384 * 512


class Forgetful(LlamaForCausalLM):
    """Takes position ids and ignores them."""

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, **options):
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, cache=past_key_values, **options)


class Mixing(LlamaForCausalLM):
    """Gives log-probabilities, which a part of the vocabulary does not determine."""

    def forward(self, *inputs, position_ids=None, cache=None, **options):
        output = super().forward(*inputs, position_ids=position_ids, cache=cache, **options)
        output.logits = output.logits.log_softmax(dim=-1)
        return output


def of_class(kind):
    model = decoder()
    model.__class__ = kind
    return model


def flash():
    model = decoder()
    model.config._attn_implementation = "flash_attention_2"
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: nn.Linear(2, 2), "must be a decoder of transformers (a ...ForCausalLM), got Linear"),
        (
            lambda: T5ForConditionalGeneration(T5Config(vocab_size=9, d_model=8, d_ff=8, num_layers=1, num_heads=1)),
            "T5ForConditionalGeneration is an encoder-decoder",
        ),
        (lambda: decoder("mamba"), "MambaForCausalLM has layers that keep a state instead of keys and values"),
        (lambda: decoder("bloom"), "BloomForCausalLM.forward takes no position_ids"),
        (lambda: decoder("falcon", alibi=True), "FalconForCausalLM cannot be driven in spans"),
        (flash, 'use model.set_attn_implementation("sdpa")'),
        (lambda: decoder("mistral", sliding_window=8), "sliding_window of MistralForCausalLM is 8"),
        (lambda: decoder("gemma2", sliding_window=8), "sliding_window of Gemma2ForCausalLM is 8"),
        (lambda: decoder("gpt2", max_position_embeddings=15), "need 16 positions, but max_position_embeddings"),
        (lambda: of_class(Forgetful), "its logits differ from those of its own forward"),
        (lambda: of_class(Mixing), "its logits differ from those of its own forward"),
        (lambda: decoder(vocab_size=8), "the categories are the tokens 2 to 8, but the model has 0 to 7"),
        (lambda: decoder(vocab_size=20), "start must be a token in [0, 19], got 20"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_cannot_be_driven_is_refused_with_the_reason(model, reason):
    with pytest.raises(InputError) as error:
        TransformersARM(model(), LAYOUT, start=START, offset=OFFSET)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ([[1], []], "the context of sample 1 must be token ids, at least one, got []"),
        ([[1], [0.5]], "the context of sample 1 must be token ids, at least one, got [0.5]"),
        ([[1], None], "samples without a context need TransformersARM(..., start=)"),
        (None, "samples without a context need TransformersARM(..., start=)"),
        ([[1], [23]], "contexts must hold tokens in [0, 22], got 1 to 23"),
        ([[1], [1] * 18], "a prompt of 18 tokens and 16 dims need 33 positions"),
    ],
    ids=str,
)
def test_contexts_that_are_no_prompts_are_refused(context, reason):
    arm = TransformersARM(decoder(), LAYOUT, offset=OFFSET)
    for window in (4, LAYOUT.dims):
        with pytest.raises(InputError) as error:
            sample_many(arm, count=2, seed=0, slots=2, window=window, context=context)
        assert reason in str(error.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"architecture": "lama"}, "transformers knows no architecture 'lama'"),
        ({"width": 30}, "width must be a multiple of 2 heads (8), got 30; nearest: 32"),
        ({"kv_heads": 3}, "heads (4) must be a multiple of kv_heads, got 3"),
        ({"layers": 0}, "width, layers, heads and kv_heads must be at least 1"),
        ({"classes": -1}, "classes must not be negative, got -1"),
    ],
    ids=str,
)
def test_configurations_that_cannot_be_are_refused(options, reason):
    with pytest.raises(InputError) as error:
        TransformersDecoder(LAYOUT, TransformersConfig(**{"width": 16, **options}))
    assert reason in str(error.value)


def test_the_model_is_left_as_it_was():
    model = decoder().train()
    model.model.eval()
    before, head = {part: part.training for part in model.modules()}, model.lm_head
    arm = TransformersARM(model, LAYOUT, start=START, offset=OFFSET)
    sample_many(arm, count=2, seed=0, slots=2, window=4)
    assert model.lm_head is head and {part: part.training for part in model.modules()} == before


def run(code, folder=None):
    path = [str(folder)] if folder else []
    code = f"import sys; sys.path[:0] = {path!r}\n" + code
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.slow
def test_arms_are_imported_without_transformers():
    done = run("import arm_core, arm_core.arms; print('transformers' in sys.modules)")
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_a_missing_transformers_is_told_with_the_remedy():
    done = run("sys.modules['transformers'] = None\nfrom arm_core.arms import TransformersARM")
    assert "this ARM needs transformers: pip install 'arm-sampling[transformers]'" in done.stderr


@pytest.mark.slow
def test_a_torchvision_that_does_not_fit_is_told_with_the_remedy(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    about = tmp_path / "torchvision-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1.0\n")
    code = "from arm_core import Layout; from arm_core.arms import *; TransformersDecoder(Layout(1, 2, 2, 2), TransformersConfig())"
    done = run(code, tmp_path)
    assert "InputError: transformers cannot build 'llama'" in done.stderr
    assert "a torchvision or another package beside it does not fit torch: update or uninstall" in done.stderr


def test_heads_that_are_no_plain_linear_layer_are_evaluated_whole():
    class Head(nn.Linear):
        pass

    model = decoder()
    x = torch.zeros(2, LAYOUT.dims, dtype=torch.int64)
    expected = TransformersARM(model, LAYOUT, start=START, offset=OFFSET)(x)
    model.lm_head.__class__ = Head
    found = TransformersARM(model, LAYOUT, start=START, offset=OFFSET)(x)
    assert torch.allclose(found.logits, expected.logits, rtol=1e-12, atol=0)
    assert torch.equal(found.hidden, expected.hidden)
