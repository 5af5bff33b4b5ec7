"""Reads YAML and remembers the line of every value, so that an error can point at it."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from arm_core.errors import InputError

Place = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 2e-3 as text, for want of a dot; people mean the number."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


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
    lines: dict[Place, int] = {(): 1}
    try:
        loader = _Loader(text)  # its first characters are read here
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    try:
        node = loader.get_single_node()
        data = _value(loader, node, (), lines, path) if node is not None else None
    except RecursionError:
        raise InputError(f"{path}: not valid YAML: nested too deeply, or an anchor holds itself") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise InputError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {error}") from None
    finally:
        loader.dispose()
    if not isinstance(data, dict):
        raise InputError(f"{path}:1: a sweep file must be a mapping (`name: ...`), got {type(data).__name__}")
    return Source(path, data, lines)


def _value(loader: _Loader, node: yaml.Node, place: Place, lines: dict[Place, int], path: Path) -> Any:
    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*place, index), lines, path) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(loader, node, f"{path}:{lines[place]}: {'.'.join(map(str, place))}")
    assert isinstance(node, yaml.MappingNode)
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key, line = loader.construct_object(key_node), key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise InputError(f"{path}:{line}: keys must be text, got {key!r}; put it in quotes")
        if key in found:
            raise InputError(f"{path}:{line}: the key {key!r} stands twice in one mapping; delete one")
        found[key] = _value(loader, value_node, (*place, key), lines, path)
        lines[(*place, key)] = line
    return found


def _scalar(loader: _Loader, node: yaml.ScalarNode, where: str) -> Any:
    """A value; YAML 1.1 knows numbers and dates that nobody means by what they look like."""
    value, text = loader.construct_object(node), node.value
    if isinstance(value, date):
        raise InputError(f"{where}: {text} would be read as a date; put it in quotes")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and (":" in text or re.fullmatch(r"[-+]?0[0-7_]+", text)):
        raise InputError(f"{where}: {text} would be read as {value}; write the number plainly, or text in quotes")
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~/") else value


def merged(base: Any, over: Any) -> Any:
    """`over` laid upon `base`: mappings key by key, everything else replaced."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}
