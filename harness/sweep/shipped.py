"""The sweep files that come with the package, by name: `harness/sweeps` is a link to `sweeps/` of the repository."""

from pathlib import Path

from arm_core.errors import InputError
from arm_core.registry import suggest

SHIPPED = Path(__file__).parents[1] / "sweeps"


def shipped_sweeps() -> dict[str, Path]:
    """name -> file."""
    return {file.stem: file for file in sorted(SHIPPED.glob("*.yaml"))}


def sweep_file(given: Path) -> Path:
    """The file that is meant: a bare name such as `quickstart` is a shipped sweep, unless there is such a file.

    Raises:
        InputError: there is neither a file nor a shipped sweep of that name.
    """
    if given.exists() or given.suffix or len(given.parts) != 1:
        return given
    shipped = shipped_sweeps()
    if given.name not in shipped:
        if (file := given.with_suffix(".yaml")).exists():
            raise InputError(f"there is no sweep {given.name!r}, but a file {file}; give its whole name")
        raise suggest("sweep", given.name, [*shipped, "FILE.yaml"])
    return shipped[given.name]
