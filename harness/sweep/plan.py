"""From a sweep to its jobs: what each one is, which are done already, and why the others are not.

A job's id is the hash of what its result depends on: data, model, training or timing settings, the source of plug-in
files, and the two numbers below. Commit and versions are recorded with the results, not hashed.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter

from arm_core.data.files import digest_of
from arm_core.errors import InputError
from arm_core.latents import AutoencoderConfig
from arm_core.registry import ARMS, DATASETS, FORECASTERS, Registry
from arm_core.training import AutoencoderTrainingConfig, TrainingConfig
from harness.sweep.components import OptionError, fill, make_config
from harness.sweep.search import SearchSpec
from harness.sweep.spec import DatasetSpec, Peer, SamplerEntry, Sweep, VariantSpec

TRAINING_FORMAT = 3
"""Raise it when training gives other weights from the same settings."""
SAMPLING_FORMAT = 3
"""Raise it when timings mean something else."""

LEARNED = ("learned", "gated")
"""The forecasters that are made of a checkpoint's modules."""

T = TypeVar("T")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Component(_Frozen):
    """A reference and the options of what it stands for."""

    name: str
    options: dict[str, Any] = {}


class SamplerSpec(_Frozen):
    """A sampler to time; `ancestral` and the peers have no forecaster."""

    sampler: Literal["ancestral", "predictive", "resampled"] | Peer
    forecaster: str | None = None
    window: int | Literal["auto"] | None = None
    block: int | None = None
    stream: bool = False
    horizon: int | Literal["auto"] | None = None
    options: dict[str, Any] = {}


class _Job(_Frozen):
    id: str
    title: str
    sweep: str
    profile: str | None
    dataset: str


class AutoencoderJob(_Job):
    """Train one autoencoder and encode its dataset."""

    kind: Literal["autoencoder"] = "autoencoder"
    seed: int
    data: Component
    root: str | None
    autoencoder: dict[str, Any]
    training: dict[str, Any]


class TrainJob(_Job):
    """Train one ARM, and its forecasting modules if there are any; on images, or on the latents of an autoencoder."""

    kind: Literal["train"] = "train"
    variant: str
    arm: Component
    seed: int
    data: Component
    root: str | None
    autoencoder_job: str | None = None
    forecasting: dict[str, Any] | None
    training: dict[str, Any]
    init_from: str | None = None


class TimingJob(_Job):
    """Time all samplers on one trained ARM, interleaved in one run."""

    kind: Literal["timing"] = "timing"
    variant: str
    arm: Component
    train_job: str
    train_seed: int
    samplers: list[SamplerSpec]
    batch_sizes: list[int]
    slots: list[int]
    samples_per_slot: int
    patience: float | None
    seeds: list[int]
    dtype: str
    figure_seed: int
    figure_count: int


Job = AutoencoderJob | TrainJob | TimingJob


def job_from_json(text: str) -> Job:
    """The job that `model_dump_json` wrote, whatever its kind."""
    return TypeAdapter(Job).validate_json(text)


class Planned(_Frozen):
    """A job, whether it has to run, and why."""

    job: AutoencoderJob | TrainJob | TimingJob
    run: bool
    reason: str


class Plan(_Frozen):
    """All jobs of a sweep, each after those that it needs."""

    sweep: str
    profile: str | None
    jobs: list[Planned]
    search: SearchSpec | None = None

    @property
    def to_run(self) -> list[Planned]:
        """The jobs that are not done."""
        return [planned for planned in self.jobs if planned.run]

    def record(self) -> dict[str, Any]:
        """What the store keeps of a plan: enough for a report's filter and for `harness status`."""
        jobs = [{"id": p.job.id, "kind": p.job.kind, "title": p.job.title} for p in self.jobs]
        return {"sweep": self.sweep, "profile": self.profile, "jobs": jobs}


def make_plan(sweep: Sweep, outcomes: Mapping[str, str]) -> Plan:
    """The jobs of a sweep, each with the reason why it has to run or has not.

    Args:
        sweep: from `load_sweep`.
        outcomes: job id -> "done" or "failed", from the store.

    Raises:
        InputError: a name, option or value that does not fit, with its line.
    """
    jobs: dict[str, Planned] = {}
    for key, given in sweep.datasets.items():
        entry, before = given or DatasetSpec(), None
        if entry.latents is not None:
            encoder = _autoencoder_job(sweep, key, entry)
            before = jobs.setdefault(encoder.id, _planned(encoder, outcomes))
        for variant, settings in sweep.variants.items():
            if entry.variants is not None and variant not in entry.variants:
                continue
            for seed in sweep.training.seeds:
                job = _train_job(
                    sweep, key, entry, variant, settings, seed, before.job.id if before is not None else None
                )
                if job.id in jobs:
                    continue  # two names for the same training
                jobs[job.id] = _planned(job, outcomes, after=before)
                if sweep.timing is not None:
                    timing = _timing_job(sweep, job)
                    jobs[timing.id] = _planned(timing, outcomes, after=jobs[job.id])
    if not jobs:
        chosen = ", ".join(sweep.variants)
        raise sweep.error(("datasets",), f"no dataset is trained with the variants {chosen}; choose others with --only")
    return Plan(sweep=sweep.name, profile=sweep.profile, jobs=list(jobs.values()), search=sweep.search)


