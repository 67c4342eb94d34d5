"""Privacy: what an attacker who is given the simulated patients finds of those the generator learned from.

Only the threat of the data alone is judged here, since an evaluation reads tables and no run; that of the weights is
`ehrsim.memorisation`. Half of the held-out patients is the attacker's reference for attacks on the other half, and the
other way about. Figures are lower bounds of what leaks: other attacks may find more (`docs/privacy.md`).
"""

from __future__ import annotations

import msgspec
import numpy as np
import polars as pl

from ehrsim.errors import UsageError
from ehrsim.evaluate import copies, densities, disclosure, histories, membership
from ehrsim.evaluate.cohorts import Gathered
from ehrsim.evaluate.exact import Risk
from ehrsim.evaluate.membership import Membership
from ehrsim.evaluate.report import Metric, Section, shown
from ehrsim.evaluate.resampling import subjects
from ehrsim.evaluate.two_sample import Area

CHANCE = 0.5
_MEMBERSHIP, _RISKS, _COPIES = "Who was trained on", "What is told of them", "Copies (no measure of privacy)"


def section(gathered: Gathered, seed: int = 0, *, most: int = histories.MOST_PATIENTS) -> Section:
    """Attack the training patients with the simulated ones; raises `UsageError` where nobody knows who was trained on.

    At most `most` patients of each kind are looked at.
    """
    members, simulated = (
        histories.some(table, most, seed=seed) for table in (trained_on(gathered), gathered.cohorts.simulated)
    )
    others = histories.some(gathered.cohorts.held_out, most, seed=seed)
    first, second = halves(others, seed)
    parts = [densities.scores(members, *pair, seed=seed) for pair in _in_turn(first, simulated, second)]
    scores = densities.merged(parts, seed=seed)
    found = membership.infer(scores.attacks, scores.member, blind=scores.blind, groups=scores.groups, seed=seed)
    told = disclosure.disclosure(members, others, simulated, most=most, seed=seed)
    copied = copies.copies(members, others, simulated, most=most, seed=seed)
    alone = told.singling_out
    risks = {
        "singling_out/one_part": ("A trait of one simulated patient is of one training patient", alone.univariate),
        "singling_out/several_parts": ("Several traits together are of one training patient", alone.multivariate),
        "linkability": ("Two halves of a record are linked by a simulated patient", told.linkability.risk),
        **{
            f"attribute_inference/{attack}": (f"A code is guessed from all others, by {attack}", risk)
            for attack, risk in told.attribute_inference.overall.items()
        },
    }
    same = {
        "copies/exact": ("The very visits of a training patient", copied.exact),
        **{f"copies/near/{way}": (f"Nearly the {way} of one", risk) for way, risk in copied.near.items()},
        "copies/long_runs": ("As long a run of visits as hardly any held-out patient shares", copied.long_runs),
    }
    metrics = [
        *_of_membership(found),
        *(_of_risk(name, _RISKS, title, risk) for name, (title, risk) in risks.items()),
        *(_of_risk(name, _COPIES, title, risk) for name, (title, risk) in same.items()),
    ]
    details = {"threat": "simulated patients released, and nothing else", **msgspec.to_builtins(copied.distances)}
    return Section(name="privacy", title="Privacy, by attack", metrics=metrics, details=_finite(details))


def trained_on(gathered: Gathered) -> pl.LazyFrame:
    """The training patients; raises `UsageError` where nobody knows them."""
    if gathered.train is None:
        raise UsageError("nothing says who was trained on", hint="give the training patients, or events with splits")
    return gathered.train


def halves(events: pl.LazyFrame, seed: int) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """Two halves of the patients at random."""
    everyone = subjects(events)
    rng = np.random.Generator(np.random.Philox(key=[seed, 9]))
    half = everyone.gather(np.sort(rng.permutation(len(everyone))[: len(everyone) // 2])).implode()
    inside = pl.col("subject_id").is_in(half)
    return events.filter(inside).collect().lazy(), events.filter(~inside).collect().lazy()


def _in_turn(
    first: pl.LazyFrame, simulated: pl.LazyFrame, second: pl.LazyFrame
) -> list[tuple[pl.LazyFrame, pl.LazyFrame, pl.LazyFrame]]:
    """Each half as the targets beside members, with the other as the attacker's reference."""
    return [(first, simulated, second), (second, simulated, first)]


def _of_membership(found: Membership) -> list[Metric]:
    title = "A training patient is told from another: AUC of the best attack"
    metrics = [_of_area("membership/auc", title, found.auc, found)]
    for one in found.detections:
        aimed = f"{one.false_positive_rate:g}"
        metrics.append(
            Metric(
                name=f"membership/found_at_{aimed}",
                group=_MEMBERSHIP,
                title=f"Training patients found where {one.false_positive_rate:.1%} of others are accused",
                best="low",
                value=shown(one.found.value),
                interval=(one.found.low, one.found.high),
                floor=one.false_positive_rate,
                details={"accused": shown(one.accused.value), "resolved": one.resolved, "chosen": one.chosen},
            )
        )
    exposed = {(group.by, group.name) for group in found.exposed}
    for group in found.groups:
        name = f"membership/group/{group.by}={group.name}"
        told = _of_area(name, f"The same among {group.by} {group.name}: AUC", group.auc, found)
        sizes = {"members": group.members, "non_members": group.non_members}
        metrics.append(msgspec.structs.replace(told, details={**sizes, "exposed": (group.by, group.name) in exposed}))
    return metrics


def _of_area(name: str, title: str, area: Area, found: Membership) -> Metric:
    """An AUC, whose floor is chance; what is seen before any attack is noted."""
    blind = None if found.blind is None else shown(found.blind.value)
    sizes = {"members": found.members, "non_members": found.non_members, "blind": blind}
    return Metric(
        name=name,
        group=_MEMBERSHIP,
        title=title,
        best="low",
        value=shown(area.value),
        interval=area.interval,
        floor=CHANCE,
        excess=shown(area.value - CHANCE),
        details={**sizes, "by_attack": {attack: shown(one.value) for attack, one in found.by_attack.items()}},
    )


def _of_risk(name: str, group: str, title: str, risk: Risk) -> Metric:
    """A risk, nought where training patients fare as held-out ones do."""
    interval = None if risk.low is None or risk.high is None else (risk.low, risk.high)
    details = {side: msgspec.to_builtins(getattr(risk, side)) for side in ("attack", "control")}
    return Metric(
        name=name,
        group=group,
        title=title,
        best="low",
        value=shown(risk.value),
        interval=interval,
        floor=0.0,
        excess=shown(risk.value),
        details=details,
    )


def _finite(found: object) -> dict[str, object]:
    """Figures as JSON has them."""

    def plain(one: object) -> object:
        if isinstance(one, float):
            return shown(one)
        if isinstance(one, dict):
            return {name: plain(value) for name, value in one.items()}
        return [plain(value) for value in one] if isinstance(one, list | tuple) else one

    made = plain(found)
    return made if isinstance(made, dict) else {}
