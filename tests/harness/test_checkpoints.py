"""Checkpoints in sweeps: timed like trained ones, by their sha256; and `harness bench`, a sweep over one."""

import json
from dataclasses import replace

import pytest
import torch
import yaml
from click.testing import CliRunner

from arm_core import Layout, load_checkpoint, save_arm
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.forecasters import ForecastingConfig, ForecastingModules
from arm_core.latents import AutoencoderConfig, DiscreteAutoencoder
from arm_core.testing import randomise
from benchmarks.certified import near_ties
from harness.cli import main
from harness.commands.bench import samplers_of
from harness.jobs import run_job
from harness.jobs import timing as timings
from harness.report.selection import select
from harness.report.statistics import not_timed, speedup
from harness.store import Store
from harness.sweep import load_sweep, make_plan

LAYOUT = Layout(1, 8, 4, 2)
TIMING = "timing: {samplers: [ancestral, fixed_point, learned], batch_sizes: [2], seeds: [0, 1], figure_count: 2}\n"


def save(place, seed=0, *, modules=True, **extra):
    torch.manual_seed(seed)
    arm = PixelCNN(LAYOUT, PixelCNNConfig(resnets=1, filters=4))
    heads = ForecastingModules(LAYOUT, ForecastingConfig(2, 4), arm.hidden_features) if modules else None
    randomise(arm, seed=seed)
    save_arm(arm, place, modules=heads, metadata={"dataset_name": "tiny", "dataset_status": "sample"}, **extra)


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def sweep(folder, checkpoints, timing=TIMING):
    file = folder / "sweep.yaml"
    file.write_text(f"name: there\ncheckpoints: {json.dumps(checkpoints)}\n{timing}")
    return file


def only_job(file):
    (planned,) = make_plan(load_sweep(file), {}).jobs
    return planned.job


@pytest.mark.slow
def test_a_checkpoint_is_timed_and_reported_under_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("arm")
    file, store = sweep(tmp_path, {"mine": "arm"}), tmp_path / "store"
    ran = run("sweep", file, "--serial", "--store", store)
    assert ran.exit_code == 0, ran.output
    assert "Nothing to do" in run("sweep", file, "--serial", "--store", store).output
    found = select(Store(store), sweeps=["there"])
    assert set(found.repetitions["dataset"]) == {"mine"} and found.runs["data_status"].tolist() == ["sample"]
    assert set(found.runs["checkpoint_sha256"]) == {load_checkpoint("arm").sha256} and not found.left_out
    table = speedup(found.repetitions).set_index("sampler")
    assert set(table.index) == {"ancestral", "fixed point", "learned, T=2"} and table["equal"].all()
    report = run("report", "--store", store, "--out", "out", "--figures", 0)
    assert "mine, 2 at a time" in report.output and (tmp_path / "out" / "table1-sample.md").exists()


@pytest.mark.slow
def test_repairs_of_proved_samples_are_in_their_rows_and_in_the_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_arm(near_ties(Layout(3, 4, 4, 64)), "arm", metadata={"dataset_name": "ties", "dataset_status": "sample"})
    stream = "{forecaster: fixed_point, stream: true, window: 12"
    samplers = f"samplers: [ancestral, {stream}}}, {stream}, certified: true}}]"
    file = sweep(tmp_path, {"ties": "arm"}, f"timing: {{{samplers}, batch_sizes: [6], seeds: [0], figure_count: 2}}\n")
    ran = run("sweep", file, "--serial", "--store", "store")
    assert ran.exit_code == 0, ran.output
    rows = Store(tmp_path / "store").read("timings")
    _, plain, proved = (
        rows[~rows["is_warmup"] & (rows["sampler"] == each)].iloc[0]
        for each in dict.fromkeys(rows.sort_values("sampler", key=lambda names: names.map(len))["sampler"])
    )
    assert plain["repairs"] is None and (proved["repairs"] > 0).any()
    assert (proved["arm_work"] > plain["arm_work"] + 0.9 + proved["repairs"]).all(), "proofs and repairs are work"
    table = speedup(select(Store(tmp_path / "store")).repetitions)
    share = (proved["repairs"] > 0).mean()
    assert table["repaired"].dropna().tolist() == [pytest.approx(share)] and proved["exact_fraction"] == 1
    assert run("report", "--store", "store", "--out", "out", "--figures", 0).exit_code == 0
    assert f"same sample [{share:.1%} repaired]" in (tmp_path / "out" / "table1-sample.md").read_text()


