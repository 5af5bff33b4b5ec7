"""Checkpoints without pickle: a folder of safetensors files and a manifest that names and hashes them.

    PATH/<part>-<sha256, first 16>.safetensors     one a part (arm, modules, ...)
    PATH/manifest.json                             files with size and sha256, configurations, and its own sha256

The files come first and the manifest is moved into place last: a folder holds its old content or its new one, never a
mixture. Every byte is checked on reading.
"""

import hashlib
import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from arm_core.atomic import write_atomic
from arm_core.contracts import AutoregressiveModel
from arm_core.errors import InputError
from arm_core.forecasters.modules import ForecastingConfig, ForecastingModules
from arm_core.latents import AutoencoderConfig, DiscreteAutoencoder
from arm_core.layout import Layout
from arm_core.registry import ARMS, PLUGIN_PREFIX, config_type

FORMAT = 1
MANIFEST = "manifest.json"
_OURS = re.compile(r"\w+-[0-9a-f]{16}\.safetensors|\.(\w+-[0-9a-f]{16}|manifest)-\w+\.tmp")


@dataclass(frozen=True)
class Checkpoint:
    """What `load_checkpoint` found.

    Attributes:
        arm: in eval mode.
        modules: its forecasting modules in eval mode, or None.
        autoencoder: whose latents the ARM models, in eval mode, or None: the ARM then models images.
        metadata: what was given to `save_arm`.
        sha256: of the manifest, and so of all that it names.
    """

    arm: AutoregressiveModel
    modules: ForecastingModules | None
    autoencoder: DiscreteAutoencoder | None
    metadata: dict[str, Any]
    sha256: str


def save_arm(
    arm: AutoregressiveModel,
    path: str | Path,
    *,
    modules: ForecastingModules | None = None,
    autoencoder: DiscreteAutoencoder | None = None,
    metadata: Mapping[str, Any] | None = None,
    rounded: torch.dtype | None = None,
) -> str:
    """Write an ARM, and what belongs to it, as a checkpoint folder.

    Args:
        arm: its `config` attribute, if its class takes one, must be a dataclass of JSON values.
        path: the folder; made if missing, replaced as a whole if it is a checkpoint.
        modules: its forecasting modules.
        autoencoder: whose latents the ARM models.
        metadata: JSON values of yours.
        rounded: a floating type to which weights are rounded in the files, half as large with 16 bits. They load in the
            type that they have now: the checkpoint is another ARM, a little, than `arm`.

    Returns:
        The sha256 of the checkpoint.

    Raises:
        InputError: metadata is not JSON, or the autoencoder's latents are not what the ARM models.
    """
    if autoencoder is not None and autoencoder.latent_layout != arm.layout:
        raise InputError(f"save_arm: the ARM models {arm.layout}, the autoencoder makes {autoencoder.latent_layout}")
    content: dict[str, Any] = {
        "layout": asdict(arm.layout),
        "arm": {"class": _class_name(type(arm)), "config": _config_of(arm)},
        "modules": None,
        "autoencoder": None,
        "metadata": dict(metadata or {}),
    }
    if rounded is not None:
        content["dtype"] = str(next(arm.parameters()).dtype).removeprefix("torch.")
    parts = {"arm": arm.state_dict()}
    if modules is not None:
        content["modules"] = {"config": asdict(modules.config), "hidden_features": modules.hidden_features}
        parts["modules"] = modules.state_dict()
    if autoencoder is not None:
        content["autoencoder"] = {"layout": asdict(autoencoder.layout), "config": asdict(autoencoder.config)}
        parts["autoencoder"] = autoencoder.state_dict()
    if rounded is not None:
        parts = {name: _rounded(tensors, rounded) for name, tensors in parts.items()}
    return write_bundle(Path(path), parts, content)


