"""Trainings whose process is killed: a real SIGKILL of a real process, wherever it happens to be."""

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SWEEP = """
name: killed
datasets:
  photo_patches:
    crop: 16
    latents: {width: 8, channels: 2, categories: 4, training: {iterations: 30, batch_size: 8, evaluate_every: 7, checkpoint_every: 1}}
variants:
  default:
    arm: {resnets: 1, filters: 4, dropout: 0.5}
    forecasting: {horizon: 2, filters: 4, inputs: [hidden, x, noise]}
training: {iterations: 60, batch_size: 8, learning_rate: 1e-2, evaluate_every: 7, checkpoint_every: 1, keep: best}
resources: {train: {threads: 1}}
"""
COMMAND = [sys.executable, "-m", "harness", "sweep", "killed.yaml", "--serial", "--store"]


def steps_saved(store: Path, kind: str) -> int:
    """The newest step that the training of this kind has saved; 0 while there is none."""
    steps = [0]
    for progress in store.glob("jobs/*/progress.json"):
        if json.loads(progress.read_text())["kind"] == kind:
            for manifest in progress.parent.glob("state-?/manifest.json"):
                with contextlib.suppress(FileNotFoundError):  # it is being replaced
                    steps.append(json.loads(manifest.read_text())["content"]["step"])
    return max(steps)


def kill(folder: Path, store: str, kind: str, step: int, delay: float) -> None:
    """Start the sweep and kill it `delay` seconds after it has saved a step of a training."""
    process = subprocess.Popen([*COMMAND, store], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while steps_saved(folder / store, kind) < step and process.poll() is None:
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()
    said = process.communicate()[0].decode()
    assert process.returncode == -signal.SIGKILL, f"it had ended before:\n{said}"


def weights(store: Path) -> dict[str, bytes]:
    return {str(file.relative_to(store)): file.read_bytes() for file in store.glob("jobs/**/*.safetensors")}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_sweep_killed_three_times_at_random_ends_with_the_weights_of_an_undisturbed_one(tmp_path, sample_data):
    (tmp_path / "killed.yaml").write_text(SWEEP)
    subprocess.run([*COMMAND, "undisturbed"], cwd=tmp_path, check=True, stdout=subprocess.PIPE)
    draw = random.Random(3)
    for kind, first, last in (("autoencoder", 2, 25), ("train", 2, 25), ("train", 28, 55)):
        # a step with its saved state takes about a thirtieth of a second
        kill(tmp_path, "killed", kind, draw.randint(first, last), draw.uniform(0, 0.03))
    subprocess.run([*COMMAND, "killed"], cwd=tmp_path, check=True, stdout=subprocess.PIPE)
    expected = weights(tmp_path / "undisturbed")
    assert {Path(name).name.split("-")[0] for name in expected} == {"autoencoder", "arm", "modules"}
    assert weights(tmp_path / "killed") == expected
