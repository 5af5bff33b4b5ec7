"""Which decoders can be driven in spans, and how far; every refusal says why."""

import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from arm_core.contracts import AutoregressiveModel
from arm_core.errors import InputError
from arm_core.eval_mode import eval_mode
from arm_core.host_reads import HostReads

ATTENTIONS = ("eager", "sdpa")
"""Implementations that take a mask of four axes; flash attention takes none, flex attention another kind."""
LAYER_TYPES = {"full_attention", "sliding_attention", "chunked_attention"}


def check_drivable(model: Any) -> str:
    """The name that the model gives to its cache argument.

    Raises:
        InputError: it is no decoder whose forward takes a cache, position ids and an attention mask of four axes.
    """
    kind = type(model).__name__
    if not hasattr(model, "get_output_embeddings") or not hasattr(model, "config"):
        raise InputError(f"the model must be a decoder of transformers (a ...ForCausalLM), got {kind}")
    config = model.config
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(f"{kind} is an encoder-decoder; give a decoder alone (a ...ForCausalLM)")
    layers = set(getattr(config.get_text_config(), "layer_types", None) or ())
    if other := sorted(layers - LAYER_TYPES):
        raise InputError(f"{kind} has layers that keep a state instead of keys and values: {', '.join(other)}")
    takes = inspect.signature(model.forward).parameters
    caches = [name for name in ("cache", "past_key_values") if name in takes]
    for argument, found in (("position_ids", "position_ids" in takes), ("key-value cache", bool(caches))):
        if not found:
            raise InputError(f"{kind}.forward takes no {argument}, so samples cannot stand at places of their own")
    if (attention := getattr(config, "_attn_implementation", "eager")) not in ATTENTIONS:
        raise InputError(
            f"{kind} uses {attention} attention, which takes no mask of four axes; "
            'use model.set_attn_implementation("sdpa")'
        )
    if not any(child is model.get_output_embeddings() for child in model.children()):
        raise InputError(f"{kind} has no output head of its own (get_output_embeddings), so it gives no logits")
    return caches[0]


def longest_sequence(model: Any) -> tuple[int, str]:
    """(positions that spans may use, what limits them): beyond, a cached row is not what a whole pass gives."""
    config = model.config.get_text_config()
    layers = getattr(config, "layer_types", None)
    limits = [(getattr(config, "max_position_embeddings", None), "max_position_embeddings")]
    for layer, name in (("sliding_attention", "sliding_window"), ("chunked_attention", "attention_chunk_size")):
        if layers is None or layer in layers:  # Mistral has a window and no layer types
            limits.append((getattr(config, name, None), name))
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if rope.get("rope_type", rope.get("type")) in ("dynamic", "longrope"):  # frequencies change with the length
        name = "original_max_position_embeddings"
        limits.append((rope.get(name) or getattr(config, name, None), name))
    return min(((value, name) for value, name in limits if value), default=(sys.maxsize, "nothing"))


def check_numbers(arm: AutoregressiveModel, spans: Callable[..., Any]) -> bool:
    """Whether calls of fixed shapes need nothing from the host, so that they can be recorded.

    Args:
        arm: a `TransformersARM`.
        spans: its `KeyValues` for (slots, window), of fixed shapes if not `compact`.

    Raises:
        InputError: ragged spans over wrong drafts give something else than the model's own forward.
    """
    kind = type(arm.model).__name__
    try:
        with eval_mode(arm), torch.no_grad():
            worst, waits = max(_errors(arm, spans)), _waits(arm, spans)
    except Exception as error:  # whatever a model that is driven in an unforeseen way may raise
        raise InputError(f"{kind} cannot be driven in spans ({type(error).__name__}: {error})") from error
    dtype = next(arm.parameters()).dtype
    if not worst <= max(torch.finfo(dtype).eps ** 0.5, 1e-5):  # some models round to float32 inside
        raise InputError(
            f"{kind} cannot be driven in spans: its logits differ from those of its own forward by {worst:.2g} of "
            "their size; it ignores position ids or the attention mask, or mixes its logits over the vocabulary"
        )
    return not waits


def _waits(arm: Any, spans: Callable[..., Any]) -> bool:
    cache = spans(1, min(arm.layout.dims, 2), compact=False)
    cache.memory.room, cache.memory.is_told = 4, True  # no more room than is looked at
    x = cache.ahead.new_zeros(1, arm.layout.dims)
    start, stop = x[:, 0], x[:, 0] + cache.window
    with HostReads() as reads:
        cache.evaluate(x, start, stop)
    return reads.seen


def _errors(arm: Any, spans: Callable[..., Any]) -> Iterator[float]:
    """How far two slots at different places, each with its own prompt, are from the model's own forward."""
    dims, categories = arm.layout.dims, arm.layout.categories
    count = min(dims, 5)
    x = torch.arange(2 * dims, device=next(arm.parameters()).device).reshape(2, dims) % categories
    contexts = arm.example_contexts(2)
    prompts = [prompt[:length] for prompt, length in zip(*arm.prompts(contexts, 2), strict=True)]
    cache = spans(2, count)
    cache.begin([0, 1], contexts)
    cache.evaluate(x.flip(1), x.new_tensor([0, 0]), x.new_tensor([count, 1]))
    found = cache.evaluate(x, x.new_tensor([min(1, count - 1), 0]), x.new_tensor([count, count]))
    slot, dim = found.where // dims, found.where % dims
    for row, prompt in enumerate(prompts):
        tokens = torch.cat([prompt, x[row, : count - 1] + arm.offset])
        own: Tensor = arm.model(input_ids=tokens[None], use_cache=False, return_dict=True).logits[0, len(prompt) - 1 :]
        own = own[:, arm.offset : arm.offset + categories].to(found.logits.dtype)
        yield float((found.logits[slot == row] - own[dim[slot == row]]).abs().max() / own.abs().max().clamp_min(1e-30))
