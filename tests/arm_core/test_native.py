"""Kernels in C++: what torch gives, in every shape; the ancestral samples; off unless asked for, and told if missing."""

import os
import subprocess
import sys
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from arm_core import InputError, Layout, ancestral_sample, native, sample_many, sample_noise, stream_samples
from arm_core.arms import Guided, PixelCNN, PixelCNNConfig
from arm_core.arms.transformers import attention
from arm_core.forecasters import fixed_point
from arm_core.native import check_native, kernels_for, native_kernels
from arm_core.samplers import cached_sequential_sample
from arm_core.testing import randomise
from tests.arm_core.test_transformers_arm import FAMILIES, PROMPTS, arm_of, noise_for, plain_loop
from tests.conftest import TableArm, needs_compiler

pytestmark = needs_compiler
DTYPES = {torch.float32: 2e-6, torch.float64: 4e-15}


class Operations(TorchDispatchMode):
    """Counts the kernels that run within it."""

    def __init__(self):
        super().__init__()
        self.ran = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "arm_core":
            self.ran[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def kernels():
    with native_kernels():
        return kernels_for(torch.zeros(1))


def normal(*shape, seed, dtype):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@given(st.integers(0, 40), st.integers(1, 40), st.booleans(), st.sampled_from(list(DTYPES)), st.integers(0, 2**16))
def test_rows_between_products_are_those_of_torch(kernels, count, width, more, dtype, seed):
    x, y, z = (
        normal(count, size, seed=seed + place, dtype=dtype) for place, size in enumerate((width, width, 2 * width))
    )
    places = torch.randperm(2 * count + 1, generator=torch.Generator().manual_seed(seed))[:count]
    kept = torch.full((2 * count + 1, 2 * width), 7.0, dtype=dtype)
    kernels.put_elu(x, y if more else None, kept, places)
    sums = x + y if more else x
    expected = torch.full_like(kept, 7.0).index_copy_(0, places, F.elu(torch.cat([sums, -sums], dim=1)))
    torch.testing.assert_close(kept, expected, rtol=DTYPES[dtype], atol=DTYPES[dtype])
    gated, active = kernels.gate(x, z, kept if more else None, places)
    expected = x + z[:, :width] * z[:, width:].sigmoid()
    torch.testing.assert_close(gated, expected, rtol=DTYPES[dtype], atol=4 * DTYPES[dtype])
    torch.testing.assert_close(active, F.elu(torch.cat([gated, -gated], dim=1)), rtol=DTYPES[dtype], atol=DTYPES[dtype])
    if more:
        assert torch.equal(kept[places], active)


def test_far_from_zero_rows_stay_finite(kernels):
    x = torch.tensor([[-1e4, -90.0, -0.0, 0.0, 90.0, 1e4]])
    gated, active = kernels.gate(x, torch.cat([x, -x], dim=1), None, torch.zeros(1, dtype=torch.int64))
    torch.testing.assert_close(gated, x + x * (-x).sigmoid())
    assert torch.isfinite(active).all()


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


def test_rows_that_lie_apart_are_refused(kernels):
    apart = torch.zeros(4, 6)[:, ::2]
    with pytest.raises(RuntimeError, match="contiguous"):
        kernels.put_elu(apart, None, torch.zeros(4, 6), torch.arange(4))
    with pytest.raises(RuntimeError, match="no place 4"):
        kernels.put_elu(torch.zeros(2, 3), None, torch.zeros(4, 6), torch.tensor([0, 4]))
    with pytest.raises(RuntimeError, match="rows must be 4 x 6"):
        kernels.gate(torch.zeros(4, 3), torch.zeros(4, 5), None, torch.arange(4))
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
    assert operations.ran["gate"] == operations.ran["put_elu"] > 100


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
                assert kernels_for(torch.zeros(1)) is None
            assert kernels_for(torch.zeros(1)) is not None
            assert kernels_for(torch.zeros(1, dtype=torch.bfloat16)) is None
        assert kernels_for(torch.zeros(1)) is None
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
    names = ("rows_between_products_are_those_of_torch", "attention_is_that_of_torch")
    tests = [f"{__file__}::test_{name}" for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    assert len(list((tmp_path / "arm_core").iterdir())) == 1


@pytest.mark.slow
def test_two_processes_that_compile_at_once_both_get_the_kernels(tmp_path):
    code = "import torch; from arm_core.native import native_kernels, kernels_for\n"
    code += "with native_kernels(): print(kernels_for(torch.zeros(1)).gate.default._schema.name)"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in started] == ["arm_core::gate"] * 2
    assert len(list((tmp_path / "arm_core").iterdir())) == 1
