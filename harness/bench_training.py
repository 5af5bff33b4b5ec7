"""The training step beside the same network with plain convolutions: what masks and everything else cost.

Both networks have the same layers and shapes; the plain one has no masks (and is no ARM). Steps of the two are
interleaved and the medians compared, on this device, in one run. Where the time goes is read from torch's profiler.
"""

import statistics
from dataclasses import dataclass

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from arm_core import Layout
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.training import Training, TrainingConfig, fit
from harness.jobs.clock import clock_for
from harness.jobs.machine import device_of_this_job, peak_memory

CONVOLUTION = ("convolution", "conv2d", "conv_transpose", "mkldnn_convolution", "cudnn_convolution")


@dataclass(frozen=True)
class StepTimes:
    """What a training step takes.

    Attributes:
        masked_s, plain_s: median seconds of a step with the masked and with the plain network.
        ratio: of the two.
        other_share: median share of a masked step's own operator time that is not convolution; looking up the columns
            of one-hot images counts as such.
        peak_mem_bytes: most that the process has held.
    """

    masked_s: float
    plain_s: float
    ratio: float
    other_share: float
    peak_mem_bytes: int


def time_steps(layout: Layout, config: PixelCNNConfig, *, batch_size: int, steps: int) -> StepTimes:
    """Time `steps` training steps of each network, after one of each that does not count."""
    device = device_of_this_job()
    data = torch.randint(layout.categories, (4 * batch_size, layout.dims), dtype=torch.uint8)
    settings = TrainingConfig(iterations=10**9, batch_size=batch_size)
    runs = []
    for masked in (True, False):
        torch.manual_seed(0)
        arm = PixelCNN(layout, config).to(device)
        if not masked:
            unmask(arm)
        runs.append(fit(Training(arm, None, settings, seed=0), data))
    clock = clock_for(device)
    seconds: list[list[float]] = [[], []]
    for turn in range(steps + 1):
        for run, found in zip(runs, seconds, strict=True):
            took = clock(lambda run=run: next(run))[1]  # type: ignore[misc]
            if turn > 0:
                found.append(took)
    masked_s, plain_s = map(statistics.median, seconds)
    share = statistics.median(_other_share(lambda: next(runs[0]), device) for _ in range(steps))
    ratio = statistics.median(first / second for first, second in zip(*seconds, strict=True))
    return StepTimes(masked_s, plain_s, ratio, share, peak_memory(device))


def unmask(module: nn.Module) -> None:
    """Take every mask out of a network: the same layers as plain convolutions."""
    for part in module.modules():
        if getattr(part, "mask", None) is not None:
            part.mask = None  # type: ignore[assignment]


def _other_share(step: object, device: torch.device) -> float:
    assert callable(step)
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=kinds) as record:
        step()
    field = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    total = {event.key: getattr(event, field) for event in record.key_averages()}
    inside = sum(time for name, time in total.items() if any(kind in name for kind in CONVOLUTION))
    return 1 - inside / max(sum(total.values()), 1)
