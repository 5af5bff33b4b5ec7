"""Sweeps on an emulated cluster: where jobs run, what runs beside them, and what they find out."""

from collections import defaultdict
from itertools import combinations
from typing import NamedTuple

import pytest

from harness.execution import serial
from harness.store import Store
from harness.sweep import load_sweep, make_plan
from tests.harness.cluster import start_sweep
from tests.harness.test_execution import MEASURED

PLUGIN = '''
"""An ARM that notes where and when it is called. With `waits` its training goes on only when something is timed."""
import os, time
from dataclasses import dataclass
from pathlib import Path
from arm_core.arms import PixelCNN, PixelCNNConfig

HERE = Path(__file__).parent

@dataclass(frozen=True)
class Config(PixelCNNConfig):
    waits: bool = False

class Noting(PixelCNN):
    def __init__(self, layout, config: Config):
        super().__init__(layout, config)
        self.waits = config.waits

    def forward(self, x):
        import ray
        if os.environ.get("RAY_JOB_ID") and ray.is_initialized():
            context = ray.get_runtime_context()
            times = "timing" in context.get_assigned_resources()
            with (HERE / "notes").open("a") as file:
                file.write(f"{context.get_node_id()} {context.get_actor_id() or context.get_task_id()} {int(times)} {time.time()}\\n")
            if times:
                (HERE / "timed").touch()
            deadline = time.time() + 240
            while self.waits and not times and not (HERE / "timed").exists() and time.time() < deadline:
                time.sleep(0.05)
        return super().forward(x)
'''

SWEEP = """
name: cluster
datasets: {digits: {}}
variants:
  early: {arm: {name: "PLUGIN:Noting", resnets: 1, filters: 4, dropout: 0.0}}
  late: {arm: {name: "PLUGIN:Noting", resnets: 1, filters: 4, dropout: 0.0, waits: true}}
training: {seeds: [0, 1], iterations: 6, batch_size: 8, learning_rate: 1e-2, evaluate_every: 3, checkpoint_every: 2}
timing: {samplers: [ancestral, fixed_point], batch_sizes: [1, 2], seeds: [0, 1], figure_count: 2}
resources: {train: {threads: 1}, timing: {threads: 1}}
"""


class Interval(NamedTuple):
    """When a job ran where, from its first call of the ARM to its last."""

    node: str
    is_timing: bool
    start: float
    end: float


def intervals(notes) -> list[Interval]:
    """One for each task or actor of Ray."""
    calls = defaultdict(list)
    for line in notes.read_text().splitlines():
        node, work, times, at = line.split()
        calls[node, work, times == "1"].append(float(at))
    return [Interval(node, timing, min(at), max(at)) for (node, _, timing), at in calls.items()]


@pytest.mark.ray
@pytest.mark.slow
def test_on_a_cluster_jobs_run_where_they_should_and_find_out_what_they_do_one_after_the_other(
    tmp_path, sample_data, cluster
):
    plugin, file = tmp_path / "noting.py", tmp_path / "cluster.yaml"
    plugin.write_text(PLUGIN)
    file.write_text(SWEEP.replace("PLUGIN", str(plugin)))
    sweep, alone = load_sweep(file), Store(tmp_path / "alone")
    assert serial.execute(make_plan(sweep, {}), alone).done == 8
    assert start_sweep(file, tmp_path / "store", cluster).wait(400) == 0, (tmp_path / "output.txt").read_text()
    roles = {node.node_id: role for role, nodes in cluster.nodes.items() for node in nodes}
    ran = intervals(tmp_path / "notes")
    assert {(roles[interval.node], interval.is_timing) for interval in ran} == {("train", False), ("timing", True)}
    for one, other in combinations(ran, 2):
        if one.node == other.node and (one.is_timing or other.is_timing):
            assert one.end < other.start or other.end < one.start, "something ran beside a timing job"
    first_timing = min(interval.start for interval in ran if interval.is_timing)
    assert first_timing < max(interval.end for interval in ran if not interval.is_timing), "timings wait for nobody"
    store = Store(tmp_path / "store")
    for table in ("trials", "curves", "timings", "mistakes", "samples"):
        first, second = (each.read(table).drop(columns=list(MEASURED), errors="ignore") for each in (alone, store))
        assert len(first) > 0
        assert first.to_json(default_handler=str) == second.to_json(default_handler=str), table
