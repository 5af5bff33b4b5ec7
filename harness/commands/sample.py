"""`harness sample`: from a checkpoint to a picture or arrays, in this process or on the workers of a Ray cluster."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from arm_core import (
    AutoregressiveModel,
    Checkpoint,
    InputError,
    Layout,
    ancestral_sample,
    stream_samples,
)
from arm_core.decision import Decision
from arm_core.native import check_native, native_kernels
from arm_core.registry import FORECASTERS
from harness.commands.card import card_of, write_card
from harness.commands.prefix import read_prefix
from harness.console import CONSOLE
from harness.jobs.checkpoints import load
from harness.jobs.latents import shown, shown_layout
from harness.jobs.machine import device_of_this_job
from harness.jobs.sampling import Draw, arm_of, as_run, make_forecaster, options_of, proof_of
from harness.sweep import SamplerSpec
from harness.sweep.jobs import Existing
from harness.sweep.samplers import LEARNED

PER_SHARD = 8
"""Samples a slot that a worker draws before it hands them over: little is lost with it, and slots are refilled."""

LINE_S = 10.0
"""Between two lines that say how far samples are, where there is no terminal."""


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn.

    Attributes:
        model: whose.
        spec: the sampler; `window: auto` chooses the window while sampling.
        slots: samples in work at a time.
        seed: of the noise.
        prefix: (images, known): what is kept of them; sample i completes number i of them, and begins again.
    """

    model: Existing
    spec: SamplerSpec
    slots: int
    seed: int
    prefix: Tensor | None = None

    def load(self) -> Checkpoint:
        """The checkpoint, on the device of this process."""
        return load(self.model, device=device_of_this_job())

    @property
    def known(self) -> int:
        """Leading dims of a sample that are given."""
        return 0 if self.prefix is None else self.prefix.shape[1]

    def draw(
        self, loaded: Checkpoint, ids: range, told: Callable[[float], object] = lambda more: None
    ) -> Iterator[tuple[int, np.ndarray, int]]:
        """(id, sample, ARM calls) of each sample, as they finish; `told` hears of every sample, or part of one."""
        arm = arm_of(self.spec, loaded)
        if self.spec.sampler == "ancestral":
            yield from self._ancestral(arm, ids, told)
            return
        stream = stream_samples(
            arm,
            count=len(ids),
            first_id=ids.start,
            seed=self.seed,
            slots=self.slots,
            forecaster=make_forecaster(self.spec, loaded),
            window=self.spec.window if isinstance(self.spec.window, int) else None,
            **self._options(arm, ids),
            **proof_of(self.spec),
        )
        for number, trace in stream:
            told(1)
            yield number, trace.x[0].cpu().numpy(), int(trace.arm_calls[0])

    def _ancestral(
        self, arm: AutoregressiveModel, ids: range, told: Callable[[float], object]
    ) -> Iterator[tuple[int, np.ndarray, int]]:
        for start in range(0, len(ids), self.slots):
            part = ids[start : start + self.slots]
            share = len(part) / (arm.layout.dims - self.known)  # of a call, in samples
            hook = arm.register_forward_hook(lambda *_, share=share: told(share))
            try:
                trace = ancestral_sample(arm, Draw.noise_of(arm, self.seed, part), **self._options(arm, part))
            finally:
                hook.remove()
            yield from zip(part, trace.x.cpu().numpy(), trace.arm_calls.tolist(), strict=True)

    def _options(self, arm: AutoregressiveModel, ids: range) -> dict[str, Any]:
        options = options_of(self.spec, arm, len(ids))
        if self.prefix is not None:
            options["prefix"] = self.prefix[torch.arange(ids.start, ids.stop) % len(self.prefix)]
        return options


