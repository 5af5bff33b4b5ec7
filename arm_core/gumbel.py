"""Gumbel noise: keyed by (seed, sample id) and made where it is needed, or drawn from its posterior for given data.

The Gumbel-max reparametrisation writes a sample as x_i = argmax_c(mu_ic + eps_ic) with standard Gumbel eps drawn once;
with eps fixed, sampling is a deterministic function.
"""

import operator
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from arm_core.errors import InputError
from arm_core.layout import Layout
from arm_core.philox import BLOCK, philox_bits, signed

_KEY_LIMIT = 2**64
_CHUNK = 2**15
"""Values in work at a time: they stay in the cache of a core, and memory is what noise costs."""
_BELOW_ONE = 1 - 2.0**-53


@runtime_checkable
class NoiseSource(Protocol):
    """Standard Gumbel noise of some samples, by row.

    Attributes:
        dtype, device: of what `at` gives.
    """

    dtype: torch.dtype
    device: torch.device

    def __len__(self) -> int: ...

    def at(self, rows: Int[Tensor, " n"], dims: Int[Tensor, " n"]) -> Float[Tensor, "n categories"]:
        """A new tensor with the noise of one dimension of one sample in each of its rows."""
        ...


class DenseNoise:
    """A tensor as a `NoiseSource`."""

    def __init__(self, noise: Float[Tensor, "batch dims categories"]) -> None:
        self.noise, self.dtype, self.device, self.recordable = noise, noise.dtype, noise.device, True

    def __len__(self) -> int:
        return len(self.noise)

    def at(self, rows: Int[Tensor, " n"], dims: Int[Tensor, " n"]) -> Float[Tensor, "n categories"]:
        """See `NoiseSource`."""
        return self.noise.flatten(0, 1).index_select(0, rows * self.noise.shape[1] + dims)


