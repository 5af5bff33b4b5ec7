"""Work that is cut into pieces, on the cores or GPUs of a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import harness.execution.cluster  # noqa: F401  # first: it sets what ray reads on import

# isort: split
import ray

from arm_core.errors import InputError
from harness.execution.patience import RETRIES, Patience


def spread(
    work: Callable[..., list[Any]],
    arguments: Sequence[tuple[Any, ...]],
    workers: int,
    say: Callable[[str], object] = print,
) -> Iterator[Any]:
    """What `work` returns for each of the arguments, item by item in any order, on at most `workers` cores or GPUs.

    A task whose process dies is tried again `RETRIES` times. `say` is told, once, when no core gets free.

    Raises:
        InputError: the cluster has no core for tasks.
    """
    if ray.cluster_resources().get("CPU", 0) < 1:
        raise InputError("the cluster has no CPUs for tasks; start a node with `ray start --address HEAD:6379`")
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(work)
    waiting, running, told = list(arguments)[::-1], list[Any](), False
    while waiting or running:
        running += [task.remote(*waiting.pop()) for _ in range(min(workers - len(running), len(waiting)))]
        done, running = ray.wait(running, timeout=Patience.NOTICE_S)
        if done:
            yield from ray.get(done[0])
        elif not told and any(ray.available_resources().get(kind, 0) < 1 for kind in ("GPU", "CPU")[1 - gpus :]):
            told = True
            say(f"Waiting for {'GPUs and ' * gpus}cores of the cluster: others may have them")
