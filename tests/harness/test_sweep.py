import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arm_core import InputError
from harness.sweep import TrainJob, draw_jobs, load_sweep, make_plan
from harness.sweep.identity import content_hash
from harness.sweep.jobs import Job
from harness.sweep.shipped import sweep_file
from harness.sweep.source import read_source
from tests.harness.conftest import SMALL

BASE = """name: q
datasets:
  mnist5k: {binarise: threshold}
  photo_patches:
    crop: 8
    bits: 3
variants:
  default:
    arm: {name: pixelcnn, resnets: 1, filters: 12}
    forecasting: {horizon: 4, filters: 12}
training:
  iterations: 100
  learning_rate: 2e-3
  seeds: [0, 1]
timing:
  samplers:
    - ancestral
    - fixed_point
    - {forecaster: learned, horizon: 2}
  batch_sizes: [1, 8]
resources:
  train: {cpus: 1}
profiles:
  laptop:
    training: {iterations: 10}
"""


@pytest.fixture
def plan_of(tmp_path):
    def plan(text, outcomes=None, only=(), **options):
        file = tmp_path / "q.yaml"
        file.write_text(text)
        return make_plan(load_sweep(file, **options), outcomes or {}, only=only)

    return plan


def test_a_sweep_becomes_a_training_and_a_timing_per_dataset_and_seed(plan_of):
    plan = plan_of(BASE)
    assert [(p.job.kind, p.job.title) for p in plan.jobs] == [
        (kind, f"{dataset} seed {seed}")
        for dataset in ("mnist5k", "photo_patches")
        for seed in (0, 1)
        for kind in ("train", "timing")
    ]
    first = plan.jobs[0].job
    assert first.training["iterations"] == 100
    assert first.training["learning_rate"] == 0.002
    assert first.data.options["binarise"] == "threshold"
    assert plan.jobs[1].job.train_job == first.id


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("iterations: 100", "iteration: 100", "q.yaml:12: training.iteration: unknown key 'iteration'. Did you mean 'iterations'?"),
        ("iterations: 100", "iterations: '100'", "q.yaml:12: training.iterations: must be a valid integer, got '100'; .*without quotes"),
        ("iterations: 100", "iterations: 1.5", "q.yaml:12: training.iterations: .*must be a valid integer"),
        ("iterations: 100", "iterations: true", "q.yaml:12: training.iterations: .*must be a valid integer"),
        ("iterations: 100", "iterations: 0", "q.yaml:11: training: iterations must be a whole number of at least 1, got 0"),
        ("2e-3", "fast", "q.yaml:13: training.learning_rate: .*must be a valid number, got 'fast'"),
        ("  mnist5k", "  mnist5", "q.yaml:3: datasets.mnist5: unknown dataset 'mnist5'. Did you mean 'mnist5k'"),
        ("threshold", "treshold", "q.yaml:3: datasets.mnist5k.binarise: .*'threshold', got 'treshold'"),
        ("crop: 8", "crap: 8", "q.yaml:5: datasets.photo_patches.crap: unknown key 'crap'. Did you mean 'crop'"),
        ("crop: 8", "crop: 6", "photo_patches: crop must be a positive multiple of 4, got 6"),
        ("pixelcnn", "pixlcnn", "q.yaml:9: variants.default.arm.name: unknown arm 'pixlcnn'. Did you mean 'pixelcnn'"),
        ("resnets", "resnet", "q.yaml:9: variants.default.arm.resnet: unknown key 'resnet'. Did you mean 'resnets'"),
        ("arm: {", "arms: {", "q.yaml:9: variants.default.arms: unknown key 'arms'. Did you mean 'arm'"),
        ("- fixed_point", "- fixed_pont", "q.yaml:18: timing.samplers.1: unknown forecaster 'fixed_pont'. Did you mean"),
        ("horizon: 2}", "horizon: 5}", r"q.yaml:19: timing.samplers.2: horizon must be in \[1, 4\].*got 5"),
        ("horizon: 2}", "horizn: 5}", "q.yaml:19: timing.samplers.2.horizn: unknown key 'horizn'. Did you mean 'horizon'"),
        ("horizon: 2}", "windows: 5}", "q.yaml:19: timing.samplers.2.windows: unknown key 'windows'. Did you mean"),
        ("horizon: 2}", "window: auto}", "q.yaml:19: timing.samplers.2.window: auto is for streams"),
        ("horizon: 2}", "window: 0}", "q.yaml:19: timing.samplers.2.window"),
        ("    forecasting: {horizon: 4, filters: 12}", "    training: {learning_rate: .inf}", r"must be a finite number below 1e\+300, got inf"),
        ("    forecasting: {horizon: 4, filters: 12}", "    training: {learning_rate: 1" + 400 * "0" + "}", "must be a finite number below"),
        ("horizon: 2}", "coupling: maximal}", "q.yaml:19: timing.samplers.2.coupling: is for scd"),
        ("forecaster: learned, horizon: 2", "sampler: sjd, coupling: gumbel", "timing.samplers.2.coupling: sjd takes sampler, window"),
        ("forecaster: learned, horizon: 2", "sampler: scd, window: auto", "timing.samplers.2.window: scd takes dims or row, got auto"),
        ("horizon: 2}", "block: 8}", "q.yaml:19: timing.samplers.2.block: is for gs_jacobi and jacobi_gs"),
        ("horizon: 2}", "stream: true, resampled: true}", "timing.samplers.2.stream: fresh noise at every call knows no"),
        ("forecaster: learned, horizon: 2", "forecaster: zeros, draft_dtype: bfloat16", "timing.samplers.2.draft_dtype: needs a proof; add `certified: true`"),
        ("forecaster: learned, horizon: 2", "forecaster: zeros, resampled: true, certified: true", "timing.samplers.2.certified: fresh noise at every call knows no"),
        ("forecaster: learned, horizon: 2", "sampler: ancestral, certified: true", "timing.samplers.2.certified: ancestral takes sampler,"),
        ("forecaster: learned, horizon: 2", "sampler: jacobi, native: true", "timing.samplers.2.native: jacobi takes sampler,"),
        ("horizon: 2}", "native: true}", "timing.samplers.2.native: is for windows; add a `window:`"),
        ("horizon: 2}", "window: 4, native: true, certified: true, draft_dtype: bfloat16}", "timing.samplers.2.native: is for float32 and"),
        ("forecaster: learned, horizon: 2", "sampler: jacobi, block: 8", "timing.samplers.2.block: jacobi takes sampler, temperature,"),
        ("forecaster: learned, horizon: 2", "sampler: jakobi", "q.yaml:19: timing.samplers.2.sampler"),
        ("forecaster: learned, horizon: 2", "window: 8", "timing.samplers.2: needs a `forecaster:`, or a `sampler:`"),
        ("horizon: 2", "horizon: 2, sampler: jacobi", "timing.samplers.2: ancestral and the samplers of other papers take no"),
        ("learned, horizon", "zeros, horizon", "q.yaml:19: timing.samplers.2: horizon is for learned and gated only"),
        ("learned, horizon: 2", "learned, options: {gate: 1}", "timing.samplers.2.options.gate: learned takes none"),
        ("learned, horizon: 2", "gated, options: {gate: -1}", "timing.samplers.2.options.gate: must be a number"),
        ("learned, horizon: 2", "gated, horizon: auto, options: {gate: 1}", "auto measures the gate too"),
        ("horizon: 2}", "horizon: far}", "q.yaml:19: timing.samplers.2.horizon"),
        ("    - ancestral\n", "", "q.yaml:16: timing.samplers: 'ancestral' is missing"),
        ("    forecasting: {horizon: 4, filters: 12}\n", "", "learned needs `forecasting:`"),
        ("horizon: 2}\n  batch_sizes: [1, 8]\nresources:\n  train: {cpus", "window: 4, native: true}\nresources:\n  timing: {gpus", "timing.samplers.2.native: is for CPUs, and timing jobs take 1 GPU"),
        ("[1, 8]", "[]", "q.yaml:20: timing.batch_sizes: .*at least 1 item"),
        ("[1, 8]", "[1, 0]", "q.yaml:20: timing.batch_sizes.1: must be greater than or equal to 1, got 0"),
        ("cpus: 1", "cpu: 1", "q.yaml:22: resources.train.cpu: unknown key 'cpu'. Did you mean 'cpus'"),
        ("timing:", "timimg:", "q.yaml:15: timimg: unknown key 'timimg'. Did you mean 'timing'"),
        ("name: q\n", "", "name: is missing"),
        ("name: q", "name: a/../b", "q.yaml:1: name: "),
        ("name: q", "name: q\nname: r", "q.yaml:2: the key 'name' stands twice"),
        ("name: q", "name: [q", "not valid YAML: .*; is what opens at line 1 closed?"),
        ("name: q", 'name: "C:\\Users\\me"', "q.yaml:1: not valid YAML: .*; in double quotes a backslash .*single quotes"),
        ("  mnist5k", "\tmnist5k", "q.yaml:3: not valid YAML: .*; indent with spaces"),
        ("[1, 8]", "8", r"q.yaml:20: timing.batch_sizes: must be a valid list, got 8; write a list, such as \[1, 2\]"),
        ("name: q", "name: my photos (2024)", "q.yaml:1: name: must be made of letters, digits, _ and -, .*got 'my photos"),
        ("name: q", "1: q", r"keys must be text, got 1 \(a decimal comma\? write a point\); put it in quotes"),
        (BASE, "- 1", "must be a mapping"),
        (BASE, "", "must be a mapping .*got an empty file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line_and_the_remedy(plan_of, before, after, message):
    assert before in BASE
    with pytest.raises(InputError, match=message):
        plan_of(BASE.replace(before, after, 1))


TWO = BASE.replace("  default:\n", "  plain: {arm: {resnets: 1, filters: 12}}\n  heads:\n")


def test_a_learned_sampler_runs_where_there_are_modules_and_the_others_are_told(tmp_path):
    file = tmp_path / "q.yaml"
    file.write_text(TWO)
    drawn = draw_jobs(load_sweep(file))
    learned = {
        name.variant: any(spec.forecaster == "learned" for spec in drawn.jobs[name.id].samplers)
        for name in drawn.names
        if name.kind == "timing"
    }
    assert learned == {"plain": False, "heads": True}
    text = "learned is left out: it needs forecasting modules"
    assert drawn.notes[text] == ["mnist5k plain", "photo_patches plain"]
    file.write_text(TWO.replace("horizon: 2}", "horizon: 2, variants: [plain]}"))
    with pytest.raises(
        InputError, match="q.yaml:20: timing.samplers.2: learned needs `forecasting:` in the variant 'pla"
    ):
        draw_jobs(load_sweep(file))


def test_several_faults_are_told_at_once(plan_of):
    with pytest.raises(InputError) as caught:
        plan_of(BASE.replace("[1, 8]", "[1, 0]").replace("cpus: 1", "cpu: 1"))
    assert len(str(caught.value).splitlines()) == 2


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.yaml cannot be read \(No such file"):
        load_sweep(tmp_path / "nowhere.yaml")


def test_a_name_without_its_ending_is_told_from_a_sweep_that_comes_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(BASE)
    with pytest.raises(InputError, match="no sweep 'mine', but a file mine.yaml; give its whole name"):
        sweep_file(Path("mine"))


def test_a_profile_overrides_the_file_and_an_unknown_one_is_refused(plan_of):
    plan = plan_of(BASE, profile="laptop")
    assert plan.sweep.profile == "laptop"
    assert plan.jobs[0].job.training["iterations"] == 10
    assert plan.jobs[0].job.training["learning_rate"] == 0.002
    with pytest.raises(InputError, match="there are none; leave --profile out"):
        plan_of(BASE.partition("profiles:")[0], profile="laptop")
    with pytest.raises(InputError, match="unknown profile 'lapto'. Did you mean 'laptop'"):
        plan_of(BASE, profile="lapto")


def test_only_narrows_what_runs_and_refuses_what_it_does_not_know(plan_of):
    plan = plan_of(BASE, only=["dataset=mnist5k", "seed=1"])
    assert [p.job.title for p in plan.to_run] == ["mnist5k seed 1"] * 2
    assert plan.record() == plan_of(BASE).record() and len(plan.jobs) == 8
    assert {p.reason for p in plan.jobs if not p.run} == {"left out by --only"}
    for item, message in [
        ("dataset=svhn", "Valid: mnist5k, photo_patches"),
        ("data=x", "key of --only"),
        ("x", "KEY=VALUE"),
    ]:
        with pytest.raises(InputError, match=message):
            plan_of(BASE, only=[item])


def test_only_brings_the_autoencoder_that_a_training_needs(plan_of):
    text = BASE.replace("    bits: 3\n", "    latents: {width: 8, channels: 2, categories: 4}\n")
    plan = plan_of(text, only=["dataset=photo_patches", "seed=1"])
    assert [planned.job.kind for planned in plan.to_run] == ["autoencoder", "train", "timing"]
    assert not plan_of(text, {p.job.id: "done" for p in plan.jobs}, only=["seed=1"]).to_run


def test_a_job_is_left_out_by_one_name_and_runs_by_the_other(plan_of):
    text = BASE.replace(
        "  photo_patches:\n    crop: 8\n    bits: 3\n", "  again: {name: mnist5k, binarise: threshold}\n"
    )
    assert len(plan_of(text, only=["dataset=again", "seed=0"]).to_run) == 2


def test_a_datasets_own_settings_override_the_shared_ones(plan_of):
    text = BASE.replace(
        "mnist5k: {binarise: threshold}", "mnist5k: {binarise: threshold, training: {iterations: 7}, arm: {filters: 6}}"
    )
    jobs = [p.job for p in plan_of(text).jobs if isinstance(p.job, TrainJob)]
    assert [(job.training["iterations"], job.arm.options["filters"]) for job in jobs[::2]] == [(7, 6), (100, 12)]


def test_a_dataset_may_choose_its_variants(plan_of):
    two = BASE.replace("  default:\n", "  small: {arm: {resnets: 1, filters: 6}}\n  default:\n").replace(
        "    - {forecaster: learned, horizon: 2}\n", ""
    )
    chosen = two.replace("    bits: 3\n", "    bits: 3\n    variants: [small]\n")
    plan = plan_of(chosen)
    names = [name for name in plan.names if name.kind == "train"]
    assert [(name.dataset, name.variant) for name in names if name.seed == 0] == [
        ("mnist5k", "small"),
        ("mnist5k", "default"),
        ("photo_patches", "small"),
    ]
    assert {name.id for name in names} < {planned.job.id for planned in plan_of(two).jobs}  # a choice changes no job
    with pytest.raises(InputError, match="no job of the sweep is of variant=default dataset=photo_patches"):
        plan_of(chosen, only=["variant=default", "dataset=photo_patches"])
    with pytest.raises(
        InputError, match="q.yaml:7: datasets.photo_patches.variants.0: unknown variant 'smal'. Did you mean 'small'"
    ):
        plan_of(chosen.replace("[small]", "[smal]"))


def test_a_sampler_may_be_for_some_variants_only(plan_of):
    two = BASE.replace("  default:", "  other: {forecasting: {horizon: 2}}\n  default:")
    some = two.replace("    - fixed_point\n", "    - {forecaster: fixed_point, variants: [other]}\n")
    assert some != two

    def samplers(text):
        plan = plan_of(text)
        names = {name.id: name.variant for name in plan.names}
        return {
            names[planned.job.id]: [spec.described() for spec in planned.job.samplers]
            for planned in plan.jobs
            if planned.job.kind == "timing"
        }

    every, chosen = samplers(two), samplers(some)
    assert chosen["other"] == every["other"]
    assert set(every["default"]) - set(chosen["default"]) == {'{"forecaster": "fixed_point"}'}
    message = "timing.samplers.1.variants.0: unknown variant 'othr'. Did you mean 'other'"
    with pytest.raises(InputError, match=message):
        plan_of(some.replace("[other]", "[othr]"))


def test_ids_depend_on_what_matters_and_on_nothing_else(plan_of):
    def ids(text, kind="train", **options):
        return [p.job.id for p in plan_of(text, **options).jobs if p.job.kind == kind]

    same = [
        BASE.replace("name: q", "name: other"),
        BASE.replace("mnist5k: {binarise", "digits: {name: mnist5k, binarise"),
        BASE.replace("iterations: 100", "iterations: 100\n  evaluate_every: 7"),
        BASE.replace("resnets: 1, filters: 12", "filters: 12, dropout: 0.5, resnets: 1"),  # 0.5 is the default
    ]
    for text in same:
        assert ids(text) == ids(BASE)
    for text in [BASE.replace("iterations: 100", "iterations: 101"), BASE.replace("resnets: 1", "resnets: 2")]:
        assert not set(ids(text)) & set(ids(BASE))
    batches = BASE.replace("[1, 8]", "[1, 4]")
    assert ids(batches) == ids(BASE)
    assert not set(ids(batches, "timing")) & set(ids(BASE, "timing"))


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_what_lies_at_the_path_of_a_dataset_matters(plan_of, tmp_path, kind):
    (tmp_path / "mine").mkdir()
    place = tmp_path / "mine" / ("images.npz" if kind == "npz" else "image.png")
    named = place if kind == "npz" else place.parent
    text = BASE.replace("  mnist5k: {binarise: threshold}", f'  mine: {{name: "{kind}:{named}", bits: 1}}')
    place.write_bytes(b"one")
    before = [name.id for name in plan_of(text).names if name.dataset == "mine"]
    assert before == [name.id for name in plan_of(text).names if name.dataset == "mine"] != []
    place.write_bytes(b"other")
    assert not set(before) & {p.job.id for p in plan_of(text).jobs}


def test_the_source_of_a_plug_in_file_matters(plan_of, tmp_path):
    plugin = tmp_path / "mine.py"
    text = BASE.replace("- fixed_point", f'- "{plugin}:copy"')
    plugin.write_text("def copy(state):\n    return state.x\n")
    first = plan_of(text)
    plugin.write_text("def copy(state):\n    return state.x * 0\n")
    second = plan_of(text)
    assert first.jobs[0].job.id == second.jobs[0].job.id
    assert first.jobs[1].job.id != second.jobs[1].job.id


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=6))
def test_a_content_hash_does_not_depend_on_the_order_of_keys(content):
    assert content_hash(content) == content_hash(dict(reversed(content.items())))


