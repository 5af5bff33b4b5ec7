"""The GPU run, on a CPU: rows, budget, faults, page, and the whole of it in small."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.meter import Measured, Meter, energy_counter, meter_for
from benchmarks.gpu.models import SIZES, SMALL, loudness, model_of, random_arm
from benchmarks.gpu.page import PAGE, TABLE, make_page, page_of, short
from benchmarks.gpu.plan import BUDGET_S, plan
from benchmarks.gpu.rows import COLUMNS, LINES, RowFile, frame_of, read_rows
from benchmarks.gpu.runner import (
    DeviceLostError,
    Item,
    NotThereError,
    OverrunError,
    Setting,
    attempt,
    run_items,
)
from benchmarks.gpu.summary import PAPER, timings, verdicts

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]


class FakeClock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def sleeper(self, seconds, row=None):
        def run(setting):
            self.now += seconds
            yield {"kind": "fact", "what": "slept", **(row or {})}

        return run


def run_all(items, clock, **options):
    rows = []
    run_items(items, Setting(CPU, True, Meter(clock), clock), rows.append, **options)
    return rows


def test_a_row_is_on_the_disk_before_the_next_one_is_found(tmp_path):
    with RowFile(tmp_path) as file:
        file.write({"question": "exact", "kind": "fact", "share": 0.5, "seconds": float("nan")})
        assert read_rows(tmp_path) == [{"question": "exact", "kind": "fact", "share": 0.5}]


def test_lines_that_were_cut_off_are_left_out(tmp_path):
    with RowFile(tmp_path) as file:
        file.write({"question": "exact"})
    with (tmp_path / LINES).open("a") as file:
        file.write('{"question": "ca\n')
        file.write('{"question": "training"}\n{"quest')
    assert [row["question"] for row in read_rows(tmp_path)] == ["exact", "training"]


def test_a_row_with_an_unknown_column_is_refused(tmp_path):
    with RowFile(tmp_path) as file, pytest.raises(KeyError, match=r"no columns: \['second'\]; they are question, item"):
        file.write({"second": 1.0})


def test_the_table_has_every_column_with_its_type():
    frame = frame_of([{"question": "exact", "share": 1, "held": True, "window": 28}])
    assert list(frame.columns) == list(COLUMNS)
    assert (frame["window"][0], frame["held"][0], frame["seconds"][0]) == (28.0, True, pd.NA)


@pytest.mark.slow
def test_a_failing_item_gives_its_earlier_rows_and_its_error_and_the_next_one_runs():
    def broken(setting):
        yield {"kind": "fact", "what": "before"}
        raise ValueError("too bad")

    clock = FakeClock()
    rows = run_all([Item("exact", "a", broken, 1), Item("calls", "b", clock.sleeper(1), 1)], clock, budget_s=10)
    assert [(row["item"], row["kind"]) for row in rows] == [("a", "fact"), ("a", "failed"), ("b", "fact")]
    assert rows[1]["error"].rstrip().endswith("ValueError: too bad")


def test_what_is_not_there_in_this_version_is_no_failure():
    def lacks(setting):
        raise NotThereError("no such thing")
        yield

    rows = run_all([Item("decoder", "a", lacks, 1)], FakeClock(), budget_s=10)
    assert [(row["kind"], row["note"]) for row in rows] == [("not there", "no such thing")]


@pytest.mark.slow
def test_items_that_would_end_after_the_budget_are_skipped_and_cheaper_ones_run():
    clock = FakeClock()
    items = [
        Item("exact", "long", clock.sleeper(70), 60),
        Item("sampling", "too long", clock.sleeper(60), 60),
        Item("training", "short", clock.sleeper(5), 5),
    ]
    rows = run_all(items, clock, budget_s=100)
    assert [(row["item"], row["kind"]) for row in rows] == [
        ("long", "fact"),
        ("too long", "skipped"),
        ("short", "fact"),
    ]
    assert rows[1]["note"] == "would take 60 s, 30 s left"
    assert [row["at_s"] for row in rows] == [70, 70, 75]


def test_reserved_items_keep_their_time_from_those_before_them():
    clock = FakeClock()
    items = [
        Item("sampling", "wants all", clock.sleeper(1), 95),
        Item("launches", "last", clock.sleeper(10), 10, reserved=True),
    ]
    rows = run_all(items, clock, budget_s=100)
    assert [(row["item"], row["kind"]) for row in rows] == [("wants all", "skipped"), ("last", "fact")]


def test_time_that_was_spent_before_counts():
    clock = FakeClock()
    rows = run_all([Item("exact", "a", clock.sleeper(1), 20)], clock, budget_s=100, spent_s=90)
    assert (rows[0]["kind"], rows[0]["at_s"]) == ("skipped", 90)


def test_an_item_that_takes_far_too_long_is_broken_off():
    def endless(setting):
        while True:
            pass
        yield

    rows = []
    setting = Setting(CPU, True, Meter())
    run_items([Item("exact", "endless", endless, 0.02)], setting, rows.append, budget_s=10)
    assert rows[0]["kind"] == "failed"
    assert "OverrunError: broken off after" in rows[0]["error"]


def test_a_part_of_an_item_may_fail_but_an_overrun_ends_the_item():
    setting = Setting(CPU, True, Meter())
    row = attempt(setting, {"what": "half"}, lambda: 1 / 0)
    assert (row["what"], row["kind"], "ZeroDivisionError" in row["error"]) == ("half", "failed", True)

    def overrun():
        raise OverrunError("enough")

    with pytest.raises(OverrunError):
        attempt(setting, {}, overrun)


def test_a_lost_device_ends_the_run_of_this_process_after_its_row(monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.runner.answers", lambda device: False)

    def broken(setting):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
        yield

    rows, clock = [], FakeClock()
    with pytest.raises(DeviceLostError, match="cpu answers no longer since a"):
        run_items([Item("exact", "a", broken, 1)], Setting(CPU, True, Meter(clock), clock), rows.append, budget_s=9)
    assert [row["kind"] for row in rows] == ["failed"]


def test_the_meter_of_a_cpu_reads_its_clock():
    clock = FakeClock()

    def work():
        clock.now += 2.5
        return "done"

    assert Meter(clock)(work) == Measured("done", 2.5, 2.5, None, None)
    assert type(meter_for(CPU)) is Meter


def test_without_nvml_there_is_no_energy():
    assert energy_counter(torch.device("cuda"))() is None


def test_random_weights_have_the_entropy_that_is_asked_for():
    logits = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    loud = (logits * loudness(logits, 1.2)).log_softmax(dim=-1)
    assert -(loud.exp() * loud).sum(dim=-1).mean().item() == pytest.approx(1.2, abs=1e-4)


def test_the_trained_arm_is_taken_where_it_is_and_random_weights_elsewhere():
    assert model_of(SIZES[0], CPU).trained
    assert not model_of(SMALL[0], CPU).trained
    size = SMALL[1]
    first, second = (random_arm(size.layout, size.config, size.nats).head.weight for _ in range(2))
    assert torch.equal(first, second)


def sampling_row(what, repetition, host_s, samples=4, **more):
    names = {"question": "sampling", "item": "a", "kind": "timed", "model": "R1 F20", "slots": 4, "trained": True}
    counts = {"calls": 10.0, "work": 2.0, "samples": samples, "repetition": repetition}
    return {**names, "size": "s", "what": what, **counts, "seconds": host_s, "host_s": host_s, **more}


def test_ratios_are_taken_repetition_by_repetition_and_by_the_sample():
    rows = [
        *(sampling_row(PAPER, k, 4.0 * (k + 1)) for k in range(3)),
        *(sampling_row("windows", k, 2.0, samples=8, window=28, mode="graph", joules=16.0) for k in range(3)),
        {**sampling_row("ancestral", None, 80.0), "kind": "once"},
    ]
    paper, windows, ancestral = timings(rows, "sampling")
    assert (windows.over_paper, windows.over_ancestral.median) == ((8, 4, 12), 80)
    assert (paper.host_s, windows.host_s, windows.joules) == (2.0, 0.25, 2.0)
    assert (ancestral.kind, ancestral.over_paper.median) == ("once", 0.1)
    found = verdicts([paper, windows, ancestral])
    assert [(one.paper.host_s, one.window.host_s) for one in found] == [(2.0, 0.25)]


def test_a_broken_promise_is_said_first():
    row = {"question": "exact", "item": "a", "kind": "checked", "what": "windows", "share": 0.75, "held": False}
    rows = [{**row, "amount": 3, "unit": "dims differ"}, {**row, "what": "ancestral", "share": 1.0, "held": True}]
    assert short(rows).startswith("* Exact: 1 of 2 promises held. **Not all.**")
    assert "|  |  | windows |  |  |  | 75.00% | **no** | 3 dims differ |" in page_of(rows)


def test_the_plan_fits_its_budget_but_for_what_matters_least():
    items = plan(small=False)
    assert len({item.name for item in items}) == len(items)
    asked = ["exact", "calls", "sampling", "training", "decoder"]
    assert list(dict.fromkeys(item.question for item in items))[:5] == asked
    first = next(place for place, item in enumerate(items) if item.question == "decoder")
    needed = sum(item.cost_s for item in items[: first + 1]) + sum(item.cost_s for item in items if item.reserved)
    assert needed <= BUDGET_S - 120


@pytest.mark.slow
def test_the_run_imports_nothing_that_a_gpu_machine_may_lack():
    lacks = ("ray", "pydantic", "seaborn", "beartype", "click", "rich", "harness", "yaml", "transformers")
    code = f"""
