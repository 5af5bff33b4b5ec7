"""Steps that are recorded as CUDA graphs: fixed shapes give what compact ones do, and nothing comes from the host."""

import io
from functools import cache

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from arm_core import (
    KeyedNoise,
    Layout,
    ancestral_sample,
    min_p,
    sample_many,
    sample_noise,
    top_k,
    top_p,
)
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.arms.pixelcnn.cells import SpanCells, build_grids
from arm_core.arms.pixelcnn.span_layers import SpanLayers
from arm_core.arms.pixelcnn.spans import PixelCNNSpans
from arm_core.decision import Decision
from arm_core.forecasters import fixed_point_above, row_above, zeros
from arm_core.gumbel import DenseNoise
from arm_core.samplers.mode import sampling_mode
from arm_core.samplers.recorded import WARM_UP, Steps
from arm_core.samplers.step import step
from arm_core.samplers.tape import Tape, taped
from arm_core.samplers.work import SlotNoise, WholeImages, Work
from arm_core.testing import randomise

LAYOUTS = [Layout(1, 8, 8, 3), Layout(3, 4, 8, 4), Layout(1, 12, 4, 3)]
FROM_THE_HOST = {"lift_fresh", "_local_scalar_dense", "item", "nonzero", "masked_select"}


class OnDevice(TorchDispatchMode):
    """Refuses what cannot be recorded: waiting for the device, shapes that depend on data, tensors made on the host."""

    def __init__(self, device):
        super().__init__()
        self.device, self.seen = torch.device(device), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name, tensors = func.overloadpacket.__name__, [t for t in tree_leaves((args, kwargs, result)) if is_tensor(t)]
        assert name not in FROM_THE_HOST and "unique" not in name, name
        assert all(tensor.device == self.device for tensor in tensors), name
        if name.startswith("index") and name != "index_select":  # a mask as an index is `nonzero`
            assert all(not is_tensor(part) or part.dtype != torch.bool for part in tree_leaves(args[1:])), name
        assert name != "repeat_interleave" or not any(map(is_tensor, args[1:])), name
        self.seen += 1
        return result


def is_tensor(value):
    return isinstance(value, torch.Tensor)


class Recordings:
    """Stands in for CUDA graphs: a replay takes the step again."""

    def __init__(self):
        self.recorded = self.replayed = 0

    def __call__(self, call):
        self.recorded += 1

        def replay():
            self.replayed += 1
            with OnDevice("cpu") as region:
                call()
            assert region.seen > 100

        replay()
        return replay


@cache
def pixelcnn(layout, resnets=1):
    arm = PixelCNN(layout, PixelCNNConfig(resnets=resnets, filters=12)).double()
    randomise(arm, scale=0.1)
    return arm.eval()


def spans_of(arm, slots, window, *, compact):
    return PixelCNNSpans(arm, slots, window, compact=compact)


def activations(part, found=None):
    """Every tensor of kept activations in a cache, in order."""
    found = [] if found is None else found
    for value in vars(part).values():
        for one in value if isinstance(value, list) else [value]:
            for inner in one if isinstance(one, tuple) else [one]:
                if hasattr(inner, "stretches"):
                    found.append(inner)
                elif type(inner).__module__ in (PixelCNNSpans.__module__, SpanLayers.__module__) and hasattr(
                    inner, "__dict__"
                ):
                    activations(inner, found)
    return found


def walk(arm, slots, seed=0):
    """Spans as samplers ask for them, of changing widths: (window, start, stop), some of them empty."""
    generator, dims, granule = torch.Generator().manual_seed(seed), arm.layout.dims, arm.granule
    start = torch.zeros(slots, dtype=torch.int64)
    while bool((start < dims).any()):
        pixels = int(torch.randint(1, 2 * arm.layout.width, (1,), generator=generator))
        stop = (start + pixels * granule).clamp_max(dims)
        yield pixels * granule, start, stop
        kept = torch.randint(0, pixels + 1, (slots,), generator=generator) * granule  # how much is confirmed
        start = torch.where(stop < dims, torch.minimum(start + kept, stop), dims)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("resnets", [1, 2])
