"""Membership inference: how well an attacker tells the patients a model was trained on from others.

Everything here works on scores, one of each attack for every target, that are the higher the more a patient looks like
a member; where they come from is the threat model (`ehrsim.evaluate.densities`: synthetic data released;
`ehrsim.memorisation`: run folder released). Targets are members (training patients) and non-members: real patients of
the same source that neither training nor early stopping nor the attacker's reference has seen.

An attacker tries several attacks and keeps the best. The best of many looks good by chance alone, so the choice is paid
for: an attack is chosen on one half of the targets and judges the other, and the other way about, for many random
halves. Each target is thus judged by attacks that were chosen without it. Thresholds are those that few enough of all
non-members exceed; the bounds of a rate are exact given who is called a member.

Figures hold for the attacks tried, on average over the targets. Other attacks may do better: they are lower bounds of
what leaks, and no proof of anonymity. Where `blind` is off 0.5, members differ from non-members before any attack
(other years, another hospital), and the figures measure that as well (Das et al. 2024, "Blind Baselines Beat Membership
Inference Attacks for Foundation Models").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ehrsim.errors import InputError
from ehrsim.evaluate.exact import COVERAGE, Rate, rate
from ehrsim.evaluate.resampling import Floats, Indices
from ehrsim.evaluate.two_sample import Area

FALSE_POSITIVE_RATES = (0.01, 0.001)
LEAST = 20
"""Members and non-members that there must be, also in a group for it to be reported."""
SPLITS = 20
"""Times that the targets are halved."""
AUC_BAR, TRUE_POSITIVE_BAR = 0.60, 0.02

Labels = NDArray[np.str_]
Flags = NDArray[np.bool_]


class Detection(msgspec.Struct, frozen=True):
    """The members who are found where few non-members are to be accused."""

    false_positive_rate: float
    """What the attacker aims at."""
    found: Rate
    """of the members: the true positive rate"""
    accused: Rate
    """of the non-members: the false positive rate that came of it"""
    resolved: bool
    """False where non-members are too few to see a rate so low: then none of them is tolerated, and more may come."""
    chosen: dict[str, float]
    """How often each attack was chosen for finding most members."""


class Group(msgspec.Struct, frozen=True):
    """The figures among the targets of one group; attacks and thresholds are those of all targets."""

    by: str
    name: str
    members: int
    non_members: int
    auc: Area
    detections: list[Detection]


class Membership(msgspec.Struct, frozen=True):
    """How well members are told from non-members."""

    members: int
    non_members: int
    auc: Area
    """of attacks chosen on other targets, 0.5 is chance; in simulated worlds the interval covers 92 times in 100"""
    chosen: dict[str, float]
    """How often each attack was chosen for its AUC."""
    detections: list[Detection]
    by_attack: dict[str, Area]
    """Each attack by itself on all targets; the largest of these is not corrected for being the largest."""
    blind: Area | None
    """AUC of the best score that knows nothing of what was released, chosen likewise."""
    groups: list[Group]
    too_few: list[str]
    """Groups with too few targets to say anything."""

    @property
    def passes(self) -> bool:
        """Whether the AUC is shown to be 0.60 at most, and that found at 1 % is not shown to be more than 2 %."""
        return self.auc.interval[1] <= AUC_BAR and self.detections[0].found.low <= TRUE_POSITIVE_BAR

    @property
    def exposed(self) -> list[Group]:
        """The groups for which an AUC above 0.60 is shown, or more than 2 % found at 1 %.

        Small groups have wide intervals, so that they are not held to the upper bound. Of many groups at the very bar
        one in twenty is here by chance.
        """
        return [
            one
            for one in self.groups
            if one.auc.interval[0] > AUC_BAR or one.detections[0].found.low > TRUE_POSITIVE_BAR
        ]


def infer(
    scores: Mapping[str, Floats],
    member: Flags,
    *,
    blind: Mapping[str, Floats] | None = None,
    groups: Mapping[str, Labels] | None = None,
    seed: int = 0,
) -> Membership:
    """Judge attacks by their scores (targets,) and who is a `member` (targets,).

    `blind` are scores that know nothing of what was released. `groups` gives for every division of the targets, as sex
    or age band, the group of each, "" for none. Raises `InputError` where there are fewer than 20 members or
    non-members, or a score is not finite.
    """
    if min(member.sum(), (~member).sum()) < LEAST:
        raise InputError(
            f"{int(member.sum()):,} members and {int((~member).sum()):,} others are too few for membership inference",
            hint=f"expected {LEAST} of each",
        )
    for name, score in {**scores, **(blind or {})}.items():
        if score.shape != member.shape or not np.isfinite(score).all():
            raise InputError(f"the scores of attack `{name}` are not one finite number for each target")
    halves = _halves(member, seed)
    attack = _Choice.by_area(scores, member, halves)
    detectors = [_detector(scores, member, halves, aim, seed) for aim in FALSE_POSITIVE_RATES]
    everyone = np.ones(len(member), bool)
    found, too_few = [], []
    for by, labels in (groups or {}).items():
        for name in sorted(set(labels.tolist()) - {""}):
            inside = labels == name
            sizes = int(member[inside].sum()), int((~member[inside]).sum())
            if min(sizes) < LEAST:
                too_few.append(f"{by}: {name}")
                continue
            judged = [_detection(detector, member, inside) for detector in detectors]
            found.append(Group(by, name, *sizes, attack.area(scores, member, inside), judged))
    guess = _Choice.by_area(blind, member, halves).area(blind, member, everyone) if blind else None
    return Membership(
        members=int(member.sum()),
        non_members=int((~member).sum()),
        auc=attack.area(scores, member, everyone),
        chosen=attack.shares(),
        detections=[_detection(detector, member, everyone) for detector in detectors],
        by_attack={name: area_of(score, member) for name, score in scores.items()},
        blind=guess,
        groups=found,
        too_few=too_few,
    )


def area_of(score: Floats, member: Flags) -> Area:
    """The AUC of a score with its interval (DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837)."""
    return _area(_placements(score, member), member)


def _placements(score: Floats, member: Flags) -> Floats:
    """(targets,) the share of the others that a member's score exceeds, or of the members that exceed another's.

    Equal scores count half.
    """
    placed = np.empty(len(score))
    for which in (True, False):
        own, other = score[member == which], np.sort(score[member != which])
        below = (np.searchsorted(other, own, "left") + np.searchsorted(other, own, "right")) / 2 / len(other)
        placed[member == which] = below if which else 1 - below
    return placed


def _area(placed: Floats, member: Flags) -> Area:
    """The area from the placements of all targets, cut to 0 and 1."""
    value = float(placed[member].mean())
    error = np.sqrt(sum(placed[member == which].var(ddof=1) / (member == which).sum() for which in (True, False)))
    reach = float(stats.norm.ppf((1 + COVERAGE) / 2) * error)
    return Area(value, (max(value - reach, 0.0), min(value + reach, 1.0)))


def _halves(member: Flags, seed: int) -> NDArray[np.bool_]:
    """(splits, targets) at random: half of the members and half of the others are True in each split."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 2]))
    halves = np.zeros((SPLITS, len(member)), bool)
    for half in halves:
        for which in (True, False):
            half[rng.permutation(np.flatnonzero(member == which))[::2]] = True
    return halves


