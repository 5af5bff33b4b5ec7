"""Discrete latents of images: an autoencoder whose codes an ARM can model (paper app. A.3)."""

from arm_core.latents.autoencoder import AutoencoderConfig, DiscreteAutoencoder
from arm_core.latents.quantizer import CodebookUsage, codebook_usage, straight_through

__all__ = ["AutoencoderConfig", "CodebookUsage", "DiscreteAutoencoder", "codebook_usage", "straight_through"]
