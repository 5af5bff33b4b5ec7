"""Decoders of Hugging Face `transformers` as ARMs: the adapter for any of them, and decoders of our own to train."""

from arm_core.errors import InputError

try:
    import transformers  # noqa: F401
except ModuleNotFoundError as error:
    raise InputError("this ARM needs transformers: pip install 'arm-sampling[transformers]'") from error

from arm_core.arms.transformers.adapter import TransformersARM
from arm_core.arms.transformers.decoder import TransformersConfig, TransformersDecoder

__all__ = ["TransformersARM", "TransformersConfig", "TransformersDecoder"]
