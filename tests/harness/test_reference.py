"""The reference run and the tables of the README."""

import json
import subprocess

import pandas as pd
import pytest

from arm_core.errors import InputError
from harness import reference


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    known = {"host": "mine", "cpu": "made up", "cores": 2, "torch": "2.13", "commit": "0" * 40}
    monkeypatch.setattr(reference, "provenance", lambda: known)


def speedup_file(out):
    rows = [
        {"dataset": "digits", "sampler": sampler, "batch_size": size, "calls_percent": calls, "calls_percent_std": 0.5}
        | {"seconds": 0.1234, "seconds_std": 0.0321, "speedup": 100 / calls, "equal": True, "in_law": False}
        for sampler, calls in (("ancestral", 100.0), ("fixed point", 12.5))
        for size in (1, 8)
    ]
    out.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_parquet(out / "speedup.parquet")


def test_the_readme_gets_its_tables_between_its_markers(tmp_path):
    speedup_file(tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results of digits -->\nold\n<!-- end of results of digits -->\nafter\n")
    for _ in range(2):  # the second time it changes nothing more
        assert reference.fill_readme(readme, tmp_path) == ["results of digits"]
        text = readme.read_text()
        assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
        assert text.count("12.5 ± 0.5 %") == 2 and text.count("0.123 ± 0.032") == 4 and text.count("8x") == 2


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
        ran.append(command[3:])
        return subprocess.CompletedProcess(command, 0, stdout="first line\nlast line\n")

    monkeypatch.setattr(reference.subprocess, "run", run)
    monkeypatch.setattr(reference, "_checkpoints", lambda store, dataset: [f"{store}/jobs/{dataset}"])
    reference.run(tmp_path / "store", tmp_path / "results")
    said = json.loads((tmp_path / "results" / reference.RECORD).read_text())
    assert [item["said"] for item in said["commands"]] == ["last line"] * len(ran)
    for name in reference.SWEEPS:
        assert [command[0] for command in ran if f"sweeps/{name}.yaml" in command or name in command] == [
            "sweep",
            "report",
        ]
    assert str(tmp_path / "store") not in json.dumps(said) and "host" not in said["machine"]
    table = reference.wall_table(tmp_path / "results")
    assert "`harness sweep sweeps/table1.yaml --profile laptop`" in table and "STORE" not in table


def test_the_reference_run_ends_with_the_first_command_that_fails(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, stdout="")
    monkeypatch.setattr(reference.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(reference.click.ClickException, match="quickstart.yaml.*exit code 1"):
        reference.run(tmp_path / "store", tmp_path / "results")
