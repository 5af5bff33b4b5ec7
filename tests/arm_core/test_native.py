"""Kernels in C++: what torch gives, in every shape; the ancestral samples; off unless asked for, and told if missing."""

import os
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from arm_core import InputError, Layout, ancestral_sample, native, sample_many, sample_noise, stream_samples
from arm_core.arms import Guided, PixelCNN, PixelCNNConfig
from arm_core.arms.pixelcnn.compiled import CompiledLayers
from arm_core.arms.transformers import attention
from arm_core.forecasters import fixed_point
from arm_core.native import check_native, native_kernels, serves
from arm_core.samplers import cached_sequential_sample
from arm_core.testing import randomise
from tests.arm_core.test_transformers_arm import FAMILIES, PROMPTS, arm_of, noise_for, plain_loop
from tests.conftest import TableArm, needs_compiler

pytestmark = needs_compiler
DTYPES = {torch.float32: 2e-6, torch.float64: 4e-15}


class Operations(TorchDispatchMode):
    """Counts the kernels that run within it; compiled layers, which are no operator of torch, as `layers`."""

    def __init__(self):
        super().__init__()
        self.ran, self._call = Counter(), CompiledLayers.__call__

    def __enter__(self):
        CompiledLayers.__call__ = lambda layers, *given: self.ran.update(["layers"]) or self._call(layers, *given)
        return super().__enter__()

    def __exit__(self, *raised):
        CompiledLayers.__call__ = self._call
        super().__exit__(*raised)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "arm_core":
            self.ran[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def kernels():
    with native_kernels():
        return torch.ops.arm_core


def normal(*shape, seed, dtype):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


CELLS, ROWS = 13, 15  # of a slot; each cell has one row of its own
OWN = torch.randperm(ROWS, generator=torch.Generator().manual_seed(3))[:CELLS, None]


class Kept(NamedTuple):
    """Layers on the cells of two slots, and their memory."""

    layers: Any
    memory: Any

    def add(
        self, rows, table, length, matrix=None, bias=None, *,
        slots=None, gated=False, values=None, active=None, kind=0, per_slot=ROWS, tokens=0,
    ):  # fmt: skip
        rows, tables, lengths = (one if isinstance(one, list) else [one] for one in (rows, table, length))
        steps = [per_slot] * len(rows)
        self.layers.add(kind, rows, tables, steps, lengths, tokens, matrix, bias, slots, gated, values, active)

    def run(self, begin=(0, 0), end=(CELLS, CELLS), tokens=((0,), (0,))):
        return self.layers.run(torch.tensor(tokens), torch.tensor(begin)[:, None], torch.tensor(end)[:, None])


def kept(dtype):
    memory = torch.classes.arm_core.Memory(torch.zeros(1, dtype=dtype))
    return Kept(torch.classes.arm_core.Layers(memory, [OWN], [ROWS]), memory)


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@given(
    st.integers(1, 40), st.integers(1, 140), st.booleans(), st.booleans(), st.integers(1, 3),
    st.tuples(*[st.integers(0, CELLS)] * 4), st.sampled_from(list(DTYPES)), st.integers(0, 2**16),
)  # fmt: skip
def test_a_layer_is_what_torch_makes_of_it(kernels, inputs, width, gated, labelled, count, ends, dtype, seed):
    """Two sources, one of two stretches a cell; what is not evaluated stays as it is."""
    here, generator = kept(dtype), torch.Generator().manual_seed(seed)
    outputs = (1 + gated) * width
    rows = [normal(2 * ROWS, inputs, seed=seed + n, dtype=dtype) for n in range(2)]
    matrix, bias, by_slot = (
        normal(*shape, seed=seed + 2 + n, dtype=dtype) / inputs
        for n, shape in enumerate(((5 * inputs, outputs), (outputs,), (2, outputs)))
    )
    values, active = (here.memory.zeros([2 * ROWS, times * width]) for times in (1, 2))
    before = values.copy_(normal(2 * ROWS, width, seed=seed + 5, dtype=dtype)).clone()
    reads = torch.randint(ROWS - 1, (CELLS, 2), generator=generator)
    here.add(
        rows, [reads, OWN], [2 * inputs, inputs], matrix, bias,
        slots=by_slot if labelled else None, gated=gated, values=values, active=active,
    )  # fmt: skip
    here.add(values, OWN, width)
    begin, end = zip(*(sorted(ends[at : at + 2]) for at in (0, 2)), strict=True)
    with threads(count):
        where, (result,) = here.run(begin, end)
    slot = torch.arange(2).repeat_interleave(torch.tensor(end) - torch.tensor(begin))
    cell = torch.cat([torch.arange(first, last) for first, last in zip(begin, end, strict=True)])
    assert torch.equal(where, slot * CELLS + cell)
    first, place = slot[:, None] * ROWS + reads[cell], slot * ROWS + OWN[cell, 0]
    read = torch.cat([rows[0][first], rows[0][first + 1]], dim=2).flatten(1)  # a stretch is two rows
    y = torch.cat([read, rows[1][place]], dim=1) @ matrix + bias + (by_slot[slot] if labelled else 0)
    if gated:
        y = before[place] + y[:, :width] * y[:, width:].sigmoid()
    near = {"rtol": 100 * DTYPES[dtype], "atol": 100 * DTYPES[dtype]}
    torch.testing.assert_close(result, y, **near)
    torch.testing.assert_close(values, before.index_copy(0, place, y), **near)
    expected = torch.zeros(2 * ROWS, 2 * width, dtype=dtype).index_copy(0, place, F.elu(torch.cat([y, -y], dim=1)))
    torch.testing.assert_close(active, expected, **near)


@pytest.mark.parametrize("dtype", DTYPES)
def test_between_products_rows_are_nearly_those_of_float64(kernels, dtype):
    here, count = kept(dtype), 2 * ROWS
    x = torch.linspace(-20, 20, 100 * count, dtype=dtype).view(count, 100)
    values, active = here.memory.zeros([count, 100]).copy_(x), here.memory.zeros([count, 200])
    matrix, bias = torch.eye(100).repeat(1, 2), torch.zeros(200, dtype=dtype)
    here.add(x, OWN, 100, matrix, bias, gated=True, values=values, active=active)
    here.run()
    place = torch.cat([OWN[:, 0], ROWS + OWN[:, 0]])
    x = x[place].double()
    expected = x + x * x.sigmoid()
    assert ((values[place] - expected) / expected.abs().clamp_min(1)).abs().max() < DTYPES[dtype] / 5
    expected = F.elu(torch.cat([values, -values], dim=1)[place].double())
    assert (active[place] - expected).abs().max() < DTYPES[dtype] / 5


def test_far_from_zero_rows_stay_finite_and_nan_stays_nan(kernels):
    here = kept(torch.float32)
    x = torch.tensor([-1e4, -90.0, -0.0, 0.0, 90.0, 1e4, torch.nan])
    values, active = here.memory.zeros([2 * ROWS, 1]), here.memory.zeros([2 * ROWS, 2])
    gates, place = torch.zeros(2 * ROWS, 2), OWN[:7, 0]
    values[place, 0] = x.nan_to_num(1.0)
    gates[place] = torch.stack([x.nan_to_num(1.0), -x], dim=1)
    eye = torch.eye(2)
    eye[0, 1] = 0.0
    here.add(gates, OWN, 2, eye, torch.zeros(2), gated=True, values=values, active=active)
    here.run()
    torch.testing.assert_close(values[place[:6], 0], x[:6] + x[:6] * (-x[:6]).sigmoid())
    assert torch.isfinite(active[place[:6]]).all()
    assert torch.isnan(values[place[6]]).all() and torch.isnan(active[place[6]]).all()


def test_a_gate_that_is_no_number_gives_none(kernels):
    """Also where p is one: in the bias of q alone."""
    here, values = kept(torch.float32), torch.zeros(2 * ROWS, 1)
    here.add(
        torch.ones(2 * ROWS, 1), OWN, 1, torch.ones(1, 2), torch.tensor([0.0, torch.nan]), gated=True, values=values
    )
    here.run(end=(1, 0))
    assert torch.isnan(values).nonzero().tolist() == [[int(OWN[0]), 0]]


def test_rows_that_tokens_choose_are_summed(kernels):
    here = kept(torch.float64)
    table = torch.arange(12.0, dtype=torch.float64).view(6, 2)  # of each of two tokens a cell, the rows of 0, 1 and 2
    values, reads = here.memory.zeros([2 * ROWS, 2]), torch.tensor([[0, 1], [1, 2], [2, 0]] + [[0, 0]] * (CELLS - 3))
    here.add(table, reads, 2, tokens=3, per_slot=3, values=values)
    here.add(values, OWN, 2)
    tokens = ((0, 1, 2), (2, 2, 0))
    _, (result,) = here.run((0, 1), (3, 3), tokens)
    assert torch.equal(result, table[[0, 1, 2, 2, 0]] + table[[4, 5, 3, 3, 5]])
    for wrong, said in (
        ({"tokens": ((0, 1, 3), (0, 0, 0))}, r"tokens must be in \[0, 3\), got 3"),
        ({"tokens": tokens, "end": (CELLS + 1, 0)}, rf"no cells \[0, {CELLS + 1}\)"),
        ({"tokens": ((0, 1), (0, 0))}, "too few tokens for 2 slots"),
        ({"tokens": tokens[:1]}, "a row for each slot"),
    ):
        with pytest.raises(RuntimeError, match=said):
            here.run(**wrong)


def test_layers_that_do_not_fit_are_refused(kernels):
    here, rows, matrix, bias = kept(torch.float32), torch.zeros(2 * ROWS, 4), torch.zeros(4, 6), torch.zeros(6)
    values = here.memory.zeros([2 * ROWS, 6])
    right = {"rows": rows, "table": OWN, "length": 4, "matrix": matrix, "bias": bias, "values": values}
    for wrong, said in (
        ({"rows": torch.zeros(4, 2 * ROWS).T}, "contiguous"),
        ({"rows": rows.double()}, "rows must be Float"),
        ({"rows": values, "length": 6, "matrix": torch.zeros(6, 6)}, "reads what it keeps"),
        ({"table": OWN[:2]}, "a line for each cell"),
        ({"table": OWN - 1}, "counted from 0"),
        ({"length": 3}, "a matrix of 3 inputs"),
        ({"length": 0, "matrix": torch.zeros(0, 6)}, "a stretch has elements"),
        ({"bias": None}, "a bias are needed"),
        ({"bias": torch.zeros(5)}, "one bias for each output"),
        ({"bias": bias.double()}, "biases of Float"),
        ({"tokens": 2}, "no tokens"),
        ({"slots": torch.zeros(2, 5)}, "slots add to each output"),
        ({"matrix": None, "bias": None, "slots": torch.zeros(2, 4)}, "without a bias"),
        ({"matrix": None, "bias": None, "tokens": 100}, "too few rows for the tokens"),
        ({"gated": True}, "must be 3 wide"),
        ({"gated": True, "values": None}, "needs values"),
        ({"kind": 1}, "no kind 1"),
    ):
        with pytest.raises(RuntimeError, match=said):
            here.add(**{**right, **wrong})
    for wrong, said in (
        ({"values": here.memory.zeros([ROWS, 6])}, "too little is kept for 2 slots"),
        ({"rows": rows[: ROWS + 1]}, "too few rows for 2 slots"),
        ({"slots": torch.zeros(1, 6)}, "too few slots"),
    ):
        one = kept(torch.float32)
        one.add(**{**right, **wrong})
        with pytest.raises(RuntimeError, match=said):
            one.run()


def test_memory_lives_as_long_as_what_lies_in_it(kernels):
    memory = torch.classes.arm_core.Memory(torch.zeros(1))
    small, large = memory.zeros([3]), memory.zeros([5, 2**21])  # more than is taken from the system at a time
    del memory
    small += 1
    large[-1] += 2
    assert small.tolist() == [1, 1, 1] and float(large.sum()) == 2 * 2**21


@given(
    st.integers(1, 3), st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)]), st.integers(1, 19), st.integers(0, 40),
    st.integers(1, 40), st.sampled_from(list(DTYPES)), st.integers(0, 2**16),
)  # fmt: skip
def test_attention_is_that_of_torch(kernels, slots, heads, queries, before, features, dtype, seed):
    """Keys and values as they lie in memory, each query at its own place, drafts behind it."""
    keys = before + queries + 3
    q = normal(slots, queries, heads[0], features, seed=seed, dtype=dtype).transpose(1, 2)
    k, v = (
        normal(slots, keys + 2, heads[1], features, seed=seed + n, dtype=dtype)[:, :keys].transpose(1, 2)
        for n in (1, 2)
    )
    first = torch.randint(0, before + 1, (slots, 1), generator=torch.Generator().manual_seed(seed))
    unread = torch.arange(keys) > (first + torch.arange(queries))[:, None, :, None]
    mask = torch.zeros(unread.shape, dtype=dtype).masked_fill(unread, torch.finfo(dtype).min)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(kernels.attend(q, k, v, mask, 0.3), expected, rtol=5e-5, atol=10 * DTYPES[dtype])


