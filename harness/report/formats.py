"""A table as text: Markdown, LaTeX (booktabs) and for the terminal."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from rich import box
from rich.table import Table as RichTable

from harness.report.lead import HEADINGS, Lead
from harness.report.tables import DASH, EXACT, UNITS, Block, Cell, Table

_LONGEST = 45
"""Lines that a LaTeX float holds; longer blocks become several, since no other table may stand in two columns."""


def markdown(table: Table, most: int | None = None) -> str:
    """The table, a Markdown table for each of its blocks, or for so many first rows of it."""
    parts = [f"# {table.title}\n"]
    for block in table.blocks:
        parts.append(f"## {block.title}\n\n{block.about}\n")
        parts += [*(f"- {sentence}" for sentence in block.variants.values()), ""] if block.variants else []
        if block.rows:
            parts.append(markdown_rows(table.headings, [[_flat(cell) for cell in row] for row in block.rows[:most]]))
    parts += [f"- {note}" for note in table.notes]
    return "\n".join(parts) + "\n"


def markdown_rows(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned source."""
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in [headings, *rows]]
    widths = [max(len(row[column]) for row in escaped) for column in range(len(headings))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in escaped
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]) + "\n"


def latex(table: Table) -> str:
    r"""The table for `\input`, as a paper prints it: booktabs, floats across both columns of a page.

    Calls and passes are means, times have their standard deviation, factors their interval; the CSV has everything.
    """
    head = r"% \usepackage{booktabs,graphicx}" + "\n"
    return head + "\n".join(_latex_block(table, block) for block in table.blocks if block.rows)


def _latex_block(table: Table, block: Block) -> str:
    left_out, equal = {"variant", "samples", "dims a call", "peak MiB", "pairs"}, ""
    if "exact" in table.headings and all(row[table.headings.index("exact")].text == EXACT[0] for row in block.rows):
        left_out, equal = {*left_out, "exact"}, "Every sample is that of ancestral sampling."
    shown = [place for place, heading in enumerate(table.headings) if heading not in left_out]
    head = " & ".join(tex(_HEADS.get(table.headings[place], table.headings[place])) for place in shown) + r" \\"
    name = table.title.partition(": ")[2] or table.title  # LaTeX counts for itself
    about = tex(f"{block.title}: {block.about}" if block.about else f"{block.title}.")
    spread = r"Times with their standard deviation, factors with their 95\% interval."
    caption = " ".join([f"{tex(name)}.", about, spread, *filter(None, [equal]), *(tex(note) for note in table.notes)])
    label = rf"\label{{tab:{table.name}-{_slug(block.title)}}}"
    floats = []
    for body in _floats(_latex_rows(table, block, shown)):
        lines = [rf"\begin{{table*}}\centering\{_SIZE}", rf"\caption{{{caption}}}{label}"]
        lines += [rf"{_FIT}\begin{{tabular}}{{@{{}}l{'r' * (len(shown) - 1)}@{{}}}}", r"\toprule", head, r"\midrule"]
        floats.append("\n".join([*lines, *body, r"\bottomrule", r"\end{tabular}}", r"\end{table*}"]) + "\n")
        caption, label = rf"{tex(name)}, continued: {tex(block.title)}.", ""
    return "\n".join(floats)


def _floats(lines: Sequence[str]) -> list[list[str]]:
    """Lines of a block in parts that fit a page, cut where there is space between lines if that is possible."""
    parts: list[list[str]] = []
    while len(lines) > _LONGEST:
        spaces = [place for place in range(1, _LONGEST) if lines[place] == _SPACE]
        end = spaces[-1] if spaces else _LONGEST
        parts.append(list(lines[:end]))
        lines = lines[end + bool(spaces) :]
    return [*parts, list(lines)]


_SPACE = r"\addlinespace"
_HEADS = {"ARM calls (%)": "calls (%)", "full passes": "passes"}
_SIZE = r"small\setlength{\tabcolsep}{4pt}\setlength{\belowcaptionskip}{4pt}"
_FIT = r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%" + "\n"


