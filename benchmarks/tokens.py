"""Decoders of tokens: a trained one beside `generate`, latents beside a PixelCNN, and many categories on a CPU.

Everything that is compared runs in one process, in turns, in an order drawn anew for every repetition, and draws the
same samples (but for `generate`, which has a generator of its own): equality comes first, in float64.
"""

import json
import platform
import random
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import click
import torch
from rich import box
from rich.table import Table
from torch import Tensor

from arm_core import (
    AutoregressiveModel,
    InputError,
    KeyedNoise,
    Layout,
    SampleTrace,
    ancestral_sample,
    load_checkpoint,
    predictive_sample,
    sample_many,
    sample_noise,
    top_k,
)
from arm_core.arms import Guided, TransformersARM, TransformersConfig, TransformersDecoder
from arm_core.data import load_dataset
from arm_core.decision import Decision
from arm_core.forecasters import fixed_point
from arm_core.native import native_kernels
from arm_core.samplers import cached_sequential_sample
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.options import keyed_noise
from arm_core.training import encode_all, evaluate
from benchmarks.command import ROOT, Benchmark
from benchmarks.gpu.models import loudness
from harness.console import CONSOLE
from harness.jobs.machine import keep_freed_memory

Row = dict[str, Any]
PER_SLOT, FEWEST = 4, 16
"""Samples a slot of a stream, and samples at least: the wait for its last ones and its set-up are then a small part."""
LATENTS = {"Llama": "latents-llama", "PixelCNN": "latents-pixelcnn"}


CHOSEN, NATIVE = "window chosen while sampling", ", in C++"
PARTS = ("speed", "latents", "large")


class Contestant(NamedTuple):
    """What is timed: its name, at how many slots (or what batch), how many samples a run draws, and the run."""

    name: str
    slots: int
    samples: int
    run: Callable[[int], SampleTrace | Tensor]


def contest(contestants: Sequence[Contestant], repetitions: int) -> list[Row]:
    """A row for each contestant: medians of repetitions that take turns, after a warm-up; calls, and dims a call."""
    wall: dict[int, list[float]] = {k: [] for k in range(len(contestants))}
    cpu: dict[int, list[float]] = {k: [] for k in range(len(contestants))}
    traces: dict[int, list[SampleTrace]] = {k: [] for k in range(len(contestants))}
    for repetition in range(-1, repetitions):
        order = list(range(len(contestants)))
        random.Random(repetition).shuffle(order)
        for k in order:
            started, before = time.perf_counter(), time.process_time()
            found = contestants[k].run(max(repetition, 0))
            if repetition < 0:
                continue
            wall[k].append(time.perf_counter() - started)
            cpu[k].append(time.process_time() - before)
            if isinstance(found, SampleTrace):
                traces[k].append(found)
    return [
        {
            "sampler": one.name,
            "slots": one.slots,
            "ms_a_sample": 1e3 * median(wall[k]) / one.samples,
            "cpu_ms_a_sample": 1e3 * median(cpu[k]) / one.samples,
            "ms_of_each_repetition": [1e3 * seconds / one.samples for seconds in wall[k]],
            **_calls(traces[k]),
        }
        for k, one in enumerate(contestants)
    ]


def _calls(traces: Sequence[SampleTrace]) -> Row:
    if not traces:
        return {}
    calls = torch.cat([trace.arm_calls for trace in traces])
    histogram = torch.stack([dims_a_call(trace) for trace in traces]).sum(dim=0)
    return {
        "calls": calls.double().mean().item(),
        "work": torch.cat([trace.arm_work for trace in traces]).mean().item(),
        "dims_a_call": traces[0].x.shape[1] / calls.double().mean().item(),
        "calls_by_dims": histogram[: int(histogram.nonzero().max()) + 1].tolist(),
    }


def dims_a_call(trace: SampleTrace) -> Tensor:
    """How many calls confirmed 0, 1, 2, ... dims of their sample."""
    dims = trace.x.shape[1]
    found = torch.zeros(dims + 1, dtype=torch.int64)
    for at, calls in zip(trace.converged_at, trace.arm_calls, strict=True):
        found += torch.bincount(torch.bincount(at - 1, minlength=int(calls)), minlength=dims + 1)
    return found


