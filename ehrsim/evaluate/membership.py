"""Membership inference: how well an attacker tells the patients a model was trained on from others.

Everything here works on scores, one of each attack for every target, that are the higher the more a patient looks like
a member; where they come from is the threat model (`ehrsim.evaluate.densities`: synthetic data released;
`ehrsim.memorisation`: run folder released). Targets are members (training patients) and non-members: real patients of
the same source that neither training nor early stopping nor the attacker's reference has seen.

An attacker tries several attacks and keeps the best. The best of many looks good by chance alone, so the choice is paid
for: the attack is chosen on one half of the targets and judged on the other, and the other way about. Thresholds are
those that few enough of all non-members exceed; the bounds of a rate are exact given the threshold.

Figures hold for the attacks tried, on average over the targets. Other attacks may do better: they are lower bounds of
what leaks, and no proof of anonymity. Where `blind` is off 0.5, members differ from non-members before any attack
(other years, another hospital), and the figures measure that as well (Das et al. 2024, "Blind Baselines Beat Membership
Inference Attacks for Foundation Models").
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from ehrsim.errors import InputError
from ehrsim.evaluate.exact import Rate, rate
from ehrsim.evaluate.resampling import DRAWS, Floats, Indices
from ehrsim.evaluate.two_sample import Area, area, cross_validated_area

FALSE_POSITIVE_RATES = (0.01, 0.001)
LEAST = 10
"""Members and non-members that each half of a group must have for it to be reported."""
HALVES = 2
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
    attacks: tuple[str, str]
    """Chosen on either half, and judged on the other."""


class Group(msgspec.Struct, frozen=True):
    """The figures among the targets of one group; the attack and the thresholds are those of all targets."""

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
    """of the attack chosen on the other half, 0.5 is chance"""
    attacks: tuple[str, str]
    """Chosen for their AUC on either half, and judged on the other."""
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
    draws: int = DRAWS,
) -> Membership:
    """Judge attacks by their scores (targets,) and who is a `member` (targets,).

    `blind` are scores that know nothing of what was released. `groups` gives for every division of the targets, as sex
    or age band, the group of each, "" for none. Intervals of the AUC are of targets drawn again, `draws` times; those
    of rates are exact. Raises `InputError` where a half would have fewer than 10 members or non-members, or a score is
    not finite.
    """
    if min(member.sum(), (~member).sum()) < HALVES * LEAST:
        raise InputError(
            f"{int(member.sum()):,} members and {int((~member).sum()):,} others are too few for membership inference",
            hint=f"expected {HALVES * LEAST} of each",
        )
    for name, score in {**scores, **(blind or {})}.items():
        if score.shape != member.shape or not np.isfinite(score).all():
            raise InputError(f"the scores of attack `{name}` are not one finite number for each target")
    half = _halves(member, seed)
    chosen = _chosen(scores, member, half)
    judged = _judged(scores, chosen, half)
    detectors = [_Detector.choose(scores, member, half, aim) for aim in FALSE_POSITIVE_RATES]
    found, too_few = [], []
    for by, labels in (groups or {}).items():
        for name in sorted(set(labels.tolist()) - {""}):
            inside = labels == name
            if _enough(member[inside], half[inside]):
                found.append(_group(by, name, inside, judged, detectors, member, half, seed, draws))
            else:
                too_few.append(f"{by}: {name}")
    unseen = None
    if blind:
        guesses = _judged(blind, _chosen(blind, member, half), half)
        unseen = cross_validated_area(guesses, member, half, seed=seed, draws=draws)
    one = np.zeros_like(half)
    return Membership(
        members=int(member.sum()),
        non_members=int((~member).sum()),
        auc=cross_validated_area(judged, member, half, seed=seed, draws=draws),
        attacks=chosen,
        detections=[detector.detection(member, half) for detector in detectors],
        by_attack={name: cross_validated_area(s, member, one, seed=seed, draws=draws) for name, s in scores.items()},
        blind=unseen,
        groups=found,
        too_few=too_few,
    )


def _halves(member: Flags, seed: int) -> Indices:
    """(targets,) 0 or 1 at random: half of the members and half of the others are 1."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 2]))
    half = np.zeros(len(member), np.int64)
    for which in (True, False):
        own = rng.permutation(np.flatnonzero(member == which))
        half[own[::HALVES]] = 1
    return half


def _chosen(scores: Mapping[str, Floats], member: Flags, half: Indices) -> tuple[str, str]:
    """The attack with the largest AUC on each half."""
    best = []
    for number in range(HALVES):
        inside = half == number
        areas = {name: area(score[inside], member[inside]) for name, score in scores.items()}
        best.append(max(areas, key=areas.__getitem__))
    return best[0], best[1]


def _judged(scores: Mapping[str, Floats], chosen: tuple[str, str], half: Indices) -> Floats:
    """(targets,) the scores of the attack that was chosen on the half where a target is not."""
    return np.where(half == 1, scores[chosen[0]], scores[chosen[1]])


class _Detector(msgspec.Struct, frozen=True):
    """Attacks chosen on either half, as they call the targets of the other."""

    aim: float
    attacks: tuple[str, str]
    called: Flags
    """(targets,) taken for a member"""
    resolved: bool

    @classmethod
    def choose(cls, scores: Mapping[str, Floats], member: Flags, half: Indices, aim: float) -> _Detector:
        """On each half the attack that finds most members, of equal ones that with the largest AUC."""
        called, names = np.zeros(len(member), bool), []
        limits = {name: _threshold(score[~member], aim) for name, score in scores.items()}
        for number in range(HALVES):
            inside = half == number
            gains = {
                name: (float((score[inside & member] > limits[name]).mean()), area(score[inside], member[inside]))
                for name, score in scores.items()
            }
            name = max(gains, key=gains.__getitem__)
            called[~inside] = scores[name][~inside] > limits[name]
            names.append(name)
        return cls(aim, (names[0], names[1]), called, int((~member).sum() + 1) * aim >= 1)

    def detection(self, member: Flags, inside: Flags | Indices) -> Detection:
        """Its rates among the targets `inside`; all for the halves themselves."""
        chosen = inside if inside.dtype == bool else np.ones(len(member), bool)
        hits, alarms = (self.called[chosen & (member == which)] for which in (True, False))
        return Detection(
            self.aim,
            rate(int(hits.sum()), len(hits)),
            rate(int(alarms.sum()), len(alarms)),
            self.resolved,
            self.attacks,
        )


def _threshold(score: Floats, aim: float) -> float:
    """The score that the share `aim` of further non-members is expected to exceed at most, none of these if too few."""
    tolerated = max(int(aim * (len(score) + 1) + 1e-9) - 1, 0)
    return float(np.sort(score)[-1 - tolerated])


def _enough(member: Flags, half: Indices) -> bool:
    """Whether both halves of some targets have enough members and non-members."""
    sizes = [int(((half == number) & (member == which)).sum()) for number in range(HALVES) for which in (True, False)]
    return min(sizes) >= LEAST


def _group(
    by: str,
    name: str,
    inside: Flags,
    judged: Floats,
    detectors: list[_Detector],
    member: Flags,
    half: Indices,
    seed: int,
    draws: int,
) -> Group:
    return Group(
        by,
        name,
        int(member[inside].sum()),
        int((~member[inside]).sum()),
        cross_validated_area(judged[inside], member[inside], half[inside], seed=seed, draws=draws),
        [detector.detection(member, inside) for detector in detectors],
    )
