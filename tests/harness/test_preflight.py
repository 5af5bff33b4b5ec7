"""What must be alike on the nodes of a cluster, and how their start is described; no Ray here."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from arm_core import InputError
from harness.cli import main
from harness.execution.patience import Patience
from harness.execution.preflight import check_nodes
from harness.jobs.stack import Gpu, Stack, runs_on, stack

VERSIONS = {
    "Python": "3.11.7",
    "Ray": "2.60.0",
    "torch": "2.13.0+cu126",
    "CUDA": "12.6",
    "cuDNN": "9.1",
    "arm-sampling": "0.1 (code a)",
}
MINE = Stack("head", VERSIONS, None, (), ("sm_70", "sm_86", "compute_90"), "token")
V100 = replace(MINE, host="big", driver="560.1", gpus=(Gpu("Tesla V100", (7, 0)),))
ROLES = {"a" * 40: "training", "b" * 40: "timing"}


def check(*nodes, gpus=True):
    check_nodes(MINE, dict(zip(ROLES, nodes, strict=False)), ROLES, store=Path("/shared/runs"), gpus=gpus)


def test_nodes_that_are_alike_pass():
    check(V100, V100)
    check(MINE, MINE, gpus=False)


@pytest.mark.parametrize("name", VERSIONS)
def test_another_version_on_a_node_is_named_with_the_node_and_what_to_do(name):
    other = replace(V100, versions={**VERSIONS, name: "other"})
    with pytest.raises(
        InputError, match=rf"training node big \(aaaaaaaa\): {name} is other, here it is .*; install the same"
    ):
        check(other, V100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"driver": "470.2"}, "timing node big .*: its GPU driver is 470.2, elsewhere it is 560.1"),
        ({"token": None}, "does not see the store /shared/runs; give a --store on a file system that all nodes share"),
        ({"token": "another"}, "sees another folder than the driver at the store /shared/runs"),
        ({"gpus": (Gpu("GTX 1080 Ti", (6, 1)),)}, r"no code for its GTX 1080 Ti \(compute capability 6\.1\), only for sm_70, .*cu126"),
        ({"architectures": ()}, "has no CUDA; install a CUDA build"),
    ],
)  # fmt: skip
def test_what_else_differs_is_one_clear_error(change, message):
    with pytest.raises(InputError, match=message):
        check(V100, replace(V100, **change))


def test_every_fault_of_every_node_is_listed_and_a_silent_node_too():
    with pytest.raises(InputError) as told:
        check(replace(V100, token=None, versions={**VERSIONS, "torch": "2.9.0"}), None)
    lines = str(told.value).splitlines()
    assert len(lines) == 4 and "timing node bbbbbbbb: it did not answer" in lines[-1]


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((7, 0), ("sm_70", "sm_80"), True),
        ((6, 1), ("sm_60",), True),  # the same major number
        ((6, 1), ("sm_70", "sm_75"), False),
        ((8, 0), ("sm_86",), False),
        ((9, 0), ("sm_90a",), True),
        ((12, 0), ("sm_90", "compute_90"), True),
        ((7, 0), ("compute_90",), False),
        ((7, 0), (), False),
    ],
)
def test_code_runs_on_its_major_architecture_and_is_compiled_for_later_ones(capability, architectures, runs):
    assert runs_on(capability, architectures) is runs


def test_a_node_reads_the_token_of_the_store_and_its_gpus_from_the_driver(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '535.1, Tesla V100-SXM2, 7.0'\necho '535.1, Tesla V100-SXM2, 7.0'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert stack(tmp_path / "marker").token is None
    (tmp_path / "marker").write_text("x")
    facts = stack(tmp_path / "marker")
    assert facts.token == "x" and facts.driver == "535.1" and facts.gpus == (Gpu("Tesla V100-SXM2", (7, 0)),) * 2
    assert set(facts.versions) == set(VERSIONS)


def test_a_lost_node_is_waited_for_with_a_word_and_not_for_ever():
    said, now = [], [0.0]
    patience = Patience(said.append, now=lambda: now[0])
    missing = InputError("no live node can run timing jobs; start one with `ray start`")
    patience.without("timing", missing)
    now[0] = Patience.LIMIT_S - 1
    patience.without("timing", missing)
    assert len(said) == 1 and "ray start" in said[0]
    patience.found("timing")
    assert said[1:] == ["A node for timing jobs is there again."]
    patience.without("timing", missing)
    now[0] += Patience.LIMIT_S + 1
    with pytest.raises(InputError, match="Gave up after 15 minutes. What was finished is kept"):
        patience.without("timing", missing)


@pytest.fixture
def two_roles(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "name: cluster\ndatasets: {digits: {}}\n"
        "resources: {train: {gpus: 4, device: V100}, timing: {gpus: 1, device: GTX1080Ti}}\n"
    )
    return file


def test_the_start_lines_of_all_roles_are_printed(two_roles):
    result = CliRunner().invoke(main, ["nodes", str(two_roles), "--head", "10.0.0.1:6400"])
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "# once, on the head; copy ~/.ray/auth_token to every node, or share the home",
        "(umask 077; ray get-auth-token --generate > /dev/null)",
        "# on every node, before what follows",
        "export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0",
        "# the head; no job runs there",
        "ray start --head --port 6400 --num-cpus 0",
        "# each training node (V100)",
        "ray start --address 10.0.0.1:6400 --labels role=train",
        "# the timing node (GTX1080Ti)",
        "ray start --address 10.0.0.1:6400 --labels role=timing --resources '{\"timing\": 1}'",
        "# then, on any of them",
        f"harness sweep {two_roles} --address 10.0.0.1:6400 --store /shared/runs",
    ]


STUB = """#!/bin/bash
echo "$(basename "$0") $*" >> "$CALLS"
"""


def test_the_slurm_script_starts_every_role_and_ends_as_the_sweep_does(two_roles, tmp_path):
    """Run with commands that only note how they are called, and a port that answers."""
    import socket

    result = CliRunner().invoke(main, ["nodes", str(two_roles), "--slurm", "--train-nodes", "3"])
    assert result.exit_code == 0, result.output
    assert "#SBATCH --nodes=3 --ntasks-per-node=1 --exclusive --gpus-per-node=4" in result.output
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("srun", "ray", "harness"):
        (commands / name).write_text(STUB + ('[ "$1" != sweep ] || exit 1\n' if name == "harness" else ""))
        (commands / name).chmod(0o755)
    (commands / "hostname").write_text("#!/bin/sh\n[ $# = 0 ] && echo here || echo 127.0.0.1\n")
    (commands / "hostname").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = result.output.replace("port=6379", f"port={server.getsockname()[1]}")
        environment = {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "CALLS": str(tmp_path / "calls"),
            "SLURM_SUBMIT_DIR": "/s",
        }
        ended = subprocess.run(
            ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    assert ended.returncode == 1, "the exit code of the sweep\n" + ended.stderr
    calls = (tmp_path / "calls").read_text()
    assert "ray get-auth-token --generate" in calls
    assert "--het-group=0 --nodes=1 --ntasks=1 --nodelist=here ray start --head --node-ip-address 127.0.0.1" in calls
    assert "--het-group=0 --nodes=2 --ntasks=2 --exclude=here ray start --address 127.0.0.1" in calls
    assert "--het-group=1 --nodes=1 --ntasks=1 ray start --address" in calls and '{"timing": 1}' in calls
    assert f"harness nodes {two_roles} --address" in calls and "--store /s/runs" in calls


def test_a_slurm_script_needs_a_sweep_file():
    result = CliRunner().invoke(main, ["nodes", "--slurm"])
    assert result.exit_code == 2 and "--slurm needs a sweep file" in result.output


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("Version mismatch: Ray 2.1 here", r"runs other versions: Version mismatch: Ray 2\.1 here"),
        ("No node info when trying to resolve node to connect to.", r"`ray start --address head:6379 --num-cpus 0`"),
    ],
)
def test_what_ray_refuses_at_connecting_is_said_with_what_mends_it(reason, said):
    from harness.execution.cluster import _refused

    with pytest.raises(InputError, match=said):
        raise _refused("head:6379", reason)
