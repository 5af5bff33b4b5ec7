"""Where mistakes sit: by row, column, channel, and by how much the image changes there."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Plot

from harness.report.figures.grids import are_latents, images, values
from harness.report.figures.style import Style, legend, line, panels

_BINS = 6


def where_mistakes_sit(
    samples: pd.DataFrame, maps: pd.DataFrame, names: Sequence[str], style: dict[str, Style]
) -> Plot:
    """A panel a property of the place, a line a sampler: the share of the dimensions there whose forecast was wrong.

    Args:
        samples: rows of `samples`, of one run, with `label`.
        maps: rows of `mistakes`, of the same run, with `label`.
        names: the samplers to show.
        style: of the samplers.
    """
    shares = {
        name: {place: _by(maps[maps["label"] == name], place) for place in ("row", "column", "channel")}
        for name in names
    }
    shown = [place for place in ("row", "column", "channel") if len(shares[names[0]][place]) > 1]
    gradients = {} if are_latents(samples) else {name: by_gradient(samples[samples["label"] == name]) for name in names}
    with_gradient = bool(gradients) and len(gradients[names[0]]) > 1
    plot, axes = panels(len(shown) + with_gradient, height=1.3, sharey=True)
    for name in names:
        look = {**line(style[name]), "label": name}
        for ax, place in zip(axes, shown, strict=False):
            share = shares[name][place]
            ax.plot(share.index, share, **{**look, "markevery": max(1, len(share) // 6) if len(share) > 12 else 1})
            ax.set_xlabel(place)
            if len(share) < 12:
                ax.set_xticks(share.index)
        if with_gradient:
            share = gradients[name]
            axes[-1].plot(share.index, share, **look)
            axes[-1].set_xlabel("gradient (share of the range)")
    axes[0].set_ylim(bottom=0)
    for ax in axes[::2]:
        ax.set_ylabel("share mistaken")
    legend(plot, axes)
    return plot


def _by(maps: pd.DataFrame, place: str) -> pd.Series:
    sums = maps.groupby(place)[["mistakes", "samples"]].sum().astype(float)
    return sums["mistakes"] / sums["samples"]


def by_gradient(samples: pd.DataFrame) -> pd.Series:
    """The share of mistakes against the gradient: the mean step in value to the pixels left and above.

    Returns:
        Mean gradient of a bin -> share of its dimensions that were mistaken; the bins hold about as many dimensions
        each, or one value of the gradient where it takes few.
    """
    shades, wrong = values(samples), images(samples, "mistakes")
    steps = np.zeros_like(shades)
    steps[:, 1:] += np.abs(np.diff(shades, axis=1)) / 2
    steps[:, :, 1:] += np.abs(np.diff(shades, axis=2)) / 2
    flat, missed = steps[:, 1:, 1:].ravel(), wrong[:, 1:, 1:].ravel()  # the first row and column have no step
    if not len(flat):
        return pd.Series(dtype=float)
    distinct = np.unique(flat)
    edges = distinct if len(distinct) <= _BINS else np.unique(np.quantile(flat, np.arange(_BINS) / _BINS))
    bins = np.searchsorted(edges, flat, side="right")
    found = pd.DataFrame({"bin": bins, "gradient": flat, "share": missed}).groupby("bin").mean()
    return pd.Series(found["share"].to_numpy(), found["gradient"].to_numpy())
