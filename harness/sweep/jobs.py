"""What a job is: everything that its result depends on, as it travels to the process that runs it.

A job has no name: what a sweep calls it is the matter of the plan (see `harness.sweep.plan.Named`). `title` is what the
run that does it shows meanwhile.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from harness.sweep.samplers import SamplerSpec

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Component(Frozen):
    """A reference and the options of what it stands for."""

    name: str
    options: dict[str, Any] = {}


class _Job(Frozen):
    id: str
    title: str


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
    arm: Component
    seed: int
    data: Component
    root: str | None
    autoencoder_job: str | None = None
    forecasting: dict[str, Any] | None
    training: dict[str, Any]
    init_from: str | None = None


class Existing(Frozen):
    """A trained ARM that no job of the sweep makes; in a file its path alone will do.

    Attributes:
        path: of the checkpoint, a folder; or of one that `save_pretrained` of transformers wrote, with a layout.
        arm: its class, `module:attr` or `file.py:attr`, if that is not a registered one.
        layout: channels, height, width and categories of the tokens of a `save_pretrained` folder.
        start, offset, classes: of it, see `arm_core.arms.TransformersDecoder.load`.
    """

    model_config = ConfigDict(strict=True)
    path: str
    arm: str | None = None
    layout: Annotated[list[Count], Field(min_length=4, max_length=4)] | None = None
    start: int | None = None
    offset: int = 0
    classes: int = 0

    @property
    def pretrained(self) -> dict[str, Any]:
        """What a folder of `save_pretrained` does not say of itself."""
        return self.model_dump(exclude={"path", "arm"})

    def absolute(self) -> "Existing":
        """The same from every working directory."""
        return self.model_copy(update={"path": str(Path(self.path).absolute())})

    @model_validator(mode="before")
    @classmethod
    def _as_path(cls, given: Any) -> Any:
        return {"path": given} if isinstance(given, str) else given


class TimingSettings(Frozen):
    """How samplers are timed: of a sweep file, and of each of its timing jobs.

    Attributes:
        batch_sizes: of samplers that take batches.
        slots: of samplers that stream; None: as many as the batch sizes, which their speed-ups are taken against.
        samples_per_slot: that a stream draws.
        patience: seconds; a run that would take longer, judged by the next smaller width, is left out; the
            smallest width always runs. None: no limit.
        seeds: of the noise; a repetition each.
        float64_samples: that every sampler has to draw alike in float64 before anything is timed.
        ancestral_seeds: repetitions with ancestral sampling, which takes longest: the first so many; None: all.
        dtype: of the ARM.
        figure_seed, figure_count: of the samples for the figures.
    """

    batch_sizes: Annotated[list[Count], Field(min_length=1)] = [1, 32]
    slots: Annotated[list[Count], Field(min_length=1)] | None = None
    samples_per_slot: Count = 4
    patience: Annotated[float, Field(gt=0)] | None = None
    seeds: Annotated[list[Seed], Field(min_length=1)] = list(range(10))
    ancestral_seeds: Count | None = None
    float64_samples: Annotated[int, Field(ge=0)] = 0
    dtype: Literal["float32", "float64"] = "float32"
    figure_seed: Seed = 10
    figure_count: Count = 16


class TimingJob(_Job, TimingSettings):
    """Time all samplers on one trained ARM, interleaved in one run: that of `train_job`, or of `checkpoint`.

    `arm` is the reference of its class, None for a registered one of a checkpoint; `sha256` that of a checkpoint when
    the sweep was planned.
    """

    kind: Literal["timing"] = "timing"
    arm: str | None
    train_job: str | None = None
    train_seed: int = 0
    checkpoint: Existing | None = None
    sha256: str | None = None
    samplers: list[SamplerSpec]
    slots: list[int]
    ancestral_seeds: int

    def widths_of(self, spec: SamplerSpec) -> list[int]:
        """At which a sampler is timed."""
        return self.slots if spec.stream else self.batch_sizes

    def seeds_of(self, spec: SamplerSpec) -> list[int]:
        """With which a sampler is timed at each width."""
        return self.seeds[: self.ancestral_seeds] if spec.sampler == "ancestral" else self.seeds

    def warms_up(self, spec: SamplerSpec) -> bool:
        """Whether a sampler runs before it is timed: ancestral sampling takes longest, and warms nothing more."""
        return spec.sampler != "ancestral"

    def repetitions_of(self, spec: SamplerSpec) -> int:
        """How many runs of a sampler are timed."""
        return len(self.widths_of(spec)) * len(self.seeds_of(spec))


Job = AutoencoderJob | TrainJob | TimingJob


def job_from_json(text: str) -> Job:
    """The job that `model_dump_json` wrote, whatever its kind."""
    return TypeAdapter(Job).validate_json(text)
