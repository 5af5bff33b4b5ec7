"""One style for all figures, made for one column of a paper, which is also about as wide as a phone.

Colours are those that the colour-blind tell apart; markers and dashes are for grey print.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Plot
from matplotlib.textpath import TextPath
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from harness.report.naming import ANCESTRAL, rank

RED = "#d7301f"
GAP = 0.85  # grey between tiles: a white image must not melt into the page
_TOO_PALE = (6, 8)  # pink and yellow vanish as lines on white, and more so in grey
COLOURS = [colour for index, colour in enumerate(sns.color_palette("colorblind", 10)) if index not in _TOO_PALE]
FORMATS = ("png", "svg", "pdf")
# Shapes that 3 points tell apart, filled and then hollow; as many as have no divisor in common with the dashes, so that
# in grey too no two of the first 70 names look alike.
MARKERS, DASHES = "os^vD<>", ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
WIDTH = 3.35
"""Inches of a figure: 8.5 cm."""
SMALL = 6.5
"""Points of the smallest text: 6 can just be read in print."""
_STYLE: dict[str, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "figure.labelsize": 7,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.labelspacing": 0.25,
    "legend.columnspacing": 1.2,
    "legend.handlelength": 2.4,
    "legend.borderpad": 0,
    "lines.linewidth": 1.0,
    "lines.markersize": 3,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.titlepad": 3,
    "axes.labelpad": 2,
    "svg.hashsalt": "arm",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "figure.dpi": 100,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.02,
}
DPI = 300
"""Of the PNG files."""
_LINE = 1.25 * SMALL / 72  # inches of a line of a legend


@dataclass(frozen=True)
class Figure:
    """A drawn figure: its files, the words that go with it, where it belongs, and the rows that it shows.

    Attributes:
        place: the name of the table that it goes with, or "overview".
        query: for pandas, on the table that it names.
    """

    name: str
    title: str
    caption: str
    place: str
    query: str
    files: dict[str, Path]

    @property
    def png(self) -> Path:
        """The picture that the page shows."""
        return self.files["png"]


@dataclass(frozen=True)
class Drawing:
    """A figure that is not saved yet."""

    name: str
    title: str
    caption: str
    place: str
    query: str
    plot: Plot


def styled() -> Any:
    """The context in which figures are drawn and saved."""
    plain = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}  # no matplotlibrc
    return matplotlib.rc_context({**plain, **sns.axes_style("ticks"), **_STYLE})  # type: ignore[dict-item]


def save(drawing: Drawing, out: Path) -> Figure:
    """Write the files of a figure, the same bytes for the same rows."""
    files = dict(zip(FORMATS, save_as(drawing.plot, out, drawing.name), strict=True))
    return Figure(drawing.name, drawing.title, drawing.caption, drawing.place, drawing.query, files)


def save_as(plot: Plot, out: Path, name: str) -> list[Path]:
    """Write out/name in every format."""
    files = [out / f"{name}.{kind}" for kind in FORMATS]
    layout = plot.get_layout_engine()
    if layout is not None:
        layout.execute(plot)
    plot.set_layout_engine("none")  # it is laid out; not once more for every format
    plot.set_dpi(DPI)
    png, svg, pdf = files  # by what `savefig` ends in: it would draw every figure once more before, to lay it out
    FigureCanvasAgg(plot).print_png(png, metadata={"Software": None}, pil_kwargs={"compress_level": 3})
    FigureCanvasSVG(plot).print_svg(svg, metadata={"Date": None})
    FigureCanvasPdf(plot).print_pdf(pdf, metadata={"CreationDate": None})
    return files


def grid_of(rows: int, columns: int, *, height: float, **shared: Any) -> tuple[Plot, Any]:
    """A plot so many inches high and its (rows, columns) axes; pyplot's would load a backend, and keep them all."""
    plot = Plot(figsize=(WIDTH, height))
    return plot, plot.subplots(rows, columns, squeeze=False, **shared)


def panels(count: int, *, height: float = 1.45, columns: int = 2, **shared: Any) -> tuple[Plot, list[Axes]]:
    """A grid of `count` axes, each row so many inches high; places that are left over stay blank."""
    columns = min(columns, count)
    rows = -(-count // columns)
    plot, axes = grid_of(rows, columns, height=height * rows * (1.3 if count == 1 else 1) + 0.3, **shared)
    flat = list(axes.flat)
    for ax in flat[count:]:
        ax.set_visible(False)
    return plot, flat[:count]


@dataclass(frozen=True)
class Style:
    """How one name is drawn, in every figure of a report alike."""

    colour: Any
    marker: str
    dash: Any
    hollow: bool = False

    @property
    def points(self) -> dict[str, Any]:
        """How its points are drawn."""
        face = "white" if self.hollow else self.colour
        return {"color": self.colour, "marker": self.marker, "markerfacecolor": face, "markeredgewidth": 0.8}


def styles(names: Iterable[str]) -> dict[Any, Style]:
    """A style for every sampler; the same names get the same styles."""
    ordered = sorted(set(names) - {ANCESTRAL}, key=rank)
    return {ANCESTRAL: Style("black", "x", "-"), **marks(ordered)}


def marks(values: Iterable[Any]) -> dict[Any, Style]:
    """A style for each value, in their order."""
    return {
        value: Style(
            COLOURS[index % len(COLOURS)],
            MARKERS[index % len(MARKERS)],
            DASHES[index % len(DASHES)],
            index // len(MARKERS) % 2 == 1,
        )
        for index, value in enumerate(values)
    }


def log_scale(ax: Axes, *names: str) -> None:
    """Logarithmic axes with plain numbers, few enough for their length and never none."""
    for name in names:
        axis = getattr(ax, f"{name}axis")
        least, most = axis.get_data_interval()
        getattr(ax, f"set_{name}scale")("log")
        if most < 4 * least:  # no power of ten, or only one, may lie between them
            axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        else:
            low, high = np.log10(getattr(ax, f"get_{name}lim")())
            few = np.floor(high) - np.ceil(low) < 1 or most < (30 if name == "x" else 300) * least  # powers of ten
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())


def line(style: Style, points: int = 0) -> dict[str, Any]:
    """How a line is drawn in a style; of many points some six are marked."""
    return {**style.points, "ls": style.dash, "markevery": max(1, points // 6)}


def name_axes(plot: Plot, axes: Sequence[Axes], x: str, y: str) -> None:
    """One name for all horizontal axes, and one beside each row of panels."""
    plot.supxlabel(x)
    for ax in axes:
        spec = ax.get_subplotspec()
        if spec is not None and spec.is_first_col():
            ax.set_ylabel(y)


def legend(plot: Plot, axes: Sequence[Axes]) -> None:
    """One legend for all panels, above them; the plot grows with its lines, so that the panels keep their height."""
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(text, handle)
    if not handles:
        return
    columns = next(n for n in (4, 3, 2, 1) if n == 1 or _legend_width(list(handles), n) < WIDTH - 0.1)
    plot.set_figheight(plot.get_figheight() + _LINE * -(-len(handles) // columns))
    plot.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=columns)


def _legend_width(texts: Sequence[str], columns: int) -> float:
    """Inches of a legend, which is filled column by column; handle and spaces take as much as 4.4 letters are high."""
    wide = [TextPath((0, 0), text, size=SMALL).get_extents().width for text in texts]
    longest = [max(part, default=0.0) for part in np.array_split(wide, columns)]
    return sum(points + 4.4 * SMALL for points in longest) / 72
