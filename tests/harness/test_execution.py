import os
import re
import signal
import subprocess
import sys
import time

import pytest

from arm_core import InputError
from harness.execution import serial
from harness.execution.placement import hosts, place
from harness.jobs import checkpoint_of, job_folder, run_job
from harness.jobs.machine import available_cpus
from harness.store import Store
from harness.sweep import load_sweep, make_plan
from harness.sweep.spec import Resources, Role
from tests.harness.rows import timing_row, trial_row

MEASURED = {
    "wall_s",
    "busy",
    "started_at",
    "load_1m",
    "iterations_per_s",
    "threads",
    "dirty",
    "peak_mem_bytes",
    "clock_mhz",
    "device_processes",
}


def fake_run(job, root, *, threads):
    """A job function that takes no time; mnist trainings fail."""
    made = [] if job.kind != "train" else [checkpoint_of(root, job.id)]
    for folder in made:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").write_text("{}")
    lost = job.kind == "train" and job.title.startswith("mnist5k")
    status = {"status": "failed", "error": "Boom: no\nmore"} if lost else {}
    row = trial_row if job.kind == "train" else timing_row
    rows = {"trials" if job.kind == "train" else "timings": [row(job=job.id, **status)]}
    return Store(root).write_job(job.id, rows, made)


@pytest.fixture
def two_datasets(tmp_path):
    file = tmp_path / "two.yaml"
    file.write_text(
        "name: two\ndatasets: {digits: {}, mnist5k: {binarise: threshold}}\n"
        "timing: {samplers: [ancestral], seeds: [0]}\n"
    )
    return load_sweep(file)


def test_timings_of_a_failed_training_are_failed_rows_and_the_rest_is_done(two_datasets, tmp_path):
    store = Store(tmp_path / "store")
    plan = make_plan(two_datasets, {})
    ledger = serial.execute(plan, store, run=fake_run)
    assert ledger.done == 2
    assert [(f.title, f.error) for f in ledger.failures] == [
        ("train mnist5k seed 0", "Boom: no"),
        ("timing mnist5k seed 0", "its training failed"),
    ]
    assert sorted(store.outcomes().values()) == ["done", "done", "failed", "failed"]
    again = make_plan(two_datasets, store.outcomes())
    assert [p.reason for p in again.jobs] == ["done before", "done before", "failed before", "failed before"]


def test_jobs_that_ended_after_their_driver_are_done(two_datasets, tmp_path):
    store, ran = Store(tmp_path / "store"), []
    for planned in make_plan(two_datasets, {}).jobs[:2]:
        fake_run(planned.job, store.root, threads=1)

    def run(job, root, *, threads):
        ran.append(job.title)
        return fake_run(job, root, threads=threads)

    plan = make_plan(two_datasets, store.outcomes())
    assert [planned.reason for planned in plan.jobs] == ["done before", "done before", "not done yet", "not done yet"]
    serial.execute(plan, store, run=run)
    assert ran == ["mnist5k seed 0"]


def test_a_training_whose_checkpoint_is_gone_runs_again_and_its_timing_too(two_datasets, tmp_path):
    store = Store(tmp_path / "store")
    serial.execute(make_plan(two_datasets, {}), store, run=fake_run)
    train = next(name.id for name in make_plan(two_datasets, {}).names if name.dataset == "digits")
    (checkpoint_of(store.root, train) / "manifest.json").unlink()
    again = make_plan(two_datasets, store.outcomes())
    assert [p.reason for p in again.jobs[:2]] == ["files of it are gone", "its training runs again"]
    serial.execute(again, store, run=fake_run)
    assert store.outcomes()[train] == "done"


def test_a_failed_job_is_run_again(two_datasets, tmp_path):
    store, ran = Store(tmp_path / "store"), []
    serial.execute(make_plan(two_datasets, {}), store, run=fake_run)

    def mended(job, root, *, threads):
        ran.append(job.kind)
        assert Store(root).done(job.id) is None
        row = trial_row if job.kind == "train" else timing_row
        return Store(root).write_job(job.id, {"trials" if job.kind == "train" else "timings": [row(job=job.id)]})

    ledger = serial.execute(make_plan(two_datasets, store.outcomes()), store, run=mended)
    assert ran == ["train", "timing"] and not ledger.failures
    assert set(store.outcomes().values()) == {"done"}


def test_a_job_that_is_done_is_not_run_by_a_process_that_starts_it_again(two_datasets, tmp_path):
    """Ray may start a job again whose process died just after it had ended."""
    job = make_plan(two_datasets, {}).jobs[0].job
    fake_run(job, tmp_path, threads=1)
    before = Store(tmp_path).done(job.id)
    assert run_job(job, tmp_path) == "done" and Store(tmp_path).done(job.id) == before


def node(alive=True, labels=None, name="n", **resources):
    return {"Alive": alive, "NodeID": name, "Labels": labels or {}, "Resources": resources}


LAPTOP = node(CPU=2.0, timing=1.0)
TRAIN = node(labels={"role": "train", "ray.io/accelerator-type": "V100"}, CPU=8.0, GPU=4.0)
TIMING = node(labels={"role": "timing", "ray.io/accelerator-type": "GeForce-GTX-1080-Ti"}, CPU=4.0, GPU=1.0, timing=1.0)


