"""Kernels in C++: what torch gives, in every shape; the ancestral samples; off unless asked for, and told if missing."""

import os
import subprocess
import sys
from collections import Counter
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


class Place(NamedTuple):
    """Cells of two slots, five rows of memory for each of which three are theirs."""

    memory: Any
    layers: Any
    rows: torch.Tensor  # what each slot keeps of a cell is in row 1, 2 or 3 of its five


def placed(dtype):
    memory = torch.classes.arm_core.Memory(torch.zeros(1, dtype=dtype))
    layers = torch.classes.arm_core.Layers(memory, [torch.tensor([[1], [2], [3]])], [5])
    return Place(memory, layers, torch.tensor([1, 2, 3, 6, 7, 8]))


def run(layers, begin=(0, 0), end=(3, 3), tokens=((0,), (0,))):
    return layers.run(torch.tensor(tokens), torch.tensor(begin)[:, None], torch.tensor(end)[:, None])


@given(
    st.integers(1, 40), st.integers(1, 40), st.booleans(), st.booleans(), st.integers(1, 2),
    st.sampled_from(list(DTYPES)), st.integers(0, 2**16),
)  # fmt: skip
def test_a_layer_is_what_torch_makes_of_it(kernels, inputs, width, gated, labelled, threads, dtype, seed):
    """Two sources of several stretches; one slot evaluates two of its cells; what is not evaluated stays as it is."""
    memory, layers, _ = placed(dtype)
    outputs = (1 + gated) * width
    kept, more = (normal(10, inputs, seed=seed + n, dtype=dtype) for n in range(2))
    matrix, bias, by_slot = (
        normal(*shape, seed=seed + 2 + n, dtype=dtype) / inputs
        for n, shape in enumerate(((5 * inputs, outputs), (outputs,), (2, outputs)))
    )
    values, active = (memory.zeros([10, times * width]) for times in (1, 2))
    before = values.copy_(normal(10, width, seed=seed + 5, dtype=dtype)).clone()
    reads = torch.tensor([[0, 2], [1, 0], [2, 1]])
    own = torch.tensor([[4], [3], [2]])
    layers.add(
        0, [kept, more], [reads, own], [5, 5], [2 * inputs, inputs], 0, matrix, bias, by_slot if labelled else None,
        gated, values, active,
    )  # fmt: skip
    layers.add(0, [values], [torch.tensor([[1], [2], [3]])], [5], [width], 0, None, None, None, False, None, None)
    before_threads = torch.get_num_threads()
    torch.set_num_threads(threads)
    where, (result,) = run(layers, end=(2, 3))
    torch.set_num_threads(before_threads)
    assert where.tolist() == [0, 1, 3, 4, 5]
    cells = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    read = torch.stack(
        [
            torch.cat(
                [
                    *(kept[5 * slot + row : 5 * slot + row + 2].flatten() for row in reads[cell]),
                    more[5 * slot + own[cell, 0]],
                ]
            )
            for slot, cell in cells
        ]
    )
    y = read @ matrix + bias + (by_slot[[slot for slot, _ in cells]] if labelled else 0)
    place = torch.tensor([1, 2, 6, 7, 8])
    if gated:
        y = before[place] + y[:, :width] * y[:, width:].sigmoid()
    near = {"rtol": 40 * DTYPES[dtype], "atol": 40 * DTYPES[dtype]}
    torch.testing.assert_close(result, y, **near)
    torch.testing.assert_close(values, before.index_copy(0, place, y), **near)
    expected = torch.zeros(10, 2 * width, dtype=dtype).index_copy(0, place, F.elu(torch.cat([y, -y], dim=1)))
    torch.testing.assert_close(active, expected, **near)


