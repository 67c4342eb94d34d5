"""Histories that go on: futures of held-out patients against what really came, and against simple guesses.

Reproduce: `python benchmarks/continuation.py EVENTS --run RUN` with a MEDS folder that has a split held_out, and a run
trained on its training split; without them, a run on the built-in reference population is trained and tried. `--small`
shows in minutes that the script works.

The held-out records are cut `--years` before the end of the data and continued `--copies` times to that end. Compared
with what really came are

    visits     the mean over the copies (rank correlation over patients), beside the guess that the years before go on;
               and how often the true number lies within the central 80 % of the copies
    deaths     the share of copies with a death (area under the ROC curve), beside age
    new codes  for codes that a patient never had: the share of copies that have it (area under the ROC curve over all
               patients and codes, and mean squared error), beside how common the code is as a new one

The 80 % are to be met; all else is the higher the better, and bounded by what the future leaves to chance.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from measure import arguments, report, rounded
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

import ehrsim
from ehrsim import codes, runs
from ehrsim.reference import population
from ehrsim.runs import Run
from ehrsim.sampling import continued
from ehrsim.training import training_config

PEOPLE, SMALL_PEOPLE = 4_000, 300
COPIES, SMALL_COPIES = 20, 5
SMALL_STEPS = 30

Floats = NDArray[np.float64]


class Futures(NamedTuple):
    """What came of H histories, once for each copy."""

    visits: Floats
    """(H, copies) visits after the date"""
    died: Floats
    """(H, copies) 1 or 0"""
    codes: Floats
    """(H, codes) share of the copies that have each code after the date"""


def futures(events: pl.DataFrame, since: dt.datetime, names: list[str], listed: pl.DataFrame) -> Futures:
    """The futures in `events` of the subjects `listed` (history, copy), by history."""
    after = events.filter(pl.col("time") >= since).join(listed, on="subject_id", how="inner")
    shape = (listed["history"].n_unique(), listed["copy"].n_unique())

    def by_copy(rows: pl.DataFrame) -> Floats:
        counts = np.zeros(shape)
        np.add.at(counts, (rows["history"].to_numpy(), rows["copy"].to_numpy()), 1.0)
        return counts

    found = np.zeros((shape[0], len(names)))
    numbered = pl.DataFrame({"code": names, "number": np.arange(len(names))})
    having = after.join(numbered, on="code", how="inner").select("history", "copy", "number").unique()
    np.add.at(found, (having["history"].to_numpy(), having["number"].to_numpy()), 1.0 / shape[1])
    return Futures(
        visits=by_copy(after.filter(pl.col("code").str.starts_with("VISIT_START//"))),
        died=by_copy(after.filter(pl.col("code") == codes.DEATH)),
        codes=found,
    )


def compared(simulated: Futures, real: Futures, before: Futures, age: Floats) -> dict[str, Any]:
    """The figures; `before` is what the same patients had in as many years before the date."""
    truth = real.visits[:, 0]
    low, high = np.quantile(simulated.visits, [0.1, 0.9], axis=1)
    figures: dict[str, Any] = {
        "visits": {
            "rank_correlation": _rounded(spearmanr(simulated.visits.mean(1), truth).statistic),
            "of_the_years_before": _rounded(spearmanr(before.visits[:, 0], truth).statistic),
            "within_80_percent": rounded(float(np.mean((low <= truth) & (truth <= high)))),
            "means": [rounded(float(part.mean())) for part in (truth, simulated.visits)],
        }
    }
    died = real.died[:, 0]
    if 0 < died.sum() < len(died):
        figures["deaths"] = {
            "auc": rounded(roc_auc_score(died, simulated.died.mean(1))),
            "auc_of_age": rounded(roc_auc_score(died, age)),
            "shares": [rounded(float(part.mean())) for part in (died, simulated.died)],
        }
    new = before.codes == 0
    truth, guess = real.codes[new], simulated.codes[new]
    common = np.broadcast_to((real.codes * new).sum(0) / np.maximum(new.sum(0), 1), new.shape)[new]
    figures["new_codes"] = {
        "auc": rounded(roc_auc_score(truth, guess)),
        "auc_of_how_common": rounded(roc_auc_score(truth, common)),
        "squared_error": rounded(float(np.mean((truth - guess) ** 2))),
        "squared_error_of_how_common": rounded(float(np.mean((truth - common) ** 2))),
        "shares": [rounded(float(part.mean())) for part in (truth, guess)],
    }
    return figures


def _rounded(value: float) -> float | None:
    return rounded(float(value)) if np.isfinite(value) else None


def judge(run: Run, held_out: pl.DataFrame, since: dt.datetime, years: float, copies: int) -> dict[str, Any]:
    """Continue the held-out records from the date, and compare."""
    frame, listed = continued(run, held_out, copies=copies, since=since, years=years, seed=1)
    names = sorted({entry.code for entry in run.vocabulary.entries})
    history = pl.int_range(pl.len()) // copies
    listed = listed.with_columns(history=history, copy=pl.int_range(pl.len()) % copies)
    whose = listed.filter(pl.col("copy") == 0).select(
        pl.col("source_subject_id").alias("subject_id"), "history", "copy"
    )
    simulated = futures(frame.collect(), since, names, listed)
    until = since + dt.timedelta(days=365.25 * years)
    real = futures(held_out.filter(pl.col("time") < until), since, names, whose)
    earlier = held_out.filter(pl.col("time") < since)
    lately = futures(earlier, since - dt.timedelta(days=365.25 * years), names, whose)
    ever = futures(earlier, dt.datetime(1, 1, 1), names, whose)
    born = earlier.group_by("subject_id").agg(pl.col("time").min())
    age = whose.join(born, on="subject_id", how="left", maintain_order="left")["time"]
    ages = (pl.Series([since]) - age).dt.total_days().to_numpy().astype(np.float64)
    return {"histories": len(whose), **compared(simulated, real, lately._replace(codes=ever.codes), ages)}


def parsed() -> Namespace:
    """The arguments."""
    parser = arguments(__doc__)
    parser.add_argument("events", nargs="?", type=Path, help="a MEDS folder with a split held_out")
    parser.add_argument("--run", type=Path, help="a run trained on its training split")
    parser.add_argument("--years", type=float, default=2.0, help="years before the end of the data to cut at")
    parser.add_argument("--copies", type=int, help="futures of each history")
    options = parser.parse_args()
    if (options.events is None) != (options.run is None):
        parser.error("give both EVENTS and --run, or neither")
    return options


def main() -> None:
    options = parsed()
    copies = options.copies or (SMALL_COPIES if options.small else COPIES)
    with tempfile.TemporaryDirectory() as folder:
        source = options.events or Path(folder) / "events"
        if options.events is None:
            people = population(SMALL_PEOPLE if options.small else PEOPLE, seed=1)
            ehrsim.write_events(people, source)
            training = training_config("small", max_steps=SMALL_STEPS if options.small else None)
            run, split = ehrsim.fit(source, training=training), "tuning"
        else:
            run, split = runs.load(options.run), "held_out"
        held_out = ehrsim.read_events(source, split).collect()
        end = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=run.scales.horizon * run.scales.step_seconds)
        since = (end - dt.timedelta(days=365.25 * options.years)).replace(hour=0, minute=0, second=0)
        report(
            "continuation",
            data=source.name,
            model=run.config.model,
            since=since.date().isoformat(),
            years=options.years,
            copies=copies,
            **judge(run, held_out, since, options.years, copies),
        )


if __name__ == "__main__":
    main()
