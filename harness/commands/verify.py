"""`harness verify`: whether the samples of a card are those of its weights, seed and ids, on this machine."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from arm_core import Checkpoint, InputError, Layout
from arm_core.samplers.certified import in_dtype
from harness.commands.card import Card, read_card, sha256_of, weights_sha256
from harness.commands.sample import Sampling
from harness.console import CONSOLE
from harness.jobs.sampling import Draw, decided
from harness.sweep import SamplerSpec
from harness.sweep.jobs import Existing


def verify(place: Path, model: Existing, *, samples: Path | None, slots: int) -> int:
    """Draw the samples of a card again, or prove those that are given; returns the exit code.

    Raises:
        InputError: there is no such card or checkpoint, or the weights are others than those of the card.
    """
    card = read_card(place)
    model = model if model.path else model.model_copy(update={"path": card.checkpoint})
    spec = SamplerSpec(forecaster="fixed_point_above", window="auto", stream=True, certified=True, **card.decision)
    how = Sampling(model.absolute(), spec, slots, card.seed)
    loaded = how.load()
    if weights_sha256(loaded.arm) != card.weights_sha256 or loaded.arm.layout != Layout(**card.layout):
        raise InputError(f"{model.path} holds other weights than those of {place}; give --checkpoint")
    contexts = None if spec.context is None else sha256_of(np.full(card.count, spec.context))
    if contexts != card.context_sha256:
        raise InputError(f"{place} was changed: its contexts are not those of its context_sha256")
    ids = range(card.first_id, card.first_id + card.count)
    x = _drawn(how, loaded, ids) if samples is None else _given(samples, card)
    verb = "drawn again" if samples is None else "proved"
    equal = sha256_of(x) == card.x_sha256 and (samples is None or _hold(how, loaded, x, ids))
    word = "are those of" if equal else "differ from those of"
    CONSOLE.print(f"{card.count} samples, {verb} in float64, {word} {place}", soft_wrap=True)
    return 0 if equal else 1


def _drawn(how: Sampling, loaded: Checkpoint, ids: range) -> np.ndarray:
    x = np.zeros((len(ids), loaded.arm.layout.dims), np.int64)
    for number, value, _ in how.draw(loaded, ids):
        x[number - ids.start] = value
    return x


def _given(samples: Path, card: Card) -> np.ndarray:
    with np.load(samples, allow_pickle=False) as arrays:
        images = arrays["latents" if "latents" in arrays else "images"]
    layout = Layout(**card.layout)
    if images.shape != (card.count, layout.channels, layout.height, layout.width):
        raise InputError(f"{samples} holds samples of shape {images.shape}, the card is of {card.count} of {layout}")
    return layout.flatten(torch.from_numpy(images.astype(np.int64))).numpy()


def _hold(how: Sampling, loaded: Checkpoint, x: np.ndarray, ids: range) -> bool:
    """Whether every sample is the fixed point of its noise in float64: one pass each."""
    judge = replace(loaded, arm=in_dtype(loaded.arm, torch.float64))
    for start in range(0, len(ids), how.slots):
        noise = Draw.noise_of(judge.arm, how.seed, ids[start : start + how.slots])
        samples = torch.from_numpy(x[start : start + how.slots]).to(noise.device)
        if not torch.equal(decided(how.spec, judge, samples, noise)[0], samples):
            return False
    return True
