"""The loop of every training job: steps, validations, saved states, the best weights, and how to go on after a stop."""

import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from arm_core import InputError
from arm_core.checkpoint import read_bundle, write_bundle
from arm_core.optimisation import Drawn
from arm_core.training import DivergedError, Optimisation, fit
from harness.jobs import lease
from harness.jobs.progress import Reporter

BEST = "best-so-far"
STATES = ("state-0", "state-1", BEST)
"""Folders of a job that it needs to go on after a stop, and not when it is done."""
AVERAGED = ("train_bits_per_dim", "train_mse")
Curves = list[dict[str, Any]]
Report = Callable[[dict[str, float]], None]
Validate = Callable[[], dict[str, float | None]]


@dataclass
class Seen:
    """Sums of the figures of the steps since the last validation; kept with a state, or a stop would shift means."""

    steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, figures: Mapping[str, float]) -> None:
        """Count a step."""
        self.steps += 1
        for name in AVERAGED:
            if name in figures:
                self.sums[name] = self.sums.get(name, 0.0) + figures[name]

    def means(self) -> dict[str, float]:
        """Of each figure, over the steps."""
        return {name: total / self.steps for name, total in self.sums.items()}


def take_steps(
    training: Optimisation, data: Tensor | Drawn, folder: Path, *, validate: Validate, score: str, progress: Reporter,
    report: Report, labels: Tensor | None = None,
) -> Curves:  # fmt: skip
    """Take all steps that are left, from the newest whole state in `folder` on.

    Args:
        training: ends with its last weights; the best ones lie in the folder, see `load_best`.
        data: training images, or what draws them.
        folder: of the job.
        validate: measures the weights as they are.
        score: the figure of `validate` that is best when it is lowest.
        progress: shows every step.
        report: called with the step and the figures at every validation.
        labels: of the training images, for an ARM that is conditioned on them.

    Returns:
        A point for every validation, those before the stop included.
    """
    config = training.config
    curves, seen, best = _resume(training, folder, score)
    started, last, taken = time.perf_counter(), time.perf_counter(), 0
    before = curves[-1]["wall_s"] if curves else 0.0
    for metrics in fit(training, data, labels):
        seen.add(metrics.figures)
        taken += 1
        if metrics.step % config.evaluate_every == 0 or metrics.step == config.iterations:
            figures = validate()
            if not math.isfinite(figures[score] or 0.0):
                raise DivergedError(f"{score} became {figures[score]} at the validation after step {metrics.step}")
            now = time.perf_counter()
            curves.append(
                {
                    "step": metrics.step,
                    **seen.means(),
                    **figures,
                    "learning_rate": metrics.learning_rate,
                    "iterations_per_s": taken / (now - last),
                    "wall_s": before + now - started,
                }
            )
            if figures[score] < best:  # type: ignore[operator]
                best = float(figures[score])  # type: ignore[arg-type]
                lease.check(folder)
                weights = {name: network.state_dict() for name, network in training.networks.items()}
                write_bundle(folder / BEST, weights, {"step": metrics.step, score: best})
            shown = {**seen.means(), **{name: value for name, value in figures.items() if value is not None}}
            report({"step": metrics.step, **shown})
            seen, last, taken = Seen(), now, 0
        if metrics.step % config.checkpoint_every == 0 or metrics.step == config.iterations:
            turn = metrics.step // config.checkpoint_every % 2  # two, in turns: one is always whole
            content = {"step": metrics.step, "curves": curves, "seen": asdict(seen)}
            lease.check(folder)
            write_bundle(folder / f"state-{turn}", {"training": training.state()}, content)
        speed = taken / max(time.perf_counter() - last, 1e-9)
        progress.update(
            metrics.step, config.iterations, metrics={**metrics.figures, **({"it/s": speed} if taken else {})}
        )
    return curves


def best_point(folder: Path) -> dict[str, Any]:
    """The step and the score of the weights that were best on validation."""
    return read_bundle(folder / BEST)[1]


def load_best(training: Optimisation, folder: Path) -> dict[str, Any]:
    """Put the weights that were best on validation into the networks; returns their `best_point`."""
    parts, point, _ = read_bundle(folder / BEST)
    for name, network in training.networks.items():
        network.load_state_dict(parts[name])
    return point


def discard_states(folder: Path) -> None:
    """Remove what a finished training no longer needs to go on."""
    for name in STATES:
        shutil.rmtree(folder / name, ignore_errors=True)


def _resume(training: Optimisation, folder: Path, score: str) -> tuple[Curves, Seen, float]:
    """Load the newest state that is whole; returns its curves and sums, empty ones when there is no such state.

    The last one returned is the score of the best weights so far, which may be of a later step than the state.
    """
    found = []
    for place in folder.glob("state-[01]"):
        try:
            parts, content, _ = read_bundle(place)
        except InputError as error:
            print(f"{error}; an older state is used")  # goes to the job's log
            continue
        found.append((content["step"], parts["training"], content["curves"], Seen(**content["seen"])))
    if not found:
        return [], Seen(), math.inf
    _, state, curves, seen = max(found, key=lambda item: item[0])
    try:
        best = float(best_point(folder)[score]) if curves else math.inf
    except InputError as error:
        print(f"{error}; without the best weights so far the training starts anew")
        return [], Seen(), math.inf
    training.load_state(state)
    return curves, seen, best
