"""`harness check`: the contract of an ARM, a forecaster or a dataset, a line each property."""

from collections.abc import Iterator, Sequence

from rich.text import Text

from arm_core import AutoregressiveModel, InputError, Layout, testing
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.data import load_dataset
from arm_core.registry import ARMS, DATASETS, FORECASTERS, Registry, config_type, suggest
from harness.console import CONSOLE
from harness.sweep.samplers import LEARNED


def run_checks(reference: str, kind: str | None, layout: Layout | None = None) -> int:
    """Run the contract checks, a line each, of an ARM on this layout or on small ones; returns the exit code."""
    failed, kind = 0, kind or _kind_of(reference)
    if layout is not None and kind != "arm":
        raise InputError(f"--layout is for ARMs, and {reference} is a {kind}; leave it out")
    for name, check in _checks(reference, kind, [layout] if layout is not None else testing.SMALL_LAYOUTS):
        try:
            check()
            CONSOLE.print(Text.assemble(("holds", "green"), f"  {name}"), soft_wrap=True)
        except AssertionError as error:
            failed += 1
            CONSOLE.print(Text.assemble(("fails", "red"), f"  {name}: {error}"), soft_wrap=True)
    CONSOLE.print("Every property holds." if not failed else f"{failed} properties fail.")
    return 1 if failed else 0


_REGISTRIES: dict[str, Registry] = {"arm": ARMS, "forecaster": FORECASTERS, "dataset": DATASETS}


def _kind_of(reference: str) -> str:
    for kind, registry in _REGISTRIES.items():
        if reference in registry.entries:
            return kind
    if ":" not in reference:
        every = [name for registry in _REGISTRIES.values() for name in registry.entries]
        raise suggest("component", reference, [*every, "module:attr", "file.py:attr"])
    found = ARMS.resolve(reference)
    if isinstance(found, type) and issubclass(found, AutoregressiveModel):
        return "arm"
    return "dataset" if hasattr(found, "split") else "forecaster"


def _checks(reference: str, kind: str, layouts: Sequence[Layout]) -> Iterator[testing.Check]:
    component = _REGISTRIES[kind].resolve(reference)
    config = config_type(component)
    if kind == "arm":
        small = PixelCNNConfig(resnets=1, filters=12) if component is PixelCNN else config and config()
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
        return component(layout, config()) if config else component(layout)

    return testing.forecaster_checks(build, arms)