def test_calls_of_fixed_shapes_leave_and_return_what_compact_calls_do(layout, resnets):
    arm, slots = pixelcnn(layout, resnets), 3
    x = torch.randint(layout.categories, (slots, layout.dims), generator=torch.Generator().manual_seed(1))
    widest = 2 * layout.width * layout.channels
    compact = spans_of(arm, slots, widest, compact=True)
    spans = spans_of(arm, slots, widest, compact=False)
    kept = activations(compact), activations(spans)
    assert len(kept[0]) == len(kept[1]) > 30
    nowhere = {grid.places: grid for grid in spans.grids}
    with torch.inference_mode():
        for window, start, stop in walk(arm, slots):
            expected = compact.evaluate(x, start, stop)
            narrow = spans.narrowed(window)
            assert narrow.window == window
            got = narrow.evaluate(x, start, stop)
            real = got.where < slots * layout.dims
            places, order = got.where[real].sort()
            assert torch.equal(places, expected.where.sort().values)
            for fixed, short in ((got.logits, expected.logits), (got.hidden, expected.hidden)):
                torch.testing.assert_close(fixed[real][order], short[expected.where.argsort()], rtol=1e-12, atol=1e-12)
            for short, fixed in zip(*kept, strict=True):
                grid = nowhere[len(short.rows)]
                inside = torch.arange(grid.places) % grid.per_slot != grid.nowhere
                torch.testing.assert_close(fixed.rows[inside], short.rows[inside], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_recorded_call_takes_nothing_from_the_host(layout):
    """On a device without data every shape that depends on data, and every tensor of the host, is an error."""
    saved = io.BytesIO()
    torch.save(spans_of(pixelcnn(layout), 3, 7, compact=False).narrowed(5), saved)
    saved.seek(0)
    spans = torch.load(saved, map_location="meta", weights_only=False)
    x = torch.empty(3, layout.dims, dtype=torch.int64, device="meta")
    start = torch.empty(3, dtype=torch.int64, device="meta")
    with torch.inference_mode(), OnDevice("meta") as region:
        output = spans.evaluate(x, start, start)
    assert output.logits.device.type == "meta" and isinstance(output.work, float)
    assert region.seen > 100


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x.sum().item(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x + torch.tensor([1, 2, 3]),
        lambda x: x.repeat_interleave(x),
    ],
)
def test_the_check_above_refuses_what_cannot_be_recorded(step):
    with pytest.raises(AssertionError), torch.inference_mode(), OnDevice("cpu"):
        step(torch.ones(3, dtype=torch.int64))


def work_in_fixed_shapes(arm, forecaster, *, whole=False, options=None):
    noise = sample_noise(arm.layout, seed=0, sample_ids=range(3), dtype=torch.float64)
    spans = WholeImages(arm, compact=False) if whole else spans_of(arm, 3, 2 * arm.layout.width, compact=False)
    work = Work(arm, 3, spans, forecaster, DenseNoise(noise), Decision(**(options or {})))
    work.begin([0, 1, 2], [0, 1, 2])
    return work


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "logits_processor": [top_k(2), top_p(0.9), min_p(0.1)]}])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("forecaster", [fixed_point_above, row_above, zeros, lambda state: state.outputs.roll(1, 1)])
def test_replayed_steps_give_the_ancestral_samples(forecaster, whole, options, monkeypatch):
    monkeypatch.setitem(WARM_UP, "cpu", 2)
    arm = pixelcnn(LAYOUTS[0])
    noise = sample_noise(arm.layout, seed=0, sample_ids=range(3), dtype=torch.float64)
    with sampling_mode(arm):
        work, recordings = work_in_fixed_shapes(arm, forecaster, whole=whole, options=options), Recordings()
        assert work.recordable
        take, widths, usual = Steps(work, whole=whole, record=recordings), [8, 16], []
        while not all(work.finished()):
            widths.reverse()
            usual.append(take(widths[0]))
    assert torch.equal(work.trace().x, ancestral_sample(arm, noise, **options).x)
    shapes = 1 if whole else 2
    eager = 2 * shapes
    assert usual == [not eager <= call < eager + shapes for call in range(len(usual))]
    assert recordings.replayed == max(0, len(usual) - eager)
    assert recordings.recorded <= shapes and (whole or recordings.replayed > 5)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "logits_processor": [top_k(2), top_p(0.9), min_p(0.1)]}])
@pytest.mark.parametrize("forecaster", [fixed_point_above, lambda state: state.outputs.roll(1, 1)])
def test_taped_steps_do_what_steps_do(forecaster, options, monkeypatch):
    """Every buffer of the work, call by call and bit for bit, of a PixelCNN in fixed shapes."""
    monkeypatch.setitem(WARM_UP, "cpu", 2)
    arm = pixelcnn(LAYOUTS[0])
    with sampling_mode(arm):
        works = [work_in_fixed_shapes(arm, forecaster, options=options) for _ in range(2)]
        plain, recorded = Steps(works[0], record=lambda call: call() or call), Steps(works[1])
        calls = 0
        while not all(works[0].finished()):
            plain(8)
            recorded(8)
            calls += 1
            for name in ("x", "fed", "outputs", "evaluated", "converged_at", "settled_at", "mistakes", "calls", "work"):
                assert torch.equal(getattr(works[0], name), getattr(works[1], name)), (calls, name)
    assert calls > 7 and recorded.record is taped and len(recorded._replays) == 1


