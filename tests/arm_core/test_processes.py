"""Several processes share the slots of a stream: the same samples, in their order, whatever is asked of it."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arm_core import InputError, Layout, sample_many, top_k
from arm_core.arms import Guided, PixelCNN, PixelCNNConfig
from arm_core.forecasters import fixed_point
from arm_core.samplers.processes import shares_of
from arm_core.testing import randomise
from tests.conftest import TableArm, needs_compiler


def labelled():
    arm = PixelCNN(Layout(1, 8, 8, 3), PixelCNNConfig(resnets=1, filters=6, classes=3)).double()
    randomise(arm, scale=0.25)
    return arm


@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 9))
def test_shares_are_even_and_leave_nothing_out(count, slots, processes):
    shares = shares_of(count, slots, processes)
    assert len(shares) == min(count, slots, processes)
    assert [row for rows, _ in shares for row in rows] == list(range(count))
    assert sum(share for _, share in shares) == slots
    for sizes in ([len(rows) for rows, _ in shares], [share for _, share in shares]):
        assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 1


def test_samples_are_those_of_one_process():
    arm = labelled()
    guided = Guided(arm, scale=2.0, null_context=-1)
    prefix = torch.randint(3, (5, 8), generator=torch.Generator().manual_seed(0))
    asked = [
        dict(count=5, window=None, first_id=7, context=torch.tensor([0, 1, 2, -1, 0]), prefix=prefix),
        dict(
            count=3, window=8, forecaster=lambda state: fixed_point(state), logits_processor=top_k(2), prefix=prefix[0]
        ),
        dict(count=4, window=1, end=0, temperature=0.7, certified=True),
    ]
    for options in asked:
        one, three = (sample_many(guided, seed=3, slots=4, processes=processes, **options) for processes in (1, 3))
        assert torch.equal(one.x, three.x)
        if options["window"] is not None:
            assert torch.equal(one.arm_calls, three.arm_calls)


def test_fewer_samples_or_slots_than_processes_are_no_fault():
    arm = labelled()
    assert len(sample_many(arm, count=0, seed=0, slots=2, processes=2).x) == 0
    expected = sample_many(arm, count=2, seed=0, slots=1).x
    assert torch.equal(sample_many(arm, count=2, seed=0, slots=1, processes=4).x, expected)
    assert torch.equal(sample_many(arm, count=2, seed=0, slots=8, processes=4).x, expected)


def test_errors_of_a_process_and_its_end_are_told():
    arm = TableArm(Layout(1, 3, 3, 4))
    parent = os.getpid()

    def floats(state):
        return state.x * 0.5

    def stuck(state):
        if os.getpid() != parent and state.x.shape[0] == 1:
            time.sleep(60)
        raise KeyError("drafts", 2)

    def killed(state):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return state.x

    with pytest.raises(InputError, match="a forecaster must return integers"):
        sample_many(arm, count=4, seed=0, slots=4, forecaster=floats, processes=2)
    with pytest.raises(InputError, match="one of 2 processes ended before its samples were done"):
        sample_many(arm, count=4, seed=0, slots=4, forecaster=killed, processes=2)
    started = time.monotonic()
    with pytest.raises(RuntimeError, match=r"(?s)one of 2 processes failed:.*KeyError: \('drafts', 2\)"):
        sample_many(arm, count=3, seed=0, slots=3, forecaster=stuck, processes=2)
    assert time.monotonic() - started < 30, "the other one is ended"
    with pytest.raises(InputError, match="processes must be a whole number of at least 1, got 0"):
        sample_many(arm, count=4, seed=0, slots=4, processes=0)
    assert len(sample_many(arm, count=4, seed=0, slots=4, processes=2).x) == 4


def test_two_threads_may_draw_at_once():
    arm, found = TableArm(Layout(1, 3, 3, 4)), {}

    def draw(seed):
        found[seed] = sample_many(arm, count=6, seed=seed, slots=4, processes=2).x

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        assert torch.equal(found[seed], sample_many(arm, count=6, seed=seed, slots=4).x)


AFTER_THREADS = """
import torch
torch.set_num_threads(2)
torch.randn(900, 900) @ torch.randn(900, 900)  # threads that are not there after a fork
from arm_core import load_arm, sample_many
from arm_core.native import native_kernels
arm = load_arm("results/checkpoint")
with native_kernels({native}):
    one, two = (sample_many(arm, count=6, seed=0, slots=6, processes=processes).x for processes in (1, 2))
print(torch.equal(one, two))
"""


@pytest.mark.slow
@pytest.mark.parametrize("native", [False, pytest.param(True, marks=needs_compiler)])
def test_processes_of_a_program_that_has_used_threads(native):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    code = AFTER_THREADS.format(native=native)
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert ran.stdout.strip() == "True", ran.stderr


@pytest.mark.slow
def test_a_parent_that_is_killed_takes_its_processes_with_it():
    code = (
        "import os, time\nfrom arm_core import Layout, sample_many\nfrom tests.conftest import TableArm\n"
        "def slow(state):\n    print(os.getpid(), flush=True)\n    time.sleep(600)\n"
        "sample_many(TableArm(Layout(1, 2, 2, 2)), count=2, seed=0, slots=2, forecaster=slow, processes=2)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    children = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(is_running(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(child) for child in children)


def is_running(process):
    try:
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
