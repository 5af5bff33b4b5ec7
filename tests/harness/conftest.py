"""A sweep small enough to run in seconds, and one Ray for all tests that need it."""

import os
from pathlib import Path

import pytest

os.environ["RAY_AUTH_MODE"] = "disabled"  # on loopback, for tests only; read when ray is imported
os.environ["RAY_metrics_report_interval_ms"] = "1000"  # noqa: SIM112  # Ray spells it so; not every ten seconds

SMALL = """
name: small
datasets:
  digits: {}
variants:
  default:
    arm: {resnets: 1, filters: 4, dropout: 0.0}
    forecasting: {horizon: 2, filters: 4}
training: {iterations: 4, batch_size: 8, learning_rate: 1e-2, evaluate_every: 2, checkpoint_every: 2}
timing:
  samplers: [ancestral, zeros, fixed_point, learned]
  batch_sizes: [1, 2]
  seeds: [0, 1, 2]
  figure_count: 4
resources: {train: {threads: 1}, timing: {threads: 1}}
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Jobs of `--serial` take one thread here: of two, each waits for the other where tests run side by side."""
    monkeypatch.setattr("harness.execution.serial.available_cpus", lambda: 1)


@pytest.fixture
def figures_once(monkeypatch):
    """Figures are drawn as PNG alone, and not in three formats, which is most of the time that a report takes."""
    from harness.report.figures import style

    monkeypatch.setattr(style.FigureCanvasSVG, "print_svg", lambda self, place, **options: place.touch())
    monkeypatch.setattr(style.FigureCanvasPdf, "print_pdf", lambda self, place, **options: place.touch())


@pytest.fixture
def small_sweep(tmp_path, sample_data) -> Path:
    """The path of a sweep file of one tiny training and its timings."""
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    return file


@pytest.fixture(scope="session")
def local_ray():
    """A Ray of our own for the whole session, without dashboard."""
    from harness.execution import ray

    with ray.connected("local", dashboard=False):
        yield ray


@pytest.fixture(scope="session")
def cluster():
    """Emulated nodes for all tests that need them: a head, two that train, one that times."""
    from tests.harness.cluster import Emulated

    nodes = Emulated()
    yield nodes
    nodes.shutdown()