def test_attention_that_does_not_fit_is_refused(kernels):
    q = torch.zeros(1, 5, 2, 4)
    with pytest.raises(RuntimeError, match="keys must fit"):
        kernels.attend(q, q[:, :2], q[:, :2], torch.zeros(1, 1, 2, 2), 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [Layout(1, 8, 8, 3), Layout(3, 4, 8, 4)], ids=["1x8x8", "3x4x8"])
def test_windows_of_a_pixelcnn_give_the_ancestral_samples(layout):
    arm = PixelCNN(layout, PixelCNNConfig(resnets=2, filters=12, classes=3)).double()
    randomise(arm, scale=0.25)
    labels = torch.tensor([0, -1, 2, 1])
    noise = sample_noise(layout, seed=0, sample_ids=range(4), dtype=torch.float64)
    expected = ancestral_sample(arm, noise, context=labels).x
    row = layout.width * layout.channels
    with Operations() as operations, native_kernels():
        for window in (1, row, 2 * row + 1, None):
            trace = sample_many(arm, count=4, seed=0, slots=3, window=window, context=labels)
            assert torch.equal(trace.x, expected), window
        assert torch.equal(cached_sequential_sample(arm, noise, context=labels).x, expected)
    assert operations.ran["layers"] > 100


@torch.inference_mode()
def test_logits_of_spans_are_those_without_kernels():
    arm = PixelCNN(Layout(3, 8, 8, 5), PixelCNNConfig(resnets=2, filters=24)).double()
    randomise(arm, scale=0.08)
    x = torch.randint(5, (3, arm.layout.dims), generator=torch.Generator().manual_seed(0))
    start, stop = torch.tensor([0, 0, 0]), torch.tensor([96, 192, 30])
    plain = arm.span_cache(3, 192).evaluate(x, start, stop)
    with native_kernels():
        fast = arm.span_cache(3, 192).evaluate(x, start, stop)
    assert torch.equal(fast.where, plain.where) and fast.work == plain.work
    assert (fast.logits - plain.logits).abs().max() < 1e-12 and (fast.hidden - plain.hidden).abs().max() < 1e-12


