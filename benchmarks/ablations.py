"""What each part of the sequence models earns: every one is left out in turn, and all are trained on the same events.

Reproduce: `python benchmarks/ablations.py EVENTS` with a MEDS folder that has the splits train, tuning and held_out
(`ehrsim import SOURCE --out EVENTS --held-out 0.1`); without one, the built-in reference population. `--variants a,b`
names some of `ablated.py`, `--markdown` prints the table as Markdown, `--small` shows in minutes that the script works.
It needs the extra `evaluate`.

All variants are trained on the same patients from the same seed for as many steps at most, and stopped by the tuning
split. As many patients are simulated as are trained on, and compared with the held-out ones by the measures of
`fidelity.py`, beside the training patients (the floor). `another-seed` is the whole model once more: what differs by no
more than it does from `whole` has shown nothing. Nats are those of the model as it was saved, raked; where values are
told otherwise (`no-last-values`), they are of another telling of the same records. A table goes to standard error, all
figures as one JSON line to standard output.
"""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import fidelity
import orjson
import polars as pl
from ablated import VARIANTS, Variant
from measure import arguments, report, rounded, timed
from msgspec import structs

import ehrsim
from ehrsim import events as event_tables
from ehrsim import likelihood, models
from ehrsim.errors import MissingExtraError
from ehrsim.evaluate import fidelity as judge
from ehrsim.evaluate import two_sample
from ehrsim.evaluate.cohorts import Cohorts, draw, some
from ehrsim.evaluate.marginals import marginal
from ehrsim.evaluate.patterns import patterns, vocabulary
from ehrsim.evaluate.resampling import subjects
from ehrsim.models.gan import GANConfig
from ehrsim.optimisation import TrainingConfig
from ehrsim.preparation import Data, prepare
from ehrsim.progress import silent
from ehrsim.reference import population
from ehrsim.sampling import sample
from ehrsim.training import train, training_config
from ehrsim.visits import decode, encode, packing, table

PEOPLE, SMALL_PEOPLE, SMALL_STEPS = 2_000, 200, 40
DRAWS = 20
"""Draws of patients for the intervals of `fidelity.py`, which the table does not show."""

Figures = dict[str, Any]
COLUMNS = {
    "nats": ("held_out_nats", "nats a visit, held out"),
    "tvd visit": ("code_by_visit/total_variation", "total variation distance of codes by visit"),
    "tvd patient": ("code_by_patient/total_variation", "the same by patient"),
    "pairs": ("pair_by_visit/r_squared", "R squared of pairs of codes in one visit"),
    "next": ("sequence_by_visit/r_squared", "R squared of pairs of codes of consecutive visits"),
    "visits": ("number/visits_per_patient", "Wasserstein distance of visits a patient"),
    "codes": ("number/codes_per_visit", "of codes a visit"),
    "gaps": ("number/log_gap", "of log gaps"),
    "values": ("values", "of values, median over codes"),
    "lag 1": ("lag_one", "error of the correlation of a value with the next, median over codes"),
    "auc": ("told_apart/features", "AUC of a classifier by features, itself"),
    "cpu s": ("fit_cpu", "CPU seconds of training, compiling and raking included"),
}
"""Heads of the table: the figure, and what it is. All others than nats, AUC and seconds are ratios to the floor."""


def limited(events: Path, folder: Path, patients: int) -> Path:
    """The events, or in `folder` those with fewer training patients, chosen by a fixed draw."""
    train = ehrsim.read_events(events, "train")
    if len(subjects(train)) <= patients:
        return events
    splits = {split: ehrsim.read_events(events, split) for split in ("tuning", "held_out")}
    with event_tables.event_writer(folder, {"dataset_name": events.name}) as writer:
        writer.add_codes([event_tables.read_codes(events)])
        for split, frame in {"train": some(train, patients), **splits}.items():
            writer.write(frame.collect(), split)
    return folder


def told(variant: Variant, data: Data) -> Data:
    """The data as a variant is told them."""
    sizes = variant.sizes(data.sizes)
    return data._replace(sizes=sizes, train=variant.steps(data.train, sizes), tuning=variant.steps(data.tuning, sizes))


def fresh(variant: Variant, data: Data, preset: str, seed: int) -> Any:
    """The untrained model of a variant."""
    config = models.family(variant.model).presets[preset]
    of_latents = config.autoencoder if isinstance(config, GANConfig) else config
    changed = structs.replace(of_latents, **variant.config)
    config = structs.replace(config, autoencoder=changed) if isinstance(config, GANConfig) else changed
    suited = models.suited(config, data.provenance["data"]["steps"], data.sizes.vocabulary)
    return variant.fresh(models.create(variant.model, data.sizes, suited, seed))


def simulated(model: Any, data: Data, patients: int) -> pl.LazyFrame:
    """The events of so many patients of a model."""
    blocks = sample(model, data.vocabulary, data.scales, first=0, end=patients, seed=7)
    return pl.concat([decode(sequences, data.vocabulary) for sequences, _ in blocks]).lazy()


def nats(variant: Variant, model: Any, data: Data, held_out: pl.LazyFrame) -> Figures:
    """Negative log-likelihood in nats a visit of tuning and held-out patients; nothing of a model without one."""
    if not models.family(variant.model).likelihood:
        return {}
    sequences, _ = encode(held_out.collect(), data.vocabulary, step_seconds=data.scales.step_seconds)
    others = variant.steps(table.tabulate(sequences, data.scales, data.sizes)[0], data.sizes)
    shape = packing.suggest_shape(others, data.shape.rows * data.shape.steps)
    splits = {"tuning": (data.tuning, data.shape), "held_out": (others, shape)}
    return {f"{name}_nats": rounded(likelihood.scorer(*split)(model).loss) for name, split in splits.items()}


