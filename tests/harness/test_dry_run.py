"""What `harness sweep --dry-run` finds out before anything runs, and what it tells."""

import pytest
from click.testing import CliRunner

from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.data import load_dataset
from harness.cli import main
from harness.store import Store
from harness.sweep import load_sweep, make_plan
from tests.harness.rows import timing_row, trial_row

SWEEP = """name: dry
datasets:
  digits: {}
variants:
  default: {arm: {resnets: 1, filters: 6}}
training: {iterations: 10, batch_size: 4, seeds: [0, 1]}
timing:
  samplers: [ancestral, fixed_point]
  seeds: [0, 1, 2, 3, 4]
"""
OWN = """
import torch
from arm_core import ArmOutput, AutoregressiveModel

class Own(AutoregressiveModel):
    def __init__(self, layout):
        super().__init__(layout, 0)
        self.bias = torch.nn.Parameter(torch.zeros(layout.dims, layout.categories))

    def forward(self, x):
        return ArmOutput(self.bias.expand(len(x), -1, -1), self.bias.new_zeros(len(x), self.layout.dims, 0))
"""


@pytest.fixture
def dry(tmp_path, sample_data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)

    def run(text, *options):
        (tmp_path / "dry.yaml").write_text(text)
        command = ["sweep", "dry.yaml", "--dry-run", "--store", str(tmp_path / "store"), *options]
        return CliRunner(env={"COLUMNS": "160"}).invoke(main, command)

    return run


def test_the_table_has_parameters_steps_and_runs(dry, tmp_path):
    result = dry(SWEEP)
    assert result.exit_code == 0, result.output
    arm = PixelCNN(load_dataset("digits").layout, PixelCNNConfig(resnets=1, filters=6))
    assert f"{sum(p.numel() for p in arm.parameters()):,}" in result.output
    train = next(line for line in result.output.splitlines() if "train digits seed 1" in line)
    timing = next(line for line in result.output.splitlines() if "timing digits seed 1" in line)
    assert " 10 " in train and " 20 " in timing, "2 samplers at 2 widths, 5 seeds"
    assert "batch_size" not in result.output and not (tmp_path / "store").exists()


def test_what_only_leaves_out_is_not_built(dry):
    text = SWEEP.replace("digits: {}", "digits: {}\n  other: {name: digits, arm: {filters: -3}}")
    assert dry(text).exit_code == 2
    chosen = dry(text, "--only", "dataset=digits")
    assert chosen.exit_code == 0 and "4 of 8 jobs to run" in chosen.output and "left out by --only" in chosen.output


def test_details_are_told_when_asked_for_without_json(dry):
    told = dry(SWEEP, "--verbose").output
    assert "batch_size: 4" in told and "- forecaster: fixed_point" in told and "{" not in told


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("filters: 6", "filters: -3", "dry.yaml:5: variants.default.arm: PixelCNN: filters must be a positive multiple"),
        ("digits: {}", "digits: {name: photo_patches, crop: 8, arm: {filters: 8}}", "dry.yaml:3: datasets.digits.arm: Pix"),
        ("digits: {}", "gone: {name: 'folder:nowhere'}", "dry.yaml:3: datasets.gone: folder: there is no folder"),
        ("digits: {}", "cifar10: {root: nowhere}", "datasets.cifar10: cifar10: nothing of it is there. Remedy: harness data"),
        ("resnets: 1, filters: 6", "name: 'own.py:Own'", None),
        ("fixed_point]", "{sampler: ancestral, context: 1}]", "timing.samplers.1: digits seed 0: PixelCNN takes no class"),
        ("digits: {}", "photo_patches: {crop: 8, arm: {classes: 10}}", "arm: PixelCNN learns classes, and the data have no l"),
        ("filters: 6}", "filters: 6, classes: 10}", None),
        ("digits: {}", "digits: {latents: {width: -4}}", "datasets.digits.latents: "),
    ],
)  # fmt: skip
def test_what_cannot_be_is_an_error_with_its_line(dry, before, after, message):
    result = dry(SWEEP.replace(before, after, 1))
    assert result.exit_code == (0 if message is None else 2), result.output
    assert message is None or message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("sampler", ["cached_sequential", "{forecaster: zeros, window: 8}", "{sampler: gs_jacobi}"])
