"""The figures, as PNG, SVG and PDF, of what the rows suffice for; and a sentence for each that is left out.

Imports matplotlib and seaborn: load this package only when a report is written.
"""

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure as Plot

from harness.report.comparable import BLOCK
from harness.report.figures import charts, grids, places
from harness.report.figures.style import Drawing, Figure, Style, marks, save, styled, styles
from harness.report.naming import ANCESTRAL, LEARNED, PAPER, named, rank
from harness.report.selection import Selection
from harness.report.statistics import GROUP
from harness.report.tables import KINDS, Table, title
from harness.store import Store

__all__ = ["Figure", "draw_all"]

_MOST_LINES = 6  # where they cross at every step


@dataclass(frozen=True)
class _Context:
    """What the drawing functions share."""

    selection: Selection
    speedup: pd.DataFrame
    style: dict[str, Style]
    limit: int
    left_out: list[str]

    def capped(self, groups: charts.Groups, what: str) -> charts.Groups:
        """At most `limit` groups; a sentence says how many are not drawn."""
        if len(groups) > self.limit:
            self.left_out.append(
                f"{what}: {len(groups) - self.limit} of {len(groups)} panels are not drawn; "
                "name fewer datasets (--only), or raise --figures."
            )
        return groups[: self.limit]


def draw_all(
    store: Store, selection: Selection, speedup: pd.DataFrame, tables: Sequence[Table], out: Path, *, limit: int
) -> tuple[list[Figure], list[str]]:
    """Every figure that the rows suffice for.

    Args:
        store: to read samples, curves and calls of single images from.
        selection: what the report is about.
        speedup: from `statistics.speedup`.
        tables: which the figures belong to.
        out: the folder to write to; made if missing.
        limit: the most panels of a figure, and the most datasets with figures of their own; 0: no figures.
    """
    out.mkdir(parents=True, exist_ok=True)
    with styled():
        context = _Context(selection, speedup, styles(speedup["sampler"]), limit, [])
        drawn = [save(drawing, out) for drawing in _drawings(context, store, tables)] if limit else []
    return drawn, context.left_out if limit else ["No figures were asked for (--figures 0)."]


def _drawings(context: _Context, store: Store, tables: Sequence[Table]) -> Iterator[Drawing]:
    for table in tables:
        if not table.frame.empty:
            yield from _of_samplers(context, table)
    yield from _of_curves(context, store)
    shown = _shown_runs(context)
    if len(shown):
        yield from _of_images(context, store, shown)
        yield from _of_samples(context, store, shown)


def _of_samplers(context: _Context, table: Table) -> Iterator[Drawing]:
    name, query = table.name, "timings of the rows of this table, see the column `query` of its CSV"
    timed = table.frame[table.frame["sampler"] != ANCESTRAL]
    if table.frame["batch_size"].nunique() > 1:
        groups = context.capped(charts.grouped(table.frame), f"{table.title}, against width")
        caption = "ARM calls (those of the slowest sample), full passes and ms a sample against the size of a batch or "
        caption += "the number of slots: mean, 95 % interval shaded."
        yield Drawing(
            f"{name}-width", "Calls, work and time against batch size or slots", caption, name, query,
            charts.against_width(groups, context.style),
        )  # fmt: skip
        caption = "A line a sampler, a point a batch size or number of slots: how long a sample is on its way, and "
        caption += "how many are finished a second. Up and left is better."
        yield Drawing(
            f"{name}-pareto", "Latency and throughput", caption, name, query, charts.pareto(groups, context.style)
        )
    if len(timed):
        yield from _compared(context, table, timed, query)


def _compared(context: _Context, table: Table, timed: pd.DataFrame, query: str) -> Iterator[Drawing]:
    """Speed-up and calls of every sampler."""
    over = "Seconds of ancestral sampling over those of the sampler, same run, noise and width: geometric mean"
    calls = "ARM calls of the slowest sample, in percent of those of ancestral sampling: mean"
    captions = {
        "speedup": ("Speed-up", "times faster than ancestral sampling", over),
        "calls_percent": ("ARM calls", "ARM calls (% of the dimensions)", calls),
    }
    if table.name.startswith(KINDS["ablation"][0]):
        timed = timed[timed["batch_size"] == timed["batch_size"].max()]
        by, style = BLOCK, context.style
        how, note = {"row": "variant", "mark": "sampler"}, f", 95 % interval; {timed['batch_size'].iloc[0]} at a time."
    else:
        by, style = GROUP, marks(sorted(timed["batch_size"].unique()))
        how, note = {"row": "sampler", "mark": "batch_size"}, ", 95 % interval. A mark a batch size or number of slots."
    for column, (what, axis, caption) in captions.items():
        groups = context.capped(charts.grouped(timed, by), f"{table.title}, {what}")
        plot = charts.dots(groups, column, axis, style=style, **how)
        yield Drawing(f"{table.name}-{column.split('_')[0]}", what, caption + note, table.name, query, plot)


