"""Attacks by whoever has the run folder: how well its likelihood tells training patients, and what it memorised.

The threat model: the attacker has the run folder (weights, vocabulary, scales), the whole record of a target, and
records of other real patients of the same source, his reference. A run finds the patients it was trained on likelier
than others; but some records are likelier than others under any model, which hides it. So a likelihood is *calibrated*:

    beyond difficulty   what is left of it, in standard deviations, after that which other real patients with like
                        features have (in the way of Bertran et al. 2023, "Scalable Membership Inference Attacks via
                        Quantile Regression", NeurIPS)
    over another run    its ratio to the likelihood under a run that was trained on the reference (Carlini et al. 2022,
                        "Membership Inference Attacks From First Principles", with one reference model; a strong attack)

A run folder says more than synthetic data does: never release one as if it were data. The figures of
`ehrsim.evaluate.densities` are for data alone, and so are those of `sequence_scores`: an attack that has no run folder
but trains models of its own, one on the synthetic data and one on the reference. It takes minutes.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import polars as pl

from ehrsim import events as event_table
from ehrsim import likelihood, training
from ehrsim.errors import InputError, MissingExtraError
from ehrsim.evaluate import canaries, histories, membership
from ehrsim.evaluate.canaries import Exposure
from ehrsim.evaluate.densities import Transitions
from ehrsim.evaluate.histories import MOST_PATIENTS
from ehrsim.evaluate.membership import Membership
from ehrsim.evaluate.patterns import vocabulary
from ehrsim.evaluate.resampling import Floats, subjects
from ehrsim.likelihood import Likelihoods
from ehrsim.optimisation import TrainingConfig
from ehrsim.progress import Progress, silent
from ehrsim.runs import Run

CANARIES, CANDIDATES = 16, 128


def membership_by_run(
    run: Run,
    members: pl.LazyFrame,
    non_members: pl.LazyFrame,
    reference: pl.LazyFrame,
    *,
    reference_run: Run | None = None,
    draws: int = 1,
    most: int = MOST_PATIENTS,
    seed: int = 0,
) -> Membership:
    """Membership inference with the run folder at hand; see this module for the attacks.

    `members` are training patients of the run; `non_members` and `reference` real patients of the same source that it
    has not seen; `reference_run` one that was trained on other patients than the targets. At most `most` patients of
    each are looked at, those left out of whom neither a visit nor a life span is known. `draws` are of the latents of a
    model that has some. Raises `InputError` for too few targets, `MissingExtraError` without scikit-learn.
    """
    tables = [
        histories.some(events, most, seed=seed, columns=event_table.COLUMNS)
        for events in (members, non_members, reference)
    ]
    found = [likelihood.of_patients(run, events, draws=draws) for events in tables]
    tables = [_only(events, one) for events, one in zip(tables, found, strict=True)]
    per_step = [one.nats / one.steps for one in found]
    expected, spread = _difficulty(tables, found, seed)
    targets = np.concatenate(per_step[:2])
    attacks = {
        "likelihood": targets,
        "likelihood of the record": np.concatenate([one.nats for one in found[:2]]),
        "likelihood beyond difficulty": (targets - expected) / spread,
    }
    if reference_run is not None:
        other = [likelihood.of_patients(reference_run, events, draws=draws) for events in tables[:2]]
        attacks["likelihood over another run"] = np.concatenate(
            [_matched(one, two) for one, two in zip(found, other, strict=False)]
        )
    person = pl.concat([histories.person(events) for events in tables[:2]])
    steps = np.concatenate([one.steps for one in found[:2]]).astype(np.float64)
    member = np.repeat([True, False], [len(one.nats) for one in found[:2]])
    blind = {"difficulty": expected, "more difficulty": -expected, "steps": steps, "fewer steps": -steps}
    return membership.infer(attacks, member, blind=blind, groups=histories.groups(person), seed=seed)


def sequence_scores(
    targets: list[pl.LazyFrame],
    synthetic: pl.LazyFrame,
    reference: pl.LazyFrame,
    *,
    model: str = "vae",
    preset: str = "small",
    config: TrainingConfig | None = None,
    progress: Progress = silent,
) -> Floats:
    """(patients of all targets,) how much likelier each is under a model of the synthetic data than under one of the
    reference, in nats a step: the density ratio of DOMIAS with sequence models.

    The threat model is that of `ehrsim.evaluate.densities`, to whose attacks it may be added: the attacker trains both
    models himself, of the same kind and for as long, and has no run folder. Whoever has neither a visit nor a life span
    gets 0, as if both were as likely. Raises `InputError` as training does.
    """
    ratios = []
    runs = [
        training.fit(events.select(event_table.COLUMNS), model=model, preset=preset, training=config, progress=progress)
        for events in (synthetic, reference)
    ]
    for events in targets:
        of_synthetic, of_reference = (likelihood.of_patients(run, events) for run in runs)
        ratio = _matched(of_synthetic, of_reference)
        everyone = subjects(events).to_numpy()
        found = np.zeros(len(everyone))
        found[np.searchsorted(everyone, of_synthetic.subject)] = ratio
        ratios.append(found)
    return np.concatenate(ratios)


def _only(events: pl.LazyFrame, found: Likelihoods) -> pl.LazyFrame:
    """The events of the patients who have a likelihood."""
    kept = pl.LazyFrame({"subject_id": found.subject})
    return events.join(kept, on="subject_id", how="semi", maintain_order="left").collect().lazy()


def _matched(one: Likelihoods, other: Likelihoods) -> Floats:
    """(patients of the first,) the log of the ratio of likelihoods a step; 0 for whom the second run does not know."""
    place = np.clip(np.searchsorted(other.subject, one.subject), 0, len(other.subject) - 1)
    known = other.subject[place] == one.subject
    return np.where(known, one.nats / one.steps - (other.nats / other.steps)[place], 0.0)


def _difficulty(tables: list[pl.LazyFrame], found: list[Likelihoods], seed: int) -> tuple[Floats, Floats]:
    """(targets,) the likelihood a step that features let expect, and the deviation about it, learned of the reference.

    Among the features is the likelihood under a simple model of codes. It is fitted to either half of the reference, so
    that no patient's own record is in the one it is told of; targets are told the mean.
    """
    known, reference = vocabulary(*tables), tables[-1]
    told = [histories.histories(events, known) for events in tables]
    odd = np.arange(told[-1].patients) % 2 == 1
    halves = [histories.histories(_rows(reference, half), known) for half in (~odd, odd)]
    fitted = [Transitions.fit(half) for half in halves]
    simple = [np.mean([one.score(history) for one in fitted], axis=0) for history in told[:-1]]
    own = np.empty(len(odd))
    own[odd], own[~odd] = fitted[0].score(halves[1]), fitted[1].score(halves[0])
    columns = histories.commonest(*told)
    matrices = [
        np.column_stack([histories.numbers(history, columns), score, np.log(one.steps)])
        for history, score, one in zip(told, [*simple, own], found, strict=True)
    ]
    truth = found[-1].nats / found[-1].steps
    informed = np.isfinite(matrices[-1]).any(axis=0)
    learned, asked = matrices[-1][:, informed], np.vstack(matrices[:-1])[:, informed]
    # Deviations are learned of predictions for patients whom the prediction has not seen.
    halfway = np.where(odd, *(_trees(seed).fit(learned[half], truth[half]).predict(learned) for half in (~odd, odd)))
    deviation = _trees(seed).fit(learned, np.abs(truth - halfway))
    least = max(float(np.quantile(np.abs(truth - halfway), 0.1)), 1e-6)
    expected = _trees(seed).fit(learned, truth).predict(asked)
    return expected, np.maximum(deviation.predict(asked), least)


def _rows(events: pl.LazyFrame, chosen: Any) -> pl.LazyFrame:
    """The events of some patients, by their place in `subjects`."""
    kept = subjects(events).filter(pl.Series(chosen)).to_frame().lazy()
    return events.join(kept, on="subject_id", how="semi", maintain_order="left").collect().lazy()


def _trees(seed: int) -> Any:
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
    except ImportError as error:
        raise MissingExtraError("membership inference with a run", "evaluate") from error
    return HistGradientBoostingRegressor(
        max_iter=100, max_leaf_nodes=15, min_samples_leaf=10, early_stopping=False, random_state=seed
    )


def canary_exposure(
    events: pl.LazyFrame,
    *,
    model: str = "vae",
    preset: str = "small",
    model_config: msgspec.Struct | None = None,
    config: TrainingConfig | None = None,
    planted: int = CANARIES,
    number: int = CANDIDATES,
    repeats: int = 1,
    seed: int = 0,
    progress: Progress = silent,
) -> Exposure:
    """Train a model on `events` with canaries planted among them, and rank each among its candidates.

    `planted` canaries are planted `repeats` times each, with `number` candidates. The training patients are those of
    `ehrsim.events.split_of`; pass the training split alone, and the settings of the run that is judged: what a model
    memorises goes by them and by how many patients there are. Raises `InputError` as training and
    `canaries.candidates` do, and where the run knows nothing of what happens to a candidate.
    """
    frame = events.select(event_table.COLUMNS).collect().lazy()
    made = canaries.candidates(frame, canaries=planted, number=number, seed=seed)
    with_canaries = pl.concat([frame.collect(), canaries.planted(made, repeats)])
    run = training.fit(
        with_canaries, model=model, preset=preset, model_config=model_config, training=config, progress=progress
    )
    found = likelihood.of_patients(run, made.events)
    known = pl.DataFrame({"subject_id": found.subject, "nats": found.nats})
    ranked = made.canary.join(known, on="subject_id", how="left").sort("canary", "candidate")["nats"]
    if ranked.null_count():
        raise InputError(
            f"the model has no codes of {ranked.null_count():,} of {len(ranked):,} canaries",
            hint="lower min_patients, or pass more patients",
        )
    return canaries.exposure(ranked.to_numpy().reshape(planted, number), repeats=repeats)
