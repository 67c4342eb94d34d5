"""A transformer over flat event tokens, one token an event, as wide as the base preset of ehrsim.

A patient is a sentence: sex, age at the first visit and its day, then for every visit the gap before it, its type, and
its codes, the commonest first; then the end. Ages, days and gaps are tokens of bins of training values, and a value is
drawn among those of its bin. What cannot come next has no probability, so every sentence is a patient. Sentences are
drawn side by side, with the keys and values of what was drawn kept, and finished ones make room.

With two layers it is a fast one of its kind: it is the reference for how fast patients are drawn token by token.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import adapter
import bins
import numpy as np
import torch
from exchange import Patient, Visit
from learning import Clock, until_best
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, LAYERS, DROPOUT = 192, 4, 2, 0.1
LONGEST = 1024
"""Tokens of a sentence at most."""
TOKENS_A_BATCH, LEARNING_RATE, WARMUP = 2_048, 1e-3, 50
SIDE_BY_SIDE = 256
END = 0


class Language(NamedTuple):
    """What the tokens mean."""

    words: list[tuple[str, object]]
    """Kind and meaning of every token: a text, a number of a bin, or None where something is not known."""
    number: dict[tuple[str, object], int]
    bins: dict[str, bins.Bins]
    """Of the kinds `age`, `day` and `gap`."""
    only_type: str | None
    """The type of all visits, where they have but one: then it is never said."""
    follows: Tensor
    """(tokens, tokens) whether the second may follow the first; what follows END begins a sentence"""

    def binned(self, kind: str, value: int | None) -> int:
        """The token of a value."""
        return self.number[kind, self.bins[kind].of(value)]


def language(train: Sequence[Patient]) -> Language:
    """The tokens of the training patients."""
    visits = [visit for patient in train for visit in patient.visits]
    known = bins.bins_of(train)
    codes, counts = np.unique([code for visit in visits for code in visit.codes], return_counts=True)
    words: list[tuple[str, object]] = [("end", None)]
    words += [("sex", sex) for sex in sorted({patient.sex for patient in train}, key=str)]
    words += [("age", None), *((kind, place) for kind, own in known.items() for place in range(len(own.values)))]
    types = sorted({visit.type for visit in visits}, key=str)
    words += [("type", kind) for kind in types if len(types) > 1]
    words += [("code", code) for code in codes[np.argsort(-counts, kind="stable")].tolist()]
    return Language(words, {word: place for place, word in enumerate(words)}, known, types[0], followers(words))


def followers(words: list[tuple[str, object]]) -> Tensor:
    """(tokens, tokens) the grammar: codes of a visit come in the order of their numbers."""
    kinds = np.array([kind for kind, _ in words])
    begins = ["type"] if "type" in kinds else ["code"]
    after = {"end": ["sex"], "sex": ["age"], "age": ["day"], "day": begins, "gap": begins, "type": ["code"]}
    table = np.stack([np.isin(kinds, after.get(kind, ["gap", "end", "code"])) for kind in kinds])
    later = np.arange(len(words))[None] > np.arange(len(words))[:, None]
    return torch.from_numpy(table & (later | (kinds != "code")[None]))


def sentence(patient: Patient, spoken: Language) -> list[int]:
    """The tokens of a patient, between two ENDs, or as many as fit."""
    number, first = spoken.number, patient.visits[0].start
    age = None if patient.birth is None else first - patient.birth
    tokens = [END, number.get(("sex", patient.sex), 1), spoken.binned("age", age), spoken.binned("day", first)]
    before = None
    for visit in patient.visits:
        if before is not None:
            tokens.append(spoken.binned("gap", visit.start - before))
        if ("type", visit.type) in number:
            tokens.append(number["type", visit.type])
        tokens += sorted(number["code", code] for code in visit.codes)
        before = visit.start
    return [*tokens, END][:LONGEST]


def patient_of(tokens: Sequence[int], spoken: Language, rng: np.random.Generator) -> Patient:
    """The patient of a sentence, without the visit that was begun last where it was cut off before a code."""
    facts: dict[str, Any] = {}
    when, types, codes = [], [], []
    for token in tokens:
        kind, meaning = spoken.words[token]
        known = spoken.bins.get(kind)
        value = known.draw(meaning, rng) if known and meaning is not None else meaning
        if kind in ("day", "gap"):
            when.append(value + (when[-1] if when else 0))
            types.append(spoken.only_type)
            codes.append([])
        elif kind == "type":
            types[-1] = value
        elif kind == "code":
            codes[-1].append(value)
        else:
            facts[kind] = value
    visits = [Visit(*visit, tuple(sorted(own))) for *visit, own in zip(when, types, codes, strict=True) if own]
    return Patient(None if facts["age"] is None else when[0] - facts["age"], facts["sex"], tuple(visits))


class Block(nn.Module):
    """A layer of attention to what came before, and a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_own = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attended, self.gathered = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.own = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, kept: Kept | None = None, layer: int = 0) -> Tensor:
        """(N, T, WIDTH) to the same; with `kept` T is 1, and what came before is there."""
        rows, length, _ = x.shape
        split = self.attended(self.before_attention(x)).view(rows, length, 3, HEADS, WIDTH // HEADS)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        if kept:
            key, value = kept.with_one_more(layer, key, value)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=kept is None)
        x = x + self.dropout(self.gathered(mixed.transpose(1, 2).reshape(rows, length, WIDTH)))
        return x + self.dropout(self.own(self.before_own(x)))


