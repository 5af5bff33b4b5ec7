"""From a sampler's settings and a checkpoint to a function that draws samples."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from arm_core import (
    AutoregressiveModel,
    Checkpoint,
    Forecaster,
    InputError,
    KeyedNoise,
    Layout,
    SampleTrace,
    ancestral_sample,
    min_p,
    predictive_sample,
    resampled_sample,
    sample_many,
    sample_noise,
    scd_sample,
    sjd_sample,
    top_k,
    top_p,
)
from arm_core.arms import Guided
from arm_core.decision import Decision
from arm_core.forecasters import (
    ForecastingModules,
    GatedForecaster,
    LearnedForecaster,
    fixed_point,
    fixed_point_above,
    row_above,
)
from arm_core.horizon import GATES, choose_horizon
from arm_core.native import check_native, native_kernels
from arm_core.registry import FORECASTERS
from arm_core.samplers import (
    cached_sequential_sample,
    gs_jacobi_sample,
    jacobi_gs_sample,
    jacobi_sample,
    pac_sample,
)
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import noise_dtype
from harness.sweep.components import build
from harness.sweep.samplers import BLOCKS, DRAFTED, LEARNED, SamplerSpec

CHOICE_SEED, CHOICE_COUNT = 2**32, 32
"""Noise that chooses horizons: no timing uses this seed, they are below 2^32."""


@dataclass(frozen=True)
class Draw:
    """What a sampler is to draw: samples 0 .. count - 1 of a seed.

    Attributes:
        seed: of the noise.
        count: how many.
        width: how many at a time, the batch or the slots; a sampler of batches draws one, of this size.
        noise: of the first `width` samples.
        layout: of the samples.
    """

    seed: int
    count: int
    width: int
    noise: Tensor
    layout: Layout

    @classmethod
    def of(cls, arm: AutoregressiveModel, seed: int, width: int, count: int | None = None) -> "Draw":
        """A draw of `count` samples (None: of `width`), its noise in the ARM's dtype and on its device."""
        return cls(seed, width if count is None else count, width, cls.noise_of(arm, seed, range(width)), arm.layout)

    def of_proof(self, spec: SamplerSpec) -> Tensor | KeyedNoise:
        """The noise as a sampler of batches takes it: keyed if it is proved, since a proof makes it in float64."""
        if not spec.certified:
            return self.noise
        layout, noise = self.layout, self.noise
        return KeyedNoise(layout, seed=self.seed, sample_ids=range(self.width), dtype=noise.dtype, device=noise.device)

    @staticmethod
    def noise_of(arm: AutoregressiveModel, seed: int, ids: range) -> Tensor:
        """The noise of these samples, in the ARM's dtype and on its device."""
        weight = next(arm.parameters(), torch.empty(0))
        dtype = noise_dtype(weight.dtype)
        return sample_noise(arm.layout, seed=seed, sample_ids=ids, dtype=dtype, device=weight.device)


Sampler = Callable[[Draw], SampleTrace]


def make_sampler(spec: SamplerSpec, checkpoint: Checkpoint) -> Sampler:
    """The sampler that `spec` describes, on the checkpoint's ARM.

    Raises:
        InputError: the forecaster does not exist, or is `learned` and the checkpoint has no modules; or the ARM has no
            native kernels, or this machine cannot compile them.
    """
    sampler = _plain_sampler(spec, checkpoint)
    if not spec.native:
        return sampler
    check_native(checkpoint.arm)

    def with_kernels(draw: Draw) -> SampleTrace:
        with native_kernels():
            return sampler(draw)

    return with_kernels


def _plain_sampler(spec: SamplerSpec, checkpoint: Checkpoint) -> Sampler:
    arm = arm_of(spec, checkpoint)
    if spec.sampler in DRAFTED:
        return partial(_drafted, spec, arm)
    if spec.forecaster is None:
        without = _without_forecasts(spec, arm)
        return lambda draw: without(draw.of_proof(spec), **options_of(spec, arm, draw.width), **proof_of(spec))
    forecaster = make_forecaster(spec, checkpoint)
    if spec.resampled:
        return lambda draw: _with_fresh_noise(arm, draw.noise, forecaster, options_of(spec, arm, draw.width))
    window = _dims(spec, arm.layout)
    if not spec.stream:
        return lambda draw: predictive_sample(
            arm,
            draw.of_proof(spec),
            forecaster,
            window=window,
            **options_of(spec, arm, draw.width),
            **proof_of(spec),
        )
    window = arm.layout.dims if spec.window is None else window
    return lambda draw: sample_many(
        arm,
        count=draw.count,
        seed=draw.seed,
        slots=draw.width,
        forecaster=forecaster,
        window=window,
        **options_of(spec, arm, draw.count),
        **proof_of(spec),
    )


