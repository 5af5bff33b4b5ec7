"""From a sweep to its jobs: what each one is, which are done already, and why the others are not.

A job's id is the hash of what its result depends on: data, model, training or timing settings, the source of plug-in
files, and the two numbers below. Commit and versions are recorded with the results, not hashed; nor are names: two keys
of equal settings are two names of one job, and the sweep's record has both.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from arm_core.errors import InputError
from arm_core.latents import AutoencoderConfig
from arm_core.registry import ARMS, DATASETS, FORECASTERS, suggest
from arm_core.training import AutoencoderTrainingConfig, TrainingConfig
from harness.sweep.components import fill, make_config
from harness.sweep.identity import content_hash, named, pretrained_digest, read_manifest, source_of
from harness.sweep.jobs import AutoencoderJob, Component, Frozen, Job, TimingJob, TrainJob
from harness.sweep.samplers import LEARNED, SamplerSpec, complete
from harness.sweep.spec import DatasetSpec, Sweep

TRAINING_FORMAT = 3
"""Raise it when training gives other weights from the same settings."""
SAMPLING_FORMAT = 5
"""Raise it when timings mean something else."""


class Named(Frozen):
    """What a sweep calls a job: by its dataset, variant and seed. Several names may stand for one job.

    Attributes:
        id, kind: of the job.
        title: of these names in one.
        variant: None for an autoencoder, which serves all of them.
    """

    id: str
    kind: str
    title: str
    dataset: str
    variant: str | None
    seed: int


class Planned(Frozen):
    """A job, whether it has to run, and why."""

    job: AutoencoderJob | TrainJob | TimingJob
    run: bool
    reason: str


@dataclass(frozen=True)
class Plan:
    """All jobs of a sweep, each once and after those that it needs; and all their names."""

    sweep: Sweep
    jobs: list[Planned]
    names: list[Named]

    @property
    def to_run(self) -> list[Planned]:
        """The jobs that have to run."""
        return [planned for planned in self.jobs if planned.run]

    def record(self) -> dict[str, Any]:
        """What the store keeps of a sweep: which jobs it asks for, and how it calls them."""
        names = [name.model_dump() for name in self.names]
        return {"sweep": self.sweep.name, "profile": self.sweep.profile, "jobs": names}


@dataclass
class Drawn:
    """The jobs that a sweep asks for, by id and each after those that it needs; and all their names.

    Attributes:
        notes: what is right and yet hardly meant -> the datasets and variants of which it is true.
        unserved: what to say if no model at all has the forecasting modules that a sampler needs.
    """

    sweep: Sweep
    jobs: dict[str, Job] = field(default_factory=dict)
    names: list[Named] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    unserved: InputError | None = None

    def add(self, job: Job, dataset: str, variant: str | None, seed: int) -> None:
        """Note a job under a name; it may have others."""
        self.jobs.setdefault(job.id, job)
        if not isinstance(job, TimingJob) and job.training["evaluate_every"] > (last := job.training["iterations"]):
            every = f"evaluate_every {job.training['evaluate_every']} is beyond the {last} iterations"
            self.note(
                f"{every}: validated once, at the end; for a curve `evaluate_every: {-(-last // 10)}`", dataset, variant
            )
        self.names.append(Named(id=job.id, kind=job.kind, title=job.title, dataset=dataset, variant=variant, seed=seed))

    def note(self, text: str, dataset: str, variant: str | None) -> None:
        """Note what is true of a dataset and a variant."""
        name = f"{dataset} {variant}" if variant is not None and len(self.sweep.variants) > 1 else dataset
        if name not in self.notes.setdefault(text, []):
            self.notes[text].append(name)


def make_plan(sweep: Sweep, outcomes: Mapping[str, str], *, only: Sequence[str] = ()) -> Plan:
    """`draw_jobs` and `settle` in one."""
    return settle(draw_jobs(sweep), outcomes, only=only)


def draw_jobs(sweep: Sweep) -> Drawn:
    """All jobs of a sweep.

    Raises:
        InputError: a name, option or value that does not fit, with its line.
    """
    drawn = Drawn(sweep)
    for key, given in sweep.datasets.items():
        _draw_dataset(drawn, key, given or DatasetSpec())
    for key in sweep.checkpoints:
        drawn.add(_timing_of_checkpoint(drawn, key), key, "default", 0)
    timings = (job for job in drawn.jobs.values() if isinstance(job, TimingJob))
    if drawn.unserved is not None and not any(spec.forecaster in LEARNED for job in timings for spec in job.samplers):
        raise drawn.unserved
    return drawn


def settle(drawn: Drawn, outcomes: Mapping[str, str], *, only: Sequence[str] = ()) -> Plan:
    """The jobs of a sweep, each with the reason why it has to run or has not.

    Args:
        drawn: from `draw_jobs`.
        outcomes: job id -> how it ended, from the store.
        only: `dataset=KEY`, `variant=KEY` or `seed=N` (of training); several values of one key add up. The others stay
            in the plan and do not run.

    Raises:
        InputError: a filter that nothing fits.
    """
    chosen, planned = _chosen(drawn, only), dict[str, Planned]()
    for job in drawn.jobs.values():
        before = planned.get(needed_by(job) or "")
        planned[job.id] = _planned(job, outcomes, chosen, before, stops=drawn.sweep.search is not None)
    return Plan(drawn.sweep, list(planned.values()), drawn.names)


def needed_by(job: Job) -> str | None:
    """The id of the job whose result this one needs."""
    if isinstance(job, TimingJob):
        return job.train_job
    return job.autoencoder_job if isinstance(job, TrainJob) else None


def _draw_dataset(drawn: Drawn, key: str, entry: DatasetSpec) -> None:
    sweep, encoder, data = drawn.sweep, None, _data(drawn.sweep, key, entry)
    variants = [name for name in sweep.variants if entry.variants is None or name in entry.variants]
    if entry.latents is not None and variants:
        encoder = _autoencoder_job(sweep, key, entry, data)
        drawn.add(encoder, key, None, encoder.seed)
    for variant in variants:
        samplers = None
        for job in _train_jobs(sweep, key, entry, variant, data, encoder.id if encoder is not None else None):
            drawn.add(job, key, variant, job.seed)
            if sweep.timing is not None:
                samplers = samplers or _samplers_of(drawn, job, key, variant)
                of = {"arm": job.arm.name, "train_job": job.id, "train_seed": job.seed}
                timing = _timing_job(sweep, samplers, {"train": job.id}, title=job.title, **of)
                drawn.add(timing, key, variant, job.seed)


def _chosen(drawn: Drawn, only: Sequence[str]) -> set[str]:
    """The ids of the jobs that the filters leave, and of those that they need."""
    valid: dict[str, list[str]] = {}
    for key in ("dataset", "variant", "seed"):
        valid[key] = list(dict.fromkeys(str(getattr(name, key)) for name in drawn.names if name.variant is not None))
    wanted: dict[str, set[str]] = {}
    for item in only:
        key, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"--only takes KEY=VALUE, for example dataset={valid['dataset'][0]}; got {item!r}")
        if key not in valid:
            raise suggest("key of --only", key, valid)
        if value not in valid[key]:
            raise suggest(f"{key} in --only", value, valid[key])
        wanted.setdefault(key, set()).add(value)
    fits = [name.id for name in drawn.names if all(str(getattr(name, key)) in wanted[key] for key in wanted)]
    if not fits:
        raise InputError(f"no job of the sweep is of {' '.join(only)}; choose others with --only")
    needed = {needed_by(drawn.jobs[job]) for job in fits}
    needed |= {needed_by(drawn.jobs[job]) for job in needed if job is not None}
    return {job for job in (*fits, *needed) if job is not None}


def _planned(
    job: Job, outcomes: Mapping[str, str], chosen: Collection[str], before: Planned | None, *, stops: bool
) -> Planned:
    """A job and whether it has to run; what a search gave up is settled for searches (`stops`) only."""
    outcome = outcomes.get(job.id)
    if job.id in chosen and outcome == "done" and before is not None and before.run:
        return Planned(job=job, run=True, reason=f"its {before.job.kind.replace('train', 'training')} runs again")
    settled = outcome == "done" or (outcome == "stopped" and stops)
    if not settled and job.id not in chosen:
        return Planned(job=job, run=False, reason=LEFT_OUT)
    return Planned(job=job, run=not settled, reason=_REASONS[outcome])


LEFT_OUT = "left out by --only"
_REASONS = {
    None: "not done yet",
    "done": "done before",
    "stopped": "stopped early before",
    "failed": "failed before",
    "lost": "files of it are gone",
}


def _data(sweep: Sweep, key: str, entry: DatasetSpec) -> Component:
    """The dataset of an entry, its options complete."""
    at = ("datasets", key)
    name, name_at = (entry.name, (*at, "name")) if entry.name is not None else (key, at)
    dataset = sweep.checked(name_at, lambda: DATASETS.resolve(name))
    config = sweep.checked(at, lambda: make_config(dataset, dict(entry.model_extra or {})))
    return Component(name=name, options=_as_dict(config))


def _data_matters(data: Component, root: str | None) -> list[Any]:
    place = str(Path(root).expanduser().absolute()) if root is not None else None
    return [named(DATASETS, data.name), source_of(DATASETS, data.name), data.options, place]


def _autoencoder_job(sweep: Sweep, key: str, entry: DatasetSpec, data: Component) -> AutoencoderJob:
    assert entry.latents is not None
    at, given = ("datasets", key, "latents"), entry.latents
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
    _, sha256 = sweep.checked((*place, "init_from"), lambda: read_manifest(str(path)))
    return str(path), sha256


def _train_jobs(
    sweep: Sweep, key: str, entry: DatasetSpec, variant: str, data: Component, autoencoder_job: str | None
) -> Iterator[TrainJob]:
    """A training for every seed."""
    at, model, settings = ("datasets", key), ("variants", variant), sweep.variants[variant]
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
        "arm": [named(ARMS, arm_name), source_of(ARMS, arm_name), _as_dict(arm_config)],
        "forecasting": forecasting,
        "training": _training_matters(training),
        "init_from": init_sha256,
    }
    many = f" {variant}" if len(sweep.variants) > 1 else ""
    for seed in sweep.training.seeds:
        yield TrainJob(
            id=content_hash({**matters, "seed": seed}),
            title=f"{key}{many} seed {seed}",
            arm=Component(name=arm_name, options=_as_dict(arm_config)),
            seed=seed,
            data=data,
            root=entry.root,
            autoencoder_job=autoencoder_job,
            forecasting=forecasting,
            training=training,
            init_from=init_from,
        )


def _samplers_of(drawn: Drawn, train: TrainJob, key: str, variant: str) -> list[SamplerSpec]:
    horizon = train.forecasting["horizon"] if train.forecasting is not None else None
    return _samplers(drawn, key, variant, horizon, f"`forecasting:` in the variant {variant!r}; add it there")


def _timing_of_checkpoint(drawn: Drawn, key: str) -> TimingJob:
    sweep = drawn.sweep
    at, given = ("checkpoints", key), sweep.checkpoints[key]
    heads, source = None, None
    if given.layout is not None:
        sha256 = sweep.checked((*at, "path"), lambda: pretrained_digest(given.path))
    else:
        saved, sha256 = sweep.checked((*at, "path"), lambda: read_manifest(given.path))
        heads = saved.get("modules")
    if given.arm is not None:
        sweep.checked((*at, "arm"), lambda: ARMS.resolve(str(given.arm)))
        source = source_of(ARMS, given.arm)
    horizon = heads["config"]["horizon"] if heads else None
    remedy = f"forecasting modules, and the checkpoint {key!r} has none; leave it out"
    samplers = _samplers(drawn, key, None, horizon, remedy)
    matters: dict[str, Any] = {"checkpoint": sha256, "arm": [given.arm, source]}
    matters |= {"pretrained": given.pretrained} if given.layout is not None else {}
    return _timing_job(sweep, samplers, matters, title=key, arm=given.arm, checkpoint=given, sha256=sha256)


def _samplers(drawn: Drawn, key: str, variant: str | None, horizon: int | None, remedy: str) -> list[SamplerSpec]:
    """The samplers of one model; without modules only what needs none, unless the entry names the variant."""
    sweep, samplers = drawn.sweep, list[SamplerSpec]()
    assert sweep.timing is not None
    for index, given in enumerate(sweep.timing.samplers):
        if variant is not None and given.variants is not None and variant not in given.variants:
            continue
        place = ("timing", "samplers", index)
        if horizon is None and given.forecaster in LEARNED and given.variants is None:
            drawn.unserved = drawn.unserved or sweep.error(place, f"{given.forecaster} needs {remedy}")
            drawn.note(f"{given.forecaster} is left out: it needs forecasting modules", key, variant)
            continue
        samplers.append(sweep.checked(place, partial(complete, given, horizon=horizon, remedy=remedy)))
    references = [spec.decision for spec in samplers if spec.sampler == "ancestral"]
    for spec in samplers:
        if spec.decision not in references:
            missing = json.dumps({"sampler": "ancestral", **spec.decision}) if spec.decision else "'ancestral'"
            why = f"{missing} is missing: it is what the others are compared with; add it"
            raise sweep.error(("timing", "samplers"), why)
    return samplers


def _timing_job(
    sweep: Sweep, samplers: list[SamplerSpec], model: Mapping[str, Any], *, title: str, **of: Any
) -> TimingJob:
    """The timing of a model, which `model` stands for in the hash and `of` describes."""
    timing = sweep.timing
    assert timing is not None
    settings = timing.model_dump(exclude={"samplers"})
    settings["slots"] = timing.slots or timing.batch_sizes
    settings["ancestral_seeds"] = timing.ancestral_seeds or len(timing.seeds)
    matters = {
        "format": SAMPLING_FORMAT,
        **model,
        "samplers": [spec.described() for spec in samplers],
        "sources": [source_of(FORECASTERS, spec.forecaster) for spec in samplers if spec.forecaster],
        "settings": settings,
        "role": sweep.resources.timing.model_dump(),
    }
    return TimingJob(id=content_hash(matters), title=title, samplers=samplers, **of, **settings)


def _as_dict(config: Any) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(config))) if config is not None else {}  # tuples become lists, as on the way
