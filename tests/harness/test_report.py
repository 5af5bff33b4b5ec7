"""The report on small stores: its tables against committed ones, its numbers against the rows, its page on its own."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from arm_core import InputError
from harness.report import formats, write_report
from harness.report.tables import Cell, with_std
from harness.store import Store, job_folder
from tests.harness.golden import make
from tests.harness.rows import ANCESTRAL, timing_row, trial_row, write_named
from tests.harness.test_store import rewrite


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    return make.unpack(tmp_path_factory.mktemp("golden") / "store")


@pytest.fixture(scope="module")
def tables(golden, tmp_path_factory):
    """The report on the golden store without figures."""
    out = tmp_path_factory.mktemp("tables")
    return out, write_report(golden, out, figures=0)


@pytest.fixture(scope="module")
def drawn(golden, tmp_path_factory):
    """The report on latents of the golden store, with figures."""
    out = tmp_path_factory.mktemp("drawn")
    return out, write_report(golden, out, sweeps=["second"])


@pytest.mark.parametrize("name", sorted(path.name for path in make.TABLES.iterdir()))
def test_the_tables_are_the_committed_ones(tables, name):
    written = (tables[0] / name).read_text()
    if name.endswith(".csv"):  # the last digits of a mean may depend on the machine
        ours, theirs = pd.read_csv(tables[0] / name), pd.read_csv(make.TABLES / name)
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-9)
    else:
        assert written == (make.TABLES / name).read_text()


def test_every_committed_table_is_written_and_no_other(tables):
    kept = {path.name for pattern in make.KEPT for path in tables[0].glob(pattern)}
    assert kept == {path.name for path in make.TABLES.iterdir()}


def test_csv_and_parquet_hold_the_same_numbers(tables):
    for name in ("speedup", "models", "table1-official", "table3-sample"):
        csv, parquet = pd.read_csv(tables[0] / f"{name}.csv"), pd.read_parquet(tables[0] / f"{name}.parquet")
        assert list(csv) == list(parquet) and len(csv) == len(parquet) > 0
        numbers = parquet.select_dtypes("number").columns
        np.testing.assert_allclose(csv[numbers], parquet[numbers].astype(float))


def test_every_number_follows_from_the_rows_that_its_query_names(golden, tables):
    rows = golden.read("timings")
    for _, number in tables[1].speedup.iterrows():
        chosen = rows.query(number["query"])
        calls = [100 * max(calls) / dims for calls, dims in zip(chosen["arm_calls"], chosen["dims"], strict=True)]
        reference = rows[rows["job"].isin(chosen["job"]) & (rows["sampler"] == ANCESTRAL)]
        twins = chosen.merge(reference, on=["job", "batch_size", "seed"], suffixes=("", "_twin"))
        assert len(chosen) == number["repetitions"] == len(twins)
        assert number["calls_percent"] == pytest.approx(np.mean(calls))
        assert number["work"] == pytest.approx(np.mean([np.mean(work) for work in chosen["arm_work"]]))
        assert number["seconds"] == pytest.approx((chosen["wall_s"] / chosen["samples"]).mean())
        assert (
            set(chosen["samples"]) == {number["samples"]} and (chosen["arm_calls"].map(len) == chosen["samples"]).all()
        )
        assert number["speedup"] == pytest.approx(np.exp(np.log(twins["wall_s_twin"] / twins["wall_s"]).mean()))


def test_models_follow_from_the_rows_that_their_query_names(golden, tables):
    rows = golden.read("trials")
    for _, number in tables[1].models.iterrows():
        chosen = rows.query(number["query"])
        assert number["test_bits_per_dim"] == pytest.approx(chosen["test_bits_per_dim"].mean())


def test_official_and_sample_data_stand_in_separate_tables(tables):
    names = [table.name for table in tables[1].tables]
    assert names == ["table1-official", "table1-sample", "table2-sample", "table3-sample"]
    for table in tables[1].tables:
        assert table.frame["data_status"].nunique() == 1


def test_what_failed_and_what_is_waiting_is_told(tables):
    page = (tables[0] / "index.html").read_text()
    assert "The timing of cifar10 (default) failed: RuntimeError: out of memory" in page
    assert "1 of 6 jobs have no result yet (digits seed 1)" in page


class Tags(HTMLParser):
    """Every tag with its attributes, and the text of the page without scripts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.slow
