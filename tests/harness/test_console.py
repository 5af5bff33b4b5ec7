"""Tables in the terminal: nothing is cut off, in a pipe or at 40 columns."""

import io

import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.table import Table

from harness import console
from harness.cli import main
from tests.harness.golden.make import unpack

PATH = "/home/somebody/a folder/of/experiments/2026/runs/jobs/0123456789abcdef/checkpoint"


def shown(monkeypatch, table, *, width=None, named=1):
    """What is printed on a terminal of this width; None: into a pipe."""
    out = io.StringIO()
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(
        console, "CONSOLE", Console(file=out, width=width, force_terminal=width is not None, color_system=None)
    )
    console.show(table, named=named)
    return out.getvalue()


def a_table(**column):
    table = Table("job", "state", title="mine")
    table.add_column("where", **column)
    table.add_row("train digits small-window seed 0", "done", PATH)
    table.add_row("timing", "", "line one\nline two")
    return table


@pytest.mark.parametrize("column", [{}, {"no_wrap": True}])
def test_a_pipe_gets_whole_lines(monkeypatch, column):
    text = shown(monkeypatch, a_table(**column))
    assert PATH in text and "train digits small-window seed 0" in text and "…" not in text


@pytest.mark.parametrize("column", [{}, {"no_wrap": True}])
@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_row_that_does_not_fit_keeps_its_name_and_its_path_in_one_piece(monkeypatch, column, width):
    lines = shown(monkeypatch, a_table(**column), width=width, named=1).splitlines()
    assert lines[:3] == ["mine", "train digits small-window seed 0", f"  state done, where {PATH}"]
    assert lines[3:] == ["timing", "  where line one", "    line two"]


def test_a_table_that_fits_is_a_table(monkeypatch):
    table = Table("job", "state", "steps")
    table.add_row("a job of six words or so", "done", "10")
    assert "┃" in shown(monkeypatch, table, width=45)
    assert "┃" not in shown(monkeypatch, table, width=30)


@pytest.mark.parametrize(
    ("command", "whole"),
    [
        (("status", "--store", "gold"), ["cifar10 seed 0 timing\n  state failed, progress see gold/jobs/a5/log.txt\n"]),
        (("data", "list"), ["cifar10\n", "digits\n  status sample", "mnist --binarise fixed\n"]),
        (("sweep", "quickstart", "--dry-run"), ["run train mnist5k seed 0\n  parameters "]),
        (
            ("report", "--store", "gold", "--out", "out", "--figures", "0", "--diff", "gold"),
            ["fixed point\n  batch 4, passes 10.0", "the paper's learned, T=2\n  full passes", "000, verdict no difference shown"],
        ),
    ],
)  # fmt: skip
def test_at_40_columns_every_command_names_its_rows(command, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unpack(tmp_path / "gold")
    monkeypatch.setattr(console.CONSOLE, "_width", None)  # or it stays what COLUMNS was where it was imported
    result = CliRunner(env={"COLUMNS": "40"}).invoke(main, command)
    assert result.exit_code == 0, result.output
    for text in whole:
        assert text in result.output
    assert "…" not in result.output


def test_the_comparison_with_another_store_is_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unpack(tmp_path / "gold")
    result = CliRunner().invoke(main, ["report", "--store", "gold", "--figures", "0", "--diff", "gold"])
    assert result.exit_code == 0 and "svhn: now over before" in result.output
    assert "| " not in result.output and "# " not in result.output, "it is no Markdown"
    assert "- The stores' runs were not interleaved" in result.output
