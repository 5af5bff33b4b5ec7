"""The figures, as PNG and SVG, in one style that survives grey printing and colour blindness.

Imports matplotlib and seaborn: load this module only when a report is written.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure as Plot

from harness.report.statistics import label
from harness.report.tables import title

RED = "#d7301f"
GAP = 0.85  # grey between tiles: a white image must not melt into the page
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "svg.hashsalt": "arm",
    "svg.fonttype": "none",
    "figure.dpi": 100,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True)
class Figure:
    """A drawn figure: its files, and the words that go with it."""

    name: str
    caption: str
    png: Path
    svg: Path


def draw_all(
    speedup: pd.DataFrame, samples: pd.DataFrame, mistakes: pd.DataFrame, groups: dict[str, tuple], out: Path
) -> list[Figure]:
    """Every figure that the rows suffice for.

    Args:
        speedup: from `statistics.speedup`.
        samples, mistakes: those tables.
        groups: timing job -> its (sweep, profile, dataset, variant).
        out: the folder to write to; made if missing. Figures of an earlier report are removed.
    """
    out.mkdir(parents=True, exist_ok=True)
    drawn = []
    with plt.rc_context({**sns.axes_style("ticks"), **_STYLE}):  # type: ignore[dict-item]
        for name, caption, plot in _plots(speedup, samples, mistakes, groups):
            png, svg = out / f"{name}.png", out / f"{name}.svg"
            plot.savefig(png, dpi=150, bbox_inches="tight", metadata={"Software": None})
            plot.savefig(svg, bbox_inches="tight", metadata={"Date": None})
            plt.close(plot)
            drawn.append(Figure(name, caption, png, svg))
    current = {path for figure in drawn for path in (figure.png, figure.svg)}
    for old in [*out.glob("*.png"), *out.glob("*.svg")]:  # of an earlier report, about other jobs
        if old not in current:
            old.unlink()
    return drawn


def _plots(
    speedup: pd.DataFrame, samples: pd.DataFrame, mistakes: pd.DataFrame, groups: dict[str, tuple]
) -> Iterator[tuple[str, str, Plot]]:
    if not speedup.empty:
        yield (
            "calls",
            "ARM calls per batch, in percent of those of ancestral sampling: mean over seeds, and standard deviation.",
            _bars(
                speedup, "calls_percent", "ARM calls in % of the dimensions", lambda row: (row.calls_percent_std,) * 2
            ),
        )
        yield (
            "speedup",
            "Seconds of ancestral sampling over seconds of the sampler, same run and noise: median, 95 % interval.",
            _bars(
                speedup,
                "speedup",
                "speed-up over ancestral",
                lambda row: (row.speedup - row.speedup_low, row.speedup_high - row.speedup),
            ),
        )
    for job, part in samples.groupby("job"):
        heading, slug = title(groups[job]), "-".join(str(x) for x in groups[job][2:] if x != "default")
        part = part.assign(label=_labels(part))
        yield from _job_plots(heading, slug, part, mistakes[mistakes["job"] == job])


def _job_plots(
    heading: str, slug: str, samples: pd.DataFrame, mistakes: pd.DataFrame
) -> Iterator[tuple[str, str, Plot]]:
    reference = samples[samples["sampler"] == "ancestral"]
    seed = reference["seed"].iloc[0]
    one = next((name for name in samples["label"] if name == "fixed point"), reference["label"].iloc[0])
    shown = samples[samples["label"] == one]
    yield (
        f"{slug}-samples",
        f"{heading}: {len(shown)} samples of seed {seed}, in the order of their ids, not selected.",
        _sample_grid(shown),
    )
    both = [name for name in dict.fromkeys(samples["label"]) if name.startswith("learned") or name == "fixed point"]
    both.sort(key=lambda name: not name.startswith("learned"))
    if not both:
        return
    yield (
        f"{slug}-mistakes",
        f"{heading}: forecast mistakes (red) of {' and of '.join(both)}, on the same noise and hence the same samples.",
        _mistake_grids(samples, both),
    )
    maps = mistakes.assign(label=_labels(mistakes))
    yield (
        f"{slug}-convergence",
        f"{heading}: the call from which the output of a dimension stayed final, mean over {len(shown)} samples"
        + (" and channels." if maps["channel"].max() > 0 else "."),
        _convergence(maps, both),
    )


def _labels(rows: pd.DataFrame) -> list[str]:
    return [label(*item) for item in zip(rows["sampler"], rows["forecaster"], rows["horizon"], strict=True)]


def _bars(table: pd.DataFrame, column: str, axis: str, spread: Callable[[pd.Series], tuple[float, float]]) -> Plot:
    """A panel a dataset, a bar a sampler and batch size, the value written at each bar."""
    keys = list(table.groupby(["sweep", "profile", "dataset", "variant"], dropna=False, sort=False))
    names = [name for name in dict.fromkeys(table["sampler"]) if name != "ancestral"]
    batches = sorted(table["batch_size"].unique())
    colours = sns.color_palette("colorblind", len(batches))
    hatches = ["", "///", "...", "xxx"]
    height = 1.0 + 0.24 * len(names) * len(batches)
    plot, axes = plt.subplots(
        1, len(keys), figsize=(0.8 + 2.6 * len(keys), height), sharey=True, squeeze=False, layout="constrained"
    )
    step = 0.8 / len(batches)
    for ax, (key, group) in zip(axes[0], keys, strict=True):
        reach = 0.0
        for index, batch in enumerate(batches):
            for place, name in enumerate(names):
                row = group[(group["sampler"] == name) & (group["batch_size"] == batch)]
                if row.empty:
                    continue
                value, (low, high) = row.iloc[0][column], spread(row.iloc[0])
                y = place + (index - (len(batches) - 1) / 2) * step
                error = None if np.isnan([low, high]).any() else [[low], [high]]
                style = {"color": colours[index], "hatch": hatches[index % 4], "edgecolor": "white", "linewidth": 0}
                ax.barh(
                    y,
                    value,
                    step * 0.9,
                    xerr=error,
                    error_kw={"lw": 0.8},
                    label=f"batch {batch}" if place == 0 else None,
                    **style,
                )
                reach = max(reach, value + (0 if error is None else high))
                ax.annotate(
                    f"{value:.3g}",
                    (value + (0 if error is None else high), y),
                    (4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7,
                )
        ax.set_title(title(key))
        ax.set_xlim(0, reach * 1.25)
        ax.set_yticks(range(len(names)), names)
    axes[0][0].invert_yaxis()
    plot.supxlabel(axis, fontsize=9)
    handles, texts = axes[0][0].get_legend_handles_labels()
    plot.legend(handles, texts, loc="outside upper center", ncols=len(batches), frameon=False)
    return plot


def _are_latents(rows: pd.DataFrame) -> bool:
    return "decoded" in rows and rows["decoded"].notna().all()


def _images(rows: pd.DataFrame, column: str, prefix: str = "") -> np.ndarray:
    """(n, height, width, channels) of a binary column, as numbers."""
    first = rows.iloc[0]
    shape = tuple(int(first[f"{prefix}{name}"]) for name in ("channels", "height", "width"))
    found = [np.frombuffer(data, np.uint8).reshape(shape) for data in rows.sort_values("sample_id")[column]]
    return np.stack(found).transpose(0, 2, 3, 1)


def _tiles(images: np.ndarray, gap: float) -> np.ndarray:
    """Images side by side in a square grid, one pixel of `gap` between them."""
    count, height, width, channels = images.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    grid = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), gap)
    for index, image in enumerate(images):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        grid[top : top + height, left : left + width] = image
    return grid


def _colours(rows: pd.DataFrame) -> np.ndarray:
    """Samples, or what latents decode to, as RGB in [0, 1]; other channel counts than 3 as their mean in grey."""
    prefix = "decoded_" if _are_latents(rows) else ""
    values = _images(rows, "decoded" if prefix else "image", prefix) / (rows.iloc[0][f"{prefix}categories"] - 1)
    return values if values.shape[-1] == 3 else values.mean(axis=-1, keepdims=True).repeat(3, axis=-1)


def _sample_grid(rows: pd.DataFrame) -> Plot:
    plot, ax = plt.subplots(figsize=(3.2, 3.2))
    ax.imshow(_tiles(_colours(rows), gap=GAP), interpolation="nearest")
    ax.axis("off")
    return plot


def _latent_mistakes(samples: pd.DataFrame, names: list[str]) -> Plot:
    """A row a sampler: the share of the channels that were mistaken, and a panel for each channel."""
    channels = int(samples.iloc[0]["channels"])
    size = (2.2 * (1 + channels), 2.4 * len(names))
    plot, axes = plt.subplots(len(names), 1 + channels, figsize=size, squeeze=False, layout="constrained")
    for row, name in zip(axes, names, strict=True):
        wrong = _images(samples[samples["label"] == name], "mistakes")
        panels = [wrong.mean(axis=-1, keepdims=True), *np.split(wrong, channels, axis=-1)]
        for place, (ax, panel) in enumerate(zip(row, panels, strict=True)):
            red = np.array(matplotlib.colors.to_rgb(RED))
            ax.imshow(_tiles(1 - panel * (1 - red), gap=GAP), interpolation="nearest")
            ax.set_title(f"channel {place - 1}" if place else f"{name}: {wrong.sum() / len(wrong):.1f} mistakes")
            ax.axis("off")
    return plot


def _mistake_grids(samples: pd.DataFrame, names: list[str]) -> Plot:
    if _are_latents(samples):
        return _latent_mistakes(samples, names)
    plot, axes = plt.subplots(1, len(names), figsize=(3.4 * len(names), 3.6), squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        rows = samples[samples["label"] == name]
        pale = 1 - 0.35 * (1 - _colours(rows).mean(axis=-1, keepdims=True).repeat(3, axis=-1))
        wrong = _images(rows, "mistakes").mean(axis=-1, keepdims=True)  # share of the channels
        red = np.array(matplotlib.colors.to_rgb(RED))
        ax.imshow(_tiles(pale * (1 - wrong) + red * wrong, gap=GAP), interpolation="nearest")
        total = int(_images(rows, "mistakes").sum())
        ax.set_title(f"{name}: {total / len(rows):.1f} mistakes per image")
        ax.axis("off")
    plot.tight_layout()
    return plot


def _convergence(maps: pd.DataFrame, names: list[str]) -> Plot:
    plot, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names) + 0.6, 3.2), squeeze=False, layout="constrained")
    grids = [
        maps[maps["label"] == name].groupby(["row", "column"])["mean_settled_at"].mean().unstack().to_numpy()
        for name in names
    ]
    most = max(grid.max() for grid in grids)
    for ax, name, grid in zip(axes[0], names, grids, strict=True):
        image = ax.imshow(grid, cmap="cividis", vmin=1, vmax=most, interpolation="nearest")
        ax.set_title(name)
        ax.set_xticks([0, grid.shape[1] - 1])
        ax.set_yticks([0, grid.shape[0] - 1])
        ax.set_xlabel("column")
    axes[0][0].set_ylabel("row")
    plot.colorbar(image, ax=axes, label="call", shrink=0.85)
    return plot
