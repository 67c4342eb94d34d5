"""What simulated patients are good for, whether they are so for every group, and what it takes to find out.

Reproduce: `python benchmarks/utility.py EVENTS --cohort COHORT` with a MEDS folder of real patients that has splits,
and one of patients simulated by a model of its training split. Without them, the built-in reference population stands
for real patients and a second one for simulated: a perfect generator, whose differences are chance. `--small` shows in
a minute that the script works. It needs the extra `evaluate`.

Models (logistic regression, gradient-boosted trees, a gated recurrent unit) are trained on as many real and simulated
patients, `--patients` at most, and tested on the held-out ones, with the tuning patients where these are few: those
stop the training of a generator, but it does not learn from them. `--held-out` names other real patients to test on.

A table goes to standard error, all figures as one JSON line to standard output.
"""

from __future__ import annotations

import statistics
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
from measure import Seconds, arguments, report, rounded, timed

import ehrsim
from ehrsim.evaluate.fairness import Cohorts, Fairness, fairness
from ehrsim.evaluate.learners import LEARNERS
from ehrsim.evaluate.replication import Replication, effects, replicate, subsets
from ehrsim.evaluate.resampling import DRAWS, subjects
from ehrsim.evaluate.utility import Augmented, TaskUtility, Utility, augmentation, few, scores, utility
from ehrsim.reference import population
from ehrsim.sequence_classifier import gru

PEOPLE, SMALL_PEOPLE, SMALL_DRAWS = 3_000, 400, 20
LEAST_HELD_OUT = 1_000
"""Held-out patients, with less of whom the tuning patients are tested on too."""
MOST_AUGMENTED = 3


def cohorts(options: Namespace) -> Cohorts:
    """Held-out, training and simulated patients."""
    if not options.events:
        people = SMALL_PEOPLE if options.small else PEOPLE
        return Cohorts(*(population(people, seed=seed).lazy() for seed in (1, 2, 3)))
    training, held_out = ehrsim.read_events(options.events, "train"), options.held_out
    if held_out:
        tested = ehrsim.read_events(held_out)
    else:
        tested = ehrsim.read_events(options.events, "held_out")
        if len(subjects(tested)) < LEAST_HELD_OUT:
            tested = pl.concat([tested, ehrsim.read_events(options.events, "tuning")])
    simulated = ehrsim.read_events(options.cohort)
    return Cohorts(tested.collect().lazy(), few(training, options.patients), few(simulated, options.patients))


def rows(found: Utility) -> list[tuple[str, ...]]:
    """A line of text for every task and model, and the means of each model."""
    shown = [("task", "model", "with it, real/sim/tested", "TSTR", "TRTR", "difference", "floor", "slope TSTR/TRTR")]
    for one in found.tasks:
        auroc, slope = (next(c for c in one.figures if c.measure == name) for name in ("auroc", "calibration slope"))
        sizes = "/".join(f"{size.positives} of {size.patients}" for size in (one.real, one.synthetic, one.held_out))
        low, high = auroc.difference_interval
        shown.append(
            (
                one.task.name[:44],
                one.learner,
                sizes,
                f"{auroc.value:.3f}",
                f"{auroc.reference:.3f}",
                f"{auroc.difference:+.3f} ({low:+.3f} to {high:+.3f})",
                f"{auroc.floor:.3f}",
                f"{slope.value:.2f}/{slope.reference:.2f}",
            )
        )
    for mean in found.summary:
        if mean.measure in {"auroc", "brier"}:
            low, high = mean.difference_interval
            difference = f"{mean.difference:+.4f} ({low:+.4f} to {high:+.4f})"
            shown.append(
                (
                    f"mean {mean.measure}",
                    mean.learner,
                    f"{mean.tasks} tasks",
                    "",
                    "",
                    difference,
                    f"{mean.floor:.4f}",
                    "",
                )
            )
    return shown


def table(shown: list[tuple[str, ...]]) -> str:
    """Rows in columns."""
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in shown)