class Kept:
    """Keys and values (2, rows, HEADS, room, WIDTH / HEADS) of each layer of sentences that are being drawn."""

    def __init__(self, rows: int) -> None:
        self.length = 0
        self.layers = [torch.zeros(2, rows, HEADS, 64, WIDTH // HEADS) for _ in range(LAYERS)]

    def with_one_more(self, layer: int, key: Tensor, value: Tensor) -> Tensor:
        """Add the key and value of a token; returns those of all."""
        if self.length == self.layers[layer].shape[3]:
            self.layers[layer] = functional.pad(self.layers[layer], (0, 0, 0, self.length))
        self.layers[layer][0, :, :, self.length], self.layers[layer][1, :, :, self.length] = (
            key[:, :, 0],
            value[:, :, 0],
        )
        return self.layers[layer][:, :, :, : self.length + 1]

    def only(self, rows: Tensor) -> None:
        """Forget all but some rows."""
        self.layers = [both[:, rows] for both in self.layers]


class Transformer(nn.Module):
    """Logits of the token that comes next."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(tokens, WIDTH), nn.Embedding(LONGEST, WIDTH)
        for table in (self.token, self.place):
            nn.init.normal_(table.weight, std=0.02)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, tokens: Tensor, kept: Kept | None = None) -> Tensor:
        """(N, T) tokens to (N, T, tokens) logits; with `kept` T is 1."""
        begin = kept.length if kept else 0
        x = self.token(tokens) + self.place.weight[begin : begin + tokens.shape[1]]
        for layer, block in enumerate(self.blocks):
            x = block(x, kept, layer)
        if kept:
            kept.length += 1
        return self.norm(x) @ self.token.weight.T


class Fitted(NamedTuple):
    """A trained transformer, and the language that it speaks."""

    model: Transformer
    language: Language


def batches(sentences: list[list[int]], rng: np.random.Generator | None = None) -> Iterator[Tensor]:
    """(N, T) sentences of like length, filled up with -1, in random order where `rng` is given."""
    order = sorted(range(len(sentences)), key=lambda place: len(sentences[place]))
    groups: list[list[int]] = [[]]
    for place in order:
        if groups[-1] and (len(groups[-1]) + 1) * len(sentences[place]) > TOKENS_A_BATCH:
            groups.append([])
        groups[-1].append(place)
    for number in rng.permutation(len(groups)) if rng else range(len(groups)):
        rows = [torch.tensor(sentences[place]) for place in groups[number]]
        yield nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


def loss(model: Transformer, batch: Tensor, follows: Tensor) -> Tensor:
    """The sum of the negative log-likelihoods of the tokens of a batch, in nats."""
    before = batch[:, :-1].clamp(min=0)
    logits = model(before).masked_fill(~follows[before], -1e9)
    return functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), ignore_index=-1, reduction="sum")


def fit(train: Sequence[Patient], tuning: Sequence[Patient], task: adapter.Task) -> Fitted:
    """Train until the tuning patients have become no likelier for some rounds, or the time is used up."""
    torch.manual_seed(task.seed)
    rng, spoken, clock = task.rng(), language(train), Clock(task.seconds)
    model = Transformer(len(spoken.words))
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    sentences, others = ([sentence(patient, spoken) for patient in part] for part in (train, tuning))
    steps = itertools.count(1)

    def a_round() -> None:
        for batch in batches(sentences, rng):
            if clock.used >= 1:
                break
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * min(1.0, next(steps) / WARMUP) * max(0.05, 1 - clock.used)
            optimiser.zero_grad()
            (loss(model, batch, spoken.follows) / (batch[:, 1:] >= 0).sum()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()

    def nats() -> float:
        return sum(loss(model, batch, spoken.follows).item() for batch in batches(others)) / len(others)

    until_best(model, clock, a_round, nats, "tokens")
    return Fitted(model, spoken)


@torch.no_grad()
def drawn(fitted: Fitted, number: int) -> list[list[int]]:
    """So many sentences, side by side; rows that are finished make room once they are half of all."""
    kept, rows, last = Kept(number), torch.arange(number), torch.full((number,), END)
    sentences: list[list[int]] = [[] for _ in range(number)]
    for _ in range(LONGEST - 1):
        logits = fitted.model(last[:, None], kept)[:, 0].masked_fill(~fitted.language.follows[last], -torch.inf)
        last = (logits - torch.empty_like(logits).exponential_().log_()).argmax(1)
        for row, token in zip(rows.tolist(), last.tolist(), strict=True):
            if row >= 0 and token != END:
                sentences[row].append(token)
        rows = torch.where(last == END, -1, rows)
        going = (rows >= 0).nonzero()[:, 0]
        if not len(going):
            break
        if 2 * len(going) <= len(rows):
            kept.only(going)
            rows, last = rows[going], last[going]
    return sentences


def generate(fitted: Fitted, number: int, rng: np.random.Generator) -> list[Patient]:
    """So many patients."""
    torch.manual_seed(int(rng.integers(1 << 31)))
    sentences: list[list[int]] = []
    while len(sentences) < number:
        sentences += drawn(fitted, min(SIDE_BY_SIDE, number - len(sentences)))
    return [patient_of(tokens, fitted.language, rng) for tokens in sentences]


if __name__ == "__main__":
    adapter.run(__doc__, fit, generate)
