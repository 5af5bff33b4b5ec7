"""Which rows count, what is left out and why, and what is not compared."""

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

from arm_core import InputError
from harness.report.selection import select
from harness.report.statistics import speedup
from harness.store import Store
from tests.harness.rows import FIXED_POINT, timing_row, trial_row


def write(store, job, *, train_job="t", seeds=(0, 1), **changes):
    """A timing job of two samplers."""
    shared = {"job": job, "train_job": train_job, **changes}
    rows = [timing_row(seed=seed, wall_s=4.0, **shared) for seed in seeds]
    rows += [timing_row(**{"seed": seed, "sampler": FIXED_POINT, **shared}) for seed in seeds]
    store.write_job(job, {"timings": rows})


def train(store, job, **changes):
    store.write_job(job, {"trials": [trial_row(job=job, checkpoint_sha256="f" * 64, **changes)]})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_warm_ups_and_failures_do_not_count(store):
    write(store, "a")
    rows = [timing_row(job="b", train_seed=1, is_warmup=True, wall_s=1e9), timing_row(job="b", train_seed=1)]
    store.write_job("b", {"timings": rows})
    store.write_job("c", {"timings": [timing_row(job="c", train_seed=2, status="failed", error="Boom\nat line 3")]})
    found = select(store)
    assert sorted(found.repetitions["job"].unique()) == ["a", "b"] and (found.repetitions["seconds"] < 10).all()
    assert found.left_out == ["The timing of digits (default) failed: Boom"]


def test_a_profile_is_reported_though_its_training_bears_the_name_of_another(store):
    write(store, "a", profile="b")
    found = select(store, only=["profile=b"])
    assert set(found.repetitions["job"]) == {"a"} and not found.left_out


def test_a_seed_that_nobody_trained_with_is_refused(store):
    write(store, "a")
    with pytest.raises(InputError, match=r"seed in --only '99'"):
        select(store, only=["seed=99"])


def gated(gate):
    return json.dumps({"forecaster": "gated", "horizon": 2, "options": {"gate": gate}})


def test_samplers_with_other_options_are_not_averaged_and_a_mismatch_is_not_hidden(store):
    rows = [timing_row(seed=0, wall_s=4.0)]
    rows += [timing_row(sampler=gated(gate), wall_s=2 * gate, run_order=1) for gate in (0.5, 2.0)]
    rows += [timing_row(sampler='{"forecaster": "zeros"}', exact_fraction=e, run_order=2) for e in (1.0, 0.5)]
    store.write_job("a", {"timings": rows})
    table = speedup(select(store).repetitions).set_index("sampler")
    assert table.loc["gated, T=2, gate 0.5", "seconds"] == 0.5 and table.loc["gated, T=2, gate 2.0", "seconds"] == 2.0
    chosen = store.read("timings").query(table.loc["gated, T=2, gate 2.0", "query"])
    assert chosen["wall_s"].tolist() == [4.0]
    assert not table.loc["forecast zeros", "equal"]


def test_of_two_runs_on_one_training_the_newer_counts(store):
    write(store, "a")
    write(store, "b", started_at=pd.Timestamp("2026-03-01", tz="UTC"))
    found = select(store)
    assert set(found.repetitions["job"]) == {"b"}
    assert found.left_out == ["1 timing jobs are left out, since newer ones did the same: a."]


@pytest.mark.parametrize(
    ("kind", "column", "other"),
    [
        ("device", "device", "V100"),
        ("device", "threads", 1),
        ("version", "torch", "2.10"),
        ("version", "dtype", "float64"),
    ],
)
def test_runs_that_differ_are_not_compared_unless_they_are_mixed_knowingly(store, kind, column, other):
    write(store, "a")
    write(store, "b", train_seed=1, **{column: other})
    write(store, "c", dataset="photos")
    refused = select(store)
    assert set(refused.repetitions["dataset"]) == {"photos"}
    assert any(
        f"differ in {kind}" in said and str(other) in said and f"--mix {kind}" in said for said in refused.left_out
    )
    mixed = select(store, mix=[kind])
    assert set(mixed.repetitions["dataset"]) == {"photos", "digits"}
    assert any(f"--mix {kind} asked" in said for said in mixed.footnotes)


def test_variants_that_stand_in_one_table_must_agree_too(store):
    write(store, "a", variant="hidden")
    write(store, "b", variant="pixel", device="V100")
    assert select(store).repetitions.empty


def test_data_of_different_status_are_not_compared(store):
    train(store, "t")
    train(store, "u", seed=1, dataset_status="official")
    write(store, "a")
    write(store, "b", train_job="u", train_seed=1)
    assert select(store).repetitions.empty
    assert not select(store, mix=["status"]).repetitions.empty