def test_a_tape_runs_on_the_memory_that_it_saw():
    kept, given = torch.zeros(4, 3), torch.ones(3)

    def call():
        given.copy_(given.double().float() * 2)  # a conversion there and back
        best, at = torch.stack([given, kept[1]]).max(dim=0)  # two results, of a list of tensors
        parts = torch.split(best + at, [1, 2])
        kept[:, 1:][2].copy_(parts[1])  # a view of memory that stays
        kept.index_copy_(0, torch.arange(1), torch.cat(parts)[None].to(kept.dtype))

    with torch.inference_mode():
        replay = taped(call)
        assert given.tolist() == [2.0] * 3 and kept[0].tolist() == [2.0] * 3
        given[1] = 5.0
        replay()
        assert given.tolist() == [4.0, 10.0, 4.0]
        assert kept[0].tolist() == [4.0, 10.0, 4.0] and kept[2].tolist() == [0.0, 10.0, 4.0]


def test_what_a_tape_leaves_out():
    kept = torch.zeros(4, 3)
    with torch.inference_mode(), Tape() as tape:
        kept[1:].float().T.add_(1)  # three views and a conversion of memory that stays; one operation
    assert len(tape.lines) == 1
    tape.code()()
    assert kept.tolist() == [[0.0] * 3] + [[2.0] * 3] * 3


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("processors", [[], [top_k(2), top_p(0.9), min_p(0.1)]])
def test_a_recorded_step_takes_nothing_from_the_host(whole, processors):
    saved = io.BytesIO()
    work = work_in_fixed_shapes(pixelcnn(LAYOUTS[0]), fixed_point_above, whole=whole)
    assert work.state.margins.shape == work.state.modes.shape  # kept from now on
    work._cache(8 if not whole else work.dims)  # made on the host, before any recording
    torch.save(work, saved)
    saved.seek(0)
    work = torch.load(saved, map_location="meta", weights_only=False)
    work.decision = Decision(processors, temperature=0.5)
    with sampling_mode(pixelcnn(LAYOUTS[0])), OnDevice("meta") as region:
        step(work, *((torch.zeros_like(work.full), work.dims) if whole else work.spans(8)))
    assert region.seen > 100


def test_what_cannot_be_recorded_is_not():
    arm = pixelcnn(LAYOUTS[0])
    assert not work_in_fixed_shapes(arm, zeros, options={"logits_processor": lambda rows: rows}).recordable
    keyed = KeyedNoise(Layout(1, 24, 24, 16_384), seed=0, sample_ids=range(64))
    assert not SlotNoise(keyed, 64, keyed.layout).recordable  # made by NumPy
    assert not Work(
        arm, 1, spans_of(arm, 1, 4, compact=True), zeros, DenseNoise(torch.zeros(1, 64, 3)), Decision()
    ).recordable


@pytest.mark.parametrize(("compact", "rounded", "window"), [(True, False, 15), (False, False, 15), (True, True, 58)])
def test_the_cells_of_a_span_are_those_whose_first_pixel_lies_in_it(compact, rounded, window):
    height, width = 8, 12
    grids = build_grids(Layout(1, height, width, 2), 2, window, torch.device("cpu"))
    cells = SpanCells(grids, 2, window, compact=compact, rounded=rounded)
    filled = 0
    for first in range(height * width):
        start, stop = torch.tensor([first, 90]), torch.tensor([min(first + window, height * width), 90])
        levels, counts, padding = cells(start, stop)
        found = []
        for level, pair in enumerate(levels):
            pixel = (grids[level].row * width + grids[level].column) << level
            inside = (pixel >= start[0]) & (pixel < stop[0])
            rows = (inside & (grids[level].column == 0)).view(-1, grids[level].width).any(dim=1)
            for got, expected in ((pair.u, rows.repeat_interleave(grids[level].width)), (pair.ul, inside)):
                kept = got.places != got.slots * grids[level].per_slot + grids[level].nowhere
                assert torch.equal(got.numbers[kept], expected.nonzero().flatten())
                assert not got.slots[kept].any()
                found.append(kept)
        if compact:
            assert counts == [int(kept.sum()) for kept in found]
            filled += sum(len(kept) for kept in found) - sum(counts)
        if padding is not None:
            assert torch.equal(padding, ~found[1])
    assert (filled > 0) == rounded


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_cuda_graphs_give_the_samples_of_the_cpu(layout):
    arm = pixelcnn(layout)
    noise = sample_noise(layout, seed=0, sample_ids=range(5), dtype=torch.float64)
    expected = ancestral_sample(arm, noise).x
    on_gpu = PixelCNN(layout, arm.config).double()
    on_gpu.load_state_dict(arm.state_dict())
    on_gpu.cuda()
    assert on_gpu.span_cache(2, 4).recordable
    for window in (None, layout.channels, layout.width * layout.channels + 1):
        assert torch.equal(sample_many(on_gpu, count=5, seed=0, slots=2, window=window).x.cpu(), expected)


def test_whole_images_with_contexts_are_not_recorded():
    """A context may be anything, and picking those of the slots waits for the device."""
    work = work_in_fixed_shapes(pixelcnn(LAYOUTS[0]), zeros, whole=True)
    assert work.recordable
    work.begin([0], [0], contexts=[7])
    assert not work.recordable
