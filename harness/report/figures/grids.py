"""Figures of single samples: the images, where the forecasts were wrong, when each dimension was final."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plot

from harness.report.figures.style import GAP, RED, SMALL, WIDTH, grid_of

_RED = np.array(matplotlib.colors.to_rgb(RED))


def are_latents(rows: pd.DataFrame) -> bool:
    """Whether the samples are latents that a decoder turned into images."""
    return "decoded" in rows and bool(rows["decoded"].notna().all())


def images(rows: pd.DataFrame, column: str, prefix: str = "") -> np.ndarray:
    """(n, height, width, channels) of a binary column, as numbers."""
    first = rows.iloc[0]
    shape = tuple(int(first[f"{prefix}{name}"]) for name in ("channels", "height", "width"))
    found = [np.frombuffer(data, np.uint8).reshape(shape) for data in rows.sort_values("sample_id")[column]]
    return np.stack(found).transpose(0, 2, 3, 1)


def values(rows: pd.DataFrame) -> np.ndarray:
    """(n, height, width, channels) in [0, 1]: samples, or what latents decode to."""
    prefix = "decoded_" if are_latents(rows) else ""
    return images(rows, "decoded" if prefix else "image", prefix) / (rows.iloc[0][f"{prefix}categories"] - 1)


def mistakes(samples: pd.DataFrame, names: Sequence[str]) -> Plot:
    """(a) the samples, then a panel a sampler with its mistakes in red.

    For latents: the decoded samples above, and below a row a sampler: the share of the channels that were mistaken, and
    a panel for each channel.
    """
    first = samples[samples["label"] == (names[0] if names else samples["label"].iloc[0])]
    if are_latents(samples) and names:
        return _latent_mistakes(samples, first, names)
    plot, axes = grid_of(1, 1 + len(names), height=WIDTH / (1 + len(names)) * _tall(first) + 0.3)
    _show(axes[0][0], _colours(first), "(a) samples" if names else "samples")
    for ax, name, letter in zip(axes[0][1:], names, "bcdef", strict=False):
        rows = samples[samples["label"] == name]
        wrong = images(rows, "mistakes")
        pale = 1 - 0.35 * (1 - _colours(rows).mean(axis=-1, keepdims=True).repeat(3, axis=-1))
        share = wrong.mean(axis=-1, keepdims=True)  # of the channels
        _show(ax, pale * (1 - share) + _RED * share, f"({letter}) {name}\n{wrong.sum() / len(rows):.1f} mistakes")
    return plot


def _latent_mistakes(samples: pd.DataFrame, first: pd.DataFrame, names: Sequence[str]) -> Plot:
    channels = int(first.iloc[0]["channels"])
    each = WIDTH / (1 + channels) * _tall(first) + 0.3
    tall = [1.4] + [each] * len(names)
    plot, axes = grid_of(1 + len(names), 1 + channels, height=sum(tall), height_ratios=tall)
    for ax in axes[0]:
        ax.remove()
    _show(plot.add_subplot(axes[0][0].get_gridspec()[0, :]), _colours(first), "(a) decoded samples")
    for row, name, letter in zip(axes[1:], names, "bcdef", strict=False):
        wrong = images(samples[samples["label"] == name], "mistakes")
        parts = [wrong.mean(axis=-1, keepdims=True), *np.split(wrong, channels, axis=-1)]
        for place, (ax, part) in enumerate(zip(row, parts, strict=True)):
            heading = (
                f"({letter}) {name}\n{wrong.sum() / len(wrong):.1f} mistakes" if place == 0 else f"channel {place - 1}"
            )
            _show(ax, 1 - part * (1 - _RED), heading)
    return plot


def convergence(maps: pd.DataFrame, names: Sequence[str]) -> Plot:
    """A panel a sampler: for each place the call from which its output stayed final, mean over samples and channels."""
    grids = [
        maps[maps["label"] == name].groupby(["row", "column"])["mean_settled_at"].mean().unstack().to_numpy(float)
        for name in names
    ]
    tall = min(1.5, max(0.5, grids[0].shape[0] / grids[0].shape[1]))
    plot, axes = grid_of(1, len(names), height=min(2.0, 2.6 * tall / len(names)) + 0.5)
    most = max(2.0, *(np.nanmax(grid) for grid in grids))
    for ax, name, grid in zip(axes[0], names, grids, strict=True):
        shown = ax.imshow(grid, cmap="cividis", vmin=1, vmax=most, interpolation="nearest")
        ax.set(
            title=name, xlabel="column", xticks=sorted({0, grid.shape[1] - 1}), yticks=sorted({0, grid.shape[0] - 1})
        )
    axes[0][0].set_ylabel("row")
    plot.colorbar(shown, ax=axes, label="ARM call", shrink=0.85)
    return plot


def _tall(rows: pd.DataFrame) -> float:
    grid = _tiles(_colours(rows), GAP)
    return min(1.6, max(0.4, grid.shape[0] / grid.shape[1]))


def _show(ax: Axes, pictures: np.ndarray, heading: str) -> None:
    ax.imshow(_tiles(pictures, gap=GAP), interpolation="nearest")
    ax.set_title(heading, fontsize=SMALL)
    ax.axis("off")


def _tiles(pictures: np.ndarray, gap: float) -> np.ndarray:
    """Images side by side in a square grid, one pixel of `gap` around each."""
    count, height, width, channels = pictures.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    grid = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), gap)
    for index, image in enumerate(pictures):
        top, left = index // columns * (height + 1) + 1, index % columns * (width + 1) + 1
        grid[top : top + height, left : left + width] = image
    return grid


def _colours(rows: pd.DataFrame) -> np.ndarray:
    """As RGB in [0, 1]; other channel counts than 3 as their mean in grey."""
    found = values(rows)
    return found if found.shape[-1] == 3 else found.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
