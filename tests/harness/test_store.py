import multiprocessing
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arm_core import InputError
from harness.store import SCHEMAS, SchemaError, Store
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
        ({"dataset": None}, "timings.dataset must have a value"),
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


def test_a_job_is_not_done_while_its_parts_are_being_replaced(tmp_path, monkeypatch):
    import os

    store = Store(tmp_path)
    store.write_job("a", {"timings": [timing_row(job="a")], "mistakes": [mistake_row(job="a")]})
    moves = []

    def stop_at_the_second(source, target):
        moves.append(target)
        if len(moves) == 2:
            raise OSError("the power went")
        real(source, target)

    real = os.replace
    monkeypatch.setattr(os, "replace", stop_at_the_second)
    with pytest.raises(OSError, match="power"):
        store.write_job("a", {"timings": [timing_row(job="a")], "mistakes": [mistake_row(job="a")]})
    monkeypatch.undo()
    assert store.outcomes() == {}
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_torn_part_and_a_foreign_file_are_named(tmp_path):
    store = Store(tmp_path)
    store.write_job("a", {"timings": [timing_row(job="a")]})
    part = next(tmp_path.rglob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"a\.parquet cannot be read .*delete it and run the sweep again"):
        store.read("timings")
    import pandas as pd

    pd.DataFrame({"x": [1]}).to_parquet(part)
    with pytest.raises(InputError, match="is not a part of a results table"):
        store.read("timings")


def rewrite(part, change):
    table = pq.read_table(part)
    table = change(table)
    pq.write_table(table, part)


def test_a_newer_version_is_refused_and_an_older_one_read(tmp_path):
    store = Store(tmp_path)
    store.write_job("a", {"timings": [timing_row(job="a")]})
    part = next(tmp_path.rglob("*.parquet"))
    older = {"table": "timings", "version": "2"}
    rewrite(part, lambda table: table.drop_columns(["busy"]).replace_schema_metadata(older))
    assert store.read("timings")["busy"].isna().all()
    rewrite(part, lambda table: table.replace_schema_metadata({"table": "timings", "version": "99"}))
    with pytest.raises(InputError, match="version 99 of its table, and this package knows version "):
        store.read("timings")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden"])
def test_names_that_leave_the_store_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="is named with letters"):
        Store(tmp_path).job_dir(name)


def test_sweeps_are_kept_by_name_and_profile(tmp_path):
    store = Store(tmp_path)
    store.write_sweep({"sweep": "q", "profile": None, "jobs": []})
    store.write_sweep({"sweep": "q", "profile": "laptop", "jobs": []})
    assert sorted(store.sweeps()) == ["q", "q@laptop"]


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
        with pytest.raises(InputError, match="another sweep is writing"), Store(tmp_path).locked():
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
