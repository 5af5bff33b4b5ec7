"""Timing jobs on Ray: exclusive tasks, one at a time on each timing node, each of which they take whole."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness.execution.ledger import Ledger
from harness.execution.patience import RETRIES, Patience
from harness.execution.placement import Request
from harness.jobs import job_folder, run_job
from harness.jobs.progress import read_progress
from harness.sweep import TimingJob
from harness.sweep.spec import Resources


def _time(job: str, root: str, cwd: str, threads: int) -> None:
    run_job(TimingJob.model_validate_json(job), Path(root), threads=threads, cwd=Path(cwd))


@dataclass
class _Sent:
    """A timing job that was sent to a node."""

    job: TimingJob
    node: str | None
    at: float = field(default_factory=time.time)


class Timings:
    """Timing jobs, one at a time on each timing node, each of which it takes whole."""

    def __init__(self, ledger: Ledger, resources: Resources, say: Callable[[str], object]) -> None:
        self.ledger, self.resources, self.say = ledger, resources, say
        self._sent: dict[Any, _Sent] = {}
        self._deaths: Counter[str] = Counter()
        self._told: set[str] = set()

    def advance(self, nodes: Sequence[Request]) -> None:
        """Take over what has ended, and send the next jobs to the nodes that are free."""
        for task in _finished(list(self._sent)):
            self._settle(self._sent.pop(task).job, task)
        busy = {sent.node for sent in self._sent.values()}
        taken = {sent.job.id for sent in self._sent.values()}
        timings = [job for job in self.ledger.left() if isinstance(job, TimingJob) and job.id not in taken]
        ready = [job for job in timings if self.ledger.ready(job)]
        free = [request for request in nodes if request.node not in busy]
        for request, job in zip(free, ready, strict=False):
            self._sent[self._send(job, request)] = _Sent(job, request.node)
        for sent in self._sent.values():
            self._tell(sent)

    def _send(self, job: TimingJob, request: Request) -> Any:
        assert request.node is not None
        remote = ray.remote(_time).options(
            name=f"timing {job.title}",
            num_cpus=request.cpus,
            num_gpus=request.gpus,
            resources={"timing": 1},
            scheduling_strategy=NodeAffinitySchedulingStrategy(request.node, soft=False),
            max_retries=0,  # by us, on whichever node is then there
        )
        root, cwd = str(self.ledger.store.root.resolve()), str(Path.cwd())
        return remote.remote(job.model_dump_json(), root, cwd, self.resources.timing.threads or int(request.cpus))

    def _settle(self, job: TimingJob, task: Any) -> None:
        if self.ledger.settle(job) is not None:  # its tables are there, whatever became of its process
            return
        try:
            ray.get(task)
            error = "it ended without a result"
        except ray.exceptions.RayTaskError as raised:
            error = f"{type(raised.cause).__name__}: {raised.cause}"
        except ray.exceptions.TaskUnschedulableError:
            return  # its node was lost before it started: it is still waiting
        except ray.exceptions.RayError as died:
            self._deaths[job.id] += 1
            if self._deaths[job.id] <= RETRIES:
                return
            error = f"its process died {RETRIES + 1} times: {str(died).splitlines()[0]}"
        self.ledger.lose(job, error)

    def _tell(self, sent: _Sent) -> None:
        """Say so, once a job, when its node does not get free."""
        if time.time() - sent.at < Patience.NOTICE_S or sent.job.id in self._told:
            return
        progress = read_progress(job_folder(self.ledger.store.root, sent.job.id))
        self._told.add(sent.job.id)
        if progress is None or progress.updated_at < sent.at:
            self.say(f"timing {sent.job.title} waits until its node is free: it takes all of its CPUs and GPUs")


def _finished(tasks: list[Any]) -> list[Any]:
    return ray.wait(tasks, num_returns=len(tasks), timeout=0)[0] if tasks else []
