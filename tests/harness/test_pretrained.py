"""Folders that `save_pretrained` of transformers wrote, sampled and timed like checkpoints."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import LlamaConfig, LlamaForCausalLM

from arm_core import InputError, Layout, sample_many
from arm_core.arms import TransformersARM
from harness.cli import main
from harness.jobs import run_job
from harness.store import Store
from harness.sweep import load_sweep, make_plan

LAYOUT = Layout(1, 3, 4, 8)
TOKENS = {"layout": [1, 3, 4, 8], "start": 1, "offset": 4}
OPTIONS = ["--layout", "1x3x4x8", "--start", "1", "--offset", "4"]


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=20, max_position_embeddings=32, bos_token_id=1, **sizes)).eval()
    model.save_pretrained(tmp_path / "llama")
    return model


def planned(tmp_path, entry):
    timing = "timing: {samplers: [ancestral, cached_sequential], batch_sizes: [2], seeds: [0], figure_count: 1}\n"
    file = tmp_path / "sweep.yaml"
    file.write_text(f"name: there\ncheckpoints: {json.dumps({'mine': entry})}\n{timing}")
    (found,) = make_plan(load_sweep(file), {}).jobs
    return found.job


def test_a_folder_is_sampled_once_its_layout_is_told(model, tmp_path):
    ran = run("sample", tmp_path / "llama", *OPTIONS, "--count", 5, "--slots", 2, "--out", tmp_path / "x.npz")
    assert ran.exit_code == 0, ran.output
    arm = TransformersARM(model, LAYOUT, start=1, offset=4)
    expected = LAYOUT.unflatten(sample_many(arm, count=5, seed=10, slots=3).x).numpy()
    assert np.array_equal(np.load(tmp_path / "x.npz")["images"], expected)


def test_a_folder_is_timed_in_a_sweep(model, tmp_path):
    job = planned(tmp_path, {"path": str(tmp_path / "llama"), **TOKENS})
    assert run_job(job, tmp_path / "store") == "done"
    rows = Store(tmp_path / "store").read("timings")
    assert set(rows["dataset_name"]) == {"llama"} and (rows["exact_fraction"].dropna() == 1).all()
    shifted = planned(tmp_path, {"path": str(tmp_path / "llama"), **TOKENS, "offset": 5})
    assert shifted.id != job.id and shifted.sha256 == job.sha256
    with torch.no_grad():
        next(model.parameters()).add_(1)
    model.save_pretrained(tmp_path / "llama")
    assert planned(tmp_path, {"path": str(tmp_path / "llama"), **TOKENS}).sha256 != job.sha256


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "is a folder of save_pretrained, which does not say what its tokens stand for; add --layout"),
        (["--start", "1"], "--start is for a folder of save_pretrained; add its --layout, or leave it out"),
        (["--layout", "1x3x4"], "must be channels x height x width x categories, such as 1x16x16x1024; got '1x3x4'"),
        (["--layout", "1x3x4x30"], "the categories are the tokens 0 to 29, but the model has 0 to 19"),
        ([*OPTIONS, "--arm", "pixelcnn"], "is loaded as `transformers`; leave arm=pixelcnn out"),
    ],
)
def test_what_is_not_told_or_cannot_be_is_one_message(options, message, tmp_path):
    ran = run("sample", tmp_path / "llama", *options, "--out", tmp_path / "x.npz")
    assert ran.exit_code == 2 and message in " ".join(ran.output.split())


def test_a_sweep_says_what_is_missing(model, tmp_path):
    with pytest.raises(InputError, match="checkpoints.mine.path: .* is a folder of save_pretrained"):
        planned(tmp_path, str(tmp_path / "llama"))
    for file in (tmp_path / "llama").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(InputError, match="must hold config.json and .*safetensors"):
        planned(tmp_path, {"path": str(tmp_path / "llama"), **TOKENS})


@pytest.mark.slow
def test_an_arm_is_checked_on_the_layout_that_is_told():
    ran = run("check", "transformers", "--layout", "1x2x3x5")
    assert ran.exit_code == 0 and "1x2x3, 5 categories" in ran.output and "1x4x4" not in ran.output
    refused = run("check", "zeros", "--layout", "1x2x3x5")
    assert refused.exit_code == 2 and "--layout is for ARMs, and zeros is a forecaster" in refused.output
