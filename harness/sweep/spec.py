"""The sweep file: its shape, checked strictly. What its names stand for is checked when the plan is made."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from arm_core.errors import InputError
from arm_core.registry import suggest
from harness.sweep.components import OptionError, reason
from harness.sweep.jobs import Count, Existing, Seed, TimingSettings
from harness.sweep.samplers import SamplerSpec
from harness.sweep.search import SearchSpec
from harness.sweep.source import Source, merged, read_source

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")]
Options = dict[str, Any]
T = TypeVar("T")
_LARGEST = 1e300
"""No number in a sweep file is as large as this: an integer of so many digits would become infinite as a float."""


class Part(BaseModel):
    """A part of a sweep file: frozen, strict, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Role(Part):
    """What a job of one kind asks of its node.

    Attributes:
        cpus: None: one for training, all of the node for timing.
        gpus: per job.
        threads: of torch; None: as many as cpus.
        device: class of the accelerator (V100, GTX1080Ti, ...), or None for any node.
    """

    cpus: Count | None = None
    gpus: Annotated[int, Field(ge=0)] = 0
    threads: Count | None = None
    device: str | None = None


class Resources(Part):
    """One role for each kind of job."""

    train: Role = Role()
    timing: Role = Role()


class LatentsSpec(Part):
    """An autoencoder whose latents the ARM models; the other keys are the fields of its config.

    Attributes:
        training: fields of `arm_core.training.AutoencoderTrainingConfig`.
        seed: of its training.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    training: Options = {}
    seed: Seed = 0


class DatasetSpec(Part):
    """A dataset; keys beyond these are its options. `arm`, `forecasting` and `training` override for it alone.

    Attributes:
        name: of the dataset; None: the key in the sweep file.
        root: folder of its files.
        latents: of an autoencoder, to model instead of the images.
        variants: those that are trained on it; None: all.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    name: str | None = None
    root: str | None = None
    latents: LatentsSpec | None = None
    variants: Annotated[list[str], Field(min_length=1)] | None = None
    arm: Options = {}
    forecasting: Options = {}
    training: Options = {}


class VariantSpec(Part):
    """Model settings; `arm` holds its `name` and the fields of its config, `training` overrides for it alone."""

    arm: Options = {}
    forecasting: Options | None = None
    training: Options = {}


