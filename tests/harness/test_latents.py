"""From photos to decoded samples: autoencoder, latents, their ARM, and what stops on the way."""

import numpy as np
import pytest
import torch

from arm_core import InputError, load_checkpoint
from harness.execution import serial
from harness.jobs import checkpoint_of, job_folder, run_job
from harness.jobs.latents import LATENTS, load_latents
from harness.jobs.progress import Reporter
from harness.store import Store
from harness.sweep import load_sweep, make_plan

SWEEP = """
name: coded
datasets:
  photo_patches:
    crop: 16
    latents: {width: 8, channels: 2, categories: 4, training: {iterations: 4, batch_size: 8, evaluate_every: 2, checkpoint_every: 1}}
variants: {default: {arm: {resnets: 1, filters: 4, dropout: 0.5}}}
training: {iterations: 4, batch_size: 8, learning_rate: 1e-2, evaluate_every: 2, checkpoint_every: 1, keep: best}
timing: {samplers: [ancestral, fixed_point], batch_sizes: [1], seeds: [0], figure_count: 2}
resources: {train: {threads: 1}, timing: {threads: 1}}
"""


@pytest.fixture
def plan(tmp_path, sample_data):
    file = tmp_path / "coded.yaml"
    file.write_text(SWEEP)
    return make_plan(load_sweep(file), {})


def test_an_autoencoder_comes_before_its_arm_and_its_settings_reach_the_arms_id(plan, tmp_path):
    kinds = [planned.job.kind for planned in plan.jobs]
    assert kinds == ["autoencoder", "train", "timing"]
    first, second = plan.jobs[0].job, plan.jobs[1].job
    assert second.autoencoder_job == first.id
    assert first.training["weight_decay"] == 1e-6 and first.autoencoder["width"] == 8
    wider = tmp_path / "wider.yaml"
    wider.write_text(SWEEP.replace("width: 8", "width: 10"))
    others = [planned.job.id for planned in make_plan(load_sweep(wider), {}).jobs]
    assert not set(others) & {planned.job.id for planned in plan.jobs}
    wider.write_text(SWEEP.replace("width", "widht"))
    with pytest.raises(InputError, match="latents.widht: unknown key 'widht'. Did you mean 'width'"):
        make_plan(load_sweep(wider), {})
    again = make_plan(load_sweep(tmp_path / "coded.yaml"), {second.id: "done"})
    assert [planned.reason for planned in again.jobs][1] == "its autoencoder runs again"


def cut(monkeypatch, job, root, step):
    """Run a job and end it as Ctrl-C does, at a step."""
    real = Reporter.update

    def update(self, at, total, **rest):
        if at == step:
            raise KeyboardInterrupt
        real(self, at, total, **rest)

    monkeypatch.setattr(Reporter, "update", update)
    with pytest.raises(KeyboardInterrupt):
        run_job(job, root, threads=1)
    monkeypatch.undo()


