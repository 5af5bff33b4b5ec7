"""The derived numbers of the report, each made by one function from the raw rows.

Seconds are compared inside one run only: every speed-up is a ratio to the ancestral repetition of the same job, batch
size and seed.
"""

import numpy as np
import pandas as pd

from arm_core.errors import InputError

GROUP = ["sweep", "profile", "dataset", "variant"]
"""What one table of samplers is about."""
LABELS = {
    "zeros": "forecast zeros",
    "predict_last": "predict last",
    "row_above": "row above",
    "fixed_point": "fixed point",
    "most_likely": "most likely",
}
LEARNED = ("learned", "gated")
RESAMPLED = "fresh noise: "
"""Starts the names of samplers that are exact in law only."""
_MUST_AGREE = ["device", "cpu", "threads", "torch", "dtype"]
_RESAMPLES = 2000


def label(sampler: str, forecaster: object, horizon: object) -> str:
    """What people call a sampler."""
    if sampler == "ancestral":
        return "ancestral"
    name = f"{forecaster}, T={horizon}" if forecaster in LEARNED else LABELS.get(str(forecaster), str(forecaster))
    return f"{RESAMPLED}{name}" if sampler == "resampled" else name


def usable(timings: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The repetitions that count, with a `label`; and a sentence for everything that is left out.

    Warm-ups are left out without a word. Of several runs on the same training the newest counts.

    Raises:
        InputError: the runs of one table come from different devices, settings or versions.
    """
    notes = []
    rows = timings[(timings["status"] == "done") & ~timings["is_warmup"].fillna(True).astype(bool)].copy()
    runs = rows.groupby("job").first().reset_index().sort_values("started_at")
    key = [*GROUP, "train_seed"]
    newest = runs.groupby(key, dropna=False).tail(1)
    for job in sorted(set(runs["job"]) - set(newest["job"])):
        notes.append(f"Timing job {job} is left out: a newer run timed the same training.")
    for name, group in newest.groupby(GROUP, dropna=False):
        for column in _MUST_AGREE:
            values = sorted(set(group[column].astype(str)))
            if len(values) > 1:
                raise InputError(
                    f"{name[2]} ({name[3]}) was timed with different {column}: {' and '.join(values)}; times are not "
                    "comparable. Report one sweep at a time (--sweep), or time all its seeds again on one machine"
                )
    rows = rows[rows["job"].isin(newest["job"])]
    rows["label"] = [label(*item) for item in zip(rows["sampler"], rows["forecaster"], rows["horizon"], strict=True)]
    return rows, notes


def per_repetition(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a repetition: calls in percent of the dimensions, work, seconds, and the ratio to its ancestral twin.

    A batch costs as many calls as its slowest sample.
    """
    found = rows[["job", *GROUP, "label", "batch_size", "seed", "wall_s", "exact_fraction", "busy"]].copy()
    found["calls_percent"] = [
        100 * max(calls) / dims for calls, dims in zip(rows["arm_calls"], rows["dims"], strict=True)
    ]
    found["work"] = [float(np.mean(work)) for work in rows["arm_work"]]
    twin = ["job", "batch_size", "seed"]
    reference = found[found["label"] == "ancestral"].set_index(twin)["wall_s"]
    found["speedup"] = reference.reindex(pd.MultiIndex.from_frame(found[twin])).to_numpy() / found["wall_s"].to_numpy()
    return found


def speedup(timings: pd.DataFrame) -> pd.DataFrame:
    """The table of samplers: a row for every dataset, variant, sampler and batch size.

    Returns:
        Columns: those of `GROUP`, sampler, batch_size, repetitions, calls_percent and calls_percent_std, work (full
        passes per sample), seconds and seconds_std (per batch; Bessel-corrected), speedup (median of the paired
        ratios), speedup_low and speedup_high (95 % bootstrap interval of that median), equal (every sample equal to
        the ancestral one), busy (repetitions during which others used the machine).
    """
    rows, _ = usable(timings)
    if rows.empty:
        return pd.DataFrame(columns=[*GROUP, *_NUMBERS])
    repetitions = per_repetition(rows)
    found = []
    for key, group in repetitions.groupby([*GROUP, "label", "batch_size"], dropna=False):
        low, high = interval(group["speedup"].to_numpy(float))
        values = [
            key[-2],
            int(key[-1]),
            len(group),
            group["calls_percent"].mean(),
            group["calls_percent"].std(),
            group["work"].mean(),
            group["wall_s"].mean(),
            group["wall_s"].std(),
            group["speedup"].median(),
            low,
            high,
            bool((group["exact_fraction"].dropna() == 1).all()),
            int(group["busy"].fillna(False).sum()),
        ]
        found.append([*key[:4], *values])
    table = pd.DataFrame(found, columns=[*GROUP, *_NUMBERS])
    table = table.assign(_by=table["sampler"].map(_rank))
    by = [*GROUP, "batch_size", "_by", "sampler"]
    return table.sort_values(by).drop(columns="_by").reset_index(drop=True)


def _rank(name: str) -> int:
    """The order of samplers in tables and figures: the reference, the free forecasts, one's own, the learned ones."""
    known = ["ancestral", *LABELS.values()]
    if name in known:
        return known.index(name)
    return len(known) + name.startswith(LEARNED) + 2 * name.startswith(RESAMPLED)


_NUMBERS = [
    "sampler",
    "batch_size",
    "repetitions",
    "calls_percent",
    "calls_percent_std",
    "work",
    "seconds",
    "seconds_std",
    "speedup",
    "speedup_low",
    "speedup_high",
    "equal",
    "busy",
]


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the median; (nan, nan) below three values."""
    if len(values) < 3:
        return float("nan"), float("nan")
    draws = np.random.Generator(np.random.Philox(0)).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.quantile(np.median(values[draws], axis=1), [0.025, 0.975])
    return float(low), float(high)
