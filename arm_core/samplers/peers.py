"""Samplers that others have published, to measure ours beside them: the same noise, and the same samples.

All solve x = argmax(logits(x) + noise), whose solution is unique, since row i of the logits reads x_<i only. None of
them knows a frontier, and all let a batch go on until its slowest sample is done.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from arm_core.contracts import AutoregressiveModel, SampleTrace
from arm_core.errors import InputError
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import check_noise, span_cache

Noise = Float[Tensor, "batch dims categories"]


def jacobi_sample(arm: AutoregressiveModel, noise: Noise) -> SampleTrace:
    """Evaluate the whole batch anew until nothing in it changes, from zeros.

    The Jacobi iteration of Song et al. ("Accelerating Feedforward Computation via Parallel Nonlinear Equation
    Solving", ICML 2021), and how flax's PixelCNN++ example sampled (examples/pixelcnn, until 2022).

    Args:
        arm: any ARM.
        noise: standard Gumbel noise in the ARM's dtype and on its device, see `sample_noise`.

    Returns:
        The samples of `ancestral_sample`. Calls are counted until the one that confirms a sample, and nothing is
        forecast, so there are no mistakes.

    Raises:
        InputError: the noise does not fit the ARM, or autocast is on.
    """
    return gs_jacobi_sample(arm, noise, block=arm.layout.dims)


def gs_jacobi_sample(arm: AutoregressiveModel, noise: Noise, *, block: int) -> SampleTrace:
    """Blocks of dims one after the other, each iterated until nothing changes in it (Song et al., GS-Jacobi).

    The blocks before are cached, so that an iteration costs a block and not an image.

    Args:
        arm: any ARM.
        noise: as for `jacobi_sample`.
        block: dims, rounded up to the ARM's granule; `layout.dims`, the whole image, is Jacobi iteration.

    Returns, Raises: as `jacobi_sample`; the block must be at least 1, and the ARM have spans if it is not the image.
    """
    work = _Work(arm, noise, block)
    with sampling_mode(arm):
        for start in range(0, work.dims, work.block):
            part = slice(start, min(start + work.block, work.dims))
            waiting, is_new = work.everyone, True
            while bool(waiting.any()):
                waiting, is_new = work.keep(work.evaluate(part, waiting), part, is_new=is_new), False
    return work.trace()


def jacobi_gs_sample(arm: AutoregressiveModel, noise: Noise, *, block: int) -> SampleTrace:
    """All blocks of dims at once, a dim of each a call, until a whole sweep changes nothing (Song et al., Jacobi-GS).

    A call evaluates whole images. The authors cache a network that updates one column of all rows; with such a cache
    a sweep of `block` calls costs about one full pass, so the work here, over `block`, is a lower bound for theirs.

    Args:
        arm: any ARM.
        noise: as for `jacobi_sample`.
        block: dims.

    Returns, Raises: as `jacobi_sample`; the block must be at least 1.
    """
    work = _Work(arm, noise, arm.layout.dims)
    sweep = range(min(_checked(block), work.dims))
    whole, waiting, is_new = slice(0, work.dims), work.everyone, True
    with sampling_mode(arm):
        while bool(waiting.any()):
            moved = ~work.everyone
            for place in sweep:
                moved |= work.keep(work.evaluate(whole, waiting), slice(place, None, block), is_new=is_new)
            waiting, is_new = moved, False
    return work.trace()


def cached_sequential_sample(arm: AutoregressiveModel, noise: Noise) -> SampleTrace:
    """One dimension after the other, on top of cached activations: each call evaluates one granule of every sample.

    Ramachandran et al., "Fast Generation for Convolutional Autoregressive Models" (2017): about one full pass in all,
    and as many calls as ancestral sampling.

    Returns, Raises: as `jacobi_sample`; the ARM must have spans.
    """
    work = _Work(arm, noise, 1)
    with sampling_mode(arm):
        for i in range(work.dims):
            start = i - i % work.block
            said = work.evaluate(slice(start, start + work.block), work.everyone)
            work.keep(said, slice(i, i + 1), is_new=True)
    return work.trace()


def _checked(block: int) -> int:
    if block < 1:
        raise InputError(f"block must be at least 1 dim, got {block}")
    return block


class _Work:
    """A batch on its way, and what it has cost.

    Args:
        arm: any ARM.
        noise: of the batch.
        block: dims that a call evaluates; less than the image only if the ARM has spans.
    """

    def __init__(self, arm: AutoregressiveModel, noise: Noise, block: int) -> None:
        check_noise(arm, noise)
        batch, self.dims, _ = noise.shape
        self.noise = noise.flatten(0, 1)
        self.cache = span_cache(arm, batch, _checked(block))
        self.block = self.cache.window
        self.x = torch.zeros(batch, self.dims, dtype=torch.int64, device=noise.device)
        self.settled_at = self.x.clone()
        self.arm_calls = torch.zeros(batch, dtype=torch.int64, device=noise.device)
        self.arm_work = torch.zeros(batch, dtype=torch.float64, device=noise.device)
        self.everyone = torch.ones_like(self.arm_calls, dtype=torch.bool)

    def evaluate(self, part: slice, waiting: Bool[Tensor, " batch"]) -> Int[Tensor, "batch dims"]:
        """argmax(logits + noise) of a part of every sample, at the cost of those that still wait; 0 elsewhere."""
        start, stop = (torch.full_like(self.arm_calls, at) for at in (part.start, part.stop))
        where, logits, _, work = self.cache.evaluate(self.x, start, stop)
        outputs = self.x.new_zeros(len(self.x) + 1, self.dims)  # one more, for what only fills up a shape
        outputs.view(-1)[where] = (logits + self.noise[where.clamp_max(len(self.noise) - 1)]).argmax(dim=-1)
        self.arm_calls += waiting
        self.arm_work += torch.where(waiting, work / waiting.sum(), 0.0)
        return outputs[:-1]

    def keep(self, said: Int[Tensor, "batch dims"], part: slice, *, is_new: bool) -> Bool[Tensor, " batch"]:
        """Take a part of the outputs; returns which samples it changed."""
        moved = said[:, part] != self.x[:, part]
        self.settled_at[:, part] = torch.where(moved | is_new, self.arm_calls[:, None], self.settled_at[:, part])
        self.x[:, part] = said[:, part]
        return moved.any(dim=1)

    def trace(self) -> SampleTrace:
        """Once all are done."""
        return SampleTrace(
            x=self.x,
            arm_calls=self.arm_calls,
            arm_work=self.arm_work,
            converged_at=self.settled_at.cummax(dim=1).values,
            settled_at=self.settled_at,
            mistakes=torch.zeros_like(self.x, dtype=torch.bool),
            window=torch.full_like(self.arm_calls, self.block),
        )