def test_the_page_needs_nothing_from_outside(drawn):
    page = (drawn[0] / "index.html").read_text()
    tags = Tags(page)
    assert tags.open == []
    for _, attributes in tags.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert "url(" not in page and "@import" not in page


@pytest.mark.slow
def test_the_page_can_be_read_without_seeing_it(drawn):
    tags = Tags((drawn[0] / "index.html").read_text())
    assert all(len(picture["alt"]) > 20 for picture in tags.attributes("img") if "src" in picture)
    assert all(heading.get("scope") in ("col", "row") for heading in tags.attributes("th"))
    regions = [attributes for attributes in tags.attributes("div") if attributes.get("role") == "region"]
    assert regions and all(region["tabindex"] == "0" and region["aria-label"] for region in regions)
    assert all("aria-label" in button for button in tags.attributes("button") if button.get("class") == "zoom")
    named = {attributes["id"] for _, attributes in tags.tags if "id" in attributes}
    assert all(link["href"][1:] in named for link in tags.attributes("a"))
    assert not re.search(r"\b(nan|None|NaT|<NA>)\b", tags.text)


@pytest.mark.slow
def test_every_figure_is_there_in_three_formats_and_belongs_to_a_table(drawn):
    out, report = drawn
    stems = {f"table2-sample-{name}" for name in ("speedup", "calls", "width", "pareto", "lengths", "curves", "images")}
    stems |= {"autoencoder-curves", *(f"photos-{name}" for name in ("mistakes", "convergence", "places"))}
    figures = {str(path.relative_to(out)) for path in report.files if path.parent.name == "figures"}
    assert figures == {f"figures/{stem}.{kind}" for stem in stems for kind in ("png", "svg", "pdf")}
    assert all(path.stat().st_size > 1000 for path in report.files if path.parent.name == "figures")


@pytest.mark.slow
def test_a_report_of_the_same_rows_is_the_same_report(drawn, golden, tmp_path):
    write_report(golden, tmp_path, sweeps=["second"])
    for path in drawn[1].files:
        assert (tmp_path / path.relative_to(drawn[0])).read_bytes() == path.read_bytes(), path.name


@pytest.mark.slow
def test_a_report_removes_what_an_earlier_one_left(drawn, golden, tmp_path):
    out = shutil.copytree(drawn[0], tmp_path / "out")
    assert list(out.glob("table2*")) and list((out / "figures").iterdir())
    write_report(golden, out, sweeps=["third"], figures=0)
    assert not list(out.glob("table2*")) and not list((out / "figures").iterdir())


@pytest.mark.slow
def test_more_panels_than_the_limit_are_left_out_and_said(golden, tmp_path, figures_once):
    report = write_report(golden, tmp_path, sweeps=["third"], figures=1)
    assert any("against width: 1 of 2 panels are not drawn" in said for said in report.left_out)
    assert (tmp_path / "figures" / "digits-hidden-mistakes.png").exists()
    assert not (tmp_path / "figures" / "digits-pixel-mistakes.png").exists()


def page_of(store, out, **options):
    """The text of the page on a store; it must be whole."""
    write_report(store, out, **{"figures": 1, **options})
    tags = Tags((out / "index.html").read_text())
    assert tags.open == [] and not re.search(r"\b(nan|None|NaT)\b", tags.text)
    return tags.text


def test_an_empty_store_gives_a_page_that_says_what_fills_it(tmp_path):
    (tmp_path / "store").mkdir()
    assert "harness sweep sweeps/quickstart.yaml" in page_of(Store(tmp_path / "store"), tmp_path / "out")