def sample(
    model: Existing, *, sampler: str, slots: int, seed: int, window: int | None, horizon: int | None,
    certified: bool, card: bool, native: bool, count: int, out: Path | None, animate: Path | None, workers: int,
    address: str, prefix: Path | None, keep: int | None, **decision: Any,
) -> None:  # fmt: skip
    """Do what `harness sample` says; `decision` has the options that change samples."""
    if out is not None and out.suffix == ".gif":
        out, animate = None, animate or out
    if horizon is not None and sampler not in LEARNED:
        raise InputError(f"--horizon is for --sampler learned, not for {sampler}; leave it out")
    if window is not None and sampler == "ancestral":
        raise InputError("--window is for forecasters, not for --sampler ancestral; leave it out")
    if (certified or card) and sampler == "ancestral":
        raise InputError("--certified and --card prove what a forecaster draws; leave --sampler ancestral out")
    if native and sampler == "ancestral":
        raise InputError("--native is for windows, and --sampler ancestral has none; leave it out")
    if decision.get("guidance") is not None and decision.get("context") is None:
        raise InputError("--guidance needs a class to guide to; add --context")
    if keep is not None and prefix is None:
        raise InputError("--keep says how much of --prefix is kept; add --prefix FILE")
    if prefix is not None and (card or animate is not None):
        raise InputError(f"--{'card' if card else 'animate'} is for whole samples; leave it or --prefix out")
    Decision(temperature=decision.get("temperature") or 0.0)  # whose rule and words these are
    how: dict[str, Any] = {"sampler": "ancestral"} if sampler == "ancestral" else {"forecaster": sampler}
    how |= {} if sampler == "ancestral" else {"window": window or "auto", "stream": True, "horizon": horizon}
    how |= {"certified": certified or card, "native": native}
    spec = SamplerSpec(**how, **{name: value for name, value in decision.items() if value is not None})
    asked = Sampling(model.absolute(), spec, slots, seed)
    if out is None and animate is None:
        raise InputError("nothing would be kept; add --out FILE.png, --out FILE.npz or --animate FILE.gif")
    if card and out is None:
        raise InputError("--card is written beside the samples; add --out FILE.png or --out FILE.npz")
    if out is not None and out.suffix not in (".png", ".npz"):
        raise InputError(f"--out must end in .png (a grid) or .npz (arrays), got {out}")
    loaded = asked.load()
    if native:
        check_native(loaded.arm)
        as_run(spec, loaded)
    if prefix is not None:
        asked = replace(asked, prefix=read_prefix(prefix, loaded, keep=keep))
    with native_kernels(native):
        if animate is not None:
            _animate(asked, loaded, animate)
        if out is not None:
            drawn = draw_samples(asked, loaded, count, out, workers=workers, address=address)
            if card:
                write_card(out.with_suffix(".card.json"), card_of(Path(model.path), loaded, spec, seed, drawn))


def _animate(how: Sampling, loaded: Checkpoint, out: Path) -> None:
    """Samples of this forecaster beside ancestral sampling and the paper's algorithm, as a moving picture."""
    if out.suffix != ".gif":
        raise InputError(f"--animate must end in .gif, got {out}")
    if how.spec.forecaster is None:
        raise InputError("--animate shows ancestral sampling beside a forecaster; leave --sampler ancestral out")
    from harness.commands.animation import IN_WORK, animate

    with CONSOLE.status("Drawing the picture"):
        films = animate(loaded, how.spec, seed=how.seed, slots=min(how.slots, IN_WORK), out=out)
    made = ", ".join(f"{film.title} {film.done(films[1].end)}" for film in films)
    CONSOLE.print(f"Samples from {films[1].end:.0f} full passes of the network: {made}: {out}", soft_wrap=True)


