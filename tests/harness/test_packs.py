"""Compaction: one file instead of many, and no difference for whoever reads."""

import os

import pytest
from click.testing import CliRunner

from arm_core import InputError
from harness.cli import main
from harness.store import SCHEMAS, Store
from harness.store.files import LocalFiles
from harness.store.packs import INDEX
from tests.harness.rows import mistake_row, timing_row, trial_row


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    for job in "cab":
        store.write_job(
            job, {"timings": [timing_row(job=job, seed=seed) for seed in (0, 1)], "mistakes": [mistake_row(job=job)]}
        )
    store.write_job("t", {"trials": [trial_row(job="t")]})
    return store


def seen(store):
    tables = {name: store.read(name).to_json(default_handler=str) for name in SCHEMAS}
    return tables, store.read("timings", jobs=["b", "c"], first=1)["job"].tolist(), store.outcomes(), store.parts()


def parts_of(store):
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*.parquet"))


def test_a_compacted_store_reads_as_before_from_one_file(store):
    before = seen(store)
    result = CliRunner().invoke(main, ["compact", "--store", str(store.root)])
    assert result.exit_code == 0 and "7 parts in one file" in result.output
    assert not parts_of(store) and len(list(store.root.glob("packs/*.pack"))) == 1
    assert seen(store) == before
    store.compact()
    assert seen(store) == before and len(list(store.root.glob("packs/*.pack"))) == 1


def test_a_job_that_is_written_again_replaces_what_is_packed(store):
    store.compact()
    store.write_job("a", {"timings": [timing_row(job="a", status="failed", error="x")]})
    assert store.outcomes()["a"] == "failed" and set(store.read("mistakes")["job"]) == {"b", "c"}
    assert store.read("timings")["job"].tolist() == ["a", "b", "b", "c", "c"]
    before = seen(store)
    store.compact()
    assert seen(store) == before and not parts_of(store)


@pytest.mark.parametrize("last", [0, 1, 2, 5, 8])
def test_a_compaction_that_is_cut_off_anywhere_loses_nothing(store, monkeypatch, last):
    before, done = seen(store), []

    def until(act):
        def stop(*arguments):
            if len(done) == last:
                raise OSError("the power went")
            done.append(arguments)
            return act(*arguments)

        return stop

    monkeypatch.setattr(LocalFiles, "write", until(LocalFiles.write))
    monkeypatch.setattr(LocalFiles, "remove", until(LocalFiles.remove))
    with pytest.raises(OSError, match="the power went"):
        store.compact()
    monkeypatch.undo()
    assert seen(store) == before
    store.compact()
    assert seen(store) == before and not parts_of(store)


def test_a_rewrite_that_is_cut_off_does_not_bring_the_packed_rows_back(store, monkeypatch):
    store.compact()
    real = os.replace

    def stop_at_parts(source, target):
        if str(target).endswith(".parquet"):
            raise OSError("the power went")
        real(source, target)

    monkeypatch.setattr(os, "replace", stop_at_parts)
    with pytest.raises(OSError, match="power"):
        store.write_job("a", {"timings": [timing_row(job="a")], "mistakes": [mistake_row(job="a")]})
    monkeypatch.undo()
    assert "a" not in store.outcomes()


def test_a_damaged_index_is_named_and_nothing_is_read_by_it(store):
    store.compact()
    index = store.root / INDEX
    index.write_bytes(index.read_bytes().replace(b"tables/timings/a", b"tables/timings/z"))
    with pytest.raises(InputError, match=r"index\.json differs from what was written"):
        store.outcomes()


def test_the_index_is_read_once_for_all_the_parts_of_a_table(store, monkeypatch):
    store.compact()
    fresh, read, asked = Store(store.root), LocalFiles.read, []

    def counted(files, name, *place):
        asked.append(name)
        return read(files, name, *place)

    monkeypatch.setattr(LocalFiles, "read", counted)
    assert len(fresh.read("timings")) == 6
    assert asked.count(INDEX) == 1
    other = Store(store.root)
    other.write_job("a", {"timings": [timing_row(job="a", wall_s=9.0)]})
    other.compact()  # another process packs anew while this one still has the old index
    (old,) = (entry for entry in {place[0] for place in fresh.files._known.values()})
    assert not (store.root / old).exists()
    assert fresh.files.read("tables/timings/b.parquet") == other.files.read("tables/timings/b.parquet")


def test_an_empty_store_is_compacted_to_nothing(tmp_path):
    assert Store(tmp_path).compact() == 0 and not list(tmp_path.iterdir())


def test_packs_without_their_index_are_refused_not_read_as_an_empty_store(store):
    store.compact()
    (store.root / INDEX).unlink()
    with pytest.raises(InputError, match="is gone, and the files that it names are in the packs beside it"):
        Store(store.root).read("timings")
