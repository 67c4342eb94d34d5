"""A first page on a simulated cohort: training, prevalences, records and values beside real patients, and one life."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import polars as pl
from markupsafe import Markup

from ehrsim import codes, events
from ehrsim.errors import InputError
from ehrsim.evaluate import timeline
from ehrsim.evaluate.charts import (
    Line,
    Point,
    curves,
    histogram,
    number,
    percent,
    prevalence_scatter,
    quantile_ranges,
)
from ehrsim.evaluate.prevalence import chance_limits, compare, prevalence, r_squared
from ehrsim.evaluate.records import codes_per_visit, records, value_quantiles
from ehrsim.outputs import atomic_file
from ehrsim.pages import template

KINDS = {
    "condition": "Conditions",
    "medication": "Medications",
    "procedure": "Procedures",
    "observation": "Observations",
    "immunization": "Immunizations",
    "allergy": "Allergies",
    "reason": "Reasons for visits",
    "care_plan": "Care plans",
}
MOST_POINTS, MOST_DIFFERENCES, MOST_VALUES, BINS = 400, 12, 12, 20
CLIP = 0.99
"""Histograms end at this quantile of both cohorts together; their last bin holds everything beyond."""


class Figure(NamedTuple):
    """A drawing with its caption."""

    title: str
    drawing: Markup
    note: str = ""


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
    clinical = pl.col("kind").is_in(list(KINDS)) & (pl.col("code") != codes.OBSERVATION_END)
    compared = compare(real, synthetic).filter(clinical)
    real_records, synthetic_records = records(cohorts.real), records(cohorts.synthetic)
    chosen = timeline.typical(cohorts.synthetic)
    return {
        "split": cohorts.split,
        "real_patients": f"{real.patients:,}",
        "synthetic_patients": f"{synthetic.patients:,}",
        "agreement": _agreement(compared),
        "training": training_curve(metrics),
        "prevalence": _scatters(compared, (real.patients, synthetic.patients)),
        "differences": _differences(compared),
        "records": _record_figures(cohorts, real_records, synthetic_records),
        "shares": _shares(real_records, synthetic_records),
        "values": _value_figures(value_quantiles(cohorts.real), value_quantiles(cohorts.synthetic)),
        "life": None if chosen is None else _life(timeline.timeline(cohorts.synthetic, chosen)),
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


def _agreement(compared: pl.DataFrame) -> dict[str, str]:
    """R² over all codes, and the share of codes whose difference chance would explain."""
    explained = r_squared(compared["real"], compared["synthetic"])
    within = compared["within"].mean()
    return {
        "codes": f"{compared.height:,}",
        "r_squared": _signed(explained),
        "within": "–" if within is None else percent(float(within)),  # type: ignore[arg-type]
    }


def _signed(explained: float | None) -> str:
    if explained is None:
        return "–"
    return f"{explained:.{3 if explained > -1 else 1}f}".replace("-", "−")


def _scatters(compared: pl.DataFrame, sizes: tuple[int, int]) -> list[Figure]:
    """A chart a kind that has codes, all on the same axes: from the power of ten below the smallest share."""
    shares = np.concatenate([compared["real"].to_numpy(), compared["synthetic"].to_numpy()])
    low = min(0.1, 10.0 ** math.floor(math.log10(shares[shares > 0].min(initial=0.1))))
    return [
        _scatter(kind, chosen, sizes, low)
        for kind in KINDS
        if not (chosen := compared.filter(pl.col("kind") == kind)).is_empty()
    ]


def _scatter(kind: str, chosen: pl.DataFrame, sizes: tuple[int, int], low: float) -> Figure:
    """The codes of a kind, the most common drawn."""
    shown = chosen.with_columns(most=pl.max_horizontal("real", "synthetic")).sort(
        "most", "code", descending=[True, False]
    )[:MOST_POINTS]
    points = [_point(row) for row in shown.iter_rows(named=True)]
    explained = r_squared(chosen["real"], chosen["synthetic"])
    within = float(chosen["within"].mean())  # type: ignore[arg-type]
    note = f"R² {_signed(explained)} · {chosen.height:,} codes · {percent(within)} in band"
    if shown.height < chosen.height:
        note += f" · the {shown.height:,} most common are drawn"
    title = f"{KINDS[kind]}: share of patients with each code, real and simulated"
    drawing = prevalence_scatter(points, lambda share: chance_limits(share, *sizes), low=low, title=title)
    return Figure(KINDS[kind], drawing, note)


def _point(row: dict[str, Any]) -> Point:
    text = f"{_display(row)}: real {percent(row['real'])}, simulated {percent(row['synthetic'])}"
    style = "point inside" if row["within"] else "point outside"
    return Point(row["real"], row["synthetic"], text, style)


def _display(row: dict[str, Any]) -> str:
    value = row["code"].rpartition("//")[2]
    return f"{row['description']} ({value})" if row["description"] else value


def _differences(compared: pl.DataFrame) -> list[dict[str, str]]:
    """The codes whose shares differ most, in points."""
    largest = compared.with_columns(size=pl.col("difference").abs()).sort("size", "code", descending=[True, False])
    rows = []
    for row in largest[:MOST_DIFFERENCES].filter(pl.col("size") > 0).iter_rows(named=True):
        signed = f"{row['difference'] * 100:+.1f}".replace("-", "−")
        rows.append(
            {
                "display": row["description"] or row["code"],
                "code": row["code"],
                "kind": KINDS[row["kind"]],
                "real": percent(row["real"]),
                "synthetic": percent(row["synthetic"]),
                "difference": signed,
                "chance": "within" if row["within"] else "beyond",
            }
        )
    return rows


def _record_figures(cohorts: Cohorts, real: pl.DataFrame, synthetic: pl.DataFrame) -> list[Figure]:
    figures = []
    for column, title, label in (
        ("visits", "Visits of a patient", "visits in a record"),
        ("age", "Age at death or at the end of the record", "years"),
    ):
        ones = [frame[column].drop_nulls().to_numpy() for frame in (real, synthetic)]
        figures.append(_histogram(title, label, ones[0], ones[1], whole=column == "visits"))
    contents = [codes_per_visit(frame) for frame in (cohorts.real, cohorts.synthetic)]
    repeated = [np.repeat(table["codes"].to_numpy(), table["visits"].to_numpy()) for table in contents]
    figures.insert(1, _histogram("Codes of a visit", "distinct codes in a visit", repeated[0], repeated[1], whole=True))
    return [figure for figure in figures if figure is not None]


def _histogram(title: str, label: str, real: np.ndarray, synthetic: np.ndarray, *, whole: bool) -> Figure | None:
    """Both distributions in the same bins, whole numbers centred in theirs; None if one of them is empty."""
    if not real.size or not synthetic.size:
        return None
    high = max(float(np.quantile(values, CLIP)) for values in (real, synthetic))
    if whole:
        step = max(1, math.ceil((high + 1) / BINS))
        edges = np.arange(0, high + step + 1, step, dtype=np.float64)
    else:
        edges = np.linspace(0, max(high, 1.0), BINS + 1)
    shares = [np.histogram(np.minimum(v, edges[-1] - 1e-9), edges)[0] / v.size for v in (real, synthetic)]
    medians = float(np.median(real)), float(np.median(synthetic))
    drawing = histogram(edges, *shares, title=f"{title}, real and simulated", x_label=label, medians=medians)
    return Figure(title, drawing, f"Median: real {number(medians[0])}, simulated {number(medians[1])}")


def _shares(real: pl.DataFrame, synthetic: pl.DataFrame) -> list[dict[str, Any]]:
    """Sexes and deaths as shares of patients."""
    rows = []
    sexes = sorted({sex for frame in (real, synthetic) for sex in frame["sex"].drop_nulls()})
    measures = [(sex.capitalize(), pl.col("sex").eq_missing(pl.lit(sex))) for sex in sexes]
    measures += [("Sex not recorded", pl.col("sex").is_null()), ("Died", pl.col("died"))]
    for name, condition in measures:
        shares = [float(frame.select(condition.mean()).item() or 0.0) for frame in (real, synthetic)]
        if any(shares) or name == "Died":
            rows.append({"name": name, "real": shares[0], "synthetic": shares[1], "texts": [*map(percent, shares)]})
    return rows


def _value_figures(real: pl.DataFrame, synthetic: pl.DataFrame) -> list[Figure]:
    """The codes measured in most real patients that both cohorts have in the same unit."""
    both = real.join(synthetic, on=["code", "unit"], how="inner", suffix="_synthetic", nulls_equal=True)
    columns = [name for name in real.columns if name.startswith("q")]
    figures = []
    for row in both.sort("patients", "values", "code", descending=[True, True, False])[:MOST_VALUES].iter_rows(
        named=True
    ):
        title = row["description"] or row["description_synthetic"] or row["code"]
        quantiles = [[row[f"{name}{suffix}"] for name in columns] for suffix in ("", "_synthetic")]
        drawing = quantile_ranges(*quantiles, title=f"{title}, real and simulated", unit=row["unit"] or "")
        note = f"{row['values']:,} real values, {row['values_synthetic']:,} simulated"
        figures.append(Figure(title, drawing, note))
    return figures


def _life(patient: timeline.Timeline) -> dict[str, Any]:
    """The drawn timeline with a sentence on who it is and what is not shown."""
    left_out = [f"{count} {name}" for name, count in patient.unseen.items() if count]
    return {
        "drawing": timeline.draw(patient),
        "subject": patient.subject,
        "sex": patient.sex or "of unrecorded sex",
        "age": f"{patient.end:.0f}",
        "died": patient.died,
        "has_conditions": bool(patient.conditions),
        "visits": f"{sum(len(row.spans) for row in patient.visits):,}",
        "unseen": " and ".join(left_out),
    }
