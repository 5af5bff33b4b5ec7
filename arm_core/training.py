"""Training an ARM with its forecasting modules, and training an autoencoder; see `optimisation` for the steps.

This module knows the losses. It knows no Ray, no logger and no files.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from arm_core.contracts import ArmOutput, AutoregressiveModel
from arm_core.errors import InputError
from arm_core.eval_mode import eval_mode
from arm_core.fixed_point import fixed_point
from arm_core.forecasters.modules import ForecastingModules
from arm_core.gumbel import posterior_gumbel, standard_gumbel
from arm_core.latents import CodebookUsage, DiscreteAutoencoder, codebook_usage
from arm_core.layout import Layout
from arm_core.objectives import bits_per_dim, forecasting_kl, reconstruction_mse
from arm_core.optimisation import (
    DivergedError,
    Figures,
    FitConfig,
    Images,
    Labels,
    Networks,
    Optimisation,
    StepMetrics,
    batch_rows,
    check_labels,
    fit,
    learning_rate,
)
from arm_core.samplers import predictive_sample

__all__ = [
    "AutoencoderTraining",
    "AutoencoderTrainingConfig",
    "DivergedError",
    "Images",
    "Optimisation",
    "StepMetrics",
    "Training",
    "TrainingConfig",
    "batch_rows",
    "encode_all",
    "evaluate",
    "evaluate_autoencoder",
    "fit",
    "learning_rate",
]


@dataclass(frozen=True)
class TrainingConfig(FitConfig):
    """How to train an ARM; the defaults are the paper's (Table 1).

    Attributes:
        forecasting_weight: of the forecasting loss, beside the likelihood in nats per dimension.
        label_dropout: share of the labels, if there are any, that a step replaces by -1, none: the ARM then learns both
            distributions that guidance needs (Ho & Salimans, 2022).
    """

    forecasting_weight: float = 0.01
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.forecasting_weight < math.inf:
            raise InputError(f"forecasting_weight must be finite and not negative, got {self.forecasting_weight}")
        if not 0 <= self.label_dropout <= 1:
            raise InputError(f"label_dropout must be in [0, 1], got {self.label_dropout}")


class Training(Optimisation):
    """An ARM in training, with its forecasting modules or without.

    Args:
        arm: trained in place, on its device.
        modules: trained with it, or None.
        config: how.
        seed: of the data order and of all draws, in [0, 2^32).
    """

    def __init__(
        self,
        arm: AutoregressiveModel,
        modules: ForecastingModules | None,
        config: TrainingConfig,
        *,
        seed: int,
    ) -> None:
        self.arm, self.modules = arm, modules
        self.weight, self.label_dropout = config.forecasting_weight, config.label_dropout
        networks: Networks = {"arm": arm} if modules is None else {"arm": arm, "modules": modules}
        super().__init__(networks, config, seed=seed)

    def loss(self, images: Tensor, labels: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Figures]:
        """Nats per dimension, plus the weighted forecasting loss (paper app. A.2)."""
        x = _sequences(self.arm.layout, images)
        if labels is not None:
            dropped = torch.rand(len(labels), generator=generator, device=labels.device) < self.label_dropout
            labels = labels.long().masked_fill(dropped, -1)
        output = ArmOutput(*map(_in_float, _run(self.arm, x, labels)))
        bits = bits_per_dim(output.logits, x).mean()
        loss, figures = bits * math.log(2), {"train_bits_per_dim": bits}
        # There is no noise that leads to x once the bits have diverged: the step is refused for them then.
        if self.modules is not None and ("noise" not in self.modules.config.inputs or bool(bits.isfinite())):
            if self.modules.config.pairs == "model":
                kl = _kl_on_samples(self.arm, self.modules, x, labels, generator)
            else:
                kl = _forecasting_kl(self.modules, output, x, generator)
            loss, figures = loss + self.weight * kl, {**figures, "forecasting_kl_nats": kl}
        return loss, figures


@torch.inference_mode()
def evaluate(
    arm: AutoregressiveModel,
    modules: ForecastingModules | None,
    data: Images,
    *,
    labels: Labels | None = None,
    batch_size: int = 64,
) -> tuple[float, float | None]:
    """(bits/dim, forecasting KL in nats or None) over every image of `data`, in eval mode.

    Args:
        arm: left in the mode (train or eval) in which it came.
        modules: of the ARM, or None.
        data: at least one image, as sequences or (n, C, H, W); may be memory-mapped.
        labels: of the images, for an ARM that is conditioned on labels; None: it is evaluated without.
        batch_size: images a pass; changes nothing but memory and time (and the draws of modules that read noise).
    """
    device = next(arm.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    check_labels(labels, len(data))
    bits, kl = 0.0, 0.0
    with eval_mode(arm):
        for place, chunk in enumerate(_chunks(data, batch_size)):
            x = _sequences(arm.layout, chunk.to(device))
            named = None if labels is None else labels[place * batch_size :][: len(x)].to(device)
            output = _run(arm, x, named)
            bits += bits_per_dim(output.logits, x).double().sum().item()
            if modules is not None:
                kl += _forecasting_kl(modules, output, x, generator).item() * len(x)
    return bits / len(data), kl / len(data) if modules is not None else None


@dataclass(frozen=True)
class AutoencoderTrainingConfig(FitConfig):
    """How to train an autoencoder; the paper's 50,000 iterations and otherwise its Table 1."""

    iterations: int = 50_000


