"""How long a sweep still takes, guessed from the jobs of it that ended and from those that run."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from harness.jobs.progress import Progress


def seconds_left(
    jobs: Sequence[Mapping[str, Any]], states: Mapping[str, str], progress: Mapping[str, Progress]
) -> float | None:
    """Seconds until the last job ends, if as many run side by side as do now; None: nothing tells.

    A job that waits is taken to last as long as those of its kind did or are going to.

    Args:
        jobs: of the sweep's record, each with id and kind.
        states: id -> how it stands now, by `harness status`.
        progress: id -> what the job last said of itself.
    """
    kinds, lengths = {job["id"]: job["kind"] for job in jobs}, defaultdict[str, list[float]](list)
    for job, kind in kinds.items():
        length = _length(progress.get(job), states[job])
        if length is not None:
            lengths[kind].append(length)
    means = {kind: fmean(known) for kind, known in lengths.items()}
    total, at_once = 0.0, max(1, sum(states[job] == "running" for job in kinds))
    for job, kind in kinds.items():
        said = progress.get(job)
        if states[job] == "running" and said is not None and said.seconds_left is not None:
            total += said.seconds_left
        elif states[job] in ("running", "waiting", "stopped", "lost", "damaged"):
            if kind not in means:
                return None
            total += means[kind]
    return total / at_once


def _length(progress: Progress | None, state: str) -> float | None:
    """How long a job took, or is going to take."""
    if progress is None:
        return None
    so_far = progress.updated_at - progress.started_at
    if state == "done":
        return so_far
    return so_far + progress.seconds_left if state == "running" and progress.seconds_left is not None else None