def judged(cohorts: Cohorts) -> Figures:
    """What `ehrsim evaluate` finds, figure by figure, each with `value`, `floor` and `ratio`."""
    weights, codes = draw(cohorts, draws=DRAWS), vocabulary(*cohorts)
    found = fidelity.figures(
        [
            *judge.of_patterns(cohorts.each(lambda events: patterns(events, codes)), weights),
            *judge.of_numbers(cohorts, weights),
            *judge.of_measurements(cohorts, weights, {}),
            *judge.of_classifiers(cohorts, codes, {}, seed=0),
        ]
    )
    return {name: {key: one[key] for key in ("value", "floor", "ratio")} for name, one in found.items()}


def ablated(name: str, data: Data, real: Cohorts, config: TrainingConfig, preset: str, folder: Path) -> Figures:
    """Train a variant and judge what it simulates; `real` has no simulated patients of its own yet."""
    variant = VARIANTS[name]
    changed, own = structs.replace(config, **variant.training), told(variant, data)
    work = folder / name
    work.mkdir()
    begun = fresh(variant, own, preset, changed.seed)
    model, took = timed(lambda: train(variant.model, begun, own, changed, work, silent))
    cohort, drawing = timed(lambda: simulated(model, own, len(subjects(real.real))))
    return {
        "what": variant.what,
        **nats(variant, model, own, real.held_out),
        "fit_cpu": rounded(took.cpu),
        "generate_cpu": rounded(drawing.cpu),
        **judged(real._replace(simulated=cohort)),
    }


def rows(found: dict[str, Figures]) -> list[list[str]]:
    """The table: a head, the floors, and a row a variant."""
    body = [[name, *(_shown(figures.get(key)) for key, _ in COLUMNS.values())] for name, figures in found.items()]
    one = next(iter(found.values()))
    floors = [one.get(key) for key, _ in COLUMNS.values()]
    floor = ["floor", *(f"{figure['floor']:.3f}" if isinstance(figure, dict) else "" for figure in floors)]
    return [["variant", *COLUMNS], floor, *body]


def _shown(figure: Any) -> str:
    if figure is None:
        return ""
    if not isinstance(figure, dict):
        return f"{figure:.2f}" if figure < 100 else f"{figure:.0f}"
    return "" if figure["ratio"] is None else f"{figure['ratio']:.2f}"


def text(found: dict[str, Figures], *, markdown: bool) -> str:
    """The table in columns, or as Markdown, and below it what variants and columns are."""
    lines = rows(found)
    if markdown:
        ruled = [lines[0], ["---", *["---:"] * len(COLUMNS)], *lines[1:]]
        shown = ["| " + " | ".join(row) + " |" for row in ruled]
    else:
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in lines]
    about = [f"{name}: {figures['what']}" for name, figures in found.items()]
    heads = [f"{head}: {what}" for head, (_, what) in COLUMNS.items()]
    return "\n".join([*shown, "", *about, "", *heads])


def parsed() -> Namespace:
    """The arguments; ends the script where a variant is unknown or scikit-learn is missing."""
    parser = arguments(__doc__)
    parser.add_argument("events", nargs="?", type=Path, help="a MEDS folder with splits")
    parser.add_argument(
        "--variants", default=",".join(VARIANTS), help="names with commas between; default: %(default)s"
    )
    parser.add_argument("--preset", choices=["small", "base", "large"], default="base")
    parser.add_argument("--max-steps", type=int, default=400, help="of training, at most")
    parser.add_argument("--steps-per-batch", type=int, help="visits in a batch; default: that of the preset")
    parser.add_argument("--patients", type=int, default=4_000, help="at most so many training and simulated patients")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="what earlier runs printed")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    options.variants = [name for name in options.variants.split(",") if name]
    if unknown := [name for name in options.variants if name not in VARIANTS]:
        parser.error(f"unknown variant `{unknown[0]}`: known are {', '.join(VARIANTS)}")
    try:
        two_sample.classifier(seed=0)
    except MissingExtraError as error:
        parser.error(str(error))
    return options


def main() -> None:
    options = parsed()
    steps = SMALL_STEPS if options.small else options.max_steps
    config = training_config(options.preset, max_steps=steps, steps_per_batch=options.steps_per_batch)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        events = options.events or folder / "events"
        if not options.events:
            ehrsim.write_events(population(SMALL_PEOPLE if options.small else PEOPLE, seed=1), folder / "all")
            ehrsim.import_events(folder / "all", events, held_out=0.1)
        chosen = limited(events, folder / "fewer", options.patients)
        data = prepare(chosen, min_patients=config.min_patients, steps_per_batch=config.steps_per_batch)
        real = ehrsim.read_events(chosen, "train").collect().lazy()
        held_out = ehrsim.read_events(chosen, "held_out").collect().lazy()
        cohorts = Cohorts(held_out, real, real, marginal(real).lazy())
        found: dict[str, Figures] = {}
        for earlier in options.also:
            found |= orjson.loads(earlier.read_bytes())["variants"]
        for variant in options.variants:
            found[variant] = ablated(variant, data, cohorts, config, options.preset, folder)
            print(" ".join(["done:", *rows({variant: found[variant]})[-1]]), file=sys.stderr, flush=True)
    print(text(found, markdown=options.markdown), file=sys.stderr)
    report(
        "ablations",
        data=options.events.name if options.events else "reference",
        preset=options.preset,
        max_steps=config.max_steps,
        steps_per_batch=config.steps_per_batch,
        patients=[len(subjects(held_out)), len(subjects(real))],
        variants=found,
    )


if __name__ == "__main__":
    main()