def test_a_timing_is_of_the_weights_and_not_of_their_place(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save(tmp_path / name, seed)
    a, b, c = (only_job(sweep(tmp_path, {"mine": str(tmp_path / name)})) for name in "abc")
    assert a.id == b.id != c.id
    renamed = make_plan(load_sweep(sweep(tmp_path, {"yours": str(tmp_path / "a")})), {})
    assert renamed.jobs[0].job.id == a.id and renamed.names[0].dataset == "yours"


def test_a_checkpoint_that_changes_after_the_plan_fails(tmp_path):
    save(tmp_path / "arm")
    job = only_job(sweep(tmp_path, {"mine": str(tmp_path / "arm")}))
    save(tmp_path / "arm", seed=1)
    store = Store(tmp_path / "store")
    assert run_job(job, store.root, threads=1) == "failed"
    assert "has changed since the sweep was planned" in store.read("timings")["error"].item()


@pytest.mark.parametrize(
    ("checkpoints", "timing", "message"),
    [
        ({"mine": "nowhere"}, TIMING, "sweep.yaml:2: checkpoints.mine.path: nowhere is no checkpoint"),
        ({"mine": {"path": "arm", "arm": "x.py:Y"}}, TIMING, "checkpoints.mine.arm"),
        ({"mine": {"pth": "arm"}}, TIMING, "checkpoints.mine.pth: unknown key 'pth'. Did you mean 'path'"),
        ({"mine": "plain"}, TIMING, "needs forecasting modules, and the checkpoint 'mine' has none"),
        ({"mine": "arm"}, "", "checkpoints.mine: is only timed, and there is no `timing:`"),
        ({"mine": "arm"}, TIMING + "datasets: {mine: {name: digits}}\n", "is the name of a dataset too"),
        ({}, TIMING, "needs `datasets:` to train on, or `checkpoints:` to time"),
    ],
)
def test_a_checkpoint_that_cannot_be_timed_is_refused(tmp_path, monkeypatch, checkpoints, timing, message):
    monkeypatch.chdir(tmp_path)
    save("arm")
    save("plain", modules=False)
    result = run("sweep", sweep(tmp_path, checkpoints, timing), "--dry-run")
    assert result.exit_code == 2 and message in result.output


@pytest.mark.slow
def test_an_arm_of_a_class_of_ones_own_and_one_of_latents_are_timed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "from arm_core.arms import PixelCNN, PixelCNNConfig\n"
        "class Own(PixelCNN):\n"
        "    def __init__(self, layout, config: PixelCNNConfig):\n"
        "        super().__init__(layout, config)\n"
        "        self.granule = None\n"
    )
    from arm_core.registry import ARMS

    save_arm(ARMS.resolve("own.py:Own")(LAYOUT, PixelCNNConfig(resnets=1, filters=4)), "own")
    autoencoder = DiscreteAutoencoder(Layout(1, 16, 16, 4), AutoencoderConfig(width=8, channels=2, categories=3))
    arm = PixelCNN(autoencoder.latent_layout, PixelCNNConfig(resnets=1, filters=4))
    save_arm(arm, "latent", autoencoder=autoencoder)
    stream = "{forecaster: fixed_point_above, window: auto, stream: true}"
    timing = TIMING.replace("learned", stream)
    file = sweep(tmp_path, {"own": {"path": "own", "arm": "own.py:Own"}, "latent": "latent"}, timing)
    ran = run("sweep", file, "--serial", "--store", "store")
    assert ran.exit_code == 0, ran.output
    found = select(Store(tmp_path / "store"))
    assert found.runs.set_index("dataset")["kind"].to_dict() == {"own": "explicit", "latent": "latent"}
    names = found.repetitions.groupby("dataset")["label"].agg(set)
    assert "fixed point above, slots" in names["own"], "it has no windows, and is named as what ran"
    assert "fixed point above, auto window, slots" in names["latent"]


