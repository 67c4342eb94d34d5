"""What every test shares: where the development data lies, strict JAX settings, tiny records and models of them."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

from ehrsim import codes, events

SHARED = Path(os.environ.get("EHRSIM_SHARED", Path(__file__).parents[1] / ".." / "shared")).resolve()
_COMPILED = Path(tempfile.gettempdir()) / f"ehrsim-tests-{os.getpid()}"


def pytest_configure() -> None:
    """Make silent promotions of types and ranks errors in every test, and keep what was compiled for the session.

    All of it stands in the environment, so that it holds in the processes that tests start as well.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
    os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
    os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
    os.environ.setdefault("NNX_GRAPH_MODE", "false")
    os.environ.setdefault("NNX_GRAPH_UPDATES", "false")
    # Compiling takes most of the time; what is compiled runs for moments only.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_COMPILED))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def pytest_unconfigure() -> None:
    """Forget what was compiled."""
    shutil.rmtree(_COMPILED, ignore_errors=True)


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


@pytest.fixture(scope="session")
def tiny_events() -> pl.DataFrame:
    """The records of 160 patients with 2 to 6 visits each: every kind of thing a model must learn, and little of it."""
    return _tiny_patients(160, seed=11)


@pytest.fixture(scope="session")
def tiny_patients() -> Callable[[int], pl.DataFrame]:
    """A function from a number to the records of as many other patients of the same kind."""
    return lambda number: _tiny_patients(number, seed=21)


def _tiny_patients(number: int, seed: int) -> pl.DataFrame:
    rng = np.random.Generator(np.random.Philox(key=seed))
    rows = [row for subject in range(1, number + 1) for row in _tiny_record(subject, rng)]
    frame = pl.DataFrame(rows, schema=list(events.SCHEMA), orient="row", infer_schema_length=None)
    return events.sort(events.conform(frame).lazy()).collect()


MINUTE = np.timedelta64(1, "m")


def _tiny_record(subject: int, rng: np.random.Generator) -> list[tuple]:
    male = subject % 2 == 0
    birth = np.datetime64("1940-01-01T00:00", "m") + (rng.integers(0, 60 * 365) * 1440 + rng.integers(0, 1440)) * MINUTE
    rows: list[tuple] = [_fact(subject, birth, codes.BIRTH)]
    race = "RACE//2054-5" if rng.random() < 0.3 else "RACE//2106-3"
    rows += [_fact(subject, None, code) for code in ("GENDER//male" if male else "GENDER//female", race)]
    when = birth + rng.integers(18 * 365, 40 * 365) * 1440 * MINUTE
    diabetic = False
    for visit in range(1, int(rng.integers(2, 7)) + 1):
        when = when + rng.integers(5, 800) * 1440 * MINUTE
        stay = rng.random() < 0.25
        end = when + (rng.integers(2, 5) * 1440 if stay else 30) * MINUTE
        diabetic |= rng.random() < 0.2
        rows += _tiny_visit(subject, visit, when, end, stay, male, diabetic, rng)
        when = end
    if rng.random() < 0.4:
        rows.append(_fact(subject, when + rng.integers(1, 60) * 1440 * MINUTE, codes.DEATH))
    return rows


def _tiny_visit(subject, visit, start, end, stay, male, diabetic, rng) -> list[tuple]:
    shares = {
        "condition//ICD10CM//E11.9": 0.9 * diabetic,
        "condition//ICD10CM//I10": 0.3 + 0.3 * male,
        "condition//ICD10CM//J06.9": 0.2 * (not stay),
        "condition//ICD10CM//J18.9": 0.6 * stay,
        "condition//ICD10CM//N40.0": 0.4 * male,
        "procedure//SNOMED//71388002": 0.7 * stay,
        "medication//RxNorm//860975": 0.8 * diabetic,
        "immunization//CVX//140": 0.3 * (not stay),
    }
    kind = "IMP" if stay else "AMB"
    rows = [
        _fact(subject, start, f"VISIT_START//{kind}", visit=visit),
        _fact(subject, end, f"VISIT_END//{kind}", visit=visit),
    ]
    for name, share in shares.items():
        if rng.random() < share:
            what, system, value = name.split("//")
            until = start + 90 * 1440 * MINUTE if what == "medication" else None
            rows.append(_fact(subject, start + 10 * MINUTE, codes.join(what, system, value), visit=visit, end=until))
    for hours in range(0, int((end - start).astype(int)) // 60 + 1, 12):
        moment = start + (hours * 60 + 5) * MINUTE
        pressure = round(float(rng.normal(125 + 12 * diabetic, 10)))
        rows.append(_fact(subject, moment, "LOINC//8480-6", visit=visit, value=pressure, unit="mm[Hg]"))
    if rng.random() < 0.6:
        glycated = round(float(rng.normal(7.5 if diabetic else 5.3, 0.4)), 1)
        rows.append(_fact(subject, start + 5 * MINUTE, "LOINC//4548-4", visit=visit, value=glycated, unit="%"))
    return rows


def _fact(subject, time, code, *, visit=None, value=None, unit=None, end=None) -> tuple:
    moment, until = (None if at is None else at.astype("datetime64[us]").item() for at in (time, end))
    return subject, moment, code, value, None, unit, visit, until


@pytest.fixture(scope="session")
def tiny_training():
    """A training configuration that takes seconds."""
    from ehrsim.optimisation import TrainingConfig

    return TrainingConfig(max_steps=40, steps_per_batch=256, warmup=4, validate_every=10, min_patients=3, seed=5)


@pytest.fixture(scope="session")
def tiny_data(tiny_events, tiny_training):
    """The tiny records as training sees them: vocabulary, scales, sizes, tables and the shape of batches."""
    from ehrsim.preparation import prepare

    return prepare(tiny_events, min_patients=tiny_training.min_patients, steps_per_batch=tiny_training.steps_per_batch)


class TinyRun(NamedTuple):
    """A trained run and what was compiled for its training."""

    folder: Path
    compiled: list[str]


@pytest.fixture(scope="session")
def tiny_run(tiny_events, tiny_training, tmp_path_factory) -> Callable[[str], TinyRun]:
    """A function from the name of a model to its run, trained on the tiny records once a session."""
    from ehrsim.training import fit

    folder, trained = tmp_path_factory.mktemp("runs"), {}

    def run(model: str) -> TinyRun:
        if model not in trained:
            with _compiling() as log:
                fit(tiny_events, folder / model, model=model, training=tiny_training)
            trained[model] = TinyRun(folder / model, [line for line in log.messages if line.startswith("Compiling")])
        return trained[model]

    return run


@contextmanager
def _compiling() -> Iterator["_Messages"]:
    """What JAX says of its compilations, kept from all other logs."""
    import jax

    logger, log = logging.getLogger("jax"), _Messages()
    propagates = logger.propagate
    logger.addHandler(log)
    logger.propagate = False
    try:
        with jax.log_compiles():
            yield log
    finally:
        logger.removeHandler(log)
        logger.propagate = propagates


class _Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
