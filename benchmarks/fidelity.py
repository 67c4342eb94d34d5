"""How like the real patients the simulated ones of a model are, beside how like each other two real samples are.

Reproduce: `python benchmarks/fidelity.py EVENTS` with a MEDS folder that has the splits train, tuning and held_out
(`ehrsim import SOURCE --out EVENTS --held-out 0.1`); without one, the built-in reference population. `--cohort FOLDER`
judges simulated patients that are there already. `--small` shows in minutes that the script works. It needs the extra
`evaluate`.

A model is trained on the training split and stopped by the tuning split. As many patients are simulated as are trained
on, or `--patients`. They are judged by `ehrsim.evaluate_cohort` (docs/evaluation.md says what the figures mean), and by
a network that reads visits in order (`sequence_test.py`). A table goes to standard error, all figures as one JSON line
to standard output.
"""

from __future__ import annotations

import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import polars as pl
import sequence_test
from measure import arguments, report, rounded, timed

import ehrsim
from ehrsim.errors import MissingExtraError
from ehrsim.evaluate import two_sample
from ehrsim.evaluate.cohorts import some
from ehrsim.evaluate.report import Metric, Report, table
from ehrsim.evaluate.resampling import DRAWS, subjects
from ehrsim.reference import population
from ehrsim.sampling import generate_to
from ehrsim.training import training_config

PEOPLE, SMALL_PEOPLE, SMALL_STEPS, SMALL_DRAWS = 3_000, 300, 40, 20
MOST_SEQUENCES = 3_000
"""Patients of each cohort that the network is trained on: more take long and change the AUC little."""
NETWORK_BAR = 0.75
_SHOWN = ("value", "interval", "floor", "ceiling", "ratio", "bar", "met")


def figures(metrics: list[Metric]) -> dict[str, dict[str, Any]]:
    """Metrics by name, as the JSON line has them."""
    return {metric.name: {name: getattr(metric, name) for name in _SHOWN} for metric in metrics}


def by_sequence(held_out: pl.LazyFrame, real: pl.LazyFrame, simulated: pl.LazyFrame, steps: int) -> dict[str, Any]:
    """How well networks that read visits in order tell patients apart, trained for `steps` at most."""
    truth, another, model = (some(events, MOST_SEQUENCES) for events in (held_out, real, simulated))
    codes = sequence_test.commonest(truth, model)
    found, floor = (sequence_test.told_apart(truth, other, codes, steps=steps) for other in (model, another))
    return {
        "value": rounded(found.value),
        "interval": [rounded(end) for end in found.interval],
        "floor": rounded(floor.value),
        "ceiling": None,
        "ratio": rounded(found.value / floor.value) if floor.value else None,
        "bar": f"<= {NETWORK_BAR}",
        "met": found.value <= NETWORK_BAR,
    }


def shown(judged: Report, network: dict[str, Any]) -> str:
    """The table of all metrics, that of the network, and what gives simulated patients away."""
    clues = [
        f"  {clue['name']}: {clue['lost']:.3f} AUC, mean {clue['real']} real, {clue['other']} simulated"
        for section in judged.sections
        for metric in section.metrics
        for clue in metric.details.get("clues", [])
    ]
    low, high = network["interval"]
    told = f"network of sequences: AUC {network['value']} ({low} to {high}), real patients {network['floor']}"
    return "\n".join([table(judged), told, "what gives simulated patients away:", *(clues or ["  nothing"])])


def parsed() -> Namespace:
    """The arguments; ends the script where they contradict one another or scikit-learn is missing."""
    parser: ArgumentParser = arguments(__doc__)
    parser.add_argument("events", nargs="?", type=Path, help="a MEDS folder with splits")
    parser.add_argument("--model", choices=["vae", "markov"], default="vae")
    parser.add_argument("--preset", choices=["small", "base", "large"], default="base")
    parser.add_argument("--max-steps", type=int, help="stop training after so many steps")
    parser.add_argument("--patients", type=int, default=10_000, help="at most so many simulated and training patients")
    parser.add_argument("--run", type=Path, help="a run folder: of a model already trained, or to be written")
    parser.add_argument("--cohort", type=Path, help="a MEDS folder of simulated patients, instead of a model")
    parser.add_argument("--draws", type=int, default=DRAWS, help="how often patients are drawn again for intervals")
    options = parser.parse_args()
    if options.cohort and (options.run or not options.events):
        parser.error("--cohort needs EVENTS, and no --run")
    try:
        two_sample.classifier(seed=0)
    except MissingExtraError as error:
        parser.error(str(error))
    return options


def simulate(options: Namespace, events: Path, folder: Path) -> tuple[pl.LazyFrame, dict[str, float] | None]:
    """As many patients of a model as it was trained on, or `--patients`; and what training took."""
    steps = SMALL_STEPS if options.small else options.max_steps
    config = training_config(options.preset, **({"max_steps": steps} if steps else {}))
    run, seconds = options.run or folder / "run", None
    if not run.exists():
        _, seconds = timed(lambda: ehrsim.fit(events, run, model=options.model, preset=options.preset, training=config))
    size = min(len(subjects(ehrsim.read_events(events, "train"))), options.patients)
    generate_to(run, folder / "cohort", size, seed=7)
    took = seconds and {name: rounded(value) for name, value in seconds._asdict().items()}
    return ehrsim.read_events(folder / "cohort"), took


def main() -> None:
    options = parsed()
    with tempfile.TemporaryDirectory() as name:
        folder, seconds = Path(name), None
        events = options.events or folder / "events"
        if not options.events:
            ehrsim.write_events(population(SMALL_PEOPLE if options.small else PEOPLE, seed=1), folder / "all")
            ehrsim.import_events(folder / "all", events, held_out=0.1)
        if options.cohort:
            simulated = ehrsim.read_events(options.cohort)
        else:
            simulated, seconds = simulate(options, events, folder)
        draws, steps = (SMALL_DRAWS, SMALL_STEPS) if options.small else (options.draws, sequence_test.MOST_STEPS)
        held_out, real = (ehrsim.read_events(events, split) for split in ("held_out", "train"))
        bars = Path(__file__).with_name("fidelity_bars.toml")
        judged = ehrsim.evaluate_cohort(
            held_out, simulated, train=real, gates_file=bars, patients=options.patients, draws=draws
        )
        network = by_sequence(held_out, real, simulated, steps)
    print(shown(judged, network), file=sys.stderr)
    found = figures([metric for section in judged.sections for metric in section.metrics])
    report(
        "fidelity",
        data=options.events.name if options.events else "reference",
        model=options.cohort.name if options.cohort else options.model,
        preset=None if options.cohort else options.preset,
        patients=[cohort.patients for cohort in judged.cohorts[:3]],
        draws=draws,
        fit_seconds=seconds,
        metrics=found | {"told_apart/network": network},
    )


if __name__ == "__main__":
    main()