def check_equal(arm: AutoregressiveModel, count: int, windows: Sequence[int]) -> None:
    """In float64 streams, windows and cached sequential sampling give the ancestral samples.

    Raises:
        AssertionError: they do not.
    """
    arm.double()
    noise = sample_noise(arm.layout, seed=0, sample_ids=range(count), dtype=torch.float64)
    expected = ancestral_sample(arm, noise).x
    found = {f"window {window}": sample_many(arm, count=count, seed=0, slots=2, window=window).x for window in windows}
    found["cached sequential"] = cached_sequential_sample(arm, noise).x
    arm.float()
    for name, x in found.items():
        if not torch.equal(x, expected):
            raise AssertionError(f"{name} does not give the ancestral samples in float64")


def speed(checkpoint: Path, slots: Sequence[int], repetitions: int, native: bool) -> Row:
    """Part 1: a trained decoder, windows beside cached sequential sampling and `generate` with its own cache.

    With `native` everything that has spans once more, with the kernels in C++.
    """
    loaded = load_checkpoint(checkpoint)
    arm = loaded.arm
    if not isinstance(arm, TransformersDecoder):
        raise InputError(f"{checkpoint} must hold a decoder (arm: {{name: transformers}}), got {type(arm).__name__}")
    row = arm.layout.width
    check_equal(arm, 3, (row, 2 * row))
    contestants = list(_streams(arm, slots, (row, 2 * row)))
    if native:
        contestants += [one._replace(name=one.name + NATIVE, run=_with_kernels(one.run)) for one in contestants]
    contestants += [
        Contestant("generate", width, width, partial(_generate, arm, width)) for width in slots if width in (1, 16)
    ]
    rows = contest(contestants, repetitions)
    agree = [
        _share_equal(arm, width, sample_many(arm, count=width, seed=0, slots=width, window=row).x) for width in slots
    ]
    return {
        "bits_a_pixel": loaded.metadata.get("valid_bits_per_dim", 0) / loaded.metadata.get("patches", 1) ** 2,
        "exact_fraction_float32": min(agree),
        "rows": rows,
        "ratios": list(_ratios(rows)),
    }


def _streams(arm: AutoregressiveModel, slots: Sequence[int], windows: Sequence[int]) -> Iterator[Contestant]:
    for width in slots:
        count = max(FEWEST, PER_SLOT * width)
        for window in (None, *windows):
            name = CHOSEN if window is None else f"window of {window}"
            yield Contestant(name, width, count, partial(_stream, arm, width, count, window))
        yield Contestant("cached sequential", width, width, partial(_sequential, arm, width))


def _with_kernels(run: Callable[[int], SampleTrace | Tensor]) -> Callable[[int], SampleTrace | Tensor]:
    def native(seed: int) -> SampleTrace | Tensor:
        with native_kernels():
            return run(seed)

    return native


def _stream(arm: AutoregressiveModel, slots: int, count: int, window: int | None, seed: int) -> SampleTrace:
    return sample_many(arm, count=count, seed=seed, slots=slots, window=window)


def _sequential(arm: AutoregressiveModel, count: int, seed: int) -> SampleTrace:
    return cached_sequential_sample(arm, keyed_noise(arm, seed=seed, sample_ids=range(count)))


def _generate(arm: TransformersARM, count: int, seed: int) -> Tensor:
    """As many samples by the model's own `generate`: its cache, a token a call, no filters."""
    torch.manual_seed(seed)
    ids = torch.full((count, 1), arm.start or 0)
    dims = arm.layout.dims
    options: dict[str, Any] = {"do_sample": True, "top_k": 0, "pad_token_id": arm.start, "eos_token_id": None}
    found: Tensor = arm.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=dims, **options)
    assert found.shape == (count, 1 + dims)
    return found


def _share_equal(arm: AutoregressiveModel, count: int, x: Tensor) -> float:
    return float((x == _sequential(arm, count, 0).x).all(dim=1).double().mean())


def _ratios(rows: Sequence[Row]) -> Iterator[Row]:
    """How many times faster the chosen window is than what the issue asks about, and the ratio asked for."""
    ms = {(row["sampler"], row["slots"]): row["ms_a_sample"] for row in rows}
    asked = {("generate", 1): 5.0, ("generate", 16): 2.2}
    for (ours, width), taken in ms.items():
        if not ours.startswith(CHOSEN):
            continue
        for other in ("generate", "cached sequential" + ours.removeprefix(CHOSEN)):
            if (other, width) in ms:
                ratio = {"over": other, "slots": width, "times": ms[other, width] / taken}
                yield {"sampler": ours, **ratio, "asked": asked.get((other, width), 1.0)}


