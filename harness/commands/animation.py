"""How samples come about, as a moving picture: three samplers side by side, at the same clock of ARM work.

The same images under ancestral sampling, under the paper's algorithm in a batch, and in windows whose slots are
refilled. Each sampler is watched call by call through its forecaster; nothing here changes what is drawn.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from arm_core import Checkpoint, Forecaster, InputError, Layout, SamplerState, predictive_sample, stream_samples
from arm_core.forecasters import fixed_point
from harness.jobs.checkpoints import load
from harness.jobs.sampling import Draw, arm_of, make_forecaster, options_of
from harness.sweep import SamplerSpec
from harness.sweep.jobs import Existing

IN_WORK = 4
"""Most samples that are in work at a time, so that each can be seen."""
FRAMES, HOLD_MS, FRAME_MS = 110, 4000, 80
SLOWLY = 4.5
"""The clock starts in slow motion and runs exp(SLOWLY) times faster in the end, in all panels alike."""
_INK, _GREY, _RED, _LINE, _BLUE = (34, 34, 34), (120, 120, 120), (215, 48, 31), (230, 159, 0), (86, 156, 214)
_BLANK, _PAGE = (236, 236, 236), (255, 255, 255)
_TILE, _PANEL, _GAP, _EDGE, _SHELF, _BAR = 146, 300, 26, 18, 152, 108


class Call(NamedTuple):
    """What is to be seen before a call: the sample in each slot, its frontier, the forecast, and where that ends."""

    held: list[int]
    known: np.ndarray
    guess: np.ndarray
    stop: np.ndarray


@dataclass
class Film:
    """One sampler's calls.

    Attributes:
        title, note: above its panel.
        cost: of a call, in full passes of one image: all slots together.
        calls: in their order; each shows the state until it is done.
        finished: (calls made, sample id).
        images: the finished samples by id, flat.
    """

    title: str
    note: str
    cost: float = 0.0
    calls: list[Call] = field(default_factory=list)
    finished: list[tuple[int, int]] = field(default_factory=list)
    images: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def end(self) -> float:
        """Full passes that all calls took."""
        return self.cost * (len(self.calls) - 1)

    def done(self, clock: float) -> int:
        """Samples that are finished by then."""
        return sum(calls * self.cost <= clock + 1e-6 for calls, _ in self.finished)

    def watching(self, forecaster: Forecaster, held: list[int]) -> Callable[[SamplerState], Tensor]:
        """The forecaster, watched; `held` is read at every call."""

        def watch(state: SamplerState) -> Tensor:
            guess = forecaster(state)
            seen = (value.cpu().numpy().copy() for value in (state.known, guess, state.stop))
            self.calls.append(Call(list(held), *seen))
            return guess

        return watch


def animate(loaded: Checkpoint, spec: SamplerSpec, *, seed: int, slots: int, out: Path) -> list[Film]:
    """Draw samples 0 .. slots - 1 of a seed by all three samplers, and save how they came about.

    Args:
        loaded: the checkpoint.
        spec: the forecaster and window of the windows (None or auto: a row of the image), and what decides rows.
        seed: of the noise.
        slots: samples in work at a time, in every panel.
        out: the GIF to write.
    """
    arm = arm_of(spec, loaded)
    layout = arm.layout
    window = spec.window if isinstance(spec.window, int) else layout.width * layout.channels
    window = layout.dims if arm.granule is None else min(-(-window // arm.granule) * arm.granule, layout.dims)
    noise, options = Draw.noise_of(arm, seed, range(slots)), options_of(spec, arm, slots)
    paper = paper_film(lambda forecaster: predictive_sample(arm, noise, forecaster, **options), fixed_point, slots)
    most = slots * (layout.dims + 2)  # a sample takes a full pass at least, and the paper's algorithm as many as dims
    films = [
        ancestral_film(paper, layout.dims),
        paper,
        windows_film(
            lambda forecaster: stream_samples(
                arm, count=most, seed=seed, slots=slots, forecaster=forecaster, window=window,
                **options_of(spec, arm, most),
            ),
            make_forecaster(spec, loaded), slots, until=paper.end, note=f"of {window}, slots refilled",
        ),
    ]  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    save(films, layout, out)
    return films


def animate_checkpoint(path: Path, *, out: Path) -> None:
    """The same of a checkpoint's folder, as `harness sample --animate` does unless it is told more."""
    spec = SamplerSpec(forecaster="fixed_point_above", window="auto", stream=True)
    animate(load(Existing(path=str(path))), spec, seed=10, slots=IN_WORK, out=out)


