"""`harness check`: the contract of an ARM, a forecaster or a dataset, a line each property."""

import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.text import Text

from arm_core import AutoregressiveModel, InputError, Layout, testing
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.data import load_dataset
from arm_core.registry import ARMS, DATASETS, FORECASTERS, Registry, config_type, suggest
from harness.console import CONSOLE
from harness.sweep.samplers import LEARNED


def run_checks(reference: str, kind: str | None, layout: Layout | None = None) -> int:
    """Run the contract checks, a line each, of an ARM on this layout or on small ones; returns the exit code."""
    failed, kind, broken = 0, kind or _kind_of(reference), ""
    if layout is not None and kind != "arm":
        raise InputError(f"--layout is for ARMs, and {reference} is a {kind}; leave it out")
    for name, check in _all(_checks(reference, kind, [layout] if layout is not None else testing.SMALL_LAYOUTS)):
        on, _, of = name.partition(": ")
        if on == broken:
            continue
        try:
            check()
            CONSOLE.print(Text.assemble(("holds", "green"), f"  {name}"), soft_wrap=True)
        except InputError:
            raise
        except Exception as error:  # whatever a class of the user raises is a property that fails
            failed += 1
            CONSOLE.print(Text.assemble(("fails", "red"), f"  {name}: {_told(error, reference)}"), soft_wrap=True)
            if of in testing.FIRST:
                CONSOLE.print("       nothing else is tried on this layout before that is mended")
                broken = on
    say = f"{failed} properties fail." if failed > 1 else "1 property fails."
    CONSOLE.print(say if failed else "Every property holds.")
    return 1 if failed else 0


def _all(checks: Iterator[testing.Check]) -> Iterator[testing.Check]:
    """The checks; that a component cannot be built is one which fails."""
    try:
        yield from checks
    except InputError:
        raise
    except Exception as error:
        yield (
            "is built with (layout), or with (layout, config) where its dataclass annotates config",
            partial(_raise, error),
        )


def _raise(error: Exception) -> None:
    raise error


def _told(error: Exception, reference: str) -> str:
    """What went wrong, and of an exception its kind and the last line of the user's file that led to it."""
    if isinstance(error, AssertionError) and str(error):
        return str(error)
    file = Path(reference.rpartition(":")[0]).resolve()
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    where = f" ({file.name}:{lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {error}{where}"


_REGISTRIES: dict[str, Registry] = {"arm": ARMS, "forecaster": FORECASTERS, "dataset": DATASETS}


def _kind_of(reference: str) -> str:
    for kind, registry in _REGISTRIES.items():
        if reference in registry.entries:
            return kind
    if ":" not in reference:
        if reference.endswith(".py"):
            raise InputError(f"{reference} is a file; name what is meant in it too: {reference}:NAME")
        every = [name for registry in _REGISTRIES.values() for name in registry.entries]
        raise suggest("component", reference, [*every, "module:attr", "file.py:attr"])
    found = ARMS.resolve(reference)
    if isinstance(found, type) and issubclass(found, AutoregressiveModel):
        return "arm"
    return "dataset" if hasattr(found, "split") else "forecaster"


def _defaults(config: type) -> Any:
    try:
        return config()
    except TypeError as error:
        raise InputError(f"every option needs a default to be checked with: {error}") from None


def _checks(reference: str, kind: str, layouts: Sequence[Layout]) -> Iterator[testing.Check]:
    component = _REGISTRIES[kind].resolve(reference)
    config = config_type(component)
    if kind == "arm":
        small = PixelCNNConfig(resnets=1, filters=12) if component is PixelCNN else config and _defaults(config)
        return testing.arm_checks(lambda layout: component(layout, small) if config else component(layout), layouts)
    if kind == "dataset":
        dataset = load_dataset(reference)
        return iter([(f"{reference}: splits fit the layout", lambda: testing.check_dataset(dataset))])
    if reference in LEARNED:
        raise InputError(f"{reference} needs trained modules; `harness sweep` compares its samples with ancestral ones")
    arms = [PixelCNN(layout, PixelCNNConfig(resnets=1, filters=12)).double() for layout in testing.SMALL_LAYOUTS]
    for arm in arms:
        testing.randomise(arm)

    def build(layout: Layout) -> testing.Forecaster:
        if not isinstance(component, type):
            return component
        return component(layout, _defaults(config)) if config else component(layout)

    return testing.forecaster_checks(build, arms)
