"""Figures of many runs: speed-up, calls, work and time against width, curves, calls per image."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plot
from matplotlib.ticker import LogLocator

from harness.report.figures.style import COLOURS, Style, grid_of, legend, panels
from harness.report.naming import rank
from harness.report.statistics import GROUP
from harness.report.tables import title

Groups = Sequence[tuple[tuple, pd.DataFrame]]
AGAINST_WIDTH = {"calls_percent": "ARM calls (%)", "work": "full passes a sample", "ms": "ms a sample"}
_MOST_NAMES, _MANY_POINTS = 12, 6
_FEWEST_CALLS = 100  # that a rate is shown of


def grouped(table: pd.DataFrame, by: Sequence[str] = GROUP) -> Groups:
    """(key, rows) in the order of the keys, the same in every figure."""
    groups = [(tuple(key), part) for key, part in table.groupby(list(by), dropna=False, sort=False)]
    return sorted(groups, key=lambda group: [str(part) for part in group[0]])


def dots(groups: Groups, column: str, axis: str, *, line: str, mark: str, style: dict[Any, Style]) -> Plot:
    """A panel a dataset, a line a value of one column, a point a value of another with its interval.

    Args:
        groups: (key, rows); a key without a variant has one line a variant.
        column: what is shown.
        axis: its name.
        line, mark: the columns of lines and of points: samplers and widths, or what an ablation compares.
        style: of the values of `mark`.
    """
    most = max(part[line].nunique() for _, part in groups)
    plot, axes = panels(len(groups), width=4.2, height=0.6 + 0.4 * most, columns=2)
    for ax, (key, group) in zip(axes, groups, strict=True):
        lines = list(dict.fromkeys(group[line]))
        marks = [name for name in style if name in set(group[mark])]
        for place, name in enumerate(marks):
            rows, look = group[(group[mark] == name) & group[column].notna()], style[name]
            y = [lines.index(value) + 0.7 * ((place + 0.5) / len(marks) - 0.5) for value in rows[line]]
            text = f"batch or slots {name}" if mark == "batch_size" else str(name)
            known = rows[[f"{column}_low", f"{column}_high"]].notna().all(axis=1).to_numpy()
            low, high = (rows.loc[known, f"{column}_{end}"].to_numpy() for end in ("low", "high"))
            ax.hlines(np.array(y)[known], low, high, colors=[look.colour], lw=0.8)
            ax.plot(rows[column], y, look.marker, color=look.colour, ms=4, label=text)
        for place in range(1, len(lines)):
            ax.axhline(place - 0.5, color="0.88", lw=0.6, zorder=0)
        ax.set(title=title((*key, "default")[: len(GROUP)]), yticks=range(len(lines)), yticklabels=lines)
        ax.set(ylim=(len(lines) - 0.5, -0.5), xscale="log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
    plot.supxlabel(axis, fontsize=9)
    legend(plot, axes, columns=3)
    return plot


def against_width(groups: Groups, style: dict[str, Style]) -> Plot:
    """A row a dataset: ARM calls, full passes and ms a sample of every sampler against batch size or slots."""
    plot, axes = grid_of(len(groups), 3, width=7.6, height=2.4 * len(groups) + 1.0)
    for row, (key, group) in zip(axes, groups, strict=True):
        shown = group.assign(**{f"ms{end}": 1000 * group[f"seconds{end}"] for end in ("", "_low", "_high")})
        for ax, (column, axis) in zip(row, AGAINST_WIDTH.items(), strict=True):
            if not (shown[column] > 0).any():  # rows of an older schema lack it
                ax.set(ylabel=f"{axis}: unknown", xticks=[], yticks=[])
                continue
            _lines(ax, shown, "batch_size", column, style)
            ax.set(ylabel=axis, yscale="log")  # windows take a tenth of whole images and less
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.minorticks_off()
        row[0].set_title(title(key), loc="left")
    for ax in axes[-1]:
        ax.set_xlabel("batch size or slots")
    legend(plot, list(axes.flat), columns=3)
    return plot


def dims_per_call(groups: Groups, style: dict[str, Style]) -> Plot:
    """A panel a dataset, a line a sampler: the share of calls that made at least so many dims final.

    Args:
        groups: (key, rows of `timings`).
        style: of the samplers.
    """
    plot, axes = panels(len(groups))
    for ax, (key, group) in zip(axes, groups, strict=True):
        for name in sorted(set(group["sampler"]), key=rank):
            counts = _summed(group.loc[group["sampler"] == name, "dims_per_call"])
            share, look = counts[::-1].cumsum()[::-1] / max(counts.sum(), 1), style[name]
            line: dict[str, Any] = {"color": look.colour, "ls": look.dash, "lw": 1.3, "marker": look.marker, "ms": 3.5}
            ax.plot(range(1, len(share)), share[1:], markevery=max(1, len(share) // 6), label=name, **line)
        ax.set(title=title(key), ylim=(0, 1.02), xscale="log")
        ax.xaxis.set_major_formatter("{x:g}")
    plot.supxlabel("dims that a call makes final", fontsize=9)
    plot.supylabel("share of the calls with at least so many", fontsize=9)
    legend(plot, axes)
    return plot


def hit_rates(groups: Groups, style: dict[str, Style]) -> Plot:
    """A panel a dataset, a line a sampler: how often forecasts held, by distance, of those whose earlier ones did.

    Args:
        groups: (key, rows of `timings`); samplers without a wrong forecast are left out: most forecast nothing.
        style: of the samplers.
    """
    plot, axes = panels(len(groups))
    for ax, (key, group) in zip(axes, groups, strict=True):
        for name in sorted(set(group["sampler"]), key=rank):
            rows, look = group[group["sampler"] == name], style[name]
            calls, wrong = (_summed(rows[column]) for column in ("dims_per_call", "mistaken_per_call"))
            if not wrong.any():
                continue
            reached = calls[::-1].cumsum()[::-1]
            rate = 1 - np.pad(wrong, (0, len(calls) - len(wrong))) / reached
            shown = np.flatnonzero(reached[1:] >= _FEWEST_CALLS) + 1
            if len(shown) == 0:
                continue
            line: dict[str, Any] = {"color": look.colour, "ls": look.dash, "lw": 1.3, "marker": look.marker, "ms": 3.5}
            ax.plot(shown, rate[shown], markevery=max(1, len(shown) // 6), label=name, **line)
        ax.set(title=title(key))
        if ax.lines:
            ax.set(ylim=(None, 1.005), xscale="log")
            ax.xaxis.set_major_formatter("{x:g}")
        else:
            ax.text(0.5, 0.5, f"no distance that {_FEWEST_CALLS} calls reached", ha="center", fontsize=8)
    plot.supxlabel("dims from the frontier", fontsize=9)
    plot.supylabel("share of forecasts that were right,\nwhere all before them were", fontsize=9)
    legend(plot, axes)
    return plot


def _summed(lists: pd.Series) -> np.ndarray:
    """Histograms of different lengths in one."""
    return np.array([sum(column) for column in zip_longest(*lists.dropna(), fillvalue=0)], dtype=float)


def pareto(groups: Groups, style: dict[str, Style]) -> Plot:
    """A panel a dataset: ms that a sample is on its way (width x seconds a sample) against samples a second."""
    plot, axes = panels(len(groups))
    for ax, (key, group) in zip(axes, groups, strict=True):
        for name in sorted(set(group["sampler"]), key=rank):
            rows, look = group[group["sampler"] == name].sort_values("batch_size"), style[name]
            line = {"color": look.colour, "marker": look.marker, "ls": look.dash, "ms": 4, "lw": 1.3}
            ax.plot(1000 * rows["batch_size"] * rows["seconds"], 1 / rows["seconds"], label=name, **line)
        ax.set(title=title(key), xscale="log", yscale="log")
        for axis in (ax.xaxis, ax.yaxis):
            least, most = axis.get_data_interval()
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if most < 100 * least else (1,)))
            axis.set_major_formatter("{x:g}")
        ax.minorticks_off()
    plot.supxlabel("ms from the start of a sample to its end", fontsize=9)
    plot.supylabel("samples a second", fontsize=9)
    legend(plot, axes)
    return plot


def _lines(ax: Axes, group: pd.DataFrame, x: str, y: str, style: dict[str, Style]) -> None:
    for name in sorted(set(group["sampler"]), key=rank):
        rows, look = group[group["sampler"] == name].sort_values(x), style[name]
        line = {"color": look.colour, "marker": look.marker, "ls": look.dash, "ms": 4, "lw": 1.3}
        ax.plot(rows[x], rows[y], label=name, **line)
        if f"{y}_low" in rows:
            ax.fill_between(
                rows[x], rows[f"{y}_low"].clip(lower=0), rows[f"{y}_high"], color=look.colour, alpha=0.15, lw=0
            )
    ax.set_xscale("log", base=2)
    widths = sorted(group[x].unique())
    ax.set_xticks(widths, [str(width) for width in widths])
    ax.minorticks_off()


def are_cut(rows: pd.DataFrame) -> bool:
    """Whether curves are so long that `curves` leaves their first point no room: it is often far above the rest."""
    return bool(rows.groupby("job")["step"].nunique().max() >= _MANY_POINTS)


def curves(groups: Groups, measure: str, axis: str) -> Plot:
    """A panel a dataset and kind of its data, a colour a variant: training dashed, validation solid.

    Args:
        groups: ((dataset, data), rows of `curves` with `variant`).
        measure: bits_per_dim or mse.
        axis: what the measure is called.
    """
    plot, axes = panels(len(groups))
    variants = list(dict.fromkeys(name for _, part in groups for name in part["variant"]))[:_MOST_NAMES]
    colours = dict(zip(variants, COLOURS + sns.color_palette("dark", _MOST_NAMES - len(COLOURS)), strict=False))
    for ax, (key, group) in zip(axes, groups, strict=True):
        highest = []
        for place, variant in enumerate(variants):
            rows = group[group["variant"] == variant]
            for split, dash in (("train", "--"), ("valid", "-")):
                mean = rows.dropna(subset=[f"{split}_{measure}"]).groupby("step")[f"{split}_{measure}"].mean()
                if mean.empty:
                    continue
                marker = "os^DvPX*<>dh"[place] if split == "valid" else ""
                text = "training" if split == "train" else "validation"
                text = text if len(variants) == 1 else f"{variant}, {text}" if len(variants) < 4 else variant
                shown = text if len(variants) < 4 or split == "valid" else None
                ax.plot(mean.index, mean, dash, color=colours[variant], marker=marker, ms=3, lw=1.2, label=shown)
                highest.append(mean.iloc[1 if len(mean) >= _MANY_POINTS else 0 :].max())
        if highest:
            bottom = min(line.get_ydata().min() for line in ax.lines)  # type: ignore[union-attr]
            ax.set_ylim(
                bottom - 0.05 * (max(highest) - bottom + 1e-9), max(highest) + 0.1 * (max(highest) - bottom + 1e-9)
            )
        ax.set(title="\n".join(dict.fromkeys(map(str, key))))
    plot.supxlabel("iteration", fontsize=9)
    plot.supylabel(axis, fontsize=9)
    legend(plot, axes)
    return plot


def calls_per_image(groups: Groups, style: dict[str, Style]) -> Plot:
    """A panel a dataset, a line a sampler: the share of images that were final after so many calls.

    Args:
        groups: (key, rows of `timings`).
        style: of the samplers.
    """
    plot, axes = panels(len(groups))
    for ax, (key, group) in zip(axes, groups, strict=True):
        for name in sorted(set(group["sampler"]), key=rank):
            rows = group[group["sampler"] == name]
            calls = np.sort(100 * np.concatenate(list(rows["arm_calls"])) / float(rows["dims"].iloc[0]))
            share = np.arange(1, len(calls) + 1) / len(calls)
            look = style[name]
            ends: dict[str, Any] = {"marker": look.marker, "markevery": max(1, len(calls) // 6), "ms": 3.5}
            ax.step(
                [calls[0], *calls],
                [0, *share],
                where="post",
                color=look.colour,
                ls=look.dash,
                lw=1.3,
                label=name,
                **ends,
            )
        ax.set(title=title(key), ylim=(0, 1.02), xlim=(0, None))
    plot.supxlabel("ARM calls an image took (% of the dimensions)", fontsize=9)
    plot.supylabel("share of the images", fontsize=9)
    legend(plot, axes)
    return plot
