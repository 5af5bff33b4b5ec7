"""Checkpoints on a store that is no folder: their content-named files, and last the manifest that names them.

A checkpoint is there when its manifest is, so one that was cut off half-way is none. What is read back is checked by
whoever loads it, byte by byte (see `arm_core.checkpoint`).
"""

import os
from pathlib import Path

from harness.store.files import Files

MANIFEST = "manifest.json"


def upload(files: Files, job: str, folder: Path) -> None:
    """Put the checkpoint in a folder into the store; files that are there already, by name and so by content, stay."""
    place = _place(job)
    there = set(files.names(place))
    for file in sorted(folder.glob("*.safetensors")):
        if f"{place}/{file.name}" not in there:
            files.write(f"{place}/{file.name}", file.read_bytes())
    files.write(f"{place}/{MANIFEST}", (folder / MANIFEST).read_bytes())


def download(files: Files, job: str, folder: Path) -> bool:
    """Bring a checkpoint of the store into a folder; whether there is one."""
    names = files.names(_place(job))
    if f"{_place(job)}/{MANIFEST}" not in names:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(names, key=lambda name: name.endswith(MANIFEST)):
        place = folder / Path(name).name
        temporary = place.with_name(f".{place.name}")
        temporary.write_bytes(files.read(name))
        os.replace(temporary, place)
    return True


def exists(files: Files, job: str) -> bool:
    """Whether the store has the checkpoint of a job."""
    return f"{_place(job)}/{MANIFEST}" in files.names(_place(job))


def _place(job: str) -> str:
    return f"checkpoints/{job}"
