"""HALO (Theodorou et al. 2023, Nature Communications 14:5305) as it stands in PyHealth, on exchange files.

HALO knows visits as sets of codes, so everything else is told as codes: a visit before the first has sex, age and day,
and every visit has its type and the bin of the gap before it. Records are cut to their first visits. The widths are
ours, since those of the paper (768, twelve layers) are for a GPU; training stops by the tuning patients.

PyHealth trains with an empty visit after the start, whose content the loss leaves out, but draws that visit as well.
Here drawing begins after it, as training does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import adapter
import bins
import numpy as np
import torch
from exchange import Patient, Visit
from learning import Clock, until_best
from pyhealth.datasets import create_sample_dataset
from pyhealth.models.generators.halo import HALO
from torch import Tensor, nn

WIDTH, HEADS, LAYERS = 192, 4, 2
MOST_VISITS = 60
BATCH, LEARNING_RATE = 48, 1e-3
SIDE_BY_SIDE = 256
ROUNDS = 10
"""How often patients are drawn again in place of those without a visit."""


class Fitted(NamedTuple):
    """A trained HALO, and the bins of its codes for numbers."""

    model: Any
    bins: dict[str, bins.Bins]


def told(patient: Patient, known: dict[str, bins.Bins]) -> list[list[str]]:
    """The visits of a patient as HALO gets them, one for sex, age and day before them all."""
    first = patient.visits[0].start
    age = None if patient.birth is None else first - patient.birth
    rows, before = [[f"sex {patient.sex}", f"age {known['age'].of(age)}", f"day {known['day'].of(first)}"]], None
    for visit in patient.visits[:MOST_VISITS]:
        gap = [] if before is None else [f"gap {known['gap'].of(visit.start - before)}"]
        rows.append([*gap, f"type {visit.type}", *(f"code {code}" for code in visit.codes)])
        before = visit.start
    return rows


def patient_of(rows: list[list[str]], known: dict[str, bins.Bins], rng: np.random.Generator) -> Patient | None:
    """The patient that HALO tells of, None without a visit; what is missing of one is drawn, or not known."""
    sex, age, when, visits = None, None, None, []
    for row in rows:
        said: dict[str, list[str]] = {}
        for word in row:
            kind, _, meaning = word.partition(" ")
            said.setdefault(kind, []).append(meaning)
        if when is None:
            sex, age = _known(said.get("sex")), _drawn(said.get("age"), known["age"], rng)
            when = _drawn(said.get("day", [str(rng.integers(len(known["day"].values)))]), known["day"], rng)
            continue
        if visits:
            gap = said.get("gap", [str(rng.integers(len(known["gap"].values)))])
            when += _drawn(gap, known["gap"], rng) or 0
        if "code" in said:
            visits.append(Visit(when, _known(said.get("type")), tuple(sorted(set(said["code"])))))
    birth = None if age is None or not visits else visits[0].start - age
    return Patient(birth, sex, tuple(visits)) if visits else None


def _known(said: list[str] | None) -> str | None:
    return None if not said or said[0] == "None" else said[0]


def _drawn(said: list[str] | None, known: bins.Bins, rng: np.random.Generator) -> int | None:
    place = _known(said)
    return None if place is None or not known.values else known.draw(int(place), rng)


def batch_of(visits: list[Tensor]) -> Tensor:
    """(patients, visits, codes) filled up with visits of no code."""
    return nn.utils.rnn.pad_sequence(visits, batch_first=True)


def fit(train: Sequence[Patient], tuning: Sequence[Patient], task: adapter.Task) -> Fitted:
    """Train until the tuning patients have become no likelier for some rounds, or the time is used up."""
    torch.manual_seed(task.seed)
    known, clock, rng = bins.bins_of(train), Clock(task.seconds), task.rng()
    samples = [{"patient_id": str(number), "visits": told(patient, known)} for number, patient in enumerate(train)]
    data = create_sample_dataset(samples, input_schema={"visits": "nested_multihot"}, output_schema={})
    longest = max(len(sample["visits"]) for sample in samples)
    model = HALO(data, embed_dim=WIDTH, n_heads=HEADS, n_layers=LAYERS, n_ctx=longest + 3)
    process = model.visits_processor.process
    real = [process(sample["visits"]).float() for sample in samples]
    others = [process(told(patient, known)).float() for patient in tuning]
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)

    def a_round() -> None:
        for rows in np.array_split(rng.permutation(len(real)), -(-len(real) // BATCH)):
            if clock.used >= 1:
                break
            optimiser.param_groups[0]["lr"] = LEARNING_RATE * max(0.05, 1 - clock.used)
            optimiser.zero_grad()
            model(visits=batch_of([real[row] for row in rows]))["loss"].backward()
            optimiser.step()

    def loss() -> float:
        parts = [others[begin : begin + BATCH] for begin in range(0, len(others), BATCH)]
        losses = [model(visits=batch_of(part))["loss"].item() for part in parts]
        return float(np.average(losses, weights=[len(part) for part in parts]))

    until_best(model, clock, a_round, loss, "halo")
    return Fitted(model, known)


@torch.no_grad()
def drawn(model: Any, number: int) -> list[list[list[str]]]:
    """The visits of so many patients, side by side, as lists of codes."""
    size, core = model.config, model.halo_model
    codes = {place: code for code, place in model.visits_processor.code_vocab.items()}
    start, end = size.code_vocab_size, size.code_vocab_size + 1
    rows = torch.zeros(number, 2, size.total_vocab_size)
    rows[:, 0, start] = 1
    for _ in range(size.n_ctx - 2):
        rows = core.sample(torch.cat([rows, torch.zeros(number, 1, size.total_vocab_size)], dim=1))
        if rows[:, :, end].any(dim=1).all():
            break
    patients = []
    for own in rows[:, 2:].numpy():
        last = np.flatnonzero(own[:, end])
        kept = own[: last[0] + 1] if len(last) else own
        patients.append([[codes[place] for place in np.flatnonzero(row[:start]) if place > 1] for row in kept])
    return patients


def generate(fitted: Fitted, number: int, rng: np.random.Generator) -> list[Patient]:
    """So many patients."""
    torch.manual_seed(int(rng.integers(1 << 31)))
    patients: list[Patient] = []
    for _ in range(ROUNDS * -(-number // SIDE_BY_SIDE)):
        if len(patients) == number:
            break
        found = drawn(fitted.model, min(SIDE_BY_SIDE, number - len(patients)))
        made = (patient_of(rows, fitted.bins, rng) for rows in found)
        patients += [patient for patient in made if patient]
    return patients


if __name__ == "__main__":
    adapter.run(__doc__, fit, generate)
