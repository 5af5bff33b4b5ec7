"""The result at one look: each dataset's fastest samplers side by side, all at one batch size or number of slots."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.report.comparable import BLOCK
from harness.report.naming import ANCESTRAL
from harness.report.statistics import GROUP
from harness.report.tables import STATUSES, Cell, measured, title

FAMILIES = {"ancestral": "ancestral", "paper": "the paper's", "others": "of other papers", "ours": "ours"}
HEADINGS = ["", "sampler", "full passes", "ms a sample", "over ancestral", "over the paper's"]


@dataclass(frozen=True)
class Lead:
    """One dataset at one width.

    Attributes:
        title, status: of the dataset.
        width: batch size or slots of every row.
        rows: of each family the exact sampler whose interval of seconds ends lowest, as `HEADINGS` say.
        claim: how many times faster than others the fastest of them is, by the lower ends of the intervals.
        factor: the number of the claim, nan if there is none.
        sure: whether the factor is the lower end of an interval.
    """

    title: str
    status: str
    width: int
    rows: list[list[Cell]]
    claim: str
    factor: float
    sure: bool


def leads(speedup: pd.DataFrame) -> list[Lead]:
    """A lead for every dataset; of several variants that with the greatest factor.

    Args:
        speedup: from `statistics.speedup`.
    """
    exact = speedup[speedup["equal"].astype(bool) & ~speedup["in_law"].astype(bool)] if len(speedup) else speedup
    found = []
    for _, block in exact.groupby(BLOCK, dropna=False, sort=False):
        of_variants = [_lead(rows) for _, rows in block.groupby(GROUP, dropna=False, sort=False)]
        found.append(max(of_variants, key=lambda lead: np.nan_to_num(lead.factor)))
    return [lead for lead in found if len(lead.rows) > 1]


def _lead(rows: pd.DataFrame) -> Lead:
    rows = rows[rows["decision"] == rows["decision"].min()]  # "" is the ARM's own distribution
    families = rows.groupby("batch_size")["family"].nunique()
    width = int(families[families == families.max()].index.max())
    rows = rows[rows["batch_size"] == width]
    surely = rows["seconds_high"].fillna(rows["seconds"])
    best = rows.loc[[surely[rows["family"] == name].idxmin() for name in FAMILIES if (rows["family"] == name).any()]]
    fastest = best.loc[surely[best.index].idxmin()]
    factor, sure, claim = _claim(fastest)
    cells = [_cells(row) for _, row in best.iterrows()]
    return Lead(title(tuple(fastest[GROUP])), STATUSES[fastest["data_status"]], width, cells, claim, factor, sure)


def _claim(row: pd.Series) -> tuple[float, bool, str]:
    """(factor, whether it is the lower end of an interval, in words), over the paper's algorithm if that ran too."""
    known = []
    for name, than in (("over_paper", "the paper's algorithm"), ("speedup", "ancestral sampling")):
        low, mean = row[f"{name}_low"], row[name]
        if not np.isnan(mean):
            sure = not np.isnan(low)
            said = f"at least {low:.1f}" if sure else f"about {mean:.1f}"
            known.append((low if sure else mean, sure, f"{said} times faster than {than}"))
    if row["sampler"] == ANCESTRAL or not known:
        return np.nan, False, f"{row['sampler']} is the fastest"
    factor, sure, _ = known[0]
    return factor, sure, f"{', '.join(said for _, _, said in known)} ({row['sampler']})"


def _cells(row: pd.Series) -> list[Cell]:
    numbers = [measured(row, name) for name in ("work", "seconds", "speedup", "over_paper")]
    means = [Cell(number.text.split(" ±")[0], number.interval) for number in numbers]
    return [Cell(FAMILIES[row["family"]]), Cell(row["sampler"]), *means]


def headline(found: list[Lead], speedup: pd.DataFrame) -> str:
    """The result in a sentence."""
    known = [lead for lead in found if not np.isnan(lead.factor)]
    if not known:
        return "No sampler that equals ancestral sampling has been timed yet."
    best = max(known, key=lambda lead: (lead.sure, lead.factor))
    rest = "Every sample equals the ancestral one."
    if (~speedup["equal"].astype(bool)).any():
        rest = "Some samples differ, see below."
    elif speedup["in_law"].astype(bool).any():
        rest = "Every sample equals the ancestral one, save those of samplers that are exact in law only."
    return f"{best.title}, {best.width} at a time: {best.claim}. {rest}"
