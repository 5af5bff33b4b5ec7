"""The commands that start a cluster for a sweep: a line for each role, or a SLURM script of all of them."""

import shlex
from pathlib import Path

from harness.execution.placement import start_line
from harness.sweep.spec import Resources, Role

PORT = 6379
TOKEN = "(umask 077; ray get-auth-token --generate > /dev/null)"
TOKEN_MODE = "export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0"
TRAIN_FLAGS = ["--labels role=train"]
TIMING_FLAGS = ["--labels role=timing", "--resources '{\"timing\": 1}'"]


def start_lines(resources: Resources, *, head: str, sweep: str) -> list[tuple[str, str]]:
    """(what it is for, command): the token, the head, the training nodes, the timing node and the sweep itself.

    Ray asks for a token where there is one, but a node that joins sends it only when it is told to (Ray 2.60).

    Args:
        resources: of the sweep.
        head: HOST:PORT, as the other nodes reach it.
        sweep: the sweep file.
    """
    return [
        ("once, on the head; copy ~/.ray/auth_token to every node, or share the home", TOKEN),
        ("on every node, before what follows", TOKEN_MODE),
        ("the head; no job runs there", f"ray start --head --port {head.rpartition(':')[2]} --num-cpus 0"),
        (f"each training node{_kind(resources.train)}", start_line(TRAIN_FLAGS, head)),
        (f"the timing node{_kind(resources.timing)}", start_line(TIMING_FLAGS, head)),
        ("then, on any of them", f"harness sweep {sweep} --address {head} --store /shared/runs"),
    ]


def sweep_words(file: Path, profile: str | None) -> str:
    """A sweep file and its profile, as a command takes them."""
    return shlex.join([str(file), *(["--profile", profile] if profile is not None else [])])


def dashboard_line(url: str) -> str:
    """Where the dashboard of a cluster is, and how one gets in."""
    return f"Dashboard: http://{url} (it asks for the token that `ray get-auth-token` prints)"


def _kind(role: Role) -> str:
    return f" ({role.device})" if role.device else ""


def slurm_script(resources: Resources, *, sweep: Path, profile: str | None, train_nodes: int) -> str:
    """A batch script of a heterogeneous job: nodes that train, the first of them the head too, and one that times.

    Args:
        resources: of the sweep.
        sweep: its file.
        profile: of it.
        train_nodes: how many nodes train.
    """
    options = sweep_words(sweep, profile)
    head = '"$head:$port"'
    train_line = start_line(TRAIN_FLAGS, head)
    head_line = train_line.replace(f"--address {head}", '--head --node-ip-address "$head" --port "$port"')
    others = train_nodes - 1
    start_others = f"srun --het-group=0 --nodes={others} --ntasks={others} --exclude={{}} {train_line} --block &"
    first = '"$(hostname)"'
    return f"""#!/bin/bash
#SBATCH --job-name={shlex.quote(sweep.stem)}
#SBATCH --nodes={train_nodes} --ntasks-per-node=1 --exclusive{_gpus(resources.train)}
#SBATCH --time=24:00:00 --requeue --signal=B:TERM@120
#SBATCH hetjob
#SBATCH --nodes=1 --ntasks-per-node=1 --exclusive{_gpus(resources.timing)}
# Add --partition or --constraint lines of your site to both halves: the first one trains, the second one times.
# Run it again, or let SLURM requeue it, and the sweep goes on from where it stopped.
set -euo pipefail
head=$(hostname -I | cut -d ' ' -f 1)   # never the loopback, which `hostname --ip-address` may give
port={PORT}
store=${{STORE:-$SLURM_SUBMIT_DIR/runs}}   # on a file system that all nodes share
{TOKEN}   # ~/.ray/auth_token, read by all nodes: the home folder must be shared
{TOKEN_MODE}

srun --het-group=0 --nodes=1 --ntasks=1 --nodelist={first} {head_line} --block &
for attempt in $(seq 60); do (exec 3<> "/dev/tcp/$head/$port") 2> /dev/null && break; sleep 2; done
{start_others.format(first) if others else "# no other training nodes"}
srun --het-group=1 --nodes=1 --ntasks=1 {start_line(TIMING_FLAGS, head)} --block &

for attempt in $(seq 60); do   # the nodes join one by one
  if harness nodes {options} --address "$head:$port" --store "$store"; then break; fi
  if [ "$attempt" = 60 ]; then echo "the nodes did not come up" >&2; exit 1; fi
  sleep 5
done
harness sweep {options} --address "$head:$port" --store "$store" &
trap 'kill -TERM $!' TERM                   # time is up: stop as with Ctrl-C, what was finished is kept
wait $! || {{ code=$?; wait $! || true; exit $code; }}
"""


def _gpus(role: Role) -> str:
    return f" --gpus-per-node={role.gpus}" if role.gpus else ""
