"""The one exception that means "what you gave breaks a rule", so that a program can tell it from a bug."""

import operator


class InputError(ValueError):
    """A value given by the user breaks a rule.

    The message names the value, the rule and the remedy. The command line prints it and exits with
    code 2; every other exception is a fault of ours and keeps its traceback.
    """


def whole(name: str, value: object, least: int = 0, most: int | None = None) -> int:
    """A whole number in [least, most], also as NumPy and torch have it; 1.5, 1.0 and true are none."""
    rule = f"{name} must be a whole number" + (f" of at least {least}" if most is None else f" in [{least}, {most}]")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"{rule}, got {value!r}") from None
    if isinstance(value, bool) or number < least or (most is not None and number > most):
        raise InputError(f"{rule}, got {value}")
    return number
