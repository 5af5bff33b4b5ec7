"""A store that is no folder: the same rows, one writer, checkpoints that are there as a whole or not."""

import json
import os
import shutil
import time

import pytest
from click.testing import CliRunner

from arm_core import InputError
from harness.cli import main
from harness.jobs import checkpoint_of
from harness.store import SCHEMAS, Store, checkpoints, writer
from harness.store.files import ArrowFiles
from harness.store.writer import NOTE, STALE_S
from tests.harness.objects import object_storage
from tests.harness.rows import mistake_row, timing_row, trial_row


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def uri(request, tmp_path):
    """The URI of an empty place; HARNESS_TEST_S3 names another one than our stand-in."""
    if request.param == "local":
        yield f"file://{tmp_path}/remote"
    elif "HARNESS_TEST_S3" in os.environ:
        address, _, options = os.environ["HARNESS_TEST_S3"].partition("?")
        yield f"{address}/{time.time_ns()}?{options}"
    else:
        with object_storage() as (place, _):
            yield place


@pytest.fixture
def store(uri, tmp_path):
    return Store(uri, work=tmp_path / "work")


def test_rows_on_another_file_system_are_those_that_were_written(store):
    store.write_job("t", {"trials": [trial_row(job="t")]})
    store.write_job("a", {"timings": [timing_row(job="a", wall_s=1.5)], "mistakes": [mistake_row(job="a")]})
    store.write_job("b", {"timings": [timing_row(job="b", status="failed", error="x")]})
    store.write_sweep({"sweep": "q", "profile": None, "jobs": []})
    assert store.read("timings")["job"].tolist() == ["a", "b"] and store.read("timings")["wall_s"].iloc[0] == 1.5
    assert store.outcomes() == {"t": "done", "a": "done", "b": "failed"} and store.parts() == {"t", "a", "b"}
    assert set(store.sweeps()) == {"q"} and store.read("curves").empty
    store.write_job("a", {"timings": [timing_row(job="a", status="failed", error="y")]})
    assert store.read("mistakes").empty and store.outcomes()["a"] == "failed"


def test_a_second_writer_is_refused_until_the_first_has_gone_or_died(store, uri, tmp_path):
    other = Store(uri, work=tmp_path / "elsewhere")
    with (
        store.locked(),
        pytest.raises(InputError, match=r"another sweep is writing to the store .*process \d+ on"),
        other.locked(),
    ):
        pass
    with other.locked():
        pass
    dead = {"token": "x", "host": "h", "pid": 1, "at": time.time() - STALE_S - 1}
    store.files.write(NOTE, json.dumps(dead).encode())
    with other.locked():
        pass


def test_a_checkpoint_is_there_when_its_manifest_is_and_equal_files_are_sent_once(store, tmp_path, monkeypatch):
    folder, back = tmp_path / "checkpoint", tmp_path / "back"
    folder.mkdir()
    (folder / "arm-0123.safetensors").write_bytes(b"weights")
    (folder / "manifest.json").write_text("{}")
    write, sent = ArrowFiles.write, []

    def stop_before_the_manifest(files, name, data):
        sent.append(name)
        if name.endswith("manifest.json") and len(sent) == 2:
            raise OSError("cut off")
        write(files, name, data)

    monkeypatch.setattr(ArrowFiles, "write", stop_before_the_manifest)
    with pytest.raises(OSError, match="cut off"):
        store.keep_checkpoint("t", folder)
    assert not checkpoints.exists(store.files, "t") and not store.bring_checkpoint("t", back)
    store.keep_checkpoint("t", folder)
    assert [name.rpartition("/")[2] for name in sent] == ["arm-0123.safetensors", "manifest.json", "manifest.json"]
    assert store.bring_checkpoint("t", back)
    assert {file.name: file.read_bytes() for file in back.iterdir()} == {
        "arm-0123.safetensors": b"weights",
        "manifest.json": b"{}",
    }


