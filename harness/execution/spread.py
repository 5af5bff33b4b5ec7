"""Work that is cut into pieces, on the cores or GPUs of a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import harness.execution.cluster  # noqa: F401  # first: it sets what ray reads on import

# isort: split
import ray

from harness.execution.trainings import RETRIES


def spread(work: Callable[..., list[Any]], arguments: Sequence[tuple[Any, ...]], workers: int) -> Iterator[Any]:
    """What `work` returns for each of the arguments, item by item in any order, on at most `workers` cores or GPUs.

    A task whose process dies is tried again `RETRIES` times.
    """
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(work)
    waiting, running = list(arguments)[::-1], list[Any]()
    while waiting or running:
        running += [task.remote(*waiting.pop()) for _ in range(min(workers - len(running), len(waiting)))]
        done, running = ray.wait(running)
        yield from ray.get(done[0])
