"""Paths and plug-ins as people write them."""

import sys

import numpy as np
import pytest
from click.testing import CliRunner

from arm_core import InputError
from arm_core.data import load_dataset
from arm_core.registry import FORECASTERS
from harness.cli import main
from harness.sweep import load_sweep, make_plan

SWEEP = """
name: own
datasets: {{mine: {{name: "npz:{npz}"}}, other: {{name: "{plugin}:Mine", root: {root}}}}}
variants: {{base: {{arm: {{resnets: 1, filters: 8}}}}}}
training: {{iterations: 4, batch_size: 4}}
"""
PLUGIN = """
import torch
from arm_core import Layout
from helper import CATEGORIES

class Mine:
    layout = Layout(1, 4, 4, CATEGORIES)

    def __init__(self, root): ...

    def split(self, name):
        return torch.zeros(4, 1, 4, 4, dtype=torch.uint8)
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ARM_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.delitem(sys.modules, "helper", raising=False)
    np.savez(tmp_path / "mine.npz", images=np.zeros((20, 4, 4), np.uint8))
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "helper.py").write_text("CATEGORIES = 2\n")
    yield tmp_path
    sys.modules.pop("helper", None)


def ids(folder, monkeypatch, **paths):
    monkeypatch.chdir(folder)
    (folder / "own.yaml").write_text(SWEEP.format(**paths))
    return [planned.job.id for planned in make_plan(load_sweep(folder / "own.yaml"), {}).jobs]


def test_a_job_is_the_same_however_its_paths_are_written(home, monkeypatch):
    (home / "sub").mkdir()
    here = ids(home, monkeypatch, npz="mine.npz", plugin="mine.py", root="data")
    assert here == ids(home, monkeypatch, npz=home / "mine.npz", plugin=home / "mine.py", root=home / "data")
    assert here == ids(home / "sub", monkeypatch, npz="../mine.npz", plugin="../mine.py", root="~/data")
    assert here == ids(home / "sub", monkeypatch, npz="~/mine.npz", plugin="~/mine.py", root="~/data")
    assert here[1] != ids(home / "sub", monkeypatch, npz="../mine.npz", plugin="../mine.py", root="data")[1]
    np.savez(home / "mine.npz", images=np.ones((20, 4, 4), np.uint8))
    assert here[0] != ids(home, monkeypatch, npz="mine.npz", plugin="mine.py", root="data")[0]


def test_a_plugin_may_import_the_file_beside_it_and_is_another_when_that_changes(home, monkeypatch):
    assert load_dataset("~/mine.py:Mine").layout.categories == 2
    before = ids(home, monkeypatch, npz="mine.npz", plugin="mine.py", root="data")
    (home / "helper.py").write_text("CATEGORIES = 2  # changed\n")
    after = ids(home, monkeypatch, npz="mine.npz", plugin="mine.py", root="data")
    assert before[0] == after[0] and before[1] != after[1]


def test_a_file_beside_a_plugin_that_another_module_hides_is_refused(home):
    (home / "numpy.py").write_text("CATEGORIES = 2\n")
    (home / "mine.py").write_text(PLUGIN.replace("from helper import CATEGORIES", "import numpy\nCATEGORIES = 2"))
    with pytest.raises(InputError, match=r"mine\.py imports numpy, which is .*, not .*numpy\.py beside it; rename"):
        FORECASTERS.resolve(f"{home / 'mine.py'}:Mine")


def test_a_home_that_no_shell_saw_is_that_of_the_user(home, monkeypatch):
    monkeypatch.chdir(home)
    ids(home, monkeypatch, npz="mine.npz", plugin="mine.py", root="data")
    done = CliRunner().invoke(main, ["sweep", "own.yaml", "--only", "dataset=mine", "--serial", "--store=~/runs"])
    assert done.exit_code == 0, done.output
    assert (home / "runs" / "sweeps").is_dir() and not (home / "~").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("patience", "nan"), ("patience", "-5"), ("patience", "inf"), ("patience", "0")]
)
def test_a_patience_that_is_no_time_is_refused(option, value):
    done = CliRunner().invoke(main, ["bench", "nowhere", f"--{option}", value])
    assert done.exit_code == 2 and f"--{option}" in done.output


def test_a_search_tries_no_setting_twice_and_says_how_few_there_are(home):
    search = "search: {method: random, count: 40, space: {training.learning_rate: [1e-2, 1e-3]}}\n"
    file = home / "search.yaml"
    file.write_text("name: s\ndatasets: {digits: {}}\n" + search)
    assert len(load_sweep(file).search.trials()) == 2
    done = CliRunner().invoke(main, ["sweep", str(file), "--dry-run", "--store", str(home / "runs")])
    assert "has 2 different settings; 40 trials were asked for" in done.output


def test_the_lines_that_start_nodes_quote_paths_keep_the_token_private_and_tell_nobody(home, monkeypatch):
    monkeypatch.chdir(home)
    (home / "my sweeps").mkdir()
    (home / "my sweeps" / "a b.yaml").write_text("name: s\ndatasets: {digits: {}}\n")
    for slurm in ([], ["--slurm"]):
        said = CliRunner().invoke(main, ["nodes", "my sweeps/a b.yaml", *slurm]).output
        assert "harness sweep 'my sweeps/a b.yaml' --address" in said
        assert "(umask 077; ray get-auth-token" in said and "RAY_USAGE_STATS_ENABLED=0" in said
        assert "$(hostname --ip-address" not in said


def test_samples_are_a_dataset(home):
    import torch

    from arm_core import Layout, load_checkpoint, save_arm
    from arm_core.arms import PixelCNN, PixelCNNConfig

    layout = Layout(3, 4, 4, 5)
    save_arm(PixelCNN(layout, PixelCNNConfig(resnets=1, filters=6)), home / "arm")
    done = CliRunner().invoke(main, ["sample", str(home / "arm"), "--count", "20", "--out", str(home / "x.npz")])
    assert done.exit_code == 0, done.output
    dataset = load_dataset(f"npz:{home / 'x.npz'}")
    assert dataset.layout == load_checkpoint(home / "arm").arm.layout == layout
    with np.load(home / "x.npz") as arrays:
        rows = sorted(image.tobytes() for image in arrays["images"])
    found = torch.cat([dataset.split(split) for split in ("train", "valid", "test")]).numpy()
    assert sorted(image.tobytes() for image in found) == rows
