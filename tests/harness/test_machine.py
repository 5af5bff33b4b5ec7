"""What is recorded of the machine, and when a repetition counts as disturbed."""

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from harness.jobs import machine
from harness.jobs.timing import _busy


def test_the_clock_and_the_running_processes_of_the_cpus_are_read(tmp_path):
    (tmp_path / "cpuinfo").write_text("cpu MHz\t\t: 2000.0\nmodel name : x\ncpu MHz\t\t: 3000.0\n")
    (tmp_path / "loadavg").write_text("0.50 0.60 0.70 3/512 4242\n")
    assert machine._cpu_state(tmp_path) == {"clock_mhz": 2500.0, "device_processes": 2}
    assert machine._cpu_state(tmp_path / "nowhere") == {"clock_mhz": None, "device_processes": None}


SMI = """#!/bin/sh
case "$*" in
  *clocks.sm*) echo 1531 ;;
  *compute-apps*) printf '{own}\\n77\\n' ;;
esac
"""


def test_the_clock_of_the_gpu_and_other_processes_on_it_are_asked_from_its_driver(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text(SMI.replace("{own}", str(os.getpid())))
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid="1-2"))
    assert machine._gpu_state() == {"clock_mhz": 1531.0, "device_processes": 1}
    smi.write_text("#!/bin/sh\nexit 1\n")
    assert machine._gpu_state() == {"clock_mhz": None, "device_processes": None}


@pytest.mark.parametrize(
    ("before", "after", "wall_s", "busy"),
    [(10.0, 10.1, 1.0, False), (10.0, 10.5, 1.0, True), (10.0, 10.5, 0.1, None), (None, None, 1.0, None)],
)
def test_a_repetition_is_busy_when_others_used_a_share_of_a_core_meanwhile(before, after, wall_s, busy):
    assert _busy(before, after, wall_s) is busy


FREED = """
import resource
import threading
import torch
from harness.jobs.machine import keep_freed_memory
{keep}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [torch.zeros(2**20) for _ in range(40)]  # 160 MiB
    del pieces
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def turns(most):
    most.append(max([faults() for _ in range(12)][6:]))
most = []
{turns}
print(*most)
"""
TURNS = ("turns(most)", "thread = threading.Thread(target=turns, args=(most,)); thread.start(); thread.join()")


@pytest.mark.slow
@pytest.mark.parametrize("turns", TURNS, ids=["main", "thread"])  # Tune trains in a thread
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the allocator is not that of glibc")
def test_memory_that_a_step_frees_is_there_for_the_next_one(turns):
    """A fault a page, 4 KiB, is what it costs otherwise: always with small limits, by chance with those of glibc."""
    limits = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    given, kept = (
        int(subprocess.run([sys.executable, "-c", code], env=limits, capture_output=True, check=True).stdout)
        for code in (FREED.format(keep=keep, turns=turns) for keep in ("", "keep_freed_memory()"))
    )
    assert kept < 3000 < given


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="peak memory is reset on Linux only")
def test_peak_memory_is_that_of_the_job_and_not_of_an_earlier_one_in_the_process():
    code = """
import torch
from harness.jobs.machine import forget_peak_memory, keep_freed_memory, peak_memory
keep_freed_memory()
cpu, peaks = torch.device("cpu"), []
for mebibytes in (1, 256, 1, 128):
    forget_peak_memory()
    held = [torch.ones(2**18) for _ in range(mebibytes)]
    peaks.append(peak_memory(cpu))
    del held
print(*peaks)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    first, large, again, half = (int(peak) / 2**20 for peak in said.split())
    assert large > first + 200 and again < first + 64 and first + 96 < half < large - 64


@pytest.mark.skipif(machine.other_cpu_seconds() is None, reason="nobody counts CPU time here")
def test_cpu_time_of_processes_that_were_waited_for_is_not_that_of_others(monkeypatch):
    counted = []
    for used in ((0.0, 0.0, 0.0, 0.0, 9.0), (100.0, 200.0, 300.0, 400.0, 9.0)):
        monkeypatch.setattr(machine.os, "times", lambda used=used: os.times_result(used))
        counted.append(machine.other_cpu_seconds())
    assert 990 < counted[0] - counted[1] <= 1000
