"""CPU seconds and memory of `ehrsim evaluate`: 20,000 real patients and 20,000 simulated ones of about 100 events.

Reproduce: `python benchmarks/evaluate.py`. The patients are pieces of records of the built-in reference population, of
consecutive visits with about a hundred events together, so that what follows what is as in whole lives; half of the
real ones are held out. Everything is measured in a process of its own: reading, all sections, and both files.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl
from measure import arguments, report, rounded, timed

import ehrsim
from ehrsim import codes, events
from ehrsim.reference import population

PATIENTS, SMALL_PATIENTS, EVENTS, PEOPLE_FOR = 20_000, 400, 100, 0.12
"""So many people of the reference population give a patient each, on average."""


def pieces(people: pl.DataFrame, patients: int) -> pl.DataFrame:
    """Records of about `EVENTS` events: consecutive visits of people, each with the facts of the person."""
    dated = pl.col("time").is_not_null() & pl.col("visit_id").is_not_null()
    facts = people.filter(pl.col("time").is_null() | (pl.col("code") == codes.BIRTH))
    inside = people.filter(dated)
    visits = inside.group_by("subject_id", "visit_id").agg(pl.len(), pl.col("time").min())
    visits = visits.sort("subject_id", "time", "visit_id")
    piece = (pl.col("len").cum_sum().over("subject_id") - 1) // (EVENTS - 3)
    parts = visits.select("subject_id", "visit_id", piece=piece)
    chosen = parts.select("subject_id", "piece").unique(maintain_order=True)
    chosen = chosen.sample(min(patients, chosen.height), shuffle=True, seed=3).with_row_index("patient", 1)
    moved = inside.join(parts, on=["subject_id", "visit_id"]).join(chosen, on=["subject_id", "piece"])
    ends = moved.group_by("patient").agg(pl.col("time").max()).with_columns(code=pl.lit(codes.OBSERVATION_END))
    own = facts.join(chosen, on="subject_id").drop("piece")
    rows = pl.concat([own, moved.drop("piece").select(own.columns), ends], how="diagonal")
    whole = rows.with_columns(subject_id=pl.col("patient").cast(pl.Int64)).drop("patient")
    return events.sort(events.conform(whole).lazy()).collect()


def write(folder: Path, patients: int) -> None:
    """As many real patients in splits as simulated ones."""
    for name, seed in (("real", 1), ("synthetic", 2)):
        table = pieces(population(max(int(PEOPLE_FOR * patients), 60), seed=seed), patients)
        middle = table["subject_id"].max() // 2  # type: ignore[operator]
        with events.event_writer(folder / name, {"dataset_name": name}) as writer:
            if name == "synthetic":
                writer.write(table)
                continue
            writer.write(table.filter(pl.col("subject_id") <= middle), "train")
            writer.write(table.filter(pl.col("subject_id") > middle), "held_out")


def main() -> None:
    options = arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, SMALL_PATIENTS if options.small else PATIENTS)
        program = "from ehrsim.cli import main; main()"
        command = [sys.executable, "-c", program, "evaluate", "--real", "real", "--synthetic", "synthetic"]
        taken = []
        for repeat in range(options.repeats):
            run = [*command, "--out", f"report-{repeat}"]
            _, seconds = timed(lambda run=run: subprocess.run(run, cwd=folder, check=True, capture_output=True))
            taken.append(seconds)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        sizes = {
            part: ehrsim.read_events(folder / part).select(pl.len()).collect().item() for part in ("real", "synthetic")
        }
    report(
        "evaluate",
        patients=SMALL_PATIENTS if options.small else PATIENTS,
        events=sizes,
        cpu_seconds=[rounded(seconds.cpu) for seconds in taken],
        wall_seconds=[rounded(seconds.wall) for seconds in taken],
        peak_gb=rounded(peak / 1e9),
    )


if __name__ == "__main__":
    main()
