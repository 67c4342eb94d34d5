"""What attackers find in simulated patients, and in a run folder, of the patients a model was trained on.

Reproduce: `python benchmarks/attacks.py EVENTS --cohort FOLDER [--run FOLDER]` with the MEDS folder that the run was
trained on, and patients simulated by it. Members are of its training split. Non-members and the attacker's reference
are real patients that training has not seen: the splits held_out and tuning, each in either role in turn, since both
are small (tuning has had a say in when to stop); or other patients of the same source (`--others FOLDER`), half in
either role; with `--reference-population`, others of the built-in one. Without arguments a reference population is
trained on and simulated. `--memorised` hands the training patients themselves to the attacker, and `--real` others of
the non-members: what the attacks must see, and must not. It needs the extra `evaluate`.

Membership inference is judged with the synthetic data alone (`ehrsim/evaluate/densities.py`) and, given a run, with its
likelihoods (`ehrsim/memorisation.py`); then singling out, linkability and attribute inference (`disclosure.py`), and
copies (`copies.py`). The bars are ours: with the data alone an AUC whose upper bound is 0.60 at most, and a lower bound
of 2 % at most of the members found at a false positive rate of 1 %; an upper bound of 0.09 for each of the other risks.
A table goes to standard error, all figures as one JSON line to standard output.
"""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
from measure import arguments, report, rounded, timed

import ehrsim
from ehrsim import events as event_table
from ehrsim import memorisation, runs
from ehrsim.evaluate import copies, densities, disclosure, membership
from ehrsim.evaluate.exact import Risk
from ehrsim.evaluate.histories import some
from ehrsim.evaluate.membership import Membership
from ehrsim.evaluate.privacy import halves
from ehrsim.reference import population
from ehrsim.sampling import generate
from ehrsim.training import training_config

PEOPLE, SMALL_PEOPLE, SMALL_STEPS = 2_000, 400, 40
OTHER_SEED = 6_701
RISK_BAR = 0.09


class Patients(NamedTuple):
    """Members, and pairs of non-members and reference."""

    members: pl.LazyFrame
    others: list[tuple[pl.LazyFrame, pl.LazyFrame]]


def whole(events: pl.LazyFrame, most: int, seed: int) -> pl.LazyFrame:
    """Some patients with all columns, as a run needs them."""
    return some(events, most, seed=seed, columns=event_table.COLUMNS)


def patients(source: str | Path | pl.DataFrame, others: pl.LazyFrame | None, most: int, seed: int) -> Patients:
    """Who takes part."""
    if isinstance(source, pl.DataFrame):
        members = whole(event_table.only(source.lazy(), "train"), most, seed)
    else:
        members = whole(event_table.read_events(source, "train"), most, seed)
    if others is not None:
        return Patients(members, [halves(whole(others, 2 * most, seed), seed)])
    left = [whole(event_table.read_events(source, name), most, seed) for name in ("held_out", "tuning")]
    return Patients(members, [(left[0], left[1]), (left[1], left[0])])


def by_data(who: Patients, synthetic: pl.LazyFrame, steps: int, seed: int) -> Membership:
    """Membership inference with the synthetic data alone, with sequence models trained for some `steps` if any."""
    parts = [densities.scores(who.members, one, synthetic, other, seed=seed) for one, other in who.others]
    if steps:
        config = training_config("small", max_steps=steps, min_patients=3)
        for part, (one, other) in zip(parts, who.others, strict=True):
            part.attacks["sequence model"] = memorisation.sequence_scores(
                [who.members, one], synthetic, other, config=config
            )
    found = densities.merged(parts, seed=seed)
    return membership.infer(found.attacks, found.member, blind=found.blind, groups=found.groups, seed=seed)


def shown(name: str, found: Membership) -> None:
    """A few lines of a table on standard error."""
    low, high = found.auc.interval
    one = found.detections[0]
    verdict = "ok" if found.passes else "over the bar"
    print(
        f"{name}: AUC {found.auc.value:.3f} [{low:.3f}, {high:.3f}] {verdict}; {found.members:,} members,",
        file=sys.stderr,
    )
    print(
        f"  {found.non_members:,} others; at 1 %: {one.found.value:.3f} [{one.found.low:.3f}, {one.found.high:.3f}]"
        f" by {' and '.join(list(one.chosen)[:2])}; blind {found.blind.value:.3f}"
        if found.blind
        else "",
        file=sys.stderr,
    )
    for attack, area in found.by_attack.items():
        print(f"  {attack:<30} {area.value:.3f} [{area.interval[0]:.3f}, {area.interval[1]:.3f}]", file=sys.stderr)
    for group in found.exposed:
        print(f"  exposed: {group.by} {group.name}, AUC {group.auc.value:.3f}", file=sys.stderr)