@torch.inference_mode()
def test_in_float32_logits_do_not_depend_on_what_else_is_evaluated():
    """So samples of windows are, with kernels, the same in float32 too, whatever the window, slots and threads."""
    arm = PixelCNN(Layout(3, 8, 8, 5), PixelCNNConfig(resnets=1, filters=21, classes=2))
    randomise(arm, scale=0.3)
    x = torch.randint(5, (7, arm.layout.dims), generator=torch.Generator().manual_seed(0))
    stop, labels = torch.tensor([192, 24, 90, 0, 192, 30, 48]), [0, 1, -1, 1, 0, 1, 0]
    with native_kernels():
        for count in (1, 3):
            cache = arm.span_cache(7, 192)
            cache.begin(list(range(7)), labels)
            with threads(count):
                cache.evaluate((x + 1) % 5, torch.zeros_like(stop), stop)  # drafts that turn out wrong
                together = cache.evaluate(x, torch.zeros_like(stop), stop)
            for slot, dims in enumerate(stop.tolist()):
                alone, row = arm.span_cache(1, 24), x[slot : slot + 1]
                alone.begin([0], labels[slot : slot + 1])
                found = [alone.evaluate(row, torch.tensor([at]), torch.tensor([at + 6])) for at in range(0, dims, 6)]
                logits = torch.cat([together.logits[:0], *(one.logits for one in found)])
                at = together.where.div(arm.layout.dims, rounding_mode="floor") == slot
                assert torch.equal(together.logits[at], logits)