class TrainingSpec(Part):
    """Seeds; the other keys are the fields of `arm_core.training.TrainingConfig`."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]


class TimingSpec(Part, TimingSettings):
    """What to time on every checkpoint, in one run each; `samplers` are names, or entries with options."""

    samplers: Annotated[list[SamplerSpec], Field(min_length=1)]


class LoggingSpec(Part):
    """Where the curves of trainings go beside the store, while they run; an outage there stops nothing.

    Attributes:
        mlflow: tracking URI of a server, or a folder.
        wandb: project of Weights & Biases.
        tensorboard: event files in the store, below `ray/`.
    """

    mlflow: str | None = None
    wandb: str | None = None
    tensorboard: bool = False


class Sweep(Part):
    """A sweep file with its profile applied."""

    name: Name
    description: str = ""
    profile: str | None = None
    datasets: dict[Name, DatasetSpec | None] = {}
    checkpoints: dict[Name, Existing] = {}
    variants: Annotated[dict[Name, VariantSpec], Field(min_length=1)] = {"default": VariantSpec()}
    training: TrainingSpec = TrainingSpec()
    search: SearchSpec | None = None
    timing: TimingSpec | None = None
    resources: Resources = Resources()
    logging: LoggingSpec = LoggingSpec()
    _source: Source

    @property
    def title(self) -> str:
        """Its name, and that of its profile."""
        return self.name if self.profile is None else f"{self.name} ({self.profile})"

    @property
    def stops_early(self) -> bool:
        """Whether its search gives up the worse trials while others run."""
        return self.search is not None and self.search.method == "asha"

    def error(self, place: Sequence[str | int], message: str) -> InputError:
        """An error at a place of the file, in its profile if it stands there. Raise what it returns."""
        return InputError(self._source.error(place, message, within=("profiles", self.profile or "")))

    def checked(self, place: Sequence[str | int], make: Callable[[], T]) -> T:
        """What `make` gives; its errors at a place of the file."""
        try:
            return make()
        except OptionError as error:
            said = str(error).removeprefix(f"{error.option}: ")  # the place has it already
            raise self.error((*place, *error.option.split(".")) if error.option else place, said) from None
        except InputError as error:
            raise self.error(place, str(error)) from None


def load_sweep(path: str | Path, *, profile: str | None = None) -> Sweep:
    """Read a sweep file.

    Args:
        path: of the YAML file.
        profile: one of its `profiles`, laid over the rest.

    Raises:
        InputError: lists every fault with its line; or names the profile that does not exist.
    """
    source = read_source(Path(path))
    data = dict(source.data)
    profiles = data.pop("profiles", None) or {}
    if not isinstance(profiles, dict):
        raise InputError(source.error(("profiles",), "must be a mapping from profile names to overrides"))
    if profile is not None:
        if profile not in profiles:
            said = str(suggest("profile", profile, profiles)) if profiles else "there are none; leave --profile out"
            raise InputError(source.error(("profiles",), said))
        if not isinstance(profiles[profile], dict):
            raise InputError(source.error(("profiles", profile), "must be a mapping from keys to overrides"))
        data = merged(data, profiles[profile])
    if profile is None and profiles and not {"datasets", "checkpoints"} & set(data):
        raise InputError(source.error(("profiles",), f"choose one with --profile: {', '.join(profiles)}"))
    _check_finite(source, data, ())
    try:
        sweep = Sweep.model_validate({**data, "profile": profile})
    except ValidationError as error:
        faults = dict.fromkeys(_fault(source, dict(item)) for item in error.errors())
        raise InputError("\n".join(faults)) from None
    sweep._source = source
    _check_models(sweep)
    _check_variants(sweep)
    _check_machines(sweep)
    for package in ("mlflow", "wandb"):
        if getattr(sweep.logging, package) is not None and find_spec(package) is None:
            raise sweep.error(("logging", package), f"needs a package: pip install 'arm-sampling[{package}]'")
    return _searched(sweep)


def _check_finite(source: Source, value: object, place: tuple[str | int, ...]) -> None:
    """No setting is infinite, no number, or an integer that becomes infinite as a float."""
    if isinstance(value, int | float) and not abs(value) < _LARGEST:  # also false for nan
        raise InputError(source.error(place, f"must be a finite number below {_LARGEST:g}, got {str(value)[:20]}"))
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            _check_finite(source, item, (*place, key))


def _check_models(sweep: Sweep) -> None:
    """There is something to do, under names that tell it apart."""
    if not sweep.datasets and not sweep.checkpoints:
        raise sweep.error((), "needs `datasets:` to train on, or `checkpoints:` to time; add one of them")
    for name in sweep.checkpoints:
        place = ("checkpoints", name)
        if name in sweep.datasets:
            raise sweep.error(place, "is the name of a dataset too; give one of them another")
        if sweep.timing is None:
            raise sweep.error(place, "is only timed, and there is no `timing:`; add it")


def _check_variants(sweep: Sweep) -> None:
    for name, entry in sweep.datasets.items():
        for index, variant in enumerate(entry.variants or [] if entry is not None else []):
            place = ("datasets", name, "variants", index)
            if variant not in sweep.variants:
                raise sweep.error(place, str(suggest("variant", variant, sweep.variants)))
            if sweep.search is not None:
                raise sweep.error(place, "a search tries every variant on every dataset; leave `variants` out")
    for index, spec in enumerate(sweep.timing.samplers if sweep.timing is not None else []):
        for number, variant in enumerate(spec.variants or []):
            if variant not in sweep.variants:
                at = ("timing", "samplers", index, "variants", number)
                raise sweep.error(at, str(suggest("variant", variant, sweep.variants)))


def _check_machines(sweep: Sweep) -> None:
    """Samplers have the devices that they are for."""
    gpus = sweep.resources.timing.gpus
    for index, spec in enumerate(sweep.timing.samplers if sweep.timing is not None else []):
        if spec.native and gpus:
            said = f"is for CPUs, and timing jobs take {gpus} GPU (`resources`); leave it out"
            raise sweep.error(("timing", "samplers", index, "native"), said)


def _searched(sweep: Sweep) -> Sweep:
    """The sweep with a variant for every trial of its search."""
    if sweep.search is None:
        return sweep
    if sweep.timing is not None:
        raise sweep.error(("timing",), "a search only trains; time its best setting in a sweep of its own")
    for name, entry in sweep.datasets.items():
        for key in sweep.search.space:
            part, _, option = key.partition(".")
            if entry is not None and option in getattr(entry, part):
                place = ("datasets", name, part, option)
                raise sweep.error(place, f"would hide what the search tries for {key}; leave it out")
    variants = {}
    for name, variant in sweep.variants.items():
        for number, trial in enumerate(sweep.search.trials()):
            if "forecasting" in trial and variant.forecasting is None:
                raise sweep.error(("search", "space"), f"the variant {name!r} has no `forecasting:` to search in")
            parts = {part: {**(getattr(variant, part) or {}), **options} for part, options in trial.items()}
            variants[f"{name}-{number:02d}"] = variant.model_copy(update=parts)
    found = sweep.model_copy(update={"variants": variants})
    found._source = sweep._source
    return found


def _fault(source: Source, item: dict[str, Any]) -> str:
    """One fault that pydantic found, as file:line: key: what is wrong."""
    place = tuple(part for part in item["loc"] if not str(part).startswith(("literal[", "constrained-")))
    if item["type"] == "extra_forbidden":
        model = _model_at(place[:-1])
        valid = [name for name in model.model_fields if name != "profile"] + ["profiles"] * (model is Sweep)
        return source.error(place, str(suggest("key", str(place[-1]), valid)))
    if item["type"] == "missing":
        return source.error(place, "is missing and must be given")
    return source.error(place, reason(item))


def _model_at(place: tuple[str | int, ...]) -> type[BaseModel]:
    """The model that describes a place of the file."""
    named: dict[Any, type[BaseModel]] = {}
    match place:
        case ("timing", "samplers", _):
            return SamplerSpec
        case ("search", *_):
            return SearchSpec
        case (_,):
            named = {"resources": Resources, "timing": TimingSpec, "logging": LoggingSpec}
        case (_, _):
            named = {"resources": Role, "checkpoints": Existing, "variants": VariantSpec}
    return named.get(place[0], Sweep) if place else Sweep
