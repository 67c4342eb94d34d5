"""A small reference population, made once a session."""

import polars as pl
import pytest

from ehrsim import reference


@pytest.fixture(scope="session")
def people() -> pl.DataFrame:
    """The events of 400 people."""
    return reference.population(400, seed=2)
