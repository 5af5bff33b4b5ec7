"""Training an ARM and its forecasting modules: steps as a generator, resumable at any of them.

Nothing here is kept between steps but weights, the optimiser and the step number: the order of the data follows from
(seed, epoch) and dropout from (seed, step). So a run that is stopped and resumed ends with the same bits on a CPU.
This module knows no Ray, no logger and no files.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from arm_core.contracts import AutoregressiveModel
from arm_core.errors import InputError
from arm_core.forecasters.learned import ForecastingModules
from arm_core.objectives import bits_per_dim, forecasting_kl

Sequences = UInt8[Tensor, "count dims"]


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; the defaults are the paper's (Table 1).

    Attributes:
        iterations: optimiser steps.
        batch_size: images a step.
        learning_rate: of Adam, at the first step.
        lr_decay: factor on the learning rate at every iteration.
        weight_decay: L2 penalty inside Adam.
        forecasting_weight: of the forecasting loss, beside the likelihood in nats per dimension.
        evaluate_every: iterations between two validations.
        checkpoint_every: iterations between two saved states.
    """

    iterations: int = 200_000
    batch_size: int = 64
    learning_rate: float = 2e-4
    lr_decay: float = 0.999995
    weight_decay: float = 1e-6
    forecasting_weight: float = 0.01
    evaluate_every: int = 1000
    checkpoint_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "evaluate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("weight_decay", "forecasting_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be finite and not negative, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0 < self.lr_decay <= 1:
            raise InputError(f"lr_decay must be in (0, 1], got {self.lr_decay}")


class DivergedError(ArithmeticError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class StepMetrics:
    """What one optimiser step saw, before its update.

    Attributes:
        step: 1 for the first.
        train_bits_per_dim: of its batch, with dropout.
        forecasting_kl_nats: of its batch; None without modules.
        learning_rate: that it used.
    """

    step: int
    train_bits_per_dim: float
    forecasting_kl_nats: float | None
    learning_rate: float


class Training:
    """An ARM in training: weights, optimiser and the number of steps done.

    Args:
        arm: trained in place, on its device.
        modules: trained with it, or None.
        config: how.
        seed: of the data order and of dropout, in [0, 2^32).
    """

    def __init__(
        self, arm: AutoregressiveModel, modules: ForecastingModules | None, config: TrainingConfig, *, seed: int
    ) -> None:
        if not 0 <= seed < 2**32:
            raise InputError(f"training seed must be in [0, 2^32), got {seed}")
        self.arm, self.modules, self.config, self.seed = arm, modules, config, seed
        self.step = 0
        parameters = [*arm.parameters(), *(modules.parameters() if modules is not None else [])]
        self.optimiser = torch.optim.Adam(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)

    @property
    def learning_rate(self) -> float:
        """That of the next step."""
        return self.config.learning_rate * self.config.lr_decay**self.step

    def state(self) -> dict[str, Tensor]:
        """All that a later process needs to go on, as named tensors."""
        parts: dict[str, Tensor] = {"step": torch.tensor(self.step)}
        parts |= {f"arm.{name}": value for name, value in self.arm.state_dict().items()}
        if self.modules is not None:
            parts |= {f"modules.{name}": value for name, value in self.modules.state_dict().items()}
        for index, moments in self.optimiser.state_dict()["state"].items():
            parts |= {f"adam.{index}.{name}": value for name, value in moments.items()}
        return parts

    def load_state(self, parts: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave, in a `Training` made from the same arguments."""
        self.step = int(parts["step"])
        self.arm.load_state_dict(_below(parts, "arm."))
        if self.modules is not None:
            self.modules.load_state_dict(_below(parts, "modules."))
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _below(parts, "adam.").items():
            index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})


def fit(training: Training, data: Sequences) -> Iterator[StepMetrics]:
    """Take the steps that are left, one for each `next`.

    Args:
        training: changed in place; between two steps its `state()` can be saved.
        data: all training images, flat; may be memory-mapped.

    Raises:
        DivergedError: the loss is not finite; the weights are those before the failing step.
        InputError: there is no training image.
    """
    if len(data) == 0:
        raise InputError("training needs at least one image, got none")
    device = next(training.arm.parameters()).device
    while training.step < training.config.iterations:
        rows = batch_rows(len(data), training.config.batch_size, step=training.step, seed=training.seed)
        yield _take_step(training, data[rows].to(device).long())


def batch_rows(count: int, batch_size: int, *, step: int, seed: int) -> Tensor:
    """The rows of the batch of a step: shuffled epochs without a gap, as a function of (seed, step) alone."""
    places = torch.arange(step * batch_size, (step + 1) * batch_size)
    epochs = places // count
    orders = {int(epoch): _epoch_order(count, int(epoch), seed) for epoch in epochs.unique()}
    return torch.stack([orders[int(epoch)][place % count] for epoch, place in zip(epochs, places, strict=True)])


def _epoch_order(count: int, epoch: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed((seed << 31) + epoch))


def _take_step(training: Training, x: Tensor) -> StepMetrics:
    arm, modules, config = training.arm, training.modules, training.config
    for group in training.optimiser.param_groups:
        group["lr"] = training.learning_rate
    arm.train()
    with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
        torch.manual_seed((training.seed << 31) + training.step)
        output = arm(x)
    bits = bits_per_dim(output.logits, x).mean()
    loss, kl = bits * math.log(2), None
    if modules is not None:
        kl = forecasting_kl(output.logits, modules(output.hidden))
        loss = loss + config.forecasting_weight * kl
    if not torch.isfinite(loss):
        raise DivergedError(
            f"the loss became {loss.item()} at step {training.step + 1}, learning rate {training.learning_rate:.3g}"
        )
    training.optimiser.zero_grad()
    loss.backward()
    metrics = StepMetrics(training.step + 1, bits.item(), kl.item() if kl is not None else None, training.learning_rate)
    training.optimiser.step()
    training.step += 1
    return metrics


@torch.inference_mode()
def evaluate(
    arm: AutoregressiveModel, modules: ForecastingModules | None, data: Sequences, *, batch_size: int = 64
) -> tuple[float, float | None]:
    """(bits/dim, forecasting KL in nats or None) over every image of `data`, in eval mode.

    Args:
        arm: left in the mode (train or eval) in which it came.
        modules: of the ARM, or None.
        data: at least one image.
        batch_size: images a pass; changes nothing but memory and time.
    """
    if len(data) == 0:
        raise InputError("evaluation needs at least one image, got none")
    was_training = arm.training
    arm.eval()
    device = next(arm.parameters()).device
    bits, kl = 0.0, 0.0
    for chunk in data.split(batch_size):
        x = chunk.to(device).long()
        output = arm(x)
        bits += bits_per_dim(output.logits, x).double().sum().item()
        if modules is not None:
            kl += forecasting_kl(output.logits, modules(output.hidden)).item() * len(x)
    arm.train(was_training)
    return bits / len(data), kl / len(data) if modules is not None else None


def _below(parts: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in parts.items() if name.startswith(prefix)}
