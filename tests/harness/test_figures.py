"""The figures of a report as print and a phone need them: one column wide, no tiny text, plain numbers, whole legends."""

import re
from itertools import pairwise

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Plot
from matplotlib.text import Text

from harness.report import figures
from harness.report.figures import style
from harness.report.references import load_references
from harness.report.selection import select
from harness.report.statistics import speedup
from harness.report.tables import models, paper_tables
from tests.harness.golden import make


@pytest.fixture(scope="module")
def plots(tmp_path_factory):
    """Every figure of the golden store, by its name, laid out."""
    root, found = tmp_path_factory.mktemp("figures"), {}
    store = make.unpack(root / "store")
    selection = select(store, sweeps=(), only=(), mix=())
    table = speedup(selection.repetitions)
    tables = paper_tables(table, models(selection.trials, selection.autoencoders), load_references(None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "save", lambda drawing, out: found.update({drawing.name: laid_out(drawing.plot)}))
        figures.draw_all(store, selection, table, tables, root / "out", limit=6)
    return found


def laid_out(plot):
    plot.set_dpi(style.DPI)
    FigureCanvasAgg(plot).draw()
    return plot


def texts(plot):
    """Every text of a plot that is seen, with its box in pixels."""
    shown = [text for text in plot.findobj(Text) if text.get_text().strip() and text.get_visible()]
    boxes = [(text, text.get_window_extent()) for text in shown]
    return [(text, box) for text, box in boxes if box.width > 0]


@pytest.mark.slow
def test_figures_are_one_column_wide_and_their_text_can_be_read_in_print(plots):
    assert len(plots) > 10
    for name, plot in plots.items():
        assert plot.get_figwidth() == style.WIDTH and plot.get_figheight() < 9, name
        assert min(text.get_fontsize() for text, _ in texts(plot)) >= 6, name


@pytest.mark.slow
def test_legends_titles_and_names_of_axes_are_whole(plots):
    for name, plot in plots.items():
        for legend in plot.legends:
            box = legend.get_window_extent()
            assert box.x0 >= -1 and box.x1 <= plot.bbox.width + 1, name
            assert not any(box.overlaps(ax.get_window_extent()) for ax in plot.axes if ax.get_visible()), name
        for ax in plot.axes:
            for text in (ax.xaxis.label, ax.yaxis.label, *ax.get_yticklabels()):
                box = text.get_window_extent()
                seen = text.get_visible() and text.get_text() and ax.get_visible() and ax.axison
                assert not seen or (box.x0 >= -1 and box.x1 <= plot.bbox.width + 1), (name, text.get_text())


@pytest.mark.slow
def test_ticks_are_plain_numbers_that_do_not_touch(plots):
    for name, plot in plots.items():
        for ax in plot.axes:
            labels = [label for label in ax.get_xticklabels(which="both") if label.get_text() and ax.get_visible()]
            assert not any(re.search(r"\^|times|e[+-]", label.get_text()) for label in labels), name
            low, high = ax.get_window_extent().intervalx
            boxes = sorted(tuple(label.get_window_extent().intervalx) for label in labels)
            boxes = [box for box in boxes if low - 1 <= sum(box) / 2 <= high + 1]
            assert all(left[1] < right[0] for left, right in pairwise(boxes)), (name, boxes)


def test_a_logarithmic_axis_has_two_ticks_at_least_whatever_it_spans():
    for least, most in [
        (97, 100),
        (3, 8),
        (0.5, 20),
        (4, 300),
        (13, 500),
        (13, 700),
        (11, 990),
        (1, 9000),
        (0.02, 1e5),
    ]:
        for axis in "xy":
            plot = Plot(figsize=(1.2, 1.2))
            ax = plot.subplots()
            ax.plot([least, most], [least, most])
            style.log_scale(ax, axis)
            laid_out(plot)
            ticks = getattr(ax, f"get_{axis}ticks")()
            low, high = getattr(ax, f"get_{axis}lim")()
            assert 2 <= sum(low <= tick <= high for tick in ticks) <= 8, (least, most, axis)


def test_in_grey_no_two_of_seventy_names_look_alike():
    looks = style.marks(range(70)).values()
    assert len({(look.marker, look.hollow, str(look.dash)) for look in looks}) == 70
