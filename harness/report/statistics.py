"""The derived numbers of the report, each made by one function from repetitions.

Seconds are compared inside one run and at equal width only: a speed-up is a ratio to the repetition of the same job,
width and seed that the reference drew, ancestral sampling or the paper's algorithm. What varies, and hence what an
interval is about, are the *units*: the noise seeds if one training was timed, the trainings (each with the mean over
its noise seeds) if there are several.
"""

import numpy as np
import pandas as pd
from scipy import special

from harness.report.naming import ANCESTRAL, PAPER, rank

GROUP = ["sweep", "profile", "dataset", "variant"]
"""What one block of samplers is about."""
MEASURES = ["calls_percent", "dims_per_call", "work", "seconds", "speedup", "over_paper"]
"""Each has a mean, `_low` and `_high`, all but ratios `_std` too; `work` and `seconds` are of a sample."""
PERCENTILES = (50, 90, 99)
DIMS_PER_CALL = ["dims_per_call", *(f"dims_per_call_p{share}" for share in PERCENTILES)]
"""Of the dims of a sample that a call makes final: what the field calls acceptance length."""
DISTANCES = (1, 2, 4, 8, 16)
HIT_RATES = [f"hit_rate_{distance}" for distance in DISTANCES]
"""Of the calls that made so many dims final, the share whose last of them was forecast right: how often the forecast so
far from the frontier holds if all before it did."""
AVERAGED = [*DIMS_PER_CALL[1:], *HIT_RATES, "joules"]
"""Means over repetitions, without an interval; joules of a sample."""
RATIOS = {"speedup": ANCESTRAL, "over_paper": PAPER}
"""Times faster than which sampler; their means are geometric."""
FEWEST_FOR_BOOTSTRAP = 5
_RESAMPLES = 2000


def paired_speedup(repetitions: pd.DataFrame, reference_label: str) -> np.ndarray:
    """Seconds a sample of a twin over one's own: same job, width, seed and decision; nan where there is no twin.

    Args:
        repetitions: with job, base, decision, batch_size, seed and seconds.
        reference_label: of the twins, without their decision.
    """
    each = repetitions["seconds"]
    twin = ["job", "batch_size", "seed", "decision"]
    reference = each[repetitions["base"] == reference_label]
    keys = pd.MultiIndex.from_frame(repetitions.loc[reference.index, twin])
    reference = reference.set_axis(keys)
    reference = reference[~keys.duplicated()]
    return (reference.reindex(pd.MultiIndex.from_frame(repetitions[twin])).to_numpy() / each).to_numpy(float)


def speedup(repetitions: pd.DataFrame) -> pd.DataFrame:
    """The table of samplers: a row for every dataset, variant, sampler and width.

    Args:
        repetitions: from `selection.select`.

    Returns:
        Columns: those of `GROUP`, kind, data_status, sampler, family and decision (`naming.Named`), batch_size,
        trainings, repetitions, samples (drawn in each), and for each of `MEASURES` mean, `_std` (Bessel-corrected, over
        units; not of ratios), `_low` and `_high` (`mean_interval`); `AVERAGED`, seconds_cv (std / mean), seconds_t_low
        and seconds_t_high (Student's t, beside the bootstrap), peak_mem_bytes (the most of a repetition), repaired
        (share of the samples that a proof overruled; nan without proofs); equal (every sample equal to the ancestral
        one), in_law (nothing to be equal to), busy (repetitions during which others used the machine), query (the rows
        of `timings` behind it, for pandas).
    """
    by = ["kind", "data_status", *GROUP, "label", "batch_size"]
    groups = repetitions.groupby(by, dropna=False, observed=True, sort=False)
    table = groups.agg(
        trainings=("train_seed", "nunique"),
        repetitions=("seed", "size"),
        samples=("samples", "max"),
        family=("family", "first"),
        decision=("decision", "first"),
        least_exact=("exact_fraction", "min"),
        repaired=("repaired", "mean"),
        peak_mem_bytes=("peak_mem_bytes", "max"),
        **{name: (name, "mean") for name in AVERAGED},
        busy=("busy", "sum"),
        in_law=("in_law", "first"),
    ).reset_index()
    if table.empty:
        return pd.DataFrame(columns=[*by[:-2], "sampler", "batch_size", *_NUMBERS])
    codes = groups.ngroup().to_numpy()
    units, of = _units(repetitions, codes, table["trainings"].to_numpy() > 1)
    for name in MEASURES:
        table[[name, f"{name}_std", f"{name}_low", f"{name}_high"]] = _spread(units[name].to_numpy(), of, len(table))
    for name in (f"{ratio}{end}" for ratio in RATIOS for end in ("", "_low", "_high")):
        table[name] = np.exp(table[name])
    for name in MEASURES:  # Student's interval does not know what is possible
        table[f"{name}_low"] = table[f"{name}_low"].clip(lower=0)
    table["calls_percent_high"] = table["calls_percent_high"].clip(upper=100)
    count = table["trainings"].where(table["trainings"] > 1, table["repetitions"])
    reach = -special.stdtrit(count - 1, 0.025) * table["seconds_std"] / np.sqrt(count)
    table["seconds_cv"] = table["seconds_std"] / table["seconds"]
    table["seconds_t_low"], table["seconds_t_high"] = table["seconds"] - reach, table["seconds"] + reach
    table["equal"] = table.pop("least_exact").fillna(1.0) >= 1
    table["query"] = _queries(repetitions, codes)
    table = table.rename(columns={"label": "sampler"})
    order = table.assign(_by=[rank(name) for name in table["sampler"]])
    table = order.sort_values(["kind", "data_status", *GROUP, "batch_size", "_by"]).drop(columns="_by")
    return table[[*by[:-2], "sampler", "batch_size", *_NUMBERS]].reset_index(drop=True)


