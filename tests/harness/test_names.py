"""What a sweep calls its jobs: whatever was run before on a store, a report shows what the file asks for now.

The bodies of jobs are made up here: what they find out follows from their settings alone.
"""

import functools
import hashlib
import itertools
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from harness.cli import main
from harness.execution import serial
from harness.jobs import checkpoint_of
from harness.report.selection import select
from harness.store import Store
from harness.sweep import TimingJob, load_sweep, make_plan
from tests.harness.rows import timing_row, trial_row

FAILING = 12
"""So many filters cannot be trained here."""


def made_up(job, root, **_):
    """A job in no time: its numbers follow from its settings, not from its id."""
    store = Store(root)
    if isinstance(job, TimingJob):
        known = repr((store.read("trials", jobs=[job.train_job])["parameters"].item(), job.samplers, job.seeds))
        shared = {"job": job.id, "train_job": job.train_job, "train_seed": job.train_seed}
        rows = [timing_row(wall_s=_number(known), **shared)]
        rows += [
            timing_row(wall_s=_number(f"{spec}{known}"), sampler=spec.described(), **shared)
            for spec in job.samplers[1:]
        ]
        return store.write_job(job.id, {"timings": rows})
    filters = job.arm.options["filters"]
    about = {"job": job.id, "seed": job.seed, "dataset_name": job.data.name, "arm_config": str(job.arm.options)}
    if filters == FAILING:
        return store.write_job(job.id, {"trials": [trial_row(**about, status="failed", error=f"Boom [{filters}]")]})
    place = checkpoint_of(root, job.id)
    place.mkdir(parents=True, exist_ok=True)
    (place / "manifest.json").write_text("{}")
    parameters = int(1e6 * _number(repr((filters, job.seed, job.data.name, job.training["iterations"]))))
    row = trial_row(**about, parameters=parameters, checkpoint_sha256="f" * 64)
    return store.write_job(job.id, {"trials": [row]}, [place])


def _number(text: str) -> float:
    return 1 + int(hashlib.sha256(text.encode()).hexdigest()[:6], 16) / 2**24


@pytest.fixture
def made_up_bodies(monkeypatch):
    monkeypatch.setattr(serial, "execute", functools.partial(serial.execute, run=made_up))
    monkeypatch.setattr(os, "fsync", lambda _: None)


@dataclass(frozen=True)
class File:
    """A sweep file: what each key stands for, in the order in which the keys stand there."""

    name: str = "p"
    datasets: dict[str, str] = field(default_factory=lambda: {"one": "digits", "two": "mnist5k"})
    variants: dict[str, int] = field(default_factory=lambda: {"narrow": 4, "broad": 8})
    seeds: tuple[int, ...] = (0,)
    sampler: str = "fixed_point"

    def write(self, place: Path) -> Path:
        place.write_text(
            yaml.safe_dump(
                {
                    "name": self.name,
                    "datasets": {key: {"name": name} for key, name in self.datasets.items()},
                    "variants": {key: {"arm": {"resnets": 1, "filters": size}} for key, size in self.variants.items()},
                    "training": {"iterations": 4, "seeds": list(self.seeds)},
                    "timing": {"samplers": ["ancestral", self.sampler], "batch_sizes": [2], "seeds": [0]},
                },
                sort_keys=False,
            )
        )
        return place


def sweep(file: Path, store: Path, *options: str):
    result = CliRunner().invoke(main, ["sweep", str(file), "--store", str(store), "--serial", *options])
    assert result.exit_code in (0, 1), result.output
    return result


def reported(found):
    """Everything that a report of a sweep says, as values that can be compared."""
    frames = [found.trials, found.runs, found.repetitions, found.unfinished]
    plain = [frame.astype(object).where(pd.notna(frame), None) for frame in frames]
    rows = [sorted(map(repr, frame.to_dict("records"))) for frame in plain]
    return [*rows, sorted(found.left_out), found.footnotes]


