"""Connects to Ray, and asks its nodes what they are."""

import logging
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness.execution.environment  # noqa: F401  # first: it sets what ray reads on import

# isort: split
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from arm_core.errors import InputError
from harness.execution.placement import Placement, hosts, start_line
from harness.execution.preflight import check_nodes
from harness.jobs.machine import available_cpus
from harness.jobs.stack import Stack, stack

_CONNECT_S, _ANSWER_S = 5.0, 60.0


@contextmanager
def connected(address: str, *, dashboard: bool = True) -> Iterator[str | None]:
    """A Ray of our own ("local") or a running cluster; gives the dashboard's address.

    Call `environment.prepare` with the address before this module is imported, if it is that of a cluster.

    Args:
        address: "local", or HOST:PORT of the cluster's head.
        dashboard: whether a Ray of our own has one.

    Raises:
        InputError: there is no cluster at the address, or it runs another Ray or Python.
    """
    local: dict[str, Any] = {}
    if address != "local":
        _check_listens(address)
    else:
        local = {"num_cpus": available_cpus(), "resources": {"timing": 1}, "include_dashboard": dashboard}
    try:
        context = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except ConnectionError as error:
        raise InputError(
            f"the Ray cluster at {address} lets nobody in ({' '.join(str(error).split())}). If it asks for a token, "
            "the one of its head must be in ~/.ray/auth_token here"
        ) from None
    except RuntimeError as error:
        refused = _refused(address, " ".join(str(error).split()))
        if refused is None:
            raise
        raise refused from None
    try:
        yield context.dashboard_url
    finally:
        ray.shutdown()


def _refused(address: str, reason: str) -> InputError | None:
    """What Ray's own checks at connecting found, said with what mends it; None for what is no such check."""
    if "mismatch" in reason.lower():
        return InputError(f"the cluster at {address} runs other versions: {reason}")
    if "node to connect to" in reason:
        return InputError(
            f"this machine is outside the cluster at {address} ({reason}). Run the command on one of its nodes, or "
            f"make this machine one that runs no jobs: `{start_line(['--num-cpus 0'], address)}`"
        )
    return None


def _check_listens(address: str) -> None:
    """Ray itself tries for minutes, without a word."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise InputError(f"--address must be local or HOST:PORT, got {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"no Ray cluster answers at {address} ({reason}); start one with `ray start --head --port {port}`"
        ) from None


def live_nodes() -> list[dict[str, Any]]:
    """The nodes of the connected cluster that are alive, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def check_cluster(placement: Placement, root: Path) -> None:
    """Ask every node that jobs may run on for its facts, and refuse those that cannot work together.

    Args:
        placement: of the jobs.
        root: of the store; a marker file is put there while the nodes are asked.

    Raises:
        InputError: see `preflight.check_nodes`.
    """
    nodes = live_nodes()
    roles = hosts(nodes, placement)
    if len(nodes) < 2:
        return  # this machine alone: the driver's own environment and folder
    root.mkdir(parents=True, exist_ok=True)
    marker, token = root / f".node-check-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    marker.write_text(token, encoding="utf-8")
    try:
        mine = replace(stack(marker), token=token)
        found = _ask(list(roles), marker)
    finally:
        marker.unlink(missing_ok=True)
    requests = [*placement.timing, *([placement.train] if placement.train is not None else [])]
    check_nodes(mine, found, roles, store=root, gpus=any(request.gpus for request in requests))


def _ask(nodes: list[str], marker: Path) -> dict[str, Stack | None]:
    """The facts of each node, by its id; None for one that does not answer in time."""
    ask = ray.remote(num_cpus=0, max_retries=0)(stack)
    tasks = {
        node: ask.options(
            name="check of the node", scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(marker.resolve())
        for node in nodes
    }
    ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=_ANSWER_S)
    answers = {node: _answer(task) for node, task in tasks.items()}
    alive = {node["NodeID"] for node in live_nodes()}  # one that was lost meanwhile is no fault of the others
    return {node: facts for node, facts in answers.items() if facts is not None or node in alive}


def _answer(task: Any) -> Stack | None:
    try:
        return ray.get(task, timeout=0)
    except (ray.exceptions.RayError, TimeoutError):
        return None
