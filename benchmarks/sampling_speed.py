"""How fast patients are drawn code by code, as sets, and token by token: one run, one machine, one core.

Reproduce: `python benchmarks/sampling_speed.py` (about half an hour on one core, mostly training; `--small` for a quick
look). The transformer needs PyTorch: its environment is made below `--environments` when first needed.

Records of 10 visits in the mean with 10 distinct codes each out of 2,000, whose frequencies fall as one over their rank
(Zipf), are made from a seed. On these are trained, briefly: the sequence VAE that draws codes one after the other
(`ordered`, preset base), the same in two levels (`two-level`), the one that draws them as sets (`set`, preset small),
and the transformer with one token an event and its keys and values kept (`tokens`, `peers/tokens.py`), as wide as the
first. Then each draws patients, three
times; the median counts. Ours end with the table of events, the transformer with its exchange records. What JAX
compiles in a first, small call is left out. All runs on one core, whatever the machine has.

Caveats: a rate holds for the records that were drawn, so visits a patient and codes a visit stand beside it: models
this briefly trained hit them roughly. Distinct codes are drawn independently of each other in these records: nothing
but their number can be learned, and nothing is said of how good the models are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.append(str(HERE / "peers"))

import conversion  # noqa: E402
import exchange  # noqa: E402
import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
from environments import NoEnvironmentError, python_for  # noqa: E402
from generate import content  # noqa: E402
from measure import Seconds, arguments, rates, report, rounded, timed  # noqa: E402
from msgspec import structs  # noqa: E402

import ehrsim  # noqa: E402
from ehrsim import codes, models  # noqa: E402
from ehrsim import events as event_tables  # noqa: E402
from ehrsim.preparation import Data, prepare  # noqa: E402
from ehrsim.progress import silent  # noqa: E402
from ehrsim.sampling import sample  # noqa: E402
from ehrsim.training import train, training_config  # noqa: E402
from ehrsim.visits import decode  # noqa: E402
from ehrsim.vocabulary import DEFAULT_MIN_PATIENTS  # noqa: E402

CODES, CODES_A_VISIT, VISITS = 2_000, 10, (5, 15)
"""Visits a patient are any number between these."""
SYSTEMS = ("SNOMED", "RxNorm", "LOINC")
"""Conditions, medications and observations take turns in the order of how common they are."""
PEOPLE, SMALL_PEOPLE = 4_000, 300
STEPS, SMALL_STEPS, STEPS_PER_BATCH, LEARNING_RATE = 100, 20, 512, 1e-2
SECONDS = 150.0
"""CPU seconds that the transformer learns for."""
PATIENTS = {"ordered": 4_000, "two-level": 4_000, "set": 16_000, "tokens": 512}
SMALL_PATIENTS = {"ordered": 300, "two-level": 300, "set": 300, "tokens": 32}
PRESETS = {"ordered": "base", "two-level": "base", "set": "small"}
"""By emission."""

Figures = dict[str, Any]


def synthetic(patients: int, seed: int) -> pl.DataFrame:
    """The events of so many patients: birth, sex, and visits with nothing but distinct codes."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    names = [f"{SYSTEMS[rank % len(SYSTEMS)]}//{10_000 + rank}" for rank in range(CODES)]
    weight = -np.log(np.arange(1, CODES + 1))
    rows: list[tuple[int, datetime | None, str, int | None]] = []
    for subject in range(1, patients + 1):
        visits = int(rng.integers(VISITS[0], VISITS[1], endpoint=True))
        begin = datetime(2010, 1, 1) + timedelta(days=int(rng.integers(3_000)))
        rows.append((subject, begin - timedelta(days=int(rng.integers(20 * 365, 80 * 365))), codes.BIRTH, None))
        rows.append((subject, None, "GENDER//female" if rng.random() < 0.5 else "GENDER//male", None))
        days = np.cumsum(1 + rng.exponential(60, visits).astype(int))
        # The highest of logarithms of weights with Gumbel noise are a draw without replacement.
        keys = weight + rng.gumbel(size=(visits, CODES))
        drawn = np.argpartition(-keys, CODES_A_VISIT, axis=1)[:, :CODES_A_VISIT]
        for number, (day, chosen) in enumerate(zip(days, drawn, strict=True), start=1):
            start = begin + timedelta(days=int(day), hours=9)
            rows.append((subject, start, "VISIT_START//AMB", number))
            rows += [(subject, start, names[code], number) for code in chosen]
    table = pl.DataFrame(
        rows, schema=["subject_id", "time", "code", "visit_id"], orient="row", infer_schema_length=None
    )
    return event_tables.sort(event_tables.conform(table).lazy()).collect()


def trained(data: Data, emission: str, steps: int, work: Path) -> Any:
    """A sequence VAE with an emission, trained briefly."""
    preset = PRESETS[emission]
    config = training_config(
        preset,
        max_steps=steps,
        validate_every=steps,
        steps_per_batch=STEPS_PER_BATCH,
        learning_rate=LEARNING_RATE,
        raking=0,
        calibration=0,
    )
    of_preset = structs.replace(models.MODELS["vae"].presets[preset], emission=emission)
    suited = models.suited(of_preset, data.provenance["data"]["steps"], data.sizes.vocabulary)
    work.mkdir()
    return train("vae", models.create("vae", data.sizes, suited, config.seed), data, config, work, silent)


