"""Whether the nodes of a cluster may work together: one error that lists what is wrong, and how to mend it.

Pure: the facts come from `harness.jobs.stack`, gathered by `harness.execution.cluster`.
"""

from collections.abc import Mapping
from pathlib import Path

from arm_core.errors import InputError
from harness.jobs.stack import Stack, runs_on


def check_nodes(
    mine: Stack, nodes: Mapping[str, Stack | None], roles: Mapping[str, str], *, store: Path, gpus: bool
) -> None:
    """Refuse a cluster whose rows could not be compared, or whose jobs could not work.

    Args:
        mine: the driver's facts; its token is the one that every node must read.
        nodes: id -> facts; None: it did not answer.
        roles: id -> what it would run.
        store: that all nodes must share.
        gpus: whether jobs run on GPUs.

    Raises:
        InputError: lists every fault of every node.
    """
    driver = next((facts.driver for facts in (mine, *nodes.values()) if facts is not None and facts.driver), None)
    found = []
    for node, facts in nodes.items():
        faults = ["it did not answer; look at it with `ray status`"]
        if facts is not None:
            faults = [*_of_versions(mine, facts, driver), *_of_store(mine, facts, store)]
            faults += _of_gpus(facts) if gpus else []
        name = f"{facts.host} ({node[:8]})" if facts is not None else node[:8]
        found += [f"{roles[node]} node {name}: {fault}" for fault in faults]
    if found:
        raise InputError("\n".join(["these nodes cannot work together:", *found]))


def _of_versions(mine: Stack, facts: Stack, driver: str | None) -> list[str]:
    different = [
        f"{name} is {facts.versions.get(name, 'none')}, here it is {version}; install the same environment on all nodes"
        for name, version in mine.versions.items()
        if facts.versions.get(name, "none") != version
    ]
    if facts.driver is not None and facts.driver != driver:
        different.append(f"its GPU driver is {facts.driver}, elsewhere it is {driver}; install one driver on all nodes")
    return different


def _of_store(mine: Stack, facts: Stack, store: Path) -> list[str]:
    if facts.token == mine.token:
        return []
    state = "does not see the store" if facts.token is None else "sees another folder than the driver at the store"
    return [f"it {state} {store}; give a --store on a file system that all nodes share"]


def _of_gpus(facts: Stack) -> list[str]:
    if facts.gpus and not facts.architectures:
        return [f"torch {facts.versions['torch']} has no CUDA; install a CUDA build of it on all nodes"]
    return [
        f"torch {facts.versions['torch']} has no code for its {gpu.name} (compute capability "
        f"{gpu.capability[0]}.{gpu.capability[1]}), only for {', '.join(facts.architectures)}; install a build that "
        "has, on all nodes (for Volta and Pascal the CUDA 12.6 builds: `pip install torch --index-url` with cu126)"
        for gpu in dict.fromkeys(facts.gpus)
        if not runs_on(gpu.capability, facts.architectures)
    ]
