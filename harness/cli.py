"""The command line. Bad input ends in one message and exit code 2; failed jobs in exit code 1."""

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from arm_core.errors import InputError

if TYPE_CHECKING:
    from harness.sweep.jobs import Existing


class Finite(click.FloatRange):
    """A number in a range; `nan` is in every range that click knows."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


class Place(click.Path):
    """A path; `~` is the home of its user also where no shell saw it, as in --store=~/runs."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path."""
        return super().convert(os.path.expanduser(value), param, ctx)


POSITIVE = click.IntRange(min=1)
STORE = click.option("--store", default="runs", type=Place(), help="The folder of the results.")
ROOT = click.option("--root", type=Place(), help="The folder with the data; else ARM_DATA, or ./data.")
SLOTS = click.option("--slots", default=16, type=POSITIVE, help="Samples in work at a time.")
ADDRESS = click.option("--address", default="local", metavar="local|HOST:PORT", help="The Ray cluster.")


class _Layout(click.ParamType):
    """Four numbers with an x between: channels, height, width, categories."""

    name = "CxHxWxK"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        parts = str(value).split("x")
        if len(parts) != 4 or not all(part.isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"must be channels x height x width x categories, such as 1x16x16x1024; got {value!r}")
        return [int(part) for part in parts]


def _model_options(command: Any) -> Any:
    """What a checkpoint does not say of itself."""
    for option in (
        click.option("--classes", default=0, help="With --layout: number of labels; their tokens follow --start."),
        click.option("--offset", default=0, help="With --layout: the token of category 0."),
        click.option("--start", type=int, help="With --layout: the token before the first one; BOS if left out."),
        click.option("--layout", type=_Layout(), help="For a folder of save_pretrained: its layout."),
        click.option("--arm", help="The ARM's class, if it is not a registered one: file.py:MyArm."),
    ):
        command = option(command)
    return command


def _model(path: Path | None, options: dict[str, Any]) -> "Existing":
    """The model at a path ("": another one), with what the options say of it; they are taken out."""
    from harness.sweep.jobs import Existing

    given = {name: options.pop(name) for name in ("arm", "layout", "start", "offset", "classes")}
    for name in ("start", "offset", "classes"):
        if given[name] and given["layout"] is None:
            raise InputError(f"--{name} is for a folder of save_pretrained; add its --layout, or leave it out")
    return Existing(path=str(path or ""), **given)


class _BadInput(click.ClickException):
    exit_code = 2


@contextmanager
def refusals() -> Iterator[None]:
    """Bad input ends in one message and exit code 2."""
    try:
        yield
    except InputError as error:
        raise _BadInput(str(error)) from None
    except OSError as error:
        if error.filename is None:  # not about a path that the user gave
            raise
        raise _BadInput(f"{error.filename}: {error.strerror}; give another path") from None


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        with refusals(), warnings.catch_warnings():
            show = warnings.showwarning
            warnings.showwarning = lambda message, category, *place: (
                click.echo(f"Note: {message}", err=True) if category is UserWarning else show(message, category, *place)
            )
            return super().invoke(ctx)


def _show_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from harness.commands.doctor import version_line

        click.echo(f"harness {version_line()}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show versions and the device, and exit.",
)
def main() -> None:
    """Train autoregressive image models, time exact fast samplers on them, and report it.

    \b
    Start here:
      harness sweep quickstart
      harness report --out reports/

    \b
    Shell completion, for this shell (bash; or zsh, fish):
      eval "$(_HARNESS_COMPLETE=bash_source harness)"
    """


