"""What a job's id is made of, besides its settings: the sources of plug-in files and the paths that it reads."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arm_core.checkpoint import MANIFEST, no_checkpoint
from arm_core.data.files import digest_of
from arm_core.data.image_files import image_names
from arm_core.errors import InputError
from arm_core.registry import Registry, beside


def content_hash(matters: Mapping[str, Any]) -> str:
    """16 hex digits that depend on the content alone, not on the order of keys or the process."""
    canonical = json.dumps(matters, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def read_manifest(path: str) -> tuple[dict[str, Any], str]:
    """What a checkpoint says of itself (its weights are not read), and its sha256.

    Raises:
        InputError: there is no checkpoint, or its manifest is damaged.
    """
    place = Path(path) / MANIFEST
    try:
        data = place.read_bytes()
        return json.loads(data)["content"], hashlib.sha256(data).hexdigest()
    except OSError:
        raise no_checkpoint(Path(path)) from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{place} is damaged; restore it from a copy") from None


def pretrained_digest(path: str | Path) -> str:
    """The sha256 of a folder that `save_pretrained` wrote: of its configuration and weights.

    Raises:
        InputError: it is no such folder, or its weights are no safetensors files.
    """
    files = [Path(path) / "config.json", *sorted(Path(path).glob("*.safetensors"))]
    if len(files) < 2 or not files[0].is_file():
        raise InputError(f"{path} must hold config.json and *.safetensors, as save_pretrained of transformers leaves")
    return hashlib.sha256("".join(str(digest_of(file, "sha256")) for file in files).encode()).hexdigest()


def source_of(registry: Registry, reference: str) -> str | None:
    """The sha256 of a plug-in file, and of what a path such as `npz:PATH` names; None for all that is installed."""
    scheme, path = registry.split(reference)
    if scheme is not None:
        return _digest_of_path(Path(path))
    if reference in registry.entries or not (file := reference.rpartition(":")[0]).endswith(".py"):
        return None
    place = Path(file).expanduser().resolve()
    return hashlib.sha256(b"".join(source.read_bytes() for source in (place, *beside(place)))).hexdigest()


def named(registry: Registry, reference: str) -> str:
    """A reference without its path, whose content `source_of` stands for: it is the same from every folder."""
    scheme, path = registry.split(reference)
    if scheme is not None:
        return scheme if Path(path).exists() else reference
    file, _, attribute = reference.rpartition(":")
    return attribute if file.endswith(".py") else reference


def _digest_of_path(path: Path) -> str | None:
    """Of the bytes of a file, or of the names and sizes of the images of a folder; None if there is nothing."""
    if path.is_file():
        return digest_of(path, "sha256")
    if not path.is_dir():
        return None
    try:
        names = image_names(path)[0]
    except InputError:  # it has none, which loading says better
        names = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    files = [(name, (path / name).stat().st_size) for name in names]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest() if files else None
