"""The wheel in an environment of its own, the API reference, and completion for the shell."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.sweep import load_sweep
from harness.sweep.shipped import shipped_sweeps, sweep_file
from tests.harness.golden.make import unpack

ROOT = Path(__file__).parents[1]
SOURCES = ("arm_core", "harness", "sweeps", "pyproject.toml", "README.md", "LICENSE")


def called(*command, **options):
    options = {"cwd": ROOT, **options}
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The bin/ of an environment with the wheel of these sources; what it depends on is borrowed from ours.

    A path file in site-packages borrows: path files in the folder that it names are not read, and so our editable
    install stays behind.
    """
    sources, place = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("installed")
    for name in SOURCES:  # a copy: setuptools keeps what it once built in build/, deleted files included
        if (ROOT / name).is_dir():  # without what tests beside this one compile just now
            shutil.copytree(ROOT / name, sources / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, sources / name)
    called(sys.executable, "-m", "build", "--outdir", place / "dist", sources)  # the wheel is made from the sdist
    venv.create(place / "venv", symlinks=True)
    python = place / "venv" / "bin" / "python"
    wheel = next((place / "dist").glob("*.whl"))
    called(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel)
    packages = Path(called(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_of_its_own(installed, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def harness(*arguments):
        return called(installed / "harness", *arguments, cwd=tmp_path, env=environment)

    where = "import arm_core, harness; print(arm_core.__file__, harness.__file__)"
    for place in called(installed / "python", "-c", where, cwd=tmp_path, env=environment).split():
        assert Path(place).is_relative_to(installed.parent), f"{place} is not that of the wheel"
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version in harness("--version")
    assert "2 of 6 jobs to run" in harness("sweep", "quickstart", "--dry-run", "--only", "dataset=digits")
    assert "Every property holds" in harness("check", "row_above")
    unpack(tmp_path / "runs")
    harness("report", "--out", tmp_path / "results", "--figures", "0")
    assert "<table" in (tmp_path / "results" / "index.html").read_text()


def test_every_sweep_of_the_repository_is_shipped_and_goes_by_its_name():
    assert {file.name for file in shipped_sweeps().values()} == {file.name for file in (ROOT / "sweeps").glob("*.yaml")}
    for name, file in shipped_sweeps().items():
        assert sweep_file(Path(name)) == file
        profile = "laptop" if "\nprofiles:" in file.read_text() else None
        assert load_sweep(file, profile=profile).name == name


def test_a_file_comes_before_a_shipped_sweep_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("quickstart").write_text("name: mine\ndatasets: {digits: {}}\n")
    assert load_sweep(sweep_file(Path("quickstart"))).name == "mine"


def test_a_sweep_of_no_known_name_is_refused_with_the_nearest():
    result = CliRunner().invoke(main, ["sweep", "quikstart", "--dry-run"])
    assert result.exit_code == 2 and "Did you mean 'quickstart'?" in result.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_is_generated(shell):
    result = CliRunner(env={"_HARNESS_COMPLETE": f"{shell}_source"}).invoke(main, prog_name="harness")
    assert result.exit_code == 0 and f"_HARNESS_COMPLETE={shell}_complete" in result.output


def test_sweeps_complete_by_name():
    words = {"_HARNESS_COMPLETE": "bash_complete", "COMP_WORDS": "harness sweep tab", "COMP_CWORD": "2"}
    result = CliRunner(env=words).invoke(main, prog_name="harness")
    assert {"plain,table1", "plain,table2"} <= set(result.output.split())


def test_the_changelog_knows_the_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The documentation as `make docs` builds it; a link that leads nowhere fails the build (strict)."""
    place = tmp_path_factory.mktemp("docs") / "site"
    called("make", "-o", ".venv/installed", "docs", f"BIN={Path(sys.executable).parent}", f"SITE={place}")
    return place


def test_a_clone_keeps_every_byte_whatever_its_line_ends_are(tmp_path):
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no clone")
    clone = ["git", "-c", "core.autocrlf=true", "-c", "core.eol=crlf"]
    files = ["results/checkpoint/manifest.json", "examples/copy_above.py"]
    subprocess.run([*clone, "checkout-index", f"--prefix={tmp_path}/", ".gitattributes", *files], cwd=ROOT, check=True)
    assert all(b"\r" not in (tmp_path / file).read_bytes() for file in files)


@pytest.mark.slow
def test_the_site_shows_every_public_name(site):
    import arm_core
    from arm_core import arms, data, forecasters, latents, samplers

    for page, modules in {"arm_core": [arm_core], "parts": [arms, data, forecasters, latents, samplers]}.items():
        text = (site / "docs" / "api" / f"{page}.html").read_text()
        for module in modules:
            missing = [name for name in module.__all__ if f'id="{module.__name__}.{name}"' not in text]
            assert not missing, f"{page}: {missing}"


@pytest.mark.slow
def test_the_site_has_the_notebook_a_search_and_needs_no_network(site):
    assert "data:image/png" in (site / "docs" / "notebook.html").read_text()
    assert "sample_many" in (site / "search" / "search_index.json").read_text()
    for page in site.glob("docs/**/*.html"):
        loaded = re.findall(r"<(?:script|link|img)\b[^>]*\b(?:src|href)=\"?(https?:[^\s>\"]+)", page.read_text())
        assert not loaded, f"{page.name} loads {loaded}"


@pytest.mark.slow
def test_a_link_that_leads_nowhere_fails_the_site(tmp_path):
    for name in (
        "mkdocs.yml",
        "docs",
        "arm_core",
        *SOURCES[3:],
        "CHANGELOG.md",
        "sweeps",
        "benchmarks",
        "examples",
        "results",
    ):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, tmp_path / name)
    with (tmp_path / "docs" / "paper.md").open("a") as page:
        page.write("\n[nowhere](nowhere.md)\n")
    command = [sys.executable, "-m", "mkdocs", "build", "-d", str(tmp_path / "site")]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode != 0 and "nowhere.md" in run.stdout + run.stderr
