"""Reads YAML and remembers the line of every value, so that an error can point at it."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from arm_core.errors import InputError

Place = tuple[str | int, ...]


_MOST = 30_000
"""Values of a file, those that aliases repeat counted again: few lines of nested aliases can stand for billions."""
_MERGE = "tag:yaml.org,2002:merge"
_CORE: dict[str, Callable[[str], Any]] = {
    r"|~|null|Null|NULL": lambda text: None,
    r"true|True|TRUE": lambda text: True,
    r"false|False|FALSE": lambda text: False,
    r"[-+]?[0-9]+": int,
    r"0o[0-7]+|0x[0-9a-fA-F]+": lambda text: int(text, 0),
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?": float,
    r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)": lambda text: float(text.replace(".", "")),
}
"""What YAML 1.2 takes a plain scalar for (its core schema); all others are text."""


@dataclass(frozen=True)
class Source:
    """A YAML file: its name, its data and the line of every place in it."""

    path: Path
    data: dict[str, Any]
    lines: dict[Place, int]

    def error(self, place: Sequence[str | int], message: str, *, within: Place = ()) -> str:
        """`file:line: dotted.key: message`, with the line of the nearest place that is in the file.

        Args:
            place: of what is wrong.
            message: what is.
            within: a place that may hold it too, and is looked at first.
        """
        ends = [tuple(place[:end]) for end in range(len(place), 0, -1)]
        line = next((self.lines[at] for end in ends for at in ((*within, *end), end) if at in self.lines), 1)
        key = ".".join(map(str, place))
        return f"{self.path}:{line}: {key + ': ' if key else ''}{message}"


def read_source(path: Path) -> Source:
    """Read a YAML file whose top level is a mapping.

    Raises:
        InputError: the file cannot be read, is no YAML, or has a key twice or one that is no text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"sweep file {path} cannot be read ({reason})") from None
    try:
        loader = yaml.SafeLoader(text)  # its first characters are read here
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    reader = _Reader(loader, path)
    try:
        node = loader.get_single_node()
        data = reader.value(node, ()) if node is not None else None
    except RecursionError:
        raise InputError(f"{path}: not valid YAML: nested too deeply, or an anchor holds itself") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise InputError(f"{path}:{line}: not valid YAML: {error.problem}{_remedy(error)}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {error}") from None
    finally:
        loader.dispose()
    if not isinstance(data, dict):
        got = "an empty file" if node is None else type(data).__name__
        raise InputError(f"{path}:1: a sweep file must be a mapping (`name: ...`), got {got}")
    return Source(path, data, reader.lines)


class _Reader:
    """From nodes to values, with the line of every place; what two versions of YAML read differently is refused."""

    def __init__(self, loader: yaml.SafeLoader, path: Path) -> None:
        self.loader, self.path, self.lines, self.count = loader, path, dict[Place, int](), 0

    def value(self, node: yaml.Node, place: Place) -> Any:
        """What stands at a place."""
        self.lines[place] = line = node.start_mark.line + 1
        self.count += 1
        if self.count > _MOST:
            raise InputError(
                f"{self.path}:{line}: more than {_MOST:,} values; aliases of aliases multiply, write fewer"
            )
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, f"{self.path}:{line}: {'.'.join(map(str, place))}")
        assert isinstance(node, yaml.MappingNode)
        found, own = self._inherited(node, place), set[str]()
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                continue
            key, at = self._key(key_node)
            if key in own:
                raise InputError(f"{at}: the key {key!r} stands twice in one mapping; delete one")
            own.add(key)
            found[key] = self.value(value_node, (*place, key))
            self.lines[(*place, key)] = key_node.start_mark.line + 1
        self.lines[place] = line
        return found

    def _inherited(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        """What `<<: *base` or `<<: [*base, *other]` brings; the first one that has a key counts."""
        found: dict[str, Any] = {}
        for given in (value for key, value in node.value if key.tag == _MERGE):
            for base in reversed(given.value if isinstance(given, yaml.SequenceNode) else [given]):
                if not isinstance(base, yaml.MappingNode):
                    raise InputError(f"{self.path}:{base.start_mark.line + 1}: << takes a mapping, or a list of them")
                found |= self.value(base, place)
        return found

    def _key(self, node: yaml.Node) -> tuple[str, str]:
        """A key, and file:line of it."""
        at = f"{self.path}:{node.start_mark.line + 1}"
        key = self._scalar(node, at) if isinstance(node, yaml.ScalarNode) else self.loader.construct_object(node)
        if not isinstance(key, str):
            comma = " (a decimal comma? write a point)" * isinstance(key, int)
            raise InputError(f"{at}: keys must be text, got {key!r}{comma}; put it in quotes")
        return key, at

    def _scalar(self, node: yaml.ScalarNode, where: str) -> Any:
        text = node.value
        try:
            old = value = self.loader.construct_object(node)
            if node.style is None and node.tag == self.loader.resolve(yaml.ScalarNode, text, (True, False)):  # no !!tag
                value = _core(text)
        except ValueError as error:  # a date that does not exist, or more digits than Python reads
            raise InputError(f"{where}: {text[:20]} cannot be read ({error}); put text in quotes") from None
        exponent = isinstance(value, float) and old == text  # 2e-3: 1.1 wants a dot and a sign, people do not
        letter = value == text and node.style is None and text in ("y", "Y", "n", "N")  # not so in PyYAML
        if letter or (repr(old) != repr(value) and not exponent):
            also = str(text in "yY").lower() if letter else _said(old)
            raise InputError(
                f"{where}: {text} is {also} in YAML 1.1 and {_said(value)} in YAML 1.2; write the number plainly, "
                "true or false, or put text in quotes"
            )
        return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~/") else value


def _remedy(error: yaml.MarkedYAMLError) -> str:
    """Of what people meet: tabs, the backslashes of a Windows path, a bracket that is left open."""
    problem, begun = error.problem or "", error.context_mark
    if r"'\t'" in problem:
        return "; indent with spaces, a tab is none"
    if "escape" in problem:
        return r"; in double quotes a backslash begins an escape: use single quotes, or / in a path"
    if begun is not None and "flow" in (error.context or ""):
        return f"; is what opens at line {begun.line + 1} closed?"
    return ""


def _core(text: str) -> Any:
    """A plain scalar as YAML 1.2 reads it."""
    return next((read(text) for pattern, read in _CORE.items() if re.fullmatch(pattern, text)), text)


def _said(value: Any) -> str:
    if isinstance(value, date):
        return "a date"
    return "text" if isinstance(value, str) else str(value).lower()


def merged(base: Any, over: Any) -> Any:
    """`over` laid upon `base`: mappings key by key, everything else replaced."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}
