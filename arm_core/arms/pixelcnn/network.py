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

from arm_core.arms.pixelcnn.layers import Trunk, label_rows
from arm_core.arms.pixelcnn.spans import PixelCNNSpans
from arm_core.contracts import ArmOutput, Contexts, SpanCache
from arm_core.elementwise import Maps


class PixelCNN(Trunk):
    """See the module. Hidden features: the last ul activation, F / C per dimension."""

    recordable = native = True

    def span_cache(self, slots: int, window: int) -> SpanCache:
        on_gpu = self.head.weight.is_cuda  # where calls of fixed shapes are recorded
        return PixelCNNSpans(self, slots, window, compact=not on_gpu)

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
