"""A cluster of Ray nodes on this machine: a head, two that train, one that times; and a sweep that runs on it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # on loopback, for tests only
    "OMP_NUM_THREADS": "1",
    "RAY_raylet_start_wait_time_s": "120",
}


class Emulated:
    """Nodes that come and go.

    Attributes:
        address: of the head.
    """

    def __init__(self) -> None:
        os.environ.update(ENVIRONMENT)
        from ray._private.services import node_ip_address_from_perspective
        from ray.cluster_utils import Cluster

        self._address = node_ip_address_from_perspective()  # where a driver of its own looks for them
        head = {"num_cpus": 0, "include_dashboard": False, "node_ip_address": self._address}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = self._cluster.address
        self.nodes = {"train": [self.add("train"), self.add("train")], "timing": [self.add("timing")]}

    def add(self, role: str):
        """Start a node."""
        extra = {"resources": {"timing": 1}} if role == "timing" else {}
        return self._cluster.add_node(num_cpus=1, labels={"role": role}, node_ip_address=self._address, **extra)

    def lose(self, role: str, index: int) -> None:
        """Kill a node with all its processes, and start another in its place."""
        node = self.nodes[role][index]
        self._cluster.remove_node(node, allow_graceful=False)
        self.nodes[role][index] = self.add(role)

    def shutdown(self) -> None:
        self._cluster.shutdown()


def start_sweep(file: Path, store: Path, cluster: Emulated) -> subprocess.Popen[str]:
    """The sweep as its user starts it, in a process of its own."""
    command = [sys.executable, "-m", "harness", "sweep", str(file), "--address", cluster.address, "--store", str(store)]
    output = (file.parent / "output.txt").open("a")
    return subprocess.Popen(command, stdout=output, stderr=output, text=True, env={**os.environ, **ENVIRONMENT})


def kill(pid: int) -> bool:
    """kill -9; whether there was such a process."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
