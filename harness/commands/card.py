"""A sample card: what a set of proved samples depends on, and their sha256, so that any machine can draw them again."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from arm_core import Checkpoint, InputError
from arm_core.atomic import write_atomic
from harness.sweep import SamplerSpec

FORMAT = 1


@dataclass(frozen=True)
class Card:
    """The samples of a card, and what they follow from.

    Attributes:
        checkpoint: its folder, as it was given.
        weights_sha256: of the ARM: names, dtypes, shapes and bytes of its weights.
        layout: shape and categories of the samples.
        seed: of the noise.
        first_id, count: the ids of the samples.
        decision: temperature, top_k, top_p, min_p, guidance, context (a class), where they are not left out.
        context_sha256: of the class of every sample; None: they have none.
        x_sha256: of the samples in the order of their ids, flat, as little-endian 64-bit integers.
    """

    checkpoint: str
    weights_sha256: str
    layout: dict[str, int]
    seed: int
    first_id: int
    count: int
    decision: dict[str, Any]
    context_sha256: str | None
    x_sha256: str
    format: int = FORMAT


def card_of(checkpoint: Path, loaded: Checkpoint, spec: SamplerSpec, seed: int, x: np.ndarray) -> Card:
    """The card of proved samples 0 .. len(x) - 1."""
    contexts = None if spec.context is None else sha256_of(np.full(len(x), spec.context))
    return Card(
        checkpoint=checkpoint.as_posix(),
        weights_sha256=weights_sha256(loaded.arm),
        layout=asdict(loaded.arm.layout),
        seed=seed,
        first_id=0,
        count=len(x),
        decision=spec.decision,
        context_sha256=contexts,
        x_sha256=sha256_of(x),
    )


def write_card(place: Path, card: Card) -> None:
    """As JSON."""
    write_atomic(place, (json.dumps(asdict(card), indent=1) + "\n").encode())


def read_card(place: Path) -> Card:
    """The card in a file, or an InputError if there is none."""
    try:
        card = Card(**json.loads(place.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{place} is no sample card ({error}); `harness sample --card` writes one") from None
    if card.format != FORMAT:
        raise InputError(f"{place} has format {card.format}, this version reads {FORMAT}; update the package")
    return card


def sha256_of(values: np.ndarray) -> str:
    """Of integers."""
    return hashlib.sha256(np.ascontiguousarray(values, "<i8").tobytes()).hexdigest()


def weights_sha256(arm: nn.Module) -> str:
    """Of all weights, whatever files they came in."""
    found = hashlib.sha256()
    for name, weight in sorted(arm.state_dict().items()):
        found.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        found.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
