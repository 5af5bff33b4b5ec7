"""`generate(custom_generate=predictive_generate())`: what generate promises, row by row, and what it refuses."""

import itertools

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.generation import GenerateDecoderOnlyOutput, LogitsProcessor, StoppingCriteria

from arm_core import InputError, Layout, sample_noise
from arm_core.generation import predictive_generate
from arm_core.testing import randomise

VOCABULARY, END, PAD = 40, 2, 0
SAMPLING = {"do_sample": True, "max_new_tokens": 24, "temperature": 1.3, "top_k": 20, "top_p": 0.9, "min_p": 0.01}
SEEDS = [5, 9, 1, 3, 3]


@pytest.fixture(scope="module")
def model():
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    model = LlamaForCausalLM(config)
    randomise(model, scale=0.35)
    return model.double().eval()


@pytest.fixture(scope="module")
def prompts():
    """Five prompts of different length, padded on the left."""
    tokens = torch.randint(3, VOCABULARY, (5, 9), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(9) >= torch.tensor([0, 3, 1, 7, 5])[:, None]).long()
    return {"input_ids": torch.where(mask > 0, tokens, PAD), "attention_mask": mask}


def unpadded(row):
    """The generated tokens of a row of `generate`, up to its end token."""
    new = row[9:].tolist()
    return new[: new.index(END) + 1] if END in new else new


@pytest.mark.slow
def test_a_batch_of_five_prompts_equals_row_for_row_a_batch_of_one(model, prompts):
    batch = model.generate(**prompts, **SAMPLING, custom_generate=predictive_generate(seeds=SEEDS))
    lengths = [len(unpadded(row)) for row in batch]
    assert min(lengths) < max(lengths) == batch.shape[1] - 9
    assert torch.equal(batch[:, :9], prompts["input_ids"])
    for row, seed, ids, mask in zip(batch, SEEDS, *prompts.values(), strict=True):
        assert (row[9 + len(unpadded(row)) :] == PAD).all()
        for window in (1, 5, 50):
            method = predictive_generate(seeds=seed, window=window)
            alone = model.generate(ids[mask > 0][None], **SAMPLING, custom_generate=method)
            assert alone[0, int(mask.sum()) :].tolist() == unpadded(row)


def test_tokens_are_those_of_generates_scores_and_the_seeds_noise(model, prompts):
    """The processed scores of generate itself, and the noise of sample_noise, lead to the same tokens."""
    ids, seed = prompts["input_ids"][:1], 7
    found = model.generate(ids, **SAMPLING, custom_generate=predictive_generate(seeds=seed))[0, 9:]
    noise = sample_noise(Layout(1, 1, 24, VOCABULARY), seed=0, sample_ids=[seed], dtype=torch.float64)[0]
    for i, token in enumerate(found):
        so_far = torch.cat([ids[0], found[:i]])[None]
        once = {**SAMPLING, "max_new_tokens": 1, "output_scores": True, "return_dict_in_generate": True}
        scores = model.generate(so_far, **once).scores[0][0]
        assert int((scores + noise[i]).argmax()) == int(token)


@pytest.mark.parametrize(
    "options",
    [{}, {"suppress_tokens": [3, 4]}, {"eos_token_id": [2, 5, 6]}, {"eos_token_id": None}, {"max_length": 20}],
    ids=str,
)
def test_greedy_tokens_are_those_of_generate(model, prompts, options):
    options = {"do_sample": False, **({} if "max_length" in options else {"max_new_tokens": 16}), **options}
    expected = model.generate(**prompts, **options)
    assert torch.equal(model.generate(**prompts, **options, custom_generate=predictive_generate()), expected)


def test_what_generate_returns_is_returned(model, prompts):
    options = {**prompts, **SAMPLING, "custom_generate": predictive_generate(seeds=3)}
    output = model.generate(**options, return_dict_in_generate=True)
    assert isinstance(output, GenerateDecoderOnlyOutput)
    assert torch.equal(output.sequences, model.generate(**options))


