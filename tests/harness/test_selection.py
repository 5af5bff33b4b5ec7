"""Which rows count, what is left out and why, and what is not compared."""

import json

import pytest

from arm_core import InputError
from harness.report.selection import select
from harness.report.statistics import speedup
from harness.store import Store, job_folder
from tests.harness.rows import FIXED_POINT, name_job, timing_row, trial_row, write_named
from tests.harness.test_store import rewrite

NAMES = ("sweep", "profile", "dataset", "variant")


def write(store, job, *, train_job="t", seeds=(0, 1), **changes):
    """A timing job of two samplers, under a name."""
    names = {name: changes.pop(name) for name in NAMES if name in changes}
    shared = {"job": job, "train_job": train_job, **changes}
    rows = [timing_row(seed=seed, wall_s=4.0, **shared) for seed in seeds]
    rows += [timing_row(**{"seed": seed, "sampler": FIXED_POINT, **shared}) for seed in seeds]
    write_named(store, job, {"timings": rows}, **names)


def train(store, job, **changes):
    names = {name: changes.pop(name) for name in NAMES if name in changes}
    write_named(store, job, {"trials": [trial_row(job=job, checkpoint_sha256="f" * 64, **changes)]}, **names)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_warm_ups_and_failures_do_not_count(store):
    write(store, "a")
    rows = [timing_row(job="b", train_seed=1, is_warmup=True, wall_s=1e9), timing_row(job="b", train_seed=1)]
    write_named(store, "b", {"timings": rows})
    write_named(store, "c", {"timings": [timing_row(job="c", train_seed=2, status="failed", error="Boom\nat line 3")]})
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
    write_named(store, "a", {"timings": rows})
    table = speedup(select(store).repetitions).set_index("sampler")
    assert table.loc["gated, T=2, gate 0.5", "seconds"] == 0.5 and table.loc["gated, T=2, gate 2.0", "seconds"] == 2.0
    chosen = store.read("timings").query(table.loc["gated, T=2, gate 2.0", "query"])
    assert chosen["wall_s"].tolist() == [4.0]
    assert not table.loc["forecast zeros", "equal"]


def test_a_report_calls_a_job_what_the_sweep_calls_it_now(store):
    train(store, "t", variant="narrow")
    write(store, "a", variant="narrow")
    renamed = [{**job, "variant": "broad"} for job in store.sweeps()["q"]["jobs"]]
    store.write_sweep({"sweep": "q", "profile": None, "jobs": renamed})
    found = select(store)
    assert set(found.trials["variant"]) == set(found.repetitions["variant"]) == {"broad"}


def test_a_job_of_two_names_stands_under_both(store):
    for sweep, dataset in (("q", "digits"), ("q", "twin"), ("other", "digits")):
        train(store, "t", sweep=sweep, dataset=dataset)
        write(store, "a", sweep=sweep, dataset=dataset)
    found = select(store)
    assert len(found.trials) == len(found.runs) == 3 and len(found.repetitions) == 3 * 4
    table = speedup(found.repetitions)
    assert table.groupby(["sweep", "dataset"])["speedup"].max().tolist() == [4.0] * 3
    assert set(select(store, sweeps=["other"]).repetitions["sweep"]) == {"other"}


def test_jobs_that_no_sweep_asks_for_now_are_left_out_and_counted(store):
    write(store, "a")
    store.write_job("old", {"timings": [timing_row(job="old")]})
    found = select(store)
    assert set(found.repetitions["job"]) == {"a"}
    assert found.left_out == ["1 finished jobs are left out: no sweep of this store asks for them now."]
    assert select(store, sweeps=["q"]).left_out == []


def test_jobs_without_a_result_are_listed_with_their_state(store):
    write(store, "a")
    failed = [timing_row(job="b", train_seed=1, status="failed", error="Boom")]
    write_named(store, "b", {"timings": failed})
    name_job(store, "c", {"timings": [timing_row(job="c", train_seed=2)]}, dataset="photos", variant="default")
    unfinished = select(store).unfinished
    assert unfinished.set_index("job")["state"].to_dict() == {"b": "failed", "c": "waiting"}


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


def test_a_family_of_samplers_is_named_without_its_settings(store):
    rows = [timing_row()] + [
        timing_row(sampler=json.dumps({"forecaster": "learned", "horizon": t}), run_order=t) for t in (2, 4)
    ]
    write_named(store, "a", {"timings": [*rows, timing_row(sampler=FIXED_POINT, run_order=5)]})
    found = select(store, only=["sampler=learned"]).repetitions
    assert set(found["label"]) == {"learned, T=2", "learned, T=4"}
    assert set(select(store, only=["sampler=learned, T=2"]).repetitions["label"]) == {"learned, T=2"}
    with pytest.raises(InputError, match=r"Valid: .*'learned, T=2', 'learned, T=4'"):
        select(store, only=["sampler=learnt"])


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
    known = {job["id"]: job for job in store.sweeps()["q"]["jobs"]} | {"x": {"id": "x", "kind": "timing"}}
    for name, profile, jobs in (("one", None, "a"), ("two", "laptop", "bx"), ("three", None, "c")):
        records = [{**known[job], "title": f"job {job}"} for job in jobs]
        store.write_sweep({"sweep": name, "profile": profile, "jobs": records})
    found = select(store, sweeps=["one", "two@laptop"])
    assert set(found.repetitions["job"]) == {"a", "b"}
    assert found.left_out == ["two@laptop: 1 of 2 jobs have no result yet (job x)."]
    with pytest.raises(InputError, match="Did you mean 'three'"):
        select(store, sweeps=["tree"])


@pytest.mark.parametrize("damaged", ["timings.parquet", "done.json"])
def test_a_job_that_cannot_be_read_is_left_out_and_named(store, damaged):
    write(store, "a")
    write(store, "b", dataset="photos")
    part = job_folder(store.root, "b") / damaged
    part.write_bytes(part.read_bytes()[:-20])
    found = select(store)
    assert set(found.repetitions["job"]) == {"a"}
    (said,) = found.left_out
    assert damaged in said and "run the sweep again" in said


def test_rows_of_an_older_schema_are_read_without_what_they_lack(store):
    train(store, "t")
    write(store, "a")
    young = {
        "timings": ["is_warmup", "busy", "smallest_gap", "cuda", "commit", "dirty", "arm_work"],
        "trials": ["dataset_status", "autoencoder_job", "kept", "train_eval_bits_per_dim", "checkpoint_sha256"],
    }

    def older(rows):
        table = rows.schema.metadata[b"table"].decode()
        return rows.drop_columns(young[table]).replace_schema_metadata({"table": table, "version": "2"})

    rewrite(store, "a", "timings", older)
    rewrite(store, "t", "trials", older)
    found = select(store)
    assert len(found.repetitions) == 4 and found.trials["data_status"].tolist() == ["unknown"]


def test_a_query_selects_the_rows_behind_a_number(store):
    for variant in ("a", "b"):
        write(store, variant, variant=variant)
    rows = store.read("timings")
    for _, row in speedup(select(store).repetitions).iterrows():
        chosen = rows.query(row["query"])
        assert len(chosen) == row["repetitions"] == 2
        assert (chosen["wall_s"] / chosen["samples"]).mean() == row["seconds"]
        assert set(chosen["job"]) == {row["variant"]}
