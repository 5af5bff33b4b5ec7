"""Philox4x64-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011), entered at any value.

NumPy's generator, which has no such entrance for many keys at once, gives the same bits: block b of a stream is the
cipher of the counter b + 1 under the key (seed, sample id) and holds the values 4 b .. 4 b + 3. Here it stands in torch
operations, which run on any device. torch has no unsigned 64-bit product, so products are put together from halves.
"""

import torch
from jaxtyping import Int
from torch import Tensor

ROUNDS = 10
BLOCK = 4
"""Values of a block."""
_LOW = 0xFFFFFFFF


def signed(value: int) -> int:
    """The signed 64-bit integer with the bits of an unsigned one."""
    return value - (1 << 64) if value >> 63 else value


_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_STEPS = (signed(0x9E3779B97F4A7C15), signed(0xBB67AE8584CAA73B))  # of the two key words, from round to round


def philox_bits(seed: int, ids: Int[Tensor, " n"], first: Int[Tensor, " n"], count: int) -> Int[Tensor, "n count"]:
    """Values first .. first + count - 1 of the stream of each (seed, id), as signed 64-bit integers.

    Args:
        seed: in [0, 2^64).
        ids: the bits of unsigned 64-bit integers.
        first: not negative.
        count: of values, the same for all.
    """
    blocks = torch.arange((count + BLOCK - 2) // BLOCK + 1, device=ids.device)
    words = [first[:, None].div(BLOCK, rounding_mode="floor") + 1 + blocks]
    words += [torch.zeros_like(words[0]) for _ in range(3)]
    keys = [torch.full_like(words[0], signed(seed)), ids[:, None].expand_as(words[0])]
    for turn in range(ROUNDS):
        if turn > 0:
            keys = [key + step for key, step in zip(keys, _STEPS, strict=True)]
        (high, low), (other_high, other_low) = (
            _product(words[place], multiplier) for place, multiplier in zip((0, 2), _MULTIPLIERS, strict=True)
        )
        words = [other_high ^ words[1] ^ keys[0], other_low, high ^ words[3] ^ keys[1], low]
    values = torch.stack(words, dim=-1).flatten(1)
    return values.gather(1, first[:, None] % BLOCK + torch.arange(count, device=ids.device))


def _product(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """(high, low) 64 bits of an unsigned product."""
    low, high = word & _LOW, _shifted(word)
    by_low, by_high = multiplier & _LOW, multiplier >> 32
    first, second, third = low * by_low, high * by_low, low * by_high
    carried = _shifted(first) + (second & _LOW) + (third & _LOW)
    return high * by_high + _shifted(second) + _shifted(third) + _shifted(carried), word * signed(multiplier)


def _shifted(word: Tensor) -> Tensor:
    """The upper half of an unsigned 64-bit word."""
    return (word >> 32) & _LOW