def test_a_writer_outlives_a_storage_that_does_not_answer_for_a_while(store, monkeypatch):
    monkeypatch.setattr(writer, "_RENEW_S", 0.05)
    write, failed = ArrowFiles.write, []

    def sometimes(files, name, data):
        if name == NOTE and len(failed) < 3 and store.files.names(""):
            failed.append(name)
            raise OSError("no answer")
        write(files, name, data)

    with store.locked():
        first = json.loads(store.files.read(NOTE))["at"]
        monkeypatch.setattr(ArrowFiles, "write", sometimes)
        deadline = time.time() + 20
        while json.loads(store.files.read(NOTE))["at"] == first:
            assert time.time() < deadline, "the note is not renewed any more"
            time.sleep(0.05)
        assert len(failed) == 3


def test_a_writer_leaves_the_note_of_another_one_alone(store):
    with store.locked():
        store.files.write(NOTE, json.dumps({"token": "x", "host": "h", "pid": 1, "at": time.time()}).encode())
    assert json.loads(store.files.read(NOTE))["token"] == "x"


def test_a_folder_is_its_own_working_place(tmp_path):
    with pytest.raises(InputError, match="leave --work out"):
        Store(tmp_path / "store", work=tmp_path / "work")


def test_the_secrets_of_a_uri_are_not_shown(uri):
    assert "user:" not in Store(uri).place and "user" not in str(Store(uri).root)
    assert "user:" not in Store(uri).files.label("x")


def test_a_place_that_nobody_knows_is_refused():
    with pytest.raises(InputError, match="the store nowhere://x cannot be reached"):
        Store("nowhere://x")


@pytest.mark.slow
def test_a_sweep_on_object_storage_goes_on_elsewhere_with_the_checkpoints_that_it_finds_there(
    small_sweep, tmp_path, sample_data
):
    def sweep(*options):
        return CliRunner().invoke(main, ["sweep", str(small_sweep), "--serial", *options])

    with object_storage() as (uri, objects):
        text = small_sweep.read_text()
        small_sweep.write_text(text.split("timing:")[0])
        first = sweep("--store", uri, "--work", str(tmp_path / "here"))
        assert first.exit_code == 0, first.output
        assert any(key.endswith("manifest.json") for key in objects)
        shutil.rmtree(tmp_path / "here")  # another machine
        small_sweep.write_text(text)
        second = sweep("--store", uri, "--work", str(tmp_path / "there"))
        assert second.exit_code == 0 and "1 of 2 jobs to run" in second.output, second.output
        report = CliRunner().invoke(main, ["report", "--store", uri, "--out", str(tmp_path / "out")])
        assert report.exit_code == 0 and "fixed point" in report.output, report.output
        store, alone = Store(uri, work=tmp_path / "there"), Store(tmp_path / "alone")
        assert sweep("--store", str(alone.root)).exit_code == 0
        for name in SCHEMAS:
            assert store.read(name)["job"].tolist() == alone.read(name)["job"].tolist()
        (job,) = store.read("trials")["job"]
        assert checkpoint_of(store.root, job).exists()


def test_a_writer_whose_store_was_taken_over_writes_nothing_more(store):
    store.write_job("t", {"trials": [trial_row(job="t")]})
    with store.locked():
        store.write_job("t", {"trials": [trial_row(job="t", seed=1)]})
        taken = {"token": "x", "host": "elsewhere", "pid": 17, "at": time.time()}
        store.files.write(NOTE, json.dumps(taken).encode())
        with pytest.raises(InputError, match=r"process 17 on elsewhere has taken over the store .*; nothing more is"):
            store.write_job("t", {"trials": [trial_row(job="t", seed=2)]})
    assert store.read("trials")["seed"].tolist() == [1]


@pytest.mark.slow
def test_a_storage_that_refuses_is_told_with_the_line_that_goes_on(small_sweep, tmp_path, sample_data):
    small_sweep.write_text(small_sweep.read_text().split("timing:")[0])
    refused = ["tables/trials"]
    with object_storage(refused) as (uri, _):
        command = ["sweep", str(small_sweep), "--serial", "--store", uri, "--work", str(tmp_path / "work")]
        told = CliRunner().invoke(main, command)
        assert told.exit_code == 2 and isinstance(told.exception, SystemExit), told.output
        assert "s3://bucket/runs/tables/trials/" in told.output and "ACCESS_DENIED" in told.output
        assert "What was finished is kept; see to it, then: harness sweep" in told.output
        assert "secret" not in told.output.split("then: ")[0]
        refused.clear()
        again = CliRunner().invoke(main, command)
        assert again.exit_code == 0 and "1 jobs done, 0 failed" in again.output, again.output
