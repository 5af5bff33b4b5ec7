"""Who may import whom, read from the source; and what an import must not load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN_IN_CORE = {"ray", "pandas", "pyarrow", "click", "pydantic", "matplotlib", "seaborn", "rich", "harness"}
STAGES = {  # harness.<stage> -> what it may import of harness
    "sweep": {"sweep"},
    "store": {"store"},
    "jobs": {"jobs", "sweep", "store"},
    "execution": {"execution", "jobs", "sweep", "store"},
    "report": {"report", "store"},
    "commands": {"commands", "console", "execution", "jobs", "sweep", "store", "report", "fetch", "animation"},
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def files(folder):
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", files("arm_core"), ids=lambda path: str(path.relative_to(ROOT)))
def test_arm_core_imports_nothing_of_the_bench(path):
    assert not {name.split(".")[0] for name in imports(path)} & FORBIDDEN_IN_CORE


@pytest.mark.parametrize("path", [*files("arm_core"), *files("harness")], ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_in_the_wheel_imports_no_benchmark(path):
    assert not any(name.split(".")[0] == "benchmarks" for name in imports(path))


@pytest.mark.parametrize("stage", STAGES)
def test_stages_import_only_earlier_ones(stage):
    for path in files(f"harness/{stage}"):
        for name in imports(path):
            if name.startswith("harness."):
                assert name.split(".")[1] in STAGES[stage], f"{path} imports {name}"


def test_only_their_owners_import_ray_and_pyarrow():
    owners = {
        "ray": {f"execution/{name}.py" for name in ("cluster", "loggers", "metrics", "spread", "timings", "trainings")},
        "pyarrow": {f"store/{name}.py" for name in ("store", "schemas", "parts")},
    }
    for package, allowed in owners.items():
        found = {
            str(path.relative_to(ROOT / "harness"))
            for path in files("harness")
            if any(name.split(".")[0] == package for name in imports(path))
        }
        assert found == allowed


def test_samplers_know_no_arm_and_no_forecaster():
    for path in files("arm_core/samplers"):
        assert not any(name.startswith(("arm_core.arms", "arm_core.forecasters")) for name in imports(path))


def test_importing_the_library_loads_nothing_of_the_bench():
    modules = ("arm_core", "arm_core.arms", "arm_core.forecasters", "arm_core.data", "arm_core.training")
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {name.split(".")[0] for name in loaded} & FORBIDDEN_IN_CORE


def test_status_and_report_answer_without_torch():
    code = "import sys, harness.commands.report, harness.execution.monitor, harness.report.page; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "ray"} & set(loaded)


def test_tests_with_ray_are_where_make_looks_for_them():
    marked = [path for path in files("tests") if "mark." + "ray" in path.read_text()]
    assert marked and all(path.parent == ROOT / "tests" / "harness" for path in marked)


def test_every_public_name_is_there_and_no_other():
    import arm_core

    assert all(getattr(arm_core, name) is not None for name in arm_core.__all__)
    with pytest.raises(AttributeError, match="no attribute 'predictive_samples'"):
        _ = arm_core.predictive_samples


def test_the_command_line_starts_without_ray_pandas_or_matplotlib():
    code = "import sys, harness.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"ray", "pandas", "matplotlib", "rich"} & set(loaded)