class _Choice(msgspec.Struct, frozen=True):
    """For every split the attack that was chosen on each half, and judges the other."""

    halves: Flags
    """(splits, targets)"""
    names: list[tuple[str, str]]
    """of each split, chosen where it is False, and where it is True"""

    @classmethod
    def by_area(cls, scores: Mapping[str, Floats], member: Flags, halves: Flags) -> _Choice:
        """The attack with the largest AUC on the half."""
        return cls.best(halves, lambda inside: {n: _mean(score, member, inside) for n, score in scores.items()})

    @classmethod
    def best(cls, halves: Flags, gains: Callable[[Flags], Mapping[str, Any]]) -> _Choice:
        """The attack that gains most on the half, of equal ones the first."""
        names = []
        for half in halves:
            found = [gains(~half), gains(half)]
            names.append((max(found[0], key=found[0].__getitem__), max(found[1], key=found[1].__getitem__)))
        return cls(halves, names)

    def judged(self, values: Mapping[str, NDArray[Any]]) -> Iterator[tuple[Flags, NDArray[Any]]]:
        """For every split and half of it the targets of the half, and the values of the attack chosen on the other."""
        for half, (first, second) in zip(self.halves, self.names, strict=True):
            yield half, values[first]
            yield ~half, values[second]

    def area(self, scores: Mapping[str, Floats], member: Flags, inside: Flags) -> Area:
        """The AUC among the targets `inside`: the mean of their placements within the halves they are in."""
        total, number = np.zeros(len(member)), np.zeros(len(member))
        for half, score in self.judged(scores):
            own = half & inside
            if 0 < member[own].sum() < own.sum():
                total[own] += _placements(score[own], member[own])
                number[own] += 1
        known = inside & (number > 0)
        return _area(total[known] / number[known], member[known])

    def shares(self) -> dict[str, float]:
        """How often each attack was chosen, those that never were left out."""
        flat = [name for pair in self.names for name in pair]
        return {name: flat.count(name) / len(flat) for name in sorted(set(flat), key=lambda name: -flat.count(name))}


def _mean(score: Floats, member: Flags, inside: Flags) -> float:
    """The AUC among some targets."""
    return float(_placements(score[inside], member[inside])[member[inside]].mean())


class _Detector(msgspec.Struct, frozen=True):
    """Who is called a member."""

    aim: float
    chosen: dict[str, float]
    called: Flags
    """(targets,) by the attack of a random split, chosen on the half where the target is not"""
    resolved: bool


def _detector(scores: Mapping[str, Floats], member: Flags, halves: Flags, aim: float, seed: int) -> _Detector:
    """Choose the attack that finds most members of a half, of equal ones that with the largest AUC."""
    over = {name: score > _threshold(score[~member], aim) for name, score in scores.items()}

    def gains(inside: Flags) -> dict[str, tuple[float, float]]:
        return {
            n: (float(over[n][inside & member].mean()), _mean(score, member, inside)) for n, score in scores.items()
        }

    choice = _Choice.best(halves, gains)
    # One split at random judges a target: what most splits agree on would be rarer than the attacker aims at.
    judge: Indices = np.random.Generator(np.random.Philox(key=[seed, 11])).integers(0, len(halves), len(member))
    taken = np.zeros(len(member), bool)
    for number, (half, called) in enumerate(choice.judged(over)):
        own = half & (judge == number // 2)
        taken[own] = called[own]
    return _Detector(aim, choice.shares(), taken, int((~member).sum() + 1) * aim >= 1)


def _detection(detector: _Detector, member: Flags, inside: Flags) -> Detection:
    """The rates of a detector among the targets `inside`."""
    hits, alarms = (detector.called[inside & (member == which)] for which in (True, False))
    return Detection(
        detector.aim,
        rate(int(hits.sum()), len(hits)),
        rate(int(alarms.sum()), len(alarms)),
        detector.resolved,
        detector.chosen,
    )


def _threshold(score: Floats, aim: float) -> float:
    """The score that the share `aim` of further non-members is expected to exceed at most, none of these if too few."""
    tolerated = max(int(aim * (len(score) + 1) + 1e-9) - 1, 0)
    return float(np.sort(score)[-1 - tolerated])
