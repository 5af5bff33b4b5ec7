"""Where every number comes from: a row a job, with device, versions, commit and seeds."""

from typing import Any

import pandas as pd

from harness.report.selection import Selection
from harness.report.tables import DASH

COLUMNS: tuple[str, ...] = (
    *("job", "kind", "state", "sweep", "dataset", "variant", "seeds"),
    *("started (UTC)", "device", "versions", "commit", "weights"),
)


def rows(selection: Selection) -> list[dict[str, Any]]:
    """A row for every job that the report is about."""
    seeds = selection.repetitions.groupby("job")["seed"].agg(lambda part: _ranges(sorted(set(part))))
    found = [_row("autoencoder", row, str(row["seed"])) for _, row in selection.autoencoders.iterrows()]
    found += [_row("training", row, str(row["seed"])) for _, row in selection.trials.iterrows()]
    found += [_row("timing", row, seeds.get(row["job"], DASH)) for _, row in selection.runs.iterrows()]
    found += [_unfinished(row) for _, row in selection.unfinished.iterrows()]
    return found


def _unfinished(row: pd.Series) -> dict[str, Any]:
    """What is known of a job that has no result: what it is called, and how it stands."""
    known = {"job": row["job"], "kind": row["kind"].replace("train", "training"), "state": row["state"]}
    known |= {"sweep": _sweep(row), "dataset": row["dataset"], "seeds": DASH if pd.isna(row["seed"]) else row["seed"]}
    variant = row["variant"] if isinstance(row["variant"], str) else DASH
    return {**dict.fromkeys(COLUMNS, DASH), **known, "variant": variant}


def _sweep(row: pd.Series) -> str:
    return row["sweep"] if pd.isna(row["profile"]) else f"{row['sweep']}@{row['profile']}"


def _row(kind: str, row: pd.Series, seeds: str) -> dict[str, Any]:
    dirty = " with changes" if pd.notna(row["dirty"]) and bool(row["dirty"]) else ""
    commit = f"{row['commit'][:10]}{dirty}" if isinstance(row["commit"], str) else DASH
    started = f"{row['started_at']:%Y-%m-%d %H:%M}" if pd.notna(row["started_at"]) else DASH
    variant = row.get("variant")
    checkpoint = row.get("checkpoint_sha256")
    versions = [
        f"torch {row['torch']}",
        f"Python {row['python']}",
        f"CUDA {row['cuda']}" if pd.notna(row["cuda"]) else "",
    ]
    return {
        "job": row["job"],
        "kind": kind,
        "state": "done",
        "sweep": _sweep(row),
        "dataset": row["dataset"],
        "variant": variant if isinstance(variant, str) else DASH,
        "seeds": seeds,
        "started (UTC)": started,
        "device": f"{row['device']}, {row['cpu']}, {row['threads']} thread{'s' if row['threads'] != 1 else ''}",
        "versions": ", ".join(part for part in versions if part),
        "commit": commit,
        "weights": checkpoint[:10] if isinstance(checkpoint, str) else DASH,
    }


def _ranges(seeds: list[int]) -> str:
    """0 to 9; or all of them, if they have gaps."""
    whole = len(seeds) > 3 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds))
