"""What every test shares: where the development data lies, and strict JAX settings."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("EHRSIM_SHARED", Path(__file__).parents[1] / ".." / "shared")).resolve()


def pytest_configure() -> None:
    """Make silent promotions, tracer leaks into Python and surprise NaNs errors in every test."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
    os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development data, samples and validators; a user's clone has none."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"development data is not at {SHARED}; set EHRSIM_SHARED to run this test")
    return SHARED


@pytest.fixture(scope="session")
def samples(shared: Path) -> Path:
    """Small data sets in their original formats."""
    return shared / "data" / "samples"


@pytest.fixture(scope="session")
def event_sets(shared: Path) -> Path:
    """Event tables of the development data, one folder a set."""
    return shared / "data" / "meds"
