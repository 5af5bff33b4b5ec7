"""`harness doctor` names what does not work, with its remedy."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.commands import doctor

Usage = namedtuple("Usage", "total used free")


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_this_machine_can_run(tmp_path):
    result = run("doctor", "--store", tmp_path / "runs")
    assert result.exit_code == 0 and "FAIL" not in result.output
    assert all(f"ok   {what}" in result.output for what in ("Python", "torch", "ray", "fonts", "data"))


def test_the_version_names_torch_ray_and_the_device():
    result = run("--version")
    assert result.exit_code == 0
    assert all(word in result.output for word in ("Python 3.", "torch 2.", "ray 2."))
    assert "CPU" in result.output or "NVIDIA" in result.output


def test_a_package_that_cannot_be_imported_fails_with_what_installs_it(monkeypatch, tmp_path):
    real = doctor.importlib.import_module

    def broken(name):
        if name == "pyarrow":
            raise OSError("libarrow.so: cannot open shared object file")
        return real(name)

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    result = run("doctor", "--store", tmp_path)
    assert result.exit_code == 1
    assert "FAIL pyarrow" in result.output and "libarrow.so" in result.output
    assert "pip install -c constraints.txt pyarrow" in result.output


def test_little_shared_memory_and_a_full_disk_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: Usage(2**40, 0, 2**26))
    result = run("doctor", "--store", tmp_path)
    assert result.exit_code == 0  # it runs with --serial
    for remedy in ("--shm-size=1g", "make room for at least 2 GiB"):
        assert remedy in result.output


@pytest.mark.parametrize(("asked", "said"), [("4096", "unset OMP_NUM_THREADS"), ("1", "")])
def test_more_threads_than_cpus_are_named(asked, said, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    (found,) = doctor.threads(Path("runs"), None)
    assert said in found.remedy and bool(found.remedy) == bool(said)


def test_a_driver_without_a_torch_that_can_use_it_is_named(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    (found,) = doctor.gpu(Path("runs"), None)
    assert "this torch has no CUDA" in found.remedy


@pytest.mark.parametrize(("capability", "fits"), [((6, 1), False), ((8, 6), True), ((12, 0), True)])
def test_a_gpu_that_torch_has_no_kernels_for_is_named(capability, fits, monkeypatch):
    """Compared as numbers: sm_61 is older than sm_100, and sm_120 newer."""
    import torch

    for name, answer in {"is_available": True, "get_device_capability": capability, "get_device_name": "a GPU"}.items():
        monkeypatch.setattr(torch.cuda, name, lambda answer=answer: answer)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120"])
    (found,) = doctor.gpu(Path("runs"), None)
    assert bool(found.remedy) != fits


def test_no_data_at_all_names_the_two_ways_to_get_some(monkeypatch, tmp_path):
    from harness.commands import data

    monkeypatch.setattr(data, "holdings", lambda root: [data.Holding("mnist", "missing", 0, [])])
    (found,) = doctor.data(tmp_path, None)
    assert "[samples]" in found.remedy and "harness data fetch" in found.remedy


def test_a_missing_compiler_is_told_by_what_needs_it(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    (found,) = doctor.compiler(Path("runs"), None)
    assert found.found == "no no-such-compiler" and "--native" in found.remedy and not found.blocks
