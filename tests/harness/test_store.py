import hashlib
import multiprocessing
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arm_core import InputError
from harness.store import SCHEMAS, SchemaError, Store, job_folder
from harness.store.sealed import write_sealed
from tests.harness.rows import mistake_row, timing_row, trial_row


def test_what_is_written_is_read(tmp_path):
    store = Store(tmp_path)
    store.write_job("a", {"timings": [timing_row(job="a", wall_s=1.5), timing_row(job="a", wall_s=2.5)]})
    read = store.read("timings")
    assert list(read.columns) == SCHEMAS["timings"].names
    assert read["wall_s"].tolist() == [1.5, 2.5]
    assert read["arm_calls"].iloc[0].tolist() == [4, 7]
    assert read["started_at"].iloc[0] == datetime(2026, 1, 2, tzinfo=UTC)
    assert store.outcomes() == {"a": "done"}


@given(
    st.lists(
        st.tuples(st.floats(0, 1e6), st.lists(st.integers(0, 3072), max_size=4), st.none() | st.booleans()),
        min_size=1,
        max_size=5,
    )
)
def test_any_row_survives(tmp_path_factory, values):
    store = Store(tmp_path_factory.mktemp("store"))
    rows = [timing_row(job="a", wall_s=wall, arm_calls=calls, busy=busy) for wall, calls, busy in values]
    store.write_job("a", {"timings": rows})
    read = store.read("timings")
    assert [(w, list(c)) for w, c in zip(read["wall_s"], read["arm_calls"], strict=True)] == [
        (w, c) for w, c, _ in values
    ]
    assert [
        None if b is None or b != b else bool(b) for b in read["busy"].astype(object).where(read["busy"].notna(), None)
    ] == [b for _, _, b in values]


