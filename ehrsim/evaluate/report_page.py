"""The report as one HTML file that needs nothing else: verdict, figures, and the table of all metrics."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from ehrsim.evaluate import survival, timeline
from ehrsim.evaluate.charts import heat_map, number, score_strip, survival_curves
from ehrsim.evaluate.cohorts import Cohorts, descriptions
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
from ehrsim.evaluate.report import CohortFacts, Metric, Report, Section
from ehrsim.pages import template

SMALL_CELL = 11
"""A code of fewer real patients, but any, is not drawn: a page may be handed on."""
RICHNESS = (0.5, 0.9)
"""The patients shown side by side: more conditions than these shares of those who have any."""
MOST_CLUES, MOST_STEPS = 8, 120


def page(report: Report, cohorts: Cohorts, facts: list[CohortFacts]) -> str:
    """The whole page. No single real patient is shown on it."""
    real, synthetic = prevalence(cohorts.held_out), prevalence(cohorts.simulated)
    carriers = pl.col("real") * real.patients
    compared = clinical(real, synthetic).filter((carriers < 0.5) | (carriers > SMALL_CELL - 0.5))
    both = records(cohorts.held_out), records(cohorts.simulated)
    fidelity = next((section for section in report.sections if section.name == "fidelity"), None)
    context = {
        "report": report,
        "facts": {one.role: one for one in facts},
        "verdict": verdict(report),
        "sections": [_section(section) for section in report.sections],
        "agreement": agreement(compared),
        "prevalence": scatters(compared, (real.patients, synthetic.patients)),
        "differences": differences(compared),
        "records": record_figures((cohorts.held_out, cohorts.simulated), *both),
        "shares": shares(*both),
        "values": value_figures(value_quantiles(cohorts.held_out), value_quantiles(cohorts.simulated)),
        "survival": _survival(cohorts),
        "maps": [] if fidelity is None else _maps(fidelity),
        "subgroups": [] if fidelity is None else _subgroups(fidelity),
        "clues": [] if fidelity is None else _clues(fidelity),
        "lives": _lives(cohorts.simulated),
        "small_cell": SMALL_CELL,
    }
    return template(Path(__file__).with_name("report.html.jinja")).render(context)


def verdict(report: Report) -> dict[str, Any]:
    """How many bars are met, of gates and of others, and which are not."""
    named = [(section, metric) for section in report.sections for metric in section.metrics if metric.met is not None]
    gates = [metric for _, metric in named if metric.gate]
    return {
        "gates": len(gates),
        "gates_met": sum(metric.met is True for metric in gates),
        "bars": len(named),
        "bars_met": sum(metric.met is True for _, metric in named),
        "missed": [_row(metric) for _, metric in named if metric.met is False],
    }


def _section(section: Section) -> dict[str, Any]:
    groups = [
        {"title": title, "rows": [_row(metric) for metric in metrics]}
        for title, metrics in groupby(section.metrics, key=lambda metric: metric.group)
    ]
    return {"title": section.title, "name": section.name, "groups": groups}


def _row(metric: Metric) -> dict[str, Any]:
    """A metric as the table shows it."""
    interval = "" if metric.interval is None else f"{number(metric.interval[0])} to {number(metric.interval[1])}"
    return {
        "title": metric.title,
        "value": _text(metric.value),
        "interval": interval,
        "floor": _text(metric.floor),
        "ceiling": _text(metric.ceiling),
        "ratio": "" if metric.ratio is None else f"{metric.ratio:.2f}",
        "strip": _strip(metric),
        "bar": (metric.bar or "").replace("<=", "≤").replace(">=", "≥"),
        "met": metric.met,
        "gate": metric.gate,
    }


def _text(value: float | None) -> str:
    return "–" if value is None else number(value)


def _strip(metric: Metric) -> Markup | None:
    if metric.score is None or metric.floor is None or metric.ceiling is None:
        return None
    ends = metric.interval or (metric.value, metric.value)
    placed = [(metric.ceiling - end) / (metric.ceiling - metric.floor) for end in ends if end is not None]
    return score_strip(metric.score, min(placed, default=metric.score), max(placed, default=metric.score))


def _survival(cohorts: Cohorts) -> list[Figure]:
    """Death and the commonest chronic conditions, from birth where births are known, else from the first visit."""
    from_birth = survival.births_known(cohorts.held_out)
    pair = cohorts.held_out, cohorts.simulated
    tables = [survival.lives(events, from_birth=from_birth) for events in pair]
    horizon = survival.horizon(tables[0])
    if horizon <= 0:
        return []
    described = descriptions(*pair)
    outcomes = {"Death": [survival.to_death(table) for table in tables]}
    for code in survival.chronic(cohorts.held_out):
        outcomes[described.get(code, code)] = [
            survival.to_first(events, table, code) for events, table in zip(pair, tables, strict=True)
        ]
    since = "birth" if from_birth else "first visit"
    found = []
    for name, counted in outcomes.items():
        if not any(one.happened.any() for one in counted):
            continue
        curves = [_thinned(survival.kaplan_meier(one)) for one in counted]
        drawing = survival_curves(*curves, horizon=horizon, title=f"{name}, from {since}, real and simulated")
        happened = [int(one.happened.sum()) for one in counted]
        note = (
            f"Share without it, by years since {since}. {happened[0]:,} real patients had it, {happened[1]:,} simulated"
        )
        found.append(Figure(name, drawing, note))
    return found


def _thinned(curve: survival.Curve) -> tuple[list[float], list[float]]:
    """A curve of at most `MOST_STEPS` steps."""
    last = len(curve.times) - 1
    kept = np.unique(np.linspace(0, last, MOST_STEPS).astype(np.int64)) if last >= 0 else np.zeros(0, np.int64)
    return curve.times[kept].tolist(), curve.survival[kept].tolist()


def _maps(section: Section) -> list[Figure]:
    """Differences of pairs of codes, in a visit and at the next."""
    pairs = section.details.get("pairs") or {}
    labels = pairs.get("codes") or []
    if not labels:
        return []
    most = max(abs(value) for name in ("same_visit", "next_visit") for row in pairs[name] for value in row) or 1.0
    titles = {"same_visit": "Both in one visit", "next_visit": "The row’s code, then the column’s at the next visit"}
    note = f"Points of simulated less real patients; full colour is {number(most * 100)} points"
    return [
        Figure(title, heat_map(labels, pairs[name], most=most, title=f"{title}: differences"), note)
        for name, title in titles.items()
    ]


def _subgroups(section: Section) -> list[dict[str, Any]]:
    """Who is there, and how well each subgroup is told."""
    rows = []
    for metric in section.metrics:
        if "trait" in metric.details:
            share = metric.details["share"]
            row = _row(metric) | {"name": f"{metric.details['trait'].capitalize()}: {metric.details['label']}"}
            rows.append(row | {"shares": [_share(share["held_out"]), _share(share["simulated"])]})
    return rows


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f} %"


def _clues(section: Section) -> list[dict[str, Any]]:
    """By what classifiers tell simulated patients."""
    return [
        {
            "title": metric.title,
            "value": _text(metric.value),
            "floor": _text(metric.floor),
            "rows": [
                {
                    "name": clue["name"],
                    "lost": f"{clue['lost']:.3f}",
                    "means": [_text(clue["real"]), _text(clue["other"])],
                }
                for clue in metric.details["clues"][:MOST_CLUES]
            ],
        }
        for metric in section.metrics
        if "clues" in metric.details
    ]


def _lives(simulated: pl.LazyFrame) -> list[dict[str, Any]]:
    """Simulated patients side by side, chosen by rule."""
    chosen = [timeline.typical(simulated, richness) for richness in RICHNESS]
    subjects = list(dict.fromkeys(subject for subject in chosen if subject is not None))
    return [life(timeline.timeline(simulated, subject)) for subject in subjects]