def test_timings_of_other_weights_than_the_training_left_are_refused(store):
    train(store, "t")
    write(store, "a", checkpoint_sha256="0" * 64)
    refused = select(store)
    assert refused.repetitions.empty and "timed other weights" in refused.left_out[0]
    assert not select(store, mix=["checkpoint"]).repetitions.empty


def test_timings_of_a_training_that_was_done_anew_are_refused(store):
    train(store, "t")
    train(store, "u", started_at=pd.Timestamp("2026-03-01", tz="UTC"))
    write(store, "a")
    found = select(store)
    assert found.repetitions.empty and any("timed other weights" in said for said in found.left_out)


def test_timings_whose_training_is_not_in_the_store_are_told_apart_too(store):
    write(store, "a")
    for number, variant in enumerate(("narrow", "wide")):
        write(store, f"b{number}", dataset="svhn", variant=variant)
    kinds = select(store).runs.set_index("job")["kind"].to_dict()
    assert kinds == {"a": "explicit", "b0": "ablation", "b1": "ablation"}


def test_an_unknown_kind_of_mixing_is_named(store):
    with pytest.raises(InputError, match="unknown kind of --mix 'devices'. Did you mean 'device'"):
        select(store, mix=["devices"])


def test_trainings_are_told_apart_by_what_they_are_for(store):
    train(store, "t")
    train(store, "u", dataset="photos", autoencoder_job="e")
    for variant in ("a", "b"):
        train(store, variant, dataset="svhn", variant=variant)
    kinds = select(store).trials.set_index("job")["kind"].to_dict()
    assert kinds == {"t": "explicit", "u": "latent", "a": "ablation", "b": "ablation"}


def test_only_what_was_asked_for_is_reported(store):
    write(store, "a")
    write(store, "b", dataset="photos")
    write(store, "c", dataset="photos", variant="wide", batch_size=4)
    found = select(store, only=["dataset=photos", "batch_size=2", "sampler=fixed point"])
    assert set(found.repetitions["job"]) == {"b"} and found.repetitions["speedup"].tolist() == [4.0, 4.0]


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("dataset=digit", "Did you mean 'digits'"),
        ("sampler=fixed", "Did you mean 'fixed point'"),
        ("colour=red", "KEY one of dataset, variant"),
        ("digits", "takes KEY=VALUE"),
    ],
)
def test_a_filter_that_fits_nothing_is_an_error(store, only, message):
    write(store, "a")
    with pytest.raises(InputError, match=message):
        select(store, only=[only])


def test_several_sweeps_are_reported_together_and_what_they_lack_is_said(store):
    for job, dataset in {"a": "digits", "b": "photos", "c": "svhn"}.items():
        write(store, job, dataset=dataset)
    for name, profile, jobs in (("one", None, "a"), ("two", "laptop", "bx"), ("three", None, "c")):
        records = [{"id": job, "kind": "timing", "title": f"job {job}"} for job in jobs]
        store.write_sweep({"sweep": name, "profile": profile, "jobs": records})
    found = select(store, sweeps=["one", "two@laptop"])
    assert set(found.repetitions["job"]) == {"a", "b"}
    assert found.left_out == ["two@laptop: 1 of 2 jobs have no result yet (job x)."]
    with pytest.raises(InputError, match="Did you mean 'three'"):
        select(store, sweeps=["tree"])


def test_a_part_that_cannot_be_read_is_left_out_and_named(store):
    write(store, "a")
    write(store, "b", dataset="photos")
    part = next(store.root.rglob("b.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    found = select(store)
    assert set(found.repetitions["job"]) == {"a"} and "b.parquet cannot be read" in found.left_out[0]


def test_rows_of_an_older_schema_are_read_without_what_they_lack(store):
    train(store, "t")
    write(store, "a")
    young = {"timings": ["is_warmup", "busy", "smallest_gap", "cuda", "commit", "dirty", "arm_work"]}
    young["trials"] = ["dataset_status", "autoencoder_job", "kept", "train_eval_bits_per_dim", "checkpoint_sha256"]
    for table, columns in young.items():
        part = next((store.root / "tables" / table).glob("*.parquet"))
        older = {"table": table, "version": "2"}  # whose parts were not sealed
        pq.write_table(pq.read_table(part).drop_columns(columns).replace_schema_metadata(older), part)
    found = select(store)
    assert len(found.repetitions) == 4 and found.trials["data_status"].tolist() == ["unknown"]


def test_a_query_selects_the_rows_behind_a_number(store):
    for variant in ("a", "b"):
        write(store, variant, variant=variant)
    rows = store.read("timings")
    for _, row in speedup(select(store).repetitions).iterrows():
        chosen = rows.query(row["query"])
        assert len(chosen) == row["repetitions"] == 2
        assert (chosen["wall_s"] / chosen["samples"]).mean() == row["seconds"] and set(chosen["variant"]) == {
            row["variant"]
        }
