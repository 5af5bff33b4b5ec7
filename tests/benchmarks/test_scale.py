"""The benchmark of sweeps of very many jobs; how it runs on Ray is tests/harness/test_cluster.py's matter."""

from benchmarks import scale
from benchmarks.report import Cost
from harness.jobs import ended_rows
from harness.store import Store, job_folder
from harness.sweep import load_sweep, make_plan


def test_its_sweep_has_as_many_jobs_as_it_says_and_they_are_distinct(tmp_path):
    jobs = [planned.job for planned in make_plan(load_sweep(scale.write_sweep(tmp_path, 40)), {}).jobs]
    assert [job.kind for job in jobs] == ["train", "timing"] * 20 and len({job.id for job in jobs}) == 40


def test_seconds_a_job_are_told_by_when_jobs_ended(tmp_path, monkeypatch):
    """Twenty jobs that end a second apart, the last four of them ten seconds."""
    jobs = [planned.job for planned in make_plan(load_sweep(scale.write_sweep(tmp_path, 20)), {}).jobs]
    ends = [float(min(number, 16) + 10 * max(0, number - 16)) for number in range(20)]

    def run(name, arguments):
        store = Store(tmp_path / "run")
        for job, end in zip(jobs, ends, strict=True):
            folder = job_folder(store.root, job.id)
            if not folder.exists():
                store.write_job(job.id, ended_rows(job, store.root, "done"))
                scale.os.utime(folder / "done.json", (end, end))
        return Cost(name, 1.0, 0.5, 2**20)

    monkeypatch.setattr(scale, "cost", run)
    monkeypatch.setattr(scale, "emulated", lambda nodes: scale.tempfile.TemporaryDirectory())
    driver, parts = scale.measure_run(tmp_path, 20, 4)
    assert driver.line() == "sweep     1.00 s    0.50 s of CPU       1 MiB"
    assert parts[:3] == [1.0, 1.0, 1.0] and parts[-1] == 7.75
