"""`harness sample`: from a checkpoint to a picture or arrays, in this process or on the workers of a Ray cluster."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from arm_core import (
    AutoregressiveModel,
    Checkpoint,
    InputError,
    Layout,
    ancestral_sample,
    stream_samples,
)
from arm_core.decision import Decision
from arm_core.registry import FORECASTERS
from harness.commands.card import card_of, write_card
from harness.console import CONSOLE
from harness.jobs.checkpoints import load
from harness.jobs.latents import shown, shown_layout
from harness.jobs.machine import device_of_this_job
from harness.jobs.sampling import Draw, arm_of, make_forecaster, options_of, proof_of
from harness.sweep import SamplerSpec
from harness.sweep.jobs import Pretrained
from harness.sweep.samplers import LEARNED

PER_SHARD = 8
"""Samples a slot that a worker draws before it hands them over: little is lost with it, and slots are refilled."""


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn.

    Attributes:
        checkpoint: its folder.
        arm: reference of the ARM's class, if it is not a registered one.
        spec: the sampler; `window: auto` chooses the window while sampling.
        slots: samples in work at a time.
        seed: of the noise.
        pretrained: how a folder of `save_pretrained` is read, if it is one.
    """

    checkpoint: Path
    arm: str | None
    spec: SamplerSpec
    slots: int
    seed: int
    pretrained: Pretrained | None = None

    def load(self) -> Checkpoint:
        """The checkpoint, on the device of this process."""
        return load(self.checkpoint, device=device_of_this_job(), arm=self.arm, pretrained=self.pretrained)

    def draw(self, loaded: Checkpoint, ids: range) -> Iterator[tuple[int, np.ndarray, int]]:
        """(id, sample, ARM calls) of each sample, as they finish."""
        arm = arm_of(self.spec, loaded)
        if self.spec.sampler == "ancestral":
            yield from self._ancestral(arm, ids)
            return
        stream = stream_samples(
            arm,
            count=len(ids),
            first_id=ids.start,
            seed=self.seed,
            slots=self.slots,
            forecaster=make_forecaster(self.spec, loaded),
            window=self.spec.window if isinstance(self.spec.window, int) else None,
            **options_of(self.spec, arm, len(ids)),
            **proof_of(self.spec),
        )
        for number, trace in stream:
            yield number, trace.x[0].cpu().numpy(), int(trace.arm_calls[0])

    def _ancestral(self, arm: AutoregressiveModel, ids: range) -> Iterator[tuple[int, np.ndarray, int]]:
        for start in range(0, len(ids), self.slots):
            part = ids[start : start + self.slots]
            noise = Draw.noise_of(arm, self.seed, part)
            trace = ancestral_sample(arm, noise, **options_of(self.spec, arm, len(part)))
            yield from zip(part, trace.x.cpu().numpy(), trace.arm_calls.tolist(), strict=True)


def sample(
    checkpoint: Path, *, arm: str | None, sampler: str, slots: int, seed: int, window: int | None, horizon: int | None,
    certified: bool, card: bool, count: int, out: Path | None, animate: Path | None, workers: int, address: str,
    pretrained: Pretrained | None = None, **decision: Any,
) -> None:  # fmt: skip
    """Do what `harness sample` says; `decision` has the options that change samples."""
    if horizon is not None and sampler not in LEARNED:
        raise InputError(f"--horizon is for --sampler learned, not for {sampler}; leave it out")
    if window is not None and sampler == "ancestral":
        raise InputError("--window is for forecasters, not for --sampler ancestral; leave it out")
    if (certified or card) and sampler == "ancestral":
        raise InputError("--certified and --card prove what a forecaster draws; leave --sampler ancestral out")
    if decision.get("guidance") is not None and decision.get("context") is None:
        raise InputError("--guidance needs a class to guide to; add --context")
    Decision(temperature=decision.get("temperature") or 0.0)  # whose rule and words these are
    how: dict[str, Any] = {"sampler": "ancestral"} if sampler == "ancestral" else {"forecaster": sampler}
    how |= {} if sampler == "ancestral" else {"window": window or "auto", "stream": True, "horizon": horizon}
    how["certified"] = certified or card
    spec = SamplerSpec(**how, **{name: value for name, value in decision.items() if value is not None})
    asked = Sampling(checkpoint.absolute(), arm, spec, slots, seed, pretrained)
    if out is not None and out.suffix == ".gif":
        out, animate = None, animate or out
    if out is None and animate is None:
        raise InputError("nothing would be kept; add --out FILE.png, --out FILE.npz or --animate FILE.gif")
    if card and out is None:
        raise InputError("--card is written beside the samples; add --out FILE.png or --out FILE.npz")
    if animate is not None:
        _animate(asked, animate)
    if out is not None:
        loaded, drawn = draw_samples(asked, count, out, workers=workers, address=address)
        if card:
            write_card(out.with_suffix(".card.json"), card_of(checkpoint, loaded, spec, seed, drawn))


def _animate(how: Sampling, out: Path) -> None:
    """Samples of this forecaster beside ancestral sampling and the paper's algorithm, as a moving picture."""
    if out.suffix != ".gif":
        raise InputError(f"--animate must end in .gif, got {out}")
    if how.spec.forecaster is None:
        raise InputError("--animate shows ancestral sampling beside a forecaster; leave --sampler ancestral out")
    from harness.commands.animation import IN_WORK, animate

    with CONSOLE.status("Drawing the picture"):
        films = animate(how.load(), how.spec, seed=how.seed, slots=min(how.slots, IN_WORK), out=out)
    made = ", ".join(f"{film.title} {film.done(films[1].end)}" for film in films)
    CONSOLE.print(f"Samples from {films[1].end:.0f} full passes of the network: {made}: {out}", soft_wrap=True)


def draw_samples(how: Sampling, count: int, out: Path, *, workers: int, address: str) -> tuple[Checkpoint, np.ndarray]:
    """Draw samples 0 .. count - 1 into a picture or arrays; returns what was loaded, and the samples, flat."""
    if out.suffix not in (".png", ".npz"):
        raise InputError(f"--out must end in .png (a grid) or .npz (arrays), got {out}")
    loaded = how.load()
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
    drawn = how.draw(loaded, range(count)) if workers == 1 else _on_workers(how, count, workers, address)
    quiet = not CONSOLE.is_terminal
    for number, value, taken in track(
        drawn, "Drawing samples", total=count, console=CONSOLE, transient=True, disable=quiet
    ):
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
    mean = calls.mean()
    CONSOLE.print(
        f"{count} samples, {mean:.1f} ARM calls each on average ({mean / layout.dims:.1%} of the {layout.dims} "
        f"that ancestral sampling takes): {out}",
        soft_wrap=True,
    )
    return loaded, values


def _on_workers(how: Sampling, count: int, workers: int, address: str) -> Iterator[tuple[int, np.ndarray, int]]:
    from harness.execution.environment import prepare

    prepare(address)
    from harness.execution import ray
    from harness.execution.spread import spread

    size = min(PER_SHARD * how.slots, -(-count // workers))
    shards = [range(start, min(start + size, count)) for start in range(0, count, size)]
    CONSOLE.print("Starting Ray ..." if address == "local" else f"Connecting to Ray at {address} ...")
    with ray.connected(address, dashboard=False):
        yield from spread(_drawn, [(how, shard) for shard in shards], workers)


def _drawn(how: Sampling, ids: range) -> list[tuple[int, np.ndarray, int]]:
    return list(how.draw(how.load(), ids))


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
