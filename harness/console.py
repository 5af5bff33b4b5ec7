"""The terminal. What is printed is text as it stands: names, paths and errors that look like rich's markup are not."""

from rich.console import Console

CONSOLE = Console(highlight=False, markup=False, emoji=False)
