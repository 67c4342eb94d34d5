"""Evaluation: cohorts in, a report out. Any generator is judged, since only tables of events are read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import msgspec
import orjson

from ehrsim.evaluate import diversity, fidelity, gates, privacy, two_sample
from ehrsim.evaluate.cohorts import MOST_PATIENTS, Cohorts, Gathered, Source, Weights, draw, gather
from ehrsim.evaluate.report import Report, Section
from ehrsim.evaluate.report_page import page
from ehrsim.evaluate.resampling import DRAWS
from ehrsim.outputs import atomic_directory
from ehrsim.progress import Progress, silent

Judge = Callable[[Cohorts, Weights, int], Section]
SECTIONS: dict[str, Judge] = {"fidelity": fidelity.section, "diversity": diversity.section}
"""The parts of a report, each made of the cohorts, the weights of their patients for intervals, and the seed."""


def evaluate_cohort(
    real: Source,
    synthetic: Source,
    out: str | Path | None = None,
    *,
    train: Source | None = None,
    gates_file: str | Path | None = None,
    strict: bool = False,
    patients: int = MOST_PATIENTS,
    draws: int = DRAWS,
    attacks: bool = False,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Report:
    """Judge simulated patients beside real ones; write report.json and report.html into the folder `out` if given.

    `real` and `synthetic` are MEDS folders, Parquet files or Polars frames of events. Patients of the split `held_out`
    of `real` are compared, beside those of `train`; or all of `real`, beside the table `train`; or one half of `real`
    beside the other. `gates_file` is a TOML file of bars that count before the built-in ones; `strict` raises
    `GateError` after writing if one that is a gate is not met. At most `patients` of each cohort are compared, with
    `draws` draws for the intervals. With `attacks` the training patients are attacked with the simulated ones, which
    takes minutes. The same input and seed give the same bytes.

    Raises `InputError` where a source cannot be read or has hardly any patient, `UsageError` for attacks where nothing
    says who was trained on, `MissingExtraError` without scikit-learn (the extra `evaluate`).
    """
    two_sample.classifier(seed)  # Refuses before any work where scikit-learn is missing.
    bars = gates.load(None if gates_file is None else Path(gates_file))
    if out is None:
        report, _ = _judged(real, synthetic, train, bars, patients, draws, attacks, seed, progress)
    else:
        with atomic_directory(Path(out), overwrite=overwrite) as folder:
            report, gathered = _judged(real, synthetic, train, bars, patients, draws, attacks, seed, progress)
            options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
            (folder / "report.json").write_bytes(orjson.dumps(msgspec.to_builtins(report), option=options))
            html = page(report, gathered.cohorts, gathered.facts)
            (folder / "report.html").write_text(html, encoding="utf-8", newline="\n")
    if strict:
        gates.insist(report)
    return report


def _judged(
    real: Source,
    synthetic: Source,
    train: Source | None,
    bars: list[gates.Bar],
    patients: int,
    draws: int,
    attacks: bool,
    seed: int,
    progress: Progress,
) -> tuple[Report, Gathered]:
    gathered = gather(real, synthetic, train, patients=patients, seed=seed)
    weights = draw(gathered.cohorts, draws=draws, seed=seed)
    sections = list[Section]()
    judges = {name: partial(judge, gathered.cohorts, weights, seed) for name, judge in SECTIONS.items()}
    if attacks:
        privacy.trained_on(gathered)  # Refuses before any work where nobody knows them.
        judges["privacy"] = partial(privacy.section, gathered, seed)
    for number, (name, judge) in enumerate(judges.items()):
        progress("evaluate", number, len(judges), name)
        sections.append(judge())
    progress("evaluate", len(judges), len(judges), "sections")
    software = f"ehrsim {version('ehrsim')}"
    judged = gates.judged(sections, bars)
    return Report(software=software, seed=seed, draws=draws, cohorts=gathered.facts, sections=judged), gathered
