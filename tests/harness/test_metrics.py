"""What a sweep shows at the Prometheus endpoint and in TensorBoard, and how long it still takes."""

import json
import re
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from harness.execution.remaining import seconds_left
from harness.store import Store
from harness.sweep import load_sweep, make_plan
from tests.harness.test_monitor import progress

GRAFANA = json.loads((Path(__file__).parents[2] / "docs" / "grafana.json").read_text())
JOBS = [{"id": name, "kind": "train"} for name in "abcd"]


def test_time_left_takes_jobs_that_wait_for_as_long_as_those_that_ended():
    now = time.time()
    said = {
        "a": progress(job="a", state="done", started_at=now - 100, updated_at=now),
        "b": progress(job="b", started_at=now - 50, updated_at=now, seconds_left=50.0),
    }
    states = {"a": "done", "b": "running", "c": "waiting", "d": "waiting"}
    assert seconds_left(JOBS, states, said) == pytest.approx(50 + 100 + 100)
    states["c"], said["c"] = "running", replace(said["b"], job="c")
    assert seconds_left(JOBS, states, said) == pytest.approx((50 + 50 + 100) / 2), "two side by side"


def test_nothing_is_said_of_the_time_left_when_nothing_tells():
    waiting = dict.fromkeys("abcd", "waiting")
    assert seconds_left(JOBS, waiting, {}) is None
    assert seconds_left(JOBS, dict.fromkeys("abcd", "done"), {}) == 0
    assert seconds_left(JOBS, {**waiting, "a": "running"}, {"a": progress(job="a", seconds_left=None)}) is None


def metrics_of_this_node(ray) -> str:
    """The text of the Prometheus endpoint of the only node."""
    (node,) = ray.live_nodes()
    with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics") as answer:
        return answer.read().decode()


@pytest.mark.ray
@pytest.mark.slow
def test_jobs_by_state_and_arm_calls_reach_the_prometheus_endpoint_under_the_names_of_the_grafana_dashboard(
    local_ray, small_sweep, tmp_path
):
    sweep, store = load_sweep(small_sweep), Store(tmp_path)
    assert local_ray.execute(make_plan(sweep, {}), store).done == 2
    calls = sum(int(row.sum()) for row in store.read("timings")["arm_calls"])
    deadline, text = time.monotonic() + 60, ""
    while "ray_harness_arm_calls{" not in text or not re.search(rf"ray_harness_arm_calls{{.*}} {calls}\.0", text):
        assert time.monotonic() < deadline, re.findall("ray_harness.*", text)
        time.sleep(1)
        text = metrics_of_this_node(local_ray)
    assert re.search(r'ray_harness_jobs{.*state="done".*} 2\.0', text)
    shown = {
        name
        for panel in GRAFANA["panels"]
        for target in panel["targets"]
        for name in re.findall(r"ray_harness_\w+", target["expr"])
    }
    from harness.execution.metrics import _gauges

    assert shown == {f"ray_harness_{name}" for name in _gauges()}
    tags = {tag for gauge in _gauges().values() for tag in gauge._tag_keys}
    legends = {
        tag
        for panel in GRAFANA["panels"]
        for target in panel["targets"]
        for tag in re.findall(r"{{(\w+)}}", target["legendFormat"])
    }
    assert legends <= tags and not tags & {"job", "instance"}, "those are Prometheus's own"
