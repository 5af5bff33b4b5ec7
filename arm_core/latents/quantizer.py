"""From logits to categories and back into the gradient, and how much of the categories is used (paper app. A.3)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor


def straight_through(logits: Float[Tensor, "*shape categories"]) -> Float[Tensor, "*shape categories"]:
    """The one-hot argmax of the softmax, with the gradient of the softmax (paper app. A.3).

    The value is exactly one-hot: what a decoder sees in training is what it sees when latents are decoded.
    """
    soft = logits.softmax(dim=-1)
    hard = F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(soft.dtype)
    return hard + (soft - soft.detach())  # the bracket is exactly 0 and carries the gradient


class CodebookUsage(NamedTuple):
    """How many of the categories a set of latents makes use of.

    Attributes:
        used_fraction: share of the (channel, category) pairs that occur at all.
        perplexity: exp of the entropy of the categories of a channel, mean over the channels; at most `categories`.
    """

    used_fraction: float
    perplexity: float


def codebook_usage(latents: Integer[Tensor, "count channels height width"], categories: int) -> CodebookUsage:
    """Usage of the categories over at least one image's latents, each channel with a codebook of its own."""
    channels = latents.shape[1]
    codes = latents.long().transpose(0, 1).reshape(channels, -1)
    counts = torch.stack([torch.bincount(code, minlength=categories) for code in codes]).double()
    share = counts / counts.sum(dim=1, keepdim=True)
    entropy = -torch.xlogy(share, share).sum(dim=1)
    return CodebookUsage((counts > 0).double().mean().item(), entropy.exp().mean().item())
