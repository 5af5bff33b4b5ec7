"""The ARMs of the run: the trained one that comes along, and the paper's sizes with random weights.

What a call and a pass cost does not depend on the weights; how many calls a sample needs does. Random weights are made
so that the fixed point needs calls for some percent of the dimensions, as trained ARMs do: the first layer is made
louder, without which hardly anything depends on x, and the last one so loud that a dimension holds `nats` of entropy.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from arm_core import AutoregressiveModel, Layout, load_arm
from arm_core.arms import PixelCNN, PixelCNNConfig
from benchmarks.gpu.rows import Row

RESULTS = Path(__file__).resolve().parents[2] / "results"
LOUDER = 10.0
"""Factor on the first layer: the fixed point then needs calls for some percent of the dims (measured on a CPU)."""


@dataclass(frozen=True)
class Size:
    """An ARM to measure.

    Attributes:
        name: short, for tables.
        layout, config: of the PixelCNN.
        nats: entropy of a dimension with random weights.
        checkpoint: where trained weights of it lie, if they do, under `results`.
        rows: how many of the last rows are sampled when samplers are timed, the rest being given; None: all.
    """

    name: str
    layout: Layout
    config: PixelCNNConfig
    nats: float
    checkpoint: str | None
    rows: int | None = None

    @property
    def given(self) -> int:
        """Leading dims that are given when samplers are timed."""
        return 0 if self.rows is None else (self.layout.height - self.rows) * self.row

    @property
    def row(self) -> int:
        """Dims of a row of the image."""
        return self.layout.width * self.layout.channels


def _config(resnets: int, filters: int) -> PixelCNNConfig:
    return PixelCNNConfig(resnets, filters, dropout=0.0)


BINARY = Layout(1, 28, 28, 2)
SIZES = (
    Size("R1 F20", BINARY, _config(1, 20), 0.15, "checkpoint"),
    Size("R2 F60", BINARY, _config(2, 60), 0.15, "paper/checkpoint"),
    Size("R5 F160", Layout(4, 8, 8, 128), _config(5, 160), 2.0, None),
    Size("R5 F162", Layout(3, 32, 32, 256), _config(5, 162), 2.0, None, rows=8),
)
SMALL = (
    Size("R1 F4", Layout(1, 8, 8, 2), _config(1, 4), 0.15, None),
    Size("R1 F6", Layout(3, 4, 4, 8), _config(1, 6), 1.0, None, rows=3),
)
"""For `--small`."""


@dataclass(frozen=True)
class Model:
    """An ARM on its device, and the columns that name it."""

    size: Size
    arm: AutoregressiveModel
    trained: bool

    @property
    def columns(self) -> Row:
        """Of every row about it."""
        layout = self.arm.layout
        dtype = str(next(self.arm.parameters()).dtype).removeprefix("torch.")
        shape = f"{layout.height}x{layout.width}x{layout.channels}x{layout.categories}"
        return {"model": self.size.name, "size": shape, "trained": self.trained, "dtype": dtype}


def model_of(size: Size, device: torch.device, dtype: torch.dtype = torch.float32) -> Model:
    """The ARM of a size: trained, if there are weights of that very size, otherwise with random weights."""
    if size.checkpoint is not None and (RESULTS / size.checkpoint / "manifest.json").exists():
        arm = load_arm(RESULTS / size.checkpoint, device=device, dtype=dtype)
        found = (arm.layout, arm.config.resnets, arm.config.filters)  # type: ignore[union-attr]
        if found == (size.layout, size.config.resnets, size.config.filters):
            return Model(size, arm, True)
    return Model(size, random_arm(size.layout, size.config, size.nats).to(device=device, dtype=dtype), False)


def random_arm(layout: Layout, config: PixelCNNConfig, nats: float, *, seed: int = 0) -> PixelCNN:
    """A PixelCNN with random weights, `nats` of entropy a dimension at random x; on the CPU, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        arm = PixelCNN(layout, config).eval()
        x = torch.randint(layout.categories, (1, layout.dims))
    with torch.inference_mode():
        for conv in arm.stem.children():
            conv.weight.mul_(LOUDER)  # type: ignore[operator]
        assert arm.head.bias is not None
        arm.head.bias.zero_()
        arm.head.weight.mul_(loudness(arm(x).logits, nats))
    return arm.requires_grad_(False)


def loudness(logits: Tensor, nats: float) -> float:
    """The factor on logits with which the mean entropy of their distributions is `nats`, by bisection."""
    low, high = 1e-6, 1e6
    for _ in range(60):
        middle = (low * high) ** 0.5
        log_p = (logits.double() * middle).log_softmax(dim=-1)
        entropy = -(log_p.exp() * log_p).sum(dim=-1).mean().item()
        low, high = (middle, high) if entropy > nats else (low, middle)
    return (low * high) ** 0.5
