"""Which rows count: what a report is about, and what it leaves out and why.

A report is about the jobs that sweeps ask for, as of their last run, and calls them what those sweeps call them: rows
know no names, the records of the sweeps do, and both are joined here. A job of several names stands under each of them.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from arm_core.errors import InputError
from arm_core.registry import suggest
from harness.report.comparable import BLOCK, MIXABLE, comparable, few
from harness.report.naming import Named, named
from harness.report.statistics import (
    AVERAGED,
    DIMS_PER_CALL,
    DISTANCES,
    GROUP,
    HIT_RATES,
    PERCENTILES,
    RATIOS,
    paired_speedup,
)
from harness.store import SCHEMAS, Ragged, Store

KEYS = ("dataset", "variant", "profile", "seed", "sampler", "batch_size")
"""What `--only` takes; `seed` is that of training."""
_OF_ROWS = ["job", "status", "is_warmup", "sampler", "batch_size", "samples", "seed"]
_NAMES = ["job", *GROUP]
_OF_ROWS += ["dims", "wall_s", "exact_fraction", "smallest_gap", "busy", "peak_mem_bytes", "energy_j"]
_LISTS = {"arm_calls", "arm_work", "mistakes", "dims_per_call", "mistaken_per_call", "repairs"}
_OF_RUNS = [name for name in SCHEMAS["timings"].names if name not in {*_OF_ROWS, *_LISTS} - {"job", "status", "dims"}]


@dataclass
class Selection:
    """What a report is about.

    Attributes:
        trials, autoencoders: the trainings that count, a row a name; `kind` and `data_status` added to trials.
        runs: a row a name of a timing job that counts: names, machine, what it was trained on.
        repetitions: a row a counted repetition and name: see `_repetitions`.
        unfinished: a row a name of a job without a result: names, kind, state.
        left_out: a sentence for everything that is not in the report, and why.
        footnotes: what a reader must know of what is in it.
    """

    trials: pd.DataFrame
    autoencoders: pd.DataFrame
    runs: pd.DataFrame
    repetitions: pd.DataFrame
    unfinished: pd.DataFrame
    left_out: list[str] = field(default_factory=list)
    footnotes: list[str] = field(default_factory=list)


def select(
    store: Store, *, sweeps: Sequence[str] = (), only: Sequence[str] = (), mix: Collection[str] = ()
) -> Selection:
    """The rows of a store that a report compares.

    Args:
        store: to read.
        sweeps: names of recorded sweeps, of one profile (`table1@laptop`) or of all; none: everything.
        only: `KEY=VALUE` of `KEYS`; several values of one key add up.
        mix: of `MIXABLE`: differences that do not keep a block out.

    Raises:
        InputError: an unknown sweep, key or kind of mixing, or a filter that no row fits.
    """
    for name in mix:
        if name not in MIXABLE:
            raise suggest("kind of --mix", name, MIXABLE)
    names, left_out, unreadable = *_names(store, sweeps), dict[Path, str]()

    def rows_of(table: str, kind: str, **options: Any) -> pd.DataFrame:
        of = names[names["kind"] == kind]
        return store.read(table, jobs=set(of["job"]), unreadable=unreadable, **options).merge(of[_NAMES], on="job")

    trials, encoders = rows_of("trials", "train"), rows_of("autoencoders", "autoencoder")
    runs = rows_of("timings", "timing", columns=_OF_RUNS, first=1)
    left_out = [*unreadable.values(), *left_out]
    left_out += _lost(encoders, "autoencoder") + _lost(trials, "training") + _lost(runs, "timing")
    wanted = _filters(only, names)
    trained, timed = _done(trials), _done(runs)
    several = _several(trained, timed)
    trials = _fit(trained, wanted, "seed").sort_values([*GROUP, "seed"], kind="stable")
    runs = _fit(timed, wanted, "train_seed").sort_values([*GROUP, "train_seed"], kind="stable")
    trials = trials.assign(
        kind=_kinds(trials, trials["autoencoder_job"], several), data_status=trials["dataset_status"].fillna("unknown")
    )
    runs, footnotes = comparable(_with_training(runs, trained, several), mix, left_out)
    repetitions = _fit_samplers(_repetitions(_timings(store, set(runs["job"])), runs), wanted)
    footnotes += _doubts(repetitions, runs)
    encoders = _done(encoders)
    used = set(trials["autoencoder_job"].dropna())
    encoders = encoders[encoders["job"].isin(used)] if only else encoders
    unfinished = _fit(names[~names["state"].isin(["done", "lost"])], wanted, "seed")
    return Selection(trials, encoders, runs, repetitions, unfinished, left_out, footnotes)


def _names(store: Store, sweeps: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """A row for every name that the sweeps (none: all of the store) give to a job; and what of them has no result yet.

    Columns: job, kind (of job), those of `GROUP`, seed, title, state.
    """
    records, found, said = store.sweeps(), [], []
    for sweep in sweeps:
        if not any(sweep in (name, record["sweep"]) for name, record in records.items()):
            raise suggest("sweep in this store", sweep, records)
    every = store.outcomes(unreadable={}) if not sweeps else None
    for name, record in records.items():
        if sweeps and name not in sweeps and record["sweep"] not in sweeps:
            continue
        states = every or store.outcomes({job["id"]: None for job in record["jobs"]}, unreadable={})
        whose = {"sweep": record["sweep"], "profile": record["profile"]}
        found += [{**job, **whose, "state": states.get(job["id"], "waiting")} for job in record["jobs"]]
        missing = [job["title"] for job in record["jobs"] if job["id"] not in states]
        if missing:
            said.append(f"{name}: {len(missing)} of {len(record['jobs'])} jobs have no result yet ({few(missing)}).")
    nameless = set(every or ()) - {row["id"] for row in found}
    if nameless:
        said.append(f"{len(nameless)} finished jobs are left out: no sweep of this store asks for them now.")
    columns = ["id", "kind", *GROUP, "seed", "title", "state"]
    frame = pd.DataFrame(found, columns=columns).rename(columns={"id": "job"})
    text = pd.StringDtype(na_value=np.nan)
    return frame.astype({name: text for name in frame if name != "seed"}), said


def _timings(store: Store, jobs: set[str]) -> pd.DataFrame:
    """The counted timings, a number in place of each list: what the batch took, what its samples did on average."""
    unreadable: dict[Path, str] = {}  # they are not among the jobs
    lists = ["arm_calls", "arm_work", "dims_per_call", "mistaken_per_call", "repairs"]
    frame, ragged = store.read_ragged("timings", _OF_ROWS, lists, jobs=jobs, unreadable=unreadable)
    calls, work, histogram, mistaken, repairs = ragged
    frame = frame.assign(
        batch_calls=_reduced(calls, np.maximum),
        work=_reduced(work, np.add) / np.maximum(work.lengths, 1),
        repaired=_reduced(repairs._replace(values=1.0 * (repairs.values > 0)), np.add) / np.maximum(repairs.lengths, 1),
        **_of_histograms(histogram),
        **_hit_rates(histogram, mistaken),
    )
    return frame[(frame["status"] == "done") & ~frame["is_warmup"].fillna(False).astype(bool)]


def _reduced(lists: Ragged, reduce: np.ufunc) -> np.ndarray:
    """One number a list; nan for an empty one."""
    found = np.full(len(lists.lengths), np.nan)
    filled = lists.lengths > 0
    if filled.any():
        starts = np.cumsum(lists.lengths) - lists.lengths
        found[filled] = reduce.reduceat(lists.values, starts[filled])
    return found


def _of_histograms(lists: Ragged) -> dict[str, np.ndarray]:
    """Mean and percentiles over the calls whose numbers lie in each list at 0, 1, 2, ... dims; nan for an empty one."""
    starts = np.cumsum(lists.lengths) - lists.lengths
    dims = np.arange(len(lists.values)) - np.repeat(starts, lists.lengths)
    total = _reduced(lists, np.add)
    found = {"dims_per_call": _reduced(Ragged(dims * lists.values, lists.lengths), np.add) / total}
    until = np.concatenate([[0], np.cumsum(lists.values)])
    for share in PERCENTILES:
        place = np.searchsorted(until[1:], until[starts] + share / 100 * np.nan_to_num(total)) - starts
        found[f"dims_per_call_p{share}"] = np.where(np.isnan(total), np.nan, place)
    return found


def _hit_rates(lists: Ragged, mistaken: Ragged) -> dict[str, np.ndarray]:
    """`HIT_RATES`, from how many calls made 0, 1, 2, ... dims final and how many of those a wrong forecast ended.

    nan where no call made so many final, and where no forecast was wrong: most such samplers forecast nothing.
    """
    until, ends = np.concatenate([[0], np.cumsum(lists.values)]), np.cumsum(lists.lengths)
    first_wrong = np.cumsum(mistaken.lengths) - mistaken.lengths
    found = {}
    for name, distance in zip(HIT_RATES, DISTANCES, strict=True):
        inside, known = lists.lengths > distance, mistaken.lengths > distance
        calls = np.where(inside, until[ends] - until[np.where(inside, ends - lists.lengths + distance, ends)], np.nan)
        wrong = np.zeros(len(calls))
        wrong[known] = mistaken.values[(first_wrong + distance)[known]]
        found[name] = np.where(mistaken.lengths > 0, 1 - wrong / calls, np.nan)
    return found


def _lost(rows: pd.DataFrame, kind: str) -> list[str]:
    """Failed jobs, those with one error in one sentence; and how many a search stopped."""
    said = []
    failed = rows[rows["status"] == "failed"].drop_duplicates(_NAMES)
    for error, part in failed.groupby(failed["error"].fillna("unknown error"), sort=False):
        names = [_name(row) for _, row in part.iterrows()]
        said.append(f"The {kind} of {few(names)} failed: {str(error).splitlines()[0]}")
    stopped = rows[rows["status"] == "stopped"]["job"].nunique()
    if stopped:
        said.append(f"{stopped} trainings are left out: their search gave them up early.")
    return said


def _name(row: pd.Series) -> str:
    variant = row.get("variant")
    return row["dataset"] if not isinstance(variant, str) else f"{row['dataset']} ({variant})"


def _done(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["status"] == "done"]


def _filters(only: Sequence[str], names: pd.DataFrame) -> dict[str, set[str]]:
    wanted: dict[str, set[str]] = {}
    for item in only:
        key, equals, value = item.partition("=")
        if not equals or key not in KEYS:
            raise InputError(f"--only takes KEY=VALUE with KEY one of {', '.join(KEYS)}; got {item!r}")
        wanted.setdefault(key, set()).add(value)
    for key in ("dataset", "variant", "profile", "seed"):
        valid = {str(value) for value in names[key].dropna().unique()}
        for value in wanted.get(key, set()) - valid:
            raise suggest(f"{key} in --only", value, valid)
    return wanted


def _fit(rows: pd.DataFrame, wanted: dict[str, set[str]], seed: str) -> pd.DataFrame:
    """The rows of wanted datasets, variants, profiles and seeds; `seed` is what the frame calls that of training."""
    for key, column in {"dataset": "dataset", "variant": "variant", "profile": "profile", "seed": seed}.items():
        if key in wanted:
            rows = rows[rows[column].astype(str).isin(wanted[key])]
    return rows


def _fit_samplers(repetitions: pd.DataFrame, wanted: dict[str, set[str]]) -> pd.DataFrame:
    for key, column in (("sampler", "label"), ("batch_size", "batch_size")):
        if values := wanted.get(key):
            labels = repetitions[column].astype(str)
            families = labels.str.partition(", ")[0]  # "learned" is "learned, T=2" and "learned, T=4"
            for value in sorted(values - set(labels) - set(families)):
                raise suggest(f"{key} in --only", value, set(labels))
            repetitions = repetitions[labels.isin(values) | families.isin(values)]
    return repetitions


def _several(trials: pd.DataFrame, runs: pd.DataFrame) -> set[tuple[str, ...]]:
    """The blocks of more than one variant: ablations."""
    sizes = pd.concat([trials[GROUP], runs[GROUP]]).fillna("").drop_duplicates().value_counts(BLOCK)
    return set(sizes[sizes > 1].index)


def _kinds(rows: pd.DataFrame, autoencoders: Iterable[object], several: set[tuple[str, ...]]) -> list[str]:
    """latent, ablation or explicit, for each row."""
    blocks = rows[BLOCK].fillna("").itertuples(index=False, name=None)
    return [
        "latent" if isinstance(autoencoder, str) else "ablation" if block in several else "explicit"
        for block, autoencoder in zip(blocks, autoencoders, strict=True)
    ]


def _with_training(runs: pd.DataFrame, trials: pd.DataFrame, several: set[tuple[str, ...]]) -> pd.DataFrame:
    """What each run was trained on, from its training; unknown where that is not in the store."""
    about = {name: name for name in ("dataset_status", "dataset_sha256", "autoencoder_job")}
    about |= {"trained_sha256": "checkpoint_sha256"}
    joined = runs.assign(**{new: looked_up(trials, "job", name, runs["train_job"]) for new, name in about.items()})
    for name in ("dataset_status", "dataset_sha256"):  # of a checkpoint that was there before: what it says itself
        joined[name] = joined[name].fillna(runs[name])
    latents = joined["latents"].fillna(False).astype(bool)
    kinds = _kinds(joined, joined["autoencoder_job"].where(~latents, "latents"), several)
    return joined.assign(kind=kinds, data_status=joined["dataset_status"].fillna("unknown"))


def looked_up(rows: pd.DataFrame, key: str, column: str, keys: pd.Series) -> np.ndarray:
    """The value of `column` in the row of each key, nan where there is none; frames without rows are fine."""
    known = dict(zip(rows[key], rows[column], strict=True))
    return np.array([known.get(item, np.nan) for item in keys.unique()], dtype=object)[pd.factorize(keys)[0]]


def _repetitions(rows: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """A row a repetition of a run that counts.

    Columns: job, those of `GROUP`, kind, data_status, train_seed, sampler (described), those of `naming.Named`,
    batch_size (slots, where samples went through slots), seed, samples, calls_percent (of the slowest sample, in
    percent of the dimensions), those of `DIMS_PER_CALL` and `HIT_RATES`, joules (a sample), work (full passes a
    sample), seconds (a sample), those of `RATIOS`, peak_mem_bytes, exact_fraction, repaired (share of the samples that
    a proof overruled; nan without proofs), smallest_gap, busy, in_law. Rows that repeat a sampler in one run count as
    one, their mean.
    """
    of, described = pd.factorize(rows["sampler"])  # a million rows share a few descriptions
    names = [named(str(each)) for each in described]
    found = rows[["job", "sampler"]].assign(
        **{key: np.array([getattr(name, key) for name in names], object)[of] for key in Named._fields},
        batch_size=rows["batch_size"].fillna(0).astype(int),
        seed=rows["seed"],
        samples=rows["samples"].clip(lower=1),
        calls_percent=100 * rows["batch_calls"] / rows["dims"].astype(float),
        work=rows["work"],
        **{name: rows[name] for name in (*DIMS_PER_CALL, *HIT_RATES)},
        joules=rows["energy_j"].astype(float) / rows["samples"].clip(lower=1),
        peak_mem_bytes=rows["peak_mem_bytes"].astype(float),
        seconds=rows["wall_s"].astype(float) / rows["samples"].clip(lower=1),
        exact_fraction=rows["exact_fraction"].astype(float),
        repaired=rows["repaired"],
        smallest_gap=rows["smallest_gap"].astype(float),
        busy=rows["busy"].fillna(False).astype(bool),
    )
    found["in_law"] = found["family"] == "law"
    twice = ["job", "label", "batch_size", "seed"]
    if found.duplicated(twice).any():
        measured, same = (
            ["calls_percent", "work", "seconds", "dims_per_call", *AVERAGED],
            found.groupby(twice, dropna=False),
        )
        found[measured] = same[measured].transform("mean")
        found["exact_fraction"] = same["exact_fraction"].transform("min")
        found = found.drop_duplicates(twice)
    found = found.reset_index(drop=True)
    found = found.assign(**{name: paired_speedup(found, reference) for name, reference in RATIOS.items()})
    of_run = runs[["job", "kind", "data_status", *GROUP, "train_seed"]]
    return found.merge(of_run.astype(dict.fromkeys(of_run, object) | {"job": found["job"].dtype}), on="job")


def _doubts(rows: pd.DataFrame, runs: pd.DataFrame) -> list[str]:
    """What a reader should know of rows that are in the tables."""
    said = []
    busy = int(rows["busy"].sum())
    if busy:
        said.append(f"During {busy} of {len(rows)} timed repetitions other processes used the machine.")
    for (dataset, name), part in rows[rows["exact_fraction"] < 1].groupby(["dataset", "label"]):
        said.append(
            f"{dataset}, {name}: {len(part)} repetitions have samples that differ from the ancestral ones "
            f"(largest gap between the best two at a first mismatch: {part['smallest_gap'].max():.2g})."
        )
    for what in ("device", "commit"):
        values = runs[what].dropna().astype(str).unique()
        if len(values) > 1:
            short = [value[:10] if what == "commit" else value for value in values]
            said.append(f"The runs of this report are of {len(values)} {what}s: {few(sorted(short))}.")
    for profile in sorted(set(runs["profile"].dropna()) - {"paper"}):
        said.append(f"Runs of the profile {profile} have settings of their own, not those of the paper.")
    dirty = runs["dirty"].fillna(False).astype(bool)
    if dirty.any():
        said.append(f"{int(dirty.sum())} of {len(runs)} timing jobs ran from a working tree with uncommitted changes.")
    return said
