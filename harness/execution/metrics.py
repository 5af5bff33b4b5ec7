"""What the Prometheus endpoint of the driver's node shows of a sweep.

The driver reads how far the jobs are from their files, as everybody who watches does; workers export nothing. The names
and their tags are those of the Grafana dashboard, docs/grafana.json.
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ray.util.metrics import Gauge

from harness.execution.background import repeating
from harness.execution.ledger import Ledger
from harness.jobs import job_folder
from harness.jobs.progress import Progress, read_progress
from harness.sweep import Plan

STATES = ("waiting", "running", "done", "failed", "stopped")
_PAUSE_S = 2.0


def exported(plan: Plan, root: Path, ledger: Ledger) -> AbstractContextManager[None]:
    """Keep the metrics of a sweep up to date while the body runs."""
    gauges = _gauges()
    return repeating(lambda: _update(gauges, plan, root, ledger), _PAUSE_S)


def _gauges() -> dict[str, Gauge]:
    of_job = ("sweep", "title", "kind")  # "job" is Prometheus's own
    return {
        "jobs": Gauge("harness_jobs", "Jobs of the sweep by state", tag_keys=("sweep", "state")),
        "arm_calls": Gauge("harness_arm_calls", "ARM calls of finished timing jobs", tag_keys=("sweep",)),
        "done_fraction": Gauge("harness_done_fraction", "How far a running job is, 0 to 1", tag_keys=of_job),
        "bits_per_dim": Gauge("harness_bits_per_dim", "Training bits/dim of the last step", tag_keys=of_job),
        "iterations_per_second": Gauge("harness_iterations_per_second", "Training speed", tag_keys=of_job),
    }


def _update(gauges: Mapping[str, Any], plan: Plan, root: Path, ledger: Ledger) -> None:
    sweep, states = plan.sweep.name, ledger.states()
    counts: Counter[str] = Counter()
    for planned in plan.jobs:
        ended = states.get(planned.job.id)
        progress = read_progress(job_folder(root, planned.job.id)) if ended is None else None
        state = ended or _state(progress)
        counts[state] += 1
        if progress is not None and state == "running":
            tags = {"sweep": sweep, "title": progress.title, "kind": progress.kind}
            for name, value in _figures(progress).items():
                gauges[name].set(value, tags=tags)
    for state in STATES:
        gauges["jobs"].set(counts[state], tags={"sweep": sweep, "state": state})
    gauges["arm_calls"].set(ledger.arm_calls, tags={"sweep": sweep})


def _state(progress: Progress | None) -> str:
    return "running" if progress is not None and progress.state == "running" else "waiting"


def _figures(progress: Progress) -> dict[str, float]:
    """The metrics of a running job, by the name of their gauge."""
    found = {"done_fraction": progress.step / progress.total if progress.total else 0.0}
    names = {"train_bits_per_dim": "bits_per_dim", "it/s": "iterations_per_second"}
    return found | {names[name]: value for name, value in progress.metrics.items() if name in names}
