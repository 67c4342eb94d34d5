"""Figures that pages on simulated patients share: prevalences, records and values beside real patients, and a life."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from markupsafe import Markup

from ehrsim import codes
from ehrsim.evaluate import timeline
from ehrsim.evaluate.charts import Point, histogram, number, percent, prevalence_scatter, quantile_ranges
from ehrsim.evaluate.prevalence import Prevalence, chance_limits, compare, r_squared
from ehrsim.evaluate.records import codes_per_visit

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


def clinical(real: Prevalence, synthetic: Prevalence) -> pl.DataFrame:
    """Prevalences side by side, of the kinds of codes that pages show."""
    shown = pl.col("kind").is_in(list(KINDS)) & (pl.col("code") != codes.OBSERVATION_END)
    return compare(real, synthetic).filter(shown)


def agreement(compared: pl.DataFrame) -> dict[str, str]:
    """R² over all codes, and the share of codes whose difference chance would explain."""
    explained = r_squared(compared["real"], compared["synthetic"])
    within = compared["within"].mean()
    return {
        "codes": f"{compared.height:,}",
        "r_squared": signed(explained),
        "within": "–" if within is None else percent(float(within)),  # type: ignore[arg-type]
    }


def signed(explained: float | None) -> str:
    """R² in a table or a note."""
    if explained is None:
        return "–"
    return f"{explained:.{3 if explained > -1 else 1}f}".replace("-", "−")


def scatters(compared: pl.DataFrame, sizes: tuple[int, int]) -> list[Figure]:
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
    note = f"R² {signed(explained)} · {chosen.height:,} codes · {percent(within)} in band"
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


def differences(compared: pl.DataFrame) -> list[dict[str, str]]:
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


def record_figures(
    events: tuple[pl.LazyFrame, pl.LazyFrame], real: pl.DataFrame, synthetic: pl.DataFrame
) -> list[Figure]:
    """Visits of a patient, codes of a visit and ages at the end, of events and their `records`."""
    figures = []
    for column, title, label in (
        ("visits", "Visits of a patient", "visits in a record"),
        ("age", "Age at death or at the end of the record", "years"),
    ):
        ones = [frame[column].drop_nulls().to_numpy() for frame in (real, synthetic)]
        figures.append(_histogram(title, label, ones[0], ones[1], whole=column == "visits"))
    contents = [codes_per_visit(frame) for frame in events]
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


def shares(real: pl.DataFrame, synthetic: pl.DataFrame) -> list[dict[str, Any]]:
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


def value_figures(real: pl.DataFrame, synthetic: pl.DataFrame) -> list[Figure]:
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


def life(patient: timeline.Timeline, whose: str = "simulated") -> dict[str, Any]:
    """The drawn timeline with a sentence on who it is and what is not shown."""
    left_out = [f"{count} {name}" for name, count in patient.unseen.items() if count]
    return {
        "drawing": timeline.draw(patient, whose),
        "subject": patient.subject,
        "sex": patient.sex or "of unrecorded sex",
        "age": f"{patient.end:.0f}",
        "died": patient.died,
        "has_conditions": bool(patient.conditions),
        "visits": f"{sum(len(row.spans) for row in patient.visits):,}",
        "unseen": " and ".join(left_out),
    }