def latents(folder: Path, slots: Sequence[int], repetitions: int) -> Row:
    """Part 2: a Llama and a PixelCNN on the same latents: bits a dim, calls, ms a sample of every sampler."""
    rows: list[Row] = []
    for name, place in LATENTS.items():
        loaded = load_checkpoint(folder / place)
        arm, autoencoder = loaded.arm, loaded.autoencoder
        if autoencoder is None:
            raise InputError(f"{folder / place} must hold the autoencoder whose latents it models")
        images = load_dataset("photo_patches", crop=autoencoder.layout.height).split("test")
        bits, _ = evaluate(arm, None, encode_all(autoencoder, images))
        row = arm.layout.width * arm.layout.channels
        check_equal(arm, 2, (row,))
        contestants = list(_streams(arm, slots, (row,)))
        for width in slots:
            contestants.append(Contestant("fixed point, whole images", width, width, partial(_whole, arm, width)))
        contestants.append(Contestant("ancestral", 1, 1, partial(_ancestral, arm, 1)))
        shared = {"arm": name, "parameters": sum(p.numel() for p in arm.parameters()), "test_bits_a_dim": bits}
        rows += [{**shared, **found} for found in contest(contestants, repetitions)]
    return {"rows": rows}


def _whole(arm: AutoregressiveModel, count: int, seed: int) -> SampleTrace:
    return predictive_sample(arm, keyed_noise(arm, seed=seed, sample_ids=range(count)), fixed_point)


def _ancestral(arm: AutoregressiveModel, count: int, seed: int) -> SampleTrace:
    return ancestral_sample(arm, keyed_noise(arm, seed=seed, sample_ids=range(count)))


class Size(NamedTuple):
    """Of a decoder with random weights."""

    side: int
    categories: int
    features: int
    layers: int
    heads: int
    top_k: int


LARGE, TINY = Size(24, 16_384, 256, 4, 8, 2000), Size(4, 64, 16, 1, 2, 12)


def large(size: Size, *, slots: int, window: int, nats: float, tail: int) -> Row:
    """Part 3: many categories, guidance and top-k on a CPU: memory, seconds, tokens a call, and that they are right.

    Each sample is shown to be a fixed point of its noise, of which there is only one, the ancestral sample; and the
    last `tail` tokens of two samples are drawn again by ancestral sampling. Both once more in float64, where all must
    be.
    """
    layout = Layout(1, size.side, size.side, size.categories)
    arm = random_decoder(layout, size, nats)
    decide, context = top_k(size.top_k), torch.arange(slots) % 10
    draw = partial(sample_many, count=slots, seed=0, slots=slots, logits_processor=decide, context=context)
    before, started = _peak(), time.perf_counter()
    trace = draw(arm, window=window)
    wall, peak = time.perf_counter() - started, _peak()
    right, entropies = _right(arm, trace.x, decide, context, tail)
    exactly = _right(arm.double(), draw(arm, window=window).x, decide, context, tail)[0]
    return {
        **size._asdict(),
        "slots": slots,
        "window": window,
        "parameters": sum(p.numel() for p in arm.parameters()),
        "nats_a_token": sum(entropies) / slots,
        "equal_to_ancestral": right,
        "equal_to_ancestral_in_float64": exactly,
        "seconds_a_sample": wall / slots,
        "peak_bytes": peak,
        "peak_bytes_before": before,
        **_calls([trace]),
    }


def _right(arm: AutoregressiveModel, x: Tensor, decide: Any, context: Tensor, tail: int) -> tuple[float, list[float]]:
    """The share of samples that are fixed points of their noise, and the nats a token of each.

    Raises:
        AssertionError: ancestral sampling gives other last tokens, although both samples are fixed points.
    """
    noise, held = keyed_noise(arm, seed=0, sample_ids=range(len(x))), list[float]()
    right = torch.zeros(len(x), dtype=torch.bool)
    for sample in range(len(x)):
        values, logits = _decided(arm, x[sample : sample + 1], noise, sample, decide, context)
        right[sample] = torch.equal(values, x[sample])
        held.append(entropy(decide(logits)))
    prefix, given = x[:2, : arm.layout.dims - tail], {"logits_processor": decide, "context": context[:2]}
    if right[:2].all() and not torch.equal(
        ancestral_sample(arm, keyed_noise(arm, seed=0, sample_ids=range(2)), prefix=prefix, **given).x, x[:2]
    ):
        raise AssertionError("ancestral sampling gives other last tokens")
    return float(right.double().mean()), held


