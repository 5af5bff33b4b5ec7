"""ARMs small enough to be understood whole, and the settings of hypothesis."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; torch reads it when it is imported

# isort: split
import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor

from arm_core import ArmOutput, AutoregressiveModel, InputError, Layout
from arm_core.contracts import SpanOutput
from arm_core.data import load_dataset
from arm_core.decision import Decision
from arm_core.gumbel import DenseNoise
from arm_core.native import compiler
from arm_core.samplers.step import step
from arm_core.samplers.work import WholeImages, Work

settings.register_profile(
    "fixed",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("fixed")


def pytest_xdist_auto_num_workers(config):
    """Tests run side by side, but not those with Ray: they want all cores and share one Ray. `-n 0` to debug one."""
    return min(os.cpu_count() or 1, 4) if "not ray" in config.option.markexpr else 0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Shapes are checked in all tests but slow ones, whose time it would double; in those at night, by CHECK_SHAPES."""
    slow = item.get_closest_marker("slow") is not None
    jaxtyping.config.update("jaxtyping_disable", slow and "CHECK_SHAPES" not in os.environ)


needs_compiler = pytest.mark.skipif(not compiler(), reason="native kernels need a C++ compiler; install g++")


class ConstantArm(AutoregressiveModel):
    """The same logits everywhere, whatever came before; no parameters."""

    def __init__(self, layout: Layout, logits: Tensor) -> None:
        super().__init__(layout, 0)
        self.logits = logits

    def forward(self, x: Tensor) -> ArmOutput:
        logits = self.logits.expand(len(x), self.layout.dims, -1)
        return ArmOutput(logits, logits[..., :0])


class TableArm(AutoregressiveModel):
    """logits_i = sum over j < i of a random table[i, j, x_j]: every later dimension depends on every earlier one."""

    def __init__(self, layout: Layout, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__(layout, 0)
        d, k = layout.dims, layout.categories
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(d, d, k, k, generator=generator, dtype=torch.float64) * scale
        self.register_buffer("table", table * torch.ones(d, d).tril(-1)[:, :, None, None])

    def forward(self, x: Tensor) -> ArmOutput:
        hot = torch.nn.functional.one_hot(x, self.layout.categories).to(self.table.dtype)
        logits = torch.einsum("ijvk,bjv->bik", self.table, hot)
        return ArmOutput(logits, logits[..., :0])


class SpanTableArm(TableArm):
    """A TableArm that evaluates spans, and holds the samplers to what they promise a `SpanCache`."""

    def __init__(self, layout: Layout, granule: int, seed: int = 0) -> None:
        super().__init__(layout, seed)
        self.granule = granule

    def span_cache(self, slots: int, window: int) -> "TableSpans":
        return TableSpans(self, slots, window)


class TableSpans:
    """Remembers what every dimension was last evaluated with; a new sample forgets that of its slot."""

    def __init__(self, arm: SpanTableArm, slots: int, window: int) -> None:
        dims = arm.layout.dims
        self.arm, self.granule = arm, arm.granule
        self.window = min(-(-window // arm.granule) * arm.granule, dims)
        self.earlier = torch.ones(dims, dims, dtype=torch.bool).tril(-1)  # (dimension, those before it)
        self.read = torch.full((slots, dims, dims), -1)

    def evaluate(self, x: Tensor, start: Tensor, stop: Tensor) -> SpanOutput:
        dims = self.arm.layout.dims
        places = torch.arange(dims)
        assert ((start % self.granule == 0) | (start == dims)).all()
        assert ((stop - start) <= self.window).all() and (start <= stop).all() and (stop <= dims).all()
        self.read[(start == 0) & (stop > 0)] = -1
        now = torch.where(self.earlier, x[:, None, :], 0)
        before = (places < start[:, None]) & (start < stop)[:, None]
        seen = torch.where(self.earlier, self.read, 0)
        assert torch.equal(seen[before], now[before]), "a dimension before the span was evaluated with other inputs"
        spanned = (places >= start[:, None]) & (places < stop[:, None])
        self.read = torch.where(spanned[:, :, None], now, self.read)
        output = self.arm(x)
        index = spanned.flatten().nonzero().flatten()
        work = len(index) / dims
        return SpanOutput(index, output.logits.flatten(0, 1)[index], output.hidden.flatten(0, 1)[index], work)


class ContextArm(SpanTableArm):
    """A SpanTableArm whose logits also depend on a context: a number, or several (of which the sum counts)."""

    KINDS = 5

    def __init__(self, layout: Layout, granule: int = 1, seed: int = 0) -> None:
        super().__init__(layout, granule, seed)
        generator = torch.Generator().manual_seed(seed + 1)
        bias = torch.randn(self.KINDS, layout.dims, layout.categories, generator=generator, dtype=torch.float64)
        self.register_buffer("bias", 2 * bias)

    def forward(self, x: Tensor, context: object = None) -> ArmOutput:
        logits, hidden = super().forward(x)
        if context is not None:
            kinds = [int(torch.as_tensor(one).sum()) % self.KINDS for one in context]
            logits = logits + self.bias[kinds]
        return ArmOutput(logits, hidden)

    def span_cache(self, slots: int, window: int) -> "ContextSpans":
        return ContextSpans(self, slots, window)

    def example_contexts(self, count: int) -> Tensor:
        return torch.arange(count) + 1


class ContextSpans(TableSpans):
    """Remembers the context of each slot until the next one begins."""

    def __init__(self, arm: ContextArm, slots: int, window: int) -> None:
        super().__init__(arm, slots, window)
        self.contexts: list[object] = [None] * slots

    def begin(self, slots: list[int], contexts: object) -> None:
        for slot, context in zip(slots, contexts, strict=True):
            self.contexts[slot] = context

    def evaluate(self, x: Tensor, start: Tensor, stop: Tensor) -> SpanOutput:
        where, logits, hidden, work = super().evaluate(x, start, stop)
        slot, dim = where // self.arm.layout.dims, where % self.arm.layout.dims
        for row, (s, d) in enumerate(zip(slot.tolist(), dim.tolist(), strict=True)):
            if self.contexts[s] is not None:
                logits[row] += self.arm.bias[int(torch.as_tensor(self.contexts[s]).sum()) % self.arm.KINDS, d]
        return SpanOutput(where, logits, hidden, work)


def work_of(arm, noise, forecaster, *, cache=None):
    """The samples of some noise in work, one a slot; on whole images without a cache."""
    work = Work(arm, len(noise), cache or WholeImages(arm), forecaster, DenseNoise(noise), Decision())
    rows = list(range(len(noise)))
    work.begin(rows, rows)
    return work


def finish(work):
    """Take all samples on until they are finished."""
    while not all(work.finished()):
        step(work, *work.spans())
    return work


@pytest.fixture(scope="session")
def sample_data():
    """Skip where the packages with sample images are missing; fail there in CI."""
    try:
        for name in ("mnist5k", "digits", "photo_patches"):
            load_dataset(name)
    except InputError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def debian_fashion_mnist() -> Path:
    """The folder of Debian's package `dataset-fashion-mnist`; skip without it, fail where CI is set."""
    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.is_dir():
        message = f"{folder} is missing; apt-get install dataset-fashion-mnist"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder
