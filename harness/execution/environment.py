"""What Ray reads from the environment while it is imported: set when this module is imported, before that."""

import os

LONGEST = 36
"""Bytes of a folder for temporary files: Ray adds up to 70 to it, and the name of a socket has at most 107."""


def prepare(address: str | None = None) -> None:
    """Set how Ray behaves; call it before anything imports ray, if the address is that of a cluster.

    Args:
        address: that the process is going to connect to. A Ray of our own ("local", or None) listens on loopback only,
            every process of it; the switch for that is named after the systems on which Ray does so by default.
    """
    if "RAY_AUTH_TOKEN" in os.environ or os.path.exists(
        os.environ.get("RAY_AUTH_TOKEN_PATH", os.path.expanduser("~/.ray/auth_token"))
    ):
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # at an address that is given Ray looks for none itself
    os.environ.update(
        RAY_AIR_NEW_OUTPUT="0",
        RAY_ENABLE_AUTO_CONNECT="0",  # or the thread that Tune runs in starts a second Ray when we stop the first
        RAY_USAGE_STATS_ENABLED="0",
        RAY_CHDIR_TO_TRIAL_DIR="0",
        RAY_ENABLE_UV_RUN_RUNTIME_ENV="0",
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",  # curves are in the store; where else they go, `logging:` says
    )
    if len(os.fsencode(os.environ.get("RAY_TMPDIR", os.environ.get("TMPDIR", "")))) > LONGEST:
        os.environ["RAY_TMPDIR"] = "/tmp"
    network = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    if address is not None:
        os.environ[network] = "0" if address == "local" else "1"
    os.environ.setdefault(network, "0")


prepare()
