"""A first page on a simulated cohort: training, prevalences, records and values beside real patients, and one life."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import polars as pl

from ehrsim import events
from ehrsim.errors import InputError
from ehrsim.evaluate import timeline
from ehrsim.evaluate.charts import Line, curves
from ehrsim.evaluate.figures import (
    Figure,
    agreement,
    clinical,
    differences,
    life,
    record_figures,
    scatters,
    shares,
    value_figures,
)
from ehrsim.evaluate.prevalence import prevalence
from ehrsim.evaluate.records import records, value_quantiles
from ehrsim.outputs import atomic_file
from ehrsim.pages import template


class Cohorts(NamedTuple):
    """What is compared: simulated patients with real ones, who are those of `split`, or all where it is None."""

    real: pl.LazyFrame
    synthetic: pl.LazyFrame
    split: str | None


def write_overview(
    population: str | Path,
    cohort: str | Path,
    page: str | Path,
    *,
    metrics: str | Path,
    title: str,
    facts: Sequence[tuple[str, str]] = (),
) -> None:
    """Write `page`, one HTML file that needs nothing else, on how `cohort` resembles `population`.

    Both are MEDS folders or Parquet files; patients of the held-out split of `population` are compared where there
    are any, else of the tuning split, else all. `metrics` is the metrics.jsonl of the run; `facts` are shown at the
    top. The same input gives the same bytes. Raises `InputError` where one of them cannot be read or is empty.
    """
    cohorts = _cohorts(Path(population), Path(cohort))
    context = {"title": title, "facts": list(facts), **overview(cohorts, read_metrics(Path(metrics)))}
    with atomic_file(Path(page)) as temporary:
        temporary.write_text(
            template(Path(__file__).with_name("overview.html.jinja")).render(context), encoding="utf-8", newline="\n"
        )


def overview(cohorts: Cohorts, metrics: list[dict[str, float]]) -> dict[str, Any]:
    """Everything the template shows, as text, numbers and drawings."""
    real, synthetic = prevalence(cohorts.real), prevalence(cohorts.synthetic)
    compared = clinical(real, synthetic)
    real_records, synthetic_records = records(cohorts.real), records(cohorts.synthetic)
    chosen = timeline.typical(cohorts.synthetic)
    return {
        "split": cohorts.split,
        "real_patients": f"{real.patients:,}",
        "synthetic_patients": f"{synthetic.patients:,}",
        "agreement": agreement(compared),
        "training": training_curve(metrics),
        "prevalence": scatters(compared, (real.patients, synthetic.patients)),
        "differences": differences(compared),
        "records": record_figures((cohorts.real, cohorts.synthetic), real_records, synthetic_records),
        "shares": shares(real_records, synthetic_records),
        "values": value_figures(value_quantiles(cohorts.real), value_quantiles(cohorts.synthetic)),
        "life": None if chosen is None else life(timeline.timeline(cohorts.synthetic, chosen)),
        "richness": f"{timeline.RICHNESS:.0%}",
    }


def _cohorts(population: Path, cohort: Path) -> Cohorts:
    synthetic = events.read_events(cohort)
    if synthetic.head(1).collect().is_empty():
        raise InputError(f"{cohort} holds no events", hint="ehrsim generate writes simulated patients")
    own_splits = any((population / "data" / split).is_dir() for split in events.SPLITS)
    for split in ("held_out", "tuning"):
        if own_splits and not any((population / "data" / split).rglob("*.parquet")):
            continue
        real = events.read_events(population, split)
        if not real.head(1).collect().is_empty():
            return Cohorts(real, synthetic, split)
    real = events.read_events(population)
    if real.head(1).collect().is_empty():
        raise InputError(f"{population} holds no events", hint="see ehrsim inspect")
    return Cohorts(real, synthetic, None)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a metrics file; raises `InputError` naming the line that is no JSON object with a step."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="metrics.jsonl lies in the run folder") from None
    figures = []
    for index, line in enumerate(lines, 1):
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InputError(f"{path} line {index} is not JSON: {error}") from None
        if not isinstance(found, dict) or not isinstance(found.get("step"), int):
            raise InputError(f"{path} line {index} has no `step`", hint="expected the metrics of a training run")
        figures.append(found)
    return figures


def training_curve(metrics: list[dict[str, float]]) -> Figure | None:
    """Loss on the training batches and on the tuning split by step, the best tuning loss ringed; None without any."""
    lines = []
    for key, name, style in (("loss", "training", "plain"), ("tuning", "tuning", "synthetic")):
        known = [(line["step"], line[key]) for line in metrics if _is_number(line.get(key))]
        if known:
            steps, losses = zip(*known, strict=True)
            lines.append(Line(name, style, steps, losses))
    if not lines:
        return None
    tuned = [line for line in lines if line.name == "tuning"]
    best = min(zip(tuned[0].y, tuned[0].x, strict=True)) if tuned else None
    # An adversary's losses are no likelihood.
    unit = "" if any("critic" in line for line in metrics) else " nats a visit"
    note = f"Best on the tuning split: {best[0]:.2f}{unit}, at step {best[1]:,}." if best else ""
    marked = (best[1], best[0]) if best else None
    drawing = curves(lines, title="Training and tuning loss by step", x_label="step of training", marked=marked)
    return Figure(f"Loss, in{unit}" if unit else "Losses of critic and generator", drawing, note)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
