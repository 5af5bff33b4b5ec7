"""What may be compared: runs of one device, of the same versions, weights and kind of data.

A block is all runs of one dataset in one sweep: what a reader compares line by line. A block whose runs differ is left
out, unless the user mixes them knowingly (`--mix`); then a footnote says so.
"""

from collections.abc import Collection, Sequence

import pandas as pd

BLOCK = ["sweep", "profile", "dataset"]
MIXABLE = {
    "device": ["device", "cpu", "threads"],
    "version": ["torch", "cuda", "python", "package", "dtype"],
    "checkpoint": ["checkpoint_sha256"],
    "status": ["dataset_status", "dataset_sha256"],
}
"""What `--mix` takes, and the columns in which the runs of a block must agree."""
_SHOWN = 20


def few(names: Sequence[str]) -> str:
    """The names, each once; only so many of them."""
    shown = list(dict.fromkeys(names))
    more = len(shown) - _SHOWN
    return ", ".join(shown[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def comparable(runs: pd.DataFrame, mix: Collection[str], left_out: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """The runs of blocks that may be compared, and a footnote for each that is compared all the same."""
    kept, footnotes = [], []
    for _, block in runs.groupby(BLOCK, dropna=False, sort=False):
        name, refused = block["dataset"].iloc[0], False
        for kind, columns in MIXABLE.items():
            differences = _stale(block) if kind == "checkpoint" else _differences(block, columns)
            if not differences:
                continue
            if kind in mix:
                footnotes.append(f"{name} mixes runs that differ in {kind}, as --mix {kind} asked: {differences}.")
            else:
                refused = True
                left_out.append(
                    f"{name} is left out of all comparisons: its runs differ in {kind} ({differences}). "
                    "Time them again alike, report fewer of them (--sweep, --only), or compare them all the same "
                    f"with --mix {kind}."
                )
        if not refused:
            kept.append(block)
    return (pd.concat(kept) if kept else runs.iloc[:0]), footnotes


def _differences(block: pd.DataFrame, columns: Sequence[str]) -> str:
    found = []
    for column in columns:
        counts = block[column].dropna().astype(str).value_counts()
        if len(counts) > 1:
            found.append(f"{column}: " + ", ".join(f"{value} in {many}" for value, many in counts.sort_index().items()))
    return "; ".join(found)


def _stale(block: pd.DataFrame) -> str:
    """Runs that timed other weights than those whose bits/dim stand beside them."""
    both = block["checkpoint_sha256"].notna() & block["trained_sha256"].notna()
    stale = block[both & (block["checkpoint_sha256"] != block["trained_sha256"])]
    return f"timed other weights than the last training left: {few(list(stale['job']))}" if len(stale) else ""
