"""`harness bench`: equality first, then a row a run, ratios inside a repetition, and what is left out is said."""

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from arm_core import Layout, load_checkpoint, save_arm
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.forecasters import ForecastingConfig, ForecastingModules
from arm_core.testing import randomise
from harness.benches import samplers as bench_samplers
from harness.benches.samplers import ANCESTRAL, OURS, PAPER, contestants, unequal
from harness.benches.samplers_report import as_markdown, summary
from harness.cli import main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    layout, place = Layout(1, 8, 4, 2), tmp_path_factory.mktemp("bench") / "checkpoint"
    arm = PixelCNN(layout, PixelCNNConfig(resnets=1, filters=4))
    modules = ForecastingModules(layout, ForecastingConfig(2, 4), arm.hidden_features)
    randomise(arm), randomise(modules)
    save_arm(arm, place, modules=modules, metadata={"dataset_name": "tiny", "valid_bits_per_dim": 0.5})
    return place


def run_row(name, seed, width, wall_s, samples, **changes):
    row = {
        "height": 8,
        "rank": 0,
        "is_drawn": True,
        "name": name,
        "seed": seed,
        "batch_size": width,
        "wall_s": wall_s,
        "is_warmup": False,
    }
    row |= {"arm_calls": [4] * samples, "arm_work": [2.0] * samples, "windows": [8] * samples}
    return row | {"exact_fraction": 1.0, "smallest_gap": None, "busy": False} | changes


def test_every_sampler_draws_the_ancestral_samples_of_a_checkpoint_in_float64(checkpoint):
    loaded = load_checkpoint(checkpoint, dtype=torch.float64)
    found = contestants(loaded)
    assert {ANCESTRAL, PAPER, OURS, "Jacobi", "cached sequential", "window 8"} <= {one.name for one in found}
    assert len({one.name for one in found}) == len(found) == 14
    assert unequal(loaded, found) == []


def test_a_sampler_that_differs_is_named_and_nothing_is_timed(checkpoint, tmp_path, monkeypatch):
    right = bench_samplers.make_sampler

    def wrong(spec, loaded):
        run = right(spec, loaded)
        if spec.sampler != "jacobi":
            return run

        def flipped(draw):
            trace = run(draw)
            trace.x[-1, -1] ^= 1
            return trace

        return flipped

    monkeypatch.setattr(bench_samplers, "make_sampler", wrong)
    result = CliRunner().invoke(main, ["bench", str(checkpoint), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "Not the ancestral samples in float64: Jacobi. Nothing was timed." in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_bench_leaves_rows_tables_and_a_figure(checkpoint, tmp_path):
    arguments = ["bench", str(checkpoint), "--out", str(tmp_path), "--slots", "1,2", "--repetitions", "2"]
    result = CliRunner().invoke(main, [*arguments, "--heights", "4,8", "--samples-per-slot", "2"])
    assert result.exit_code == 0, result.output
    rows = pd.read_parquet(tmp_path / "samplers.parquet")
    timed = rows[~rows["is_warmup"] & (rows["height"] == 8)]
    assert timed.groupby(["name", "batch_size"]).size().eq(2).all() and timed["name"].nunique() == 14
    assert (timed[timed["name"] == OURS]["arm_calls"].map(len) == 2 * timed[timed["name"] == OURS]["batch_size"]).all()
    assert (rows.loc[~rows["is_warmup"], "exact_fraction"] == 1).all()
    assert set(rows["height"]) == {4, 8} and rows["checkpoint_sha256"].nunique() == 1
    text = (tmp_path / "samplers.md").read_text()
    assert f"Times faster a sample than {PAPER} in batches of 2 / {ANCESTRAL} in batches of 2" in text
    assert "by image height, at 16" in text and "0.500 bits/dim" in text and rows["checkpoint_sha256"][0] in text
    for kind in ("csv", "png", "svg", "pdf"):
        assert (tmp_path / f"samplers.{kind}").stat().st_size > 0


@pytest.mark.slow
def test_what_takes_longer_than_the_patience_is_left_out_and_named_but_not_the_reference(checkpoint, tmp_path):
    arguments = ["bench", str(checkpoint), "--out", str(tmp_path), "--slots", "1,2", "--repetitions", "1"]
    result = CliRunner().invoke(main, [*arguments, "--patience", "1e-9", "--sampler", "Jacobi"])
    assert "Left out: Jacobi at 2, about " in result.output
    rows = pd.read_parquet(tmp_path / "samplers.parquet")
    assert set(rows.loc[rows["name"] == ANCESTRAL, "batch_size"]) == {1, 2}


def test_a_checkpoint_that_says_nothing_of_its_training_is_reported_too():
    known = {"cpu": "c", "cores": 2, "threads": 2, "torch": "2", "device": "CPU", "commit": None, "dirty": None}
    known |= {"checkpoint_sha256": "abc", "dtype": "float32", "dataset_name": None, "valid_bits_per_dim": None}
    rows = pd.DataFrame([run_row(name, 0, 16, 1.0, 16, **known) for name in (PAPER, ANCESTRAL)])
    assert "Checkpoint sha256 `abc`, float32." in as_markdown(rows, summary(rows))
    rows = rows.assign(dataset_name="tiny", valid_bits_per_dim=0.5)
    assert "Checkpoint sha256 `abc`, tiny, 0.500 bits/dim on validation, float32." in as_markdown(rows, summary(rows))


def test_ratios_are_taken_inside_a_repetition_to_batches_of_16():
    rows = pd.DataFrame(
        [
            run_row(name, seed, width, wall_s * slow, samples)
            for seed, slow in enumerate((1.0, 10.0, 3.0))
            for name, width, wall_s, samples in ((PAPER, 16, 1.6, 16), (PAPER, 64, 99, 64), (OURS, 4, 0.4 + seed, 16))
        ]
    )
    found = summary(rows).set_index(["name", "width"])
    ours = found.loc[(OURS, 4)]
    ratios = sorted(0.1 / ((0.4 + seed) / 16) for seed in range(3))
    assert ours["over_paper"] == pytest.approx(ratios[1])
    assert (ours["over_paper_low"], ours["over_paper_high"]) == pytest.approx((ratios[0], ratios[2]))
    assert ours["ms"] == pytest.approx(sorted(1000 * s * (0.4 + k) / 16 for k, s in enumerate((1, 10, 3)))[1])
    assert pd.isna(ours["over_ancestral"]), "there was no ancestral run"


def test_warm_ups_do_not_count():
    rows = pd.DataFrame([run_row(PAPER, 0, 16, 1.0, 16), run_row(PAPER, 0, 16, 50.0, 16, is_warmup=True)])
    assert summary(rows)["ms"].tolist() == [62.5]
