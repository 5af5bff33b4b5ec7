"""A search over settings: its space, and the trials that it consists of.

Trials are drawn when the file is read, from the seed of the search: the same file means the same trials, and a search
resumes like any other sweep. ASHA then stops the worse ones early (see `harness.execution.ray`).
"""

import itertools
import math
import random
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_TRIALS = 10_000
"""All trials are planned before the first one starts."""

Positive = Annotated[float, Field(gt=0)]


class Range(BaseModel):
    """Real numbers between two ends, uniform in their logarithm (`log`) or in themselves (`uniform`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    log: tuple[Positive, Positive] | None = None
    uniform: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "Range":
        if (self.log is None) == (self.uniform is None):
            raise ValueError("must have one of log and uniform")
        low, high = self.log or self.uniform or (0.0, 0.0)
        if not low < high:
            raise ValueError(f"must go from a smaller to a larger number, got {low} and {high}")
        return self

    def draw(self, generator: random.Random) -> float:
        """A number of the range."""
        if self.log is not None:
            return math.exp(generator.uniform(*map(math.log, self.log)))
        assert self.uniform is not None
        return generator.uniform(*self.uniform)


class SearchSpec(BaseModel):
    """What to search and how.

    Attributes:
        method: every combination, random draws, or random draws of which ASHA stops the worse ones early.
        count: trials of random and asha, all different, so at most as many as the space has; a grid has one for each
            combination.
        seed: of the draws.
        grace: asha: iterations before a trial may be stopped.
        factor: asha: one in `factor` goes on at each rung.
        space: `arm.KEY`, `forecasting.KEY` or `training.KEY` -> a list of values, or a range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    method: Literal["grid", "random", "asha"] = "asha"
    count: Annotated[int, Field(ge=1, le=MOST_TRIALS, strict=True)] = 16
    seed: Annotated[int, Field(strict=True)] = 0
    grace: Annotated[int, Field(ge=1, strict=True)] = 1000
    factor: Annotated[int, Field(ge=2, strict=True)] = 4
    space: Annotated[dict[str, Range | list[Any]], Field(min_length=1)]

    @model_validator(mode="after")
    def _keys_and_lists(self) -> "SearchSpec":
        for key, values in self.space.items():
            part, dot, name = key.partition(".")
            if part not in ("arm", "forecasting", "training") or not dot or not name:
                raise ValueError(f"space: keys must be arm.KEY, forecasting.KEY or training.KEY, got {key!r}")
            if isinstance(values, list) and not values:
                raise ValueError(f"space: {key} must have at least one value, got none")
            if self.method == "grid" and isinstance(values, Range):
                raise ValueError(f"space: a grid needs lists, {key} is a range; use method: random")
        many = math.prod(len(values) for values in self.space.values() if isinstance(values, list))
        if self.method == "grid" and many > MOST_TRIALS:
            raise ValueError(f"space: a grid must have at most {MOST_TRIALS} trials, got {many}; use method: random")
        return self

    def trials(self) -> list[dict[str, dict[str, Any]]]:
        """The settings of each trial: {"arm": {...}, "training": {...}, ...}."""
        if self.method == "grid":
            lists = [values for values in self.space.values() if isinstance(values, list)]
            return [_nested(dict(zip(self.space, chosen, strict=True))) for chosen in itertools.product(*lists)]
        generator, drawn = random.Random(self.seed), list[dict[str, dict[str, Any]]]()
        while len(drawn) < min(self.count, self.settings):
            if (trial := _drawn(self.space, generator)) not in drawn:  # equal settings would be one job
                drawn.append(trial)
        return drawn

    @property
    def settings(self) -> float:
        """How many different ones the space has; infinite with a range."""
        lists = [values if isinstance(values, list) else None for values in self.space.values()]
        return math.prod(
            math.inf if values is None else sum(value not in values[:place] for place, value in enumerate(values))
            for values in lists
        )


def _drawn(space: Mapping[str, Range | list[Any]], generator: random.Random) -> dict[str, dict[str, Any]]:
    flat = {key: v.draw(generator) if isinstance(v, Range) else generator.choice(v) for key, v in space.items()}
    return _nested(flat)


def _nested(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        part, _, name = key.partition(".")
        found.setdefault(part, {})[name] = value
    return found
