"""How often what died is tried again, and how long a sweep waits for nodes that were lost: not for ever."""

import time
from collections.abc import Callable
from typing import ClassVar

from arm_core.errors import InputError

RETRIES = 2
"""How often a job whose process died is started again; one that raises is not, it would raise again."""


class Patience:
    """Says what is missing when it begins to be, and gives up after `LIMIT_S`.

    Args:
        say: takes a line for the user.
        now: seconds, of a clock that never goes back.
    """

    NOTICE_S: ClassVar[float] = 60.0
    LIMIT_S: ClassVar[float] = 900.0

    def __init__(self, say: Callable[[str], object], now: Callable[[], float] = time.monotonic) -> None:
        self.say, self.now = say, now
        self._since: dict[str, float] = {}

    def found(self, kind: str) -> None:
        """There is a node for this kind of job."""
        if self._since.pop(kind, None) is not None:
            self.say(f"A node for {kind} jobs is there again.")

    def without(self, kind: str, missing: InputError) -> None:
        """There is none.

        Raises:
            InputError: there has been none for `LIMIT_S`.
        """
        if kind not in self._since:
            self._since[kind] = self.now()
            self.say(f"Waiting for a node, for at most {self.LIMIT_S / 60:.0f} minutes: {missing}")
        elif self.now() - self._since[kind] > self.LIMIT_S:
            raise InputError(
                f"{missing}\nGave up after {self.LIMIT_S / 60:.0f} minutes. What was finished is kept; "
                "the same command goes on from there."
            )