def load_checkpoint(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    arm: type[AutoregressiveModel] | None = None,
) -> Checkpoint:
    """Read a checkpoint folder; nothing of it is executed.

    Args:
        path: the folder.
        device: where the weights go.
        dtype: floating type of the weights; None keeps the saved one.
        arm: the ARM's class; needed when it is not a registered one.

    Raises:
        InputError: there is no checkpoint, a byte of it differs from what was written, or its class is not known
            or not the one given.
    """
    parts, content, sha256 = read_bundle(Path(path))
    try:
        layout = Layout(**content["layout"])
        saved, heads = content["arm"], content["modules"]
        built = _build(_class_of(saved["class"], arm, path), layout, saved["config"])
        dtype = dtype or (getattr(torch, content["dtype"]) if "dtype" in content else None)
        _fill(built, parts["arm"])
        modules = None
        if heads is not None:
            config = ForecastingConfig(**{**heads["config"], "inputs": tuple(heads["config"]["inputs"])})
            modules = ForecastingModules(layout, config, heads["hidden_features"])
            _fill(modules, parts["modules"])
        autoencoder = (
            build_autoencoder(content["autoencoder"], parts["autoencoder"]) if "autoencoder" in parts else None
        )
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"checkpoint {path} does not fit this version of its classes ({error})") from error
    for module in (built, modules, autoencoder):
        if module is not None:
            module.to(device=device, dtype=dtype).eval()
    return Checkpoint(built, modules, autoencoder, content["metadata"], sha256)


def load_arm(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    arm: type[AutoregressiveModel] | None = None,
) -> AutoregressiveModel:
    """The checkpoint's ARM in eval mode; see `load_checkpoint`."""
    return load_checkpoint(path, device=device, dtype=dtype, arm=arm).arm


def build_autoencoder(saved: Mapping[str, Any], weights: Mapping[str, Tensor]) -> DiscreteAutoencoder:
    """An autoencoder from its saved layout and config, and its weights."""
    autoencoder = DiscreteAutoencoder(Layout(**saved["layout"]), AutoencoderConfig(**saved["config"]))
    _fill(autoencoder, weights)
    return autoencoder