def _decided(
    arm: AutoregressiveModel, x: Tensor, noise: KeyedNoise, sample: int, decide: Any, context: Tensor
) -> tuple[Tensor, Tensor]:
    """What one pass over a sample decides everywhere, and the logits."""
    dims = torch.arange(arm.layout.dims)
    with sampling_mode(arm):
        logits = arm(x, context=context[sample : sample + 1]).logits[0]
        values = Decision(decide)(logits, noise.at(torch.full_like(dims, sample), dims)).values
    return values, logits


def random_decoder(layout: Layout, size: Size, nats: float) -> Guided:
    """With guidance 3 to one of ten classes; a token holds `nats` after guidance and top-k, at random x."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = TransformersConfig(width=size.features, layers=size.layers, heads=size.heads, classes=10)
        decoder = TransformersDecoder(layout, config).eval().requires_grad_(False)
        x = torch.randint(layout.categories, (1, layout.dims))
    arm = Guided(decoder, scale=3.0, null_context=-1)
    with torch.inference_mode():
        kept = arm(x, context=torch.tensor([0])).logits[0, ::7].topk(size.top_k, dim=-1).values
        decoder.model.get_output_embeddings().weight.mul_(loudness(kept, nats))
    return arm


def entropy(logits: Tensor) -> float:
    """Mean entropy of rows in nats."""
    log_p = logits.log_softmax(dim=-1)
    return -float((log_p.exp() * log_p.clamp_min(-1e30)).sum(dim=-1).mean())


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def show(part: str, found: Row) -> None:
    """Print what a part found: a line each of what it is about, its tables, and how many dims calls confirmed."""
    for name, value in found.items():
        if not isinstance(value, list):
            CONSOLE.print(f"{part}, {name}: {_text(value)}")
    for shown in (found.get("rows", []), found.get("ratios", [])):
        names = [name for name in dict.fromkeys(key for row in shown for key in row) if name not in _LISTS]
        table = Table(*names, box=box.SIMPLE)
        for row in shown:
            table.add_row(*(_text(row.get(name)) for name in names))
        if shown:
            CONSOLE.print(table)
    for row in (found, *found.get("rows", [])):
        if row.get("dims_a_call", 1) > 1:
            named = " ".join(str(row[name]) for name in ("arm", "sampler", "slots") if name in row)
            CONSOLE.print(f"{named}: calls that confirmed 0, 1, 2, ... dims: {row['calls_by_dims']}", soft_wrap=True)


_LISTS = ("ms_of_each_repetition", "calls_by_dims")


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


@click.command(cls=Benchmark)
@click.option(
    "--part", "parts", multiple=True, type=click.Choice(["speed", "latents", "large"]), help="All if left out."
)
@click.option("--folder", default=ROOT / "results" / "tokens", type=click.Path(path_type=Path), help="Of checkpoints.")
@click.option("--out", default="reports/tokens", show_default=True, type=click.Path(path_type=Path), help="Folder.")
@click.option("--repetitions", default=5, show_default=True, type=click.IntRange(min=1), help="That take turns.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="Of torch.")
@click.option("--native", is_flag=True, help="Part speed: with the kernels in C++ too.")
@click.option("--small", is_flag=True, help="Few slots, and a tiny decoder: whether it runs at all.")
def main(
    parts: tuple[str, ...], folder: Path, out: Path, repetitions: int, threads: int, native: bool, small: bool
) -> None:
    """Time decoders of tokens, and write OUT/PART-THREADS.json.

    \b
    Example:
      python -m benchmarks.tokens --part speed --native --threads 2 --out results/tokens
    """
    slots = (1, 2) if small else (1, 4, 16, 64)
    jobs: dict[str, Callable[[], Row]] = {
        "speed": lambda: speed(folder / "checkpoint", slots, repetitions, native),
        "latents": lambda: latents(folder, slots[::2], min(repetitions, 3)),  # whole images take long
        "large": lambda: large(TINY if small else LARGE, slots=slots[2 - small], window=12, nats=1.6, tail=32),
    }
    out.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    torch.set_num_threads(threads)
    for part in parts or jobs:
        started = time.perf_counter()
        found = {
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "repetitions": repetitions,
            **jobs[part](),
        }
        found["wall_s"] = time.perf_counter() - started
        (out / f"{part}-{threads}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        show(part, found)


if __name__ == "__main__":
    main()