def _planned(job: Job, outcomes: Mapping[str, str], *, after: Planned | None = None) -> Planned:
    outcome = outcomes.get(job.id)
    if outcome == "done" and after is not None and after.run:
        return Planned(job=job, run=True, reason=f"its {after.job.kind.replace('train', 'training')} runs again")
    reasons = {"done": "done before", "stopped": "stopped early before", "failed": "failed before"}
    reason = "not done yet" if outcome is None else reasons[outcome]
    return Planned(job=job, run=outcome not in ("done", "stopped"), reason=reason)


def _data(sweep: Sweep, key: str, entry: DatasetSpec) -> Component:
    """The dataset of an entry, its options complete."""
    at = ("datasets", key)
    name, name_at = (entry.name, (*at, "name")) if entry.name is not None else (key, at)
    dataset = _checked(sweep, name_at, lambda: DATASETS.resolve(name))
    config = _checked(sweep, at, lambda: make_config(dataset, dict(entry.model_extra or {})))
    return Component(name=name, options=_as_dict(config))


def _data_matters(data: Component, root: str | None) -> list[Any]:
    return [data.name, _source_of(DATASETS, data.name), data.options, root]


def _autoencoder_job(sweep: Sweep, key: str, entry: DatasetSpec) -> AutoencoderJob:
    assert entry.latents is not None
    at, given, data = ("datasets", key, "latents"), entry.latents, _data(sweep, key, entry)
    config = _as_dict(_checked(sweep, at, lambda: fill(AutoencoderConfig, given.model_extra or {})))
    where = (*at, "training")
    training = _as_dict(_checked(sweep, where, lambda: fill(AutoencoderTrainingConfig, given.training)))
    matters = {
        "format": TRAINING_FORMAT,
        "data": _data_matters(data, entry.root),
        "autoencoder": config,
        "training": _training_matters(training),
        "seed": given.seed,
    }
    return AutoencoderJob(
        id=content_hash(matters),
        title=f"{key} latents",
        sweep=sweep.name,
        profile=sweep.profile,
        dataset=key,
        seed=given.seed,
        data=data,
        root=entry.root,
        autoencoder=config,
        training=training,
    )


def _training_matters(training: Mapping[str, Any]) -> dict[str, Any]:
    """What weights depend on: how often one validates decides only which ones are best."""
    free = {"checkpoint_every"} | ({"evaluate_every"} if training["keep"] == "last" else set())
    return {name: value for name, value in training.items() if name not in free}


def _initial(sweep: Sweep, place: tuple[str | int, ...], options: dict[str, Any]) -> tuple[str | None, str | None]:
    """The checkpoint to start from (taken out of the options) and the sha256 of its manifest."""
    path = options.pop("init_from", None)
    if path is None:
        return None, None
    manifest = Path(str(path)) / "manifest.json"
    if not manifest.is_file():
        raise sweep.error((*place, "init_from"), f"{path} is no checkpoint: {manifest} does not exist")
    return str(path), hashlib.sha256(manifest.read_bytes()).hexdigest()


