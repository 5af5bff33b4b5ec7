"""Which kind of node a job asks for, decided from the nodes that are there: no Ray here, so it is tested without one.

Roles are labels (`ray start --labels role=train`), and a timing node has the resource `timing: 1`. Training keeps off
timing nodes. A timing job is sent to one timing node by its id and takes all of it, so that nothing runs beside it,
whatever the sizes of the others. A single unlabelled node does both.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arm_core.errors import InputError
from harness.sweep.spec import Resources, Role

ACCELERATOR = "ray.io/accelerator-type"
KINDS = ("training", "timing")
Node = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """What one job of a kind asks Ray for.

    Attributes:
        cpus, gpus: of the job.
        labels: that its node must have, or has if it is named.
        node: the id of the node that it must run on; None: any that fits.
    """

    cpus: float
    gpus: float
    labels: dict[str, str]
    node: str | None = None


@dataclass(frozen=True)
class Placement:
    """The requests of both kinds of job: one for trainings, and one for each timing node."""

    train: Request | None
    timing: tuple[Request, ...]


def place(nodes: Sequence[Node], resources: Resources, kinds: Collection[str] = KINDS) -> Placement:
    """Find out what each kind of job asks for, so that some live node can give it.

    Args:
        nodes: as `ray.nodes()` returns them.
        resources: of the sweep.
        kinds: those of `KINDS` that there are jobs of.

    Raises:
        InputError: no live node fits a kind of job; with the `ray start` line of one that would.
    """
    alive = [node for node in nodes if node["Alive"]]
    train = _train(alive, resources.train) if "training" in kinds else None
    return Placement(train, _timing(alive, resources.timing) if "timing" in kinds else ())


def hosts(nodes: Sequence[Node], placement: Placement) -> dict[str, str]:
    """The nodes on which the jobs of a placement may run: id -> "training", "timing" or "training and timing"."""
    timing, found = {request.node for request in placement.timing}, {}
    for node in nodes:
        trains = node["Alive"] and placement.train is not None and _gives(node, placement.train)
        roles = [kind for kind, fits in zip(KINDS, (trains, node["NodeID"] in timing), strict=True) if fits]
        if roles:
            found[node["NodeID"]] = " and ".join(roles)
    return found


def _train(nodes: Sequence[Node], role: Role) -> Request:
    cpus, labelled = role.cpus or 1, any("role" in node.get("Labels", {}) for node in nodes)
    for node in nodes:
        device = _device_label(node, role.device)
        if device is not None:
            request = Request(cpus, role.gpus, device | ({"role": "train"} if labelled else {}))
            if _gives(node, request):
                return request
    raise _missing("training", role, ["--labels role=train"] if labelled else [])


def _timing(nodes: Sequence[Node], role: Role) -> tuple[Request, ...]:
    asked = Request(role.cpus or 1, role.gpus, {})
    found = []
    for node in nodes:
        device, owned = _device_label(node, role.device), node["Resources"]
        if device is not None and owned.get("timing", 0) >= 1 and _gives(node, asked):
            # all of it: a job that takes less may find another beside it
            found.append(Request(owned.get("CPU", 0), owned.get("GPU", 0), device, node["NodeID"]))
    if not found:
        raise _missing("timing", role, ["--labels role=timing", "--resources '{\"timing\": 1}'"])
    return tuple(found)


def _gives(node: Node, request: Request) -> bool:
    labels, owned = node.get("Labels", {}), node["Resources"]
    fits = owned.get("CPU", 0) >= request.cpus and owned.get("GPU", 0) >= request.gpus
    return fits and all(labels.get(name) == value for name, value in request.labels.items())


def _device_label(node: Node, device: str | None) -> dict[str, str] | None:
    """The label that asks for this node's device; {} if any will do; None if it is another device."""
    if device is None:
        return {}
    label = node.get("Labels", {}).get(ACCELERATOR, "")
    return {ACCELERATOR: label} if _plain(device) in _plain(label) else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _missing(kind: str, role: Role, flags: Sequence[str]) -> InputError:
    asked = f"{role.cpus or 1} CPUs, {role.gpus} GPUs" + (f", device {role.device}" if role.device else "")
    return InputError(
        f"no live node can run {kind} jobs ({asked}); start one on a machine that has them with "
        f"`{start_line(flags)}`, or ask for less under `resources:` in the sweep file or one of its profiles"
    )


def start_line(flags: Sequence[str], head: str = "HEAD:6379") -> str:
    """The `ray start` line of a node with these flags; its CPUs and GPUs Ray counts itself."""
    return " ".join(["ray start", f"--address {head}", *flags])
