"""What `ehrsim inspect` says of events, runs and folders of FHIR."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from ehrsim.errors import GateError, InputError

if TYPE_CHECKING:
    from ehrsim.fhir.validation import Extent


def describe(path: Path, validate: Extent | None = None) -> list[str]:
    """Lines on whatever lies at `path`; FHIR is also held against its rules if `validate` says how thoroughly.

    Raises `InputError` if it is nothing that ehrsim knows, `GateError` for FHIR that is not valid.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if validate is not None:
        return _validated(path, validate)
    if (path / "MANIFEST.sha256").is_file():
        return _run(path)
    if path.is_file() or (path / "data").is_dir():
        return _events(path)
    from ehrsim.fhir.inspection import fhir_files, inspect_fhir

    if fhir_files(path):
        return inspect_fhir(path).lines()
    raise InputError(f"{path} holds no events, no run and no FHIR", hint="name a MEDS folder, a run or an export")


def _validated(path: Path, extent: Extent) -> list[str]:
    """What a folder or file of FHIR holds, if it is valid."""
    from ehrsim.fhir.inspection import inspect_fhir
    from ehrsim.fhir.validation import validate_fhir

    report = validate_fhir(path, extent)
    if not report.ok:
        print("\n".join(report.lines()))
        raise GateError(f"{path} is not valid FHIR: {report.found:,} errors")
    return [*(inspect_fhir(path).lines() if path.is_dir() else []), *report.lines()]


def _events(path: Path) -> list[str]:
    from ehrsim import codes, events

    frame = events.read_events(path)
    totals = frame.select(
        subjects=pl.col("subject_id").n_unique(),
        events=pl.len(),
        codes=pl.col("code").n_unique(),
        first=pl.col("time").min(),
        last=pl.col("time").max(),
        visits=pl.col("code").str.starts_with("VISIT_START//").sum(),
        deaths=(pl.col("code") == codes.DEATH).sum(),
        values=pl.col("numeric_value").is_not_null().sum(),
    ).collect()
    total = totals.row(0, named=True)
    lines = [
        f"events of {total['subjects']:,} subjects: {total['events']:,} with {total['codes']:,} codes, "
        f"{total['visits']:,} visits, {total['deaths']:,} deaths, {total['values']:,} numeric values",
        f"from {total['first']} to {total['last']}",
    ]
    lines += _by_kind(frame)
    splits = events.read_splits(path)
    if splits is not None:
        counts = splits.group_by("split").len().sort("len", descending=True)
        lines.append("splits: " + ", ".join(f"{split} {count:,}" for split, count in counts.iter_rows()))
    problems = events.validate(frame)
    lines += [f"problem: {problem.name}: {problem.rows:,} rows (first: {problem.example})" for problem in problems]
    return lines if problems else [*lines, "no problems found"]


def _by_kind(frame: pl.LazyFrame) -> list[str]:
    from ehrsim import codes

    counts = frame.group_by("code").len().collect()
    kinds: dict[str, int] = {}
    systems: dict[str, int] = {}
    for code, count in counts.iter_rows():
        parsed = codes.parse(code)
        kinds[parsed.kind] = kinds.get(parsed.kind, 0) + count
        systems[parsed.system] = systems.get(parsed.system, 0) + count
    return [_listed("kinds", kinds), _listed("code systems", systems)]


def _listed(title: str, counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return f"{title}: " + ", ".join(f"{name} {count:,}" for name, count in ordered)


def _run(path: Path) -> list[str]:
    from ehrsim import models, runs, training

    run = runs.load(path)
    step, loss = training.best(path / "metrics.jsonl")
    measure = models.family(run.config.model).measure
    data, sizes = run.provenance["data"], run.model.sizes
    versions = ", ".join(f"{name} {number}" for name, number in run.provenance["software"].items())
    return [
        f"run {run.identity}: {run.config.model} ({run.config.preset})",
        f"trained on {data['train_patients']:,} patients with {data['events']:,} events, "
        f"stopped by {data['tuning_patients']:,} others; data {data['sha256'][:12]}",
        f"tuning loss {loss:.3f} {measure} at step {step:,}",
        f"{sizes.vocabulary - 1:,} codes, {sizes.statics - 1:,} statics, {sizes.kinds - 4:,} visit types; "
        f"codes of fewer than {run.vocabulary.min_patients} patients are not in it",
        f"software: {versions}",
    ]