def test_rows_that_tokens_choose_are_summed(kernels):
    memory, layers, _ = placed(torch.float64)
    table = torch.arange(12.0, dtype=torch.float64).view(6, 2)  # of each of two tokens a cell, the rows of 0, 1 and 2
    values = memory.zeros([10, 2])
    layers.add(0, [table], [torch.tensor([[0, 1], [1, 2], [2, 0]])], [3], [2], 3, None, None, None, False, values, None)
    layers.add(0, [values], [torch.tensor([[1], [2], [3]])], [5], [2], 0, None, None, None, False, None, None)
    _, (result,) = run(layers, begin=(0, 1), tokens=((0, 1, 2), (2, 2, 0)))
    assert torch.equal(result, table[[0, 1, 2, 2, 0]] + table[[4, 5, 3, 3, 5]])
    with pytest.raises(RuntimeError, match=r"tokens must be in \[0, 3\), got 3"):
        run(layers, tokens=((0, 1, 3), (0, 0, 0)))
    with pytest.raises(RuntimeError, match=r"no cells \[0, 4\)"):
        run(layers, end=(4, 0), tokens=((0, 1, 2), (0, 0, 0)))
    with pytest.raises(RuntimeError, match="too few tokens for 2 slots"):
        run(layers, tokens=((0, 1), (0, 0)))
    with pytest.raises(RuntimeError, match="a row for each slot"):
        run(layers, tokens=((0, 1, 2),))


def test_far_from_zero_rows_stay_finite(kernels):
    memory, layers, place = placed(torch.float32)
    x = torch.tensor([-1e4, -90.0, -0.0, 0.0, 90.0, 1e4])
    values, active = memory.zeros([10, 1]), memory.zeros([10, 2])
    values[place, 0] = x
    gates = torch.zeros(10, 2)
    gates[place] = torch.stack([x, -x], dim=1)
    own = torch.tensor([[1], [2], [3]])
    layers.add(0, [gates], [own], [5], [2], 0, torch.eye(2), torch.zeros(2), None, True, values, active)
    run(layers)
    torch.testing.assert_close(values[place, 0], x + x * (-x).sigmoid())
    assert torch.isfinite(active).all()


def test_layers_that_do_not_fit_are_refused(kernels):
    memory, layers, _ = placed(torch.float32)
    own, rows, matrix, bias = torch.tensor([[1], [2], [3]]), torch.zeros(10, 4), torch.zeros(4, 6), torch.zeros(6)
    values = memory.zeros([10, 6])

    def add(rows=rows, table=own, length=4, matrix=matrix, bias=bias, gated=False, values=values, kind=0):
        layers.add(kind, [rows], [table], [5], [length], 0, matrix, bias, None, gated, values, None)

    for wrong, said in (
        ({"rows": torch.zeros(4, 10).T}, "contiguous"),
        ({"rows": torch.zeros(10, 4, dtype=torch.float64)}, "rows must be Float"),
        ({"table": own[:2]}, "a line for each cell"),
        ({"table": -own}, "counted from 0"),
        ({"length": 3}, "a matrix of 3 inputs"),
        ({"bias": None}, "a bias are needed"),
        ({"bias": torch.zeros(5)}, "one bias for each output"),
        ({"gated": True}, "must be 3 wide"),
        ({"gated": True, "values": None}, "needs values"),
        ({"kind": 1}, "no kind 1"),
    ):
        with pytest.raises(RuntimeError, match=said):
            add(**wrong)
    add(values=memory.zeros([7, 6]))
    with pytest.raises(RuntimeError, match="too little is kept for 2 slots"):
        run(layers)
    layers = torch.classes.arm_core.Layers(memory, [own], [5])
    add(rows=torch.zeros(8, 4))
    with pytest.raises(RuntimeError, match="too few rows for 2 slots"):
        run(layers)


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
    """So samples of windows are, with kernels, the same in float32 too, whatever the window and the slots."""
    arm = PixelCNN(Layout(3, 8, 8, 5), PixelCNNConfig(resnets=1, filters=21))
    randomise(arm, scale=0.3)
    x = torch.randint(5, (7, arm.layout.dims), generator=torch.Generator().manual_seed(0))
    stop = torch.tensor([192, 24, 90, 0, 192, 30, 48])
    with native_kernels():
        together = arm.span_cache(7, 192).evaluate(x, torch.zeros_like(stop), stop)
        for slot, dims in enumerate(stop.tolist()):
            alone, row = arm.span_cache(1, 24), x[slot : slot + 1]
            found = [alone.evaluate(row, torch.tensor([at]), torch.tensor([at + 6])) for at in range(0, dims, 6)]
            logits = [one.logits for one in found]
            at = together.where.div(arm.layout.dims, rounding_mode="floor") == slot
            assert torch.equal(together.logits[at], torch.cat(logits) if logits else together.logits[:0])


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
    names = ("a_layer_is_what_torch_makes_of_it", "attention_is_that_of_torch")
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