class KeyedNoise:
    """The noise of `sample_noise`, evaluated where it is asked for: memory for what is asked and no more.

    Its bits are those of a counter-based generator (`arm_core.philox`), which can be entered anywhere. In float32 they
    are made on the device; in float64, and in 16 bits, on the CPU, since the logarithms of two devices can differ in
    the last bit of a float64 (which the rounding to float32 hides but for one value in some 10^9).

    Args:
        layout: shape and categories of the images.
        seed: in [0, 2^64).
        sample_ids: one id per row, each in [0, 2^64); a `range` of any length takes no memory.
        dtype: floating type of the noise.
        device: where the noise lives.

    Raises:
        InputError: a seed or id is no integer or out of range, or the dtype is no floating type.

    Example:
        >>> noise = KeyedNoise(Layout(1, 24, 24, 16384), seed=0, sample_ids=range(64))
        >>> noise.at(torch.tensor([0, 63]), torch.tensor([5, 575])).shape
        torch.Size([2, 16384])
    """

    def __init__(
        self,
        layout: Layout,
        *,
        seed: int,
        sample_ids: Sequence[int] | Tensor,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if not dtype.is_floating_point:
            raise InputError(f"noise dtype must be a floating type, got {dtype}")
        self.layout, self.seed, self.dtype = layout, _key("seed", seed), dtype
        self.device = torch.empty(0, device=device).device  # "cuda" is "cuda:0" to tensors
        self.recordable = self.device.type != "cpu" and dtype == torch.float32
        ends = {sample_ids[0], sample_ids[-1]} if isinstance(sample_ids, range) and sample_ids else sample_ids
        ends = ends.tolist() if isinstance(ends, Tensor | np.ndarray) else ends
        if not isinstance(ends, Iterable):
            raise InputError(f"sample_ids must be one id per row, got {sample_ids!r}; of one row it is [{ends}]")
        checked = [_key("sample id", sample_id) for sample_id in ends]
        self._ids: Sequence[int] = sample_ids if isinstance(sample_ids, range) else checked

    def __len__(self) -> int:
        return len(self._ids)

    @cached_property
    def _device_ids(self) -> Int[Tensor, " rows"]:
        return torch.tensor([signed(key) for key in self._ids], dtype=torch.int64, device=self.device)

    def at(self, rows: Int[Tensor, " n"], dims: Int[Tensor, " n"]) -> Float[Tensor, "n categories"]:
        """Equal to `sample_noise(...)[rows, dims]`, bit for bit."""
        if self.recordable:
            return self._on_device(rows, dims)
        noise = torch.empty(len(dims), self.layout.categories, dtype=self.dtype)
        asked, places = rows.cpu().numpy(), dims.cpu().numpy()
        for name, index, size in (("rows", asked, len(self)), ("dims", places, self.layout.dims)):
            if len(index) and not 0 <= index.min() <= index.max() < size:
                raise InputError(f"{name} must be in [0, {size - 1}], got {index.min()} to {index.max()}")
        is_first = np.ones(len(places), dtype=bool)  # of a run: consecutive dims of one sample are one stretch of bits
        is_first[1:] = (np.diff(asked) != 0) | (np.diff(places) != 1)
        first = is_first.nonzero()[0]
        for begin, end in zip(first, np.append(first[1:], len(places)), strict=False):
            self._fill(noise[begin:end].view(-1), self._ids[int(asked[begin])], int(places[begin]))
        return noise.to(self.device)

    def to(self, dtype: torch.dtype) -> "KeyedNoise":
        """The noise of the same bits in another dtype: not rounded from this one, but made in that."""
        return KeyedNoise(self.layout, seed=self.seed, sample_ids=self._ids, dtype=dtype, device=self.device)

    def dense(self, rows: Sequence[int] | None = None) -> Float[Tensor, "rows dims categories"]:
        """The whole noise of some rows (None: of all)."""
        ids = self._ids if rows is None else [self._ids[row] for row in rows]
        noise = torch.empty(len(ids), self.layout.dims, self.layout.categories, dtype=self.dtype)
        for row, sample_id in zip(noise, ids, strict=True):
            self._fill(row.view(-1), sample_id, 0)
        return noise.to(self.device)

    def _fill(self, out: Tensor, sample_id: int, first_dim: int) -> None:
        """Noise of one sample from a dimension on, made by NumPy a chunk at a time."""
        first = first_dim * self.layout.categories
        bits = np.random.Philox(key=np.array([self.seed, sample_id], np.uint64), counter=first // BLOCK)
        bits.random_raw(first % BLOCK)
        work = np.empty(min(_CHUNK, out.shape[0]))
        for begin in range(0, out.shape[0], _CHUNK):
            part = out[begin : begin + _CHUNK]
            values = work[: part.shape[0]]
            values[:] = (bits.random_raw(part.shape[0]) >> np.uint64(11)).view(np.int64)  # 53 bits
            values += 0.5
            values *= 2.0**-53
            np.minimum(values, _BELOW_ONE, out=values)  # the largest of 2^53 values rounds up to 1
            for _ in range(2):
                np.log(values, out=values)
                np.negative(values, out=values)
            part.copy_(torch.from_numpy(values))

    def _on_device(self, rows: Tensor, dims: Tensor) -> Tensor:
        if isinstance(self._ids, range):
            ids = rows * self._ids.step + signed(self._ids.start)  # wraps as unsigned integers do
        else:
            ids = self._device_ids[rows]
        bits = philox_bits(self.seed, ids, dims * self.layout.categories, self.layout.categories)
        uniform = ((bits >> 11) & (2**53 - 1)).double().add_(0.5).mul_(2.0**-53).clamp_max_(_BELOW_ONE)
        return uniform.log_().neg_().log_().neg_().to(self.dtype)


def _key(name: str, value: Any) -> int:
    try:
        key = operator.index(value if not isinstance(value, bool) else None)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"{name} must be an integer in [0, 2^64), got {value!r}") from None
    if not 0 <= key < _KEY_LIMIT:
        raise InputError(f"{name} must be in [0, 2^64), got {key}")
    return key


def sample_noise(
    layout: Layout,
    *,
    seed: int,
    sample_ids: Sequence[int] | Tensor,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "batch dims categories"]:
    """Standard Gumbel noise keyed by (seed, sample id), as a whole tensor; `KeyedNoise` is the same in parts.

    Row k depends only on (seed, sample_ids[k]). The bits are counter-based (Philox) and turned into noise on the CPU in
    float64, then cast and moved: device, dtype, batch, slot and shard never change a draw.

    Args, Raises: as `KeyedNoise`; repeated ids repeat their noise.
    """
    return KeyedNoise(layout, seed=seed, sample_ids=sample_ids, dtype=dtype, device=device).dense()


def standard_gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise of the shape, dtype and device of `like`, drawn from `generator`."""
    exponential = torch.empty_like(like).exponential_(generator=generator)
    return -exponential.clamp_min(torch.finfo(like.dtype).tiny).log()


def posterior_gumbel(
    logits: Float[Tensor, "*shape categories"], x: Int[Tensor, "*shape"], *, generator: torch.Generator
) -> Float[Tensor, "*shape categories"]:
    """Noise from p(eps | x): standard Gumbel noise given that argmax(logits + eps) is x (paper app. B).

    The maximum of logits + eps is Gumbel at logsumexp(logits) and independent of where it lies; the other entries are
    Gumbels truncated at it. In the stable form, with l = log_softmax(logits) and m, G_c standard Gumbel:
    eps_x = m - l_x and eps_c = -logaddexp(l_c - m, -G_c).

    Args:
        logits: the ARM's logits, any scale; -inf marks impossible categories.
        x: the observed categories.
        generator: on the device of `logits`.

    Returns:
        Noise of the dtype of `logits`, with argmax(logits + noise) == x at every position.

    Raises:
        InputError: some x has logit -inf, so that nothing could have produced it.

    Note:
        The paper's Eq. (3) makes eps_x standard Gumbel. That is not the posterior: for p = (.7, .2, .1) the marginal
        means become (0.00, 0.09, 0.21) where standard Gumbel has 0.577. Here each marginal is standard Gumbel when
        x ~ softmax(logits).
    """
    index = x.unsqueeze(-1)
    log_p = logits.log_softmax(dim=-1)
    log_p_x = log_p.gather(-1, index)
    if not torch.isfinite(log_p_x).all():
        raise InputError("posterior_gumbel: some x has probability 0 under the logits, so no noise leads to it")
    maximum = standard_gumbel(log_p_x, generator)
    noise = -torch.logaddexp(log_p - maximum, -standard_gumbel(log_p, generator))
    noise = noise.scatter(-1, index, maximum - log_p_x)
    return _lower_ties(logits, noise, index)


def _lower_ties(logits: Tensor, noise: Tensor, index: Tensor) -> Tensor:
    """Rounding can lift another entry to the maximum: lower it by as little as makes argmax unique."""
    minus_infinity = torch.full_like(logits, -torch.inf)
    while True:
        total = logits + noise
        peak = total.gather(-1, index)
        tied = (total >= peak).scatter(-1, index, False)
        if not tied.any():
            return noise
        below = torch.nextafter(peak, minus_infinity[..., :1]) - logits
        noise = torch.where(tied, torch.minimum(torch.nextafter(noise, minus_infinity), below), noise)
