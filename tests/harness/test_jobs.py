import json
from dataclasses import asdict, replace

import pytest
import torch

from arm_core import Checkpoint, InputError, Layout, load_checkpoint, predictive_sample, sample_noise
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.data import load_dataset
from arm_core.forecasters import fixed_point
from arm_core.samplers import jacobi_sample
from arm_core.testing import randomise
from harness.jobs import checkpoint_of, ended_rows, job_folder, run_job
from harness.jobs.clock import clock_for
from harness.jobs.progress import Reporter, read_progress
from harness.jobs.sampling import Draw, as_run, dims_per_call, make_sampler
from harness.jobs.timing import Bench, time_samplers
from harness.report.selection import select
from harness.report.statistics import speedup
from harness.store import Store
from harness.sweep import SamplerSpec, load_sweep, make_plan
from tests.arm_core.test_certified import LAYOUT, SEED, near_ties
from tests.arm_core.test_native import Operations
from tests.conftest import ConstantArm, SpanTableArm, TableArm, needs_compiler
from tests.harness.rows import ANCESTRAL


class LabelledTableArm(TableArm):
    """A label shifts the logits of every second dimension; -1, and no context, is no label."""

    def forward(self, x, context=None):
        output = super().forward(x)
        if context is None:
            return output
        shift = torch.linspace(0, 3, self.layout.dims * self.layout.categories, dtype=torch.float64).sin()
        label = (context + 1).to(torch.float64)[:, None, None]
        return output._replace(logits=output.logits + 2 * label * shift.view(self.layout.dims, -1))


def jobs_of(file, **options):
    return [planned.job for planned in make_plan(load_sweep(file, **options), {}).jobs]


def run_both(file, tmp_path):
    """The store of a training and its timing that have run, and their plan."""
    store, plan = Store(tmp_path / "store"), make_plan(load_sweep(file), {})
    for planned in plan.jobs:
        status = run_job(planned.job, store.root, threads=1)
        assert status == "done", (job_folder(store.root, planned.job.id) / "log.txt").read_text()
    return store, plan


def test_progress_survives_its_file_and_estimates_what_is_left(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("harness.jobs.progress.time.time", lambda: now[0])
    reporter = Reporter(tmp_path, "id", "train", "digits", unit="iterations")
    assert read_progress(tmp_path) is None
    reporter.update(10, 110, metrics={"bits/dim": 1.5})
    now[0] += 0.1
    reporter.update(11, 110)  # too soon: not written
    assert read_progress(tmp_path).step == 10
    now[0] += 9.9
    reporter.update(30, 110)
    progress = read_progress(tmp_path)
    assert (progress.step, progress.seconds_left, progress.state) == (30, 40.0, "running")
    reporter.end("done")
    assert read_progress(tmp_path).step == 110
    (tmp_path / "progress.json").write_text("{torn")
    assert read_progress(tmp_path) is None


def test_the_cpu_clock_measures_and_passes_the_result_on(monkeypatch):
    times = iter([5.0, 7.5])
    monkeypatch.setattr("harness.jobs.clock.time.perf_counter", lambda: next(times))
    assert clock_for(torch.device("cpu"))(lambda: "x") == ("x", 2.5)


def test_the_cuda_clock_synchronises_before_and_after(monkeypatch):
    said = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            said.append("record")

        def elapsed_time(self, end):
            said.append("elapsed")
            return 1500.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: said.append("synchronize"))
    result = clock_for(torch.device("cuda"))(lambda: said.append("run"))
    assert result == (None, 1.5)
    assert said == ["synchronize", "record", "run", "record", "synchronize", "elapsed"]