def _complete_sweep(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from harness.sweep.shipped import shipped_sweeps

    names = [CompletionItem(name) for name in shipped_sweeps() if name.startswith(incomplete)]
    return [*names, CompletionItem(incomplete, type="file")]


@main.command()
@click.argument("file", type=Place(), shell_complete=_complete_sweep)
@click.option("--profile", help="One of the file's profiles; it overrides the file's settings.")
@click.option(
    "--only", multiple=True, metavar="KEY=VALUE", help="Only these: dataset=, variant= or seed=; may be repeated."
)
@click.option("--dry-run", is_flag=True, help="Build the models, show what would run; run nothing.")
@click.option("--verbose", is_flag=True, help="With --dry-run: every setting of every job.")
@click.option("--serial", is_flag=True, help="Run the jobs one after the other in this process, without Ray.")
@ADDRESS
@click.option("--dashboard/--no-dashboard", default=True, help="Whether the local Ray has its dashboard.")
@STORE
def sweep(**options: Any) -> None:
    """Train and time what FILE asks for; finished jobs are skipped.

    FILE may also be the name of a sweep that comes with the package: quickstart, table1, table2, ablations, ...

    \b
    Examples:
      harness sweep quickstart --dry-run
      harness sweep table1 --profile laptop --only dataset=binary_digits
      harness sweep sweeps/quickstart.yaml --only dataset=digits --serial
    """
    from harness.commands.sweep import SweepCommand, run_sweep

    raise SystemExit(run_sweep(SweepCommand(**options)))


@main.command()
@click.option("--out", default="reports", type=Place(), help="Folder to write to.")
@click.option("--sweep", "sweeps", multiple=True, metavar="NAME", help="Only this sweep's jobs; may be repeated.")
@click.option(
    "--only",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only these: dataset, variant, profile, seed, sampler, batch_size.",
)
@click.option("--mix", multiple=True, metavar="WHAT", help="Compare across device, version, checkpoint or status.")
@click.option("--reference", type=Place(), help="Published numbers to stand beside ours (CSV).")
@click.option("--diff", "other", metavar="STORE", type=Place(), help="Say what changed since STORE.")
@click.option("--animate", type=Place(), help="Show how samplers draw: a checkpoint, or a .gif that `sample` made.")
@click.option(
    "--figures",
    default=6,
    type=click.IntRange(min=0),
    help="At most so many panels a figure, and datasets with figures.",
)
@STORE
def report(store: Path, out: Path, **options: Any) -> None:
    """Write tables, figures and one HTML page from the store.

    \b
    Examples:
      harness report --sweep table1@laptop --sweep ablations --out reports/tables
      harness report --only dataset=mnist5k --reference published.csv
      harness report --diff runs-of-last-week/
      harness report --animate runs/jobs/JOB/checkpoint
    """
    from harness.commands.report import run_report

    run_report(store, out, **options)


@main.command()
@STORE
def status(store: Path) -> None:
    """Show how far every job of every sweep is.

    Reads files only, also while a sweep runs.

    \b
    Example:
      harness status --store /shared/runs
    """
    from harness.commands.report import show_status

    show_status(store)


@main.command()
@click.argument("file", required=False, type=Place())
@click.option("--profile", help="One of the file's profiles.")
@click.option("--head", default="HEAD:6379", help="Address of the head node, for the other nodes.")
@click.option("--slurm", is_flag=True, help="Print a SLURM batch script of the whole cluster and the sweep.")
@click.option("--train-nodes", default=2, type=POSITIVE, help="Training nodes, with --slurm.")
@click.option("--address", metavar="HOST:PORT", help="Look at the nodes of a running cluster instead.")
@STORE
def nodes(file: Path | None, store: Path, **options: Any) -> None:
    """Print the commands that start a cluster for FILE, or check one.

    \b
    Examples:
      harness nodes sweeps/table1.yaml --profile paper
      harness nodes sweeps/table1.yaml --profile paper --slurm
      harness nodes sweeps/table1.yaml --profile paper --address HEAD:6379
    """
    from harness.commands.nodes import show_nodes

    show_nodes(file, root=store, **options)


@main.command()
@click.argument("checkpoint", type=Place())
@click.option("--count", default=16, type=POSITIVE, help="Number of samples.")
@click.option("--seed", default=10, type=click.IntRange(min=0), help="Seed of the noise.")
@click.option("--out", type=Place(), help="The file to write: a .png grid or .npz arrays.")
@click.option("--animate", type=Place(), help="A .gif: how samples come about under three samplers.")
@click.option("--sampler", default="fixed_point_above", help="A forecaster, or ancestral.", metavar="NAME")
@click.option("--horizon", type=int, help="Modules to use, with --sampler learned.")
@click.option("--window", type=POSITIVE, help="Values that a call evaluates of each sample; measured if left out.")
@SLOTS
@click.option("--temperature", default=1.0, help="Divides the logits; 0 takes the likeliest category.")
@click.option("--top-k", type=POSITIVE, help="Keep the K likeliest categories of each value.")
@click.option(
    "--top-p", type=Finite(0, 1, min_open=True), help="Keep the likeliest categories that together have probability P."
)
@click.option("--min-p", type=Finite(0, 1), help="Keep categories at least P times as likely as the likeliest.")
@click.option("--prefix", type=Place(), help="Images to complete: a .npz, .npy or picture. Sample i completes image i.")
@click.option("--keep", type=int, metavar="ROWS", help="With --prefix: rows that are kept; the upper half if left out.")
@click.option("--context", type=click.IntRange(min=0), help="The class of all samples, for a conditional ARM.")
@click.option("--guidance", type=Finite(), help="Scale of classifier-free guidance to the class.")
@click.option("--certified", is_flag=True, help="Prove every sample in float64: the same on every machine.")
@click.option("--card", is_flag=True, help="The same, and write beside OUT what `harness verify` checks.")
@click.option("--native", is_flag=True, help="Compile kernels in C++ and use them: faster on a CPU.")
@click.option("--workers", default=1, type=POSITIVE, help="Processes; more than 1 run on Ray.")
@ADDRESS
@_model_options
def sample(checkpoint: Path, **options: Any) -> None:
    """Draw samples from the ARM in the folder CHECKPOINT.

    CHECKPOINT is what a training left, or a folder of save_pretrained with --layout.

    A sample depends on the seed, its number and the options from --temperature to --guidance, and on nothing else.

    \b
    Examples:
      harness sample runs/jobs/JOB/checkpoint --seed 10 --count 16 --out grid.png
      harness sample results/checkpoint --animate how.gif
      harness sample results/checkpoint --prefix digits.npz --keep 14 --out completed.png
      harness sample runs/jobs/JOB/checkpoint --top-k 1 --context 3 --guidance 2 --out threes.png
      harness sample runs/jobs/JOB/checkpoint --count 100000 --slots 64 --workers 8 --out samples.npz
      harness sample my-llama/ --layout 1x16x16x1024 --start 1 --offset 4 --out tokens.npz
    """
    from harness.commands.sample import sample as draw

    draw(_model(checkpoint, options), **options)


@main.command("verify")
@click.argument("card", type=Place())
@click.option("--checkpoint", type=Place(), help="Where it is here, if not where the card says.")
@click.option("--samples", type=Place(), help="The .npz: prove these instead of drawing them again.")
@SLOTS
@_model_options
def verify_card(card: Path, checkpoint: Path | None, **options: Any) -> None:
    """Draw the samples of CARD again (`harness sample --card`) and compare them. Exit code 1: they are others.

    \b
    Examples:
      harness verify grid.card.json
      harness verify samples.card.json --samples samples.npz
    """
    from harness.commands.verify import verify

    raise SystemExit(verify(card, _model(checkpoint, options), **options))


@main.command()
@click.argument("checkpoint", type=Place())
@click.option("--out", default="reports/bench", type=Place(), help="Folder to write to.")
@click.option("--slots", default="1,4,16,64", help="Batch sizes and numbers of slots.")
@click.option("--repetitions", default=5, type=POSITIVE, help="How often each is timed, each time with other noise.")
@click.option("--samples-per-slot", default=4, type=POSITIVE, help="Samples that a stream draws in each slot.")
@click.option(
    "--patience", default=60.0, type=Finite(0, min_open=True), help="Leave out runs of more seconds than this."
)
@click.option("--native", is_flag=True, help="With kernels in C++ too, which are compiled first.")
@_model_options
@STORE
def bench(checkpoint: Path, out: Path, **options: Any) -> None:
    """Compare all samplers on the ARM in CHECKPOINT.

    Checks that their samples are equal first, then shows calls, work and time side by side.

    Writes a sweep file over the checkpoint, runs it in this process, and reports it; edit the file for more.

    \b
    Examples:
      harness bench runs/jobs/JOB/checkpoint
      harness bench results/checkpoint --slots 16 --repetitions 3 --out reports/sixteen
    """
    from harness.commands.bench import run_bench

    raise SystemExit(run_bench(_model(checkpoint, options), out, **options))


@main.command()
@click.argument("reference")
@click.option(
    "--kind", type=click.Choice(["arm", "forecaster", "dataset"]), help="What it is, if the class does not tell."
)
@click.option("--layout", type=_Layout(), help="Of an ARM; several small ones if left out.")
def check(reference: str, kind: str | None, layout: list[int] | None) -> None:
    """Prove that an ARM, a forecaster or a dataset keeps its contract.

    REFERENCE is a name, or file.py:attribute.

    \b
    Examples:
      harness check pixelcnn
      harness check my_forecaster.py:copy_left
      harness check my_arm.py:Mine --layout 1x16x16x1024
    """
    from arm_core import Layout
    from harness.commands.check import run_checks

    raise SystemExit(run_checks(reference, kind, Layout(*layout) if layout is not None else None))


@main.command()
@STORE
@ROOT
def doctor(store: Path, root: Path | None) -> None:
    """Say what works on this machine, and how to mend what does not.

    Exit code 1: nothing can run.

    \b
    Example:
      harness doctor --store /shared/runs
    """
    from harness.commands.doctor import run_doctor

    raise SystemExit(run_doctor(store, root))


BINARISE = click.option(
    "--binarise", type=click.Choice(["fixed", "dynamic", "static", "threshold"]), help="How grey images become binary."
)


@main.group()
def data() -> None:
    """Datasets: which are here, whether they are the published ones."""


@data.command("list")
@ROOT
def list_datasets(root: Path | None) -> None:
    """Every dataset: its status, its size, and where it is or was looked for.

    \b
    Example:
      harness data list --root /data
    """
    from harness.commands.data import list_data

    list_data(root)


@data.command()
@click.argument("name")
@ROOT
@BINARISE
def verify(name: str, root: Path | None, binarise: str | None) -> None:
    """Check a dataset's checksums, counts, shapes and values; NAME may also be npz:PATH or folder:PATH.

    Large datasets are converted on the way, which training would do otherwise. Exit code 1: something is not as
    published.

    \b
    Examples:
      harness data verify mnist5k
      harness data verify folder:photos/
    """
    from harness.commands.data import verify_data

    raise SystemExit(verify_data(name, root, {"binarise": binarise} if binarise else {}))


@data.command()
@click.argument("name")
@ROOT
@BINARISE
@click.option("--mirror", multiple=True, metavar="URL", help="A folder to ask first; may be repeated.")
def fetch(name: str, root: Path | None, binarise: str | None, mirror: tuple[str, ...]) -> None:
    """Download the published files of a dataset, and check them.

    A download that was cut off goes on. No other command downloads anything.

    \b
    Examples:
      harness data fetch cifar10
      harness data fetch mnist --binarise fixed
    """
    from arm_core.data import DataOptions
    from harness.commands.data import fetch_data

    raise SystemExit(fetch_data(name, root, DataOptions(binarise=binarise), mirror))  # type: ignore[arg-type]
