"""What a user sees: outputs, exit codes, and errors without a traceback."""

from contextlib import nullcontext

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from arm_core import Layout, save_arm
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.registry import ARMS
from arm_core.testing import randomise
from benchmarks.report import fill_store
from harness.cli import main
from harness.store import Store
from tests.arm_core.test_native import Operations
from tests.conftest import needs_compiler


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    place = tmp_path_factory.mktemp("cli") / "checkpoint"
    arm = PixelCNN(Layout(1, 8, 8, 2), PixelCNNConfig(resnets=1, filters=4))
    randomise(arm)
    save_arm(arm, place)
    return place


@pytest.mark.slow
def test_a_sweep_runs_once_and_then_says_that_nothing_is_to_do(small_sweep, tmp_path):
    store = tmp_path / "store"
    dry = run("sweep", small_sweep, "--store", store, "--dry-run")
    assert dry.exit_code == 0 and "2 of 2 jobs to run" in dry.output and not store.exists()
    first = run("sweep", small_sweep, "--store", store, "--serial")
    assert first.exit_code == 0, first.output
    assert "2 jobs done, 0 failed" in first.output and "checkpoint" in first.output
    second = run("sweep", small_sweep, "--store", store)
    assert second.exit_code == 0
    assert "0 of 2 jobs to run" in second.output and "done before" in second.output and "Nothing to do" in second.output
    assert "done" in run("status", "--store", store).output
    report = run("report", "--store", store, "--out", tmp_path / "out", "--figures", 0)
    assert report.exit_code == 0, report.output
    assert "fixed point" in report.output and "index.html" in report.output


@pytest.mark.slow
def test_a_failed_job_makes_the_exit_code_1_and_is_retried(small_sweep, tmp_path):
    small_sweep.write_text(small_sweep.read_text().replace("1e-2", "1e20"))
    for reason in ("not done yet", "failed before"):
        result = run("sweep", small_sweep, "--store", tmp_path / "store", "--serial")
        assert result.exit_code == 1
        assert reason in result.output
        assert (
            "DivergedError" in result.output and "log.txt" in result.output and "its training failed" in result.output
        )


def test_samples_are_drawn_into_a_grid_or_arrays(checkpoint, tmp_path):
    grid = run("sample", checkpoint, "--count", 5, "--seed", 10, "--out", tmp_path / "grid.png")
    assert grid.exit_code == 0, grid.output
    assert "5 samples, " in grid.output
    picture = np.asarray(Image.open(tmp_path / "grid.png"))
    assert picture.ndim == 2 and picture.shape[0] < picture.shape[1] and set(np.unique(picture)) == {0, 255}
    for sampler in ("fixed_point", "ancestral", "row_above"):
        arrays = run("sample", checkpoint, "--count", 5, "--out", tmp_path / f"{sampler}.npz", "--sampler", sampler)
        assert arrays.exit_code == 0, arrays.output
    images = [np.load(tmp_path / f"{name}.npz")["images"] for name in ("fixed_point", "ancestral", "row_above")]
    assert images[0].shape == (5, 1, 8, 8)
    assert all(np.array_equal(images[0], other) for other in images[1:])


@needs_compiler
def test_native_kernels_draw_the_same_samples(checkpoint, tmp_path):
    for name, options in (("plain", ()), ("native", ("--native",))):
        with Operations() as operations:
            drawn = run("sample", checkpoint, "--count", 5, "--out", tmp_path / f"{name}.npz", *options)
        assert drawn.exit_code == 0, drawn.output
        assert bool(operations.ran) == (name == "native")
    assert np.array_equal(*(np.load(tmp_path / f"{name}.npz")["images"] for name in ("plain", "native")))
    refused = run("sample", checkpoint, "--out", tmp_path / "x.npz", "--native", "--sampler", "ancestral")
    assert refused.exit_code == 2 and "--native is for windows, and --sampler ancestral has none" in refused.output
    refused = run("sample", checkpoint, "--out", tmp_path / "x.npz", "--native", "--window", 64)
    assert refused.exit_code == 2 and "native is for windows of less than the 64 dims of a sample" in refused.output


@pytest.mark.slow
def test_properties_are_printed_a_line_each():
    result = run("check", "row_above")
    assert result.exit_code == 0
    assert result.output.count("holds") == 7  # three layouts, and the last line


