"""Which node a job may go to: pure functions of what `ray.nodes()` says.

A cluster gives its nodes a label `role` (train or timing) and its timing nodes the resource `timing: 1`. Training
keeps off timing nodes; a timing job takes all of its node, so that nothing runs beside it. A single unlabelled node
does both.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arm_core.errors import InputError
from harness.sweep.spec import Resources, Role

ACCELERATOR = "ray.io/accelerator-type"
Node = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """What one job of a kind asks Ray for."""

    cpus: float
    gpus: float
    labels: dict[str, str]
    timing: float = 0.0


@dataclass(frozen=True)
class Placement:
    """The requests of both kinds of job."""

    train: Request
    timing: Request


def place(nodes: Sequence[Node], resources: Resources) -> Placement:
    """Find out what each kind of job asks for, so that some live node can give it.

    Args:
        nodes: as `ray.nodes()` returns them.
        resources: of the sweep.

    Raises:
        InputError: no live node fits a kind of job; with the `ray start` line of one that would.
    """
    alive = [node for node in nodes if node["Alive"]]
    labelled = any("role" in node.get("Labels", {}) for node in alive)
    return Placement(_train(alive, resources.train, labelled), _timing(alive, resources.timing))


def _train(nodes: Sequence[Node], role: Role, labelled: bool) -> Request:
    cpus = role.cpus or 1
    for node in nodes:
        labels = node.get("Labels", {})
        if labelled and labels.get("role") != "train":
            continue
        device = _device_label(node, role.device)
        if device is not None and _has(node, "CPU", cpus) and _has(node, "GPU", role.gpus):
            return Request(cpus, role.gpus, device | ({"role": "train"} if labelled else {}))
    raise _missing("training", role, cpus, "--labels role=train" if labelled else "")


def _timing(nodes: Sequence[Node], role: Role) -> Request:
    for node in nodes:
        device = _device_label(node, role.device)
        fits = _has(node, "timing", 1) and _has(node, "CPU", role.cpus or 1) and _has(node, "GPU", role.gpus)
        if device is not None and fits:
            owned = node["Resources"]  # all of it: a job that takes less may find another beside it
            return Request(owned.get("CPU", 0), owned.get("GPU", 0), device, timing=1)
    raise _missing("timing", role, role.cpus or 1, "--labels role=timing --resources '{\"timing\": 1}'")


def _has(node: Node, resource: str, amount: float) -> bool:
    return node["Resources"].get(resource, 0) >= amount


def _device_label(node: Node, device: str | None) -> dict[str, str] | None:
    """The label that asks for this node's device; {} if any will do; None if it is another device."""
    if device is None:
        return {}
    label = node.get("Labels", {}).get(ACCELERATOR, "")
    return {ACCELERATOR: label} if _plain(device) in _plain(label) else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _missing(kind: str, role: Role, cpus: int, flags: str) -> InputError:
    asked = f"{cpus} CPUs, {role.gpus} GPUs" + (f", device {role.device}" if role.device else "")
    start = f"ray start --address HEAD:6379 --num-cpus {cpus} --num-gpus {role.gpus} {flags}".rstrip()
    return InputError(
        f"no live node can run {kind} jobs ({asked}); start one with `{start}`, or ask for less under "
        "`resources:` in the sweep file or one of its profiles"
    )
