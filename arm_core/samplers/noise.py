"""The check that noise fits an ARM, made once before a sampler starts."""

from torch import Tensor

from arm_core.contracts import AutoregressiveModel
from arm_core.errors import InputError


def check_noise(arm: AutoregressiveModel, noise: Tensor) -> None:
    """Raise an InputError unless noise is (batch, dims, categories) of the ARM's dtype and on its device."""
    dims, categories = arm.layout.dims, arm.layout.categories
    if noise.ndim != 3 or tuple(noise.shape[1:]) != (dims, categories):
        raise InputError(
            f"noise must have shape (batch, dims, categories) = (batch, {dims}, {categories}) for this ARM, "
            f"got {tuple(noise.shape)}; make it with sample_noise(arm.layout, ...)"
        )
    weight = next((p for p in arm.parameters() if p.is_floating_point()), noise)  # an ARM may have no parameters
    for name in ("dtype", "device"):
        wanted, got = getattr(weight, name), getattr(noise, name)
        if wanted != got:
            raise InputError(f"noise must have the ARM's {name}, {wanted}, got {got}; pass {name}= to sample_noise")
