"""Decoders from a sweep file to samples: classes, guidance, forecasting modules; and ARMs of files with neighbours."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from arm_core import load_arm, load_checkpoint, sample_many
from arm_core.arms import Guided
from harness.cli import main
from harness.store import Store

SWEEP = """
name: classes
datasets: {labelled: {name: mnist5k, binarise: threshold, patches: 2, crop: 8}}
variants:
  llama:
    arm: {name: transformers, width: 16, layers: 1, heads: 2, classes: 10}
    forecasting: {horizon: 3, filters: 8, inputs: [hidden, noise]}
training: {iterations: 12, batch_size: 8, learning_rate: 1e-2, label_dropout: 0.5}
timing:
  batch_sizes: [2]
  seeds: [0]
  figure_count: 1
  samplers:
    - {sampler: ancestral, context: 7, guidance: 3}
    - {forecaster: learned, window: 4, stream: true, context: 7, guidance: 3}
resources: {train: {cpus: 1, threads: 1}}
"""
MINE = """
from dataclasses import dataclass

from arm_core import ArmOutput, AutoregressiveModel, Layout
from tables import Table


@dataclass(frozen=True)
class Config:
    scale: float = 1.0


class Mine(AutoregressiveModel):
    def __init__(self, layout: Layout, config: Config) -> None:
        super().__init__(layout, 0)
        self.config, self.table = config, Table(layout.categories)

    def forward(self, x):
        logits = self.config.scale * self.table(x)
        return ArmOutput(logits, logits[..., :0])
"""
TABLES = """
import torch.nn.functional as F
from torch import nn


class Table(nn.Embedding):
    def __init__(self, categories):
        super().__init__(categories + 1, categories)

    def forward(self, x):
        return super().forward(F.pad(x[:, :-1] + 1, (1, 0)))
"""
OWN = """
name: own
datasets: {digits: {name: mnist5k, binarise: threshold, crop: 4}}
variants: {mine: {arm: {name: "my_arm.py:Mine", scale: 2.0}}}
training: {iterations: 3, batch_size: 4}
timing: {samplers: [ancestral, fixed_point], batch_sizes: [2], seeds: [0], figure_count: 1}
resources: {train: {cpus: 1, threads: 1}}
"""

BENCH = ["--store", "timed", "--slots", 2, "--repetitions", 1, "--samples-per-slot", 1, "--out", "bench"]


def run(*arguments):
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done


def test_a_decoder_learns_classes_from_a_sweep_file_and_is_guided_to_one(tmp_path):
    (tmp_path / "classes.yaml").write_text(SWEEP)
    run("sweep", tmp_path / "classes.yaml", "--serial", "--store", tmp_path / "runs")
    rows = Store(tmp_path / "runs").read("timings")
    assert (rows["exact_fraction"].dropna() == 1).all() and len(rows) > 2
    (checkpoint,) = (tmp_path / "runs" / "jobs").glob("*/checkpoint")
    arm = load_arm(checkpoint)
    assert load_checkpoint(checkpoint).modules.config.inputs == ("hidden", "noise")
    torch.manual_seed(0)
    fresh = type(arm)(arm.layout, arm.config).model.get_input_embeddings().weight
    trained = arm.model.get_input_embeddings().weight
    assert len(trained) == 16 + 1 + 10 and trained.shape == fresh.shape
    with torch.no_grad():
        logits = arm(torch.zeros(11, 16, dtype=torch.int64), context=torch.arange(-1, 10)).logits
    assert len(logits[:, 0].unique(dim=0)) == 11, "every label, and none, has a token of its own"

    drawn = {}
    for guidance in (1, 3):
        out = tmp_path / f"{guidance}.npz"
        run("sample", checkpoint, "--count", 6, "--context", 7, "--guidance", guidance, "--slots", 2, "--out", out)
        drawn[guidance] = np.load(out)["latents"]
    guided = Guided(arm, scale=3.0, null_context=-1)
    expected = sample_many(guided, count=6, seed=10, slots=3, context=torch.full((6,), 7)).x
    assert np.array_equal(drawn[3], arm.layout.unflatten(expected).numpy()) and not np.array_equal(*drawn.values())


@pytest.mark.slow
def test_the_file_of_an_arm_may_import_its_neighbour_in_every_command(tmp_path, monkeypatch):
    for name, text in (("my_arm.py", MINE), ("tables.py", TABLES), ("own.yaml", OWN)):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    run("check", "my_arm.py:Mine", "--layout", "1x4x4x2")
    run("sweep", "own.yaml", "--serial", "--store", "runs")
    rows = Store("runs").read("timings")
    assert (rows["exact_fraction"].dropna() == 1).all() and len(rows) > 2
    (checkpoint,) = (tmp_path / "runs" / "jobs").glob("*/checkpoint")
    run("sample", checkpoint, "--arm", "my_arm.py:Mine", "--count", 3, "--out", "x.npz")
    run("bench", checkpoint, "--arm", "my_arm.py:Mine", *BENCH)
    assert len(Store("timed").read("timings")) > 2
    (tmp_path / "tables.py").write_text(TABLES + "# changed\n")
    assert "2 of 2 jobs to run" in run("sweep", "own.yaml", "--dry-run", "--store", "runs").output