def test_a_sampler_that_needs_windows_is_refused_for_an_arm_without(dry, sampler):
    text = SWEEP.replace("resnets: 1, filters: 6", "name: 'own.py:Own'").replace("fixed_point", sampler)
    result = dry(text)
    assert result.exit_code == 2
    assert "timing.samplers.1: digits seed 0: Own evaluates whole images only" in result.output
    stream = "{forecaster: zeros, window: auto, stream: true}"
    assert dry(text.replace(sampler, stream)).exit_code == 0, "it runs whole images then, and is named so"


def test_models_of_published_images_that_are_missing_are_built_all_the_same(dry):
    result = dry(SWEEP.replace("digits: {}", "cifar10: {bits: 3}"))
    assert result.exit_code == 2 and "81,186" not in result.output and "train cifar10 seed 0" in result.output
    line = next(line for line in result.output.splitlines() if "train cifar10 seed 0" in line)
    assert line.split()[5].replace(",", "").isdigit(), "its parameters"


def test_times_are_guessed_from_earlier_jobs_of_the_same_model(dry, tmp_path):
    assert "one after the other" not in dry(SWEEP).output
    jobs = [planned.job for planned in make_plan(load_sweep(tmp_path / "dry.yaml"), {}).jobs]
    train, timing = jobs[:2]
    import json

    shape = {"channels": 1, "height": 8, "width": 8, "categories": 17}
    settings = {"arm_config": json.dumps(train.arm.options, sort_keys=True), "training_config": '{"batch_size": 4}'}
    store = Store(tmp_path / "store")
    store.write_job("t", {"trials": [trial_row(job="t", **shape, **settings, iterations=5, wall_s=60.0)]})
    rows = [timing_row(job="a", sampler=spec.described(), batch_size=1, wall_s=10.0) for spec in timing.samplers]
    store.write_job("a", {"timings": rows})
    result = dry(SWEEP)
    assert "2 min 0 s" in result.output, "two times as many iterations as there"
    assert "1 min 50 s" in result.output, "ten seconds each, five ancestral runs and six of the other, at one width"
    assert "About 7 min 40 s one after the other" in result.output


def test_a_profile_is_where_its_line_is(dry):
    text = SWEEP + "profiles:\n  small:\n    variants:\n      default: {arm: {filters: -1}}\n"
    assert "dry.yaml:13: variants.default.arm" in dry(text, "--profile", "small").output


def test_numbers_that_yaml_reads_otherwise_are_refused(dry):
    result = dry(SWEEP.replace("iterations: 10", "iterations: 010"))
    assert result.exit_code == 2
    assert "dry.yaml:6: training.iterations: 010 is 8 in YAML 1.1 and 10 in YAML 1.2" in result.output


def test_a_sampler_that_needs_windows_is_named_by_its_line_where_others_are_left_out(dry):
    text = SWEEP.replace("resnets: 1, filters: 6", "name: 'own.py:Own'")
    left_out = "{forecaster: learned}, {forecaster: zeros, window: 2}"
    variants = "variants:\n  other: {arm: {resnets: 1, filters: 6}, forecasting: {horizon: 1, filters: 2}}\n"
    result = dry(text.replace("variants:\n", variants).replace("fixed_point", left_out))
    assert "timing.samplers.2: digits default seed 0: Own evaluates whole images only" in result.output, result.output


def test_a_curve_of_one_point_is_told_before_it_is_drawn(dry):
    assert "evaluate_every" not in dry(SWEEP.replace("iterations: 10", "iterations: 10, evaluate_every: 10")).output
    said = dry(SWEEP.replace("iterations: 10", "iterations: 25, evaluate_every: 26")).output
    assert "digits: evaluate_every 26 is beyond the 25 iterations: validated once, at the end" in said
    assert "for a curve `evaluate_every: 3`" in said


def test_few_repetitions_are_told(dry):
    assert "3 repetitions: intervals want 5 or more" in dry(SWEEP.replace("2, 3, 4]", "2]")).output
    assert "repetitions:" not in dry(SWEEP).output