_NUMBERS = [
    "family",
    "decision",
    "trainings",
    "repetitions",
    "samples",
    *(
        f"{name}{end}"
        for name in MEASURES
        for end in ("", "_std", "_low", "_high")
        if end != "_std" or name not in RATIOS
    ),
    *AVERAGED,
    "seconds_cv",
    "seconds_t_low",
    "seconds_t_high",
    "peak_mem_bytes",
    "repaired",
    "equal",
    "in_law",
    "busy",
    "query",
]


def _units(repetitions: pd.DataFrame, codes: np.ndarray, several: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """The values that vary, ratios as logarithms; and the row of the table that each belongs to."""
    with np.errstate(divide="ignore"):
        values = repetitions[MEASURES].assign(
            **{name: np.log(repetitions[name]) for name in RATIOS},
            _code=codes,
            _training=repetitions["train_seed"].to_numpy(),
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


def few_repetitions(speedup: pd.DataFrame) -> list[str]:
    """A sentence if some samplers ran too seldom for an interval that can be relied upon."""
    units = speedup["trainings"].where(speedup["trainings"] > 1, speedup["repetitions"])
    few = speedup[(units < FEWEST_FOR_BOOTSTRAP) & (speedup["family"] != "ancestral")]
    if few.empty:
        return []
    rule = f"intervals need three, and are rough below {FEWEST_FOR_BOOTSTRAP}"
    return [f"{len(few)} of {len(speedup)} rows have fewer than {FEWEST_FOR_BOOTSTRAP} repetitions: {rule}."]


def not_timed(speedup: pd.DataFrame) -> list[str]:
    """A sentence for each sampler that lacks a width at which others of its kind ran."""
    said: list[str] = []
    if speedup.empty:
        return said
    kinds = speedup.assign(is_stream=speedup["sampler"].str.contains(", slots"))
    for _, part in kinds.groupby([*GROUP, "is_stream"], dropna=False, sort=False):
        widths = set(part["batch_size"])
        for name, rows in part.groupby("sampler", sort=False):
            if missing := sorted(widths - set(rows["batch_size"])):
                at = ", ".join(map(str, missing))
                said.append(f"{rows['dataset'].iloc[0]}: {name} was not timed at {at}, by its run's patience.")
    return said


def _queries(repetitions: pd.DataFrame, codes: np.ndarray) -> list[str]:
    """For each code a pandas query that selects its rows of the table `timings`."""
    distinct = repetitions[["job", "sampler", "batch_size"]].assign(_code=codes).drop_duplicates()
    jobs = distinct.groupby("_code")["job"].agg(lambda part: sorted(set(part)))
    described = distinct.groupby("_code")["sampler"].agg(lambda part: sorted(set(part)))
    widths = distinct.groupby("_code")["batch_size"].first()
    return [
        f"job in {jobs[code]!r} and sampler in {described[code]!r} and batch_size == {widths[code]} and not is_warmup"
        for code in jobs.index
    ]
