"""Trainings on a Ray of our own start in a process that is there already and has imported what they need.

Ray starts a process when a training has got its CPUs, which then stand idle while it imports torch and Ray Tune: some
four seconds for every training.
"""

import logging
from typing import Any

import ray

from harness.execution.placement import Request

SETTINGS = {
    "RAY_preload_python_modules": "harness.execution.trainings,harness.jobs.train,harness.jobs.latents,torch._dynamo",
    "RAY_prestart_worker_first_driver": "0",  # Ray's own way: a process a core, however few jobs there are
}
"""What a Ray of our own reads from its environment when it starts."""
_KEEP_S, _ANSWER_S = 24 * 3600, 5.0
_LOG = logging.getLogger(__name__)


class Ahead:
    """Keeps one process in reserve while trainings wait for their turn.

    Only where one machine is all of Ray, and for trainings without GPUs: that a process may get its GPUs after the
    imports has not been tried on one.

    Args:
        trainable: the class of the trials.
        request: what a training asks for.
    """

    def __init__(self, trainable: type, request: Request) -> None:
        self._trainable, self._most, self._ready = trainable, 0, False
        self._helps = sum(node["Alive"] for node in ray.nodes()) == 1 and not request.gpus

    def started(self, *, running: int, waiting: bool) -> None:
        """A training has started.

        Args:
            running: how many run, with this one.
            waiting: whether others still have to start.
        """
        self._ready &= running > self._most  # then Ray has made room for it, with a process of its own
        self._most = max(self._most, running)
        if self._helps and waiting and not self._ready:
            self._ready = True
            try:
                start_ahead(self._trainable)
            except Exception:  # it is no call for users of Ray, and may change: then trainings wait for their imports
                _LOG.debug("no process was started ahead", exc_info=True)


def start_ahead(trainable: type) -> None:
    """Ask the only node of Ray for a process before there is a trial for it; does not wait until it is there."""
    from ray._private.grpc_utils import init_grpc_channel
    from ray._private.utils import get_runtime_env_info
    from ray.core.generated import common_pb2, node_manager_pb2_grpc
    from ray.core.generated import node_manager_pb2 as messages
    from ray.tune.execution.class_cache import _ActorClassCache

    (node,) = [node for node in ray.nodes() if node["Alive"]]
    actor: Any = _ActorClassCache().get(trainable)  # as Tune starts it: a process serves one environment only
    request = messages.PrestartWorkersRequest(  # type: ignore[attr-defined]
        language=common_pb2.PYTHON,  # type: ignore[attr-defined]
        job_id=bytes.fromhex(ray.get_runtime_context().get_job_id()),
        runtime_env_info=get_runtime_env_info(actor._default_options["runtime_env"], is_job_runtime_env=False),
        num_workers=1,
        keep_alive_duration_secs=_KEEP_S,
    )
    with init_grpc_channel(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}") as channel:
        node_manager_pb2_grpc.NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=_ANSWER_S)
