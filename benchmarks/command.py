"""What the benchmarks' commands share."""

from pathlib import Path
from typing import Any

import click

from harness.cli import refusals

ROOT = Path(__file__).parents[1]
"""Of the repository, where `python -m benchmarks...` is run."""


class Benchmark(click.Command):
    """A command whose bad input ends in one message and exit code 2, as with `harness`."""

    def invoke(self, ctx: click.Context) -> Any:
        with refusals():
            return super().invoke(ctx)
