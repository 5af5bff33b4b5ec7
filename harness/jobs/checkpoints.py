"""What can be sampled and timed: a checkpoint of ours, or a folder that `save_pretrained` of transformers wrote."""

from pathlib import Path

import torch

from arm_core import Checkpoint, InputError, Layout, load_checkpoint
from arm_core.registry import ARMS
from harness.sweep.identity import pretrained_digest
from harness.sweep.jobs import Existing


def load(given: Existing, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Checkpoint:
    """Load either of them.

    Args:
        given: where it is, and what has to be said of it.
        device, dtype: see `load_checkpoint`.

    Raises:
        InputError: the folder is of the other kind, or cannot be read.
    """
    path, arm = Path(given.path), given.arm
    if given.layout is None:
        return load_checkpoint(path, device=device, dtype=dtype, arm=ARMS.resolve(arm) if arm is not None else None)
    if arm is not None:
        raise InputError(f"{path}: a folder of save_pretrained is loaded as `transformers`; leave arm={arm} out")
    sha256, options = pretrained_digest(path), given.pretrained
    built = ARMS.resolve("transformers").load(path, Layout(*options.pop("layout")), **options)
    return Checkpoint(built.to(device=device, dtype=dtype).eval(), None, None, {"dataset_name": path.name}, sha256)