def test_a_number_counts_up_over_the_rows_and_several_sequences_of_a_prompt_differ(model, prompts):
    ids = prompts["input_ids"][:1]
    three = model.generate(ids, **SAMPLING, num_return_sequences=3, custom_generate=predictive_generate(seeds=4))
    apart = [model.generate(ids, **SAMPLING, custom_generate=predictive_generate(seeds=seed)) for seed in (4, 5, 6)]
    assert [unpadded(row) for row in three] == [unpadded(row[0]) for row in apart]
    assert all(unpadded(one) != unpadded(other) for one, other in itertools.combinations(three, 2))


def test_a_method_serves_other_lengths_and_models_after_the_first(model, prompts):
    method = predictive_generate(seeds=0)
    long = model.generate(**prompts, **SAMPLING, custom_generate=method)
    short = model.generate(**prompts, **{**SAMPLING, "max_new_tokens": 4}, custom_generate=method)
    assert torch.equal(short, long[:, : 9 + 4])
    other = LlamaForCausalLM(model.config).double().eval()
    assert not torch.equal(other.generate(**prompts, **SAMPLING, custom_generate=method)[:, :13], short)


class Flat(LogitsProcessor):
    """Of one's own, and without history."""

    def __call__(self, input_ids, scores):
        return scores / 3


class Repeats(LogitsProcessor):
    def __call__(self, input_ids, scores):
        return scores.scatter(1, input_ids[:, -1:], 9.0)


class Never(StoppingCriteria):
    def __call__(self, input_ids, scores, **options):
        return torch.zeros(len(input_ids), dtype=torch.bool)


def test_processors_of_ones_own_are_honoured(model, prompts):
    ids, options = (
        prompts["input_ids"][:1],
        {**SAMPLING, "temperature": 1.0, "top_k": None, "top_p": None, "min_p": None},
    )
    method = predictive_generate(seeds=2)
    flat = model.generate(ids, **options, logits_processor=[Flat()], custom_generate=method)
    assert torch.equal(flat, model.generate(ids, **{**options, "temperature": 3.0}, custom_generate=method))
    assert not torch.equal(flat, model.generate(ids, **options, custom_generate=method))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"repetition_penalty": 1.2}, "the logits processor RepetitionPenaltyLogitsProcessor reads the tokens so far"),
        ({"no_repeat_ngram_size": 2}, "the logits processor NoRepeatNGramLogitsProcessor reads the tokens so far"),
        ({"min_new_tokens": 3}, "reads the tokens so far"),
        ({"guidance_scale": 2.0}, "the logits processor UnbatchedClassifierFreeGuidanceLogitsProcessor reads"),
        ({"logits_processor": [Repeats()]}, "the logits processor Repeats reads the tokens so far"),
        ({"num_beams": 2}, "cannot honour num_beams"),
        ({"prompt_lookup_num_tokens": 2}, "cannot honour assisted_generation"),
        ({"max_time": 3.0}, "cannot honour MaxTimeCriteria"),
        ({"stopping_criteria": [Never()]}, "cannot honour Never"),
        ({"return_dict_in_generate": True, "output_scores": True, "output_logits": True}, "output_scores, output_logits"),
        ({"position_ids": torch.arange(9).expand(5, 9)}, "counts position_ids from the attention_mask"),
        ({"attention_mask": torch.ones(5, 9).long().tril(7)}, "padded on the left: padding_side='left'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(model, prompts, options, named):
    with pytest.raises(InputError) as error:
        model.generate(**{**prompts, **SAMPLING, **options}, custom_generate=predictive_generate())
    assert named in str(error.value)


def test_a_cache_that_holds_tokens_is_refused(model, prompts):
    held = model(prompts["input_ids"], use_cache=True).cache
    with pytest.raises(InputError, match="cannot honour a cache that holds tokens already"):
        model.generate(**prompts, **SAMPLING, cache=held, custom_generate=predictive_generate())


def test_seeds_must_be_as_many_as_rows(model, prompts):
    with pytest.raises(InputError, match="needs a seed per row: 5 rows, 2 seeds"):
        model.generate(**prompts, **SAMPLING, custom_generate=predictive_generate(seeds=[1, 2]))
