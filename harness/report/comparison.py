"""What got faster or slower between two stores.

The runs of two stores were never interleaved, so their seconds are compared on one device only, pairing the repetitions
of one dataset, sampler, width and seeds. Beside it stands the change of the speed-up over ancestral sampling, which was
paired inside each run and hence survives a change of machine.
"""

from collections.abc import Collection

import numpy as np
import pandas as pd

from harness.report.naming import rank
from harness.report.selection import Selection, looked_up
from harness.report.statistics import GROUP, mean_interval
from harness.report.tables import DASH, Block, Cell, Table, title

_KEY = [*GROUP, "label", "batch_size"]
_PAIR = [*_KEY, "train_seed", "seed"]
_DEVICE = ["device", "cpu", "threads"]
HEADINGS = ["dataset", "sampler", "batch", "pairs", "calls before", "calls now", "seconds", "speed-up", "verdict"]


def compare(before: Selection, now: Selection, mix: Collection[str]) -> Table:
    """Pair the repetitions of two stores.

    Args:
        before: the other store's.
        now: this store's.
        mix: "device" compares seconds of different devices all the same.

    Returns:
        A table of one block. Its frame has a row for each sampler and width that both stores have: pairs, calls_before
        and calls_now (percent), seconds_ratio and speedup_ratio (now over before: geometric means; seconds below 1 are
        faster) with `_low` and `_high`, verdict.
    """
    notes = [f"In the other store: {sentence}" for sentence in before.left_out]
    old, new = (_with_device(selection) for selection in (before, now))
    both = new.merge(old, on=_PAIR, suffixes=("_now", "_before"))
    same = both["machine_now"] == both["machine_before"]
    if not same.all() and "device" not in mix:
        names = sorted({*both.loc[~same, "machine_now"], *both.loc[~same, "machine_before"]})
        notes.append(
            f"Seconds of {', '.join(sorted(set(both.loc[~same, 'dataset'])))} are not compared: they were measured on "
            f"different devices ({' and '.join(names)}). Compare them all the same with --mix device."
        )
        both["seconds_now"] = both["seconds_now"].where(same)
    elif not same.all():
        notes.append("Seconds of different devices are compared, as --mix device asked.")
    for which, mine, theirs in (("this", new, old), ("the other", old, new)):
        alone = _keys(mine) - _keys(theirs)
        if alone:
            notes.append(f"{len(alone)} samplers and batch sizes are in {which} store alone.")
    notes.append(
        "The stores' runs were not interleaved: intervals cover the noise within runs, not what changed between."
    )
    frame = _ratios(both)
    block = Block("all datasets", "", [[Cell(text) for text in _cells(row)] for _, row in frame.iterrows()])
    return Table("diff", "Now against the other store", HEADINGS, [block], frame, frame.iloc[:0], notes)


def _with_device(selection: Selection) -> pd.DataFrame:
    machines = [", ".join(map(str, row)) for row in selection.runs[_DEVICE].itertuples(index=False)]
    runs = selection.runs.assign(machine=machines)
    rows = selection.repetitions[["job", *_PAIR, "calls_percent", "seconds", "speedup"]]
    rows = rows.assign(machine=looked_up(runs, "job", "machine", rows["job"]), profile=rows["profile"].fillna(""))
    return rows.astype(dict.fromkeys([*GROUP, "label"], object))  # frames of strings without rows cannot be merged


def _keys(rows: pd.DataFrame) -> set[tuple]:
    return set(rows[_KEY].drop_duplicates().itertuples(index=False, name=None))


def _ratios(both: pd.DataFrame) -> pd.DataFrame:
    found = []
    for key, group in both.groupby(_KEY, sort=False):
        row = dict(zip(_KEY, key, strict=True))
        row |= {"pairs": len(group), "calls_before": group["calls_percent_before"].mean()}
        row |= {"calls_now": group["calls_percent_now"].mean()}
        for name in ("seconds", "speedup"):
            logs = np.log(group[f"{name}_now"].to_numpy(float) / group[f"{name}_before"].to_numpy(float))
            logs = _units(logs, group["train_seed"].to_numpy())
            low, high = (float(end[0]) for end in mean_interval(logs[:, None]))
            mean = logs.mean() if len(logs) else np.nan
            row |= dict(zip([f"{name}_ratio", f"{name}_low", f"{name}_high"], np.exp([mean, low, high]), strict=True))
        row["verdict"] = _verdict(row)
        found.append(row)
    columns = ["pairs", "calls_before", "calls_now"]
    columns += [f"{name}_{end}" for name in ("seconds", "speedup") for end in ("ratio", "low", "high")]
    frame = pd.DataFrame(found, columns=[*_KEY, *columns, "verdict"]).rename(columns={"label": "sampler"})
    order = frame.assign(_by=[rank(name) for name in frame["sampler"]]).sort_values([*GROUP, "batch_size", "_by"])
    return order.drop(columns="_by").reset_index(drop=True)


def _units(logs: np.ndarray, trainings: np.ndarray) -> np.ndarray:
    """What varies: the noise seeds of one training, or the means of several."""
    known = pd.Series(logs).dropna()
    of = trainings[known.index]
    return (known.groupby(of).mean() if len(set(of)) > 1 else known).to_numpy()


def _verdict(row: dict) -> str:
    low, high = row["seconds_low"], row["seconds_high"]
    if np.isnan(low):
        return "too few pairs" if not np.isnan(row["seconds_ratio"]) else "not compared"
    return "faster" if high < 1 else "slower" if low > 1 else "no difference shown"


def _cells(row: pd.Series) -> list[str]:
    key = (row["sweep"], row["profile"] or None, row["dataset"], row["variant"])
    calls = [f"{row[name]:.1f} %" for name in ("calls_before", "calls_now")]
    ratios = [_ratio(row, name) for name in ("seconds", "speedup")]
    return [title(key), row["sampler"], str(row["batch_size"]), str(row["pairs"]), *calls, *ratios, row["verdict"]]


def _ratio(row: pd.Series, name: str) -> str:
    if np.isnan(row[f"{name}_ratio"]):
        return DASH
    text = f"×{row[f'{name}_ratio']:.3f}"  # noqa: RUF001 the multiplication sign is meant
    return text if np.isnan(row[f"{name}_low"]) else f"{text} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"
