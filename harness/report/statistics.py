"""The derived numbers of the report, each made by one function from repetitions.

Seconds are compared inside one run only: every speed-up is a ratio to the ancestral repetition of the same job, width
and seed. What varies, and hence what an interval is about, are the *units*: the noise seeds if one training was timed,
the trainings (each with the mean over its noise seeds) if there are several.
"""

import json
import re

import numpy as np
import pandas as pd
from scipy import special

GROUP = ["sweep", "profile", "dataset", "variant"]
"""What one block of samplers is about."""
MEASURES = ["calls_percent", "work", "seconds", "speedup"]
"""Each has a mean, `_std`, `_low` and `_high`; the mean of `speedup` is the geometric one."""
LABELS = {
    "zeros": "forecast zeros",
    "predict_last": "predict last",
    "row_above": "row above",
    "fixed_point": "fixed point",
    "fixed_point_above": "fixed point above",
    "most_likely": "most likely",
    "jacobi": "Jacobi",
    "gs_jacobi": "GS-Jacobi",
    "jacobi_gs": "Jacobi-GS",
    "cached_sequential": "cached sequential",
}
LEARNED = ("learned", "gated")
RESAMPLED = "fresh noise: "
"""Starts the names of samplers that are exact in law only."""
FEWEST_FOR_BOOTSTRAP = 5
_RESAMPLES = 2000


NAMING = ("sampler", "forecaster", "horizon", "window", "auto_window", "slots", "options")
"""The columns that tell samplers apart, as `label` takes them."""
_NEWER = ("auto_window", "slots", "options")
"""Parts of an older schema lack these columns, so a query for other rows does not name them."""


def label(
    sampler: str,
    forecaster: object,
    horizon: object,
    window: object = None,
    auto_window: object = None,
    slots: object = None,
    options: object = None,
) -> str:
    """What people call a sampler; `options` are JSON."""
    if sampler == "ancestral":
        name = "ancestral"
    elif forecaster in LEARNED:
        name = f"{forecaster}, T={horizon}"
    else:
        name = LABELS.get(str(sampler)) or LABELS.get(str(forecaster), str(forecaster))
    if isinstance(options, str):
        name += "".join(f", {key} {value}" for key, value in json.loads(options).items())
    name = f"{RESAMPLED}{name}" if sampler == "resampled" else name
    if not pd.isna(auto_window) and auto_window:
        name = f"{name}, auto window"
    elif not pd.isna(window):
        name = f"{name}, {'block' if sampler in LABELS else 'window'} {window}"
    return name if pd.isna(slots) or not slots else f"{name}, slots"


def rank(name: str) -> tuple[int, str]:
    """The order of samplers in tables and figures: the reference, the free forecasts, one's own, the learned ones."""
    known = ["ancestral", *LABELS.values()]
    plain = re.split(", (?:auto )?(?:window|block)|, slots", name)[0]
    if plain in known:
        return known.index(plain), name
    return len(known) + plain.startswith(LEARNED) + 2 * plain.startswith(RESAMPLED), name


def paired_speedup(repetitions: pd.DataFrame) -> np.ndarray:
    """Seconds of the ancestral twin over one's own: same job, width and seed; nan where there is no twin.

    Args:
        repetitions: with job, label, batch_size, seed and seconds (for as many samples as a batch has).
    """
    each = repetitions["seconds"]
    twin = ["job", "batch_size", "seed"]
    reference = each[repetitions["label"] == "ancestral"]
    keys = pd.MultiIndex.from_frame(repetitions.loc[reference.index, twin])
    reference = reference.set_axis(keys)
    reference = reference[~keys.duplicated()]
    return (reference.reindex(pd.MultiIndex.from_frame(repetitions[twin])).to_numpy() / each).to_numpy(float)


def speedup(repetitions: pd.DataFrame) -> pd.DataFrame:
    """The table of samplers: a row for every dataset, variant, sampler and width.

    Args:
        repetitions: from `selection.select`.

    Returns:
        Columns: those of `GROUP`, kind, data_status, sampler, batch_size, trainings, repetitions, and for each of
        `MEASURES` mean, `_std` (Bessel-corrected, over units), `_low` and `_high` (`mean_interval`); equal (every
        sample equal to the ancestral one), busy (repetitions during which others used the machine), query (the
        rows of `timings` behind it, for pandas).
    """
    by = ["kind", "data_status", *GROUP, "label", "batch_size"]
    groups = repetitions.groupby(by, dropna=False, observed=True, sort=False)
    table = groups.agg(
        trainings=("train_seed", "nunique"),
        repetitions=("seed", "size"),
        least_exact=("exact_fraction", "min"),
        busy=("busy", "sum"),
        in_law=("in_law", "first"),
    ).reset_index()
    if table.empty:
        return pd.DataFrame(columns=[*by[:-2], "sampler", "batch_size", *_NUMBERS])
    codes = groups.ngroup().to_numpy()
    units, of = _units(repetitions, codes, table["trainings"].to_numpy() > 1)
    for name in MEASURES:
        table[[name, f"{name}_std", f"{name}_low", f"{name}_high"]] = _spread(units[name].to_numpy(), of, len(table))
    ratios = np.exp(units["speedup"].to_numpy())
    table["speedup_std"] = _spread(ratios, of, len(table))[:, 1]
    for name in ("speedup", "speedup_low", "speedup_high"):
        table[name] = np.exp(table[name])
    for name in MEASURES:  # Student's interval does not know what is possible
        table[f"{name}_low"] = table[f"{name}_low"].clip(lower=0)
    table["calls_percent_high"] = table["calls_percent_high"].clip(upper=100)
    table["equal"] = table.pop("least_exact").fillna(1.0) >= 1
    table["query"] = _queries(repetitions, codes)
    table = table.rename(columns={"label": "sampler"})
    order = table.assign(_by=[rank(name) for name in table["sampler"]])
    table = order.sort_values(["kind", "data_status", *GROUP, "batch_size", "_by"]).drop(columns="_by")
    return table[[*by[:-2], "sampler", "batch_size", *_NUMBERS]].reset_index(drop=True)


