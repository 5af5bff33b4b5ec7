"""What README and docs/ say: their Python runs, their commands exist, their links lead somewhere."""

import contextlib
import doctest
import importlib
import json
import re
import shlex
from pathlib import Path

import click
import pytest

from arm_core import Layout, sample_noise, save_arm
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.forecasters import ForecastingConfig, ForecastingModules, fixed_point
from harness.cli import main
from tests.harness.golden.make import unpack

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "sweeps" / "README.md",
    *(ROOT / folder / "README.md" for folder in ("benchmarks", "examples", "results", "results/forecasting")),
]
BENCHMARKS = {
    f"python -m benchmarks.{name}": importlib.import_module(f"benchmarks.{name}").main
    for name in ("data", "forecasting", "law", "overhead", "peers", "reference", "report", "tokens", "training")
}
FEWER = {"count=1000": "count=20", "count=10**6": "count=20"}
"""What examples do a thousand times is tested a few times, on smaller images."""


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(text):
    """The command lines of a text: what follows two spaces or a # is a remark."""
    for line in text.splitlines():
        command = re.split(r"\s{2,}|\s#", line.strip())[0]
        if command.startswith(("harness ", *BENCHMARKS)) and " | " not in command:
            yield command


def parse(command):
    """Read a command line as click does, down to the last option, and run nothing."""
    name = next((name for name in BENCHMARKS if command.startswith(name)), "harness")
    arguments, found = shlex.split(command.removeprefix(name)), BENCHMARKS.get(name, main)
    context = click.Context(found, info_name=name)
    while isinstance(found, click.Group):
        _, found, arguments = found.resolve_command(context, arguments)
        context = click.Context(found, parent=context)
    found.parse_args(context, arguments)


def all_commands(group=main, path=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from all_commands(command, (*path, name))
        else:
            yield " ".join(("harness", *path, name)), command


def modules():
    return [
        file for package in ("arm_core", "harness", "benchmarks") for file in sorted((ROOT / package).rglob("*.py"))
    ]


def named(page):
    return str(page.relative_to(ROOT))


@pytest.fixture
def at_hand(tmp_path, monkeypatch):
    """What examples take for granted: a working directory with results and a checkpoint in runs/, and these names."""
    monkeypatch.chdir(tmp_path)
    unpack(tmp_path / "runs")
    (tmp_path / "results").symlink_to(ROOT / "results")
    layout = Layout(1, 8, 8, 2)
    arm = PixelCNN(layout, PixelCNNConfig(resnets=1, filters=4)).eval()
    modules = ForecastingModules(layout, ForecastingConfig(horizon=2, filters=4), arm.hidden_features)
    save_arm(arm, tmp_path / "runs" / "jobs" / "JOB" / "checkpoint", modules=modules)
    return {"arm": arm, "noise": sample_noise(layout, seed=0, sample_ids=range(2)), "forecaster": fixed_point}


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=named)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, at_hand, capsys):
    code = "\n".join(blocks(page, "python"))
    for many, few in FEWER.items():
        code = code.replace(many, few)
    exec(compile(code, str(page), "exec"), {"__name__": "__page__", **at_hand})


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom_and_prints_what_it_shows(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    plt = importlib.import_module("matplotlib.pyplot")
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    names = {"__name__": "__notebook__"}
    for number, cell in enumerate(json.loads((ROOT / "docs" / "notebook.ipynb").read_text())["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
            shown = "".join(line for output in cell["outputs"] for line in output.get("text", []))
            assert capsys.readouterr().out == shown, f"cell {number}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_commands_of_a_page_exist_with_their_options(page):
    for block in blocks(page, r"\w*"):
        for command in commands(block):
            with contextlib.suppress(click.MissingParameter):  # an overview leaves things out
                parse(command)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_links_of_a_page_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert "://" in link or (page.parent / link).exists(), f"{named(page)}: {link}"


@pytest.mark.parametrize(("name", "command"), [*all_commands(), *BENCHMARKS.items()], ids=lambda value: str(value))
def test_the_help_of_every_command_has_examples_that_are_right(name, command):
    assert "Example" in command.help, name
    examples = list(commands(command.help))
    assert examples and all(example.startswith(name) for example in examples)
    for example in examples:
        parse(example)


@pytest.mark.parametrize("module", [module for module in modules() if ">>>" in module.read_text()], ids=named)
def test_the_examples_in_docstrings_hold(module, sample_data):
    name = ".".join(module.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0 and results.failed == 0


def test_commands_that_do_not_exist_are_found_out():
    for wrong in ("harness swep quickstart", "harness report --outt x", "harness data fetch"):
        with pytest.raises(click.UsageError):
            parse(wrong)
