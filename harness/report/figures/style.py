"""One style for all figures: colours that the colour-blind tell apart; markers and dashes for grey print."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Plot

from harness.report.naming import ANCESTRAL, rank

RED = "#d7301f"
GAP = 0.85  # grey between tiles: a white image must not melt into the page
_TOO_PALE = (6, 8)  # pink and yellow vanish as lines on white, and more so in grey
COLOURS = [colour for index, colour in enumerate(sns.color_palette("colorblind", 10)) if index not in _TOO_PALE]
FORMATS = ("png", "svg", "pdf")
# As many of each as have no divisor in common, so that in grey too no two of the first 65 names look alike.
MARKERS, DASHES = "osD^vPX*<>hpd", ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
_STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "svg.hashsalt": "arm",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "figure.dpi": 100,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
}
_DPI = 200  # of the PNG files
_LINE = 0.17  # inches of a line of a legend


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
    plot.set_dpi(_DPI)
    png, svg, pdf = files  # by what `savefig` ends in: it would draw every figure once more before, to lay it out
    FigureCanvasAgg(plot).print_png(png, metadata={"Software": None}, pil_kwargs={"compress_level": 3})
    FigureCanvasSVG(plot).print_svg(svg, metadata={"Date": None})
    FigureCanvasPdf(plot).print_pdf(pdf, metadata={"CreationDate": None})
    return files


def grid_of(rows: int, columns: int, *, width: float, height: float, **shared: Any) -> tuple[Plot, Any]:
    """A plot of so many inches and its (rows, columns) axes; pyplot's would load a backend, and keep them all."""
    plot = Plot(figsize=(width, height))
    return plot, plot.subplots(rows, columns, squeeze=False, **shared)


def panels(
    count: int, *, width: float = 2.6, height: float = 2.3, columns: int = 3, **shared: Any
) -> tuple[Plot, list[Axes]]:
    """A grid of `count` axes; places that are left over stay blank."""
    columns = min(columns, count)
    rows = -(-count // columns)
    plot, axes = grid_of(rows, columns, width=max(3.8, width * columns + 0.4), height=height * rows + 0.5, **shared)
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


def styles(names: Iterable[str]) -> dict[Any, Style]:
    """A style for every sampler; the same names get the same styles."""
    ordered = sorted(set(names) - {ANCESTRAL}, key=rank)
    return {ANCESTRAL: Style("black", "x", "-"), **marks(ordered)}


def marks(values: Iterable[Any]) -> dict[Any, Style]:
    """A style for each value, in their order."""
    return {
        value: Style(COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)], DASHES[index % len(DASHES)])
        for index, value in enumerate(values)
    }


def legend(plot: Plot, axes: Sequence[Axes], *, columns: int = 4) -> None:
    """One legend for all panels, above them; the plot grows with its lines, so that the panels keep their height."""
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(text, handle)
    wide = max((len(text) for text in handles), default=1)
    room = max(1, int(plot.get_figwidth() * 16 // (wide + 6)))
    if handles:
        columns = min(columns, room, len(handles))
        plot.set_figheight(plot.get_figheight() + _LINE * (-(-len(handles) // columns) - 1))
        plot.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=columns)
