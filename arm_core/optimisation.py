"""Gradient steps as a generator, resumable at any of them, whatever the networks and the loss.

Nothing is kept between steps but weights, the optimiser and the step number: the order of the data follows from
(seed, epoch), dropout and other draws from (seed, step). So a run that is stopped and resumed ends with the same bits
on a CPU. This module knows no particular network, no Ray, no logger and no files.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn

from arm_core.errors import InputError, whole

Images = UInt8[Tensor, "count *shape"]
Labels = Int[Tensor, "_"]  # (count,)
Networks = Mapping[str, nn.Module]
Figures = dict[str, Tensor]


@dataclass(frozen=True)
class FitConfig:
    """How to optimise; the defaults are the paper's (Table 1).

    Attributes:
        iterations: optimiser steps.
        batch_size: images a step.
        learning_rate: of Adam, at the first step.
        lr_decay: factor on the learning rate after every iteration or epoch.
        lr_decay_every: which of the two.
        weight_decay: L2 penalty inside Adam.
        accumulate: parts in which a batch goes through the networks, one after the other; saves memory.
        autocast: compute in bfloat16 where that is safe; weights, losses and optimiser stay as they are.
        keep: the weights that are the result: the last ones, or those that were best on validation.
        evaluate_every: iterations between two validations.
        checkpoint_every: iterations between two saved states.
    """

    iterations: int = 200_000
    batch_size: int = 64
    learning_rate: float = 2e-4
    lr_decay: float = 0.999995
    lr_decay_every: Literal["iteration", "epoch"] = "iteration"
    weight_decay: float = 1e-6
    accumulate: int = 1
    autocast: bool = False
    keep: Literal["last", "best"] = "last"
    evaluate_every: int = 1000
    checkpoint_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "accumulate", "evaluate_every", "checkpoint_every"):
            whole(name, getattr(self, name), 1)
        if self.accumulate > self.batch_size:
            raise InputError(f"accumulate must be at most batch_size ({self.batch_size}), got {self.accumulate}")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay must be finite and not negative, got {self.weight_decay}")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0 < self.lr_decay <= 1:
            raise InputError(f"lr_decay must be in (0, 1], got {self.lr_decay}")
        for name, valid in (("lr_decay_every", ("iteration", "epoch")), ("keep", ("last", "best"))):
            if getattr(self, name) not in valid:
                raise InputError(f"{name} must be {' or '.join(map(repr, valid))}, got {getattr(self, name)!r}")


class DivergedError(ArithmeticError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class StepMetrics:
    """What one optimiser step saw, before its update.

    Attributes:
        step: 1 for the first.
        learning_rate: that it used.
        figures: of its batch, by name; with dropout.
    """

    step: int
    learning_rate: float
    figures: dict[str, float]


class Optimisation:
    """Networks in training: weights, optimiser and the number of steps done. Subclasses say what a batch costs.

    Args:
        networks: by name; trained in place, on the device where they are.
        config: how.
        seed: of the data order and of all draws, in [0, 2^32).
    """

    def __init__(self, networks: Networks, config: FitConfig, *, seed: int) -> None:
        self.networks, self.config, self.seed = dict(networks), config, whole("training seed", seed, 0, 2**32 - 1)
        self.step = 0
        self.parameters = [p for network in self.networks.values() for p in network.parameters()]
        self.device = self.parameters[0].device
        self.optimiser = torch.optim.Adam(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )

    def loss(self, images: Tensor, labels: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Figures]:
        """The mean loss of a batch and what else is reported of it.

        Args:
            images: (batch, ...) as they are in the data, on the device of the networks.
            labels: (batch,) of the images, if the data have labels, on the same device.
            generator: for draws that the loss needs, on the same device.
        """
        raise NotImplementedError(f"{type(self).__name__} must define loss(images, labels, generator)")

    def state(self) -> dict[str, Tensor]:
        """All that a later process needs to go on, as named tensors."""
        parts: dict[str, Tensor] = {"step": torch.tensor(self.step)}
        for name, network in self.networks.items():
            parts |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
        for index, moments in self.optimiser.state_dict()["state"].items():
            parts |= {f"adam.{index}.{name}": value for name, value in moments.items()}
        return parts

    def load_state(self, parts: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave, in an `Optimisation` made from the same arguments."""
        self.step = int(parts["step"])
        for name, network in self.networks.items():
            network.load_state_dict(_below(parts, f"{name}."))
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _below(parts, "adam.").items():
            index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = _laid_out(value, like=self.parameters[int(index)])
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})


