"""How like the real patients those of different generators are, and what they cost: one table for all.

Reproduce: `python benchmarks/peers/compare.py EVENTS` with a MEDS folder that has the splits train, tuning and held_out
(`ehrsim import SOURCE --out EVENTS --held-out 0.1`); without one, the built-in reference population. `--peers a,b`
names some, `--run RUN` and `--cohort FOLDER` add a model that is trained already and patients that are simulated
already, `--small` shows in minutes that the script works. It needs the extra `evaluate`, and for some peers a package
index.

All peers get the same training and tuning patients with the same codes, as exchange files (`exchange.py`), and give as
many simulated ones back. These become events, are compared with the held-out patients by `fidelity.py`, and stand
beside the training patients (the floor). All events, the real ones too, are brought to what an exchange file says, so
that no peer is told by what it was never given. A table goes to standard error, all figures as one JSON line to
standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import conversion  # noqa: E402
import exchange  # noqa: E402
import polars as pl  # noqa: E402
from environments import NoEnvironmentError, python_for  # noqa: E402
from measure import arguments, report, rounded  # noqa: E402

import ehrsim  # noqa: E402
from ehrsim.errors import EhrsimError, MissingExtraError  # noqa: E402
from ehrsim.evaluate import two_sample  # noqa: E402
from ehrsim.evaluate.cohorts import some  # noqa: E402
from ehrsim.evaluate.resampling import DRAWS  # noqa: E402
from ehrsim.reference import population  # noqa: E402
from ehrsim.vocabulary import DEFAULT_MIN_PATIENTS  # noqa: E402

PEOPLE = 300

Figures = dict[str, Any]


class Peer(NamedTuple):
    """The script of a peer, and what is said to it."""

    script: str
    options: tuple[str, ...] = ()


PEERS = {
    "marginals": Peer("marginals"),
    "medgan": Peer("medgan"),
    "tokens": Peer("tokens"),
    "halo": Peer("halo"),
    "markov": Peer("own", ("--model", "markov")),
    "gan": Peer("own", ("--model", "gan")),
    "vae": Peer("own", ("--model", "vae")),
}


class FailedError(RuntimeError):
    """A peer did not simulate patients; the text is one line and says why."""


def parsed() -> Namespace:
    """The arguments; ends the script where a peer is unknown."""
    parser = arguments(__doc__)
    parser.add_argument("events", nargs="?", type=Path, help="a MEDS folder with splits")
    parser.add_argument("--peers", default=",".join(PEERS), help="names with commas between them; default: %(default)s")
    parser.add_argument("--run", type=Path, help="a run folder of ehrsim, as a further peer")
    parser.add_argument("--cohort", type=Path, help="a MEDS folder of simulated patients, as a further peer")
    parser.add_argument("--patients", type=int, default=10_000, help="at most so many training and simulated patients")
    parser.add_argument("--seconds", type=float, default=600.0, help="CPU seconds of learning, but of ehrsim, at most")
    parser.add_argument("--preset", choices=["small", "base", "large"], default="base", help="of ehrsim")
    parser.add_argument("--max-steps", type=int, help="of ehrsim")
    parser.add_argument("--draws", type=int, default=DRAWS, help="how often patients are drawn again for intervals")
    cache = Path(tempfile.gettempdir()) / "ehrsim-peers"
    parser.add_argument("--environments", type=Path, default=cache, help="where the packages of peers are kept")
    parser.add_argument("--out", type=Path, help="a folder that keeps the simulated patients of every peer")
    options = parser.parse_args()
    options.peers = [name for name in options.peers.split(",") if name]
    if unknown := [name for name in options.peers if name not in PEERS]:
        parser.error(f"unknown peer `{unknown[0]}`: known are {', '.join(PEERS)}")
    for folder in (options.run, options.cohort):
        if folder and folder.name in options.peers:
            parser.error(f"{folder} has the name of a peer")
    try:
        two_sample.classifier(seed=0)
    except MissingExtraError as error:
        parser.error(str(error))
    return options


def export(events: Path, folder: Path, patients: int) -> pl.Series:
    """Write the exchange file of each split, and the MEDS folder `real` of them; returns the vocabulary."""
    splits = {split: ehrsim.read_events(events, split) for split in ("train", "tuning", "held_out")}
    splits["train"] = some(splits["train"], patients)
    vocabulary = conversion.known(splits["train"], DEFAULT_MIN_PATIENTS)
    tables = {split: conversion.exchanged(found, vocabulary) for split, found in splits.items()}
    for split, table in tables.items():
        table.write_parquet(folder / f"{split}.parquet")
    conversion.write_folder(tables, folder / "real")
    return vocabulary


def written(folder: Path, name: str) -> Path:
    """Where the patients of a peer are."""
    return folder / "simulated" / f"{name}.parquet"


def simulate(name: str, peer: Peer, folder: Path, patients: int, options: Namespace) -> Figures:
    """Let a peer write `simulated/NAME.parquet`; returns what it says of its cost."""
    python = python_for(peer.script, options.environments)
    files = {"train": folder / "train.parquet", "tuning": folder / "tuning.parquet", "out": written(folder, name)}
    said = {**files, "patients": patients, "seed": 7, "seconds": options.seconds}
    if peer.script == "own":
        said |= {"preset": options.preset} | ({"max-steps": options.max_steps} if options.max_steps else {})
    command = [str(python), str(HERE / f"{peer.script}.py"), *peer.options, *(["--small"] if options.small else [])]
    for key, value in said.items():
        command += [f"--{key}", str(value)]
    paths = os.pathsep.join([str(HERE.parent), str(HERE)])
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=False, env={**os.environ, "PYTHONPATH": paths}
    )
    if done.returncode:
        raise FailedError(f"{name} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def judged(name: str, folder: Path, options: Namespace) -> Figures:
    """What `fidelity.py` says of `simulated/NAME.parquet`."""
    cohort = folder / "simulated" / name
    conversion.write_folder({"train": exchange.table_of(written(folder, name))}, cohort)
    command = [sys.executable, str(HERE.parent / "fidelity.py"), str(folder / "real"), "--cohort", str(cohort)]
    command += ["--patients", str(options.patients), "--draws", str(options.draws)]
    command += ["--small"] if options.small else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FailedError(f"{name} could not be judged: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def compared(folder: Path, vocabulary: pl.Series, options: Namespace) -> dict[str, Figures]:
    """The figures of every peer, or one line of why it has none."""
    patients = exchange.table_of(folder / "train.parquet").height
    chosen = {name: PEERS[name] for name in options.peers}
    if options.run:
        chosen[options.run.name] = Peer("own", ("--run", str(options.run)))
    found: dict[str, Figures] = {}
    for name, peer in chosen.items():
        try:
            cost = simulate(name, peer, folder, patients, options)
            found[name] = told(judged(name, folder, options)) | costs(cost, patients)
        except (NoEnvironmentError, FailedError) as error:
            found[name] = {"failed": str(error)}
    if options.cohort:
        name = options.cohort.name
        conversion.exchanged(ehrsim.read_events(options.cohort), vocabulary).write_parquet(written(folder, name))
        found[name] = told(judged(name, folder, options))
    return found


def told(fidelity: Figures) -> Figures:
    """The figures of the table, each with its floor."""
    kinds = ("total_variation", "r_squared", "number/", "told_apart/", "lift_")
    figures = {name: one for name, one in fidelity["metrics"].items() if any(kind in name for kind in kinds)}
    return {name: {key: one[key] for key in ("value", "interval", "floor", "met")} for name, one in figures.items()}


def costs(cost: Figures, patients: int) -> Figures:
    """CPU seconds of learning and of simulating, and patients simulated a CPU second."""
    seconds = {f"{part} CPU seconds": {"value": cost[part]["cpu"]} for part in ("fit", "generate")}
    rate = patients / max(cost["generate"]["cpu"], 1e-3)
    return {**seconds, "patients a CPU second": {"value": rounded(rate)}}


def table(found: dict[str, Figures]) -> str:
    """Figures in rows, the floor and the peers in columns; below, the peers that failed."""
    whole = {name: figures for name, figures in found.items() if "failed" not in figures}
    rows = list(dict.fromkeys(row for figures in whole.values() for row in figures))
    shown = [["", "floor", *whole]]
    for row in rows:
        cells = [figures.get(row, {}) for figures in whole.values()]
        floor = next((cell["floor"] for cell in cells if "floor" in cell), None)
        shown.append([row, *map(_number, [floor, *(cell.get("value") for cell in cells)])])
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in shown]
    return "\n".join(
        [*lines, *(f"{name}: {figures['failed']}" for name, figures in found.items() if "failed" in figures)]
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:,.0f}"


def main() -> None:
    options = parsed()
    with tempfile.TemporaryDirectory() as name:
        folder = options.out or Path(name)
        (folder / "simulated").mkdir(parents=True, exist_ok=True)
        events = options.events or folder / "events"
        try:
            if not options.events:
                ehrsim.write_events(population(PEOPLE, seed=1), folder / "all")
                ehrsim.import_events(folder / "all", events, held_out=0.1)
            vocabulary = export(events, folder, options.patients)
        except EhrsimError as error:
            sys.exit(str(error))
        found = compared(folder, vocabulary, options)
    print(table(found), file=sys.stderr)
    data = options.events.name if options.events else "reference"
    report("peers", data=data, preset=options.preset, codes=len(vocabulary), peers=found)


if __name__ == "__main__":
    main()
