"""The timing job: all samplers on one checkpoint in one run, interleaved, every sample compared with the ancestral one.

Sample k of seed s has the noise of (s, k) in every sampler and at every width: the size of a batch, or the number of
slots of a stream. Warm-ups are recorded and marked.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arm_core import Checkpoint, InputError, SampleTrace
from arm_core.samplers.certified import in_dtype
from harness.jobs.checkpoints import load
from harness.jobs.clock import Clock, clock_for
from harness.jobs.energy import counters, joules_between
from harness.jobs.latents import decoded_columns
from harness.jobs.machine import (
    device_of_this_job,
    device_state,
    forget_peak_memory,
    other_cpu_seconds,
    peak_memory,
    provenance,
)
from harness.jobs.progress import Reporter
from harness.jobs.rows import DATA, Rows, job_columns
from harness.jobs.sampling import Draw, Sampler, as_run, decided, dims_per_call, make_sampler
from harness.sweep import SamplerSpec, TimingJob
from harness.sweep.jobs import Existing

REFERENCE_WIDTH = 16
"""Up to this batch size the reference is timed however long it takes: the others are compared with it."""
_SHADES = 256
"""Categories that the images in the table `samples` can have."""
_COMPARED = 16
"""Samples that are compared at a time."""
BUSY_SHARE = 0.2
"""A repetition counts as disturbed when others used more than this share of a core meanwhile."""


def time_samplers(job: TimingJob, folder: Path, checkpoint: Path | None, *, clock: Clock | None = None) -> Rows:
    """Time every sampler at every batch size and seed.

    Args:
        job: what to time.
        folder: of the job.
        checkpoint: of the trained ARM; None: the job names one that was there before.
        clock: None: that of the device.

    Returns:
        The rows of `timings`, `mistakes` and `samples`.
    """
    machine, device = provenance(), device_of_this_job()
    loaded = _load(job, checkpoint, job.dtype)
    settled = {ran.described(): ran for ran in (as_run(spec, loaded) for spec in job.samplers)}
    samplers = [(spec, make_sampler(spec, loaded)) for spec in settled.values()]
    if job.float64_samples:
        check_in_float64(_load(job, checkpoint, "float64"), list(settled.values()), job.float64_samples)
    bench = Bench(
        job, loaded, samplers, clock or clock_for(device), Reporter(folder, job.id, job.kind, job.title, "runs")
    )
    shared = {**job_columns(job), "status": "done", "dims": loaded.arm.layout.dims, "dtype": job.dtype}
    shared |= {name: loaded.metadata.get(name) for name in DATA}
    shared |= {"checkpoint_sha256": loaded.sha256, "latents": loaded.autoencoder is not None, **machine}
    figures = bench.figures()  # first: they show that the samples are equal before anything is timed
    timings, state = list(bench.repetitions()), device_state(device)  # its clock is still that of work
    seen = [each["device_processes"] for each in (machine, state) if each["device_processes"] is not None]
    state["device_processes"] = max(seen, default=None)
    not_alone = device.type == "cuda" and any(seen)
    return {"timings": [{**shared, **state, **row, "busy": not_alone or row["busy"]} for row in timings], **figures}


def _load(job: TimingJob, checkpoint: Path | None, dtype: str) -> Checkpoint:
    given = job.checkpoint or Existing(path=str(checkpoint), arm=job.arm)
    loaded = load(given, device=device_of_this_job(), dtype=getattr(torch, dtype))
    if job.sha256 is not None and loaded.sha256 != job.sha256:
        raise InputError(f"the checkpoint {given.path} has changed since the sweep was planned; run the sweep again")
    return loaded


def check_in_float64(checkpoint: Checkpoint, specs: Sequence[SamplerSpec], count: int) -> None:
    """Draw the same samples with every sampler in float64, where all must be equal; streams have fewer slots.

    Raises:
        InputError: a sampler draws others than the ancestral ones.
    """
    arm, drawn = checkpoint.arm, dict[str, Tensor]()
    for spec in specs:
        if not spec.in_law:
            draw = Draw.of(arm, 0, max(1, count - 1) if spec.stream else count, count)
            drawn[spec.described()] = make_sampler(spec, checkpoint)(draw).x
    references = {_decision(spec): drawn[spec.described()] for spec in specs if spec.sampler == "ancestral"}
    different = [
        spec.described()
        for spec in specs
        if not spec.in_law and not torch.equal(drawn[spec.described()], references[_decision(spec)])
    ]
    if different:
        raise InputError(f"not the ancestral samples in float64: {', '.join(different)}. Nothing was timed")


class Bench:
    """One run: the samplers, and the ancestral samples that they are compared with, those of the same decision."""

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
        self.seconds: dict[tuple[str, int], float] = {}  # of a sample, by sampler and width, in the last run
        streams = any(spec.stream for spec, _ in samplers)
        self.widths = sorted({*job.batch_sizes, *(job.slots if streams else ())})
        self.done = 0
        specs = [spec for spec, _ in samplers]
        warm_ups = sum(job.warms_up(spec) * len(job.widths_of(spec)) for spec in specs)
        self.total = len(specs) + warm_ups + sum(map(job.repetitions_of, specs))

    @cached_property
    def in_float64(self) -> Checkpoint:
        """The checkpoint with its ARM in float64."""
        return replace(self.checkpoint, arm=in_dtype(self.checkpoint.arm, torch.float64))

    def figures(self) -> Rows:
        """Samples and mistakes for the figures: the same noise for every sampler."""
        job, layout = self.job, self.arm.layout
        if layout.categories > _SHADES:  # tokens, and no picture
            return {}
        draw = Draw.of(self.arm, job.figure_seed, job.figure_count)
        traces = [
            (spec, self._step(spec, "samples for the figures", partial(run, draw))) for spec, run in self.samplers
        ]
        references = {_decision(spec): trace.x for spec, trace in traces if spec.sampler == "ancestral"}
        samples, mistakes = [], []
        for spec, trace in traces:
            named = {"job": job.id, **{name: self.checkpoint.metadata.get(name) for name in DATA}}
            named["sampler"] = spec.described()
            exact = (trace.x == references[_decision(spec)]).all(dim=1).tolist()
            maps = [layout.unflatten(part).cpu() for part in (trace.x, trace.mistakes, trace.settled_at)]
            decoded = decoded_columns(self.checkpoint, trace.x)
            for k, (image, wrong, settled) in enumerate(zip(*maps, strict=True)):
                samples.append(
                    {
                        **named,
                        "seed": job.figure_seed,
                        "sample_id": k,
                        **asdict(layout),
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
        """A row for every sampler, width and seed, in an order shuffled anew for every seed."""
        job, rows = self.job, []
        for width in self.widths:  # a whole round of warm-ups: allocator, kernel choice, caches
            rows += [row for _, row, _ in self._round(width, job.seeds[0], is_warmup=True)]
        for seed in job.seeds:
            known: dict[str, Tensor] = {}  # ancestral samples, as many as were drawn, by their decision
            for width in self.widths:
                found = self._round(width, seed, is_warmup=False)
                known |= {_decision(spec): trace.x for spec, _, trace in found if spec.sampler == "ancestral"}
                rows += [row if spec.in_law else self._compared(spec, row, trace, known) for spec, row, trace in found]
        return [{"run_order": order, **row} for order, row in enumerate(rows)]

    def _round(
        self, width: int, seed: int, *, is_warmup: bool
    ) -> list[tuple[SamplerSpec, dict[str, Any], SampleTrace]]:
        job = self.job
        order = [pair for pair in self.samplers if width in job.widths_of(pair[0])]
        random.Random(f"{seed} {width} {is_warmup}").shuffle(order)
        found, round_before = list[tuple[SamplerSpec, dict[str, Any], SampleTrace]](), other_cpu_seconds()
        for spec, run in order:
            if seed not in job.seeds_of(spec) or (is_warmup and not job.warms_up(spec)):
                continue
            count = width * job.samples_per_slot if spec.stream and not is_warmup else width
            if self._takes_too_long(spec, width, count):
                continue
            draw = Draw.of(self.arm, seed, width, count)
            forget_peak_memory()
            before, energy = other_cpu_seconds(), counters(draw.noise.device)
            trace, wall_s = self._step(spec, f"width {width}", partial(self.clock, partial(run, draw)))
            joules = joules_between(energy, counters(draw.noise.device))
            busy, memory = _busy(before, other_cpu_seconds(), wall_s), peak_memory(draw.noise.device)
            self.seconds[spec.described(), width] = wall_s / count
            row = {
                "sampler": spec.described(),
                "batch_size": width,
                "samples": count,
                "seed": seed,
                "is_warmup": is_warmup,
                "wall_s": wall_s,
                "arm_calls": trace.arm_calls.tolist(),
                "arm_work": trace.arm_work.tolist(),
                "mistakes": trace.mistakes.sum(1).tolist(),
                "windows": trace.window.tolist(),
                "repairs": trace.repairs.tolist() if spec.certified else None,
                "dims_per_call": dims_per_call(trace),
                "mistaken_per_call": dims_per_call(trace, mistaken=True),
                "peak_mem_bytes": memory,
                "energy_j": joules,
                "busy": busy,
            }
            found.append((spec, row, trace))
        busy_round = _busy(round_before, other_cpu_seconds(), sum(row["wall_s"] for _, row, _ in found))
        for _, row, _ in found:  # of what is too short to tell by itself, the whole round tells
            row["busy"] = busy_round if row["busy"] is None else row["busy"]
        return found

    def _takes_too_long(self, spec: SamplerSpec, width: int, count: int) -> bool:
        """Whether a sample at a smaller width took so long that this run would exceed the job's patience."""
        smallest = min(self.job.widths_of(spec))
        is_reference = spec.sampler == "ancestral" and width <= REFERENCE_WIDTH
        if self.job.patience is None or is_reference or width == smallest:  # no sampler is left out altogether
            return False
        name = spec.described()
        known = [each for (other, size), each in self.seconds.items() if other == name and size < width]
        return bool(known) and known[-1] * count > self.job.patience

    def _compared(
        self, spec: SamplerSpec, row: dict[str, Any], trace: SampleTrace, known: dict[str, Tensor]
    ) -> dict[str, Any]:
        """The row with how many of its samples are right: all of them are looked at.

        A sample of a batch is compared with the reference's in the same dtype. One of a stream, or one that is said to
        be proved, must be the fixed point of its noise in float64, of which there is only one: a single pass tells, at
        any size.
        """
        if spec.in_law:  # exact in law: there is no sample that it should equal
            return row
        proved = spec.stream or spec.certified
        judge = self.in_float64 if proved else self.checkpoint
        exact, gaps, drawn = 0, [], trace.x[:0] if proved else known.get(_decision(spec), trace.x[:0])
        for start in range(0, len(trace.x), _COMPARED):
            x = trace.x[start : start + _COMPARED]
            noise = Draw.noise_of(judge.arm, row["seed"], range(start, start + len(x)))
            twins = drawn[start : start + len(x)]
            if len(twins) < len(x):
                twins = torch.cat([twins, decided(spec, judge, x[len(twins) :], noise[len(twins) :])[0]])
            differ = (x != twins).any(dim=1)
            exact += int((~differ).sum())
            if differ.any():
                _, scores = decided(spec, judge, twins[differ], noise[differ])
                gaps.append(smallest_gap(scores, twins[differ], x[differ]))
        return {**row, "exact_fraction": exact / len(trace.x), "smallest_gap": min(gaps, default=None)}

    def _step(self, spec: SamplerSpec, what: str, run: Callable[[], Any]) -> Any:
        self.progress.update(self.done, self.total, note=f"{spec.sampler or spec.forecaster}, {what}")
        result = run()
        self.done += 1
        return result


def smallest_gap(scores: Tensor, reference: Tensor, x: Tensor) -> float:
    """Smallest gap between the best two scores where a sample first left the reference, as each of them did.

    Rounding explains a mismatch only if the gap is as small as the difference that rounding makes in logits.
    """
    first = (x != reference).int().argmax(dim=1)
    best, second = scores[torch.arange(len(x)), first].topk(2).values.T
    return float((best - second).min())


def _decision(spec: SamplerSpec) -> str:
    """What samplers agree in that draw the same samples."""
    return json.dumps(spec.decision, sort_keys=True)


def _busy(before: float | None, after: float | None, wall_s: float) -> bool | None:
    if before is None or after is None or wall_s < 0.5:  # the kernel counts in hundredths of a second
        return None
    return after - before > BUSY_SHARE * wall_s