@pytest.mark.slow
def test_a_training_and_its_timing_leave_rows_that_fit_the_tables(small_sweep, tmp_path):
    store, plan = run_both(small_sweep, tmp_path)
    train = plan.jobs[0].job
    trial = store.read("trials").iloc[0]
    assert trial["iterations"] == 4 and trial["dataset_status"] == "sample" and trial["threads"] == 1
    assert store.read("curves")["step"].tolist() == [2, 4]
    dataset = load_dataset("digits")
    about = {"dataset_name": "digits", "dataset_variant": "17 levels", "dataset_status": "sample"}
    for table in ("trials", "curves", "timings", "mistakes", "samples"):
        for column, value in {**about, "dataset_sha256": dataset.sha256}.items():
            assert (store.read(table)[column] == value).all(), (table, column)
    assert trial["dataset_split"] == "drawn by class, seed 0"
    checkpoint = load_checkpoint(checkpoint_of(store.root, train.id))
    assert checkpoint.sha256 == trial["checkpoint_sha256"]
    timings = store.read("timings")
    timed = timings[~timings["is_warmup"]]
    assert len(timed) == 4 * 2 * 3
    assert (timed["exact_fraction"] == 1).all()
    assert (timed["checkpoint_sha256"] == checkpoint.sha256).all()
    ancestral = timed[timed["sampler"] == ANCESTRAL]
    assert all(calls.tolist() == [64] * len(calls) for calls in ancestral["arm_calls"])
    assert timings["run_order"].tolist() == list(range(len(timings)))
    orders = {tuple(group["sampler"]) for _, group in timed.groupby(["seed", "batch_size"])}
    assert len(orders) > 1, "the order of the samplers must change between rounds"
    samples = store.read("samples")
    assert samples["exact"].all() and len(samples) == 4 * 4
    assert len(store.read("mistakes")) == 4 * 64


@pytest.mark.parametrize("sampler", ["sjd", "scd", "pac"])
@pytest.mark.parametrize("stream", [False, True])
def test_samplers_by_drafts_are_drawn_as_they_are_described_and_every_call_of_theirs_is_counted(sampler, stream):
    arm = SpanTableArm(Layout(1, 4, 6, 3), 1)
    checkpoint = Checkpoint(arm, None, None, {}, "")
    spec = as_run(SamplerSpec(sampler=sampler, first="row_above", stream=stream), checkpoint)
    assert spec.window == "row" and spec.in_law and spec.needs_spans
    trace = make_sampler(spec, checkpoint)(Draw.of(arm, 0, 3, 7))
    assert trace.x.shape == (7 if stream else 3, 24) and int(trace.window.max()) == 6
    counts = dims_per_call(trace)
    assert sum(counts) == int(trace.arm_calls.sum())
    assert sum(dims * calls for dims, calls in enumerate(counts)) == trace.x.numel()
    wrong = dims_per_call(trace, mistaken=True)
    assert sum(wrong) == int(trace.mistakes.sum()) > 0
    assert all(calls <= counts[dims] for dims, calls in enumerate(wrong))


def test_a_histogram_leaves_out_what_was_known_and_has_calls_that_confirm_nothing():
    arm, known = SpanTableArm(Layout(1, 3, 4, 2), 1), torch.zeros(2, 5, dtype=torch.int64)
    noise = sample_noise(arm.layout, seed=0, sample_ids=range(2), dtype=torch.float64)
    trace = predictive_sample(arm, noise, fixed_point, window=4, prefix=known)
    counts = dims_per_call(trace)
    assert counts[0] >= 2 and sum(counts) == int(trace.arm_calls.sum())
    assert sum(dims * calls for dims, calls in enumerate(counts)) == 2 * (12 - 5)
    assert dims_per_call(jacobi_sample(arm, noise))[0] >= 2, "the call that confirms"


@pytest.mark.parametrize("window", ["row", 6])
def test_a_window_of_a_row_is_one_of_as_many_dims(window):
    arm = SpanTableArm(Layout(2, 4, 3, 3), 2)
    checkpoint = Checkpoint(arm, None, None, {}, "")
    spec = as_run(SamplerSpec(forecaster="fixed_point_above", window=window, stream=True), checkpoint)
    assert spec.window == window and spec.needs_spans
    assert int(make_sampler(spec, checkpoint)(Draw.of(arm, 0, 2, 3)).window.max()) == 6


