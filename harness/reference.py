"""The reference run: every laptop sweep, report and bench, one after the other on a machine that does nothing else.

    python -m harness.reference          run everything (hours), write results/ and results/reference.json
    python -m harness.reference --readme put the tables of the committed results into README.md

Commands run as users run them, in processes of their own; reference.json has the machine, the commit, and for each
command its wall time and the last line that it printed.
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
from harness.bench_samplers_report import conditions, front_table, own_height, summary
from harness.jobs.machine import provenance
from harness.report.formats import markdown_rows
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
SAMPLERS = ("--slots", "1,4,16,64,256", "--heights", "16,56", "--patience", "12")
RECORD = "reference.json"


def commands(store: Path, out: Path) -> Iterator[list[str]]:
    """The arguments of every `harness` command, in their order; each is made when those before it have run."""
    for name, profile in SWEEPS.items():
        yield ["sweep", f"sweeps/{name}.yaml", *(["--profile", profile] if profile else []), "--store", str(store)]
        place = out if name == "quickstart" else out / name
        yield ["report", "--store", str(store), "--sweep", name, "--out", str(place)]
    for dataset in FORECASTING:
        yield ["bench-forecasting", *_checkpoints(store, dataset), "--out", str(out / "forecasting" / dataset)]
    yield ["bench", str(CHECKPOINT), "--out", str(out / "samplers"), *SAMPLERS]
    for size in STEP_SIZES:
        yield ["bench-training", *size]


def _checkpoints(store: Path, dataset: str) -> list[str]:
    trials = Store(store).read("trials", unreadable={})
    rows = trials[(trials["sweep"] == "ablations") & (trials["dataset"] == dataset) & (trials["status"] == "done")]
    return sorted(rows["checkpoint"])


def run(store: Path, out: Path) -> None:
    """Run everything and keep the record as it goes.

    Raises:
        InputError: the store has rows already: what is left of a sweep does not take what the sweep takes.
        click.ClickException: a command failed.
    """
    if store.exists():
        raise InputError(
            f"the store {store} exists already; a sweep that goes on tells no wall time: give a new --store"
        )
    out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "machine": {name: value for name, value in provenance().items() if name != "host"},
        "commands": [],
    }
    for arguments in commands(store, out):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "harness", *arguments], stdout=subprocess.PIPE, text=True)
        wall = time.perf_counter() - started
        said = done.stdout.strip().splitlines()[-1:] or [""]
        # Where the store lies says nothing; the checkpoints in it are named by their jobs.
        command = " ".join(["harness", *arguments]).replace(str(store), "STORE")
        record["commands"].append({"command": command, "wall_s": round(wall, 1), "said": said[0]})
        (out / RECORD).write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")
        click.echo(f"{wall:8.1f} s  {command[:100]}")
        if done.returncode:
            raise click.ClickException(f"{command} ended with exit code {done.returncode}")


def quickstart_table(out: Path, dataset: str) -> str:
    """What the README shows of one dataset of the quickstart: a row a sampler, its batch sizes side by side."""
    rows = pd.read_parquet(out / "speedup.parquet")
    rows = rows[(rows["dataset"] == dataset) & ~rows["sampler"].str.endswith(", slots")]
    sizes = sorted(rows["batch_size"].unique())
    cells = []
    for sampler, group in rows.groupby("sampler", sort=False):
        by = group.set_index("batch_size")
        cells.append([str(sampler), *(cell for size in sizes for cell in _cells(by, size)), _equal(group)])
    heads = [head for size in sizes for head in (f"ARM calls, batch {size}", "seconds", "speed-up")]
    return markdown_rows(["sampler", *heads, "equal to ancestral"], cells)


def _cells(by: pd.DataFrame, size: int) -> list[str]:
    if size not in by.index:
        return ["", "", ""]
    row = by.loc[size]
    calls = f"{row['calls_percent']:.1f} ± {row['calls_percent_std']:.1f} %"
    return [calls, f"{row['seconds']:.3g} ± {row['seconds_std']:.2g}", f"{row['speedup']:.3g}x"]


def _equal(group: pd.DataFrame) -> str:
    return "in law" if group["in_law"].any() else "yes" if group["equal"].all() else "no"


def wall_table(out: Path) -> str:
    """What each command of the reference run took."""
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    ran = [(re.sub(r" (--store|--out|STORE/).*", "", item["command"]), item) for item in record["commands"]]
    cells = [[f"`{name}`", f"{item['wall_s']:.0f} s"] for name, item in ran if " report" not in name]
    machine = record["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores; torch {machine['torch']}; commit `{machine['commit'][:10]}`"
    return markdown_rows(["command", "wall time"], cells) + f"\n{where}.\n"


def samplers_table(out: Path) -> str:
    """The samplers of `harness bench` side by side."""
    rows = pd.read_parquet(out / "samplers" / "samplers.parquet")
    found = summary(rows)
    return f"{front_table(found, own_height(rows))}\n{conditions(rows, found)}\n"


def fill_readme(readme: Path, out: Path) -> list[str]:
    """Put each table between its markers, `<!-- NAME -->` and `<!-- end of NAME -->`; returns the names found.

    Raises:
        InputError: the file has no marker, or one has no end.
    """
    text, found = readme.read_text(encoding="utf-8"), []
    datasets = pd.read_parquet(out / "speedup.parquet", columns=["dataset"])["dataset"].unique()
    made: dict[str, Callable[[], str]] = {
        f"results of {name}": partial(quickstart_table, out, name) for name in datasets
    }
    made |= {"wall times": partial(wall_table, out), "samplers": partial(samplers_table, out)}
    for name, table in made.items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if start not in text:
            continue
        before, _, rest = text.partition(start)
        if end not in rest:
            raise InputError(f"{readme}: {start} has no {end}")
        text = f"{before}{start}\n{table()}\n{end}{rest.partition(end)[2]}"
        found.append(name)
    if not found:
        raise InputError(f"{readme} has no marker; one of: {', '.join(made)}, as <!-- NAME -->")
    temporary = readme.with_name(f".{readme.name}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, readme)
    return found


@click.command(help=__doc__.split("\n", 1)[0] if __doc__ else None)
@click.option("--store", type=click.Path(path_type=Path), default=Path("runs/reference"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
@click.option("--readme", is_flag=True, help="Only put the tables of the results into README.md.")
def main(store: Path, out: Path, readme: bool) -> None:
    try:
        if readme:
            click.echo(f"README.md: {', '.join(fill_readme(Path('README.md'), out))}")
        else:
            run(store, out)
    except InputError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
