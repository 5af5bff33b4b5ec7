"""The process in reserve: asked for when it helps, there before its training, and nobody's trouble when Ray refuses."""

import os
import time
from pathlib import Path

import pytest

from harness.execution.background import repeating
from harness.execution.placement import Request
from harness.jobs import job_folder
from harness.jobs.machine import available_cpus
from harness.jobs.progress import read_progress
from harness.store import Store
from harness.sweep import load_sweep, make_plan

ONE = Request(1, 0, {})


@pytest.fixture
def ahead():
    from harness.execution import cluster  # noqa: F401 - it sets what ray reads when it is imported

    # isort: split
    from harness.execution import ahead

    return ahead


@pytest.fixture
def asked(ahead, monkeypatch):
    """What was asked for, on the one node that is left."""
    asked = []
    monkeypatch.setattr(ahead, "start_ahead", asked.append)
    monkeypatch.setattr(ahead.ray, "nodes", lambda: [{"Alive": True}, {"Alive": False}])
    return asked


def test_one_process_is_in_reserve_while_trainings_wait(ahead, asked):
    reserve = ahead.Ahead(object, ONE)
    for running in (1, 2, 3):
        reserve.started(running=running, waiting=True)
        assert len(asked) == 1, "Ray starts those that fill the machine itself"
    reserve.started(running=3, waiting=True)  # one ended, and the next one took the process in reserve
    assert len(asked) == 2
    reserve.started(running=2, waiting=True)
    assert len(asked) == 3
    reserve.started(running=3, waiting=False)
    assert len(asked) == 3, "nobody waits"


def test_a_training_alone_asks_for_nothing(ahead, asked):
    ahead.Ahead(object, ONE).started(running=1, waiting=False)
    assert asked == []


def test_nothing_is_asked_of_clusters_or_for_gpus(ahead, asked, monkeypatch):
    ahead.Ahead(object, Request(1, 1, {})).started(running=1, waiting=True)
    monkeypatch.setattr(ahead.ray, "nodes", lambda: [{"Alive": True}] * 2)
    ahead.Ahead(object, ONE).started(running=1, waiting=True)
    assert asked == []


def test_a_ray_that_refuses_stops_nothing(ahead, asked, monkeypatch):
    def refuse(trainable):
        asked.append(trainable)
        raise AttributeError("another Ray")

    monkeypatch.setattr(ahead, "start_ahead", refuse)
    ahead.Ahead(object, ONE).started(running=1, waiting=True)
    assert asked == [object]


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads when a process began from Linux's /proc")
def test_the_second_training_runs_in_a_process_that_was_there_before_the_first_ended(
    local_ray, tmp_path, sample_data, capfd
):
    file = tmp_path / "pair.yaml"
    file.write_text(
        "name: pair\ndatasets: {digits: {}}\nvariants: {default: {arm: {resnets: 1, filters: 4}}}\n"
        "training: {iterations: 40, batch_size: 8, evaluate_every: 40, checkpoint_every: 40, seeds: [0, 1]}\n"
        f"resources: {{train: {{cpus: {available_cpus()}}}}}\n"
    )
    sweep, store, began = load_sweep(file), Store(tmp_path / "store"), {}
    plan = make_plan(sweep, {})
    folders = [job_folder(store.root, planned.job.id) for planned in plan.jobs]

    def look():
        for progress in filter(None, map(read_progress, folders)):
            if progress.state == "running" and progress.pid not in began:
                began[progress.pid] = process_began(progress.pid)

    with repeating(look, 0.05):
        assert local_ray.execute(plan, store, sweep.resources).done == 2
    trials = store.read("trials", columns=["started_at", "wall_s"]).sort_values("started_at")
    first_ended = trials["started_at"].iloc[0].timestamp() + trials["wall_s"].iloc[0]
    assert len(began) == 2
    assert max(began.values()) < first_ended < trials["started_at"].iloc[1].timestamp()
    assert "Trial" not in "".join(capfd.readouterr()), "Tune says that a trial without reports has ended"


def process_began(pid):
    """In seconds since the epoch."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