@pytest.mark.parametrize("decision", [{}, {"temperature": 0.5, "top_k": 1}, {"top_p": 0.7, "min_p": 0.1}])
def test_every_sample_is_compared_those_too_that_the_reference_did_not_draw(decision):
    arm = TableArm(Layout(1, 3, 3, 2))
    spec = SamplerSpec(forecaster="fixed_point", stream=True, **decision)
    bench = Bench.__new__(Bench)
    bench.arm, bench.checkpoint = arm, Checkpoint(arm, None, None, {}, "")
    trace = make_sampler(spec, bench.checkpoint)(Draw.of(arm, 0, 4, 40))
    ancestral = make_sampler(SamplerSpec(sampler="ancestral", **decision), bench.checkpoint)(Draw.of(arm, 0, 2))
    known = {json.dumps(spec.decision, sort_keys=True): ancestral.x}
    row = {"seed": 0}
    assert bench._compared(spec, row, trace, known)["exact_fraction"] == 1
    for wrong in (1, 2, 39):  # among the known ones, just after them, and in the last part
        x = trace.x.clone()
        x[wrong, 4] ^= 1
        found = bench._compared(spec, row, replace(trace, x=x), known)
        assert found["exact_fraction"] == 39 / 40 and found["smallest_gap"] > 0, wrong
    assert "exact_fraction" not in bench._compared(spec.model_copy(update={"resampled": True}), row, trace, known)


def test_guidance_and_classes_reach_every_sampler():
    arm = LabelledTableArm(Layout(1, 3, 3, 2))
    checkpoint = Checkpoint(arm, None, None, {}, "")
    drawn = {}
    for guidance, context in ((None, None), (None, 1), (None, 2), (2.0, 1)):
        settings = {"guidance": guidance, "context": context}
        specs = [{"sampler": "ancestral"}, {"forecaster": "zeros"}, {"forecaster": "fixed_point", "stream": True}]
        found = [make_sampler(SamplerSpec(**spec, **settings), checkpoint)(Draw.of(arm, 0, 3)).x for spec in specs]
        assert all(torch.equal(found[0], x) for x in found), settings
        drawn[guidance, context] = found[0]
    names = list(drawn)
    assert not any(torch.equal(drawn[a], drawn[b]) for a in names for b in names if a != b)


@pytest.mark.slow
def test_seconds_come_from_the_clock_alone_and_the_state_of_the_device_from_when_they_were_taken(
    small_sweep, tmp_path, monkeypatch
):
    from harness.jobs import timing as timings

    train, timing = jobs_of(small_sweep)
    run_job(train, tmp_path, threads=1)
    folder = job_folder(tmp_path, timing.id)
    folder.mkdir(parents=True)
    taken = []

    def clock(run):
        taken.append(1)
        return run(), 42.0

    def state(device):
        return {"clock_mhz": float(len(taken)), "device_processes": 1000}

    monkeypatch.setattr(timings, "device_state", state)
    rows = time_samplers(timing, folder, checkpoint_of(tmp_path, train.id), clock=clock)["timings"]
    assert {row["wall_s"] for row in rows} == {42.0}
    assert {(row["clock_mhz"], row["device_processes"]) for row in rows} == {(len(taken), 1000)} and len(taken) > 1


def cut_at(monkeypatch, job, root, *, step):
    """Run a job, and end it as Ctrl-C does when it has taken so many steps."""
    real = Reporter.update

    def cut(self, at, total, **rest):
        if at == step:
            raise KeyboardInterrupt
        real(self, at, total, **rest)

    monkeypatch.setattr(Reporter, "update", cut)
    with pytest.raises(KeyboardInterrupt):
        run_job(job, root, threads=1)
    monkeypatch.undo()


