"""ASHA on Ray: the worse trials are stopped, recorded as such, and not run again; latents come before their ARMs."""

import pytest

from arm_core import InputError
from harness.execution import serial
from harness.store import Store
from harness.sweep import load_sweep, make_plan
from tests.harness.test_latents import SWEEP as LATENTS

SEARCH = """
name: search
datasets: {digits: {}}
variants: {default: {arm: {resnets: 1, filters: 4, dropout: 0.0}}}
search: {method: asha, count: 6, grace: 1, factor: 2, space: {training.learning_rate: [1e-2, 1e-9]}}
training: {iterations: 8, batch_size: 8, evaluate_every: 1, checkpoint_every: 4}
resources: {train: {threads: 1}}
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_stops_trials_early_and_does_not_start_them_again(local_ray, tmp_path, sample_data):
    file = tmp_path / "search.yaml"
    file.write_text(SEARCH)
    sweep, store = load_sweep(file), Store(tmp_path / "store")
    plan = make_plan(sweep, {})
    with pytest.raises(InputError, match="leave --serial out"):
        serial.execute(plan, store)
    ledger = local_ray.execute(plan, store)
    assert not ledger.failures, ledger.failures
    outcomes = store.outcomes()
    assert set(outcomes) == {planned.job.id for planned in plan.jobs}
    assert "done" in outcomes.values() and set(outcomes.values()) <= {"done", "stopped"}
    trials = store.read("trials").set_index("job")
    for job, state in outcomes.items():
        assert (trials.loc[job, "iterations"] == 8) == (state == "done")
        assert trials.loc[job, "valid_bits_per_dim"] > 0
    assert not make_plan(sweep, outcomes).to_run


def test_what_a_search_gave_up_is_trained_when_a_sweep_without_one_asks_for_it(tmp_path, sample_data):
    file = tmp_path / "search.yaml"
    file.write_text(SEARCH)
    searched = make_plan(load_sweep(file), {})
    stopped = {planned.job.id: "stopped" for planned in searched.jobs}
    assert not make_plan(load_sweep(file), stopped).to_run
    rate = searched.jobs[0].job.training["learning_rate"]
    lines = [line for line in SEARCH.splitlines() if not line.startswith("search")]
    plain = "\n".join(lines).replace("training: {", f"training: {{learning_rate: {rate}, ")
    file.write_text(plain)
    (planned,) = make_plan(load_sweep(file), stopped).jobs
    assert planned.job.id in stopped and planned.run and planned.reason == "stopped early before"


@pytest.mark.ray
@pytest.mark.slow
def test_on_ray_an_autoencoder_comes_before_its_arm(local_ray, tmp_path, sample_data):
    file = tmp_path / "coded.yaml"
    file.write_text(LATENTS.split("timing:")[0])
    sweep, store = load_sweep(file), Store(tmp_path / "store")
    ledger = local_ray.execute(make_plan(sweep, {}), store)
    assert not ledger.failures, ledger.failures
    row, trial = store.read("autoencoders").iloc[0], store.read("trials").iloc[0]
    assert trial["dataset_sha256"] == row["latents_sha256"] and trial["autoencoder_job"] == row["job"]


def test_a_training_does_not_report_the_step_after_which_it_has_ended(monkeypatch, tmp_path, sample_data):
    from harness.execution import trainings as backend

    file = tmp_path / "search.yaml"
    file.write_text(SEARCH)
    job = make_plan(load_sweep(file), {}).jobs[0].job
    reported = []
    monkeypatch.setattr(backend.tune, "report", lambda metrics: reported.append(metrics["step"]))
    backend._train({"job": job.model_dump_json(), "root": str(tmp_path / "store"), "cwd": str(tmp_path), "threads": 1})
    assert reported == [1, 2, 3, 4, 5, 6, 7]
