"""The command: `python -m benchmarks.gpu --out DIR`."""

import argparse
import os
import sys
import time
from pathlib import Path

import torch

from benchmarks.gpu.machine import fact_rows
from benchmarks.gpu.meter import meter_for
from benchmarks.gpu.page import make_page
from benchmarks.gpu.plan import BUDGET_S, plan
from benchmarks.gpu.rows import RowFile, read_rows
from benchmarks.gpu.runner import DeviceLostError, Setting, run_items


def main(arguments: list[str]) -> None:
    """Run all items that fit the budget; then the page, the table and the short table."""
    options = _parser().parse_args(arguments)
    began = options.began or time.time()
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    done = {row["item"] for row in read_rows(options.out)}
    if done and options.began is None:
        raise SystemExit(f"{options.out} holds a run already; give another folder")
    items = [item for item in plan(small=options.small) if item.name not in done]
    if options.only:
        items = [item for item in items if options.only in item.name]
    setting = Setting(device, options.small, meter_for(device))
    with RowFile(options.out) as file:
        for row in [] if done else fact_rows(device, options.commit):
            file.write({"question": "machine", "item": "machine", "at_s": time.time() - began, **row})
        try:
            run_items(
                items,
                setting,
                file.write,
                budget_s=options.budget,
                spent_s=time.time() - began,
                say=lambda line: print(line, flush=True),
            )
        except DeviceLostError as error:
            print(error, "going on in a new process", sep="; ", flush=True)
            again = [sys.executable, "-m", "benchmarks.gpu", *arguments]
            os.execv(sys.executable, again if options.began else [*again, "--began", str(began)])
    print(make_page(options.out))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="See docs/gpu.md.")
    parser.add_argument("--out", type=Path, required=True, help="folder for rows.jsonl, rows.parquet and page.md")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds for all of it (default: %(default)s)")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="default: a GPU if there is one")
    parser.add_argument("--small", action="store_true", help="everything tiny, to try the run itself")
    parser.add_argument("--only", help="only items whose names contain this")
    parser.add_argument("--commit", help="of the code, where git cannot tell")
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