class AutoencoderTraining(Optimisation):
    """An autoencoder in training; see `Training` for the arguments."""

    def __init__(
        self,
        autoencoder: DiscreteAutoencoder,
        config: AutoencoderTrainingConfig,
        *,
        seed: int,
    ) -> None:
        self.autoencoder = autoencoder
        super().__init__({"autoencoder": autoencoder}, config, seed=seed)

    def loss(self, images: Tensor, labels: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Figures]:
        """The mean squared error on [-1, 1] (paper app. A.3), whatever the labels."""
        mse = reconstruction_mse(self.autoencoder(images).float(), self.autoencoder.scaled(images))
        return mse, {"train_mse": mse}


def encode_all(autoencoder: DiscreteAutoencoder, data: Images, *, batch_size: int = 256) -> Int64[Tensor, "n c h w"]:
    """The latents of every image, in their order, on the CPU."""
    device = next(autoencoder.parameters()).device
    return torch.cat([autoencoder.encode(chunk.to(device)).cpu() for chunk in _chunks(data, batch_size)])


def evaluate_autoencoder(
    autoencoder: DiscreteAutoencoder, data: Images, *, batch_size: int = 64
) -> tuple[float, CodebookUsage]:
    """(mean squared error on [-1, 1], codebook usage) over every image of `data`, in eval mode."""
    device, total = next(autoencoder.parameters()).device, 0.0
    with eval_mode(autoencoder), torch.no_grad():
        for chunk in _chunks(data, batch_size):
            images = chunk.to(device)
            total += reconstruction_mse(autoencoder(images), autoencoder.scaled(images)).item() * len(images)
        usage = codebook_usage(encode_all(autoencoder, data), autoencoder.config.categories)
    return total / len(data), usage


def _forecasting_kl(modules: ForecastingModules, output: ArmOutput, x: Tensor, generator: torch.Generator) -> Tensor:
    """The forecasting loss on data, with posterior noise if the modules read noise (paper app. B)."""
    noise = None
    if "noise" in modules.config.inputs:
        noise = posterior_gumbel(output.logits.detach(), x, generator=generator)
    return forecasting_kl(output.logits, _in_float(modules(output.hidden, x, noise)))


def _run(arm: AutoregressiveModel, x: Tensor, labels: Tensor | None) -> ArmOutput:
    """With labels if there are any: an ARM that takes none need not know of them."""
    output: ArmOutput = arm(x) if labels is None else arm(x, context=labels)
    return output


def _kl_on_samples(
    arm: AutoregressiveModel,
    modules: ForecastingModules,
    like: Tensor,
    labels: Tensor | None,
    generator: torch.Generator,
) -> Tensor:
    """The forecasting loss on samples of the ARM as it is, with the noise that they come from."""
    kind = next(arm.parameters()).dtype
    empty = torch.empty(*like.shape, arm.layout.categories, dtype=kind, device=like.device)
    noise = standard_gumbel(empty, generator)
    with torch.autocast(like.device.type, enabled=False):
        x = predictive_sample(arm, noise, fixed_point, context=labels).x
    x = x.clone()  # a tensor of inference mode takes no gradient
    logits, hidden = map(_in_float, _run(arm, x, labels))
    return forecasting_kl(logits, _in_float(modules(hidden, x, noise)))


def _in_float(values: Tensor) -> Tensor:
    """Out of autocast: losses are computed in the precision of the weights."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _sequences(layout: Layout, images: Tensor) -> Int64[Tensor, "batch dims"]:
    """Categories on the device of the images: bytes are what travels there."""
    return (layout.flatten(images) if images.ndim == 4 else images).long()


def _chunks(data: Images, size: int) -> Iterator[Tensor]:
    if len(data) == 0:
        raise InputError("evaluation needs at least one image, got none")
    yield from data.split(size)
