"""PixelCNN with categorical outputs and channel-autoregressive masks (paper app. A.1).

The trunk is that of PixelCNN++ (Salimans et al., 2017): a stream u that holds the rows above a pixel, a stream ul
that also holds what lies to its left, three resolutions with skips. Changed as the paper says: K logits per dimension
instead of mixtures of logistics, one-hot inputs instead of [-1, 1], no weight normalisation, and masks that make the
channels of a pixel autoregressive too (van den Oord et al., 2016).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from arm_core.arms.pixelcnn.layers import PixelCNNConfig, Trunk, build_trunk, label_rows
from arm_core.arms.pixelcnn.spans import PixelCNNSpans
from arm_core.contracts import ArmOutput, AutoregressiveModel, Contexts, SpanCache
from arm_core.elementwise import Maps
from arm_core.errors import InputError
from arm_core.layout import Layout


class PixelCNN(AutoregressiveModel):
    """See the module. Hidden features: the last ul activation, F / C per dimension.

    Raises:
        InputError: height or width is no multiple of 4, or filters no multiple of the channels.
    """

    recordable = True

    def __init__(self, layout: Layout, config: PixelCNNConfig) -> None:
        _check(layout, config)
        super().__init__(layout, config.filters // layout.channels)
        self.config, self.granule = config, layout.channels
        self.stem, self.up, self.shrink, self.down, self.grow, self.head = build_trunk(layout, config)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def trunk(self) -> Trunk:
        """The layers, in the order in which they are passed."""
        return Trunk(self.stem, self.up, self.shrink, self.down, self.grow, self.head)

    def span_cache(self, slots: int, window: int) -> SpanCache:
        on_gpu = self.head.weight.is_cuda  # where calls of fixed shapes are recorded
        return PixelCNNSpans(self.layout, self.trunk, slots, window, classes=self.config.classes, compact=not on_gpu)

    def example_contexts(self, count: int) -> Contexts | None:
        return torch.arange(count) % (self.config.classes + 1) - 1 if self.config.classes else None

    def forward(self, x: Int[Tensor, "batch dims"], context: Contexts | None = None) -> ArmOutput:
        """See `AutoregressiveModel`.

        Args:
            x: any sequences.
            context: a label in [0, config.classes) for each of them, or -1 for none; None: none for all.
        """
        labels = None if context is None else label_rows(context, self.config.classes, len(x)).to(x.device)
        streams = self.stem(self.layout.unflatten(x))
        stack = [streams]
        for level, block in enumerate(self.up):
            if level > 0:
                streams = self.shrink[level - 1](streams)
                stack.append(streams)
            for pair in block:
                streams = pair(streams, None, labels)
                stack.append(streams)
        streams = stack.pop()
        for level, block in enumerate(self.down):
            if level > 0:
                streams = self.grow[level - 1](streams)
            for pair in block:
                streams = pair(streams, stack.pop(), labels)
        hidden = streams.ul.maps
        return ArmOutput(self._flat(self.head(F.elu(hidden))), self._flat(hidden))

    def _flat(self, maps: Maps) -> Float[Tensor, "batch dims features"]:
        return maps.permute(0, 2, 3, 1).reshape(len(maps), self.layout.dims, -1)


def _check(layout: Layout, config: PixelCNNConfig) -> None:
    for name in ("height", "width"):
        extent = getattr(layout, name)
        if extent % 4:
            nearest = max(4, round(extent / 4) * 4)
            raise InputError(
                f"PixelCNN: {name} must be a multiple of 4 (it halves twice), got {extent}; nearest: {nearest}"
            )
    if config.resnets < 1:
        raise InputError(f"PixelCNN: resnets must be at least 1, got {config.resnets}")
    if config.filters < 1 or config.filters % layout.channels:
        nearest = max(1, round(config.filters / layout.channels)) * layout.channels
        raise InputError(
            f"PixelCNN: filters must be a positive multiple of the channels ({layout.channels}), "
            f"got {config.filters}; nearest: {nearest}"
        )
    if config.classes < 0:
        raise InputError(f"PixelCNN: classes must not be negative, got {config.classes}; 0: no labels")
    if not 0 <= config.dropout < 1:
        raise InputError(f"PixelCNN: dropout must be in [0, 1), got {config.dropout}")
    if config.dropout_unit not in ("map", "element"):
        raise InputError(f"PixelCNN: dropout_unit must be 'map' or 'element', got {config.dropout_unit!r}")
