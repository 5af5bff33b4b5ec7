"""Many small files in a few large ones: whoever reads a store over a network waits for files, not for bytes.

A pack is files one after the other, as they are; the index says where each one lies. A file of its own wins over the
one in a pack, and one that is removed leaves the index, so that nobody above this module needs to know of packs.
"""

import contextlib
import hashlib
import json
from collections.abc import Sequence

from arm_core.errors import InputError
from harness.store.files import Files

INDEX = "packs/index.json"
_Index = dict[str, tuple[str, int, int]]
"""Name -> (pack, start, length)."""


class PackedFiles:
    """The files of another `Files`, some of them in packs."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._known: _Index | None = None
        """The index as it was last read: one request for as many reads as follow."""

    def write(self, name: str, data: bytes) -> None:
        self._files.write(name, data)

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        try:
            return self._files.read(name, start, length)
        except FileNotFoundError:
            if self._known is not None and name in self._known:
                with contextlib.suppress(FileNotFoundError):  # packed anew since
                    return self._part(self._known[name], start, length)
            index = self._index()
            if name not in index:
                raise
        return self._part(index[name], start, length)

    def _part(self, place: tuple[str, int, int], start: int, length: int | None) -> bytes:
        pack, first, whole = place
        return self._files.read(pack, first + start, whole - start if length is None else length)

    def remove(self, name: str) -> None:
        index = self._index()
        if index.pop(name, None) is not None:  # first, or the packed file would be seen again
            self._write_index(index)
        self._files.remove(name)

    def names(self, folder: str) -> list[str]:
        packed = (name for name in self._index() if name.rpartition("/")[0] == folder)
        return sorted({*self._files.names(folder), *packed})

    def label(self, name: str) -> str:
        return self._files.label(name)

    def pack(self, folders: Sequence[str]) -> int:
        """Put all files of some folders into one pack; how many files it has.

        The pack is there before the index names it, and the files go last: a process that dies in between leaves
        every file where it was, or both places with the same content.
        """
        old = self._index()
        names = [name for folder in folders for name in self.names(folder)]
        contents = [self.read(name) for name in names]
        data = b"".join(contents)
        pack, index, start = f"packs/{hashlib.sha256(data).hexdigest()[:16]}.pack", _Index(), 0
        for name, content in zip(names, contents, strict=True):
            index[name] = (pack, start, len(content))
            start += len(content)
        if not names:
            return 0
        if not old:
            self._write_index({})  # a pack without any index is damage
        self._files.write(pack, data)
        self._write_index(index)
        for name in names:
            self._files.remove(name)
        for other in {place[0] for place in old.values()} - {pack}:
            self._files.remove(other)
        return len(names)

    def _index(self) -> _Index:
        try:
            data = self._files.read(INDEX)
        except FileNotFoundError:
            if any(name.endswith(".pack") for name in self._files.names("packs")):
                raise InputError(
                    f"{self._files.label(INDEX)} is gone, and the files that it names are in the packs beside it; "
                    "restore it from a copy, or delete the packs and run the sweeps again"
                ) from None
            return {}
        digest, _, body = data.partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise InputError(
                f"{self._files.label(INDEX)} differs from what was written; restore it from a copy, or delete it with "
                "the packs beside it and run the sweeps again"
            )
        self._known = {name: (pack, start, length) for name, (pack, start, length) in json.loads(body).items()}
        return dict(self._known)

    def _write_index(self, index: _Index) -> None:
        body = json.dumps(index, sort_keys=True).encode()
        self._files.write(INDEX, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        self._known = None
