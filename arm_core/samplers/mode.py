"""The conditions under which samples are exact: eval mode, no gradients, one deterministic arithmetic."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from arm_core.contracts import AutoregressiveModel
from arm_core.errors import InputError
from arm_core.eval_mode import eval_mode


@contextmanager
def sampling_mode(arm: AutoregressiveModel, parts: Sequence[nn.Module] | None = None) -> Iterator[None]:
    """Eval and inference mode, TF32 and cudnn.benchmark off; all of it restored afterwards.

    TF32 keeps 10 bits of mantissa and benchmark mode may choose another kernel at every shape: both move logits
    between two evaluations of the same prefix, and a moved logit can flip a sample.

    Args:
        arm: that samples.
        parts: its modules, see `eval_mode`.

    Raises:
        InputError: autocast is on; it would round logits to 8 or 11 bits.
    """
    for device in ("cpu", "cuda"):
        if torch.is_autocast_enabled(device):
            raise InputError(
                f"sampling under torch.autocast({device!r}) is not exact; leave the autocast block "
                "or convert the ARM with arm.to(dtype)"
            )
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = False
        with eval_mode(arm, parts), torch.inference_mode():
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