@runtime_checkable
class Drawn(Protocol):
    """Training images that are fetched for every step: binarised anew, or read from a file."""

    def __len__(self) -> int:
        """How many there are."""

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """The images of these rows; they depend on the generator alone."""


def _laid_out(moment: Tensor, *, like: Tensor) -> Tensor:
    """The moment in the memory format of its weight: the fused optimiser walks through both side by side."""
    return torch.empty_like(like, dtype=moment.dtype).copy_(moment) if moment.shape == like.shape else moment


def fit(training: Optimisation, data: Images | Drawn, labels: Labels | None = None) -> Iterator[StepMetrics]:
    """Take the steps that are left, one for each `next`.

    Args:
        training: changed in place; between two steps its `state()` can be saved.
        data: all training images; may be memory-mapped, only the rows of a batch are read and moved. Or what draws
            them: by a generator of (seed, step).
        labels: of all of them, for an ARM that is conditioned on labels.

    Raises:
        DivergedError: the loss is not finite; the weights are those before the failing step.
        InputError: there is no training image, or not a label for each.
    """
    if len(data) == 0:
        raise InputError("training needs at least one image, got none")
    check_labels(labels, len(data))
    while training.step < training.config.iterations:
        rows = batch_rows(len(data), training.config.batch_size, step=training.step, seed=training.seed)
        if isinstance(data, Tensor):
            images = data[rows]
        else:
            images = data.draw(rows, torch.Generator().manual_seed((training.seed << 31) + training.step ^ 1 << 61))
        named = None if labels is None else labels[rows]
        yield _take_step(training, images, named, learning_rate(training.config, training.step, len(data)))


def check_labels(labels: Tensor | None, count: int) -> None:
    """Refuse labels that do not stand side by side with `count` images."""
    if labels is not None and len(labels) != count:
        raise InputError(f"there must be a label for each image, got {len(labels)} labels for {count} images")


def learning_rate(config: FitConfig, step: int, count: int) -> float:
    """That of the step after `step` others, on `count` training images."""
    times = step if config.lr_decay_every == "iteration" else step * config.batch_size // count
    return config.learning_rate * config.lr_decay**times


def batch_rows(count: int, batch_size: int, *, step: int, seed: int) -> Tensor:
    """The rows of the batch of a step: shuffled epochs without a gap, as a function of (seed, step) alone."""
    places = torch.arange(step * batch_size, (step + 1) * batch_size)
    epochs = places // count
    rows = [_epoch_order(count, int(epoch), seed)[places[epochs == epoch] % count] for epoch in epochs.unique()]
    return torch.cat(rows)


def _epoch_order(count: int, epoch: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed((seed << 31) + epoch))


def _take_step(training: Optimisation, images: Tensor, labels: Tensor | None, rate: float) -> StepMetrics:
    config, device = training.config, training.device
    for group in training.optimiser.param_groups:
        group["lr"] = rate
    for network in training.networks.values():
        network.train()
        network.zero_grad()
    figures: Figures = {}
    draw = (training.seed << 31) + training.step
    generator = torch.Generator(device).manual_seed(draw ^ 1 << 62)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(draw)
        parts = images.chunk(config.accumulate)
        named = [None] * len(parts) if labels is None else labels.to(device).chunk(config.accumulate)
        for part, label in zip(parts, named, strict=True):
            with torch.autocast(device.type, torch.bfloat16, enabled=config.autocast):
                loss, seen = training.loss(part.to(device), label, generator)
            share = len(part) / len(images)
            (loss * share).backward()
            for name, value in {"loss": loss, **seen}.items():
                figures[name] = figures.get(name, 0.0) + value.detach() * share
    values = {name: value.item() for name, value in figures.items()}
    if not math.isfinite(values.pop("loss")):
        raise DivergedError(_where(training, figures["loss"].item(), rate))
    training.optimiser.step()
    training.step += 1
    return StepMetrics(training.step, rate, values)


def _where(training: Optimisation, loss: float, rate: float) -> str:
    bad = (
        f"{name}.{key}"
        for name, network in training.networks.items()
        for key, value in network.named_parameters()
        if not torch.isfinite(value).all()
    )
    first = next(bad, None)
    weights = "all weights are still finite" if first is None else f"the first weights that are not finite: {first}"
    return f"the loss became {loss} at step {training.step + 1}, learning rate {rate:.3g}; {weights}"


def _below(parts: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in parts.items() if name.startswith(prefix)}