class Names(RuleBasedStateMachine):
    """Any files, one after the other on one store: each sweep's report is that of a store that has seen nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = self.new_folder()
        self.store = Store(self.folder / "store")
        self.now, self.earlier, self.last = File(), [File()], dict[str, tuple[Path, File]]()

    @initialize(name=st.sampled_from("pq"))
    def begin(self, name):
        self.now = replace(self.now, name=name)

    def change(self, data, **changes):
        """Edit the file, and run it; sometimes a part of it only, sometimes after the next edit."""
        self.now = replace(self.now, **changes)
        how = data.draw(st.sampled_from([None, None, "dataset", "variant", "not yet"]))
        if how != "not yet":
            self.run(how)

    @rule(draw=st.data(), where=st.sampled_from(["datasets", "variants"]), order=st.permutations([0, 1, 2]))
    def swap_what_keys_stand_for(self, draw, where, order):
        given = getattr(self.now, where)
        places = [place for place in (*order, *range(len(order), len(given))) if place < len(given)]
        values = [list(given.values())[place] for place in places]
        self.change(draw, **{where: dict(zip(given, values, strict=True))})

    @rule(draw=st.data(), where=st.sampled_from(["datasets", "variants"]))
    def reorder(self, draw, where):
        self.change(draw, **{where: dict(reversed(getattr(self.now, where).items()))})

    @rule(
        draw=st.data(),
        where=st.sampled_from(["datasets", "variants"]),
        name=st.sampled_from(["three", "broad", "narrow", "two"]),
    )
    def rename_the_first(self, draw, where, name):
        (_, value), *others = getattr(self.now, where).items()
        if name not in dict(others):
            self.change(draw, **{where: {name: value, **dict(others)}})

    @rule(draw=st.data(), filters=st.sampled_from([4, 8, FAILING]), key=st.sampled_from(["narrow", "broad", "wide"]))
    def resize(self, draw, filters, key):
        self.change(draw, variants={**self.now.variants, key: filters})

    @rule(draw=st.data(), key=st.sampled_from(["one", "two", "three"]), data=st.sampled_from(["digits", "mnist5k"]))
    def exchange_data(self, draw, key, data):
        self.change(draw, datasets={**self.now.datasets, key: data})

    @rule(draw=st.data(), where=st.sampled_from(["datasets", "variants"]))
    def drop_the_last(self, draw, where):
        given = list(getattr(self.now, where).items())
        self.change(draw, **{where: dict(given[: max(1, len(given) - 1)])})

    @rule(draw=st.data(), seeds=st.sampled_from([(0,), (0, 1)]), sampler=st.sampled_from(["fixed_point", "zeros"]))
    def time_otherwise(self, draw, seeds, sampler):
        self.change(draw, seeds=seeds, sampler=sampler)

    @rule(draw=st.data(), back=st.integers(1, 4))
    def revert(self, draw, back):
        self.change(draw, **vars(self.earlier[-min(back, len(self.earlier))]))

    @rule(draw=st.data(), name=st.sampled_from("pq"))
    def call_the_sweep_otherwise(self, draw, name):
        self.change(draw, name=name)

    def run(self, narrowed):
        file = self.now.write(self.folder / f"{self.now.name}-{len(self.earlier)}.yaml")
        key = next(iter(getattr(self.now, f"{narrowed}s"))) if narrowed else None
        sweep(file, self.store.root, *(["--only", f"{narrowed}={key}"] if narrowed else []))
        self.last[self.now.name] = file, self.now
        self.earlier.append(self.now)
        for name, (place, asked) in self.last.items():
            found = select(self.store, sweeps=[name])
            shown = pd.concat([found.trials, found.unfinished.query("kind == 'train'")])
            names = set(shown[["dataset", "variant", "seed"]].itertuples(index=False, name=None))
            assert names == set(itertools.product(asked.datasets, asked.variants, asked.seeds))
            assert reported(found) == reported(select(self.fresh(place), sweeps=[name]))

    def fresh(self, file: Path) -> Store:
        """A store on which the jobs of a file have run that are complete in the other one, and no others."""
        place = self.folder / "fresh"
        shutil.rmtree(place, ignore_errors=True)
        (place / "jobs").mkdir(parents=True)
        plan, outcomes = make_plan(load_sweep(file), {}), self.store.outcomes()
        for planned in plan.jobs:
            if planned.job.id in outcomes:
                (place / "jobs" / planned.job.id).symlink_to(self.alone(planned.job))
        Store(place).write_sweep(plan.record())
        return Store(place)

    def alone(self, job) -> Path:
        """The folder of a job that was run by itself: one for all jobs of these settings, whatever their id."""
        place = self.folder / "alone" / hashlib.sha256(job.model_dump_json(exclude={"title"}).encode()).hexdigest()
        if isinstance(job, TimingJob) and self.store.done(job.train_job).status == "failed":
            return self.store.root / "jobs" / job.id  # the driver's own row
        if not place.exists():
            if isinstance(job, TimingJob):
                (place / "jobs").mkdir(parents=True)
                (place / "jobs" / job.train_job).symlink_to(self.store.root / "jobs" / job.train_job)
            made_up(job, place)
        return place / "jobs" / job.id


def check_names(tmp_path_factory, examples: int, steps: int, *, derandomize: bool) -> None:
    Names.new_folder = staticmethod(lambda: tmp_path_factory.mktemp("names"))
    Names.TestCase.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=derandomize,
        deadline=None,
        phases=[Phase.generate],  # shrinking takes minutes: the steps of what failed are printed as they are
        suppress_health_check=list(HealthCheck),
    )
    Names.TestCase("runTest").runTest()


@pytest.mark.slow
@pytest.mark.usefixtures("made_up_bodies")
def test_any_files_one_after_the_other_are_each_reported_as_on_a_new_store(tmp_path_factory):
    check_names(tmp_path_factory, examples=5, steps=8, derandomize=True)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("made_up_bodies")
def test_very_many_files_are_each_reported_as_on_a_new_store(tmp_path_factory):
    check_names(tmp_path_factory, examples=100, steps=30, derandomize=False)


def models(store: Path, name: str) -> dict[str, int]:
    """dataset and variant -> the filters of the model that the report of a sweep shows."""
    trials = select(Store(store), sweeps=[name]).trials
    keys = zip(trials["dataset"], trials["variant"], trials["arm_config"], strict=True)
    return {
        f"{dataset} {variant}": int(config.partition("'filters': ")[2].partition(",")[0])
        for dataset, variant, config in keys
    }


@pytest.mark.usefixtures("made_up_bodies")
def test_variants_that_were_swapped_show_each_other_s_model(tmp_path):
    first, second = File(variants={"narrow": 8, "broad": 16}), File(variants={"broad": 8, "narrow": 16})
    sweep(first.write(tmp_path / "f.yaml"), tmp_path / "s")
    said = sweep(second.write(tmp_path / "f.yaml"), tmp_path / "s").output
    assert "0 of 8 jobs to run" in said and "Nothing to do" in said
    assert models(tmp_path / "s", "p") == {"one broad": 8, "one narrow": 16, "two broad": 8, "two narrow": 16}


@pytest.mark.usefixtures("made_up_bodies")
def test_a_setting_that_was_taken_back_shows_the_first_model(tmp_path):
    for filters in (8, 16, 8):
        sweep(File(variants={"base": filters}).write(tmp_path / "f.yaml"), tmp_path / "s")
        assert set(models(tmp_path / "s", "p").values()) == {filters}


@pytest.mark.usefixtures("made_up_bodies")
def test_a_sweep_in_parts_is_reported_whole(tmp_path):
    file = File().write(tmp_path / "f.yaml")
    sweep(file, tmp_path / "s", "--only", "dataset=one")
    found = select(Store(tmp_path / "s"), sweeps=["p"])
    assert set(found.trials["dataset"]) == {"one"} and set(found.unfinished["dataset"]) == {"two"}
    said = sweep(file, tmp_path / "s", "--only", "dataset=two").output
    assert "4 of 8 jobs to run" in said
    assert set(select(Store(tmp_path / "s"), sweeps=["p"]).trials["dataset"]) == {"one", "two"}


@pytest.mark.usefixtures("made_up_bodies")
def test_another_sweep_of_the_same_settings_has_a_report_of_its_own(tmp_path):
    sweep(File().write(tmp_path / "f.yaml"), tmp_path / "s")
    other = File(name="other", datasets={"renamed": "digits", "twin": "digits"})
    assert "Nothing to do" in sweep(other.write(tmp_path / "f.yaml"), tmp_path / "s").output
    assert models(tmp_path / "s", "other") == {
        "renamed narrow": 4, "renamed broad": 8, "twin narrow": 4, "twin broad": 8,
    }  # fmt: skip
    assert set(models(tmp_path / "s", "p")) == {
        f"{data} {variant}" for data in ("one", "two") for variant in ("narrow", "broad")
    }


def test_a_sweep_that_once_ran_from_another_folder_leaves_no_failures_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(serial, "execute", functools.partial(serial.execute, run=fail_without_data))
    file = File(datasets={"mine": "npz:mine.npz"}, variants={"base": 8}).write(tmp_path / "f.yaml")
    for folder in ("elsewhere", "here"):
        (tmp_path / folder).mkdir()
    (tmp_path / "here" / "mine.npz").write_bytes(b"images")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert sweep(file, tmp_path / "s").exit_code == 1
    monkeypatch.chdir(tmp_path / "here")
    assert sweep(file, tmp_path / "s").exit_code == 0
    status = CliRunner().invoke(main, ["status", "--store", str(tmp_path / "s")]).output
    assert status.count("done") == 2 and "failed" not in status
    found = select(Store(tmp_path / "s"), sweeps=["p"])
    assert len(found.trials) == 1 and len(found.repetitions) == 2 and not found.left_out


def fail_without_data(job, root, **options):
    if not Path("mine.npz").exists() and not isinstance(job, TimingJob):
        return Store(root).write_job(job.id, {"trials": [trial_row(job=job.id, status="failed", error="no data")]})
    return made_up(job, root, **options)


BRACKET = """
from arm_core import Layout

class Unreadable:
    layout = Layout(channels=1, height=8, width=8, categories=2)

    def __init__(self, root):
        raise RuntimeError("cannot open [/data/images] as list[int] :warning:")

    def split(self, name): ...
"""


def test_errors_that_look_like_markup_are_shown_as_they_stand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bracket_data.py").write_text(BRACKET)
    Path("f.yaml").write_text(
        'name: bracket\ndatasets: {bad: {name: "bracket_data.py:Unreadable"}}\n'
        "variants: {base: {arm: {resnets: 1, filters: 8}}}\ntraining: {iterations: 4, batch_size: 4}\n"
    )
    error = "RuntimeError: cannot open [/data/images] as list[int] :warning:"
    result = sweep(Path("f.yaml"), Path("s"))
    assert result.exit_code == 1 and error in result.output
    report = CliRunner().invoke(main, ["report", "--store", "s", "--out", "out", "--figures", "0"])
    assert report.exit_code == 0 and error in report.output.replace("\n", " ")