def test_spans_that_are_wider_than_their_cache_are_refused():
    arm, x = PixelCNN(Layout(1, 8, 8, 2), PixelCNNConfig(resnets=1, filters=4)), torch.zeros(1, 64, dtype=torch.int64)
    with native_kernels(), torch.inference_mode():
        cache = arm.span_cache(1, 8)
        cache.evaluate(x, torch.tensor([0]), torch.tensor([8]))
        with pytest.raises(InputError, match="a span has 9 dims, and this cache is for 8"):
            cache.evaluate(x, torch.tensor([8]), torch.tensor([17]))


MIXTURE = {
    "num_local_experts": 2,
    "num_experts_per_tok": 1,
    "experts_implementation": "eager",
}  # of experts; its routing is told to all layers


@pytest.mark.slow
@pytest.mark.parametrize(("family", "options"), [*((family, {}) for family in FAMILIES), ("mixtral", MIXTURE)])
def test_windows_of_a_decoder_give_the_samples_of_a_plain_loop(family, options):
    """Where layers choose their attention themselves, as Falcon's, or in eager mode, as Gemma's, it stays as it is."""
    arm = arm_of(family, **options)
    expected = plain_loop(arm.model, PROMPTS, noise_for(), scale=2.0)
    before = {name: id(part) for name, part in arm.named_modules()}, arm.model.config._attn_implementation
    with Operations() as operations, native_kernels():
        for window in (1, 6, None):
            guided = Guided(arm, scale=2.0, null_context=None)
            trace = sample_many(guided, count=5, seed=0, slots=2, window=window, context=PROMPTS)
            assert torch.equal(trace.x, expected), window
    assert (operations.ran["attend"] > 0) == arm.native == (family not in ("falcon", "gemma2"))
    after = {name: id(part) for name, part in arm.named_modules()}, arm.model.config._attn_implementation
    assert after == before