_NUMBERS = [
    "trainings",
    "repetitions",
    *(f"{name}{suffix}" for name in MEASURES for suffix in ("", "_std", "_low", "_high")),
    "equal",
    "in_law",
    "busy",
    "query",
]


def _units(repetitions: pd.DataFrame, codes: np.ndarray, several: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """The values that vary, ratios as logarithms; and the row of the table that each belongs to."""
    with np.errstate(divide="ignore"):
        values = repetitions[MEASURES].assign(
            speedup=np.log(repetitions["speedup"]), _code=codes, _training=repetitions["train_seed"].to_numpy()
        )
    averaged = values[several[codes]].groupby(["_code", "_training"], sort=False).mean().reset_index()
    units = pd.concat([values[~several[codes]], averaged], ignore_index=True)
    return units, units["_code"].to_numpy(int)


def _spread(values: np.ndarray, codes: np.ndarray, count: int) -> np.ndarray:
    """(count, 4): mean, standard deviation and interval of the values of each code; nan values do not count."""
    found = np.full((count, 4), np.nan)
    known = ~np.isnan(values)
    order = np.argsort(codes[known], kind="stable")
    ordered = values[known][order]
    sizes = np.bincount(codes[known], minlength=count)
    starts = np.cumsum(sizes) - sizes
    for size in np.unique(sizes[sizes > 0]):  # all rows with as many units at once
        which = np.flatnonzero(sizes == size)
        block = ordered[starts[which] + np.arange(size)[:, None]]
        found[which, 0] = block.mean(axis=0)
        found[which, 1] = block.std(axis=0, ddof=1) if size > 1 else np.nan
        found[which, 2:] = np.stack(mean_interval(block), axis=1)
    return found


def mean_interval(values: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the mean of each column, by the bootstrap.

    The percentiles are those of Hesterberg's expanded percentile interval ("What Teachers Should Know About the
    Bootstrap", 2015), which covers as often as it says for small samples too. No resampling of fewer than
    `FEWEST_FOR_BOOTSTRAP` values reaches 95 %; there the interval is Student's t, and below three values there is none.

    Args:
        values: (units, columns).
        level: of confidence.

    Returns:
        (low, high), each (columns,).
    """
    count, columns = values.shape
    if count < 3:
        return np.full(columns, np.nan), np.full(columns, np.nan)
    centre = values.mean(axis=0)
    quantile = special.stdtrit(count - 1, (1 - level) / 2)  # of Student's t; negative
    if count < FEWEST_FOR_BOOTSTRAP:
        reach = -quantile * values.std(axis=0, ddof=1) / np.sqrt(count)
        return centre - reach, centre + reach
    tail = special.ndtr(np.sqrt(count / (count - 1)) * quantile)
    generator = np.random.Generator(np.random.Philox(0))
    weights = generator.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES) / count
    low, high = np.empty(columns), np.empty(columns)
    for start in range(0, columns, 1000):  # bounds the memory
        part = slice(start, start + 1000)
        means = weights @ (values[:, part] - centre[part])
        low[part], high[part] = centre[part] + np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high


def _queries(repetitions: pd.DataFrame, codes: np.ndarray) -> list[str]:
    """For each code a pandas query that selects its rows of the table `timings`."""
    columns = ["job", *NAMING, "batch_size"]
    present = [name for name in columns if name in repetitions]
    distinct = repetitions[present].assign(_code=codes).drop_duplicates()
    jobs = distinct.groupby("_code")["job"].agg(lambda part: sorted(set(part)))
    firsts = distinct.groupby("_code").first()
    return [
        f"job in {jobs[code]!r} and not is_warmup"
        + "".join(f" and {name} == {_literal(first[name])}" for name in present[1:] if pd.notna(first[name]))
        + "".join(f" and {name}.isna()" for name in present[1:] if name not in _NEWER and pd.isna(first[name]))
        for code, first in firsts.iterrows()
    ]


def _literal(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)
