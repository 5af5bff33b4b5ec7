"""Decoders of Hugging Face `transformers` as ARMs: the adapter for any of them, and decoders of our own to train."""

from arm_core.arms.transformers.adapter import TransformersARM
from arm_core.arms.transformers.decoder import TransformersConfig, TransformersDecoder

__all__ = ["TransformersARM", "TransformersConfig", "TransformersDecoder"]
