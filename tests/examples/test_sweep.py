"""The sweep of the examples: it plans as it stands, and runs when it is made small."""

import pytest
import yaml
from click.testing import CliRunner

from harness.cli import main
from harness.store import Store
from harness.sweep import load_sweep, make_plan


@pytest.mark.parametrize("profile", [None, "digits"])
def test_it_plans_with_a_model_forecasters_and_a_dataset_of_ones_own(at_the_root, profile):
    plan = make_plan(load_sweep("examples/sweep.yaml", profile=profile), {})
    train, timing = plan.jobs[0].job, plan.jobs[1].job
    assert train.arm.name == "examples/causal_transformer.py:CausalTransformer"
    assert train.data.name == "examples/fonts.py:Fonts"
    assert {spec.forecaster for spec in timing.samplers} >= {
        "examples/copy_above.py:copy_above",
        "examples/copy_above.py:CopyFrom",
    }
    assert len(plan.jobs) == (2 if profile is None else 4)


@pytest.mark.slow
def test_it_trains_times_and_gives_equal_samples(at_the_root, tmp_path):
    content = yaml.safe_load((at_the_root / "examples" / "sweep.yaml").read_text())
    content["datasets"]["glyphs"]["size"] = 8
    content["variants"]["transformer"] = {
        "arm": {"name": "examples/causal_transformer.py:CausalTransformer", "layers": 1, "width": 16, "heads": 2},
        "forecasting": {"horizon": 2, "filters": 4},
    }
    content["training"] |= {"iterations": 4, "evaluate_every": 2, "checkpoint_every": 2, "learning_rate": 0.002}
    content["timing"] |= {"batch_sizes": [2], "slots": [2], "seeds": [0], "figure_count": 2, "dtype": "float64"}
    file, store = tmp_path / "small.yaml", tmp_path / "store"
    file.write_text(yaml.safe_dump(content))
    result = CliRunner().invoke(main, ["sweep", str(file), "--serial", "--store", str(store)])
    assert result.exit_code == 0, result.output
    timings = Store(store).read("timings")
    timings = timings[~timings["is_warmup"]]
    assert len(timings) == 8 and (timings["exact_fraction"] == 1).all()
    assert (timings["dataset_name"] == "examples/fonts.py:Fonts").all()
    checkpoint = next((store / "jobs").glob("*/checkpoint"))
    arguments = ["sample", str(checkpoint), "--count", "2", "--out", str(tmp_path / "grid.png")]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 2 and "pass the class" in refused.output
    arm = ["--arm", "examples/causal_transformer.py:CausalTransformer"]
    drawn = CliRunner().invoke(main, [*arguments, *arm])
    assert drawn.exit_code == 0 and (tmp_path / "grid.png").exists(), drawn.output