def gains(found: list[Augmented]) -> list[str]:
    """The median gain of AUROC by the part of the real patients."""
    lines = []
    for fraction in sorted({one.fraction for one in found}):
        own = [one for one in found if one.fraction == fraction and one.measure == "auroc"]
        alone, gain, over = (
            statistics.median(getattr(one, name) for one in own) for name in ("alone", "gain", "gain_over_resampled")
        )
        lines.append(
            f"{fraction:.0%} of real: AUROC {alone:.3f} alone, {gain:+.3f} with simulated, {over:+.3f} over resampled"
        )
    return lines


def flags(found: Fairness) -> list[str]:
    """What is flagged."""
    said = [
        f"represented otherwise: {r.group} {r.share:.3f}, target {r.target:.3f}"
        for r in found.representation
        if r.flagged
    ]
    said += [
        f"{g.name} of {g.group}: {g.figure.value:.4f}, floor {g.figure.floor:.4f}"
        for g in (*found.prevalence, *found.survival)
        if g.flagged
    ]
    said += [f"{c.code} of {c.group}: {c.real:.3f} real, {c.simulated:.3f} simulated" for c in found.codes[:5]]
    said += [f"{u.task} of {u.group} by {u.learner}: {u.gap:+.3f}" for u in found.utility if u.flagged]
    return said or ["nothing is flagged"]


def replicated(found: Replication) -> list[str]:
    """The effects."""
    lines = [
        f"{one.effect.name}: {one.real:+.2f} real, {one.synthetic:+.2f} simulated, overlap {one.overlap:.2f}, "
        f"floor {one.floor_overlap:.2f}"
        for one in found.effects
    ]
    return [*lines, f"mean overlap {found.mean_overlap:.2f}, floor {found.mean_floor_overlap:.2f}"]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("events", nargs="?", type=Path, help="a MEDS folder of real patients with splits")
    parser.add_argument("--cohort", type=Path, help="a MEDS folder of simulated patients")
    parser.add_argument("--held-out", type=Path, help="a MEDS folder of other real patients to test on")
    parser.add_argument("--patients", type=int, default=5_000, help="at most so many training and simulated patients")
    options = parser.parse_args()
    if bool(options.events) != bool(options.cohort):
        parser.error("EVENTS and --cohort go together")
    draws = SMALL_DRAWS if options.small else DRAWS
    held_out, training, simulated = each = cohorts(options)
    learners = {**LEARNERS, "recurrent network": gru}
    took: dict[str, Seconds] = {}
    (scored, skipped), took["training"] = timed(lambda: scores(training, simulated, held_out, learners=learners))
    found, took["intervals"] = timed(lambda: utility(scored, held_out, skipped=skipped, draws=draws))
    tasks = [one.task for one in found.tasks if one.learner == "recurrent network"][:MOST_AUGMENTED]
    trees = {"gradient-boosted trees": LEARNERS["gradient-boosted trees"]}
    more, took["augmentation"] = timed(lambda: augmentation(training, simulated, held_out, tasks, trees, draws=draws))
    fair, took["fairness"] = timed(lambda: fairness(each, scored, draws=draws))
    same, took["replication"] = timed(lambda: replicate(training, held_out, subsets(simulated), effects(training)))
    seconds = {name: {key: rounded(value) for key, value in one._asdict().items()} for name, one in took.items()}
    parts = [table(rows(found)), *(f"skipped {one.name}: {one.reason}" for one in skipped)]
    parts += [*gains(more), *flags(fair), *replicated(same), str(seconds)]
    print("\n".join(parts), file=sys.stderr)
    shown: dict[str, Any] = {"augmentation": more, "fairness": fair, "replication": same}
    report(
        "utility",
        data=options.events.name if options.events else "reference",
        cohort=options.cohort.name if options.cohort else "reference",
        patients=[len(subjects(events)) for events in each],
        draws=draws,
        seconds=seconds,
        tasks=[brief(one) for one in found.tasks],
        summary=msgspec.to_builtins(found.summary),
        skipped=msgspec.to_builtins(skipped),
        **{name: msgspec.to_builtins(part) for name, part in shown.items()},
    )


def brief(one: TaskUtility) -> dict[str, Any]:
    """The figures of a task without those of its groups."""
    return {name: part for name, part in msgspec.to_builtins(one).items() if name != "groups"}


if __name__ == "__main__":
    main()