def arm_of(spec: SamplerSpec, checkpoint: Checkpoint) -> AutoregressiveModel:
    """The checkpoint's ARM, guided if the sampler is."""
    if spec.guidance is None:
        return checkpoint.arm
    return Guided(checkpoint.arm, scale=spec.guidance, null_context=-1)


def options_of(spec: SamplerSpec, arm: AutoregressiveModel, count: int) -> dict[str, Any]:
    """What decides the rows of `count` samples, as all samplers take it."""
    kinds = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
    processors = [make(spec.decision[name]) for name, make in kinds.items() if name in spec.decision]
    options: dict[str, Any] = {"temperature": spec.temperature, "logits_processor": processors or None}
    if spec.context is not None:
        device = next(arm.parameters(), torch.empty(0)).device
        options["context"] = torch.full((count,), spec.context, device=device)
    return options


def proof_of(spec: SamplerSpec) -> dict[str, Any]:
    """Whether samples are proved, as samplers take it."""
    if not spec.certified:
        return {}
    return {"certified": True, "draft_dtype": getattr(torch, spec.draft_dtype) if spec.draft_dtype else None}


def decided(spec: SamplerSpec, checkpoint: Checkpoint, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """One pass over sequences: (categories, scores) that the sampler would decide on in each dimension.

    The categories are x itself if, and only if, x is the ancestral sample under this noise.
    """
    arm = arm_of(spec, checkpoint)
    options = options_of(spec, arm, len(x))
    context = {"context": options["context"]} if "context" in options else {}
    with sampling_mode(arm):
        logits = arm(x, **context).logits
        found = Decision(options["logits_processor"], spec.temperature)(
            logits.flatten(0, 1), noise.flatten(0, 1).clone()
        )
    return found.values.view_as(x), found.scores.view_as(noise)


def _without_forecasts(spec: SamplerSpec, arm: AutoregressiveModel) -> Callable[..., SampleTrace]:
    block = spec.block or _row(arm.layout)
    return {
        "ancestral": partial(ancestral_sample, arm),
        "jacobi": partial(jacobi_sample, arm),
        "gs_jacobi": partial(gs_jacobi_sample, arm, block=block),
        "jacobi_gs": partial(jacobi_gs_sample, arm, block=block),
        "cached_sequential": partial(cached_sequential_sample, arm),
    }[spec.sampler or "ancestral"]


def _dims(spec: SamplerSpec, layout: Layout) -> int | None:
    """A window as samplers take it."""
    if isinstance(spec.window, str):
        return {"auto": None, "row": _row(layout), "image": layout.dims}[spec.window]
    return spec.window


def _row(layout: Layout) -> int:
    return layout.width * layout.channels


def as_run(spec: SamplerSpec, checkpoint: Checkpoint) -> SamplerSpec:
    """The sampler as it runs on this ARM: what was left to measuring or to the ARM is filled in.

    A horizon is measured, a block is a row, and a window of all dims, or one that was to be chosen on an ARM that has
    none, is the whole image.
    """
    arm, spec = checkpoint.arm, measured(spec, checkpoint)
    if spec.sampler in BLOCKS:
        return spec.model_copy(update={"block": spec.block or _row(arm.layout)})
    if spec.sampler in DRAFTED:
        return spec.model_copy(update={"window": spec.window or "row"})
    whole = spec.window == "auto" and arm.granule is None
    whole |= isinstance(spec.window, int) and spec.window >= arm.layout.dims
    if whole and spec.native:
        raise InputError(f"native is for windows of less than the {arm.layout.dims} dims of a sample; leave it out")
    if whole or (spec.stream and spec.window == "image"):
        return spec.model_copy(update={"window": None if spec.stream else "image"})
    return spec


def make_forecaster(spec: SamplerSpec, checkpoint: Checkpoint) -> Forecaster:
    """The forecaster of a predictive sampler; see `make_sampler`."""
    assert spec.forecaster is not None
    if spec.forecaster in LEARNED:
        modules, settled = _modules(checkpoint), measured(spec, checkpoint)
        assert not isinstance(settled.horizon, str)
        beyond = fixed_point if spec.window is None else fixed_point_above  # rows that no call has seen yet
        if spec.forecaster == "gated":
            gate = float(settled.options.get("gate", 1.0))
            return GatedForecaster(modules, horizon=settled.horizon, gate=gate, fallback=beyond)
        return LearnedForecaster(modules, horizon=settled.horizon, fallback=beyond)
    found = FORECASTERS.resolve(spec.forecaster)
    return build(found, checkpoint.arm.layout, spec.options) if isinstance(found, type) else found


def measured(spec: SamplerSpec, checkpoint: Checkpoint) -> SamplerSpec:
    """The same sampler; `horizon: auto` becomes the horizon (and gate) that needs the fewest calls."""
    if spec.horizon != "auto":
        return spec
    gated = spec.forecaster == "gated"
    gates = GATES if gated else ()
    settings = choose_horizon(
        checkpoint.arm, _modules(checkpoint), seed=CHOICE_SEED, sample_ids=range(CHOICE_COUNT), gates=gates
    )
    best = next(s for s in settings if s.horizon > 0 and (s.gate is not None) == gated)
    options = {"gate": best.gate} if gated else {}
    return spec.model_copy(update={"horizon": best.horizon, "options": options})


def _modules(checkpoint: Checkpoint) -> ForecastingModules:
    if checkpoint.modules is None:
        raise InputError("the checkpoint has no forecasting modules; use fixed_point, or train with `forecasting:`")
    return checkpoint.modules


def _with_fresh_noise(
    arm: AutoregressiveModel, noise: Tensor, forecaster: Forecaster, options: dict[str, Any]
) -> SampleTrace:
    """As many samples as there is noise for."""
    generator = _seeded_by(noise)
    return resampled_sample(arm, batch=len(noise), generator=generator, forecaster=forecaster, **options)


def _drafted(spec: SamplerSpec, arm: AutoregressiveModel, draw: Draw) -> SampleTrace:
    """SJD, SCD and PAC: a batch in lock-step, or samples through slots."""
    scd = partial(scd_sample, coupling=spec.coupling or "gumbel")
    samplers: dict[str | None, Callable[..., SampleTrace]] = {"sjd": sjd_sample, "scd": scd, "pac": pac_sample}
    sample = samplers[spec.sampler]
    batch = draw.count if spec.stream else draw.width
    return sample(
        arm,
        batch=batch,
        generator=_seeded_by(draw.noise),
        window=_dims(spec, arm.layout) or _row(arm.layout),
        slots=draw.width if spec.stream else None,
        first=row_above if spec.first else None,
        **options_of(spec, arm, batch),
    )


def _seeded_by(noise: Tensor) -> torch.Generator:
    """A generator that noise seeds: a seed of its own a repetition."""
    seed = int(noise.flatten()[:1].double().view(torch.int64)[0]) if noise.numel() else 0
    return torch.Generator(noise.device).manual_seed(seed)


def dims_per_call(trace: SampleTrace, *, mistaken: bool = False) -> list[int]:
    """Entry k: in how many calls, over all samples, k dims of a sample became final.

    Args:
        trace: of the samples.
        mistaken: count only the calls that a wrong forecast ended, which was that of the last of these dims.
    """
    calls = int(trace.arm_calls.max()) + 1 if len(trace.x) else 0
    counts = torch.zeros(len(trace.x), calls + 1, dtype=torch.int64)
    at = trace.converged_at.cpu()
    counts.scatter_add_(1, at, torch.ones_like(at))  # place 0: a prefix
    taken = torch.arange(1, calls + 1) <= trace.arm_calls.cpu()[:, None]
    if mistaken:
        taken &= torch.zeros_like(counts).scatter_add_(1, at, trace.mistakes.cpu().long())[:, 1:] > 0
    found: list[int] = torch.bincount(counts[:, 1:][taken]).tolist()
    return found
