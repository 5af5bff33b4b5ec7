"""Which decoders can be driven in spans, and how far; every refusal says why."""

import inspect
from typing import Any

from arm_core.errors import InputError

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
        raise InputError(f"{kind} is an encoder-decoder; only decoders (a ...ForCausalLM) are autoregressive throughout")
    layers = set(getattr(config.get_text_config(), "layer_types", None) or ())
    if other := sorted(layers - LAYER_TYPES):
        raise InputError(f"{kind} has layers that keep a state instead of keys and values: {', '.join(other)}")
    takes = inspect.signature(model.forward).parameters
    caches = [name for name in ("cache", "past_key_values") if name in takes]
    for argument, found in (("position_ids", "position_ids" in takes), ("a key-value cache", bool(caches))):
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


def longest_sequence(model: Any) -> tuple[float, str]:
    """(positions that spans may use, what limits them): beyond, a cached row is not what a whole pass gives."""
    config = model.config.get_text_config()
    layers = getattr(config, "layer_types", None)
    limits = [(getattr(config, "max_position_embeddings", None), "max_position_embeddings")]
    for layer, field in (("sliding_attention", "sliding_window"), ("chunked_attention", "attention_chunk_size")):
        if layers is None or layer in layers:  # Mistral has a window and no layer types
            limits.append((getattr(config, field, None), field))
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if rope.get("rope_type", rope.get("type")) in ("dynamic", "longrope"):  # frequencies depend on the length
        field = "original_max_position_embeddings"
        limits.append((rope.get(field) or getattr(config, field, None), field))
    return min(((value, name) for value, name in limits if value), default=(float("inf"), "nothing"))
