"""The items of a run, in the order in which they matter."""

from collections.abc import Iterator

from benchmarks.gpu import exact, models
from benchmarks.gpu.calls import calls
from benchmarks.gpu.decoder import decoder
from benchmarks.gpu.launches import launches, outside_convolutions
from benchmarks.gpu.models import Size
from benchmarks.gpu.runner import Item
from benchmarks.gpu.sampling import sampling
from benchmarks.gpu.training import PAPER, SMALL, training

BUDGET_S = 480.0
CALLS_S = {"R1 F20": 3.5, "R2 F60": 3.5, "R5 F160": 3.5, "R5 F162": 7}
SAMPLING_S = {"R1 F20": 12, "R2 F60": 15, "R5 F160": 12, "R5 F162": 30}
"""What an item of calls or of samplers may take, by size."""
SMALL_S = 10
"""The same, with `--small`."""
FIRST, LATER = (16, 64, 256), (1, 1024)
"""Slots that come before training and the decoder, and after."""
FEW_TIMES = {("R5 F162", 64), ("R5 F162", 256), ("R5 F162", 1), ("R5 F160", 1)}
"""What is as slow as it is far from a user's choice: after training and the decoder too."""


def plan(*, small: bool) -> list[Item]:
    """All items; those of the profiler last, since it slows the process down, and with their time kept back."""
    sizes = models.SMALL if small else models.SIZES
    found = [Item("exact", name, run, cost) for name, run, cost in exact.items(small)]
    found += [
        Item("calls", f"calls {size.name}, {n} slots", calls(size, n), CALLS_S.get(size.name, SMALL_S))
        for size, n in _calls(sizes, small)
    ]
    found += list(_sampling(sizes, small, early=True))
    recipes = SMALL if small else PAPER
    found += [Item("training", f"training {recipe.name}", training(recipe), 10) for recipe in recipes]
    widths = (1, 2) if small else (16, 1, 64)
    found += [Item("decoder", f"decoder, {slots} slots", decoder(slots), 20) for slots in widths]
    found += list(_sampling(sizes, small, early=False))
    for size in sizes:
        slots = 2 if small else 64
        item = Item("launches", f"launches {size.name}, {slots} slots", launches(size, slots), 5, reserved=True)
        found.append(item)
    for recipe in recipes:
        run = outside_convolutions(recipe)
        found.append(Item("launches", f"profile of training {recipe.name}", run, 5, reserved=True))
    return found


def _calls(sizes: tuple[Size, ...], small: bool) -> Iterator[tuple[Size, int]]:
    for slots in (2,) if small else (64, 16, 256, 1):
        for size in sizes:
            if (size.name, slots) != ("R5 F162", 256):
                yield size, slots


def _sampling(sizes: tuple[Size, ...], small: bool, *, early: bool) -> Iterator[Item]:
    for slots in (2,) if small else (*FIRST, *LATER):
        for size in sizes:
            soon = slots in (2, *FIRST) and (size.name, slots) not in FEW_TIMES
            if slots in size.slots and soon == early:
                cost = SAMPLING_S.get(size.name, SMALL_S)
                yield Item("sampling", f"samplers {size.name}, {slots} slots", sampling(size, slots), cost)
