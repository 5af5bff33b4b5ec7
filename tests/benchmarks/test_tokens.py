"""The benchmark of token decoders on decoders of a few features: what it finds, not how fast."""

import json

import pytest
import torch
from click.testing import CliRunner

from arm_core import Layout, sample_many, save_arm
from arm_core.arms import TransformersConfig, TransformersDecoder
from arm_core.testing import randomise
from benchmarks.tokens import TINY, dims_a_call, entropy, large, main


def test_calls_are_counted_by_the_dims_that_they_confirmed():
    arm = TransformersDecoder(Layout(1, 3, 4, 5), TransformersConfig(width=8, heads=2, layers=1))
    randomise(arm)
    trace = sample_many(arm, count=3, seed=0, slots=2, window=4)
    histogram = dims_a_call(trace)
    assert int(histogram.sum()) == int(trace.arm_calls.sum())
    assert int((histogram * torch.arange(13)).sum()) == 3 * 12


def test_many_categories_are_drawn_as_ancestral_sampling_draws_them():
    found = large(TINY, slots=2, window=3, nats=2.0, tail=6)
    assert found["equal_to_ancestral"] == found["equal_to_ancestral_in_float64"] == 1
    assert 1.0 < found["nats_a_token"] < 2.5


def test_entropy_leaves_out_what_a_filter_removed():
    assert entropy(torch.tensor([[0.0, 0.0, -torch.inf]])) == pytest.approx(torch.tensor(2.0).log())


@pytest.mark.slow
def test_the_command_writes_what_it_prints(tmp_path):
    arm = TransformersDecoder(Layout(1, 4, 4, 5), TransformersConfig(width=8, heads=2, layers=1))
    randomise(arm)
    metadata = {"valid_bits_per_dim": 1.0, "patches": 2}
    save_arm(arm, tmp_path / "checkpoint", metadata=metadata)
    options = ["--part", "speed", "--small", "--repetitions", "1", "--threads", str(torch.get_num_threads())]
    ran = CliRunner().invoke(main, [*options, "--folder", str(tmp_path), "--out", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    found = json.loads((tmp_path / "out" / f"speed-{torch.get_num_threads()}.json").read_text())
    assert found["bits_a_pixel"] == 0.25 and found["exact_fraction_float32"] == 1
    assert {(row["over"], row["slots"]) for row in found["ratios"]} >= {("generate", 1), ("cached sequential", 2)}
    assert "cached sequential" in ran.output and "calls that confirmed 0, 1, 2, ... dims" in ran.output
