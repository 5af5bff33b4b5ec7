"""What may go wrong while a sweep runs, and that nothing is lost by it; docs/faults.md names these tests."""

import errno
import os
import resource
import shlex
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from arm_core import InputError, atomic
from arm_core import checkpoint as checkpoints
from harness.cli import main
from harness.commands.sweep import SweepCommand
from harness.jobs import job_folder, lease, run_job
from harness.jobs.log import Log, last_lines
from harness.jobs.progress import Reporter
from harness.store import Store, sealed
from harness.store import store as tables
from harness.sweep import load_sweep, make_plan

QUICK = "resources: {train: {threads: 1}, timing: {threads: 1}}\n"


@pytest.fixture
def training_only(small_sweep):
    """A sweep of one training of a few steps, which saves its state at every second one."""
    small_sweep.write_text(small_sweep.read_text().split("timing:")[0] + QUICK)
    return small_sweep


def job_of(file):
    return make_plan(load_sweep(file), {}).jobs[0].job


def sweep(file, store):
    return CliRunner().invoke(main, ["sweep", str(file), "--store", str(store), "--serial"])


def weights(store):
    return {file.name: file.read_bytes() for file in store.glob("jobs/*/checkpoint/*.safetensors")}


@pytest.mark.slow
def test_a_full_disk_at_a_checkpoint_is_a_failed_row_and_the_next_run_ends_the_training(
    training_only, tmp_path, monkeypatch
):
    text = training_only.read_text().replace(
        "evaluate_every: 2, checkpoint_every: 2", "evaluate_every: 4, checkpoint_every: 1"
    )
    training_only.write_text(text)
    sweep(training_only, tmp_path / "whole")
    write, written = checkpoints.write_atomic, []

    def out_of_room(place, data, **options):
        written.append(place)
        if len(written) > 3:  # weights and manifest of the first state are there, then half of the second
            raise OSError(errno.ENOSPC, "No space left on device")
        write(place, data)

    monkeypatch.setattr(checkpoints, "write_atomic", out_of_room)
    full = sweep(training_only, tmp_path / "full")
    assert full.exit_code == 1 and "No space left on device" in full.output and "log.txt" in full.output
    row = Store(tmp_path / "full").read("trials").iloc[0]
    assert row["status"] == "failed" and "No space left" in row["error"]
    assert (tmp_path / "full" / row["log"]).exists() and "OSError" in row["log_tail"]
    monkeypatch.undo()
    again = sweep(training_only, tmp_path / "full")
    assert again.exit_code == 0 and "failed before" in again.output, again.output
    assert weights(tmp_path / "full") == weights(tmp_path / "whole")
    curves = [Store(tmp_path / name).read("curves").set_index("step") for name in ("full", "whole")]
    assert curves[0].index.tolist() == [4]
    assert curves[0]["train_bits_per_dim"].tolist() == curves[1]["train_bits_per_dim"].tolist(), "of all four steps"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trials.parquet", "done.json"])