def test_writing_a_job_again_replaces_all_its_rows(tmp_path):
    store = Store(tmp_path)
    store.write_job("a", {"timings": [timing_row(job="a")], "mistakes": [mistake_row(job="a")]})
    store.write_job("a", {"timings": [timing_row(job="a", status="failed", error="x")]})
    assert store.read("mistakes").empty
    assert store.outcomes() == {"a": "failed"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wal_s": 1.0}, "Did you mean 'wall_s'"),
        ({"wall_s": "fast"}, "timings.wall_s must be double, got 'fast'"),
        ({"seed": 1.5}, r"timings.seed must be int64, got 1\.5"),
        ({"seed": True}, "timings.seed must be int64, got True"),
        ({"cpu": None}, "timings.cpu must have a value"),
        ({"status": "perhaps"}, "timings.status must be done, failed or stopped, got 'perhaps'"),
        ({"arm_calls": [1, None]}, "timings.arm_calls"),
        ({"started_at": datetime(2026, 1, 1)}, "timings.started_at"),
        ({"job": "b"}, "timings.job must be 'a'"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_and_nothing_is_written(tmp_path, change, message):
    store = Store(tmp_path)
    with pytest.raises(SchemaError, match=message):
        store.write_job("a", {"mistakes": [mistake_row(job="a")], "timings": [{**timing_row(job="a"), **change}]})
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize("moved", [1, 2, 3])
def test_a_job_is_not_done_while_its_tables_are_being_replaced(tmp_path, monkeypatch, moved):
    import os

    store = Store(tmp_path)
    rows = {"timings": [timing_row(job="a")], "mistakes": [mistake_row(job="a")]}
    store.write_job("a", rows)
    moves = []

    def stop(source, target):
        moves.append(target)
        if len(moves) == moved:
            raise OSError("the power went")
        real(source, target)

    real = os.replace
    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(OSError, match="power"):
        store.write_job("a", rows)
    monkeypatch.undo()
    assert store.outcomes() == {} and store.read("timings").empty
    assert not list(tmp_path.rglob("*.tmp"))
    store.write_job("a", rows)
    assert store.outcomes() == {"a": "done"} and len(store.read("mistakes")) == 1


def test_what_a_job_made_is_part_of_it_and_missed_when_it_is_gone(tmp_path):
    store, made = Store(tmp_path), job_folder(tmp_path, "t") / "checkpoint"
    made.mkdir(parents=True)
    (made / "manifest.json").write_text("{}")
    store.write_job("t", {"trials": [trial_row(job="t")]}, [made])
    assert set(store.done("t").files) == {"trials.parquet", "checkpoint/manifest.json"}
    assert store.outcomes() == {"t": "done"}
    (made / "manifest.json").unlink()
    assert store.outcomes() == {"t": "lost"} and len(store.read("trials")) == 1


def test_damaged_foreign_and_missing_tables_are_named(tmp_path):
    store = Store(tmp_path)
    store.write_job("a", {"timings": [timing_row(job="a")]})
    store.write_job("b", {"timings": [timing_row(job="b")]})
    part = job_folder(tmp_path, "a") / "timings.parquet"
    whole = part.read_bytes()
    for content in (whole[:-20], (job_folder(tmp_path, "b") / "timings.parquet").read_bytes()):
        part.write_bytes(content)
        with pytest.raises(InputError, match=r"a/timings\.parquet differs from what was written; delete the folder"):
            store.read("timings")
    part.unlink()
    with pytest.raises(InputError, match=r"a/timings\.parquet cannot be read \(No such file"):
        store.read("timings")
    unreadable = {}
    assert store.read("timings", unreadable=unreadable)["job"].tolist() == ["b"]
    assert list(unreadable) == [job_folder(tmp_path, "a")]


def test_a_damaged_done_file_and_that_of_another_job_are_named(tmp_path):
    store = Store(tmp_path)
    for job in ("a", "b"):
        store.write_job(job, {"timings": [timing_row(job=job)]})
    done = job_folder(tmp_path, "a") / "done.json"
    for content, message in (
        (done.read_text().replace('"done"', '"stopped"'), "differs from what was written"),
        ("{", "is damaged"),
        ((job_folder(tmp_path, "b") / "done.json").read_text(), "is not of the job a"),
    ):
        done.write_text(content)
        for look in (store.outcomes, lambda: store.read("timings")):
            with pytest.raises(InputError, match=message):
                look()
        unreadable = {}
        assert store.outcomes(unreadable=unreadable) == {"a": "damaged", "b": "done"}
        assert message in unreadable[job_folder(tmp_path, "a")]


def rewrite(store, job, table, change):
    """Change a table of a job as an earlier or later version of this package would have written it."""
    place = job_folder(store.root, job) / f"{table}.parquet"
    pq.write_table(change(pq.read_table(place)), place)
    files = {**store.done(job).files, place.name: hashlib.sha256(place.read_bytes()).hexdigest()}
    write_sealed(place.with_name("done.json"), {"job": job, "status": store.done(job).status, "files": files})


def test_a_newer_version_is_refused_and_an_older_one_read(tmp_path):
    store = Store(tmp_path)
    store.write_job("a", {"timings": [timing_row(job="a")]})
    older = {"table": "timings", "version": "2"}
    rewrite(store, "a", "timings", lambda table: table.drop_columns(["busy"]).replace_schema_metadata(older))
    assert store.read("timings")["busy"].isna().all()
    newer = {"table": "timings", "version": "99"}
    rewrite(store, "a", "timings", lambda table: table.replace_schema_metadata(newer))
    with pytest.raises(InputError, match="version 99 of its table, and this package knows version "):
        store.read("timings")
    rewrite(store, "a", "timings", lambda table: table.replace_schema_metadata({}))
    with pytest.raises(InputError, match="is not a part of a results table"):
        store.read("timings")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden"])
def test_names_that_leave_the_store_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="is named with letters"):
        job_folder(tmp_path, name)


def test_sweeps_are_kept_by_name_and_profile(tmp_path):
    store = Store(tmp_path)
    store.write_sweep({"sweep": "q", "profile": None, "jobs": []})
    store.write_sweep({"sweep": "q", "profile": "laptop", "jobs": []})
    assert sorted(store.sweeps()) == ["q", "q@laptop"]


def test_a_damaged_record_is_named_and_written_anew(tmp_path):
    store, record = Store(tmp_path), {"sweep": "q", "profile": None, "jobs": [{"id": "a", "dataset": "digits"}]}
    store.write_sweep(record)
    place = tmp_path / "sweeps" / "q.json"
    place.write_text(place.read_text().replace("digits", "bigits"))
    with pytest.raises(InputError, match=r"q\.json differs from what was written; delete it and run the sweep again"):
        store.sweeps()
    store.write_sweep(record)
    (tmp_path / "sweeps" / "other.json").write_bytes(place.read_bytes())
    with pytest.raises(InputError, match=r"other\.json is not the record of a sweep"):
        store.sweeps()


def hold(root, ready, done):
    with Store(root).locked():
        ready.set()
        done.wait(30)


def test_a_second_writer_is_refused(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, ready, done))
    other.start()
    try:
        assert ready.wait(30)
        holder = rf"another sweep is writing to the store .*\(process {other.pid} on .*, since 2.* UTC\)"
        with pytest.raises(InputError, match=holder), Store(tmp_path).locked():
            pass
    finally:
        done.set()
        other.join()
    with Store(tmp_path).locked():
        pass


def test_every_column_says_what_it_holds():
    for name, schema in SCHEMAS.items():
        assert schema.metadata[b"table"] == name.encode()
        for field in schema:
            assert set(field.metadata) == {b"unit", b"meaning"}


def test_trials_need_no_timings(tmp_path):
    store = Store(tmp_path)
    store.write_job("t", {"trials": [trial_row(job="t")]})
    assert store.read("timings").empty
    assert store.read("trials", columns=["job"])["job"].tolist() == ["t"]