def _latex_rows(table: Table, block: Block, shown: Sequence[int]) -> list[str]:
    """The rows: a heading where the variant changes, a little space where the width does."""
    variant = table.headings.index("variant") if "variant" in table.headings else None
    batch = table.headings.index("batch")
    lines: list[str] = []
    for before, row in zip([None, *block.rows], block.rows, strict=False):
        if variant is not None and (before is None or before[variant].text != row[variant].text):
            name = block.variants.get(row[variant].text, row[variant].text)
            heading = rf"\multicolumn{{{len(shown)}}}{{@{{}}l}}{{\textit{{{tex(name)}}}}} \\"
            lines += [*([_SPACE] if before else []), heading]
        elif before is not None and before[batch].text != row[batch].text:
            lines.append(_SPACE)
        lines.append(" & ".join(_latex_cell(table.headings[place], row[place]) for place in shown) + r" \\")
    return lines


def _latex_cell(heading: str, cell: Cell) -> str:
    """A number with at most one spread beside it."""
    if heading in (UNITS["speedup"], UNITS["over_paper"]):
        return tex(_flat(cell).replace("x", "×"))  # noqa: RUF001 the multiplication sign is meant
    return tex(cell.text if heading == UNITS["seconds"] else cell.text.partition(" ±")[0])


def _flat(cell: Cell) -> str:
    return f"{cell.text} [{cell.interval}]" if cell.interval else cell.text


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text).strip("-")


_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "%": r"\%",
    "_": r"\_",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "×": r"$\times$",  # noqa: RUF001 the multiplication sign is meant
    DASH: "--",
}


def tex(text: str) -> str:
    """Text with every character that LaTeX reads otherwise escaped, and sizes such as 1x28x28 as products."""
    return "".join(_TEX.get(letter, letter) for letter in re.sub(r"(?<=\d)x(?=\d)", "×", text))  # noqa: RUF001


_SHORT = {"batch": "batch", "full passes": "passes", "ms a sample": "ms", "over ancestral": "x anc."}
_SHORT |= {"over the paper's": "x paper", "exact": "exact"}


def terminal(table: Table, *, most: int) -> list[RichTable]:
    """A table a dataset and variant, for a terminal of 80 columns: means only, and at most so many rows in all."""
    named, batch = table.headings.index("sampler"), table.headings.index("batch")
    places = [table.headings.index(name) for name in _SHORT]
    made = []
    for title, about, rows in _parts(table):
        if most <= 0:
            break
        most -= len(rows)
        rich = RichTable(title=title, caption=about, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
        rich.add_column("sampler")
        for short in _SHORT.values():
            rich.add_column(short, justify="right", no_wrap=True)
        for row, after in zip(rows, [*rows[1:], None], strict=True):
            ends = after is None or after[batch].text != row[batch].text
            cells = (row[place].text.split(" ±")[0] for place in places)
            rich.add_row(row[named].text, *cells, end_section=ends)
        made.append(rich)
    return made


def terminal_comparison(table: Table, *, most: int) -> Iterator[RichTable]:
    """The comparison with another store, a table a dataset, without the intervals; at most so many rows in all."""
    (block,) = table.blocks
    shown = [place for place, heading in enumerate(table.headings) if heading not in ("dataset", "pairs")]
    for dataset, rows in groupby(block.rows[:most], key=lambda row: row[0].text):
        rich = RichTable(title=f"{dataset}: now over before", title_justify="left", box=box.SIMPLE_HEAD)
        for place in shown:
            rich.add_column(table.headings[place], justify="left" if place in (1, len(table.headings) - 1) else "right")
        for row in rows:
            rich.add_row(*(row[place].text.partition(" [")[0] for place in shown))
        yield rich


def terminal_lead(lead: Lead) -> RichTable:
    """The result of one dataset at one width."""
    rich = RichTable(title=f"{lead.title}, {lead.width} at a time", caption=f"{lead.claim[0].upper()}{lead.claim[1:]}.")
    rich.title_justify, rich.caption_justify, rich.box = "left", "left", box.SIMPLE_HEAD
    for place, heading in enumerate(HEADINGS):
        rich.add_column(heading, justify="right" if place > 1 else "left", min_width=26 if place == 1 else None)
    for row in lead.rows:
        rich.add_row(*(cell.text for cell in row))
    return rich


def _parts(table: Table) -> Iterator[tuple[str, str, list[list[Cell]]]]:
    """(title, sentence, rows) of every dataset; of an ablation, of every variant."""
    for block in table.blocks:
        if "variant" not in table.headings:
            if block.rows:
                yield block.title, block.about, block.rows
            continue
        column = table.headings.index("variant")
        for variant in dict.fromkeys(row[column].text for row in block.rows):
            yield f"{block.title}, {variant}", "", [row for row in block.rows if row[column].text == variant]