def test_a_store_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"run: harness sweep sweeps/quickstart\.yaml"):
        write_report(Store(tmp_path / "nothing"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_store_of_failures_gives_a_page_that_names_them(tmp_path):
    store = Store(tmp_path / "store")
    lost = {"status": "failed", "dims": None, "parameters": None, "dataset_name": None, "dataset_status": None}
    write_named(store, "t", {"trials": [trial_row(error="it diverged: <b>", **lost)]})
    write_named(store, "a", {"timings": [timing_row(status="failed", error="its training failed", wall_s=None)]})
    text = page_of(store, tmp_path / "out")
    assert "it diverged: <b>" in text and "its training failed" in text and "No results yet" in text


@pytest.mark.slow
@pytest.mark.parametrize("what", ["trials", "timings"])
def test_trainings_alone_and_timings_alone_give_a_page(tmp_path, golden, what, figures_once):
    store, job = Store(tmp_path / "store"), {"trials": "t1", "timings": "a1"}[what]
    shutil.copytree(job_folder(golden.root, job), job_folder(store.root, job))
    record = golden.sweeps()["first"]
    store.write_sweep({**record, "jobs": [named for named in record["jobs"] if named["id"] == job]})
    text = page_of(store, tmp_path / "out")
    assert (
        "digits" in text and ("1.425" in text) == (what == "trials") and ("fixed point" in text) == (what == "timings")
    )


@pytest.mark.slow
def test_one_dataset_with_one_seed_has_no_spread(golden, tmp_path, figures_once):
    text = page_of(golden, tmp_path / "out", sweeps=["third"], only=["variant=pixel"])
    assert "±" not in (tmp_path / "out" / "table3-sample.md").read_text()
    assert "8.99x" in text


@pytest.mark.slow
def test_columns_that_an_older_schema_lacks_are_dashes(golden, tmp_path, figures_once):
    store = make.unpack(tmp_path / "store")
    for path in store.root.rglob("*.parquet"):

        def without(table):
            required = {field.name for field in table.schema if not field.nullable}
            known = required | {"dims", "sampler", "batch_size", "seed", "wall_s", "arm_calls", "samples", "error"}
            known |= {"test_bits_per_dim", "valid_bits_per_dim", "image", "train_mse", "valid_mse"}
            return table.select([name for name in table.column_names if name in known])

        rewrite(store, path.parent.name, path.stem, without)
    text = page_of(store, tmp_path / "out")
    assert "data of unknown origin" in text and "fixed point" in text


def test_latex_is_for_print(golden, tmp_path):
    report = write_report(golden, tmp_path / "out", figures=0)
    for table in report.tables:
        text = formats.latex(table)
        assert "scriptsize" not in text and "MiB" not in text
        rows = [line for line in text.splitlines() if " & " in line]
        heads, cells = rows[0].split(" & "), [row.removesuffix(r" \\").split(" & ") for row in rows]
        assert len(heads) <= 8 and {len(row) for row in cells} == {len(heads)}
        assert all((r"\pm" in cell) + ("[" in cell) <= 1 for row in cells for cell in row)
        assert ("exact" in rows[0]) == ("& law" in text), "said once where all are the same"
        assert ("Every sample is that of ancestral sampling." in text) != ("& law" in text)


def test_latex_of_more_rows_than_a_page_is_several_floats_cut_between_widths(tables):
    table = next(table for table in tables[1].tables if table.name == "table1-sample")
    (block, *_) = table.blocks
    batch = table.headings.index("batch")
    many = [[*row[:batch], Cell(str(width)), *row[batch + 1 :]] for width in range(25) for row in block.rows[:4]]
    text = formats.latex(replace(table, blocks=[replace(block, rows=many)]))
    floats = text.split(r"\begin{table*}")[1:]
    rows = [[line for line in part.splitlines() if " & " in line][1:] for part in floats]
    assert len(floats) == 3 and sum(map(len, rows)) == 100 and "longtable" not in text, "not allowed in two columns"
    assert all(len(part) % 4 == 0 and part for part in rows), "no width is torn apart"
    assert text.count(r"\label") == 1 and text.count("continued") == 2
    assert all(part.count(r"\midrule") == part.count(r"\end{table*}") == 1 for part in floats)


def test_markdown_and_latex_escape_what_has_a_meaning_there():
    assert "a\\|b" in formats.markdown_rows(["x"], [["a|b"]])
    assert formats.tex("50 % of a_b {#1} ±") == r"50 \% of a\_b \{\#1\} $\pm$"
    assert formats.tex("3x28x28 max") == r"3$\times$28$\times$28 max"


def test_a_missing_spread_is_left_out():
    assert with_std(1.0, float("nan"), 1) == "1.0"
    assert with_std(1.0, 0.25, 2) == "1.00 ± 0.25"
