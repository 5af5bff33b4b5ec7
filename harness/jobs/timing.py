"""The timing job: all samplers on one checkpoint in one run, interleaved, every sample compared with the ancestral one.

Sample k of seed s has the noise of (s, k) in every sampler and batch size. Warm-ups are recorded and marked.
"""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arm_core import AutoregressiveModel, Checkpoint, SampleTrace, load_checkpoint, sample_noise
from arm_core.registry import ARMS
from harness.jobs.clock import Clock, clock_for
from harness.jobs.latents import decoded_columns
from harness.jobs.machine import device_of_this_job, other_cpu_seconds, provenance
from harness.jobs.progress import Reporter
from harness.jobs.rows import DATA, Rows
from harness.jobs.sampling import Sampler, make_sampler, measured
from harness.sweep.plan import SamplerSpec, TimingJob

BUSY_SHARE = 0.2
"""A repetition counts as disturbed when others used more than this share of a core meanwhile."""


def time_samplers(job: TimingJob, folder: Path, checkpoint: Path, *, clock: Clock | None = None) -> Rows:
    """Time every sampler at every batch size and seed.

    Args:
        job: what to time.
        folder: of the job.
        checkpoint: of the trained ARM.
        clock: None: that of the device.

    Returns:
        The rows of `timings`, `mistakes` and `samples`.
    """
    machine, device = provenance(), device_of_this_job()
    loaded = load_checkpoint(checkpoint, device=device, dtype=getattr(torch, job.dtype), arm=ARMS.resolve(job.arm.name))
    settled = [measured(spec, loaded) for spec in job.samplers]
    samplers = [(spec, make_sampler(spec, loaded)) for spec in settled]
    bench = _Bench(
        job, loaded, samplers, clock or clock_for(device), Reporter(folder, job.id, job.kind, job.title, "runs")
    )
    shared = {**_identity(job), "status": "done", "dims": loaded.arm.layout.dims, "dtype": job.dtype}
    shared |= {name: loaded.metadata.get(name) for name in DATA}
    shared |= {"checkpoint_sha256": loaded.sha256, **machine}
    figures = bench.figures()  # first: they show that the samples are equal before anything is timed
    not_alone = device.type == "cuda" and bool(machine["device_processes"])
    timings = [{**shared, **row, "busy": not_alone or row["busy"]} for row in bench.repetitions()]
    return {"timings": timings, **figures}


def failed_timing(job: TimingJob, error: str) -> Rows:
    """The row of a timing job that did not come to its end."""
    return {"timings": [{**_identity(job), "status": "failed", "error": error, **provenance()}]}


def _identity(job: TimingJob) -> dict[str, Any]:
    return {
        "job": job.id,
        "train_job": job.train_job,
        "sweep": job.sweep,
        "profile": job.profile,
        "dataset": job.dataset,
        "variant": job.variant,
        "train_seed": job.train_seed,
    }


