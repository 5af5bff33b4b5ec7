"""Attention of spans by the native kernels (`arm_core.native`), under the interface that `transformers` has for it."""

import copy
import sys
from typing import Any

import torch
from torch import Tensor

NAME, REPLACED = "arm_core", "sdpa"
KNOWN = {"is_causal", "sliding_window", "position_ids", "cache_position", "use_cache"}
KNOWN |= {"output_attentions", "output_hidden_states", "output_router_logits"}
"""Further arguments that the mask of a call has in it already, or that change no result."""


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """As any attention function of `transformers`; what the kernel does not know goes to torch's own."""
    unknown = any(argument is not None for name, argument in more.items() if name not in KNOWN)
    if dropout or unknown or not _fit(query, key, value, attention_mask):
        replaced = _interface()()[REPLACED]
        result: tuple[Tensor, None] = replaced(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return result
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return torch.ops.arm_core.attend(query, key, value, attention_mask, scale).transpose(1, 2), None


def _fit(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> bool:
    """Whether the kernel knows such shapes: one mask for all heads, and as many features of keys as of values."""
    if mask is None or {each.dtype for each in (key, value, mask)} != {query.dtype}:
        return False
    shapes = mask.shape == (query.shape[0], 1, query.shape[2], key.shape[2]) and key.shape == value.shape
    lie = all(each.stride(3) == 1 for each in (query, key, value, mask))
    return shapes and lie and query.shape[1] % key.shape[1] == 0 and query.shape[3] == key.shape[3]


def _interface() -> Any:
    from transformers import AttentionInterface  # not before it is needed: a torchvision that does not fit breaks it

    return AttentionInterface


def takes_native_attention(model: Any) -> bool:
    """Whether the model's layers look up their attention by name at every call, and use sdpa."""
    homes = {type(part).__module__ for part in model.modules()}
    looks_up = any(hasattr(sys.modules.get(home), "ALL_ATTENTION_FUNCTIONS") for home in homes)
    return looks_up and getattr(model.config, "_attn_implementation", None) == REPLACED


def with_native_attention(config: Any) -> Any:
    """A copy of a model's configuration that names the native kernel in the place of sdpa."""
    if getattr(config, "_attn_implementation", None) != REPLACED:
        return config
    _interface().register(NAME, attend)
    config = copy.deepcopy(config)
    config._attn_implementation = NAME
    return config
