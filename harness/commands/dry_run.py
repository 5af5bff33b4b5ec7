"""`harness sweep --dry-run`: what would run, how large and how long, and what cannot be, found by building it.

Every model is built on the meta device with the layout of its data, so that a size that cannot exist is an error here
and not on a cluster. Times are guessed from earlier rows of the store.
"""

import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
import yaml
from rich import box
from rich.table import Table

from arm_core import AutoregressiveModel, InputError, Layout
from arm_core.data import DataOptions, MissingDataError, load_dataset
from arm_core.data.patches import token_layout
from arm_core.data.prepare import preparation
from arm_core.latents import AutoencoderConfig, DiscreteAutoencoder
from harness.console import CONSOLE, SHOWN
from harness.console import show as show_table
from harness.execution.monitor import duration
from harness.jobs.checkpoints import load
from harness.jobs.train import learns_labels, networks
from harness.store import Store
from harness.sweep import AutoencoderJob, Job, Plan, SamplerSpec, Sweep, TimingJob, TrainJob
from harness.sweep.components import fill
from harness.sweep.plan import LEFT_OUT, Named

SHAPES = {"mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28)}
SHAPES |= dict.fromkeys(("cifar10", "svhn", "svhn_extra", "imagenet32", "imagenet32_new"), (3, 32, 32))
"""Of published images: their models can be built where the data are missing."""


@dataclass
class Built:
    """The models of a plan, each built once.

    Attributes:
        sweep: whose file errors name.
        layouts: of the data, or latents, by the id of the job that needs or makes them.
        models: by the id of the training, or of the timing of a checkpoint.
        parameters: of a job's networks.
        problems: what cannot be, each with its line.
        known: what was made from the same settings.
    """

    sweep: Sweep
    layouts: dict[str, Layout]
    models: dict[str, AutoregressiveModel]
    parameters: dict[str, int]
    problems: list[str]
    known: dict[str, Any]

    def once(self, settings: Any, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for all jobs that agree in these settings."""
        key = repr(settings)
        if key not in self.known:
            self.known[key] = make()
        return self.known[key]

    def tried(self, place: tuple[str | int, ...], make: Callable[[], Any]) -> Any:
        """What `make` gives; None, and a problem noted, if it cannot be."""
        try:
            return make()
        except InputError as error:
            said = str(error)
        except Exception as error:  # a class of one's own may raise anything
            said = f"cannot be built ({type(error).__name__}: {error})"
        self.problems.append(str(self.sweep.error(place, said)))
        return None


def show(plan: Plan, store: Store, *, verbose: bool) -> int:
    """Print the plan, what is wrong with it, and how long it takes; returns the exit code."""
    with CONSOLE.status("Building the models ..."):
        built = build(plan)
    seconds = estimates(plan, built, store)
    show_table(_table(plan, built, seconds), named=2)
    if len(plan.jobs) > SHOWN:
        CONSOLE.print(f"and {len(plan.jobs) - SHOWN} more jobs")
    if verbose:
        for planned in plan.jobs:
            _print_settings(planned.job)
    known = [each for each in seconds.values() if each is not None]
    if known:
        unknown = len(seconds) - len(known)
        rest = f"; without {unknown} of them, unlike all that the store has" if unknown else ""
        CONSOLE.print(f"About {duration(sum(known))} one after the other, by earlier runs{rest}.", soft_wrap=True)
    for problem in dict.fromkeys(built.problems):
        CONSOLE.print(f"Error: {problem}", soft_wrap=True)
    return 2 if built.problems else 0


def build(plan: Plan) -> Built:
    """Build every model of a plan on the meta device, and ask it whether its samplers can run on it."""
    built, names = Built(plan.sweep, {}, {}, {}, [], {}), {name.id: name for name in plan.names}
    for planned in plan.jobs:
        job, name = planned.job, names[planned.job.id]
        if planned.reason == LEFT_OUT:
            continue
        if isinstance(job, AutoencoderJob):
            _build_autoencoder(built, job, name)
        elif isinstance(job, TrainJob):
            _build_arm(built, job, name)
        else:
            _check_timing(built, job, name)
    return built


def _build_autoencoder(built: Built, job: AutoencoderJob, name: Named) -> None:
    layout = _layout(built, job, name)
    if layout is None:
        return
    config = fill(AutoencoderConfig, job.autoencoder)
    place = ("datasets", name.dataset, "latents")
    made = built.tried(place, lambda: _on_meta(lambda: DiscreteAutoencoder(layout, config)))
    if made is not None:
        built.layouts[job.id], built.parameters[job.id] = made.latent_layout, _count(made)


def _build_arm(built: Built, job: TrainJob, name: Named) -> None:
    layout = _layout(built, job, name) if job.autoencoder_job is None else built.layouts.get(job.autoencoder_job)
    if layout is None:
        return
    known, entry = layout, built.sweep.datasets[name.dataset]
    own = entry is not None and entry.arm
    place = ("datasets", name.dataset, "arm") if own else ("variants", str(name.variant), "arm")
    settings = (layout, job.arm, job.forecasting)
    made = built.once(settings, lambda: built.tried(place, lambda: _on_meta(lambda: networks(job, known))))
    if made is not None:
        if learns_labels(made[0]) and built.known.get(_labels(job)) is not True:
            why = f"{type(made[0]).__name__} learns classes, and the data have no labels; leave `classes` out"
            built.problems.append(str(built.sweep.error(place, why)))
        built.models[job.id] = made[0]
        built.parameters[job.id] = sum(_count(network) for network in made if network is not None)


def _layout(built: Built, job: AutoencoderJob | TrainJob, name: Named) -> Layout | None:
    layout: Layout | None = built.once((job.data, job.root), lambda: _read_layout(built, job, name))
    return layout


def _read_layout(built: Built, job: AutoencoderJob | TrainJob, name: Named) -> Layout | None:
    """Of the data; what is missing is a problem, but published images have a known shape."""
    try:
        dataset = load_dataset(job.data.name, job.root, **job.data.options)
        built.known[_labels(job)] = dataset.labels("train") is not None
        return dataset.layout
    except (InputError, OSError) as error:
        first, *more = str(error).splitlines()
        first = first.partition(" Looked for")[0]
        said = f"{first} {more[-1]}" if more else first  # without all the places that were looked at
        built.problems.append(str(built.sweep.error(("datasets", name.dataset), said)))
        if not isinstance(error, MissingDataError) or job.data.name not in SHAPES:
            return None
    options = DataOptions(**job.data.options)
    prepared = preparation(job.data.name, options, SHAPES[job.data.name])
    return token_layout(Layout(*prepared.shape, prepared.categories), options.patches)


def _labels(job: AutoencoderJob | TrainJob) -> str:
    """Under what it is known whether the data of a job have labels."""
    return f"labels of {job.data!r} {job.root}"


def _check_timing(built: Built, job: TimingJob, name: Named) -> None:
    if job.checkpoint is not None:
        given = job.checkpoint
        loaded = built.tried(("checkpoints", name.dataset), lambda: load(given))
        arm = loaded.arm if loaded is not None else None
        if arm is not None:
            built.parameters[job.id] = _count(arm)
    else:
        arm = built.models.get(str(job.train_job))
    if arm is None:
        return
    for spec in job.samplers:
        index = _entry_of(spec, built.sweep)
        for why in _unfit(arm, spec):
            built.problems.append(str(built.sweep.error(("timing", "samplers", index), f"{name.title}: {why}")))


def _entry_of(spec: SamplerSpec, sweep: Sweep) -> int:
    """The number of the entry of the file that a sampler is of; a model may run only some of them."""
    assert sweep.timing is not None
    as_file = [given.model_copy(update={"variants": None}) for given in sweep.timing.samplers]
    return next(
        index for index, given in enumerate(as_file) if spec.model_copy(update={"horizon": given.horizon}) == given
    )


def _unfit(arm: AutoregressiveModel, spec: SamplerSpec) -> Iterator[str]:
    kind, context = type(arm).__name__, spec.context
    if spec.needs_spans and arm.granule is None:
        yield f"{kind} evaluates whole images only, and this sampler needs cached windows; leave it out"
    elif spec.native and not arm.native:
        yield f"{kind} has no spans with native kernels; leave `native` out"
    if context is None:
        return
    classes = getattr(getattr(arm, "config", None), "classes", None)
    if "context" not in inspect.signature(arm.forward).parameters or classes == 0:
        yield f"{kind} takes no class; train it with `arm: {{classes: N}}`, or leave `context` out"
    elif classes is not None and context >= classes:
        yield f"context must be below the {classes} classes of the ARM, got {context}"


def _on_meta(make: Callable[[], Any]) -> Any:
    """Without memory or numbers; an ARM that looks at its weights while it is built gets real ones."""
    try:
        with torch.device("meta"):
            return make()
    except NotImplementedError:
        return make()


def _count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


class Earlier:
    """What finished jobs of a store took, by the model that they were about."""

    def __init__(self, store: Store) -> None:
        trials = store.read("trials", columns=[*_OF_TRIALS, "job", "status", "wall_s", "iterations"], unreadable={})
        trials = trials[trials["status"] == "done"].dropna(subset=["wall_s", "iterations", *_OF_TRIALS])
        keys = [_key(arm, config, layout) for arm, config, *layout in trials[_OF_TRIALS[:-1]].to_numpy()]
        self.model = dict(zip(trials["job"], keys, strict=True))
        sizes = [json.loads(text)["batch_size"] for text in trials["training_config"]]
        each = (trials["wall_s"] / trials["iterations"]).astype(float)
        self.step = pd.Series(each.to_numpy(), index=list(zip(keys, sizes, strict=True))).groupby(level=0).median()
        columns = ["train_job", "checkpoint_sha256", "status", "sampler", "batch_size", "wall_s"]
        runs = store.read("timings", columns=columns, unreadable={})
        runs = runs[runs["status"] == "done"]
        runs["model"] = [
            self.model.get(job, sha256) for job, sha256 in runs[["train_job", "checkpoint_sha256"]].to_numpy()
        ]
        self.run = runs.groupby(["model", "sampler", "batch_size"])["wall_s"].mean()

    def training(self, job: TrainJob, layout: Layout) -> float | None:
        """Seconds, by the steps of the same model on batches of the same size."""
        key = (_model_of(job, layout), job.training["batch_size"])
        return float(self.step[key]) * job.training["iterations"] if key in self.step.index else None

    def timing(self, job: TimingJob, model: str) -> float | None:
        """Seconds of those runs that the same model has had before."""
        total = 0.0
        for spec in job.samplers:
            for width in job.widths_of(spec):
                mean = float(self.run.get((model, spec.described(), width), 0.0))
                total += mean * (len(job.seeds_of(spec)) + job.warms_up(spec))
        return total or None


_OF_TRIALS = ["arm", "arm_config", "channels", "height", "width", "categories", "training_config"]


def _key(arm: str, config: str, layout: Any) -> str:
    return f"{arm} {config} {[int(size) for size in layout]}"


def _model_of(job: TrainJob, layout: Layout) -> str:
    sizes = (layout.channels, layout.height, layout.width, layout.categories)
    return _key(job.arm.name, json.dumps(job.arm.options, sort_keys=True), sizes)


def estimates(plan: Plan, built: Built, store: Store) -> dict[str, float | None]:
    """Seconds of each job that has to run; None: the store knows none like it."""
    earlier, found, models = Earlier(store), dict[str, float | None](), dict[str, str]()
    for planned in plan.jobs:
        job = planned.job
        if isinstance(job, TrainJob) and job.id in built.models:
            models[job.id] = _model_of(job, built.models[job.id].layout)
            seconds = earlier.training(job, built.models[job.id].layout)
        elif isinstance(job, TimingJob):
            model = job.sha256 if job.sha256 is not None else models.get(str(job.train_job), "")
            seconds = earlier.timing(job, model)
        else:
            seconds = None
        if planned.run:
            found[job.id] = seconds
    return found


def _table(plan: Plan, built: Built, seconds: dict[str, float | None]) -> Table:
    table = Table(title=f"{plan.sweep.title}: {len(plan.to_run)} of {len(plan.jobs)} jobs to run", title_justify="left")
    table.box, table.pad_edge = box.SIMPLE_HEAD, False
    for heading in ("", "job", "parameters", "steps", "runs", "about", "why"):
        right = heading in ("parameters", "steps", "runs")
        table.add_column(heading, justify="right" if right else "left", overflow="fold", no_wrap=heading != "job")
    for planned in plan.jobs[:SHOWN]:
        job, parameters = planned.job, built.parameters.get(planned.job.id)
        took = seconds.get(job.id)
        table.add_row(
            "run" if planned.run else "skip",
            f"{job.kind} {job.title}",
            f"{parameters:,}" if parameters is not None else "",
            f"{job.training['iterations']:,}" if not isinstance(job, TimingJob) else "",
            f"{sum(map(job.repetitions_of, job.samplers)):,}" if isinstance(job, TimingJob) else "",
            duration(took) if took is not None else "",
            planned.reason,
        )
    return table


def _print_settings(job: Job) -> None:
    """Every setting that the job will use, those that the file leaves out included."""
    CONSOLE.print(f"{job.kind} {job.title}", soft_wrap=True)
    left_out = {"id", "title", "kind", "train_job", "autoencoder_job"}
    settings = job.model_dump(mode="json", exclude=left_out, exclude_defaults=True)
    for line in yaml.safe_dump(settings, sort_keys=False).splitlines():
        CONSOLE.print(f"    {line}", soft_wrap=True, style="dim")
