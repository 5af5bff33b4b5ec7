"""What Ray costs: the same trainings in three ways, and their ratios to the serial one."""

import pytest
from click.testing import CliRunner

from benchmarks import overhead
from harness.sweep import load_sweep, make_plan


def test_trainings_of_the_wanted_length_are_run_in_three_ways(monkeypatch):
    ran, walls = [], iter([20.0, 21.0, 11.0])

    def sweep(folder, spec, options):
        ran.append((spec, options))
        return next(walls), [5.0]

    monkeypatch.setattr(overhead, "available_cpus", lambda: 4)
    monkeypatch.setattr(overhead, "_step_seconds", lambda: 0.5)
    monkeypatch.setattr(overhead, "_sweep", sweep)
    result = CliRunner().invoke(overhead.main, ["--trials", "3", "--seconds", "10"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "3 trainings of 20 iterations with one thread each, on 4 cores"
    assert [line.split(" of serial")[0].split()[-1] for line in lines[1:]] == ["1.00", "1.05", "0.55"]
    assert "Ray, 3 at a time" in lines[3]
    assert ["--serial" in options for _, options in ran] == [True, False, False]
    assert [spec["resources"]["train"] for spec, _ in ran] == [{"cpus": cpus, "threads": 1} for cpus in (1, 4, 1)]


def test_its_sweep_is_one_that_plans(tmp_path, sample_data):
    file = tmp_path / "sweep.yaml"
    file.write_text(overhead.json.dumps(overhead._spec(4, 100, 2)))
    jobs = [planned.job for planned in make_plan(load_sweep(file), {}).jobs]
    assert [job.kind for job in jobs] == ["train"] * 4 and {job.training["iterations"] for job in jobs} == {100}


def test_one_core_is_refused(monkeypatch):
    monkeypatch.setattr(overhead, "available_cpus", lambda: 1)
    result = CliRunner().invoke(overhead.main, [])
    assert result.exit_code == 2 and "run this on a machine with two or more" in result.output


@pytest.mark.slow
def test_a_step_takes_some_time(sample_data):
    assert 0 < overhead._step_seconds() < 10
