"""The figure of `harness bench`: calls, work and seconds against batch size or slots, and against image height."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

from harness.report.figures.style import COLOURS, DASHES, MARKERS, legend, save_as, styled

AXES = {"calls": "ARM calls a sample", "work": "full passes a sample", "ms": "ms a sample"}


def draw(found: pd.DataFrame, own_height: int, out: Path) -> list[Path]:
    """Write samplers.png, .svg and .pdf.

    Args:
        found: from `harness.benches.samplers_report.summary`.
        own_height: of the checkpoint's images.
        out: the folder.
    """
    found = found[found["is_drawn"]]
    here = found[found["height"] == own_height]
    heights = found[found["width"].isin(found.loc[found["height"] != own_height, "width"])]
    names = list(dict.fromkeys(found["name"]))
    with styled():
        rows = 1 + (not heights.empty)
        plot, axes = plt.subplots(rows, 3, figsize=(7.6, 2.5 * rows + 1.0), squeeze=False)
        looks = _looks(names)
        for ax, (measure, axis) in zip(axes[0], AXES.items(), strict=True):
            _lines(ax, here, "width", measure, looks)
            ax.set(xlabel="batch size or slots", ylabel=axis)
        if rows > 1:
            width = int(heights["width"].iloc[0])
            for ax, (measure, axis) in zip(axes[1], AXES.items(), strict=True):
                _lines(ax, heights[heights["name"].isin(_everywhere(heights))], "height", measure, looks)
                ax.set(xlabel=f"image height, at {width}", ylabel=axis)
        legend(plot, list(axes.flat), columns=4)
        return save_as(plot, out, "samplers")


def _everywhere(rows: pd.DataFrame) -> list[str]:
    counts = rows.groupby("name")["height"].nunique()
    return list(counts[counts == rows["height"].nunique()].index)


def _looks(names: list[str]) -> dict[str, dict[str, object]]:
    return {
        name: {
            "color": "black" if name == "ancestral" else COLOURS[place % len(COLOURS)],
            "marker": MARKERS[place % len(MARKERS)],
            "ls": DASHES[place % len(DASHES)],
            "lw": 2.2 if name == "auto window" else 1.2,
            "ms": 4,
        }
        for place, name in enumerate(names)
    }


def _lines(ax: Axes, rows: pd.DataFrame, x: str, y: str, looks: dict[str, dict[str, object]]) -> None:
    for name, part in rows.groupby("name", sort=False):
        part = part.sort_values(x)
        ax.plot(part[x], part[y], label=name, **looks[str(name)])  # type: ignore[arg-type]
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    places = sorted(rows[x].unique())
    ax.set_xticks(places, [str(place) for place in places])
    ax.minorticks_off()
