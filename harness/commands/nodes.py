"""What `harness nodes` does: prints the commands that start a cluster, or looks at one that runs."""

from pathlib import Path

from rich.table import Table

from arm_core.errors import InputError
from harness.console import CONSOLE, show
from harness.execution.placement import KINDS, hosts, place
from harness.execution.start import dashboard_line, slurm_script, start_lines, sweep_words
from harness.sweep import load_sweep
from harness.sweep.spec import Resources, Sweep


def show_nodes(
    file: Path | None,
    *,
    profile: str | None,
    head: str,
    slurm: bool,
    train_nodes: int,
    address: str | None,
    root: Path,
) -> None:
    """Print how to start the nodes that a sweep needs; with an address, whether those of a live cluster will do."""
    sweep = load_sweep(file, profile=profile) if file is not None else None
    resources = sweep.resources if sweep is not None else Resources()
    if slurm and file is None:
        raise InputError("--slurm needs a sweep file: harness nodes FILE --slurm")
    if address is not None:
        _show_cluster(sweep, resources, address, root)
    elif slurm and file is not None:
        script = slurm_script(resources, sweep=file, profile=profile, train_nodes=train_nodes)
        CONSOLE.print(script, soft_wrap=True, end="")
    else:
        for what, line in start_lines(resources, head=head, sweep=sweep_words(file or Path("FILE"), profile)):
            CONSOLE.print(f"# {what}\n{line}", soft_wrap=True)


def _show_cluster(sweep: Sweep | None, resources: Resources, address: str, root: Path) -> None:
    from harness.execution.environment import prepare

    prepare(address)
    from harness.execution.cluster import check_cluster, connected, live_nodes

    kinds = KINDS if sweep is None or sweep.timing is not None else KINDS[:1]
    with connected(address) as url:
        nodes = live_nodes()
        placement = place(nodes, resources, kinds)
        roles, table = hosts(nodes, placement), Table("node", "jobs", "CPUs", "GPUs", "labels")
        for node in nodes:
            owned, labels = node["Resources"], node.get("Labels", {})
            shown = " ".join(f"{key}={value}" for key, value in sorted(labels.items()) if key != "ray.io/node-id")
            sizes = [f"{owned.get(name, 0):g}" for name in ("CPU", "GPU")]
            name = f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})"
            table.add_row(name, roles.get(node["NodeID"], "none"), *sizes, shown)
        show(table)
        check_cluster(placement, root)
    CONSOLE.print("Same versions everywhere, and every node sees the store: these nodes will do.")
    if url:
        CONSOLE.print(dashboard_line(url), soft_wrap=True)
