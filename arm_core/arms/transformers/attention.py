"""Attention of spans by the native kernels (`arm_core.native`), under the interface that `transformers` has for it."""

import copy
import sys
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

NAME, REPLACED = "arm_core", "sdpa"
KNOWN = {"is_causal", "sliding_window", "position_ids", "cache_position", "use_cache", "output_attentions"}
"""Further arguments that the mask of a call has in it already, or that change nothing."""


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
    if attention_mask is None or dropout or unknown or key.shape[3] != value.shape[3]:
        replaced = AttentionInterface()[REPLACED]
        result: tuple[Tensor, None] = replaced(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return result
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return torch.ops.arm_core.attend(query, key, value, attention_mask, scale).transpose(1, 2), None


def takes_native_attention(model: Any) -> bool:
    """Whether the model's layers look up their attention by name at every call, and use sdpa."""
    homes = {type(part).__module__ for part in model.modules()}
    looks_up = any(hasattr(sys.modules.get(home), "ALL_ATTENTION_FUNCTIONS") for home in homes)
    return looks_up and getattr(model.config, "_attn_implementation", None) == REPLACED


def with_native_attention(config: Any) -> Any:
    """A copy of a model's configuration that names the native kernel in the place of sdpa."""
    if getattr(config, "_attn_implementation", None) != REPLACED:
        return config
    AttentionInterface.register(NAME, attend)
    config = copy.deepcopy(config)
    config._attn_implementation = NAME
    return config