def _of_curves(context: _Context, store: Store) -> Iterator[Drawing]:
    """Training curves, a figure of bits/dim for each table and one of the autoencoders."""
    trials, encoders = context.selection.trials, context.selection.autoencoders
    for kind, (name, number, _) in KINDS.items():
        for status, part in trials[trials["kind"] == kind].groupby("data_status", sort=False):
            place = f"{name}-{status}"
            data = part["dataset_name"] + " " + part["dataset_variant"].fillna("")
            about = part.assign(data=data)[["job", "dataset", "data", "variant"]]
            yield from _curves(context, store, about, "bits_per_dim", "bits/dim", place, number)
    if len(encoders):
        place = next(
            (f"{KINDS['latent'][0]}-{s}" for s in trials.loc[trials["kind"] == "latent", "data_status"]), "overview"
        )
        about = encoders.assign(data=encoders["dataset_name"], variant="autoencoder")[
            ["job", "dataset", "data", "variant"]
        ]
        yield from _curves(context, store, about, "mse", "MSE, images on [-1, 1]", place, "Autoencoders")


def _curves(
    context: _Context, store: Store, about: pd.DataFrame, measure: str, axis: str, place: str, number: str
) -> Iterator[Drawing]:
    rows = store.read("curves", jobs=set(about["job"]), unreadable={}).merge(about, on="job")
    rows = rows.dropna(subset=[f"train_{measure}", f"valid_{measure}"], how="all")
    if rows.empty:
        context.left_out.append(f"{number}: its trainings left no curves to draw.")
        return
    groups = context.capped(charts.grouped(rows, ["dataset", "data"]), f"{number}, training curves")
    dropout = " (with dropout)" if measure == "bits_per_dim" else ""
    caption = f"{axis.split(',')[0]} while training: training dashed{dropout}, validation solid; mean over seeds. "
    caption += "First points that lie far above the others are cut off. " if charts.are_cut(rows) else ""
    caption += "Different panels are not comparable." if len(groups) > 1 else ""
    name = f"{place}-curves" if measure == "bits_per_dim" else "autoencoder-curves"
    query = f"curves: job in {sorted(about['job'])[:40]!r}"
    heading = "Training curves" if measure == "bits_per_dim" else "Training curves of the autoencoders"
    yield Drawing(name, heading, caption.strip(), place, query, charts.curves(groups, measure, axis))


def _shown_runs(context: _Context) -> pd.DataFrame:
    """One run a dataset and variant, that of the first training seed; at most `limit` of them."""
    runs = context.selection.runs
    first = runs.sort_values("train_seed", kind="stable").drop_duplicates(GROUP)
    shown = runs[runs.index.isin(first.index)]  # a job may stand under several names
    if len(shown) > context.limit:
        context.left_out.append(
            f"Samples and mistakes of {len(shown) - context.limit} of {len(shown)} datasets and variants are not "
            "drawn; name fewer (--only), or raise --figures."
        )
    return shown.head(context.limit)


def _of_images(context: _Context, store: Store, shown: pd.DataFrame) -> Iterator[Drawing]:
    """The distributions of calls per image, and of dims per call."""
    columns = ["job", "sampler", "batch_size", "dims", "is_warmup", "arm_calls", "dims_per_call"]
    columns.append("mistaken_per_call")
    rows = store.read("timings", jobs=set(shown["job"]), columns=columns, unreadable={})
    rows = rows[~rows["is_warmup"].fillna(True).astype(bool)]
    rows = rows.assign(label=_labels(rows))
    rows = rows[rows["label"] != ANCESTRAL]
    rows = rows[
        rows["batch_size"] == rows.groupby("job")["batch_size"].transform("max")
    ]  # smaller ones repeat its images
    if rows.empty:
        return
    known = set(context.style)
    about = shown[["job", *GROUP, "kind", "data_status"]]
    rows = rows[rows["label"].isin(known)].merge(about, on="job").rename(columns={"sampler": "_", "label": "sampler"})
    for (kind, status), part in rows.groupby(["kind", "data_status"], sort=False):
        place = f"{KINDS[str(kind)][0]}-{status}"
        groups = charts.grouped(part)
        caption = "The share of the images that were final after so many ARM calls, over all noise seeds."
        query = f"timings: job in {sorted(set(part['job']))!r} and not is_warmup, the largest batch_size"
        yield Drawing(
            f"{place}-images", "Calls per image", caption, place, query, charts.calls_per_image(groups, context.style)
        )
        if part["dims_per_call"].notna().any():
            caption = "The share of an image's calls that made at least so many of its dimensions final."
            plot = charts.dims_per_call(groups, context.style)
            yield Drawing(f"{place}-lengths", "Dims a call", caption, place, query, plot)
        if part["mistaken_per_call"].str.len().max() > 0:
            caption = "How often a forecast was right, by its distance from the frontier, of those before which all "
            caption += "were right; distances that at least 100 calls reached."
            plot = charts.hit_rates(groups, context.style)
            yield Drawing(f"{place}-hits", "Hit rate by distance", caption, place, query, plot)


