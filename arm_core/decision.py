"""Deciding a row: logits -> processors -> / temperature -> + noise -> argmax, a pure function of that row alone.

So temperature, top-k, top-p and min-p hold in every sampler, and all samplers agree. Noise belongs to a category, never
to a rank after a sort: what one row leaves out changes no other. This module knows no sampler.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from arm_core.errors import InputError, whole

Rows = Float[Tensor, "rows categories"]
RowFunction = Callable[[Rows], Rows]
Processor = RowFunction | Callable[[Any, Rows], Rows]
"""Rows of logits -> rows of logits, each a function of its row alone; -inf leaves a category out. One with two
arguments (`input_ids, scores`, as in `transformers`) is given no history and must not read any."""
Processors = Processor | Sequence[Any]
"""A processor, or a list of processors and of such lists."""


class Decided(NamedTuple):
    """Decided rows.

    Attributes:
        values: the category of each; the lowest one where several are best.
        scores: logits / temperature + noise, times the temperature.
        faults: 0, or what left nothing to choose from: 1 for the ARM itself, k + 1 for the k-th processor.
    """

    values: Int[Tensor, " rows"]
    scores: Rows
    faults: Int8[Tensor, " rows"]


class Decision:
    """How rows are decided.

    Args:
        logits_processor: a callable on rows, or a list of them, applied in turn.
        temperature: at least 0; 0 takes the most likely category.

    Raises:
        InputError: a processor is not callable on rows, or the temperature is no finite number of at least 0.
    """

    def __init__(self, logits_processor: Processors | None = None, temperature: float | int = 1.0) -> None:
        if not (math.isfinite(temperature) and temperature >= 0):
            raise InputError(f"temperature must be a finite number of at least 0, got {temperature}")
        self.processors = row_functions(logits_processor)
        self.recordable = all(getattr(processor, "recordable", False) for processor in self.processors)
        self.temperature = temperature

    def __call__(self, logits: Rows, noise: Rows) -> Decided:
        """Decide rows; `noise` is overwritten."""
        emptied = None
        if self.processors:
            logits, emptied = self._processed(logits)
        if self.temperature != 1:
            noise = noise.mul_(self.temperature)  # argmax(logits / T + noise) = argmax(logits + T noise)
        scores = noise.add_(logits) if noise.dtype == logits.dtype else noise + logits
        best, values = scores.max(dim=-1)
        faults = (best > -torch.inf).logical_not_().to(torch.int8)
        return Decided(values, scores, faults if emptied is None else torch.where(emptied > 0, emptied, faults))

    def _processed(self, logits: Rows) -> tuple[Rows, Int8[Tensor, " rows"]]:
        """Processed rows, and which processor emptied each, if one did."""
        emptied = torch.zeros(len(logits), dtype=torch.int8, device=logits.device)
        logits = logits.clone()  # a processor may write into what it is given
        for number, processor in enumerate(self.processors, start=1):
            logits = processed(processor, logits)
            emptied = torch.where((emptied == 0) & (logits.amax(dim=-1) == -torch.inf), 1 + number, emptied)
        return logits, emptied

    def error(self, fault: int, dim: int) -> InputError:
        """What to raise for a fault at a dimension."""
        if fault == 1:
            return InputError(f"the ARM's logits of dimension {dim} are NaN, or -inf for every category")
        return InputError(
            f"the logits processor {name_of(self.processors[fault - 2])} leaves no category of dimension {dim}; "
            "it must keep one at least, or should not be used with this ARM"
        )


def row_functions(given: Processors | None) -> list[RowFunction]:
    """Processors as functions of rows, in their order; nested lists are taken apart."""
    if given is None:
        return []
    if isinstance(given, list | tuple):
        return [function for processor in given for function in row_functions(processor)]
    if not callable(given):
        raise InputError(f"a logits processor must be a callable on rows (rows, categories), got {given!r}")
    required = [
        parameter
        for parameter in inspect.signature(given).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
    ]
    return [_WithoutHistory(given) if len(required) == 2 else given]  # type: ignore[arg-type, list-item]


def processed(processor: RowFunction, logits: Rows) -> Rows:
    """What a processor makes of rows, checked to be rows of the same shape."""
    result = processor(logits)
    if not isinstance(result, Tensor) or result.shape != logits.shape or not result.is_floating_point():
        got = f"{result.dtype} {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        raise InputError(
            f"the logits processor {name_of(processor)} must return floats of shape {tuple(logits.shape)}, got {got}"
        )
    return result.to(logits.dtype)


def name_of(processor: Any) -> str:
    """As an error calls it."""
    return getattr(processor, "__name__", None) or type(processor).__name__


class _History:
    """Stands for the tokens so far, which rows do not have: whatever reads it is told so."""

    def __init__(self, reader: str) -> None:
        self.__dict__["reader"] = reader

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise InputError(
            f"the logits processor {self.__dict__['reader']} reads the tokens so far; a row must be decided by its "
            "logits alone, so only processors without history can be used"
        )

    __getattr__ = __getitem__ = __iter__ = __len__ = __eq__ = __bool__ = _refuse
    __hash__ = None  # type: ignore[assignment]


class _WithoutHistory:
    """A processor of `(input_ids, scores)` that reads its scores only."""

    def __init__(self, processor: Callable[[Any, Rows], Rows]) -> None:
        self.processor, self.__name__ = processor, name_of(processor)

    def __call__(self, logits: Rows) -> Rows:
        try:
            return self.processor(_History(self.__name__), logits)
        except TypeError as error:
            raise InputError(
                f"the logits processor {self.__name__} cannot be used without the tokens so far ({error})"
            ) from error


def _named(processor: RowFunction, name: str) -> RowFunction:
    processor.__name__ = name
    processor.recordable = True  # type: ignore[attr-defined]
    return processor


def top_k(k: int) -> RowFunction:
    """Keep the `k` most likely categories of each row, and all that are as likely as the last of them."""
    k = whole("top_k", k, 1)

    def top_k_of(logits: Rows) -> Rows:
        if k >= logits.shape[-1]:
            return logits
        least = logits.topk(k, dim=-1).values[:, -1:]
        return logits.masked_fill(logits < least, -torch.inf)

    return _named(top_k_of, f"top_k({k})")


def top_p(p: float | int) -> RowFunction:
    """Keep the fewest most likely categories of each row whose probability is at least `p` together.

    All that are as likely as the last of them are kept too, so that the order of equals plays no part.
    """
    if not 0 < p <= 1:
        raise InputError(f"top_p must be in (0, 1], got {p}")

    def top_p_of(logits: Rows) -> Rows:
        if p == 1:
            return logits
        ordered = logits.sort(dim=-1, descending=True).values
        probability = ordered.softmax(dim=-1)
        before = probability.cumsum(dim=-1) - probability
        last = (before < p).sum(dim=-1, keepdim=True).sub_(1).clamp_min_(0)
        return logits.masked_fill(logits < ordered.gather(-1, last), -torch.inf)

    return _named(top_p_of, f"top_p({p})")


def min_p(p: float | int) -> RowFunction:
    """Keep the categories of each row that are at least `p` times as likely as its most likely one."""
    if not 0 <= p <= 1:
        raise InputError(f"min_p must be in [0, 1], got {p}")
    margin = math.log(p) if p > 0 else -math.inf

    def min_p_of(logits: Rows) -> Rows:
        return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + margin, -torch.inf)

    return _named(min_p_of, f"min_p({p})")
