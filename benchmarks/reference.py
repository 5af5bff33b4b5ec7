"""The reference run: every laptop sweep, report and benchmark, one after the other on a machine that does nothing else.

    python -m benchmarks.reference           run everything (hours), write results/ and results/reference.json; once
                                             more: what is not in results/reference.json yet
    python -m benchmarks.reference --readme  put the tables of the committed results into results/README.md

Commands run as users run them, in processes of their own; reference.json has the machine, and for each command its
commit, its wall time and the last line that it printed. To run one anew, take its entry out; a `note` that you put into
an entry, such as "beside other work", stands in the table of wall times.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import pandas as pd

from arm_core.errors import InputError
from benchmarks.command import Benchmark
from harness.jobs.machine import provenance
from harness.report.formats import markdown_rows
from harness.report.lead import FAMILIES, leads
from harness.report.selection import select
from harness.report.tables import DASH, measured
from harness.store import Store

SWEEPS = {"quickstart": None, "table1": "laptop", "table2": "laptop", "ablations": "laptop", "overfit": "laptop"}
SWEEPS |= {"search": "laptop"}
"""Name and profile of each."""
STEP_SIZES = (
    ["--size", "28x28x1x2", "--resnets", "2", "--filters", "60", "--batch-size", "16", "--steps", "11"],
    ["--size", "32x32x3x256", "--batch-size", "4"],
    ["--size", "32x32x3x256", "--resnets", "1", "--filters", "24", "--batch-size", "64"],
)
"""Of the training step: binary MNIST, the paper's default, and its batch of 64 at a width that a laptop can hold."""
FORECASTING = ("binary_digits", "photos_3bit")
"""Datasets of the ablations whose modules are measured further."""
CHECKPOINT = Path("results/checkpoint")
"""The small binary ARM that comes with the repository."""
SAMPLERS = ("--native", "--slots", "1,16,64", "--patience", "12")
RECORD = "reference.json"


def commands(store: Path, out: Path) -> Iterator[list[str]]:
    """Module and arguments of every command, in their order; each is made when those before it have run."""
    for name, profile in SWEEPS.items():
        yield [
            "harness",
            "sweep",
            f"sweeps/{name}.yaml",
            *(["--profile", profile] if profile else []),
            "--store",
            str(store),
        ]
        place = out if name == "quickstart" else out / name
        yield ["harness", "report", "--store", str(store), "--sweep", name, "--out", str(place)]
    for dataset in FORECASTING:
        yield ["benchmarks.forecasting", *_checkpoints(store, dataset), "--out", str(out / "forecasting" / dataset)]
    yield ["harness", "bench", str(CHECKPOINT), "--store", str(store), "--out", str(out / "samplers"), *SAMPLERS]
    for size in STEP_SIZES:
        yield ["benchmarks.training", *size]


def _checkpoints(store: Path, dataset: str) -> list[str]:
    trials = select(Store(store), sweeps=["ablations"]).trials
    return [str(store / place) for place in sorted(trials.loc[trials["dataset"] == dataset, "checkpoint"])]


def run(store: Path, out: Path) -> None:
    """Run everything that the record does not have yet, and keep the record as it goes.

    Raises:
        InputError: the store has rows and the record has none: what is left of a sweep does not take what it takes.
        click.ClickException: a command failed.
    """
    place = out / RECORD
    if store.exists() and not place.exists():
        raise InputError(
            f"the store {store} exists already; a sweep that goes on tells no wall time: give a new --store"
        )
    out.mkdir(parents=True, exist_ok=True)
    machine = {name: value for name, value in provenance().items() if name != "host"}
    record: dict[str, Any] = {"machine": machine, "commands": []}
    if place.exists():
        record = json.loads(place.read_text(encoding="utf-8"))
    have = {item["command"] for item in record["commands"]}
    for arguments in commands(store, out):
        # Where results lie says nothing; the checkpoints in a store are named by their jobs.
        command = " ".join(arguments).replace(str(store), "STORE").replace(str(out), "results")
        command = command if arguments[0] == "harness" else f"python -m {command}"
        if command in have:
            continue
        goes_on = arguments[1] == "sweep" and Path(arguments[2]).stem in _begun(store)
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", *arguments], stdout=subprocess.PIPE, text=True)
        wall = time.perf_counter() - started
        click.echo(f"{wall:8.1f} s  {command[:100]}")
        if done.returncode:
            raise click.ClickException(f"{command} ended with exit code {done.returncode}")
        said = done.stdout.strip().splitlines()[-1:] or [""]
        took = None if goes_on else round(wall, 1)
        record["commands"].append({"command": command, "wall_s": took, "said": said[0], "commit": machine["commit"]})
        place.write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")


def _begun(store: Path) -> set[str]:
    """The sweeps that a store knows: what is left of one of them takes less than all of it."""
    return {record["sweep"] for record in Store(store).sweeps().values()} if store.exists() else set()


