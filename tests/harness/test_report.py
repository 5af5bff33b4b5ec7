import re

import numpy as np
import pandas as pd
import pytest

from arm_core import InputError
from harness.report import terminal_tables, write_report
from harness.report.tables import latex, markdown, with_std
from harness.store import Store
from tests.harness.rows import mistake_row, timing_row, trial_row

SAMPLERS = [("ancestral", None, None), ("predictive", "fixed_point", None), ("predictive", "learned", 2)]


def fill(store, *, dataset="digits", seeds=(0, 1, 2), channels=1, job="a"):
    """A plausible store: one training, one timing job with figures."""
    generator = np.random.default_rng(0)
    shape = {"channels": channels, "height": 2, "width": 5, "categories": 17}
    dims = 10 * channels
    timings, mistakes, samples = [], [], []
    for order, (seed, (sampler, forecaster, horizon)) in enumerate((s, x) for s in seeds for x in SAMPLERS):
        named = {"sampler": sampler, "forecaster": forecaster, "horizon": horizon}
        calls = [dims, dims] if sampler == "ancestral" else [3, 4]
        timings.append(
            timing_row(
                job=job,
                dataset=dataset,
                dims=dims,
                seed=seed,
                run_order=order,
                arm_calls=calls,
                wall_s=float(calls[1]),
                **named,
            )
        )
        if seed != seeds[0]:
            continue
        for k in range(4):
            image = generator.integers(17, size=dims).astype(np.uint8).tobytes()
            wrong = generator.integers(2, size=dims).astype(np.uint8).tobytes()
            settled = generator.integers(1, 5, size=dims).tolist()
            samples.append(
                {
                    "job": job,
                    **named,
                    "seed": 10,
                    "sample_id": k,
                    **shape,
                    "image": image,
                    "mistakes": wrong,
                    "settled_at": settled,
                    "exact": True,
                }
            )
        for place in np.ndindex(2, 5, channels):
            where = dict(zip(("row", "column", "channel"), map(int, place), strict=True))
            mistakes.append(mistake_row(job=job, **named, **where, mean_settled_at=float(sum(place)) + 1))
    store.write_job("t" + job, {"trials": [trial_row(job="t" + job, dataset=dataset, channels=channels)]})
    store.write_job(job, {"timings": timings, "mistakes": mistakes, "samples": samples})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    store = Store(root / "store")
    fill(store)
    fill(store, dataset="photos", channels=3, job="b")
    return root / "out", write_report(store, root / "out")


@pytest.mark.slow
def test_the_report_consists_of_tables_figures_and_a_page(written):
    out, report = written
    names = {str(path.relative_to(out)) for path in report.files}
    tables = {f"{name}.{kind}" for name in ("speedup", "trials") for kind in ("md", "tex", "parquet")}
    stems = [
        "calls",
        "speedup",
        *(f"{d}-{f}" for d in ("digits", "photos") for f in ("samples", "mistakes", "convergence")),
    ]
    assert names == {"index.html"} | tables | {f"figures/{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    assert all(path.stat().st_size > 0 for path in report.files)


@pytest.mark.slow
def test_the_page_needs_nothing_from_outside_and_describes_its_pictures(written):
    page = (written[0] / "index.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)
    pictures = re.findall(r"<img [^>]*>", page)
    assert len(pictures) == 8
    assert all(re.search(r'alt="[^"]{20,}"', picture) for picture in pictures)
    assert page.count('scope="col"') > 8
    assert "sample data, not the official set" in page
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", page))


@pytest.mark.slow
def test_the_tables_agree_with_the_rows(written):
    out, report = written
    table = pd.read_parquet(out / "speedup.parquet")
    assert table[table["sampler"] == "fixed point"]["speedup"].tolist() == [2.5, 7.5]
    text = (out / "speedup.md").read_text()
    assert "| fixed point" in text and "2.50x" in text and "7.50x" in text
    assert r"\toprule" in (out / "speedup.tex").read_text()
    assert [table.title for table in terminal_tables(report)] == ["digits", "photos"]


@pytest.mark.slow
def test_one_seed_shows_dashes_and_failures_are_told(tmp_path):
    store = Store(tmp_path / "store")
    fill(store, seeds=(0,))
    store.write_job("x", {"timings": [timing_row(job="x", dataset="mnist", status="failed", error="Boom: <b>")]})
    report = write_report(store, tmp_path / "out")
    assert report.notes == ["The timing of mnist (default) failed: Boom: <b>"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Boom: &lt;b&gt;" in page
    assert "±" not in (tmp_path / "out" / "speedup.md").read_text()


@pytest.mark.slow
def test_a_store_with_trainings_or_failures_only_gives_a_page(tmp_path):
    store = Store(tmp_path / "store")
    store.write_job("t", {"trials": [trial_row()]})
    store.write_job(
        "u", {"trials": [trial_row(job="u", status="failed", error="it diverged", dims=None, parameters=None)]}
    )
    report = write_report(store, tmp_path / "out")
    assert report.speedup.empty
    assert "it diverged" in (tmp_path / "out" / "index.html").read_text()


def test_an_empty_store_says_what_fills_it(tmp_path):
    with pytest.raises(InputError, match=r"holds no results; run: harness sweep sweeps/quickstart\.yaml"):
        write_report(Store(tmp_path), tmp_path / "out")


def test_an_unknown_sweep_is_refused(tmp_path):
    store = Store(tmp_path)
    store.write_sweep({"sweep": "quickstart", "profile": None, "jobs": []})
    with pytest.raises(InputError, match="Did you mean 'quickstart'"):
        write_report(store, tmp_path / "out", sweep="quickstat")


def test_markdown_and_latex_escape_what_has_a_meaning_there():
    assert "a\\|b" in markdown(["x"], [["a|b"]])
    assert r"50 \%" in latex(["x"], [["50 %"]], "c") and r"a\_b" in latex(["x"], [["a_b"]], "c")


def test_a_missing_spread_is_left_out():
    assert with_std(1.0, float("nan"), 1) == "1.0"
    assert with_std(1.0, 0.25, 2) == "1.00 ± 0.25"
