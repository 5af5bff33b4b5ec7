"""Rows times a matrix, by the library that is fastest at it.

On a CPU torch hands `addmm` of float32 to MKL, which keeps to AVX2 on AMD's processors; oneDNN, which torch's
convolutions use, has AVX-512 there: 2.1 to 2.6 times the rate at the shapes of spans (1 thread of an AMD EPYC 9005).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from arm_core.elementwise import Rows

ENOUGH = 2**20
"""Multiply-adds from which on oneDNN is the faster one: a call of it costs 11 microseconds more."""


class Product:
    """rows @ matrix + bias.

    Args:
        matrix: (features, outputs), in its final dtype and on its final device.
        bias: (outputs,); None: zeros.
    """

    def __init__(
        self, matrix: Float[Tensor, "features outputs"], bias: Float[Tensor, " outputs"] | None = None
    ) -> None:
        self.matrix, self.bias, self.cost = matrix.contiguous(), bias, matrix.numel()
        self._prepared = is_prepared(matrix)
        self._packed: Tensor | None = None

    def __call__(self, rows: Rows) -> Rows:
        if self._prepared and rows.shape[0] * self.cost >= ENOUGH:
            if self._packed is None:
                self._packed = torch.ops.mkldnn._reorder_linear_weight(self.matrix.T.contiguous())
            return _by_onednn(rows, self._packed, self.bias)
        return rows @ self.matrix if self.bias is None else torch.addmm(self.bias, rows, self.matrix)


class Linear(nn.Linear):
    """A `torch.nn.Linear` that multiplies by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, without gradients by the faster library. The weight is not copied."""
    if not torch.is_grad_enabled() and is_prepared(weight) and rows.numel() * weight.shape[0] >= ENOUGH:
        return _by_onednn(rows, weight, bias)
    return F.linear(rows, weight, bias)


def is_prepared(weight: Tensor) -> bool:
    """Whether a product with it has to be prepared for every new count of rows (0.4 ms)."""
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()


def _by_onednn(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(rows, weight, bias, "none", [], "")