def samplers_table(report: Path, dataset: str) -> str:
    """A report's samplers on one dataset: a row a sampler, its widths side by side."""
    rows = pd.read_parquet(report / "speedup.parquet")
    rows = rows[rows["dataset"] == dataset]
    sizes = sorted(rows["batch_size"].unique())
    cells = []
    for sampler, group in rows.groupby("sampler", sort=False):
        by = group.set_index("batch_size")
        cells.append([str(sampler), *(cell for size in sizes for cell in _cells(by, size)), _equal(group)])
    heads = [head for size in sizes for head in (f"full passes, {size} at a time", "ms a sample", "over the paper's")]
    return markdown_rows(["sampler", *heads, "equal to ancestral"], cells)


def bench_table(out: Path) -> str:
    """The samplers of the bench on the checkpoint that comes with the repository."""
    report = out / "samplers"
    (dataset,) = pd.read_parquet(report / "speedup.parquet", columns=["dataset"])["dataset"].unique()
    return samplers_table(report, dataset)


def overview_table(out: Path) -> str:
    """The quickstart's datasets side by side: each family's fastest exact sampler at one width; on what machine."""
    rows, models = pd.read_parquet(out / "speedup.parquet"), pd.read_parquet(out / "models.parquet")
    cells = []
    for lead in leads(rows):
        (model,) = models[models["dataset"] == lead.title].itertuples()
        about = f"`{lead.title}` ({model.shape}, {model.categories} categories)"
        ms = {row[0].text: f"{row[3].text} ({row[1].text})" for row in lead.rows}
        cells.append([about, f"{model.test_bits_per_dim:.3f}", str(lead.width)])
        cells[-1] += [ms.get(family, DASH) for family in FAMILIES.values()]
    heads = ["dataset", "bits/dim", "at a time", *(f"{family}, ms a sample" for family in FAMILIES.values())]
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    commit = next(item["commit"] for item in record["commands"] if "quickstart" in item["command"])
    return markdown_rows(heads, cells) + f"\n{_machine(record)}; commit `{commit[:10]}`.\n"


def _machine(record: dict[str, Any]) -> str:
    machine = record["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores, no GPU; torch {machine['torch']}, Python {machine['python']}"


def _cells(by: pd.DataFrame, size: int) -> list[str]:
    if size not in by.index:
        return ["", "", ""]
    found = [measured(by.loc[size], name) for name in ("work", "seconds", "over_paper")]
    return [cell.text + (f" [{cell.interval}]" if cell.interval else "") for cell in found]


def _equal(group: pd.DataFrame) -> str:
    return "in law" if group["in_law"].any() else "yes" if group["equal"].all() else "no"


def wall_table(out: Path) -> str:
    """What each command of the reference run took."""
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    ran = [(re.sub(r" (--store STORE|STORE/\S+|\.\.\.)", "", item["command"]), item) for item in record["commands"]]
    cells = [[f"`{name}`", _took(item), f"`{item['commit'][:10]}`"] for name, item in ran if " report" not in name]
    return markdown_rows(["command", "wall time", "commit"], cells) + f"\n{_machine(record)}.\n"


def _took(item: dict[str, Any]) -> str:
    if item["wall_s"] is None:
        return "in several goes"
    return f"{item['wall_s']:.0f} s" + (f" ({item['note']})" if "note" in item else "")


def fill_readme(readme: Path, out: Path) -> list[str]:
    """Put each table between its markers, `<!-- NAME -->` and `<!-- end of NAME -->`; returns the names found.

    A table whose results are not there stays as it is; its name is then followed by what is missing.

    Raises:
        InputError: the file has no marker, or one has no end.
    """
    text, found = readme.read_text(encoding="utf-8"), []
    datasets = pd.read_parquet(out / "speedup.parquet", columns=["dataset"])["dataset"].unique()
    made: dict[str, Callable[[], str]] = {f"results of {name}": partial(samplers_table, out, name) for name in datasets}
    made |= {"wall times": partial(wall_table, out), "samplers": partial(bench_table, out)}
    made["quickstart"] = partial(overview_table, out)
    for name, table in made.items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if start not in text:
            continue
        before, _, rest = text.partition(start)
        if end not in rest:
            raise InputError(f"{readme}: {start} has no {end}")
        try:
            text = f"{before}{start}\n{table()}\n{end}{rest.partition(end)[2]}"
            found.append(name)
        except FileNotFoundError as error:
            found.append(f"{name} left as it is, since there is no {error}")
    if not found:
        raise InputError(f"{readme} has no marker; one of: {', '.join(made)}, as <!-- NAME -->")
    temporary = readme.with_name(f".{readme.name}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, readme)
    return found


@click.command(cls=Benchmark)
@click.option("--store", type=click.Path(path_type=Path), default=Path("runs/reference"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
@click.option("--readme", is_flag=True, help="Only put the tables of the results into results/README.md.")
def main(store: Path, out: Path, readme: bool) -> None:
    """Run every laptop sweep, report and benchmark that the record does not have yet.

    \b
    Example:
      python -m benchmarks.reference --readme
    """
    if readme:
        click.echo(f"{out / 'README.md'}: {', '.join(fill_readme(out / 'README.md', out))}")
    else:
        run(store, out)


if __name__ == "__main__":
    main()
