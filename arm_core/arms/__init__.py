"""ARMs, a file or a package each."""

from arm_core.arms.guided import Guided
from arm_core.arms.pixelcnn import PixelCNN, PixelCNNConfig

__all__ = ["Guided", "PixelCNN", "PixelCNNConfig"]
