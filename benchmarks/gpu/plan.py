"""The items of a run, in the order in which they matter."""

from collections.abc import Iterator

from benchmarks.gpu import exact, models
from benchmarks.gpu.calls import calls
from benchmarks.gpu.decoder import decoder
from benchmarks.gpu.launches import launches, outside_convolutions
from benchmarks.gpu.models import Size
from benchmarks.gpu.runner import Item
from benchmarks.gpu.sampling import ancestral, sampling
from benchmarks.gpu.training import PAPER, SMALL, training

BUDGET_S = 480.0
CALLS_S = {"R1 F20": 6, "R2 F60": 7, "R5 F160": 12, "R5 F162": 15}
SAMPLING_S = {"R1 F20": 14, "R2 F60": 17, "R5 F160": 16, "R5 F162": 45}
"""What an item of calls or of samplers may take, by size."""
SMALL_S = 10
"""The same, with `--small`."""


def plan(*, small: bool) -> list[Item]:
    """All items; those of the profiler last, since it slows the process down, and with their time kept back."""
    found = [Item("exact", name, run, cost) for name, run, cost in exact.items(small)]
    found += list(_small() if small else _full())
    sizes, slots = (models.SMALL, 2) if small else (models.SIZES[:2], 64)
    for size, cost in zip(sizes, (12, 6), strict=True):
        name = f"launches {size.name}, {slots} slots"
        found.append(Item("launches", name, launches(size, slots), cost, reserved=True))
    recipe = (SMALL if small else PAPER)[0]
    run = outside_convolutions(recipe)
    return [*found, Item("launches", f"profile of training {recipe.name}", run, 12)]


def _full() -> Iterator[Item]:
    toy, binary, latent, colour = models.SIZES
    yield from (_calls(size, slots) for slots in (64, 16) for size in (toy, binary))
    yield from (_samplers(size, slots) for slots in (16, 64, 256) for size in (toy, binary))
    yield from (Item("training", f"training {recipe.name}", training(recipe), 12) for recipe in PAPER)
    yield Item("decoder", "decoder, 16 slots", decoder(16), 40)
    yield from (_samplers(size, slots) for size, slots in ((latent, 16), (colour, 16), (latent, 64)))
    yield from (_calls(size, 64) for size in (latent, colour))
    yield from (Item("decoder", f"decoder, {slots} slots", decoder(slots), 40) for slots in (1, 64))
    yield from (_samplers(size, slots) for slots in (1, 1024) for size in (toy, binary))
    yield from (_samplers(latent, slots) for slots in (256, 1))
    for size in (toy, binary):
        yield Item("sampling", f"ancestral {size.name}, 16 slots", ancestral(size, 16), 30)


def _small() -> Iterator[Item]:
    yield from (_calls(size, 2) for size in models.SMALL)
    yield from (_samplers(size, 2) for size in models.SMALL)
    yield from (Item("training", f"training {recipe.name}", training(recipe), SMALL_S) for recipe in SMALL)
    yield from (Item("decoder", f"decoder, {slots} slots", decoder(slots), SMALL_S) for slots in (1, 2))
    size = models.SMALL[0]
    yield Item("sampling", f"ancestral {size.name}, 2 slots", ancestral(size, 2), SMALL_S)


def _calls(size: Size, slots: int) -> Item:
    return Item("calls", f"calls {size.name}, {slots} slots", calls(size, slots), CALLS_S.get(size.name, SMALL_S))


def _samplers(size: Size, slots: int) -> Item:
    cost = SAMPLING_S.get(size.name, SMALL_S)
    return Item("sampling", f"samplers {size.name}, {slots} slots", sampling(size, slots), cost)
