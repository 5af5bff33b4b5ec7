"""The reference run and the tables of the README."""

import json
import subprocess

import pandas as pd
import pytest

from arm_core.errors import InputError
from benchmarks import reference
from harness.report.statistics import speedup
from harness.store import Store
from tests.harness.rows import ANCESTRAL, FIXED_POINT, timing_row, trial_row, write_named
from tests.harness.test_statistics import repetitions


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    known = {"host": "mine", "cpu": "made up", "cores": 2, "torch": "2.13", "python": "3.11", "commit": "0" * 40}
    monkeypatch.setattr(reference, "provenance", lambda: known)


def speedup_file(out):
    ours = '{"forecaster": "fixed_point_above", "stream": true, "window": "auto"}'
    rows = []
    for seed in range(5):
        for size in (1, 8):
            for sampler, each in ((ANCESTRAL, 1.0), (FIXED_POINT, 0.5), (ours, 0.0625)):
                took = {"wall_s": each * size, "samples": size, "arm_calls": [4] * size, "arm_work": [4.0] * size}
                rows.append(timing_row(sampler=sampler, batch_size=size, seed=seed, **took))
    out.mkdir(exist_ok=True)
    speedup(repetitions(*rows)).to_parquet(out / "speedup.parquet")
    model = {"dataset": "digits", "shape": "1x8x8", "categories": 17, "test_bits_per_dim": 1.5}
    pd.DataFrame([model]).to_parquet(out / "models.parquet")
    machine = {"cpu": "made up", "cores": 2, "torch": "2.13", "python": "3.11"}
    ran = {"command": "harness sweep sweeps/quickstart.yaml --store STORE", "wall_s": 3.0, "commit": "abc" * 10}
    (out / reference.RECORD).write_text(json.dumps({"machine": machine, "commands": [ran]}))


def test_a_table_whose_results_are_missing_stays_and_is_named(tmp_path):
    speedup_file(tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- samplers -->\nold\n<!-- end of samplers -->\n")
    (found,) = reference.fill_readme(readme, tmp_path)
    assert "samplers left as it is" in found and "speedup.parquet" in found
    assert readme.read_text() == "<!-- samplers -->\nold\n<!-- end of samplers -->\n"


def test_the_readme_gets_its_tables_between_its_markers(tmp_path):
    speedup_file(tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results of digits -->\nold\n<!-- end of results of digits -->\nafter\n")
    for _ in range(2):  # the second time it changes nothing more
        assert reference.fill_readme(readme, tmp_path) == ["results of digits"]
        text = readme.read_text()
        assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
        assert "| ancestral " in text and "| fixed point above, auto window, slots |" in text
        assert text.count("over the paper's") == 2 and "8.00x" in text


def test_the_datasets_of_the_quickstart_stand_side_by_side_with_the_machine(tmp_path):
    speedup_file(tmp_path)
    table = reference.overview_table(tmp_path)
    assert table.splitlines()[-1] == "made up, 2 cores, no GPU; torch 2.13, Python 3.11; commit `abcabcabca`."
    cells = [cell.strip() for cell in table.splitlines()[2].split("|")[1:-1]]
    assert cells[:5] == ["`digits` (1x8x8, 17 categories)", "1.500", "8", "1000 (ancestral)", "500 (fixed point)"]
    assert len(cells) == 7 and cells[5] == "–" and cells[6] == "62.5 (fixed point above, auto window, slots)"  # noqa: RUF001


def test_the_checkpoints_of_the_ablations_are_found_in_their_store(tmp_path):
    store = Store(tmp_path / "store")
    names = {"sweep": "ablations", "dataset": "photos"}
    write_named(store, "a", {"trials": [trial_row(job="a", checkpoint="jobs/a/checkpoint")]}, **names)
    write_named(store, "b", {"trials": [trial_row(job="b", status="failed", error="x")]}, **names)
    assert reference._checkpoints(store.root, "photos") == [str(store.root / "jobs/a/checkpoint")]


@pytest.mark.parametrize(
    ("text", "said"), [("nothing", "has no marker"), ("<!-- results of digits -->", "has no <!-- end")]
)
def test_a_readme_without_markers_is_refused(tmp_path, text, said):
    speedup_file(tmp_path)
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(InputError, match=said):
        reference.fill_readme(tmp_path / "README.md", tmp_path)
    assert (tmp_path / "README.md").read_text() == text


def test_a_sweep_that_would_go_on_is_not_timed(tmp_path):
    with pytest.raises(InputError, match="give a new --store"):
        reference.run(tmp_path, tmp_path / "results")


def test_every_sweep_is_run_and_reported_and_its_wall_time_kept(tmp_path, monkeypatch):
    ran = []

    def run(command, **_):
        ran.append(command[2:])
        return subprocess.CompletedProcess(command, 0, stdout="first line\nlast line\n")

    monkeypatch.setattr(reference.subprocess, "run", run)
    monkeypatch.setattr(reference, "_checkpoints", lambda store, dataset: [f"{store}/jobs/{dataset}"])
    reference.run(tmp_path / "store", tmp_path / "results")
    said = json.loads((tmp_path / "results" / reference.RECORD).read_text())
    assert [item["said"] for item in said["commands"]] == ["last line"] * len(ran)
    for name in reference.SWEEPS:
        assert [command[1] for command in ran if f"sweeps/{name}.yaml" in command or name in command] == [
            "sweep",
            "report",
        ]
    assert str(tmp_path / "store") not in json.dumps(said) and "host" not in said["machine"]
    assert {item["commit"] for item in said["commands"]} == {"0" * 40}
    many = len(ran)
    said["commands"].pop(4)
    (tmp_path / "results" / reference.RECORD).write_text(json.dumps(said))
    Store(tmp_path / "store").write_sweep({"sweep": "table2", "profile": "laptop", "jobs": []})
    reference.run(tmp_path / "store", tmp_path / "results")
    assert len(ran) == many + 1 and ran[-1] == ran[4], "only what the record does not have"
    table = reference.wall_table(tmp_path / "results")
    assert table.count("in several goes") == 1, "table2 went on"
    assert "`harness sweep sweeps/table1.yaml --profile laptop`" in table and "STORE" not in table


def test_the_reference_run_ends_with_the_first_command_that_fails(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, stdout="")
    monkeypatch.setattr(reference.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(reference.click.ClickException, match="quickstart.yaml.*exit code 1"):
        reference.run(tmp_path / "store", tmp_path / "results")