def _of_samples(context: _Context, store: Store, shown: pd.DataFrame) -> Iterator[Drawing]:
    jobs = set(shown["job"])
    samples = store.read("samples", jobs=jobs, unreadable={})
    maps = store.read("mistakes", jobs=jobs, unreadable={})
    samples, maps = samples.assign(label=_labels(samples)), maps.assign(label=_labels(maps))
    slug = _slugs(shown)
    for index, run in shown.iterrows():
        rows, of = samples[samples["job"] == run["job"]], maps[maps["job"] == run["job"]]
        if rows.empty:
            context.left_out.append(f"{title(tuple(run[GROUP]))}: its run left no samples to draw.")
            continue
        place = f"{KINDS[run['kind']][0]}-{run['data_status']}"
        for name, heading, caption, draw in _sample_figures(title(tuple(run[GROUP])), rows, of, context.style):
            query = f"samples and mistakes: job == {run['job']!r}"
            yield Drawing(f"{slug[index]}-{name}", heading, caption, place, query, draw())


def _sample_figures(
    heading: str, rows: pd.DataFrame, maps: pd.DataFrame, style: dict[str, Style]
) -> Iterator[tuple[str, str, str, Callable[[], Plot]]]:
    """(name, title, caption, how to draw it) of the figures of one run."""
    best = _best(rows)
    count, seed = rows["sample_id"].nunique(), rows["seed"].iloc[0]
    many = "1 sample" if count == 1 else f"{count} samples"
    samples = f"{many} of seed {seed}, in the order of their ids, not selected"
    if not best:
        yield "samples", heading, f"{samples}.", lambda: grids.mistakes(rows, [])
        return
    what = f"{samples}; {' and '.join(best)}: where their forecasts were wrong (red), on the same noise"
    yield "mistakes", f"{heading}: samples and mistakes", f"{what}.", lambda: grids.mistakes(rows, best)
    if maps["label"].isin(best).any() and maps["mean_settled_at"].notna().any():
        mean = f"mean over {many}" + (" and the channels" if maps["channel"].max() > 0 else "")
        caption = f"The ARM call from which the output of a dimension stayed final, {mean}."
        yield "convergence", f"{heading}: convergence", caption, lambda: grids.convergence(maps, best)
        wrong = set(maps.loc[maps["mistakes"] > 0, "label"])  # those that forecast nothing have none
        every = sorted((name for name in wrong if name in style), key=rank)
        if not every:
            return
        caption = f"Share of the dimensions of a row, column, channel or step in value that were mistaken, {samples}."
        if len(every) > _MOST_LINES:
            caption += f" Of {len(every)} samplers the first {_MOST_LINES} are drawn."
        yield (
            "places",
            f"{heading}: where mistakes sit",
            caption,
            lambda: places.where_mistakes_sit(rows, maps, every[:_MOST_LINES], style),
        )


def _best(samples: pd.DataFrame) -> list[str]:
    """The learned sampler with the fewest mistakes, and fixed point."""
    wrong = {name: int(grids.images(part, "mistakes").sum()) for name, part in samples.groupby("label", sort=False)}
    learned = sorted((name for name in wrong if name.startswith(LEARNED)), key=lambda name: wrong[name])[:1]
    return [*learned, *(name for name in wrong if name == PAPER)]


def _labels(rows: pd.DataFrame) -> list[str]:
    return [named(str(description)).label for description in rows["sampler"]]


def _slugs(shown: pd.DataFrame) -> dict[Hashable, str]:
    """Row -> the start of its figures' names; with sweep and profile only where dataset and variant are not enough."""
    short = {index: _slug(run, ["dataset", "variant"]) for index, run in shown.iterrows()}
    twice = {slug for slug in short.values() if list(short.values()).count(slug) > 1}
    return {i: _slug(shown.loc[i], GROUP) if slug in twice else slug for i, slug in short.items()}


def _slug(run: pd.Series, columns: Sequence[str]) -> str:
    parts = [str(run[name]) for name in columns if pd.notna(run[name]) and run[name] != "default"]
    return re.sub(r"[^\w-]+", "-", "-".join(parts))
