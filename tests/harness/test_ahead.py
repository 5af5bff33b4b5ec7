"""The process in reserve: asked for when it helps, there before its training, and nobody's trouble when Ray refuses."""

import contextlib
import importlib.util
import os
import time
from pathlib import Path

import pytest

from harness.execution.background import repeating
from harness.jobs import job_folder
from harness.jobs.machine import available_cpus
from harness.jobs.progress import read_progress
from harness.store import Store
from harness.sweep import load_sweep, make_plan


@pytest.fixture
def ahead():
    from harness.execution import cluster  # noqa: F401 - it sets what ray reads when it is imported

    # isort: split
    from harness.execution import ahead

    return ahead


@pytest.fixture
def asked(ahead, monkeypatch):
    """What was asked for."""
    asked = []
    monkeypatch.setattr(ahead, "start_ahead", lambda: asked.append(1))
    return asked


def test_one_process_is_in_reserve_while_trainings_wait(ahead, asked):
    reserve, counts = ahead.Ahead(at_once=3), []
    for left in (6, 6, 6, 5, 4, 3):  # three start together, in processes of Ray; then one at a time
        reserve.started(left)
        counts.append(len(asked))
    assert counts == [1, 1, 1, 2, 3, 3]


@pytest.mark.parametrize("at_once", [1, 2, 16])
def test_trainings_that_all_fit_ask_for_nothing(ahead, asked, at_once):
    reserve = ahead.Ahead(at_once)
    for _ in range(at_once):
        reserve.started(left=at_once)
    assert asked == []


def test_nothing_is_asked_of_a_ray_that_is_not_ours(ahead, asked):
    ahead.Ahead(None).started(left=5)
    assert asked == []


def test_a_ray_that_refuses_is_not_asked_again(ahead, asked, monkeypatch):
    def refuse():
        asked.append(1)
        raise AttributeError("another Ray")

    monkeypatch.setattr(ahead, "start_ahead", refuse)
    reserve = ahead.Ahead(at_once=1)
    reserve.started(left=3)
    reserve.started(left=2)
    assert len(asked) == 1


def test_what_is_imported_ahead_is_there(ahead):
    for module in ahead.SETTINGS["RAY_preload_python_modules"].split(","):
        assert importlib.util.find_spec(module), module


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads when a process began from Linux's /proc")
def test_the_second_training_runs_in_a_process_that_was_there_before_the_first_ended(
    local_ray, tmp_path, sample_data, capfd
):
    file = tmp_path / "pair.yaml"
    file.write_text(
        "name: pair\ndatasets: {digits: {}}\nvariants: {default: {arm: {resnets: 1, filters: 4}}}\n"
        "training: {iterations: 150, batch_size: 8, evaluate_every: 150, checkpoint_every: 150, seeds: [0, 1]}\n"
        f"resources: {{train: {{cpus: {available_cpus()}}}}}\n"
    )
    sweep, store, began = load_sweep(file), Store(tmp_path / "store"), {}
    plan = make_plan(sweep, {})
    folders = [job_folder(store.root, planned.job.id) for planned in plan.jobs]

    def look():
        for progress in filter(None, map(read_progress, folders)):
            if progress.state == "running" and progress.pid not in began:
                with contextlib.suppress(FileNotFoundError):  # it has just ended
                    began[progress.pid] = process_began(progress.pid)

    with repeating(look, 0.05):
        assert local_ray.execute(plan, store, sweep.resources, ahead=True).done == 2
    trials = store.read("trials", columns=["started_at", "wall_s"]).sort_values("started_at")
    first_ended = trials["started_at"].iloc[0].timestamp() + trials["wall_s"].iloc[0]
    assert len(began) == 2
    assert max(began.values()) < first_ended <= trials["started_at"].iloc[1].timestamp()
    assert "Trial" not in "".join(capfd.readouterr()), "Tune says that a trial without reports has ended"


def process_began(pid):
    """In seconds since the epoch."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