def ancestral_film(paper: Film, dims: int) -> Film:
    """Ancestral sampling of the same samples: they are known to be equal, and each call makes one dimension final."""
    held = paper.calls[0].held
    most = int(paper.end / len(held)) + 1
    final = np.stack([paper.images[number] for number in held])
    film = Film("ancestral", "one value a call", cost=len(held), images=paper.images)
    for known in range(min(most, dims) + 1):
        frontier = np.full(len(held), known)
        film.calls.append(Call(held, frontier, final, frontier))
    film.finished = [(dims, number) for number in held]
    return film


def paper_film(draw: Callable[[Forecaster], Any], forecaster: Forecaster, slots: int) -> Film:
    """The paper's algorithm on a batch; `draw` gives the trace of samples 0 .. slots - 1."""
    film = Film("fixed point", f"the paper, a batch of {slots}")
    held = list(range(slots))
    trace = draw(film.watching(forecaster, held))
    film.cost = float(trace.arm_work.sum()) / len(film.calls)
    film.finished = sorted(zip(trace.arm_calls.tolist(), held, strict=True))
    film.images = dict(enumerate(trace.x.cpu().numpy()))
    film.calls.append(film.calls[-1]._replace(known=np.full(slots, trace.x.shape[1])))
    return film


def windows_film(
    stream: Callable[[Forecaster], Iterable[Any]], forecaster: Forecaster, slots: int, *, until: float, note: str
) -> Film:
    """A stream through slots that are refilled, until its clock has reached `until` full passes."""
    film = Film("windows", note)
    held, following = list(range(slots)), count(slots)
    work = calls = 0.0
    last = -1
    for number, trace in stream(film.watching(forecaster, held)):
        held[held.index(number)] = next(following)  # slots are refilled in the order in which their samples finish
        film.finished.append((len(film.calls), number))
        film.images[number] = trace.x[0].cpu().numpy()
        work, calls = work + float(trace.arm_work), calls + float(trace.arm_calls)
        film.cost = slots * work / calls
        if last < 0 and len(film.calls) * film.cost > until:
            last = max(held)
        if 0 <= last < min(held):  # every sample that is shown is finished
            break
    return film


