"""The terminal. What is printed is text as it stands: names, paths and errors that look like rich's markup are not."""

import os

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

SHOWN = 100
"""Rows of a table that are printed; of a longer plan the jobs are counted."""
CONSOLE = Console(highlight=False, markup=False, emoji=False)
_WIDE, _NARROWEST, _BETWEEN = 10_000, 20, 3
"""Characters: of a line that is never too short, that a row's name needs to be read, between two columns."""


def show(table: Table, *, named: int = 1) -> None:
    """Print a table so that nothing of it is cut off.

    Where nobody looks (a pipe, a file) it is as wide as what it holds. On a terminal that is too narrow for its columns
    each row becomes its name and a line of the rest.

    Args:
        table: its first columns are what a row is called.
        named: how many of them.
    """
    for column in table.columns:
        column.overflow = "fold"
    unseen = not CONSOLE.is_terminal and "COLUMNS" not in os.environ
    if unseen:
        wide = _width(table).maximum
        Console(file=CONSOLE.file, width=wide, highlight=False, markup=False, emoji=False).print(table)
    elif sum(_needed(column, main=place < named) for place, column in enumerate(table.columns)) <= CONSOLE.width:
        CONSOLE.print(table)
    else:
        _show_rows(table, named)


def _needed(column: Column, *, main: bool) -> int:
    """Characters without which a column cannot be read."""
    cells = [_width(cell) for cell in (column.header, *column.cells)]
    whole, word = (max(cell.maximum for cell in cells), max(cell.minimum for cell in cells))
    return _BETWEEN + (min(whole, _NARROWEST) if main and not column.no_wrap else whole if column.no_wrap else word)


def _width(cell: RenderableType) -> Measurement:
    return Measurement.get(CONSOLE, CONSOLE.options.update(max_width=_WIDE), cell)


def _show_rows(table: Table, named: int) -> None:
    headings = [_plain(column.header) for column in table.columns]
    for text in (table.title, table.caption):
        if text is not None:
            CONSOLE.print(_plain(text), soft_wrap=True)
    for row in zip(*(column.cells for column in table.columns), strict=True):
        cells = [_plain(cell) for cell in row]
        rest = [
            f"{heading} {cell}".strip() for heading, cell in list(zip(headings, cells, strict=True))[named:] if cell
        ]
        CONSOLE.print(" ".join(dict.fromkeys(cells[:named])), soft_wrap=True)
        CONSOLE.print(f"  {', '.join(rest)}", soft_wrap=True)


def _plain(cell: RenderableType) -> str:
    return (cell.plain if isinstance(cell, Text) else str(cell)).replace("\n", "\n    ")