def _fill(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights in the floating type that they have."""
    module.to(next((value.dtype for value in weights.values() if value.is_floating_point()), None))
    module.load_state_dict(weights)


def _rounded(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors.items()}


def write_bundle(path: Path, parts: Mapping[str, Mapping[str, Tensor]], content: Mapping[str, Any]) -> str:
    """Write named groups of tensors and JSON content as one folder, all of it or nothing; return its sha256."""
    if path.exists() and not _is_ours(path):
        raise InputError(f"{path} exists and is no checkpoint; give another path")
    path.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, Any]] = {}
    for name, tensors in parts.items():
        data = save_tensors({key: value.detach().contiguous().cpu() for key, value in tensors.items()})
        digest = hashlib.sha256(data).hexdigest()
        files[name] = {"file": f"{name}-{digest[:16]}.safetensors", "sha256": digest, "bytes": len(data)}
        write_atomic(path / files[name]["file"], data)
    manifest = _seal({"format": FORMAT, "files": files, "content": content})
    write_atomic(path / MANIFEST, manifest)
    kept = {entry["file"] for entry in files.values()}
    for old in path.iterdir():
        if _OURS.fullmatch(old.name) and old.name not in kept:  # nothing else in the folder is ours
            old.unlink()
    return hashlib.sha256(manifest).hexdigest()


def _is_ours(path: Path) -> bool:
    """Whether a folder may be written: a checkpoint, or nothing but what a writer left that was stopped half-way."""
    if not path.is_dir():
        return False
    return (path / MANIFEST).exists() or all(_OURS.fullmatch(file.name) for file in path.iterdir())


def read_bundle(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any], str]:
    """The (parts, content, sha256) that `write_bundle` wrote.

    Raises:
        InputError: not a checkpoint, or damaged: the message names the file.
    """
    place = path / MANIFEST
    if not place.is_file():
        raise no_checkpoint(path)
    sealed = place.read_bytes()
    manifest = _unseal(place, sealed)
    parts = {}
    for name, entry in manifest["files"].items():
        file = path / Path(entry["file"]).name  # never outside the folder
        try:
            data = file.read_bytes()
        except OSError as error:
            raise InputError(f"checkpoint file {file} cannot be read ({error.strerror})") from None
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise _damaged(file, f"its sha256 differs from that in {MANIFEST}")
        try:
            parts[name] = load_tensors(data)
        except SafetensorError as error:
            raise _damaged(file, str(error)) from None
    return parts, manifest["content"], hashlib.sha256(sealed).hexdigest()


def no_checkpoint(path: Path) -> InputError:
    """What to raise for a folder without a manifest."""
    if (path / "config.json").is_file():
        return InputError(
            f"{path} is a folder of save_pretrained, which does not say what its tokens stand for; add "
            "--layout 1x16x16x1024 --start TOKEN on the command line, `layout:` and `start:` beside `path:` in a "
            "sweep, or use TransformersDecoder.load and save_arm"
        )
    inner = path / "checkpoint"
    remedy = f"; give {inner}" if (inner / MANIFEST).is_file() else ""
    return InputError(f"{path} is no checkpoint: {path / MANIFEST} does not exist{remedy}")


def _seal(manifest: dict[str, Any]) -> bytes:
    """Canonical JSON that carries the sha256 of the rest of itself."""
    try:
        body = json.dumps(manifest, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"a checkpoint's config and metadata must be JSON values ({error})") from None
    digest = hashlib.sha256(body.encode()).hexdigest()
    return (json.dumps({**json.loads(body), "sha256": digest}, sort_keys=True, indent=1) + "\n").encode()


def _unseal(place: Path, sealed: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(sealed)
        stated = manifest.pop("sha256")
        intact = _seal(manifest) == sealed and stated == json.loads(_seal(manifest))["sha256"]
    except (ValueError, KeyError, AttributeError, TypeError):
        intact = False
    if not intact:
        raise _damaged(place, "its text differs from what was written")
    if manifest["format"] != FORMAT:
        raise InputError(f"{place} has format {manifest['format']}, this version reads {FORMAT}; update the package")
    return manifest


def _damaged(file: Path, reason: str) -> InputError:
    return InputError(f"checkpoint file {file} is damaged: {reason}. Restore it from a copy, or train again")


def _class_name(cls: type) -> str:
    place = f"{cls.__module__}:{cls.__qualname__}"
    if cls.__module__.startswith(PLUGIN_PREFIX):  # the file as its user knows it, without the folders of this machine
        return f"{Path(inspect.getfile(cls)).name}:{cls.__qualname__}"
    return next((name for name, target in ARMS.entries.items() if target == place), place)


def _class_of(name: str, given: type[AutoregressiveModel] | None, path: str | Path) -> type[AutoregressiveModel]:
    if name in ARMS.entries:
        found = ARMS.resolve(name)
        if given not in (None, found):
            raise InputError(f"checkpoint {path} holds a {name}, not a {given.__name__}; leave that class (--arm) out")
        return found
    if given is None:
        raise InputError(
            f"checkpoint {path} holds an ARM of the class {name}, which is not registered; "
            "pass the class: load_checkpoint(path, arm=MyArm), on the command line --arm file.py:MyArm"
        )
    return given


def _config_of(arm: AutoregressiveModel) -> dict[str, Any] | None:
    if config_type(type(arm)) is None:
        return None
    if not is_dataclass(getattr(arm, "config", None)):
        name = type(arm).__name__
        raise InputError(f"{name} has options and does not keep them; write `self.config = config` in its __init__")
    return asdict(arm.config)  # type: ignore[call-overload]


def _build(cls: type[AutoregressiveModel], layout: Layout, config: dict[str, Any] | None) -> AutoregressiveModel:
    kind = config_type(cls)
    return cls(layout) if kind is None else cls(layout, kind(**config or {}))  # type: ignore[call-arg]
