"""Trainings on a Ray of our own start in a process that is there already and has imported what they need.

Ray starts a process when a training has got its CPUs, which then stand idle while it imports torch and Ray Tune: some
four seconds for every training.
"""

import logging
from typing import Any

import ray

SETTINGS = {
    "RAY_preload_python_modules": "harness.execution.trainings,harness.jobs.train,harness.jobs.latents,torch._dynamo",
    "RAY_prestart_worker_first_driver": "0",  # Ray's own way: a process a core, however few jobs there are
}
"""What a Ray of our own reads from its environment when it starts."""
_KEEP_S, _ANSWER_S = 24 * 3600, 5.0
_LOG = logging.getLogger(__name__)


class Ahead:
    """Keeps one process in reserve while trainings wait for their turn.

    Args:
        at_once: how many trainings Ray can run at a time, each in a process that it starts itself; None: start nothing.
    """

    def __init__(self, at_once: int | None) -> None:
        self._at_once, self._started, self._ready = at_once, 0, False

    def started(self, left: int) -> None:
        """A training has started.

        Args:
            left: how many run or wait, this one included.
        """
        if self._at_once is None:
            return
        self._started += 1
        if self._started > self._at_once:
            self._ready = False  # it took the place of another one, and the process in reserve
        if left > self._at_once and not self._ready:
            try:
                start_ahead()
                self._ready = True
            except Exception:  # it is no call for users of Ray, and may change: then trainings wait for their imports
                _LOG.debug("no process was started ahead", exc_info=True)
                self._at_once = None


def start_ahead() -> None:
    """Ask the only node of Ray for a process before there is a trial for it; does not wait until it is there."""
    from ray import tune
    from ray._private.grpc_utils import init_grpc_channel
    from ray._private.ray_constants import GLOBAL_GRPC_OPTIONS
    from ray._private.utils import get_runtime_env_info
    from ray.core.generated import common_pb2, node_manager_pb2_grpc
    from ray.core.generated import node_manager_pb2 as messages
    from ray.tune.execution.class_cache import _ActorClassCache

    (node,) = [node for node in ray.nodes() if node["Alive"]]
    actor: Any = _ActorClassCache().get(tune.Trainable)  # as Tune starts trials: a process serves one environment only
    request = messages.PrestartWorkersRequest(  # type: ignore[attr-defined]
        language=common_pb2.PYTHON,  # type: ignore[attr-defined]
        job_id=bytes.fromhex(ray.get_runtime_context().get_job_id()),
        runtime_env_info=get_runtime_env_info(actor._default_options["runtime_env"], is_job_runtime_env=False),
        num_workers=1,
        keep_alive_duration_secs=_KEEP_S,
    )
    address = f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
    with init_grpc_channel(address, options=GLOBAL_GRPC_OPTIONS) as channel:
        node_manager_pb2_grpc.NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=_ANSWER_S)
