"""ARMs, a file or a package each."""

from arm_core.arms.pixelcnn import PixelCNN, PixelCNNConfig

__all__ = ["PixelCNN", "PixelCNNConfig"]
