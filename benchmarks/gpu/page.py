"""The page and the Parquet file of a run, made from its lines: `python -m benchmarks.gpu.page DIR` makes them anew."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.rows import Row, frame_of, read_rows
from benchmarks.gpu.summary import Ratio, Timing, timings, verdicts

TABLE, PAGE = "rows.parquet", "page.md"
ITERATIONS = 200_000


def make_page(folder: Path) -> str:
    """Write `rows.parquet` and `page.md` from `rows.jsonl`; return the short table."""
    rows = read_rows(folder)
    frame_of(rows).to_parquet(folder / TABLE, index=False)
    (folder / PAGE).write_text(page_of(rows), encoding="utf-8")
    return short(rows)


def page_of(rows: Sequence[Row]) -> str:
    """The whole page, in Markdown."""
    device = _fact(rows, "device")
    parts = [
        f"# What {device} makes of the samplers",
        f"One run of `make gpu` on {_fact(rows, 'date')[:10]}, all of it on this device; ratios hold for it alone. "
        "What the columns mean and how it was measured: [`docs/gpu.md`](../../../docs/gpu.md). "
        "Every row: `rows.parquet`.",
        _table(("", ""), [(row["what"], row["note"]) for row in rows if row["question"] == "machine"]),
        "## What held",
        short(rows),
        "## 1. Exact?",
        _exact(rows),
        "## 2. What a call costs",
        _calls(rows),
        "## 3. Samplers",
        _samplers(rows),
        "## 4. Training at the paper's sizes",
        _training(rows),
        "## 5. A decoder of image tokens",
        _decoder(rows),
        "## What did not run",
        _missing(rows),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def short(rows: Sequence[Row]) -> str:
    """What held, in a few lines and one table."""
    checked = [row for row in rows if row["kind"] == "checked" and "held" in row]
    kept = sum(row["held"] for row in checked)
    float32 = [row["share"] for row in rows if row["kind"] == "checked" and "held" not in row]
    lines = [f"* Exact: {kept} of {len(checked)} promises held." + (" **Not all.**" if kept < len(checked) else "")]
    if float32:
        low, high = min(float32), max(float32)
        lines.append(f"* float32, not certified: {low:.2%} to {high:.2%} of the samples are those of float64.")
    ends = {kind: sum(row["kind"] == kind for row in rows) for kind in ("skipped", "failed", "not there")}
    lines.append("* " + ", ".join(f"{count} {kind}" for kind, count in ends.items()) + ".")
    body = []
    for paper, window in verdicts(timings(rows, "sampling")):
        name = f"{paper.columns['model']}{'' if paper.columns['trained'] else ' (untrained)'}"
        seconds = (_ms(paper.host_s), _ms(window.host_s))
        body.append((name, paper.columns["slots"], *seconds, _sampler(window), _ratio(window.over_paper)))
    header = ("ARM", "slots", "paper's, ms a sample", "window, ms a sample", "which", "times faster (least to most)")
    table = _table(header, body)
    return "\n".join(lines) + ("\n\n" + table if table else "")


def _exact(rows: Sequence[Row]) -> str:
    names = ("model", "dtype", "what", "mode")
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row["kind"] == "checked":
            groups.setdefault(tuple(row.get(name, "") for name in names), []).append(row)
    body = []
    for key, group in groups.items():
        windows = ", ".join(_number(row["window"]) if "window" in row else "chosen" for row in group)
        held = {row.get("held") for row in group}
        verdict = "**no**" if False in held else "yes" if True in held else "not promised"
        differs = [f"{_number(row['amount'])} {row['unit']}" for row in group if row.get("amount")]
        share = f"{min(row['share'] for row in group):.2%}"
        samples = _number(group[0].get("samples"))
        body.append(
            (
                *key,
                windows if len(group) > 1 or "window" in group[0] else "",
                samples,
                share,
                verdict,
                "; ".join(differs),
            )
        )
    header = ("ARM", "dtype", "what", "spans", "windows", "samples", "equal", "held", "")
    return _table(header, body)


def _calls(rows: Sequence[Row]) -> str:
    found = timings(rows, "calls")
    whole = [one for one in found if (one.columns["what"], one.columns.get("mode")) == ("whole image", "as it is")]
    passes = {_width(one): one.host_s for one in whole}
    body = [
        (
            one.columns["model"],
            one.columns["slots"],
            one.columns["what"],
            one.columns.get("mode", ""),
            _number(one.columns.get("window")),
            _ms(one.seconds),
            _ms(one.host_s),
            _number(one.host_s / passes[_width(one)] if _width(one) in passes else None),
        )
        for one in found
    ]
    header = ("ARM", "slots", "call", "how", "window", "ms on the device", "ms by the host", "of a pass")
    return _table(header, body) + _busy(rows, found)


def _busy(rows: Sequence[Row], found: list[Timing]) -> str:
    names = ("model", "slots", "what", "mode", "window")
    by_name = {tuple(one.columns.get(name) for name in names): one.host_s for one in found}
    body = []
    for row in rows:
        if row["question"] == "launches" and row["kind"] == "fact" and "amount" in row:
            whole = by_name.get(tuple(row.get(name) for name in names))
            idle = None if whole is None else max(0.0, 1 - row["seconds"] / whole)
            call = (row["model"], row["slots"], row["what"], row.get("mode", ""), _number(row.get("window")))
            body.append((*call, int(row["amount"]), _ms(row["seconds"]), "" if idle is None else f"{idle:.0%}"))
    header = ("ARM", "slots", "call", "how", "window", "kernels", "ms busy", "of the call idle")
    table = _table(header, body)
    return f"\n\nBy torch's profiler, one call each:\n\n{table}" if table else ""


def _samplers(rows: Sequence[Row]) -> str:
    parts = []
    found = timings(rows, "sampling")
    for model in dict.fromkeys(one.columns["model"] for one in found):
        of_model = [one for one in found if one.columns["model"] == model]
        trained = "trained" if of_model[0].columns["trained"] else "untrained weights: calls are of random weights"
        parts.append(f"### {model}, {of_model[0].columns['size']}, {trained}")
        if note := next((one.columns["note"] for one in of_model if one.kind == "timed" and "note" in one.columns), ""):
            parts.append(f"A sample is {note}.")
        parts.append(_sampler_table(of_model, ancestral=True))
    return "\n\n".join(parts)


def _sampler_table(found: list[Timing], *, ancestral: bool) -> str:
    body = []
    for one in found:
        ratios = [_ratio(one.over_paper), _ratio(one.over_ancestral)] if ancestral else [_ratio(one.over_ancestral)]
        body.append(
            (
                one.columns["slots"],
                _sampler(one),
                _ms(one.host_s),
                *ratios,
                _number(one.calls),
                _number(one.work),
                _number(None if one.peak_mem_bytes is None else one.peak_mem_bytes / 2**20),
                _number(one.joules),
                "" if one.share is None else f"{one.share:.1%}",
                f"{one.kind}, {one.repetitions}" if one.kind == "timed" else one.kind,
            )
        )
    ratio = ("over the paper's", "over ancestral") if ancestral else ("over one token a call",)
    header = ("slots", "sampler", "ms a sample", *ratio, "calls", "passes", "MiB", "J a sample", "same", "runs")
    return _table(header, body)


def _training(rows: Sequence[Row]) -> str:
    outside = {
        (row["model"], row["mode"]): row["share"]
        for row in rows
        if row["question"] == "launches" and row["kind"] == "fact" and row["what"] == "training step"
    }
    body = []
    for one in timings(rows, "training"):
        model, mode = one.columns["model"], one.columns["mode"]
        share = outside.get((model, mode))
        days = one.host_s * ITERATIONS / 86400
        memory = None if one.peak_mem_bytes is None else one.peak_mem_bytes / 2**30
        name, rate = f"{model}, {one.columns['size']}", _number(1 / one.host_s)
        costs = (_ms(one.host_s), rate, _number(days), _number(memory))
        body.append((name, mode, *costs, "" if share is None else f"{share:.0%}"))
    header = ("ARM", "precision", "ms a step", "steps a second", "days for 200,000", "GiB", "outside convolutions")
    return _table(header, body)


def _decoder(rows: Sequence[Row]) -> str:
    found = timings(rows, "decoder")
    if not found:
        return ""
    model, size = found[0].columns["model"], found[0].columns["size"]
    return f"{model}, {size}, random weights.\n\n{_sampler_table(found, ancestral=False)}"


def _missing(rows: Sequence[Row]) -> str:
    body = []
    for row in rows:
        if row["kind"] in ("skipped", "failed", "not there"):
            why = row.get("note") or row["error"].strip().splitlines()[-1]
            what = ", ".join(str(row[name]) for name in ("what", "mode", "window") if name in row)
            body.append((row["item"], what, row["kind"], why.replace("|", "/")[:300]))
    return _table(("item", "what", "why", ""), body) or "Everything ran."


def _table(header: Sequence[str], body: Iterable[Sequence[Any]]) -> str:
    lines = [" | ".join(str(cell) for cell in row) for row in body]
    if not lines:
        return ""
    return "\n".join(f"| {line} |" for line in (" | ".join(header), " | ".join("---" for _ in header), *lines))


def _fact(rows: Sequence[Row], what: str) -> str:
    return next((row["note"] for row in rows if row["question"] == "machine" and row["what"] == what), "unknown")


def _width(one: Timing) -> tuple[Any, ...]:
    return one.columns["model"], one.columns["slots"]


def _sampler(one: Timing) -> str:
    window, mode = one.columns.get("window"), one.columns.get("mode")
    parts = [one.columns["what"], _number(window), mode or ""]
    return ", ".join(part for part in parts if part)


def _ms(seconds: float) -> str:
    return _number(1000 * seconds)


def _number(value: float | None) -> str:
    """Three digits that count; whole numbers whole."""
    if value is None:
        return ""
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:.3g}"


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    if ratio.low == ratio.high:
        return _number(ratio.median)
    return f"{_number(ratio.median)} ({_number(ratio.low)} to {_number(ratio.high)})"


if __name__ == "__main__":
    print(make_page(Path(sys.argv[1])))