def test_a_timing_job_takes_all_of_its_node():
    (request,) = place([LAPTOP], Resources()).timing
    assert (request.cpus, request.gpus, request.node, request.labels) == (2.0, 0, "n", {})
    (request,) = place([TRAIN, TIMING], Resources(timing=Role(gpus=1, device="GTX1080Ti"))).timing
    assert (request.cpus, request.gpus) == (4.0, 1.0)
    assert request.labels == {"ray.io/accelerator-type": "GeForce-GTX-1080-Ti"}


def test_timing_nodes_of_different_sizes_are_each_taken_whole():
    larger = node(name="larger", CPU=16.0, timing=1.0)
    requests = place([TRAIN, TIMING, larger], Resources()).timing
    assert [(request.node, request.cpus) for request in requests] == [("n", 4.0), ("larger", 16.0)]


def test_a_sweep_without_timings_needs_no_timing_node():
    assert place([TRAIN], Resources(), {"training"}).timing == ()
    assert place([TIMING], Resources(), {"timing"}).train is None


def test_training_keeps_to_nodes_labelled_for_it():
    request = place([TIMING, TRAIN], Resources(train=Role(cpus=2, gpus=1, device="V100"))).train
    assert request.labels == {"role": "train", "ray.io/accelerator-type": "V100"}
    assert place([LAPTOP], Resources()).train.labels == {}


def test_the_nodes_that_jobs_may_run_on_are_told_apart_from_the_others():
    head, trains = node(name="head", CPU=0.0), {**TRAIN, "NodeID": "trains"}
    times, gone = {**TIMING, "NodeID": "times"}, {**TRAIN, "NodeID": "gone", "Alive": False}
    nodes = [head, trains, times, gone]
    assert hosts(nodes, place(nodes, Resources())) == {"trains": "training", "times": "timing"}
    assert hosts([LAPTOP], place([LAPTOP], Resources())) == {"n": "training and timing"}


@pytest.mark.parametrize(
    ("nodes", "resources", "message"),
    [
        ([TIMING], Resources(), r"training jobs .*`ray start --address HEAD:6379 .*--labels role=train`"),
        ([TRAIN], Resources(), r"timing jobs .*--resources '\{\"timing\": 1\}'`"),
        ([TRAIN, TIMING], Resources(train=Role(device="A100")), "training jobs .*device A100"),
        ([LAPTOP], Resources(train=Role(cpus=3)), "training jobs .3 CPUs, 0 GPUs"),
        ([LAPTOP], Resources(timing=Role(gpus=1)), "timing jobs .1 CPUs, 1 GPUs"),
        ([{**LAPTOP, "Alive": False}], Resources(), "no live node"),
    ],
)
def test_what_no_node_can_give_is_an_error_with_the_line_that_mends_it(nodes, resources, message):
    with pytest.raises(InputError, match=message):
        place(nodes, resources)


@pytest.mark.ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "no.such.host.invalid:6379"])
def test_an_address_where_nothing_listens_is_refused_at_once(local_ray, address):
    with (
        pytest.raises(InputError, match=r"no Ray cluster answers at|must be local or HOST:PORT"),
        local_ray.connected(address),
    ):
        pass


OWN = """
import torch
from arm_core.arms import PixelCNN, PixelCNNConfig
from beside_own import LAYOUT, first

class Mine(PixelCNN):
    def __init__(self, layout, config: PixelCNNConfig):
        super().__init__(layout, config)

class Stripes:
    layout = LAYOUT

    def __init__(self, root): ...

    def split(self, name):
        return torch.arange(16).view(-1, 1, 1, 1).expand(16, 1, 4, 4).bitwise_and(1).to(torch.uint8)

def copy_first(state):
    return first(state.outputs)
"""
BESIDE = """
from arm_core import Layout

LAYOUT = Layout(1, 4, 4, 2)

def first(outputs):
    return outputs[:, :1].expand_as(outputs)
"""


@pytest.mark.ray
def test_ray_and_serial_give_the_same_rows_also_of_plug_ins_that_import_the_file_beside_them(
    local_ray, small_sweep, tmp_path, monkeypatch
):
    """An ARM, a dataset and a forecaster of files with a neighbour, named from the folder where the command runs."""
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "beside_own.py").write_text(BESIDE)
    text = small_sweep.read_text().replace("digits: {}", 'mine: {name: "own.py:Stripes"}')
    text = text.replace("arm: {", 'arm: {name: "own.py:Mine", ').replace("learned]", 'learned, "own.py:copy_first"]')
    small_sweep.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))  # the folder of a file with neighbours is added to it, here only
    sweep = load_sweep(small_sweep)
    stores = [Store(tmp_path / name) for name in ("serial", "ray")]
    for store, execute in zip(stores, (serial.execute, local_ray.execute), strict=True):
        ledger = execute(make_plan(sweep, {}), store)
        assert (ledger.done, ledger.failures) == (2, [])
    for table in ("trials", "curves", "timings", "mistakes", "samples"):
        first, second = (store.read(table).drop(columns=list(MEASURED), errors="ignore") for store in stores)
        assert len(first) > 0
        assert first.to_json(default_handler=str) == second.to_json(default_handler=str), table
    (trial,) = stores[1].read("trials").to_dict("records")
    assert (trial["arm"], trial["dataset_name"]) == ("own.py:Mine", "own.py:Stripes")
    assert any("own.py:copy_first" in sampler for sampler in stores[1].read("timings")["sampler"])