def test_attention_that_the_kernel_does_not_know_is_torchs():
    q, k, v = (normal(2, 3, 5, 4, seed=seed, dtype=torch.float64) for seed in range(3))
    module, mask = torch.nn.Module(), torch.zeros(2, 1, 5, 5, dtype=torch.float64)
    expected = F.scaled_dot_product_attention(q, k, v, scale=0.5).transpose(1, 2)
    heads = torch.randn(2, 3, 5, 5, dtype=torch.float64)  # a mask of its own for each
    of_heads = F.scaled_dot_product_attention(q, k, v, attn_mask=heads, scale=0.5).transpose(1, 2)
    with native_kernels():
        for given, more, right, is_known in (
            (mask, {"position_bias": torch.zeros_like(mask)}, expected, False),
            (heads, {}, of_heads, False),
            (mask, {"output_router_logits": False, "position_ids": None}, expected, True),
        ):
            with Operations() as operations:
                found, _ = attention.attend(module, q, k, v, given, scaling=0.5, **more)
            torch.testing.assert_close(found, right)
            assert operations.ran["attend"] == is_known


def test_kernels_are_off_unless_asked_for_and_off_again_after():
    arm = arm_of()
    with Operations() as operations:
        with native_kernels():
            with native_kernels(False):
                assert not serves(torch.zeros(1))
            assert serves(torch.zeros(1))
            assert not serves(torch.zeros(1, dtype=torch.bfloat16))
        assert not serves(torch.zeros(1))
        sample_many(arm, count=2, seed=0, slots=2, forecaster=fixed_point, window=4)
    assert not operations.ran