def test_a_full_disk_at_a_table_ends_the_sweep_with_the_line_that_goes_on(training_only, tmp_path, monkeypatch, name):
    write = atomic.write_atomic

    def out_of_room(place, data, **options):
        if place.name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(place, data, **options)

    for module in (tables, sealed):
        monkeypatch.setattr(module, "write_atomic", out_of_room)
    full = sweep(training_only, tmp_path / "store")
    assert full.exit_code == 2 and "there is no room left for the store" in full.output
    line = SweepCommand(training_only, tmp_path / "store", serial=True).line()
    assert line in full.output.replace("\n", " ")
    assert Store(tmp_path / "store").read("trials").empty
    monkeypatch.undo()
    steps = []
    monkeypatch.setattr(Reporter, "update", lambda self, step, total, **rest: steps.append(step))
    again = CliRunner().invoke(main, shlex.split(line)[1:])
    assert again.exit_code == 0, again.output
    assert 3 not in steps, "its last state was whole, no step is taken again"
    assert len(Store(tmp_path / "store").read("trials")) == 1
    sweep(training_only, tmp_path / "whole")
    assert weights(tmp_path / "store") == weights(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("most_bytes", [200, 4_000, 20_000])
def test_files_that_may_not_grow_are_told_without_a_traceback_and_lose_nothing(training_only, tmp_path, most_bytes):
    """The same with real failing writes, of a process that may only write small files."""

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    command = [
        sys.executable,
        "-m",
        "harness",
        "sweep",
        str(training_only),
        "--store",
        str(tmp_path / "full"),
        "--serial",
    ]
    told = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited, check=False)
    assert told.returncode in (1, 2), told.stdout + told.stderr
    assert "Traceback" not in told.stdout + told.stderr and "File too large" in (told.stdout + told.stderr)
    again = sweep(training_only, tmp_path / "full")
    assert again.exit_code == 0, again.output
    sweep(training_only, tmp_path / "whole")
    assert weights(tmp_path / "full") == weights(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "stop"),
    [
        ("--serial", signal.SIGINT),
        ("--serial", signal.SIGTERM),
        pytest.param("--no-dashboard", signal.SIGINT, marks=pytest.mark.ray),
        pytest.param("--no-dashboard", signal.SIGTERM, marks=[pytest.mark.ray, pytest.mark.nightly]),
    ],
)
def test_a_sweep_that_is_stopped_keeps_what_it_has_and_prints_the_line_that_goes_on(
    training_only, tmp_path, option, stop, sample_data
):
    training_only.write_text(training_only.read_text().replace("iterations: 4", "iterations: 2000"))
    store, folder = tmp_path / "store", job_folder(tmp_path / "store", job_of(training_only).id)
    command = [sys.executable, "-m", "harness", "sweep", str(training_only), "--store", str(store), option]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    while not (folder / "state-0" / "manifest.json").exists() and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, stop)  # all processes of a terminal, or of a batch job
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 130, said
    serial = option == "--serial"
    line = SweepCommand(training_only, store, serial=serial).line()
    assert f"What was finished is kept. To go on: {line}" in said and "Traceback" not in said
    assert list(folder.glob("state-?/manifest.json"))


@pytest.mark.slow
def test_a_second_sweep_on_a_store_is_refused_and_the_first_goes_on(training_only, tmp_path):
    with Store(tmp_path).locked():
        second = sweep(training_only, tmp_path)
    assert second.exit_code == 2 and "another sweep is writing to the store" in second.output
    assert not list(tmp_path.glob("jobs/*")) and not list(tmp_path.glob("sweeps/*"))
    assert sweep(training_only, tmp_path).exit_code == 0


def test_a_process_whose_job_was_taken_over_writes_nothing_more(training_only, tmp_path, monkeypatch):
    job = job_of(training_only)
    folder = job_folder(tmp_path, job.id)

    def cut_off(metrics):
        (folder / lease.FILE).write_text("elsewhere 17 x")  # another node takes the job after the first validation

    with pytest.raises(lease.SupersededError, match="was taken over by the process elsewhere 17"):
        run_job(job, tmp_path, threads=1, report=cut_off)
    assert Store(tmp_path).done(job.id) is None and not (folder / "checkpoint").exists()
    assert not list(folder.glob("state-*/manifest.json")), "nor a state of the steps after that"
    assert (folder / lease.FILE).read_text() == "elsewhere 17 x"
    assert run_job(job, tmp_path, threads=1) == "done"


def test_a_folder_belongs_to_whoever_took_it_last(tmp_path):
    lease.check(tmp_path)
    lease.take(tmp_path)
    lease.check(tmp_path)


def test_neither_the_log_nor_the_progress_can_end_a_job(tmp_path):
    gone = tmp_path / "gone"
    print("a line", file=Log(gone))
    Reporter(gone, "a", "train", "t", unit="iterations").update(1, 2)
    assert not gone.exists() and last_lines(gone / "log.txt") is None


def test_the_last_lines_of_a_long_log_are_kept(tmp_path):
    log = Log(tmp_path)
    for number in range(10_000):
        print(f"line {number}", file=log)
    assert last_lines(tmp_path / "log.txt") == "\n".join(f"line {number}" for number in range(9_988, 10_000))


def test_a_path_in_a_sweep_file_cannot_leave_the_store(small_sweep, tmp_path):
    small_sweep.write_text(small_sweep.read_text().replace("name: small", "name: ../../escaped"))
    with pytest.raises(InputError, match="name: "):
        load_sweep(small_sweep)
