"""`logging:` takes curves to MLflow, Weights & Biases and TensorBoard, and never stops a sweep."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from types import SimpleNamespace

import pytest

from arm_core import InputError
from harness.store import Store
from harness.sweep import LoggingSpec, load_sweep, make_plan

SERVER = os.environ.get("MLFLOW_SERVER", "")
"""The `mlflow` of an environment of its own: the server's requirements do not go with ours (docs/logging.md)."""


def needs(package):
    there = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not there, reason=f"{package} is not installed: pip install -e '.[{package}]'")


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.fixture
def logged(small_sweep, tmp_path, local_ray):
    """Run the small sweep under `logging:`; gives the store, what was said, and how many jobs are done."""

    def run(line):
        small_sweep.write_text(small_sweep.read_text().partition("timing:")[0] + f"logging: {line}\n")
        sweep, store, said = load_sweep(small_sweep), Store(tmp_path / "runs"), []
        ledger = local_ray.execute(make_plan(sweep, {}), store, say=said.append)
        return store, said, ledger.done

    return run


class Broken:
    """A logger whose server is gone."""

    def __getattr__(self, name):
        def fail(*_, **__):
            raise ConnectionError("no answer\nand more")

        return fail


def test_a_logger_is_given_up_at_its_first_error_and_that_is_said_once():
    from harness.execution.loggers import Harmless

    said = []
    logger = Harmless("MLflow", Broken, said.append)
    logger.setup()
    logger.on_experiment_end([])
    assert said == ["Logging to MLflow has ended (ConnectionError: no answer); the sweep goes on"]


def test_a_logger_that_cannot_be_made_is_given_up_too():
    from harness.execution.loggers import Harmless

    def make():
        raise RuntimeError("not installed")

    said = []
    Harmless("MLflow", make, said.append).setup()
    assert len(said) == 1 and "not installed" in said[0]


def test_nothing_is_logged_unless_it_is_asked_for(small_sweep):
    from harness.execution.loggers import loggers

    assert load_sweep(small_sweep).logging == LoggingSpec()
    assert loggers(LoggingSpec(), "small", small_sweep.parent, print) == []


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_package_that_is_missing_is_refused_with_its_line(package, small_sweep, monkeypatch):
    monkeypatch.setattr("harness.sweep.spec.find_spec", lambda name: None)
    small_sweep.write_text(small_sweep.read_text() + f"logging: {{{package}: there}}\n")
    with pytest.raises(InputError, match=rf"small.yaml:\d+: logging.{package}: .*arm-sampling\[{package}\]"):
        load_sweep(small_sweep)


@pytest.mark.ray
def test_tensorboard_finds_the_curves_in_the_store(logged):
    store, said, done = logged("{tensorboard: true}")
    assert done == 1 and not [line for line in said if "Logging" in line]
    (events,) = store.root.glob("ray/*/*/events.out.tfevents.*")
    content = events.read_bytes()
    assert b"ray/tune/valid_bits_per_dim" in content and b"training.learning_rate" in content


@pytest.mark.ray
@needs("mlflow")
def test_a_server_that_is_gone_stops_nothing(logged):
    _, said, done = logged(f"{{mlflow: 'http://127.0.0.1:{free_port()}'}}")
    assert done == 1
    assert sum("Logging to MLflow has ended" in line for line in said) == 1


@pytest.mark.ray
@needs("mlflow")
@pytest.mark.skipif(not SERVER, reason="MLFLOW_SERVER names no `mlflow` whose server could be started")
def test_a_server_gets_settings_and_curves(logged, tmp_path):
    import mlflow

    port = free_port()
    command = [SERVER, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    store = f"sqlite:///{tmp_path}/mlflow.db"
    with subprocess.Popen([*command, "--backend-store-uri", store], cwd=tmp_path, env=clean) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/health")
            _, said, done = logged(f"{{mlflow: 'http://127.0.0.1:{port}'}}")
            assert done == 1 and not [line for line in said if "Logging" in line]
            client = mlflow.MlflowClient(f"http://127.0.0.1:{port}")
            (run,) = client.search_runs([client.get_experiment_by_name("small").experiment_id])
            assert run.data.params["training.learning_rate"] == "0.01" and run.info.status == "FINISHED"
            curve = client.get_metric_history(run.info.run_id, "valid_bits_per_dim")
            assert [point.step for point in curve] == sorted({point.step for point in curve}) and curve[0].step == 2
        finally:
            server.terminate()


def wait_for(address, seconds=120):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return urllib.request.urlopen(address, timeout=5).read()
        except OSError:
            assert time.monotonic() < deadline, f"nothing answers at {address}"
            time.sleep(0.5)


@pytest.mark.ray
@needs("wandb")
def test_weights_and_biases_keeps_runs_while_it_is_offline(small_sweep, tmp_path):
    """In a process of its own: WANDB_MODE is read where Ray starts."""
    small_sweep.write_text(small_sweep.read_text().partition("timing:")[0] + "logging: {wandb: trials}\n")
    environment = {**os.environ, "WANDB_MODE": "offline"}
    command = [sys.executable, "-m", "harness", "sweep", small_sweep, "--no-dashboard", "--store", tmp_path / "runs"]
    run = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and "has ended" not in run.stdout, run.stdout + run.stderr
    (kept,) = (tmp_path / "runs").glob("wandb/offline-run-*/run-*.wandb")
    content = kept.read_bytes()
    assert b"valid_bits_per_dim" in content and b"training.learning_rate" in content


def test_settings_that_servers_refuse_are_shortened():
    from harness.execution.loggers import _LONGEST, _Training

    job = {"kind": "train", "title": "t", "arm": {"name": "pixelcnn", "options": {}, "source": "x" * 9000}}
    trial = SimpleNamespace(config={"job": "{}"}, trial_id="1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.execution.loggers.job_from_json", lambda _: SimpleNamespace(model_dump=lambda **__: job))
        shown = _Training(trial)
    assert len(shown.config["arm.source"]) == _LONGEST and shown.trial_id == "1"
