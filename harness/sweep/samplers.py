"""An entry under `timing: samplers:` as the sampler that is timed, or as an error with its line and the remedy."""

from typing import Literal, get_args

from arm_core.registry import FORECASTERS
from harness.sweep.components import make_config
from harness.sweep.jobs import SamplerSpec, TrainJob
from harness.sweep.spec import Peer, SamplerEntry, Sweep

LEARNED = ("learned", "gated")
"""The forecasters that are made of a checkpoint's modules."""


def sampler_spec(sweep: Sweep, index: int, entry: str | SamplerEntry, train: TrainJob, variant: str) -> SamplerSpec:
    place = ("timing", "samplers", index)
    if entry == "ancestral":
        return SamplerSpec(sampler="ancestral")
    given = entry if isinstance(entry, SamplerEntry) else _named(entry)
    if given.forecaster == "ancestral":
        raise sweep.error(place, "ancestral sampling takes no forecaster or horizon; write just `ancestral`")
    if given.peer is not None:
        return _peer(sweep, place, given)
    if given.forecaster is None:
        raise sweep.error(place, "needs a `forecaster:`, or a `peer:`")
    _check_window(sweep, place, given)
    forecaster_name = given.forecaster
    forecaster = sweep.checked(place, lambda: FORECASTERS.resolve(forecaster_name))
    horizon = given.horizon
    if given.forecaster in LEARNED:
        if train.forecasting is None:
            raise sweep.error(
                place, f"{given.forecaster} needs `forecasting:` in the variant {variant!r}; add it there"
            )
        _check_gate(sweep, place, given)
        horizon = horizon or train.forecasting["horizon"]
        if isinstance(horizon, int) and horizon > train.forecasting["horizon"]:
            most = train.forecasting["horizon"]
            raise sweep.error(place, f"horizon must be in [1, {most}], the horizon of training, got {horizon}")
    elif horizon is not None:
        raise sweep.error(place, f"horizon is for learned and gated only, not for {given.forecaster}; leave it out")
    else:
        sweep.checked(place, lambda: make_config(forecaster, given.options))
    kind: Literal["predictive", "resampled"] = "resampled" if given.resampled else "predictive"
    return SamplerSpec(
        sampler=kind,
        forecaster=given.forecaster,
        window=given.window,
        stream=given.stream,
        horizon=horizon,
        options=given.options,
    )


def _named(name: str) -> SamplerEntry:
    return SamplerEntry(peer=name) if name in get_args(Peer) else SamplerEntry(forecaster=name)  # type: ignore[arg-type]


def _peer(sweep: Sweep, place: tuple[str | int, ...], given: SamplerEntry) -> SamplerSpec:
    taken = {"peer", "block"} if given.peer in ("gs_jacobi", "jacobi_gs") else {"peer"}
    for name in sorted(given.model_fields_set - taken):
        raise sweep.error((*place, name), f"{given.peer} takes {' and '.join(sorted(taken))} only; leave it out")
    assert given.peer is not None
    return SamplerSpec(sampler=given.peer, block=given.block)


def _check_window(sweep: Sweep, place: tuple[str | int, ...], given: SamplerEntry) -> None:
    if given.block is not None:
        raise sweep.error((*place, "block"), "is for the peers gs_jacobi and jacobi_gs; a forecaster takes `window`")
    if given.window == "auto" and not given.stream:
        raise sweep.error((*place, "window"), "auto is for streams; add `stream: true`, or give dims")
    if given.resampled and (given.stream or given.window is not None):
        what = "stream" if given.stream else "window"
        raise sweep.error((*place, what), "fresh noise at every call knows no windows or slots; leave it out")


def _check_gate(sweep: Sweep, place: tuple[str | int, ...], given: SamplerEntry) -> None:
    for name, value in given.options.items():
        if given.forecaster != "gated" or name != "gate":
            valid = "only `gate`" if given.forecaster == "gated" else "none"
            raise sweep.error((*place, "options", name), f"{given.forecaster} takes {valid}; leave it out")
        if given.horizon == "auto":
            raise sweep.error((*place, "options", name), "horizon: auto measures the gate too; leave one of them out")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise sweep.error((*place, "options", name), f"must be a number of at least 0, got {value!r}")