def test_a_stream_keeps_to_what_was_wanted_when_it_was_asked_for():
    arm = arm_of()
    with native_kernels():
        stream = stream_samples(arm, count=1, seed=0, slots=1, window=4)
    with Operations() as operations:
        next(stream)
    assert operations.ran["attend"] > 0
    plain = stream_samples(arm, count=1, seed=0, slots=1, window=4)
    with Operations() as operations, native_kernels():
        next(plain)
    assert not operations.ran


def test_arms_without_kernels_and_other_dtypes_are_told():
    arm = PixelCNN(Layout(1, 4, 4, 2), PixelCNNConfig(resnets=1, filters=4))
    check_native(arm)
    check_native(Guided(arm, scale=1, null_context=-1))
    with pytest.raises(InputError, match=r"for float32 and float64 on a CPU, the ARM is torch\.bfloat16 on cpu"):
        check_native(arm.bfloat16())
    with pytest.raises(InputError, match="TableArm has no spans with native kernels"):
        check_native(TableArm(Layout(1, 2, 2, 2)))


def test_a_missing_or_broken_compiler_is_told_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    native._load.cache_clear()
    with pytest.raises(InputError, match=r"no 'no-such-compiler'; install g\+\+"), native_kernels():
        pass
    monkeypatch.setenv("CXX", "c++ -g0")  # a command of several words
    whole = native._library()
    whole.parent.mkdir()
    whole.write_text("no library")
    with (
        pytest.raises(InputError, match=rf"cannot be kept at {whole}, or loaded from there .*remove that"),
        native_kernels(),
    ):
        pass
    whole.unlink()
    monkeypatch.delenv("CXX")
    broken = tmp_path / "kernels.cpp"
    broken.write_text("int main() { return nothing; }")
    monkeypatch.setattr(native, "SOURCE", broken)
    with pytest.raises(InputError, match=r"cannot compile kernels\.cpp \(.*nothing"), native_kernels():
        pass
    assert not list((tmp_path / "arm_core").iterdir())
    native._load.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["avx2", "default"])
def test_older_cpus_get_the_same(capability, tmp_path):
    """As torch takes this one for: a library of its own, and the same numbers."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "ATEN_CPU_CAPABILITY": capability}
    names = (
        "a_layer_is_what_torch_makes_of_it", "between_products_rows_are_nearly_those_of_float64",
        "attention_is_that_of_torch", "logits_of_spans_are_those_without_kernels",
        "in_float32_logits_do_not_depend_on_what_else_is_evaluated",
    )  # fmt: skip
    tests = [f"{__file__}::test_{name}" for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    assert len(list((tmp_path / "arm_core").iterdir())) == 1


@pytest.mark.slow
def test_two_processes_that_compile_at_once_both_get_the_kernels(tmp_path):
    code = "import torch; from arm_core.native import native_kernels\n"
    code += "with native_kernels(): print(torch.ops.arm_core.attend.default._schema.name)"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in started] == ["arm_core::attend"] * 2
    assert len(list((tmp_path / "arm_core").iterdir())) == 1