def test_a_sampler_that_differs_in_float64_fails_before_anything_is_timed(tmp_path, monkeypatch):
    save(tmp_path / "arm")
    job = only_job(
        sweep(tmp_path, {"mine": str(tmp_path / "arm")}, TIMING.replace("seeds", "float64_samples: 3, seeds"))
    )
    right = timings.make_sampler

    def wrong(spec, loaded):
        run = right(spec, loaded)
        if spec.forecaster != "fixed_point":
            return run

        def flipped(draw):
            trace = run(draw)
            x = trace.x.clone()
            x[-1, -1] ^= 1
            return replace(trace, x=x)

        return flipped

    monkeypatch.setattr(timings, "make_sampler", wrong)
    store = Store(tmp_path / "store")
    assert run_job(job, store.root, threads=1) == "failed"
    (error,) = store.read("timings")["error"]
    assert error == 'InputError: not the ancestral samples in float64: {"forecaster": "fixed_point"}. Nothing was timed'


@pytest.mark.slow
def test_every_sampler_of_the_bench_draws_the_ancestral_samples_in_float64(tmp_path):
    save(tmp_path / "arm")
    loaded = load_checkpoint(tmp_path / "arm", dtype=torch.float64)
    file = sweep(
        tmp_path, {"mine": str(tmp_path / "arm")}, yaml.safe_dump({"timing": {"samplers": samplers_of(loaded)}})
    )
    specs = only_job(file).samplers
    assert len(specs) == 14
    more = [each for each in samplers_of(loaded, native=True) if each not in samplers_of(loaded)]
    assert more == [
        {"sampler": "cached_sequential", "native": True},
        {"forecaster": "fixed_point_above", "window": "auto", "stream": True, "native": True},
    ]
    timings.check_in_float64(loaded, [timings.as_run(spec, loaded) for spec in specs], 3)


@pytest.mark.slow
def test_a_bench_is_a_sweep_that_is_run_and_reported(tmp_path):
    save(tmp_path / "arm")
    options = ["--slots", "1,2", "--repetitions", 2, "--samples-per-slot", 2, "--store", tmp_path / "store"]
    result = run("bench", tmp_path / "arm", "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert "tiny, 2 at a time" in result.output and "2 repetitions: intervals want 5" in result.output
    report = (tmp_path / "out" / "index.html").read_text()
    for note in ("uncommitted changes", "other processes used the machine"):  # the page's warnings, in the terminal too
        assert (note in report) == (note in result.output)
    assert (tmp_path / "out" / "figures" / "table1-sample-width.png").stat().st_size > 0
    rows = Store(tmp_path / "store").read("timings").query("not is_warmup")
    assert rows.groupby(["sampler", "batch_size"]).size().eq(2).all() and rows["sampler"].nunique() == 14
    streams = rows["sampler"].str.contains("stream")
    assert (rows["samples"] == rows["batch_size"] * (1 + streams)).all() and (rows["exact_fraction"] == 1).all()
    again = run("sweep", tmp_path / "out" / "sweep.yaml", "--serial", "--store", tmp_path / "store")
    assert "Nothing to do" in again.output


def test_what_takes_longer_than_the_patience_is_left_out_and_named_but_not_the_reference(tmp_path):
    save(tmp_path / "arm")
    timing = (
        "timing: {samplers: [ancestral, jacobi], batch_sizes: [1, 2], seeds: [0], figure_count: 1, patience: 1.0e-9}\n"
    )
    plan, store = (
        make_plan(load_sweep(sweep(tmp_path, {"tiny": str(tmp_path / "arm")}, timing)), {}),
        Store(tmp_path / "s"),
    )
    assert run_job(plan.jobs[0].job, store.root, threads=1) == "done"
    store.write_sweep(plan.record())
    table = speedup(select(store).repetitions)
    assert not_timed(table) == ["tiny: Jacobi was not timed at 2, by its run's patience."]
    assert sorted(table.loc[table["sampler"] == "ancestral", "batch_size"]) == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nowhere"], "is no checkpoint"), (["arm", "--slots", "1,x"], "--slots takes positive whole numbers")],
)
def test_a_bench_that_cannot_be_is_refused(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    save("arm")
    result = run("bench", *arguments)
    assert result.exit_code == 2 and message in result.output and not (tmp_path / "reports").exists()
