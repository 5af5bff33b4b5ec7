"""Settings of the environment that are meant for others, or dead, cost no results."""

import os
import subprocess
import sys

import pytest

from harness.execution import environment
from tests.harness.golden import make


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    return make.unpack(tmp_path_factory.mktemp("golden") / "store")


def report(golden, folder, backend):
    return subprocess.run(
        [sys.executable, "-m", "harness", "report", "--store", golden.root, "--sweep", "third", "--figures", "1"],
        cwd=folder,
        env={**os.environ, "MPLBACKEND": backend, "PYTHONPATH": os.getcwd(), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_neither_the_backend_of_a_notebook_nor_a_matplotlibrc_in_the_folder_changes_a_figure(golden, tmp_path):
    drawn = []
    for backend, settings in {
        "module://of_a_notebook.that_is_not_here": "",
        "none-such": "savefig.dpi: 7\nfont.size: 30\nbackend: none-such\n",
    }.items():
        folder = tmp_path / str(len(drawn))
        folder.mkdir()
        (folder / "matplotlibrc").write_text(settings)
        done = report(golden, folder, backend)
        assert done.returncode == 0, done.stderr
        drawn.append({path.name: path.read_bytes() for path in (folder / "reports" / "figures").iterdir()})
    assert drawn[0] == drawn[1] != {}


@pytest.mark.slow
def test_a_matplotlibrc_that_cannot_be_read_costs_the_figures_alone(golden, tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe")
    done = report(golden, tmp_path, "agg")
    assert done.returncode == 0, done.stderr
    assert "No figures were drawn: matplotlib does not load" in done.stdout and "matplotlibrc" in done.stdout
    assert (tmp_path / "reports" / "index.html").exists() and (tmp_path / "reports" / "models.csv").exists()


@pytest.mark.parametrize(("folder", "used"), [("/tmp/" + 80 * "x", "/tmp"), ("/tmp/short", None)])
def test_ray_gets_a_short_folder_for_its_sockets(monkeypatch, folder, used):
    monkeypatch.setattr(os, "environ", {"TMPDIR": folder})
    environment.prepare("local")
    assert os.environ.get("RAY_TMPDIR") == used
