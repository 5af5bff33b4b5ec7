"""Something done again and again beside the work, and once more at its end."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(act: Callable[[], object], pause_s: float) -> Iterator[None]:
    """Call `act` every `pause_s` seconds while the body runs, and a last time when it has ended."""
    stop = threading.Event()

    def poll() -> None:
        last = False
        while not last:
            last = stop.wait(pause_s)
            act()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
