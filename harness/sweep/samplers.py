"""A sampler, described once: an entry of a sweep file, a setting of a timing job and a value of the column `sampler`.

An entry is read by `SamplerSpec` itself; `complete` fills in what the model decides, or refuses it;
`SamplerSpec.described` is what rows hold. `harness.report.naming` says what people call it.
"""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from arm_core.errors import InputError
from arm_core.registry import FORECASTERS
from harness.sweep.components import OptionError, make_config

WithoutForecasts = Literal["ancestral", "jacobi", "gs_jacobi", "jacobi_gs", "cached_sequential", "sjd", "scd", "pac"]
"""Ancestral sampling, and samplers of other papers (`arm_core.samplers`)."""
LEARNED = ("learned", "gated")
"""The forecasters that are made of a checkpoint's modules."""
BLOCKS = ("gs_jacobi", "jacobi_gs")
DRAFTED = ("sjd", "scd", "pac")
"""Samplers that accept drafts by the ratio of two probabilities."""
SPANNED = ("gs_jacobi", "cached_sequential", *DRAFTED)
"""Samplers of other papers that run on cached activations."""
DECISION = ("temperature", "top_k", "top_p", "min_p", "guidance", "context")
"""The settings that change samples; all others change only what they cost."""
Dims = Annotated[int, Field(ge=1)]


class SamplerSpec(BaseModel):
    """A sampler: one without forecasts, or a forecaster and how it is used. In a file its name alone will do.

    Attributes:
        sampler: ancestral, or a sampler of another paper; None: that of a forecaster.
        forecaster: its name or reference.
        block: dims of a block, of `gs_jacobi` and `jacobi_gs`; None: a row of the image.
        window: dims that a call evaluates of a sample on top of cached ones; `auto`, for streams: chosen by measuring;
            `row`: as many as a row of the image has; `image`: all of them, finished samples dropped; None: whole
            images, and a batch waits for its slowest. Of `sjd`, `scd` and `pac` dims, or a row.
        stream: samples go through slots, a finished one is replaced; timed at the numbers of `slots`.
        horizon: of `learned` and `gated`: how many modules; `auto` measures it on held-out noise; None uses all.
        resampled: fresh noise at every call (exact in law only), an ablation.
        coupling: of `scd`: how the drafts of two calls are drawn together; None: gumbel.
        first: of `sjd`, `scd` and `pac`: drafts of dims that no call has seen; None: uniform draws.
        options: of a forecaster of one's own; of `gated` its `gate`.
        temperature: that logits are divided by; 0: the likeliest category.
        top_k, top_p, min_p: leave out unlikely categories of each row (`arm_core.top_k` and its like).
        guidance: scale of classifier-free guidance (`arm_core.arms.Guided`), with a `context`.
        context: a class label, of all samples.
        certified: every sample is proved in float64 (`arm_core.samplers.certified`).
        draft_dtype: of the ARM that draws what is proved; None: that of the job.
        native: its spans use kernels in C++ that are compiled on the machine (`arm_core.native`); CPUs only.
        variants: of a sweep that it is for; None: all. A job's sampler has none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    sampler: WithoutForecasts | None = None
    forecaster: str | None = None
    block: Dims | None = None
    window: Dims | Literal["auto", "row", "image"] | None = None
    stream: bool = False
    horizon: Dims | Literal["auto"] | None = None
    resampled: bool = False
    coupling: Literal["gumbel", "maximal"] | None = None
    first: Literal["row_above"] | None = None
    options: dict[str, Any] = {}
    temperature: Annotated[float, Field(ge=0)] = 1.0
    top_k: Dims | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    guidance: float | None = None
    context: Annotated[int, Field(ge=0)] | None = None
    certified: bool = False
    draft_dtype: Literal["float32", "bfloat16"] | None = None
    native: bool = False
    variants: Annotated[list[str], Field(min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        return {"sampler" if given in get_args(WithoutForecasts) else "forecaster": given}

    def described(self) -> str:
        """JSON of every setting that is not at its default: what rows hold and reports read."""
        return json.dumps(self.model_dump(exclude_defaults=True), sort_keys=True)

    @property
    def decision(self) -> dict[str, Any]:
        """The settings that decide which samples are drawn; samplers that agree in them draw the same ones."""
        return self.model_dump(include=set(DECISION), exclude_defaults=True)

    @property
    def in_law(self) -> bool:
        """Whether its samples have the ARM's distribution and are those of no noise: there is nothing to equal."""
        return self.resampled or self.sampler in DRAFTED

    @property
    def needs_spans(self) -> bool:
        """Whether it can only run on an ARM that evaluates spans on top of cached activations."""
        return self.sampler in SPANNED or isinstance(self.window, int) or self.window == "row"


