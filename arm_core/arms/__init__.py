"""ARMs, a file or a package each. What needs `transformers` is imported when it is asked for."""

import importlib
from typing import TYPE_CHECKING, Any

from arm_core.arms.guided import Guided
from arm_core.arms.pixelcnn import PixelCNN, PixelCNNConfig

if TYPE_CHECKING:
    from arm_core.arms.transformers import TransformersARM, TransformersConfig, TransformersDecoder

__all__ = ["Guided", "PixelCNN", "PixelCNNConfig", "TransformersARM", "TransformersConfig", "TransformersDecoder"]


def __getattr__(name: str) -> Any:
    if not name.startswith("Transformers") or name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("arm_core.arms.transformers"), name)
