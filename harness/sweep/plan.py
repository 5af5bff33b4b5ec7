"""From a sweep to its jobs: what each one is, which are done already, and why the others are not.

A job's id is the hash of what its result depends on: data, model, training or timing settings, the source of plug-in
files, and the two numbers below. Commit and versions are recorded with the results, not hashed.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arm_core.latents import AutoencoderConfig
from arm_core.registry import ARMS, DATASETS, FORECASTERS
from arm_core.training import AutoencoderTrainingConfig, TrainingConfig
from harness.sweep.components import fill, make_config
from harness.sweep.identity import content_hash, source_of
from harness.sweep.jobs import AutoencoderJob, Component, Frozen, Job, TimingJob, TrainJob
from harness.sweep.samplers import settled
from harness.sweep.search import SearchSpec
from harness.sweep.spec import DatasetSpec, Sweep, VariantSpec

TRAINING_FORMAT = 3
"""Raise it when training gives other weights from the same settings."""
SAMPLING_FORMAT = 3
"""Raise it when timings mean something else."""


class Planned(Frozen):
    """A job, whether it has to run, and why."""

    job: AutoencoderJob | TrainJob | TimingJob
    run: bool
    reason: str


class Plan(Frozen):
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
        outcomes: job id -> "done", "stopped" or "failed", from the store.

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
                jobs[job.id] = _planned(job, outcomes, after=before, stops=sweep.search is not None)
                if sweep.timing is not None:
                    timing = _timing_job(sweep, job)
                    jobs[timing.id] = _planned(timing, outcomes, after=jobs[job.id])
    if not jobs:
        chosen = ", ".join(sweep.variants)
        raise sweep.error(("datasets",), f"no dataset is trained with the variants {chosen}; choose others with --only")
    return Plan(sweep=sweep.name, profile=sweep.profile, jobs=list(jobs.values()), search=sweep.search)


def _planned(job: Job, outcomes: Mapping[str, str], *, after: Planned | None = None, stops: bool = False) -> Planned:
    """A job and whether it has to run; what a search gave up is settled for searches (`stops`) only."""
    outcome = outcomes.get(job.id)
    if outcome == "done" and after is not None and after.run:
        return Planned(job=job, run=True, reason=f"its {after.job.kind.replace('train', 'training')} runs again")
    reasons = {"done": "done before", "stopped": "stopped early before", "failed": "failed before"}
    reason = "not done yet" if outcome is None else reasons[outcome]
    settled = outcome == "done" or (outcome == "stopped" and stops)
    return Planned(job=job, run=not settled, reason=reason)


def _data(sweep: Sweep, key: str, entry: DatasetSpec) -> Component:
    """The dataset of an entry, its options complete."""
    at = ("datasets", key)
    name, name_at = (entry.name, (*at, "name")) if entry.name is not None else (key, at)
    dataset = sweep.checked(name_at, lambda: DATASETS.resolve(name))
    config = sweep.checked(at, lambda: make_config(dataset, dict(entry.model_extra or {})))
    return Component(name=name, options=_as_dict(config))


def _data_matters(data: Component, root: str | None) -> list[Any]:
    return [data.name, source_of(DATASETS, data.name), data.options, root]


def _autoencoder_job(sweep: Sweep, key: str, entry: DatasetSpec) -> AutoencoderJob:
    assert entry.latents is not None
    at, given, data = ("datasets", key, "latents"), entry.latents, _data(sweep, key, entry)
    config = _as_dict(sweep.checked(at, lambda: fill(AutoencoderConfig, given.model_extra or {})))
    where = (*at, "training")
    training = _as_dict(sweep.checked(where, lambda: fill(AutoencoderTrainingConfig, given.training)))
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
    arm = sweep.checked((*model, "arm", "name"), lambda: ARMS.resolve(arm_name))
    arm_config = sweep.checked((*(at if entry.arm else model), "arm"), lambda: make_config(arm, arm_options))
    forecasting = None
    if settings.forecasting is not None:
        from arm_core.forecasters import ForecastingConfig

        heads = {**settings.forecasting, **entry.forecasting}
        place = (*(at if entry.forecasting else model), "forecasting")
        forecasting = _as_dict(sweep.checked(place, lambda: fill(ForecastingConfig, heads)))
    options = {**(sweep.training.model_extra or {}), **settings.training, **entry.training}
    settings_at = (*(at if entry.training else model if settings.training else ()), "training")
    init_from, init_sha256 = _initial(sweep, settings_at, options)
    training = _as_dict(sweep.checked(settings_at, lambda: fill(TrainingConfig, options)))
    matters = {
        "format": TRAINING_FORMAT,
        "data": _data_matters(data, entry.root),
        "autoencoder": autoencoder_job,
        "arm": [arm_name, source_of(ARMS, arm_name), _as_dict(arm_config)],
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
    horizon = train.forecasting["horizon"] if train.forecasting is not None else None
    remedy = f"`forecasting:` in the variant {train.variant!r}; add it there"
    samplers = [settled(sweep, index, horizon=horizon, remedy=remedy) for index in range(len(timing.samplers))]
    if not any(spec.sampler == "ancestral" for spec in samplers):
        place = ("timing", "samplers")
        raise sweep.error(place, "'ancestral' is missing: it is what the others are compared with; add it")
    settings = timing.model_dump(exclude={"samplers"})
    settings["slots"] = timing.slots or timing.batch_sizes
    settings["ancestral_seeds"] = timing.ancestral_seeds or len(timing.seeds)
    matters = {
        "format": SAMPLING_FORMAT,
        "train": train.id,
        "samplers": [spec.model_dump() for spec in samplers],
        "sources": [source_of(FORECASTERS, spec.forecaster) for spec in samplers if spec.forecaster],
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


def _as_dict(config: Any) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(config))) if config is not None else {}  # tuples become lists, as on the way