def complete(given: SamplerSpec, *, horizon: int | None, remedy: str) -> SamplerSpec:
    """An entry as it is for one model.

    Args:
        given: as the file has it.
        horizon: of the model's forecasting modules; None: it has none.
        remedy: what to do where an entry needs modules and there are none.

    Raises:
        InputError: settings that do not go together, or that the model cannot serve; an OptionError names the setting.
    """
    given = given.model_copy(update={"variants": None})
    for key, why in _misfits(given):
        raise OptionError(why, key)
    if given.forecaster is None:
        return given
    forecaster = FORECASTERS.resolve(given.forecaster)
    if given.forecaster not in LEARNED:
        make_config(forecaster, given.options)
        return given
    if horizon is None:
        raise InputError(f"{given.forecaster} needs {remedy}")
    if isinstance(given.horizon, int) and given.horizon > horizon:
        raise InputError(f"horizon must be in [1, {horizon}], the horizon of training, got {given.horizon}")
    return given.model_copy(update={"horizon": given.horizon or horizon})


def _misfits(given: SamplerSpec) -> Iterator[tuple[str, str]]:
    """(setting, why) of settings that do not go together."""
    if given.guidance is not None and given.context is None:
        yield "guidance", "needs a `context:` to guide to; add a class label"
    if given.draft_dtype is not None and not given.certified:
        yield "draft_dtype", "needs a proof; add `certified: true`"
    if given.native and given.draft_dtype == "bfloat16":
        yield "native", "is for float32 and float64; leave it out, or draft_dtype"
    if given.forecaster is None:
        if given.sampler is None:
            yield "", "needs a `forecaster:`, or a `sampler:`"
        taken = ["sampler", *(["block"] if given.sampler in BLOCKS else []), *DECISION]
        if given.sampler in DRAFTED:
            taken[1:1] = ["window", "stream", "first", *(["coupling"] if given.sampler == "scd" else [])]
            if given.window in ("auto", "image"):
                yield "window", f"{given.sampler} takes dims or row, got {given.window}"
        elif given.sampler != "ancestral":
            taken += ["certified", "draft_dtype"]
        if given.sampler in SPANNED:
            taken.append("native")
        for name in sorted(given.model_fields_set - {*taken, "variants"}):
            yield name, f"{given.sampler} takes {', '.join(taken)} only; leave it out"
        return
    if given.sampler is not None or given.forecaster in get_args(WithoutForecasts):
        yield "", "ancestral and the samplers of other papers take no forecaster; write just the sampler"
    for key, whose in {"block": BLOCKS, "coupling": ("scd",), "first": DRAFTED}.items():
        if getattr(given, key) is not None:
            yield key, f"is for {' and '.join(whose)}; leave it out"
    if given.native and given.window in (None, "image"):
        yield "native", "is for windows; add a `window:`, or leave it out"
    if given.window == "auto" and not given.stream:
        yield "window", "auto is for streams; add `stream: true`, or give dims"
    if given.resampled and (given.stream or given.window is not None or given.certified):
        key = "stream" if given.stream else "window" if given.window is not None else "certified"
        yield key, "fresh noise at every call knows no windows, slots or proofs; leave it out"
    if given.forecaster in LEARNED:
        yield from _misfit_options(given)
    elif given.horizon is not None:
        yield "", f"horizon is for learned and gated only, not for {given.forecaster}; leave it out"


def _misfit_options(given: SamplerSpec) -> Iterator[tuple[str, str]]:
    """Of a forecaster that is made of modules."""
    for name, value in given.options.items():
        if given.forecaster != "gated" or name != "gate":
            valid = "only `gate`" if given.forecaster == "gated" else "none"
            yield f"options.{name}", f"{given.forecaster} takes {valid}; leave it out"
        if given.horizon == "auto":
            yield f"options.{name}", "horizon: auto measures the gate too; leave one of them out"
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            yield f"options.{name}", f"must be a number of at least 0, got {value!r}"
