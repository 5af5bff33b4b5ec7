"""A sweep on a cluster whose workers, nodes and driver are killed again and again, at random.

CHAOS_KILLS says how often (3 unless set: one of each kind), CHAOS_SEED when. Every kill is a real SIGKILL.
"""

import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.execution import serial
from harness.jobs import job_folder
from harness.jobs.progress import read_progress
from harness.store import Store
from harness.sweep import load_sweep, make_plan
from tests.harness.cluster import Emulated, kill, start_sweep
from tests.harness.test_execution import MEASURED

SWEEP = """
name: chaos
datasets: {digits: {}}
variants:
  default: {arm: {resnets: 1, filters: 4, dropout: 0.5}, forecasting: {horizon: 2, filters: 4, inputs: [hidden, x, noise]}}
training: {seeds: [0, 1, 2], iterations: 90, batch_size: 8, learning_rate: 1e-2, evaluate_every: 45, checkpoint_every: 1, keep: best}
timing: {samplers: [ancestral, fixed_point, learned], batch_sizes: [1], seeds: [0, 1, 2], figure_count: 2}
resources: {train: {threads: 1}, timing: {threads: 1}}
"""
KINDS = ["worker", "node", "driver"]
LONGEST_S = 1800.0


@dataclass
class Chaos:
    """Kills what runs a sweep, until it has ended as it should.

    Attributes:
        points: (what was killed, a job that was running, at which of its steps).
    """

    cluster: Emulated
    file: Path
    draw: random.Random
    points: list[tuple[str, str, int]] = field(default_factory=list)

    def run(self, store: Path, most: int) -> None:
        """Run the sweep on a new store with at most so many kills; started again whenever it is not there."""
        jobs = [planned.job.id for planned in make_plan(load_sweep(self.file), {}).jobs]
        driver, kinds, deadline = start_sweep(self.file, store, self.cluster), [], time.monotonic() + LONGEST_S
        quiet = self.draw.uniform(0.2, 3.0)
        while True:
            assert time.monotonic() < deadline, (self.file.parent / "output.txt").read_text()
            time.sleep(0.05)
            if driver.poll() == 0:
                return
            if driver.poll() is not None:  # it was killed, or a job of it died too often
                driver = start_sweep(self.file, store, self.cluster)
            running = [found for job in jobs if (found := read_progress(job_folder(store, job))) is not None]
            running = [found for found in running if found.state == "running" and time.time() - found.updated_at < 2]
            if most == 0 or not running:
                continue
            time.sleep(quiet)
            victim = self.draw.choice(running)
            kinds = kinds or self.draw.sample(KINDS, len(KINDS))
            kind = kinds.pop()
            now = read_progress(job_folder(store, victim.job)) or victim
            role = self.draw.choice(["train", "train", "timing"])
            node = (role, self.draw.randrange(len(self.cluster.nodes[role])))
            hit = f"{kind} {node[0]} {node[1]}" if kind == "node" else kind
            point = (hit, f"{now.kind} {now.title}", now.step)
            if point not in self.points and self._hit(kind, driver, now.pid, node):
                self.points.append(point)
                most, quiet = most - 1, self.draw.uniform(0.2, 3.0)
            else:
                kinds.append(kind)

    def _hit(self, kind: str, driver, pid: int, node: tuple[str, int]) -> bool:
        if kind == "worker":
            return kill(pid)
        if kind == "node":
            self.cluster.lose(*node)
            return True
        was_there = driver.poll() is None
        driver.kill()
        driver.wait()
        return was_there


def weights(store: Path) -> dict[str, bytes]:
    return {str(file.relative_to(store)): file.read_bytes() for file in store.glob("jobs/**/*.safetensors")}


def check_complete(store: Store, alone: Store) -> None:
    """The tables of an undisturbed run, without a row too many, and its weights."""
    assert weights(store.root) == weights(alone.root)
    assert store.outcomes() == alone.outcomes() and set(store.outcomes().values()) == {"done"}
    for table in ("trials", "curves", "timings", "mistakes", "samples"):
        first, second = (each.read(table).drop(columns=list(MEASURED), errors="ignore") for each in (alone, store))
        assert len(first) > 0
        assert first.to_json(default_handler=str) == second.to_json(default_handler=str), table


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_whatever_is_killed_tables_and_weights_are_those_of_an_undisturbed_run(tmp_path, sample_data, cluster):
    kills, seed = int(os.environ.get("CHAOS_KILLS", "3")), int(os.environ.get("CHAOS_SEED", "0"))
    file = tmp_path / "chaos.yaml"
    file.write_text(SWEEP)
    sweep, alone = load_sweep(file), Store(tmp_path / "alone")
    assert not serial.execute(make_plan(sweep, {}), alone).failures
    chaos = Chaos(cluster, file, random.Random(seed))
    runs = 0
    while len(chaos.points) < kills:
        store = Store(tmp_path / f"run-{runs}")
        chaos.run(store.root, min(8, kills - len(chaos.points)))
        check_complete(store, alone)
        runs += 1
    print(f"{len(chaos.points)} kills in {runs} runs:", *chaos.points, sep="\n")
    assert len(set(chaos.points)) == kills