def own(model: Any, data: Data, patients: int, options: Namespace) -> Figures:
    """How fast a sequence VAE draws, and what it drew."""

    def draw(number: int) -> pl.DataFrame:
        blocks = sample(model, data.vocabulary, data.scales, first=0, end=number, seed=7, slots=options.slots)
        return pl.concat([decode(sequences, data.vocabulary) for sequences, _ in blocks])

    _, compiling = timed(lambda: draw(options.slots))
    repeats = [timed(lambda: draw(patients)) for _ in range(options.repeats)]
    return {
        "vocabulary": data.vocabulary.size - 1,
        "simulated": content(repeats[-1][0].lazy()),
        "compile": {name: rounded(value) for name, value in compiling._asdict().items()},
        **rates({"patients": patients}, [taken for _, taken in repeats]),
    }


def peer(events: Path, patients: int, folder: Path, options: Namespace) -> Figures:
    """How fast the transformer draws, and what it drew; or one line of why it did not."""
    try:
        python = python_for("tokens", options.environments)
    except NoEnvironmentError as error:
        return {"failed": str(error)}
    splits = {split: ehrsim.read_events(events, split) for split in ("train", "tuning")}
    vocabulary = conversion.known(splits["train"], DEFAULT_MIN_PATIENTS)
    command = [str(python), str(HERE / "peers" / "tokens.py"), *(["--small"] if options.small else [])]
    for split, frame in splits.items():
        conversion.exchanged(frame, vocabulary).write_parquet(folder / f"{split}.parquet")
        command += [f"--{split}", str(folder / f"{split}.parquet")]
    said = {"out": folder / "drawn.parquet", "patients": patients, "repeats": options.repeats, "seconds": SECONDS}
    for key, value in said.items():
        command += [f"--{key}", str(value)]
    paths = os.pathsep.join([str(HERE), str(HERE / "peers")])
    # One thread, as one core: PyTorch asks the machine and not the process how many there are.
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode:
        return {"failed": f"tokens.py ended with {done.returncode}"}
    cost = json.loads(done.stdout.splitlines()[-1])
    drawn = conversion.as_events(exchange.table_of(folder / "drawn.parquet"))
    return {
        "vocabulary": len(vocabulary),
        "simulated": content(drawn.lazy()),
        "fit_cpu": cost["fit"]["cpu"],
        **rates({"patients": patients}, [Seconds(**taken) for taken in cost["repeats"]]),
    }


def table(found: dict[str, Figures]) -> str:
    """A line a model: patients a CPU second, and of which records."""
    lines = [f"{'':9}  {'patients a CPU second':>21}  visits a patient  codes a visit"]
    for name, figures in found.items():
        if "failed" in figures:
            lines.append(f"{name:9}  {figures['failed']}")
            continue
        drawn = figures["simulated"]
        cells = figures["patients_per_cpu_second"], drawn["visits_per_patient"], drawn["codes_per_visit"]
        lines.append(f"{name:9}  {cells[0]:21,.1f}  {cells[1]:16.2f}  {cells[2]:13.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--slots", type=int, default=256, help="patients that ehrsim draws side by side")
    parser.add_argument("--models", default=",".join(PATIENTS), help="names with commas between them; default: all")
    cache = Path(tempfile.gettempdir()) / "ehrsim-peers"
    parser.add_argument("--environments", type=Path, default=cache, help="where the packages of peers are kept")
    options = parser.parse_args()
    chosen = [name for name in options.models.split(",") if name]
    if unknown := [name for name in chosen if name not in PATIENTS]:
        parser.error(f"unknown model `{unknown[0]}`: known are {', '.join(PATIENTS)}")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    people, steps, patients = (
        (SMALL_PEOPLE, SMALL_STEPS, SMALL_PATIENTS) if options.small else (PEOPLE, STEPS, PATIENTS)
    )
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        events = folder / "events"
        event_tables.write_events(synthetic(people, seed=1), events)
        if set(chosen) & set(PRESETS):
            data = prepare(events, min_patients=DEFAULT_MIN_PATIENTS, steps_per_batch=STEPS_PER_BATCH)
        for model in chosen:
            if model in PRESETS:
                found[model] = own(trained(data, model, steps, folder / model), data, patients[model], options)
            else:
                found[model] = peer(events, patients[model], folder, options)
            print(table({model: found[model]}), file=sys.stderr, flush=True)
    print(table(found), file=sys.stderr)
    rate = {name: figures.get("patients_per_cpu_second") for name, figures in found.items()}
    both = rate.get("ordered") and rate.get("tokens")
    report(
        "sampling_speed",
        slots=options.slots,
        codes=CODES,
        models=found,
        ordered_over_tokens=rounded(rate["ordered"] / rate["tokens"]) if both else None,
    )


if __name__ == "__main__":
    main()