class _Bench:
    """One run: the samplers, and the ancestral samples that they are compared with."""

    def __init__(
        self,
        job: TimingJob,
        checkpoint: Checkpoint,
        samplers: list[tuple[SamplerSpec, Sampler]],
        clock: Clock,
        progress: Reporter,
    ) -> None:
        self.job, self.arm, self.samplers, self.clock, self.progress = job, checkpoint.arm, samplers, clock, progress
        self.checkpoint = checkpoint
        self.done = 0
        self.total = len(samplers) * (1 + len(job.batch_sizes) * (1 + len(job.seeds)))

    def figures(self) -> Rows:
        """Samples and mistakes for the figures: the same noise for every sampler."""
        job, layout = self.job, self.arm.layout
        noise = self.noise(job.figure_seed, job.figure_count)
        traces = [(spec, self._step(spec, "figures", partial(run, noise))) for spec, run in self.samplers]
        reference = next(trace for spec, trace in traces if spec.sampler == "ancestral")
        samples, mistakes = [], []
        for spec, trace in traces:
            named = {"job": job.id, **{name: self.checkpoint.metadata.get(name) for name in DATA}, **_named(spec)}
            exact = (trace.x == reference.x).all(dim=1).tolist()
            maps = [layout.unflatten(part).cpu() for part in (trace.x, trace.mistakes, trace.settled_at)]
            decoded = decoded_columns(self.checkpoint, trace.x)
            for k, (image, wrong, settled) in enumerate(zip(*maps, strict=True)):
                samples.append(
                    {
                        **named,
                        "seed": job.figure_seed,
                        "sample_id": k,
                        "channels": layout.channels,
                        "height": layout.height,
                        "width": layout.width,
                        "categories": layout.categories,
                        "image": image.to(torch.uint8).contiguous().numpy().tobytes(),
                        "mistakes": wrong.to(torch.uint8).contiguous().numpy().tobytes(),
                        "settled_at": settled.flatten().tolist(),
                        "exact": exact[k],
                        **decoded[k],
                    }
                )
            counts, settled = trace.mistakes.sum(0).tolist(), trace.settled_at.double().mean(0).tolist()
            for (row, column, channel), count, mean in zip(layout.coordinates().tolist(), counts, settled, strict=True):
                place = {"row": row, "column": column, "channel": channel, "samples": job.figure_count}
                mistakes.append({**named, **place, "mistakes": count, "mean_settled_at": mean})
        return {"samples": samples, "mistakes": mistakes}

    def repetitions(self) -> list[dict[str, Any]]:
        """A row for every sampler, batch size and seed, in an order shuffled anew for every seed."""
        job, rows = self.job, []
        for batch_size in job.batch_sizes:  # a whole round of warm-ups: allocator, kernel choice, caches
            rows += self._round(batch_size, job.seeds[0], is_warmup=True)
        for seed in job.seeds:
            for batch_size in job.batch_sizes:
                rows += self._round(batch_size, seed, is_warmup=False)
        return [{"run_order": order, **row} for order, row in enumerate(rows)]

    def noise(self, seed: int, count: int) -> Tensor:
        weight = next(self.arm.parameters(), torch.empty(0))
        return sample_noise(
            self.arm.layout, seed=seed, sample_ids=range(count), dtype=weight.dtype, device=weight.device
        )

    def _round(self, batch_size: int, seed: int, *, is_warmup: bool) -> list[dict[str, Any]]:
        noise = self.noise(seed, batch_size)
        order = list(self.samplers)
        random.Random(f"{seed} {batch_size} {is_warmup}").shuffle(order)
        if is_warmup:  # a whole ancestral run warms nothing that the others do not, and takes the longest
            order = [(spec, run) for spec, run in order if spec.sampler != "ancestral"]
            self.done += 1
        traces, rows, round_before = [], [], other_cpu_seconds()
        for spec, run in order:
            before = other_cpu_seconds()
            trace, wall_s = self._step(spec, f"batch {batch_size}", partial(self.clock, partial(run, noise)))
            busy = _busy(before, other_cpu_seconds(), wall_s)
            traces.append(trace)
            rows.append(
                {
                    **_named(spec),
                    "batch_size": batch_size,
                    "seed": seed,
                    "is_warmup": is_warmup,
                    "wall_s": wall_s,
                    "arm_calls": trace.arm_calls.tolist(),
                    "arm_work": trace.arm_work.tolist(),
                    "mistakes": trace.mistakes.sum(1).tolist(),
                    "busy": busy,
                }
            )
        busy_round = _busy(round_before, other_cpu_seconds(), sum(row["wall_s"] for row in rows))
        for row in rows:  # of what is too short to tell by itself, the whole round tells
            row["busy"] = busy_round if row["busy"] is None else row["busy"]
        reference = next((t.x for (spec, _), t in zip(order, traces, strict=True) if spec.sampler == "ancestral"), None)
        if reference is not None:
            for row, trace in zip(rows, traces, strict=True):
                if row["sampler"] == "resampled":  # exact in law: there is no sample that it should equal
                    continue
                row["exact_fraction"] = (trace.x == reference).all(dim=1).double().mean().item()
                row["smallest_gap"] = smallest_gap(self.arm, noise, reference, trace)
        return rows

    def _step(self, spec: SamplerSpec, what: str, run: Callable[[], Any]) -> Any:
        self.progress.update(self.done, self.total, note=f"{spec.forecaster or spec.sampler}, {what}")
        result = run()
        self.done += 1
        return result


@torch.inference_mode()
def smallest_gap(arm: AutoregressiveModel, noise: Tensor, reference: Tensor, trace: SampleTrace) -> float | None:
    """Smallest gap between the best two of logits + noise where a sample first left the reference; None: it never did.

    Rounding explains a mismatch only if the gap is as small as the difference that rounding makes in logits.
    """
    gaps = []
    for k in (trace.x != reference).any(dim=1).nonzero().flatten().tolist():
        first = int((trace.x[k] != reference[k]).nonzero()[0])
        score = arm(reference[k : k + 1]).logits[0, first] + noise[k, first]
        best, second = score.topk(2).values.tolist()
        gaps.append(best - second)
    return min(gaps) if gaps else None


def _named(spec: SamplerSpec) -> dict[str, Any]:
    return {"sampler": spec.sampler, "forecaster": spec.forecaster, "horizon": spec.horizon}


def _busy(before: float | None, after: float | None, wall_s: float) -> bool | None:
    if before is None or after is None or wall_s < 0.5:  # the kernel counts in hundredths of a second
        return None
    return after - before > BUSY_SHARE * wall_s
