"""Turns options from a sweep file or the command line into a component's config, strictly."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from arm_core import Layout
from arm_core.errors import InputError
from arm_core.registry import config_type, suggest

_REMEDIES = {
    "int_type": "write a whole number, without quotes, point or exponent",
    "int_from_float": "write a whole number, without quotes, point or exponent",
    "float_type": "write a number without quotes, such as 0.5",
    "bool_type": "write true or false, without quotes",
    "string_type": "put text in quotes",
    "list_type": "write a list, such as [1, 2]",
    "tuple_type": "write a list, such as [1, 2]",
    "dict_type": "write keys and values, such as {key: value}",
}
"""By pydantic's type of fault."""


class OptionError(InputError):
    """An option is wrong; `option` names it (dots lead into it), so that a sweep file's line can be found."""

    def __init__(self, message: str, option: str) -> None:
        super().__init__(message)
        self.option = option


def make_config(component: Any, options: Mapping[str, Any]) -> Any:
    """The config of a component: its dataclass, filled with `options`; None if it takes none.

    Args:
        component: what a reference resolved to.
        options: field -> value; fields that are left out keep their defaults.

    Raises:
        InputError: an unknown field, a value of another type ("3" is no 3, true is no 1), or one out of range.
    """
    kind = config_type(component)
    if kind is None:
        if options:
            name = getattr(component, "__name__", component)
            raise InputError(f"{name} takes no options, got {', '.join(options)}; leave them out")
        return None
    return fill(kind, options)


def build(component: Any, layout: Layout, options: Mapping[str, Any]) -> Any:
    """An instance of an ARM's or a forecaster's class, with a config if it takes one; see `make_config`."""
    config = make_config(component, options)
    return component(layout) if config is None else component(layout, config)


def fill(kind: type, options: Mapping[str, Any]) -> Any:
    """An instance of the dataclass `kind` from JSON-like options; see `make_config`."""
    names = [field.name for field in fields(kind)]
    for name in options:
        if name not in names:
            raise OptionError(str(suggest("key", name, names)), name)
    try:
        # by way of JSON, where strict means strict but a list may still fill a tuple
        return TypeAdapter(kind).validate_json(json.dumps(dict(options)), strict=True)
    except ValidationError as error:
        first = error.errors()[0]["loc"]
        message = "; ".join(_message(dict(item)) for item in error.errors())
        raise OptionError(message, str(first[0]) if first else "") from None


def _message(item: dict[str, Any]) -> str:
    if item["type"] == "value_error":  # the dataclass's own sentence
        return str(item["ctx"]["error"])
    return f"{'.'.join(map(str, item['loc']))}: {reason(item)}"


def reason(item: Mapping[str, Any]) -> str:
    """What pydantic found: the rule, the value, and where it is known the remedy."""
    got, kind = item["input"], item["type"]
    shown = "a mapping" if isinstance(got, dict) else "a list" if isinstance(got, list) else repr(got)
    rule = item["msg"].replace("Input should be", "must be")
    if kind == "string_pattern_mismatch":
        rule = "must be made of letters, digits, _ and -, and not begin with -"
    return f"{rule}, got {shown}" + (f"; {_REMEDIES[kind]}" if kind in _REMEDIES else "")