def shown_risk(name: str, risk: Risk) -> None:
    """A line of it."""
    if risk.value is None:
        print(f"{name:<32} nothing can be said", file=sys.stderr)
        return
    verdict = "ok" if risk.high <= RISK_BAR else "over the bar" if risk.low > RISK_BAR else "not shown"
    text = f"{risk.value:.3f} [{risk.low:.3f}, {risk.high:.3f}]"
    counts = " against ".join(f"{one.successes:,}/{one.trials:,}" for one in (risk.attack, risk.control))
    print(f"{name:<32} {text:<24} {verdict:<14} {counts}", file=sys.stderr)


def plain(found: Any) -> Any:
    """Figures as JSON has them, with four digits."""
    if isinstance(found, float):
        return rounded(found) if np.isfinite(found) else None
    if isinstance(found, dict):
        return {name: plain(one) for name, one in found.items()}
    if isinstance(found, list | tuple):
        return [plain(one) for one in found]
    return found


def simulated(options: Namespace, folder: Path) -> tuple[Any, pl.LazyFrame, Any]:
    """Source, synthetic events and run of the arguments; trained here if there are none."""
    if options.events:
        run = runs.load(options.run) if options.run else None
        return options.events, event_table.read_events(options.cohort), run
    people = SMALL_PEOPLE if options.small else PEOPLE
    source = population(people, seed=0)
    config = training_config("small", max_steps=SMALL_STEPS if options.small else None)
    run = ehrsim.fit(source, folder / "run", model="vae", preset="small", training=config)
    return source, generate(run, people, seed=1), run


def main() -> None:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("events", nargs="?", help="the MEDS folder the run was trained on")
    parser.add_argument("--cohort", help="simulated patients, a MEDS folder")
    parser.add_argument("--run", help="the run folder: judged with its weights known as well")
    parser.add_argument("--others", help="a MEDS folder of other real patients of the same source")
    parser.add_argument("--reference-population", action="store_true", help="others are of the built-in population")
    parser.add_argument("--most", type=int, default=2_500, help="patients of each kind at most")
    parser.add_argument(
        "--sequence-steps", type=int, default=0, help="also attack by sequence models, so many steps each"
    )
    parser.add_argument("--memorised", action="store_true", help="training patients stand for simulated ones")
    parser.add_argument("--real", action="store_true", help="other real patients stand for simulated ones")
    options = parser.parse_args()
    if options.events and not options.cohort:
        parser.error("name the simulated patients: --cohort FOLDER")
    with tempfile.TemporaryDirectory() as folder:
        source, synthetic, run = simulated(options, Path(folder))
    most = SMALL_PEOPLE if options.small else options.most
    others = event_table.read_events(options.others) if options.others else None
    if options.reference_population or not options.events:
        others = population(2 * most, seed=OTHER_SEED).lazy()
    who = patients(source, others, most, seed=0)
    if options.memorised:
        synthetic = who.members
    if options.real:
        first, second = halves(who.others[0][1], 1)
        who, synthetic = Patients(who.members, [(who.others[0][0], first)]), second
    synthetic = whole(synthetic, 2 * most, 0)
    non_members = pl.concat([one for one, _ in who.others]) if len(who.others) > 1 else who.others[0][0]
    found: dict[str, Any] = {}
    seconds: dict[str, dict[str, float]] = {}

    def measured(name: str, work: Callable[[], Any]) -> Any:
        found[name], taken = timed(work)
        seconds[name] = {"cpu": rounded(taken.cpu), "wall": rounded(taken.wall)}
        return found[name]

    shown(
        "synthetic data alone",
        measured("membership_by_data", lambda: by_data(who, synthetic, options.sequence_steps, 0)),
    )
    if run is not None:
        one, other = who.others[0]
        by_run = measured("membership_by_run", lambda: memorisation.membership_by_run(run, who.members, one, other))
        shown("run folder known", by_run)
    told = measured("disclosure", lambda: disclosure.disclosure(who.members, non_members, synthetic, most=2 * most))
    copied = measured("copies", lambda: copies.copies(who.members, non_members, synthetic, most=2 * most))
    shown_risk("singling out, one part", told.singling_out.univariate)
    shown_risk("singling out, several parts", told.singling_out.multivariate)
    shown_risk("linkability", told.linkability.risk)
    for attack, risk in told.attribute_inference.overall.items():
        shown_risk(f"attribute inference, {attack}", risk)
    shown_risk("copies, exact", copied.exact)
    for way, risk in copied.near.items():
        shown_risk(f"near-duplicates by {way}", risk)
    shown_risk(f"runs of {copied.run_length} visits", copied.long_runs)
    report("attacks", figures=plain(msgspec.to_builtins(found)), seconds=seconds, patients=most)


if __name__ == "__main__":
    main()