@pytest.mark.slow
def test_a_training_that_was_cut_off_ends_with_the_same_bits(small_sweep, tmp_path, monkeypatch):
    train, _ = jobs_of(small_sweep)
    run_job(train, tmp_path / "whole", threads=1)
    cut_at(monkeypatch, train, tmp_path / "cut", step=3)
    states = list(job_folder(tmp_path / "cut", train.id).glob("state-*"))
    assert len(states) == 1
    assert run_job(train, tmp_path / "cut", threads=1) == "done"
    first, second = (load_checkpoint(checkpoint_of(tmp_path / name, train.id)) for name in ("whole", "cut"))
    for name, value in first.arm.state_dict().items():
        assert torch.equal(value, second.arm.state_dict()[name])
    curves = [
        Store(tmp_path / name).read("curves", columns=["step", "valid_bits_per_dim"]) for name in ("whole", "cut")
    ]
    assert len(curves[0]) == 2 and curves[0].equals(curves[1])


@pytest.mark.slow
def test_a_damaged_newest_state_is_passed_over(small_sweep, tmp_path, monkeypatch):
    small_sweep.write_text(small_sweep.read_text().replace("iterations: 4", "iterations: 6"))
    train, _ = jobs_of(small_sweep)
    run_job(train, tmp_path / "whole", threads=1)
    cut_at(monkeypatch, train, tmp_path / "cut", step=5)
    folder = job_folder(tmp_path / "cut", train.id)
    assert {place.name for place in folder.glob("state-*")} == {"state-0", "state-1"}  # of steps 4 and 2
    weights = next((folder / "state-0").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    assert run_job(train, tmp_path / "cut", threads=1) == "done"
    assert "damaged" in (folder / "log.txt").read_text()
    assert not list(folder.glob("state-*")), "a finished training needs no states"
    files = Store(tmp_path / "cut").done(train.id).files
    assert {name.split("/")[0] for name in files} == {
        "trials.parquet",
        "curves.parquet",
        "checkpoint",
        "checkpoint-best",
    }
    ends = [load_checkpoint(checkpoint_of(tmp_path / name, train.id)).arm.state_dict() for name in ("whole", "cut")]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_a_failing_job_leaves_a_failed_row_and_its_traceback(small_sweep, tmp_path):
    file = small_sweep.with_name("bad.yaml")
    file.write_text(
        "name: bad\ndatasets: {digits: {}}\ntraining: {iterations: 3, learning_rate: 1e20}\nvariants: {default: {arm: {resnets: 1, filters: 2}}}\n"
    )
    (train,) = jobs_of(file)
    assert run_job(train, tmp_path, threads=1) == "failed"
    row = Store(tmp_path).read("trials").iloc[0]
    assert row["error"].startswith("DivergedError: the loss became")
    assert "Traceback" in (job_folder(tmp_path, train.id) / "log.txt").read_text()
    assert read_progress(job_folder(tmp_path, train.id)).state == "failed"
    Store(tmp_path).write_job(train.id, ended_rows(train, tmp_path, "failed", "x"))
    assert asdict(read_progress(job_folder(tmp_path, train.id)))["title"] == "digits seed 0"


FORECASTERS = """
from dataclasses import dataclass

def copy_left(state):
    return state.outputs.roll(state.layout.channels, dims=1)

@dataclass(frozen=True)
class Config:
    value: int = 0

class Always:
    def __init__(self, layout, config: Config):
        self.layout, self.value = layout, config.value

    def __call__(self, state):
        return state.x * 0 + self.value
"""


@pytest.mark.parametrize(
    ("name", "options", "calls"), [("copy_left", {}, 2), ("Always", {"value": 1}, 1), ("Always", {}, 16)]
)
def test_a_forecaster_of_ones_own_is_a_function_or_a_class_with_options(tmp_path, name, options, calls):
    (tmp_path / "mine.py").write_text(FORECASTERS)
    layout = Layout(1, 4, 4, 2)
    ones = torch.tensor([-1e3, 1e3], dtype=torch.float64).expand(16, 2)  # every sample is all ones
    checkpoint = Checkpoint(ConstantArm(layout, ones[None]), None, None, {}, "")
    spec = SamplerSpec(forecaster=f"{tmp_path / 'mine.py'}:{name}", options=options)
    trace = make_sampler(spec, checkpoint)(Draw.of(checkpoint.arm, 0, 1))
    assert trace.x.tolist() == [[1] * 16]
    assert trace.arm_calls.tolist() == [calls]


def test_learned_needs_modules():
    checkpoint = Checkpoint(ConstantArm(Layout(1, 4, 4, 2), torch.zeros(1, 16, 2)), None, None, {}, "")
    with pytest.raises(InputError, match="has no forecasting modules"):
        make_sampler(SamplerSpec(forecaster="learned"), checkpoint)


@pytest.mark.slow
def test_chosen_horizons_gates_and_fresh_noise_are_timed_and_recorded(small_sweep, tmp_path):
    samplers = "[ancestral, {forecaster: learned, horizon: auto}, {forecaster: gated, horizon: auto}, {forecaster: gated, options: {gate: 2}}, {forecaster: most_likely, resampled: true}, {forecaster: learned, resampled: true}]"
    text = small_sweep.read_text().replace("[ancestral, zeros, fixed_point, learned]", samplers)
    small_sweep.write_text(text.replace("seeds: [0, 1, 2]", "seeds: [0]"))
    store, plan = run_both(small_sweep, tmp_path)
    timings = store.read("timings")
    timed = timings[~timings["is_warmup"]]
    settings = timed["sampler"].map(json.loads)
    assert all(1 <= one["horizon"] <= 2 for one in settings if one.get("forecaster") in ("learned", "gated"))
    law = settings.map(lambda one: one.get("resampled", False))
    assert law.sum() == 4 and timed[law]["exact_fraction"].isna().all() and (timed[~law]["exact_fraction"] == 1).all()
    store.write_sweep(plan.record())
    report = speedup(select(store).repetitions)
    assert report["equal"].all()
    assert {"fresh noise: most likely", "fresh noise: learned, T=2"} <= set(report["sampler"])


@pytest.mark.slow
def test_windows_streams_and_peers_are_timed_and_recorded(small_sweep, tmp_path):
    samplers = "[ancestral, fixed_point, {forecaster: fixed_point_above, window: 8}, {forecaster: learned, window: auto, stream: true}, {forecaster: fixed_point, stream: true}, jacobi, cached_sequential, {sampler: gs_jacobi, block: 16}, jacobi_gs]"
    text = small_sweep.read_text().replace("[ancestral, zeros, fixed_point, learned]", samplers)
    small_sweep.write_text(text.replace("seeds: [0, 1, 2]", "slots: [3]\n  samples_per_slot: 2\n  seeds: [0]"))
    store, plan = run_both(small_sweep, tmp_path)
    timed = store.read("timings").query("not is_warmup")
    assert (timed["exact_fraction"] == 1).all(), "those of a stream that no batch drew among them"
    settings = timed["sampler"].map(json.loads)
    streams = timed[settings.map(lambda one: one.get("stream", False))]
    assert len(streams) == 2 and (streams["batch_size"] == 3).all()
    assert (streams["arm_calls"].map(len) == 6).all() and (streams["windows"].map(len) == 6).all()
    assert (streams["samples"] == 6).all()
    windows = {one["forecaster"]: one.get("window") for one in settings if "forecaster" in one and one.get("stream")}
    assert windows == {"learned": "auto", "fixed_point": None}
    store.write_sweep(plan.record())
    report = speedup(select(store).repetitions)
    names = {"GS-Jacobi, block 16", "Jacobi-GS, block 8", "Jacobi", "cached sequential", "fixed point, slots"}
    assert names | {"fixed point above, window 8", "learned, T=2, auto window, slots"} <= set(report["sampler"])
    rows = store.read("timings").query(report.set_index("sampler").loc["fixed point, slots", "query"])
    assert len(rows) == 1 and rows["samples"].item() == 6


@pytest.mark.slow
def test_an_arm_of_classes_learns_from_the_labels_of_its_data_and_is_timed_by_class(small_sweep, tmp_path):
    text = small_sweep.read_text().replace("filters: 4, dropout: 0.0", "filters: 4, dropout: 0.0, classes: 10")
    samplers = (
        "[ancestral, {sampler: ancestral, context: 3, guidance: 2}, {forecaster: fixed_point, context: 3, guidance: 2}]"
    )
    text = text.replace("[ancestral, zeros, fixed_point, learned]", samplers).replace("[0, 1, 2]", "[0]")
    small_sweep.write_text(text)
    store, plan = run_both(small_sweep, tmp_path)
    store.write_sweep(plan.record())
    report = speedup(select(store).repetitions)
    assert set(report["sampler"]) == {f"{name}, guidance 2.0, class 3" for name in ("ancestral", "fixed point")} | {
        "ancestral"
    }
    assert report["equal"].all() and report["speedup"].notna().all()
    anew = small_sweep.with_name("anew.yaml")
    anew.write_text(text.replace("batch_size: 8", "batch_size: 8, label_dropout: 1.0"))
    blind, _ = jobs_of(anew)
    run_job(blind, tmp_path / "blind", threads=1)
    trained = [
        load_checkpoint(checkpoint_of(root, job.id)).arm.state_dict()
        for root, job in ((store.root, plan.jobs[0].job), (tmp_path / "blind", blind))
    ]
    moved = [name for name, value in trained[0].items() if not torch.equal(value, trained[1][name])]
    assert any("label" in name for name in moved)


def test_classes_without_labels_are_refused(small_sweep, tmp_path):
    text = small_sweep.read_text().replace("digits: {}", "photo_patches: {crop: 8, bits: 3}")
    text = text.replace("filters: 4, dropout", "filters: 6, classes: 10, dropout").replace("filters: 4}", "filters: 6}")
    small_sweep.write_text(text)
    train = jobs_of(small_sweep)[0]
    assert run_job(train, tmp_path, threads=1) == "failed"
    (error,) = Store(tmp_path).read("trials")["error"]
    assert error == "InputError: PixelCNN learns classes, and the data of photo_patches have no labels"


@needs_compiler
def test_native_samplers_are_told_where_there_is_nothing_native_and_draw_the_same():
    layout = Layout(1, 8, 8, 2)
    arm = PixelCNN(layout, PixelCNNConfig(resnets=1, filters=4)).double()
    randomise(arm, scale=0.25)
    checkpoint, draw = Checkpoint(arm, None, None, {}, ""), Draw.of(arm, 0, 4)
    expected = make_sampler(SamplerSpec(sampler="ancestral"), checkpoint)(draw).x
    for entry in ({"forecaster": "fixed_point", "window": 8, "stream": True}, {"sampler": "cached_sequential"}):
        sampler = make_sampler(SamplerSpec(**entry, native=True), checkpoint)
        with Operations() as operations:
            assert torch.equal(sampler(draw).x, expected)
        assert operations.ran["layers"] > 0
        with pytest.raises(InputError, match="TableArm has no spans with native kernels"):
            make_sampler(SamplerSpec(**entry, native=True), replace(checkpoint, arm=TableArm(layout)))


@pytest.mark.slow
def test_certified_samplers_draw_what_float64_draws_and_are_compared_with_it():
    arm = near_ties(LAYOUT)
    checkpoint = Checkpoint(arm, None, None, {}, "")
    entries = [
        {"forecaster": "fixed_point"},
        {"forecaster": "zeros", "window": 12, "stream": True, "draft_dtype": "bfloat16"},
        {"sampler": "gs_jacobi", "block": 12},
    ]
    bench = Bench.__new__(Bench)
    bench.arm, bench.checkpoint = arm, checkpoint
    for entry in entries:
        spec, found = SamplerSpec(**entry, certified=True), {}
        for each in (spec, spec.model_copy(update={"certified": False, "draft_dtype": None, "stream": True})):
            trace = make_sampler(each, checkpoint)(Draw.of(arm, SEED, 16))
            found[each.certified] = bench._compared(each, {"seed": SEED}, trace, {})["exact_fraction"]
        assert found[True] == 1 and (found[False] < 1 or spec.sampler), entry
