import io
import json
import os
import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import asdict, replace

import pytest
from rich.console import Console

from arm_core import Layout, save_arm
from arm_core.arms import PixelCNN, PixelCNNConfig
from harness.execution.monitor import MOST_SILENT_S, STALE_S, describe, duration, status_table, watching
from harness.jobs import checkpoint_of, job_folder
from harness.jobs.progress import Progress
from harness.store import Store
from harness.sweep import load_sweep, make_plan
from tests.harness.rows import trial_row


def progress(**changes):
    now = Progress(
        job="a", kind="train", title="digits seed 0", state="running", step=30, total=120, unit="iterations", note="",
        metrics={"bits/dim": 1.234567, "it/s": 20.0}, seconds_left=200.0, updated_at=time.time(), started_at=time.time(),
        host=os.uname().nodename, pid=os.getpid(),
    )  # fmt: skip
    return replace(now, **changes)


def write(store, item):
    folder = job_folder(store.root, item.job)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "progress.json").write_text(json.dumps(asdict(item)))


def table_of(store):
    record = {"jobs": [{"id": "a", "kind": "train", "title": "digits [/seed] 0"}]}
    out = io.StringIO()
    Console(file=out, width=200, markup=False).print(status_table(store, "q", record))
    assert "digits [/seed] 0" in out.getvalue()
    return out.getvalue()


def shown(store, item, state=None):
    """The table of a job that says this of itself and ended so."""
    write(store, item)
    store.forget("a")
    if state is not None:
        store.write_job("a", {"trials": [trial_row(job="a", status=state)]})
    return table_of(store)


def test_a_line_says_what_how_far_how_well_and_how_long_still():
    assert describe(progress()) == "train digits seed 0: 30/120 bits/dim 1.23, it/s 20, 3 min 20 s left"
    assert describe(progress(state="done", metrics={})) == "train digits seed 0: 30/120 done"


@pytest.mark.parametrize(("seconds", "text"), [(42.4, "42 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_durations_are_said_as_people_do(seconds, text):
    assert duration(seconds) == text


def test_status_tells_running_from_stopped_failed_done_and_waiting(tmp_path):
    store = Store(tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert "running" in shown(store, progress())
    assert "stopped" in shown(store, progress(pid=ended.pid))
    silent = time.time() - STALE_S - 1
    assert "running" in shown(store, progress(updated_at=silent)), "a long validation, and the process is there"
    assert "stopped" in shown(store, progress(updated_at=time.time() - MOST_SILENT_S - 1))
    assert "running" in shown(store, progress(host="elsewhere", pid=ended.pid))
    assert "stopped" in shown(store, progress(host="elsewhere", updated_at=silent))
    assert "log.txt" in shown(store, progress(state="failed"), "failed")
    assert "done" in shown(store, progress(state="done"), "done")
    (job_folder(store.root, "a") / "trials.parquet").unlink()
    assert "lost" in table_of(store)
    (job_folder(store.root, "a") / "done.json").write_text("{")
    assert "damaged" in table_of(store)
    for name in ("done.json", "progress.json"):
        (job_folder(store.root, "a") / name).unlink()
    assert "waiting" in table_of(store)


def test_status_says_how_good_a_trained_arm_is_and_where_it_lies(tmp_path):
    store, arm = Store(tmp_path), PixelCNN(Layout(1, 4, 4, 2), PixelCNNConfig(resnets=1, filters=4))
    shown(store, progress(state="done"), "done")
    save_arm(arm, checkpoint_of(tmp_path, "a"), metadata={"valid_bits_per_dim": 1.23456})
    assert f"1.235 bits/dim, {checkpoint_of(tmp_path, 'a')}" in table_of(store)


def test_a_bar_shows_text_that_looks_like_markup_as_it_stands(small_sweep, tmp_path):
    plan, out = make_plan(load_sweep(small_sweep), {}), io.StringIO()
    note = "RuntimeError: cannot open [/data/images] as list[int] {x}"
    with watching(plan, tmp_path, Console(file=out, width=200, force_terminal=True, markup=False)):
        write(Store(tmp_path), progress(job=plan.jobs[0].job.id, state="failed", title="[/a] {b}", note=note))
        time.sleep(1.2)
    assert note in out.getvalue() and "[/a] {b}" in out.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_on_a_narrow_terminal_names_and_figures_are_whole(small_sweep, tmp_path, width):
    plan, out = make_plan(load_sweep(small_sweep), {}), io.StringIO()
    figures = {"train_bits_per_dim": 2.345, "valid_bits_per_dim": 2.5}
    with watching(plan, tmp_path, Console(file=out, width=width, force_terminal=True, color_system=None, markup=False)):
        write(Store(tmp_path), progress(job=plan.jobs[0].job.id, title="photos narrow seed 0", metrics=figures))
        time.sleep(1.2)
    shown = " ".join(out.getvalue().split())
    assert "train photos narrow seed 0" in shown and "…" not in shown
    for text in ("train_bits_per_dim", "2.35", "valid_bits_per_dim"):
        assert text in shown


def test_without_a_terminal_a_line_is_printed_per_job_and_state(small_sweep, tmp_path):
    plan = make_plan(load_sweep(small_sweep), {})
    store, out = Store(tmp_path), io.StringIO()
    ids = [planned.job.id for planned in plan.jobs]
    write(store, progress(job=ids[1], updated_at=0.0))  # of an earlier run: not shown
    with watching(plan, tmp_path, Console(file=out, width=200)):
        write(store, progress(job=ids[0]))
        time.sleep(1.2)
        write(store, progress(job=ids[0], state="done", step=120))
    lines = out.getvalue().splitlines()
    assert lines == [describe(progress()), describe(progress(state="done", step=120))]


def test_a_job_in_this_process_does_not_take_the_lines_of_the_screen_for_its_log(small_sweep, tmp_path, capsys):
    plan, log, console = make_plan(load_sweep(small_sweep), {}), io.StringIO(), Console(width=200)
    with watching(plan, tmp_path, console), redirect_stdout(log):
        write(Store(tmp_path), progress(job=plan.jobs[0].job.id))
        time.sleep(1.2)
    assert capsys.readouterr().out.splitlines() == [describe(progress())] and log.getvalue() == ""
    with redirect_stdout(log):
        console.print("afterwards")
    assert log.getvalue() == "afterwards\n"