def test_a_plug_in_that_breaks_its_contract_is_found_out(tmp_path):
    file = tmp_path / "leaky.py"
    file.write_text(
        "import torch\n"
        "from arm_core import ArmOutput, AutoregressiveModel\n"
        "class Leaky(AutoregressiveModel):\n"
        "    def __init__(self, layout):\n"
        "        super().__init__(layout, 0)\n"
        "        self.weight = torch.nn.Parameter(torch.ones(layout.categories))\n"
        "    def forward(self, x):\n"
        "        seen = x.cumsum(1).unsqueeze(-1)\n"  # includes x_i itself
        "        logits = seen * self.weight\n"
        "        return ArmOutput(logits, logits[..., :0])\n"
        "def floats(state):\n"
        "    return state.x * 0.5\n"
    )
    result = run("check", f"{file}:Leaky")
    assert result.exit_code == 1
    assert "logits of dimension" in result.output and "which is not before it" in result.output
    assert "Traceback" not in result.output
    wrong = run("check", f"{file}:floats")
    assert wrong.exit_code == 2 and "must return integers" in wrong.output


OWN = """
from dataclasses import dataclass
import torch
from arm_core import ArmOutput, AutoregressiveModel
@dataclass(frozen=True)
class Config:
    width: int = 2
class Mine(AutoregressiveModel):
    def __init__(self, layout, config: Config):
        super().__init__(layout, hidden_features=0)
        self.config = config
        self.head = torch.nn.Embedding(layout.categories, layout.categories)
    def forward(self, x):
        logits = self.head(torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1))
        return ArmOutput(logits, logits[..., :0])
"""


@pytest.mark.parametrize(
    ("old", "new", "code", "message"),
    [
        (
            "return ArmOutput(logits, logits[..., :0])",
            "return logits",
            1,
            "forward must return ArmOutput(logits, hidden), got Tensor",
        ),
        ("ArmOutput(logits,", "ArmOutput(logits.mT,", 1, "shapes: logits must have shape (1, 64, 3), got (1, 3, 64)"),
        (
            "        return",
            "        logits = torch.dropout(logits, 0.5, True)\n        return",
            1,
            "random in eval mode",
        ),
        ("self.head(torch", "self.tail(torch", 1, "no attribute 'tail' (mine.py:14)"),
        ("(layout, hidden_features=0)", "()", 1, "(mine.py:10)"),
        ("        self.config = config\n", "", 2, "write `self.config = config` in its __init__"),
        ("width: int = 2", "width: int", 2, "every option needs a default to be checked with"),
    ],
)
def test_what_people_forget_in_a_first_arm_is_told_without_a_traceback(tmp_path, old, new, code, message):
    assert OWN.count(old) == 1
    (tmp_path / "mine.py").write_text(OWN.replace(old, new))
    result = run("check", f"{tmp_path}/mine.py:Mine", "--layout", "1x8x8x3")
    assert result.exit_code == code and message in " ".join(result.output.split()), result.output
    assert "ancestral samples: RuntimeError" not in result.output  # what follows from the first fault is not told


def test_a_first_arm_without_faults_holds(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    assert run("check", f"{tmp_path}/mine.py:Mine", "--layout", "1x4x4x3").exit_code == 0
    (tmp_path / "plain.py").write_text(OWN.replace("class Mine(AutoregressiveModel)", "class Mine(torch.nn.Module)"))
    assert "an ARM from arm_core.AutoregressiveModel" in run("check", f"{tmp_path}/plain.py:Mine").output
    unnamed, near = run("check", f"{tmp_path}/mine.py"), run("check", f"{tmp_path}/mine.py:mine")
    assert "mine.py:NAME" in unnamed.output
    assert "Did you mean 'Mine'? Valid: Config, Mine." in near.output
    (tmp_path / "data.py").write_text("class Data:\n    def __init__(self, root):\n        self.root = root\n")
    assert "must have .layout, but Data has none" in run("check", f"{tmp_path}/data.py:Data").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["report", "--store", "empty"], "there is no store empty; run: harness sweep"),
        (["status", "--store", "empty"], "no sweep has been run"),
        (["sample", "nowhere", "--out", "x.png"], "is no checkpoint"),
        (["sample", "nowhere", "--out", "x.jpg"], "must end in .png"),
        (["sample", "nowhere", "--out", "x.png", "--horizon", "2"], "--horizon is for --sampler learned"),
        (["check", "pixlcnn"], "Did you mean 'pixelcnn'"),
        (["check", "nowhere.py:x"], "does not exist"),
        (["sample", "CHECKPOINT", "--out", "x.png", "--sampler", "zeroes"], "Did you mean 'zeros'"),
        (["sample", "CHECKPOINT", "--out", "x.png", "--sampler", "learned"], "has no forecasting modules"),
        (["sample", "CHECKPOINT", "--out", "x.png", "--count", "0"], "0 is not in the range"),
        (["sample", "CHECKPOINT", "--out", "x.png", "--guidance", "2"], "--guidance needs a class to guide to"),
        (["sample", "CHECKPOINT", "--out", "x.png", "--context", "2"], "this PixelCNN has no classes"),
        (["sample", "CHECKPOINT", "--out", "x.png", "--top-p", "0"], "0.0 is not in the range"),
        (["sample", "CHECKPOINT", "--out", "x.png", "--temperature", "-1"], "temperature must be a finite number"),
        (["sample", "CHECKPOINT", "--out", "x.png", "--sampler", "ancestral", "--window", "3"], "leave it out"),
        (["sample", "CHECKPOINT", "--out", "/proc/nowhere/x.png"], "give another path"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments, message, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*[checkpoint if argument == "CHECKPOINT" else argument for argument in arguments])
    assert result.exit_code == 2
    assert message in result.output.replace("\n", " ")
    assert "Traceback" not in result.output


