"""What follows from the rows: medians, and ratios to the paper's own algorithm in the same run at the same width."""

from collections.abc import Iterable
from itertools import groupby
from statistics import median
from typing import Any, NamedTuple

from benchmarks.gpu.rows import Row

PAPER = "fixed point, whole batch"
DONE = ("timed", "once", "extrapolated")
"""Kinds of rows that tell what something costs."""


class Ratio(NamedTuple):
    """How many times faster than something else, over the repetitions in which both ran: median, least, most."""

    median: float
    low: float
    high: float


class Timing(NamedTuple):
    """What a sampler, a call or a step costs: medians over its repetitions.

    Attributes:
        columns: that name it: model, size, trained, slots, what, mode, window.
        kind: timed, once or extrapolated.
        repetitions: how many.
        seconds, host_s: a sample (samplers), a call (calls) or a step (training).
        calls, work: a sample.
        peak_mem_bytes: the most of all repetitions.
        joules: a sample.
        share: of samples that are those of the paper's run, the least.
        over_paper, over_ancestral: None where those did not run, or for what is no sampler.
    """

    columns: Row
    kind: str
    repetitions: int
    seconds: float
    host_s: float
    calls: float | None
    work: float | None
    peak_mem_bytes: float | None
    joules: float | None
    share: float | None
    over_paper: Ratio | None
    over_ancestral: Ratio | None


NAMING = ("model", "size", "trained", "dtype", "slots", "what", "mode", "window", "note")


def timings(rows: Iterable[Row], question: str) -> list[Timing]:
    """The timings of a question, in the order of the run.

    Args:
        rows: of one run.
        question: "sampling" and "decoder" count by the sample, "calls" and "training" by the call.
    """
    wanted = [row for row in rows if row["question"] == question and row["kind"] in DONE and "host_s" in row]
    by_sample = question in ("sampling", "decoder")
    order: dict[tuple[Any, ...], list[Row]] = {}
    for row in wanted:
        order.setdefault(tuple(row.get(name) for name in (*NAMING, "kind")), []).append(row)
    return [_timing(group, wanted, by_sample) for group in order.values()]


def _timing(group: list[Row], rows: list[Row], by_sample: bool) -> Timing:
    first = group[0]
    unit = "samples" if by_sample else "calls"
    return Timing(
        columns={name: first[name] for name in NAMING if name in first},
        kind=first["kind"],
        repetitions=len(group),
        seconds=median(row["seconds"] / row[unit] for row in group),
        host_s=median(row["host_s"] / row[unit] for row in group),
        calls=_median(row.get("calls") for row in group) if by_sample else None,
        work=_median(row.get("work") for row in group) if by_sample else None,
        peak_mem_bytes=max((row["peak_mem_bytes"] for row in group if "peak_mem_bytes" in row), default=None),
        joules=_median(row["joules"] / row[unit] for row in group if "joules" in row),
        share=min((row["share"] for row in group if "share" in row), default=None),
        over_paper=_over(group, _beside(rows, first, PAPER)) if by_sample else None,
        over_ancestral=_over(group, _beside(rows, first, "ancestral", "one token a call")) if by_sample else None,
    )


def _beside(rows: list[Row], like: Row, *names: str) -> list[Row]:
    """Rows of a sampler that is compared with, for the same ARM at the same width; a run in full, if there is one."""
    found = [
        row for row in rows if row["what"] in names and all(row[name] == like[name] for name in ("model", "slots"))
    ]
    return [row for row in found if row["kind"] == "once"] or found


def _over(group: list[Row], other: list[Row]) -> Ratio | None:
    """Repetition by repetition where both were repeated, otherwise by the median of the other."""
    if not other:
        return None
    by_repetition = {row.get("repetition"): row["host_s"] / row["samples"] for row in other}
    usual = median(by_repetition.values())
    ratios = [by_repetition.get(row.get("repetition"), usual) / (row["host_s"] / row["samples"]) for row in group]
    return Ratio(median(ratios), min(ratios), max(ratios))


def _median(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return median(there) if there else None


class Verdict(NamedTuple):
    """One ARM at one width: the paper's own algorithm, and the fastest window."""

    paper: Timing
    window: Timing


def verdicts(found: list[Timing]) -> list[Verdict]:
    """For every ARM and width at which they were repeated."""

    def width(timing: Timing) -> tuple[Any, ...]:
        return timing.columns["model"], timing.columns["slots"]

    result = []
    for _, group in groupby(found, key=width):
        there = [timing for timing in group if timing.kind == "timed"]
        papers = [one for one in there if one.columns["what"] == PAPER]
        windows = [one for one in there if one.columns["what"].startswith("windows")]
        if papers and windows:
            result.append(Verdict(papers[0], min(windows, key=lambda timing: timing.host_s)))
    return result