def draw_samples(how: Sampling, loaded: Checkpoint, count: int, out: Path, *, workers: int, address: str) -> np.ndarray:
    """Draw samples 0 .. count - 1 into a picture or arrays; returns them flat."""
    if how.spec.forecaster is not None:
        FORECASTERS.resolve(how.spec.forecaster)
    layout, pixels = loaded.arm.layout, shown_layout(loaded)
    if out.suffix == ".png" and pixels.channels not in (1, 3):
        raise InputError(f"a picture needs 1 or 3 channels, the samples have {pixels.channels}; use --out FILE.npz")
    list(how.draw(loaded, range(0)))  # what cannot be drawn is refused here, not on a worker
    if isinstance(how.spec.window, int) and how.spec.window < layout.dims:
        loaded.arm.span_cache(1, how.spec.window)
    values = np.empty((count, layout.dims), np.uint8 if layout.categories <= 256 else np.int32)
    calls = np.empty(count, np.int64)
    with _progress(count) as told:
        if workers == 1:
            drawn = how.draw(loaded, range(count), told)
        else:
            drawn = _on_workers(how, count, workers, address, told)
        for number, value, taken in drawn:
            values[number], calls[number] = value, taken
    images = shown(loaded, torch.from_numpy(values)).numpy()
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npz":
        arrays = {"images": images, "arm_calls": calls, "seed": np.array(how.seed)}
        arrays["categories"] = np.array(pixels.categories)
        if pixels != layout:
            arrays["latents"] = layout.unflatten(torch.from_numpy(values)).numpy()
        np.savez_compressed(out, allow_pickle=False, **arrays)
    else:
        _save_grid(images, pixels, out)
    mean, whole = calls.mean(), layout.dims - how.known
    CONSOLE.print(
        f"{count} samples, {mean:.1f} ARM calls each on average ({mean / whole:.1%} of the {whole} "
        f"that ancestral sampling takes): {out}",
        soft_wrap=True,
    )
    return values


@contextmanager
def _progress(total: int) -> Iterator[Callable[[float], None]]:
    """Shows how many samples are done, in parts too: a bar on a terminal, elsewhere a line every ten seconds."""
    columns = (TextColumn("Drawing samples"), BarColumn(20), TaskProgressColumn(), TimeElapsedColumn())
    said = time.monotonic()
    with Progress(
        *columns, TextColumn("left"), TimeRemainingColumn(), console=CONSOLE, transient=True,
        disable=not CONSOLE.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=total)

        def told(more: float) -> None:
            nonlocal said
            bar.advance(task, more)
            if not CONSOLE.is_terminal and time.monotonic() - said > LINE_S:
                said = time.monotonic()
                CONSOLE.print(f"Drawing samples: {bar.tasks[0].completed:.1f} of {total}")

        yield told


def _on_workers(
    how: Sampling, count: int, workers: int, address: str, told: Callable[[float], object]
) -> Iterator[tuple[int, np.ndarray, int]]:
    from harness.execution.environment import prepare

    prepare(address)
    from harness.execution import ray
    from harness.execution.spread import spread

    size = min(PER_SHARD * how.slots, -(-count // workers))
    shards = [range(start, min(start + size, count)) for start in range(0, count, size)]
    CONSOLE.print("Starting Ray ..." if address == "local" else f"Connecting to Ray at {address} ...", soft_wrap=True)
    with ray.connected(address, dashboard=False):
        for drawn in spread(_drawn, [(how, shard) for shard in shards], workers):
            told(1)
            yield drawn


def _drawn(how: Sampling, ids: range) -> list[tuple[int, np.ndarray, int]]:
    loaded = how.load()
    if how.spec.native:
        check_native(loaded.arm)
    with native_kernels(how.spec.native):
        return list(how.draw(loaded, ids))


def _save_grid(images: np.ndarray, layout: Layout, out: Path) -> None:
    from PIL import Image

    columns = int(np.ceil(np.sqrt(len(images))))
    rows = -(-len(images) // columns)
    scale = max(1, 512 // (columns * (max(layout.height, layout.width) + 1)))
    grid = np.full((rows * (layout.height + 1) + 1, columns * (layout.width + 1) + 1, layout.channels), 255, np.uint8)
    shades = np.rint(images.astype(np.float64) * 255 / (layout.categories - 1)).astype(np.uint8)
    for index, image in enumerate(shades.transpose(0, 2, 3, 1)):
        top, left = (place * (size + 1) + 1 for place, size in zip(divmod(index, columns), image.shape, strict=False))
        grid[top : top + layout.height, left : left + layout.width] = image
    grid = grid.repeat(scale, axis=0).repeat(scale, axis=1)
    Image.fromarray(grid[:, :, 0] if layout.channels == 1 else grid).save(out)