def test_a_flipped_byte_is_one_message_and_exit_code_2(checkpoint, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    weights = next(copy.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    result = run("sample", copy, "--out", tmp_path / "x.png")
    assert result.exit_code == 2 and "is damaged" in result.output and "Traceback" not in result.output


def test_what_was_left_out_of_a_folder_is_a_note_and_no_line_of_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("ARM_DATA", str(tmp_path / "data"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.txt").write_text("hi")
    for number in range(10):
        Image.new("L", (4, 4)).save(tmp_path / "photos" / f"{number}.png")
    result = run("data", "verify", f"folder:{tmp_path / 'photos'}")
    assert result.exit_code == 0 and "\nNote: folder:" in f"\n{result.output}"
    assert "UserWarning" not in result.output and "load_dataset(" not in result.output
    assert "splits: valid and test: a tenth each, drawn, seed 0\n" in result.output, (
        "a line is not broken where nobody looks"
    )


@pytest.mark.parametrize("command", ["sweep", "report", "status", "sample", "check"])
def test_every_command_explains_itself(command):
    result = run(command, "--help")
    assert result.exit_code == 0 and len(result.output) > 200


def test_a_checkpoint_of_a_class_in_a_file_names_the_file_and_takes_it_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from arm_core.arms import PixelCNN, PixelCNNConfig\n"
        "class Mine(PixelCNN):\n"
        "    def __init__(self, layout, config: PixelCNNConfig):\n"
        "        super().__init__(layout, config)\n"
    )
    save_arm(ARMS.resolve("mine.py:Mine")(Layout(1, 4, 4, 2), PixelCNNConfig(resnets=1, filters=4)), "saved")
    refused = run("sample", "saved", "--out", "x.png")
    assert refused.exit_code == 2 and "mine.py:Mine" in refused.output and "--arm" in refused.output
    assert run("sample", "saved", "--out", "x.png", "--arm", "mine.py:Mine").exit_code == 0


@pytest.mark.slow
def test_status_of_many_jobs_counts_those_that_are_done(tmp_path):
    fill_store(Store(tmp_path), jobs=104, rows=1, progress=lambda at, total: None)
    result = run("status", "--store", tmp_path)
    assert result.exit_code == 0 and "bulk: 104 jobs, 104 done" in result.output
    assert len(result.output.splitlines()) < 5


@pytest.mark.ray
def test_workers_draw_the_samples_of_one_process(checkpoint, tmp_path, local_ray, monkeypatch):
    monkeypatch.setattr(local_ray, "connected", lambda *_, **__: nullcontext())  # the tests' own is up
    alone = run("sample", checkpoint, "--count", 7, "--slots", 2, "--out", tmp_path / "alone.npz")
    spread = run("sample", checkpoint, "--count", 7, "--slots", 1, "--workers", 2, "--out", tmp_path / "spread.npz")
    assert alone.exit_code == 0 and spread.exit_code == 0, alone.output + spread.output
    one, many = (np.load(tmp_path / f"{name}.npz") for name in ("alone", "spread"))
    assert np.array_equal(one["images"], many["images"])


@pytest.mark.slow
def test_windows_slots_and_temperature_reach_the_sampler(checkpoint, tmp_path):
    drawn = {}
    for name, options in {
        "plain": (),
        "window": ("--window", 3, "--slots", 2),
        "likeliest": ("--temperature", 0),
        "likeliest, one by one": ("--temperature", 0, "--sampler", "ancestral", "--slots", 2),
        "top": ("--top-k", 1, "--min-p", 0.1),
        "nucleus": ("--top-p", 0.6, "--slots", 3),
        "nucleus, one by one": ("--top-p", 0.6, "--sampler", "ancestral"),
    }.items():
        result = run("sample", checkpoint, "--count", 5, "--out", tmp_path / "x.npz", *options)
        assert result.exit_code == 0, result.output
        drawn[name] = np.load(tmp_path / "x.npz")["images"]
    assert np.array_equal(drawn["plain"], drawn["window"])
    assert np.array_equal(drawn["likeliest"], drawn["likeliest, one by one"])
    assert np.array_equal(drawn["likeliest"], drawn["top"]) and np.array_equal(*list(drawn.values())[-2:])
    assert not np.array_equal(drawn["nucleus"], drawn["plain"])
    assert (drawn["likeliest"] == drawn["likeliest"][0]).all() and not np.array_equal(*list(drawn.values())[1:3])
