"""Figures of many runs: speed-up, calls, work and time against width, curves, calls per image."""

from collections.abc import Sequence
from itertools import zip_longest
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plot

from harness.report.figures.style import Style, grid_of, legend, line, log_scale, marks, name_axes, panels
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


def dots(groups: Groups, column: str, axis: str, *, row: str, mark: str, style: dict[Any, Style]) -> Plot:
    """A panel a dataset, in it a row a value of one column, a point a value of another with its interval.

    Args:
        groups: (key, rows); a key without a variant has one row a variant.
        column: what is shown.
        axis: its name.
        row, mark: the columns of rows and of points: samplers and widths, or what an ablation compares.
        style: of the values of `mark`.
    """
    tall = [part[row].nunique() for _, part in groups]
    each = 0.2 + 0.02 * max(part[mark].nunique() for _, part in groups)
    height = sum(each * count + 0.35 for count in tall) + 0.2
    plot, axes = grid_of(len(groups), 1, height=height, height_ratios=tall)
    for ax, (key, group) in zip(axes.flat, groups, strict=True):
        lines = list(dict.fromkeys(group[row]))
        marks = [name for name in style if name in set(group[mark])]
        for place, name in enumerate(marks):
            rows, look = group[(group[mark] == name) & group[column].notna()], style[name]
            y = [lines.index(value) + 0.7 * ((place + 0.5) / len(marks) - 0.5) for value in rows[row]]
            text = f"batch or slots {name}" if mark == "batch_size" else str(name)
            known = rows[[f"{column}_low", f"{column}_high"]].notna().all(axis=1).to_numpy()
            low, high = (rows.loc[known, f"{column}_{end}"].to_numpy() for end in ("low", "high"))
            ax.hlines(np.array(y)[known], low, high, colors=[look.colour], lw=0.7)
            ax.plot(rows[column], y, ls="", label=text, **look.points)
        for place in range(1, len(lines)):
            ax.axhline(place - 0.5, color="0.88", lw=0.6, zorder=0)
        ax.set(title=title((*key, "default")[: len(GROUP)]), ylim=(len(lines) - 0.5, -0.5))
        ax.set_yticks(range(len(lines)), [fill(name, 26) for name in lines], linespacing=0.95)
        ax.tick_params(axis="y", length=0)
        log_scale(ax, "x")
    plot.supxlabel(axis)
    legend(plot, list(axes.flat))
    return plot


def against_width(groups: Groups, style: dict[str, Style]) -> Plot:
    """A row a dataset: ARM calls, full passes and ms a sample of every sampler against batch size or slots."""
    plot, axes = grid_of(len(groups), 3, height=1.45 * len(groups) + 0.35)
    for row, (key, group) in zip(axes, groups, strict=True):
        shown = group.assign(**{f"ms{end}": 1000 * group[f"seconds{end}"] for end in ("", "_low", "_high")})
        for ax, (column, axis) in zip(row, AGAINST_WIDTH.items(), strict=True):
            ax.set_title(axis if ax in axes[0] else "")
            if not (shown[column] > 0).any():  # rows of an older schema lack it
                ax.set(xlabel="unknown", xticks=[], yticks=[])
                continue
            _lines(ax, shown, "batch_size", column, style)
            log_scale(ax, "y")  # windows take a tenth of whole images and less
        row[0].set_ylabel(title(key))
    plot.supxlabel("batch size or slots")
    legend(plot, list(axes.flat))
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
            ax.plot(range(1, len(share)), share[1:], label=name, **line(look, len(share)))
        ax.set(title=title(key), ylim=(0, 1.02))
        log_scale(ax, "x")
    name_axes(plot, axes, "dims that a call makes final", "share of the calls\nwith at least so many")
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
            ax.plot(shown, rate[shown], label=name, **line(look, len(shown)))
        ax.set(title=title(key))
        if ax.lines:
            ax.set(ylim=(None, 1.005))
            log_scale(ax, "x")
        else:
            ax.text(0.5, 0.5, f"no distance that\n{_FEWEST_CALLS} calls reached", ha="center")
    name_axes(plot, axes, "dims from the frontier", "forecasts that were right,\nof those after right ones")
    legend(plot, axes)
    return plot


def _summed(lists: pd.Series) -> np.ndarray:
    """Histograms of different lengths in one."""
    return np.array([sum(column) for column in zip_longest(*lists.dropna(), fillvalue=0)], dtype=float)


def pareto(groups: Groups, style: dict[str, Style]) -> Plot:
    """A panel a dataset: ms that a sample is on its way (width x seconds a sample) against samples a second."""
    plot, axes = panels(len(groups), height=1.9)
    for ax, (key, group) in zip(axes, groups, strict=True):
        for name in sorted(set(group["sampler"]), key=rank):
            rows = group[group["sampler"] == name].sort_values("batch_size")
            ax.plot(1000 * rows["batch_size"] * rows["seconds"], 1 / rows["seconds"], label=name, **line(style[name]))
        ax.set(title=title(key))
        log_scale(ax, "x", "y")
    name_axes(plot, axes, "ms from the start of a sample to its end", "samples a second")
    legend(plot, axes)
    return plot


def _lines(ax: Axes, group: pd.DataFrame, x: str, y: str, style: dict[str, Style]) -> None:
    for name in sorted(set(group["sampler"]), key=rank):
        rows, look = group[group["sampler"] == name].sort_values(x), style[name]
        ax.plot(rows[x], rows[y], label=name, **line(look))
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
    looks = marks(variants)
    for ax, (key, group) in zip(axes, groups, strict=True):
        highest = []
        for variant in variants:
            rows = group[group["variant"] == variant]
            for split, dash in (("train", "--"), ("valid", "-")):
                mean = rows.dropna(subset=[f"{split}_{measure}"]).groupby("step")[f"{split}_{measure}"].mean()
                if mean.empty:
                    continue
                text = "training" if split == "train" else "validation"
                text = text if len(variants) == 1 else f"{variant}, {text}" if len(variants) < 4 else variant
                shown = text if len(variants) < 4 or split == "valid" else None
                plain = {"marker": ""} if split == "train" else {}
                ax.plot(mean.index, mean, ls=dash, label=shown, **{**looks[variant].points, **plain})
                highest.append(mean.iloc[1 if len(mean) >= _MANY_POINTS else 0 :].max())
        if highest:
            bottom = min(line.get_ydata().min() for line in ax.lines)  # type: ignore[union-attr]
            ax.set_ylim(
                bottom - 0.05 * (max(highest) - bottom + 1e-9), max(highest) + 0.1 * (max(highest) - bottom + 1e-9)
            )
        ax.set(title="\n".join(dict.fromkeys(map(str, key))))
    name_axes(plot, axes, "iteration", axis)
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
            look = line(style[name], len(calls))
            ax.step([calls[0], *calls], [0, *share], where="post", label=name, **look)
        ax.set(title=title(key), ylim=(0, 1.02))
        log_scale(ax, "x")
    name_axes(plot, axes, "ARM calls an image took (% of the dimensions)", "share of the images")
    legend(plot, axes)
    return plot