import sys
for name in {lacks}:
    sys.modules[name] = None
import benchmarks.gpu.__main__
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "fine\n", done.stderr


@pytest.mark.slow
def test_the_whole_run_in_small(tmp_path, capsys):
    main(["--small", "--device", "cpu", "--out", str(tmp_path), "--commit", "abc"])
    rows = read_rows(tmp_path)
    assert [row for row in rows if row["kind"] in ("failed", "skipped")] == []
    assert [row for row in rows if row.get("held") is False] == []
    same = [row["share"] for row in rows if row["question"] == "sampling" and "share" in row]
    assert len(same) > 10 and set(same) == {1.0}
    assert {row["question"] for row in rows} == {
        "machine", "exact", "calls", "sampling", "training", "decoder", "launches"
    }  # fmt: skip
    assert len(pd.read_parquet(tmp_path / TABLE)) == len(rows)
    written = (tmp_path / PAGE).read_text()
    assert "| commit | abc |" in written
    assert capsys.readouterr().out.rstrip().endswith(short(rows))
    (tmp_path / PAGE).unlink()
    assert make_page(tmp_path) == short(rows)
    assert (tmp_path / PAGE).read_text() == written


def test_a_folder_with_a_run_is_not_written_over(tmp_path):
    (tmp_path / LINES).write_text(json.dumps({"question": "machine", "item": "machine", "kind": "fact"}) + "\n")
    with pytest.raises(SystemExit, match="holds a run already"):
        main(["--small", "--device", "cpu", "--out", str(tmp_path)])


@pytest.mark.slow
def test_a_run_that_goes_on_does_only_what_is_left(tmp_path):
    done = [{"question": "exact", "item": item.name, "kind": "fact"} for item in plan(small=True)[:-1]]
    (tmp_path / LINES).write_text("".join(json.dumps(row) + "\n" for row in done))
    main(["--small", "--device", "cpu", "--out", str(tmp_path), "--began", "0", "--budget", "1e12"])
    assert {row["item"] for row in read_rows(tmp_path)[len(done) :]} == {plan(small=True)[-1].name}