def save(films: list[Film], layout: Layout, out: Path) -> None:
    """Write the films, as long as the second one takes, side by side into a GIF."""
    end = films[1].end
    pace = np.expm1(SLOWLY * np.linspace(0, 1, FRAMES)) / np.expm1(SLOWLY)
    most = max(film.done(end) for film in films)
    frames = [_frame(films, layout, clock, end, most) for clock in end * pace]
    colours = Image.fromarray(np.concatenate([np.asarray(frames[place]) for place in (FRAMES // 4, FRAMES // 2, -1)]))
    palette = colours.quantize(64, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    flat = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [FRAME_MS] * (FRAMES - 1) + [HOLD_MS]
    flat[0].save(out, save_all=True, append_images=flat[1:], duration=times, loop=0, optimize=False)


def _frame(films: list[Film], layout: Layout, clock: float, end: float, most: int) -> Image.Image:
    rows = (len(films[0].calls[0].held) + 1) // 2
    tall = 80 + rows * (_TILE + 8) + 44 + _SHELF + _BAR
    page = Image.new("RGB", (len(films) * (_PANEL + _GAP) - _GAP + 2 * _EDGE, tall), _PAGE)
    for index, film in enumerate(films):
        _panel(page, film, layout, clock, _EDGE + index * (_PANEL + _GAP), most)
    _clock(page, clock, end)
    return page


def _panel(page: Image.Image, film: Film, layout: Layout, clock: float, left: int, most: int) -> None:
    draw = ImageDraw.Draw(page)
    call = min(int(clock / film.cost + 1e-6), len(film.calls) - 1)
    now = film.calls[call]
    draw.text((left, 8), film.title, _INK, _font(32))
    draw.text((left, 46), film.note, _GREY, _font(21))
    for slot, number in enumerate(now.held):
        at = left + slot % 2 * (_TILE + 8), 80 + slot // 2 * (_TILE + 8)
        _paste(page, _tile(layout, now, slot, film.images[number]), at, _TILE)
        _frontier(draw, layout, int(now.known[slot]), at)
    top = 80 + (len(now.held) + 1) // 2 * (_TILE + 8)
    done = [number for _, number in film.finished[: film.done(clock)]]
    draw.text((left, top), f"{len(done)} finished", _INK if done else _GREY, _font(28))
    side = next((side for side in range(46, 8, -1) if (_PANEL // side) * (_SHELF // side) >= most), 8)
    columns = _PANEL // side
    for place, number in enumerate(done[: columns * (_SHELF // side)]):
        at = left + place % columns * side, top + 40 + place // columns * side
        _paste(page, _colours(layout, film.images[number]), at, side - 1)


def _clock(page: Image.Image, clock: float, end: float) -> None:
    draw = ImageDraw.Draw(page)
    top, right = page.height - _BAR + 14, page.width - _EDGE
    draw.rectangle((_EDGE, top, right, top + 12), _BLANK)
    draw.rectangle((_EDGE, top, _EDGE + (right - _EDGE) * clock / end, top + 12), _INK)
    draw.text((_EDGE, top + 18), f"network passes, the same for all three: {clock:.0f}", _INK, _font(24))
    at = _EDGE
    for text, colour in (("forecast", _BLUE), ("wrong forecast", _RED), ("frontier", _LINE), ("not reached", _BLANK)):
        draw.rectangle((at, top + 56, at + 18, top + 74), colour)
        draw.text((at + 25, top + 52), text, _INK, _font(22))
        at += 25 + int(draw.textlength(text, _font(22))) + 30


def _tile(layout: Layout, now: Call, slot: int, final: np.ndarray) -> np.ndarray:
    """(height, width, 3): what is final in its colours, forecasts bluish, wrong ones red, the rest blank."""
    dims, known, stop = np.arange(layout.dims), now.known[slot], now.stop[slot]
    guess = now.guess[slot].clip(0, layout.categories - 1)
    pixels = (layout.height, layout.width, layout.channels)
    is_known, is_guess = ((dims < edge).reshape(pixels).all(axis=-1) for edge in (known, stop))
    wrong = ((guess != final) & (dims >= known) & (dims < stop)).reshape(pixels).any(axis=-1)
    shown = _colours(layout, np.where(dims < known, final, guess)).astype(float)
    shown[~is_known] = 0.45 * shown[~is_known] + 0.55 * np.array(_BLUE)
    shown[~is_known & ~is_guess] = _BLANK
    shown[wrong] = _RED
    return shown.astype(np.uint8)


def _colours(layout: Layout, x: np.ndarray) -> np.ndarray:
    """(height, width, 3) of a flat sample; channels that are no RGB as their mean."""
    found = x.reshape(layout.height, layout.width, layout.channels) * (255 / max(1, layout.categories - 1))
    return (found if layout.channels == 3 else found.mean(axis=-1, keepdims=True).repeat(3, axis=-1)).astype(np.uint8)


def _paste(page: Image.Image, picture: np.ndarray, at: tuple[int, int], side: int) -> None:
    """Put a picture into a square of the page, as large as fits."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    page.paste(Image.fromarray(picture).resize(size, how), at)


def _frontier(draw: ImageDraw.ImageDraw, layout: Layout, known: int, at: tuple[int, int]) -> None:
    """A line between what is final and what is not."""
    pixel, side = known // layout.channels, _TILE / max(layout.height, layout.width)
    row, column = divmod(pixel, layout.width)
    left, top = at
    if row >= layout.height:
        return
    right, x, y = left + layout.width * side, left + column * side, top + row * side
    draw.line([(left, y + side), (x, y + side), (x, y), (right, y)], _LINE, 3)


def _font(size: int) -> Any:
    try:
        return ImageFont.load_default(size)
    except (ImportError, OSError) as error:
        raise InputError(f"a moving picture needs Pillow with FreeType ({error}); pip install -U pillow") from None