def _train_job(
    sweep: Sweep,
    key: str,
    entry: DatasetSpec,
    variant: str,
    settings: VariantSpec,
    seed: int,
    autoencoder_job: str | None,
) -> TrainJob:
    at, model = ("datasets", key), ("variants", variant)
    data = _data(sweep, key, entry)
    arm_options = {"name": "pixelcnn", **settings.arm, **entry.arm}
    arm_name = arm_options.pop("name")
    if not isinstance(arm_name, str):
        named_at = (*(at if "name" in entry.arm else model), "arm", "name")
        raise sweep.error(named_at, f"must be a name, module:attr or file.py:attr, got {arm_name!r}")
    arm = _checked(sweep, (*model, "arm", "name"), lambda: ARMS.resolve(arm_name))
    arm_config = _checked(sweep, (*(at if entry.arm else model), "arm"), lambda: make_config(arm, arm_options))
    forecasting = None
    if settings.forecasting is not None:
        from arm_core.forecasters import ForecastingConfig

        heads = {**settings.forecasting, **entry.forecasting}
        place = (*(at if entry.forecasting else model), "forecasting")
        forecasting = _as_dict(_checked(sweep, place, lambda: fill(ForecastingConfig, heads)))
    options = {**(sweep.training.model_extra or {}), **settings.training, **entry.training}
    settings_at = (*(at if entry.training else model if settings.training else ()), "training")
    init_from, init_sha256 = _initial(sweep, settings_at, options)
    training = _as_dict(_checked(sweep, settings_at, lambda: fill(TrainingConfig, options)))
    matters = {
        "format": TRAINING_FORMAT,
        "data": _data_matters(data, entry.root),
        "autoencoder": autoencoder_job,
        "arm": [arm_name, _source_of(ARMS, arm_name), _as_dict(arm_config)],
        "forecasting": forecasting,
        "training": _training_matters(training),
        "init_from": init_sha256,
        "seed": seed,
    }
    many = f" {variant}" if len(sweep.variants) > 1 else ""
    return TrainJob(
        id=content_hash(matters),
        title=f"{key}{many} seed {seed}",
        sweep=sweep.name,
        profile=sweep.profile,
        dataset=key,
        variant=variant,
        arm=Component(name=arm_name, options=_as_dict(arm_config)),
        seed=seed,
        data=data,
        root=entry.root,
        autoencoder_job=autoencoder_job,
        forecasting=forecasting,
        training=training,
        init_from=init_from,
    )


def _timing_job(sweep: Sweep, train: TrainJob) -> TimingJob:
    timing = sweep.timing
    assert timing is not None
    samplers = [_sampler(sweep, index, entry, train) for index, entry in enumerate(timing.samplers)]
    if not any(spec.sampler == "ancestral" for spec in samplers):
        place = ("timing", "samplers")
        raise sweep.error(place, "'ancestral' is missing: it is what the others are compared with; add it")
    settings = timing.model_dump(exclude={"samplers"})
    matters = {
        "format": SAMPLING_FORMAT,
        "train": train.id,
        "samplers": [spec.model_dump() for spec in samplers],
        "sources": [_source_of(FORECASTERS, spec.forecaster) for spec in samplers if spec.forecaster],
        "settings": settings,
        "role": sweep.resources.timing.model_dump(),
    }
    return TimingJob(
        id=content_hash(matters),
        title=train.title,
        sweep=sweep.name,
        profile=sweep.profile,
        dataset=train.dataset,
        variant=train.variant,
        arm=train.arm,
        train_job=train.id,
        train_seed=train.seed,
        samplers=samplers,
        **settings,
    )


def _sampler(sweep: Sweep, index: int, entry: str | SamplerEntry, train: TrainJob) -> SamplerSpec:
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
    forecaster = _checked(sweep, place, lambda: FORECASTERS.resolve(forecaster_name))
    horizon = given.horizon
    if given.forecaster in LEARNED:
        if train.forecasting is None:
            name, variant = given.forecaster, train.variant
            raise sweep.error(place, f"{name} needs `forecasting:` in the variant {variant!r}; add it there")
        _check_gate(sweep, place, given)
        horizon = horizon or train.forecasting["horizon"]
        if isinstance(horizon, int) and horizon > train.forecasting["horizon"]:
            most = train.forecasting["horizon"]
            raise sweep.error(place, f"horizon must be in [1, {most}], the horizon of training, got {horizon}")
    elif horizon is not None:
        raise sweep.error(place, f"horizon is for learned and gated only, not for {given.forecaster}; leave it out")
    else:
        _checked(sweep, place, lambda: make_config(forecaster, given.options))
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


def content_hash(matters: Mapping[str, Any]) -> str:
    """16 hex digits that depend on the content alone, not on the order of keys or the process."""
    canonical = json.dumps(matters, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _source_of(registry: Registry, reference: str) -> str | None:
    """The sha256 of a plug-in file, and of what a path such as `npz:PATH` names; None for all that is installed."""
    scheme, path = registry.split(reference)
    if scheme is not None:
        return _digest_of_path(Path(path))
    if reference in registry.entries or not (file := reference.rpartition(":")[0]).endswith(".py"):
        return None
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _digest_of_path(path: Path) -> str | None:
    """Of the bytes of a file, or of the names and sizes of all files of a folder; None if there is nothing."""
    if path.is_file():
        return digest_of(path, "sha256")
    files = sorted((str(file.relative_to(path)), file.stat().st_size) for file in path.rglob("*") if file.is_file())
    return hashlib.sha256(json.dumps(files).encode()).hexdigest() if files else None


def _as_dict(config: Any) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(config))) if config is not None else {}  # tuples become lists, as on the way


def _checked(sweep: Sweep, place: tuple[str | int, ...], make: Callable[[], T]) -> T:
    try:
        return make()
    except OptionError as error:
        raise sweep.error((*place, error.option) if error.option else place, str(error)) from None
    except InputError as error:
        raise sweep.error(place, str(error)) from None
