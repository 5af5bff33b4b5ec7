"""PixelCNN: its layers, the network of whole images, and spans of cells on top of kept activations."""

from arm_core.arms.pixelcnn.layers import PixelCNNConfig
from arm_core.arms.pixelcnn.network import PixelCNN

__all__ = ["PixelCNN", "PixelCNNConfig"]
