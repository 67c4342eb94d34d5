"""The models of ehrsim as peers: trained on the exchange files, or a run that is trained already.

Learning is to the preset's own end, not to a number of seconds. JAX compiles the draws before the clock runs, but
compiles the steps of training while it does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import adapter
import conversion
import exchange
import polars as pl
from measure import Seconds, timed

import ehrsim
from ehrsim.training import training_config

SMALL_STEPS, SLOTS = 40, 256


def main() -> None:
    command = adapter.parser(__doc__)
    command.add_argument("--model", choices=["vae", "gan", "markov"], default="vae")
    command.add_argument("--preset", choices=["small", "base", "large"], default="base")
    command.add_argument("--max-steps", type=int)
    command.add_argument("--run", type=Path, help="a run folder, instead of training")
    options = command.parse_args()
    task = adapter.task_of(options)
    with tempfile.TemporaryDirectory() as name:
        folder, learning = Path(name), Seconds(0.0, 0.0)
        tables = {"train": exchange.table_of(task.train), "tuning": exchange.table_of(task.tuning)}
        conversion.write_folder(tables, folder / "events")
        training = training_config(options.preset, max_steps=SMALL_STEPS if task.small else options.max_steps)

        def fit() -> None:
            ehrsim.fit(folder / "events", folder / "run", model=options.model, preset=options.preset, training=training)

        if not options.run:
            _, learning = timed(fit)

        def draw(patients: int) -> pl.DataFrame:
            run = ehrsim.load(options.run or folder / "run")
            return ehrsim.generate(run, patients, seed=task.seed, slots=SLOTS).collect()

        draw(SLOTS)
        cohort, simulating = timed(lambda: draw(task.patients))
        known = conversion.known(conversion.as_events(tables["train"]).lazy(), least=1)
        conversion.exchanged(cohort.lazy(), known).write_parquet(task.out)
    adapter.tell(learning, simulating)


if __name__ == "__main__":
    main()
