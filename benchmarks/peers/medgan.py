"""medGAN (Choi et al. 2017, Machine Learning for Healthcare 68:286), written anew: bags of codes of whole patients.

An autoencoder learns bags; a generator with shortcut connections draws what its decoder makes a bag of; a discriminator
sees each bag with the mean of its batch, so that a generator which always draws the same is found out.

medGAN has no visits: each is given the days of a patient of `marginals.py`. Every code of a bag is dealt to as large a
share of the visits as some training patient has it in, and to one at least; a visit that is dealt none gets one of the
bag.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import adapter
import marginals
import numpy as np
import torch
from exchange import Patient
from learning import Clock
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 128
BATCH, LEARNING_RATE, WEIGHT_DECAY = 256, 1e-3, 1e-3
OF_AUTOENCODER = 0.25
"""The share of the time in which the autoencoder learns alone."""
DISCRIMINATIONS = 2
"""Steps of the discriminator for each of the generator."""


class Generator(nn.Module):
    """Noise (N, WIDTH) to what the decoder makes bags of."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm1d(WIDTH) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Each layer adds to what it was given."""
        for layer, norm, bend in zip(self.layers, self.norms, (torch.relu, torch.tanh), strict=True):
            x = bend(norm(layer(x))) + x
        return x


class Networks(NamedTuple):
    """The four parts of medGAN."""

    encoder: nn.Module
    decoder: nn.Module
    generator: Generator
    discriminator: nn.Module

    def bags(self, number: int) -> Tensor:
        """(number, codes) probabilities."""
        return torch.sigmoid(self.decoder(self.generator(torch.randn(number, WIDTH))))

    def judged(self, bags: Tensor) -> Tensor:
        """(N, 1) logits of being real."""
        mean = bags.mean(0, keepdim=True).expand_as(bags)
        return self.discriminator(torch.cat([bags, mean], dim=1))


class Fitted(NamedTuple):
    """The networks, and what deals their bags to visits."""

    networks: Networks
    known: marginals.Marginals
    shares: list[np.ndarray]
    """For each code, the shares of the visits of training patients that have it, where they have it at all."""


def networks(codes: int) -> Networks:
    """Networks that have learned nothing, with the widths of the paper."""
    judge = [
        nn.Linear(2 * codes, 256),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(256, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, 1),
    ]
    encoder = nn.Sequential(nn.Linear(codes, WIDTH), nn.Tanh())
    return Networks(encoder, nn.Linear(WIDTH, codes), Generator(), nn.Sequential(*judge))


def bags_of(train: Sequence[Patient], codes: list[str]) -> tuple[Tensor, list[np.ndarray]]:
    """(patients, codes) which codes each patient has, and in which shares of their visits the codes are."""
    place = {code: number for number, code in enumerate(codes)}
    shares = np.zeros((len(train), len(codes)), np.float32)
    for row, patient in zip(shares, train, strict=True):
        for visit in patient.visits:
            row[[place[code] for code in visit.codes]] += 1 / len(patient.visits)
    return torch.from_numpy((shares > 0).astype(np.float32)), [column[column > 0] for column in shares.T]


def endless(bags: Tensor, clock: Clock, until: float) -> Iterator[Tensor]:
    """Batches in random order, until such a share of the time is used."""
    size = min(BATCH, len(bags))
    while True:
        for rows in torch.randperm(len(bags)).split(size):
            if clock.used > until:
                return
            if len(rows) == size:
                yield bags[rows]


def fit(train: Sequence[Patient], tuning: Sequence[Patient], task: adapter.Task) -> Fitted:
    """Train the autoencoder, then the rest with it, for as long as there is time."""
    torch.manual_seed(task.seed)
    known, clock = marginals.learned(train), Clock(task.seconds)
    bags, shares = bags_of(train, known.codes)
    nets = networks(len(known.codes))
    learn_to_encode(nets, endless(bags, clock, OF_AUTOENCODER))
    learn_to_generate(nets, endless(bags, clock, 1.0))
    nets.generator.eval()
    return Fitted(nets, known, shares)


def optimiser(*parts: nn.Module) -> torch.optim.Optimizer:
    """Adam for the weights of some networks."""
    weights = [weight for part in parts for weight in part.parameters()]
    return torch.optim.Adam(weights, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)


def learn_to_encode(nets: Networks, batches: Iterator[Tensor]) -> None:
    """Train encoder and decoder to give back what they are given."""
    step = optimiser(nets.encoder, nets.decoder)
    for batch in batches:
        step.zero_grad()
        functional.binary_cross_entropy_with_logits(nets.decoder(nets.encoder(batch)), batch).backward()
        step.step()


def learn_to_generate(nets: Networks, batches: Iterator[Tensor]) -> None:
    """Train the discriminator, and the generator with the decoder against it, by turns."""
    judging, generating = optimiser(nets.discriminator), optimiser(nets.generator, nets.decoder)
    for number, batch in enumerate(batches, start=1):
        real, made = nets.judged(batch), nets.judged(nets.bags(len(batch)).detach())
        judging.zero_grad()
        (_wrong(real, 1.0) + _wrong(made, 0.0)).backward()
        judging.step()
        if number % DISCRIMINATIONS == 0:
            generating.zero_grad()
            _wrong(nets.judged(nets.bags(len(batch))), 1.0).backward()
            generating.step()


def _wrong(logits: Tensor, truth: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, truth))


def dealt(bag: np.ndarray, visits: int, fitted: Fitted, rng: np.random.Generator) -> list[list[str]]:
    """The codes of each of some visits, from the numbers of the codes of a bag."""
    codes: list[list[str]] = [[] for _ in range(visits)]
    for number in bag:
        has = rng.random(visits) < rng.choice(fitted.shares[number])
        if not has.any():
            has[rng.integers(visits)] = True
        for visit in np.flatnonzero(has):
            codes[visit].append(fitted.known.codes[number])
    return [own or [fitted.known.codes[rng.choice(bag)]] for own in codes]


@torch.no_grad()
def generate(fitted: Fitted, number: int, rng: np.random.Generator) -> list[Patient]:
    """So many patients: bags are rounded as in the paper; one without a code gets its likeliest."""
    torch.manual_seed(int(rng.integers(1 << 31)))
    patients = []
    for probabilities in fitted.networks.bags(number).numpy():
        bag = np.flatnonzero(probabilities >= 0.5)
        bag = bag if len(bag) else np.array([probabilities.argmax()])
        when = marginals.days(fitted.known, rng)
        patients.append(marginals.patient(fitted.known, when, dealt(bag, len(when), fitted, rng), rng))
    return patients


if __name__ == "__main__":
    adapter.run(__doc__, fit, generate)