@pytest.mark.slow
def test_ids_are_the_same_in_another_process(plan_of, tmp_path):
    plan = plan_of(BASE)
    code = (
        "import sys; from harness.sweep import *;"
        f"print(*[p.job.id for p in make_plan(load_sweep({str(tmp_path / 'q.yaml')!r}), {{}}).jobs])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == [p.job.id for p in plan.jobs]


def test_the_plan_says_what_runs_and_why(plan_of):
    ids = [p.job.id for p in plan_of(SMALL).jobs]
    cases = [
        ({}, [(True, "not done yet"), (True, "not done yet")]),
        ({ids[0]: "done", ids[1]: "done"}, [(False, "done before"), (False, "done before")]),
        ({ids[0]: "failed"}, [(True, "failed before"), (True, "not done yet")]),
        ({ids[1]: "done"}, [(True, "not done yet"), (True, "its training runs again")]),
    ]
    for outcomes, expected in cases:
        assert [(p.run, p.reason) for p in plan_of(SMALL, outcomes).jobs] == expected


def test_two_names_for_one_training_are_one_job_and_both_are_recorded(plan_of):
    text = BASE.replace(
        "  photo_patches:\n    crop: 8\n    bits: 3\n", "  again: {name: mnist5k, binarise: threshold}\n"
    )
    plan = plan_of(text)
    assert len(plan.jobs) == 4 and len(plan.record()["jobs"]) == 8
    named = {name["dataset"]: name["id"] for name in plan.record()["jobs"]}
    assert named["mnist5k"] == named["again"]


def test_jobs_survive_the_way_to_a_worker(plan_of):
    for planned in plan_of(BASE).jobs:
        job: Job = planned.job
        assert type(job).model_validate_json(job.model_dump_json()) == job
        assert json.loads(job.model_dump_json())["id"] == job.id


FILES = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_sweep_file_of_the_repository_can_be_planned(file):
    profiles = read_source(file).data.get("profiles") or {None: {}}
    for profile in profiles:
        assert make_plan(load_sweep(file, profile=profile), {}).jobs
    if None not in profiles:
        assert set(profiles) == {"paper", "laptop"}
        with pytest.raises(InputError, match="choose one with --profile: paper, laptop"):
            load_sweep(file)


def test_the_paper_profiles_have_the_hyperparameters_of_table_1():
    folder = FILES[0].parent
    trainings = {}
    for file in ("table1", "table2"):
        plan = make_plan(load_sweep(folder / f"{file}.yaml", profile="paper"), {})
        jobs = {planned.job.id: planned.job for planned in plan.jobs}
        trainings |= {(file, name.dataset): jobs[name.id] for name in plan.names if name.kind == "train"}
    assert len(trainings) == 7
    for (file, dataset), job in trainings.items():
        small = dataset == "binary_mnist"
        filters = 60 if small else 160 if file == "table2" else 162
        assert job.arm.options == {
            "resnets": 2 if small else 5,
            "filters": filters,
            "dropout": 0.5,
            "dropout_unit": "map",
            "classes": 0,
        }
        assert (job.forecasting["horizon"], job.forecasting["filters"]) == (20 if small else 1, filters)
        shown = (
            "iterations",
            "batch_size",
            "learning_rate",
            "lr_decay",
            "lr_decay_every",
            "weight_decay",
            "forecasting_weight",
        )
        assert [job.training[name] for name in shown] == [200_000, 64, 2e-4, 0.999995, "iteration", 1e-6, 0.01]


SEARCH = (
    BASE[: BASE.index("timing:")]
    + """search:
  method: random
  count: 3
  space: {training.learning_rate: {log: [1e-4, 1e-2]}, arm.dropout: [0.0, 0.5]}
"""
)


def test_a_search_is_a_variant_for_every_trial_the_same_at_every_reading(plan_of):
    first, second = plan_of(SEARCH), plan_of(SEARCH)
    jobs = [planned.job for planned in first.jobs]
    assert len(jobs) == 2 * 2 * 3 and [p.job.id for p in second.jobs] == [job.id for job in jobs]
    assert first.names[0].variant == "default-00"
    rates = {job.training["learning_rate"] for job in jobs}
    assert len(rates) == 3 and all(1e-4 <= rate <= 1e-2 for rate in rates)
    grid = SEARCH.replace("random", "grid").replace("{log: [1e-4, 1e-2]}", "[1e-3, 1e-2]")
    assert {(p.job.training["learning_rate"], p.job.arm.options["dropout"]) for p in plan_of(grid).jobs} == {
        (rate, dropout) for rate in (1e-3, 1e-2) for dropout in (0.0, 0.5)
    }
    stopped = {jobs[0].id: "stopped"}
    again = plan_of(SEARCH, stopped).jobs[0]
    assert (again.run, again.reason) == (False, "stopped early before")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("method: random", "method: grid", "a grid needs lists, training.learning_rate is a range"),
        ("arm.dropout", "arm", "keys must be arm.KEY, forecasting.KEY or training.KEY, got 'arm'"),
        ("arm.dropout", "arm.dropuot", "unknown key 'dropuot'. Did you mean 'dropout'"),
        ("log: [1e-4, 1e-2]", "log: [1e-2, 1e-4]", "must go from a smaller to a larger number"),
        ("    crop: 8", "    crop: 8\n    arm: {dropout: 0.1}", "q.yaml:.*arm.dropout: would hide what the search tries"),
        ("search:", "timing: {samplers: [ancestral]}\nsearch:", "a search only trains"),
        ("    crop: 8", "    crop: 8\n    variants: [default]", "a search tries every variant on every dataset"),
        ("count: 3", "cuont: 3", "unknown key 'cuont'. Did you mean 'count'"),
    ],
)  # fmt: skip
def test_a_search_that_cannot_be_is_refused(plan_of, before, after, message):
    assert before in SEARCH
    with pytest.raises(InputError, match=message):
        plan_of(SEARCH.replace(before, after, 1))
