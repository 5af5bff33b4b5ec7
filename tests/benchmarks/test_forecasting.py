"""The table of forecasting modules: its statistics on rows made by hand, and the command on a small checkpoint."""

import math

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from arm_core import Layout, save_arm
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.forecasters import ForecastingConfig, ForecastingModules
from benchmarks.forecasting import FRESH, Counts, compared, main
from benchmarks.forecasts import divergences, hit_rates
from tests.arm_core.test_modules import training

LAYOUT = Layout(1, 4, 4, 3)


def checkpoint(place, *, with_modules=True):
    torch.manual_seed(0)
    arm = PixelCNN(LAYOUT, PixelCNNConfig(resnets=1, filters=4)).eval()
    modules = ForecastingModules(LAYOUT, ForecastingConfig(2, 4, inputs=("hidden", "noise")), arm.hidden_features)
    save_arm(arm, place, modules=modules if with_modules else None, metadata={"dataset": "tiny", "variant": "noisy"})
    return arm, modules


def test_no_sample_serves_two_ends():
    ids = Counts(choose=3, measure=4, compare=5).ids()
    assert [list(part) for part in ids] == [[0, 1, 2], [3, 4, 5, 6], [7, 8, 9, 10, 11]]


def test_differences_are_paired_by_sample():
    about = {"dataset": "d", "variant": "v", "checkpoint_sha256": "s", "inputs": "hidden", "unit": "dimension"}
    about |= {"detached": False, "dims": 9, "gate": None}
    taken = {("fixed point", 0): [10, 20, 30], ("learned", 2): [8, 19, 27]}
    rows = [
        {**about, "sampler": name, "horizon": horizon, "sample_id": number, "arm_calls": calls}
        for (name, horizon), each in taken.items()
        for number, calls in enumerate(each)
    ]
    rows.reverse()  # the order of rows is nobody's business
    table = compared(pd.DataFrame(rows)).set_index("sampler")
    assert table.loc["learned", "mean_calls"] == 18 and table.loc["learned", "difference"] == -2
    assert table.loc["learned", "half_width"] == pytest.approx(1.96 * 1 / math.sqrt(3))  # of -2, -1, -3
    assert table.loc["fixed point", ["difference", "half_width"]].tolist() == [0, 0]


@pytest.mark.slow
def test_the_command_writes_raw_rows_and_a_table(tmp_path):
    checkpoint(tmp_path / "arm")
    options = ["--out", str(tmp_path / "out"), "--choose", "2", "--measure", "2", "--compare", "3"]
    result = CliRunner().invoke(main, [str(tmp_path / "arm"), *options])
    assert result.exit_code == 0, result.output
    calls = pd.read_parquet(tmp_path / "out/calls.parquet")
    assert calls.groupby("sampler")["sample_id"].apply(list).to_dict() == {
        sampler: [4, 5, 6] for sampler in ("fixed point", "learned", "gated")
    }
    fresh = pd.read_parquet(tmp_path / "out/fresh.parquet")
    assert fresh.groupby("forecaster")["sample"].apply(list).to_dict() == {name: [0, 1] for name in FRESH}
    assert fresh["arm_calls"].between(1, LAYOUT.dims).all()
    forecasts = pd.read_parquet(tmp_path / "out/forecasts.parquet")
    assert forecasts["t"].tolist() == [1, 2] and set(forecasts["inputs"]) == {"hidden + noise"}
    text = (tmp_path / "out/forecasting.md").read_text()
    assert "## tiny" in text and "| hidden + noise | dimension | no" in text
    assert "fresh noise at every call" in text and "| learned, most likely" in text


def test_a_checkpoint_without_modules_is_refused(tmp_path):
    checkpoint(tmp_path / "arm", with_modules=False)
    result = CliRunner().invoke(main, [str(tmp_path / "arm"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and "has no forecasting modules; train it with `forecasting:`" in result.output


def test_divergences_are_those_of_their_definition(tmp_path):
    arm, modules = checkpoint(tmp_path / "arm")
    with torch.no_grad():
        for parameter in modules.parameters():
            parameter.zero_()  # equal probabilities of all categories
    found = divergences(arm, modules, seed=0, sample_ids=range(5), batch_size=2)
    again = divergences(arm, modules, seed=0, sample_ids=range(5), batch_size=5)
    torch.testing.assert_close(found.modules, again.modules, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.marginals, again.marginals, rtol=1e-5, atol=1e-7)
    assert bool((found.marginals <= found.modules + 1e-6).all())  # equal probabilities are a forecast without a context
    assert bool((found.marginals > 0).all())


def test_hit_rates_are_shares_and_modules_that_know_everything_hit_always():
    started = training(iterations=1)
    rates = hit_rates(started.arm, started.modules, seed=0, sample_ids=range(3))
    for shares in rates.modules, rates.fixed_point:
        assert shares.shape == (2,) and (shares >= 0).all() and (shares <= 1).all()
    for network in (started.arm, started.modules):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()  # equal logits everywhere: the noise alone decides
    rates = hit_rates(started.arm, started.modules, seed=0, sample_ids=range(3))
    assert rates.modules.tolist() == [1.0, 1.0]