PLUGIN = """
import os, signal
from pathlib import Path
from arm_core.arms import PixelCNN, PixelCNNConfig

class Fragile(PixelCNN):
    def __init__(self, layout, config: PixelCNNConfig):
        super().__init__(layout, config)

    def forward(self, x):
        marker = Path(__file__).with_name("killed")
        steps = Path(__file__).with_name("steps")
        with steps.open("a") as file:
            file.write(f"{os.getpid()}\\n")
        if len(steps.read_text().splitlines()) > 3 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)
"""


@pytest.mark.ray
def test_a_killed_worker_is_tried_again_and_ends_the_training(local_ray, small_sweep, tmp_path):
    plugin = tmp_path / "fragile.py"
    plugin.write_text(PLUGIN)
    text = small_sweep.read_text().replace("arm: {", f'arm: {{name: "{plugin}:Fragile", ').split("timing:")[0]
    small_sweep.write_text(text)
    sweep, store = load_sweep(small_sweep), Store(tmp_path / "store")
    ledger = local_ray.execute(make_plan(sweep, {}), store)
    assert (tmp_path / "killed").exists()
    assert (ledger.done, ledger.failures) == (1, [])
    assert len(set((tmp_path / "steps").read_text().split())) == 2, "two processes took part"
    assert store.read("curves")["step"].tolist() == [2, 4]


@pytest.mark.ray
def test_trainings_that_follow_one_another_share_a_process_and_count_their_memory_anew(
    local_ray, small_sweep, tmp_path, capfd
):
    text = small_sweep.read_text().split("timing:")[0].replace("{iterations: 4", "{seeds: [0, 1, 2], iterations: 4")
    small_sweep.write_text(f"{text}resources: {{train: {{cpus: {available_cpus()}, threads: 1}}}}\n")
    sweep, store = load_sweep(small_sweep), Store(tmp_path / "store")
    assert local_ray.execute(make_plan(sweep, {}), store).done == 3
    began = [
        re.findall(r"process (\d+) on", (job_folder(store.root, job) / "log.txt").read_text()) for job in store.jobs()
    ]
    assert len(began) == 3 and len({tuple(each) for each in began}) == 1, "Tune's reuse_actors"
    assert "Trial" not in "".join(capfd.readouterr()), "Tune says that a trial without reports has ended"
    assert not list(store.root.glob("ray/*/*/events.out.tfevents.*")), "Tune writes them unless it is told not to"


DEADLY = PLUGIN.replace("and not marker.exists()", "")


@pytest.mark.ray
def test_a_worker_that_always_dies_becomes_a_failed_row(local_ray, small_sweep, tmp_path):
    plugin = tmp_path / "deadly.py"
    plugin.write_text(DEADLY)
    small_sweep.write_text(small_sweep.read_text().replace("arm: {", f'arm: {{name: "{plugin}:Fragile", '))
    sweep, store = load_sweep(small_sweep), Store(tmp_path / "store")
    ledger = local_ray.execute(make_plan(sweep, {}), store)
    assert [f.error for f in ledger.failures] == ["its process died 3 times", "its training failed"]
    (row,) = store.read("trials").to_dict("records")
    assert (store.root / row["log"]).exists()
    assert len(re.findall(r"UTC: process \d+ on .* begins", row["log_tail"])) == 3


@pytest.mark.slow
def test_a_killed_driver_loses_nothing_that_was_finished(small_sweep, tmp_path):
    """A sweep that is killed after its training goes on with the timing alone."""
    command = [
        sys.executable,
        "-m",
        "harness",
        "sweep",
        str(small_sweep),
        "--serial",
        "--store",
        str(tmp_path / "store"),
    ]
    text = small_sweep.read_text().replace("[0, 1, 2]", "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]")
    small_sweep.write_text(text)
    plan = make_plan(load_sweep(small_sweep), {})
    train, timing = (planned.job for planned in plan.jobs)
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (job_folder(tmp_path / "store", timing.id) / "progress.json").exists():
            assert time.monotonic() < deadline and driver.poll() is None
            time.sleep(0.02)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    store = Store(tmp_path / "store")
    assert store.outcomes() == {train.id: "done"}
    trained = (tmp_path / "store" / "jobs" / train.id / "checkpoint" / "manifest.json").stat().st_mtime_ns
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "1 of 2 jobs to run" in finished.stdout
    assert store.outcomes() == {train.id: "done", timing.id: "done"}
    assert (tmp_path / "store" / "jobs" / train.id / "checkpoint" / "manifest.json").stat().st_mtime_ns == trained