@pytest.mark.slow
def test_photos_become_decoded_samples_and_stops_change_no_bit(plan, tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    ledger = serial.execute(plan, store)
    assert not ledger.failures, ledger.failures
    row = store.read("autoencoders").iloc[0]
    assert (row["latent_channels"], row["latent_height"], row["latent_categories"]) == (2, 4, 4)
    assert 0 < row["codebook_used_fraction"] <= 1 <= row["codebook_perplexity"] <= 4 and 0 < row["valid_mse"] < 1
    trial = store.read("trials").iloc[0]
    assert (trial["channels"], trial["height"], trial["categories"]) == (2, 4, 4)
    assert trial["dataset_sha256"] == row["latents_sha256"] and trial["kept"] == "best"
    samples = store.read("samples")
    assert samples["exact"].all() and set(samples["decoded_height"]) == {16}
    checkpoint = load_checkpoint(checkpoint_of(store.root, plan.jobs[1].job.id))
    latents = torch.from_numpy(np.frombuffer(samples["image"][0], np.uint8).copy()).view(1, 2, 4, 4)
    assert checkpoint.autoencoder.decode(latents).numpy().tobytes() == samples["decoded"][0]
    for planned in plan.jobs[:2]:
        for step in (1, 2, 3):
            cut(monkeypatch, planned.job, tmp_path / "cut", step)
        assert run_job(planned.job, tmp_path / "cut", threads=1) == "done"
    for name in ("checkpoint", "checkpoint-last"):
        whole, stopped = (
            load_checkpoint(job_folder(root, plan.jobs[1].job.id) / name) for root in (store.root, tmp_path / "cut")
        )
        assert whole.metadata["weights"] == stopped.metadata["weights"] == ("last" if "last" in name else "best")
        for part in ("arm", "autoencoder"):
            others = getattr(stopped, part).state_dict()
            for key, value in getattr(whole, part).state_dict().items():
                assert torch.equal(value, others[key]), f"{part}.{key}"
    curves = Store(tmp_path / "cut").read("curves", jobs=[plan.jobs[1].job.id])
    assert curves["step"].tolist() == [2, 4]
    place = job_folder(tmp_path / "cut", plan.jobs[0].job.id)
    damaged = np.load(place / LATENTS / "train.npy")
    damaged[0, 0, 0, 0] ^= 1
    np.save(place / LATENTS / "train.npy", damaged)
    with pytest.raises(InputError, match="differ from what was written"):
        load_latents(place)


def test_an_autoencoder_whose_latents_are_gone_runs_again_and_what_needs_them(plan, tmp_path):
    ids = [planned.job.id for planned in plan.jobs]
    again = make_plan(load_sweep(tmp_path / "coded.yaml"), dict.fromkeys(ids, "done") | {ids[0]: "lost"})
    reasons = ["files of it are gone", "its autoencoder runs again", "its training runs again"]
    assert [(planned.run, planned.reason) for planned in again.jobs] == [(True, reason) for reason in reasons]


@pytest.mark.slow
def test_an_arm_whose_autoencoder_failed_is_failed_too(plan, tmp_path):
    store = Store(tmp_path / "store")

    def fail_the_first(job, root, **options):
        bad = job.model_copy(update={"training": {**job.training, "learning_rate": 1e30}})
        return run_job(bad, root, **options)

    ledger = serial.execute(plan, store, run=fail_the_first)
    assert [failure.error.split(":")[0] for failure in ledger.failures] == [
        "DivergedError", "its autoencoder failed", "its training failed",
    ]  # fmt: skip
    assert "weights are still finite" in ledger.failures[0].error


@pytest.mark.slow
def test_a_training_goes_on_from_the_weights_of_another(small_sweep, tmp_path):
    plan = make_plan(load_sweep(small_sweep), {})
    first = plan.jobs[0].job
    assert run_job(first, tmp_path, threads=1) == "done"
    place = checkpoint_of(tmp_path, first.id)
    small_sweep.write_text(small_sweep.read_text().replace("{iterations: 4,", f"{{init_from: {place}, iterations: 1,"))
    second = make_plan(load_sweep(small_sweep), {}).jobs[0].job
    assert second.init_from == str(place) and second.id != first.id
    tiny = second.model_copy(update={"training": {**second.training, "learning_rate": 1e-30}})
    assert run_job(tiny, tmp_path, threads=1) == "done"
    before, after = load_checkpoint(place), load_checkpoint(checkpoint_of(tmp_path, second.id))
    for part in ("arm", "modules"):
        for name, value in getattr(before, part).state_dict().items():
            assert torch.equal(value, getattr(after, part).state_dict()[name]), name
    wrong = second.model_copy(
        update={"arm": second.arm.model_copy(update={"options": {**second.arm.options, "filters": 8}})}
    )
    Store(tmp_path).forget(wrong.id)
    assert run_job(wrong, tmp_path, threads=1) == "failed"
    assert "is not of this size or layout" in Store(tmp_path).read("trials", jobs=[second.id])["error"].item()
    small_sweep.write_text(small_sweep.read_text().replace(str(place), "nowhere"))
    with pytest.raises(InputError, match="training.init_from: nowhere is no checkpoint"):
        make_plan(load_sweep(small_sweep), {})
