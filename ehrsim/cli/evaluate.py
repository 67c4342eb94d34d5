"""`ehrsim evaluate`: how like real patients simulated ones are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ehrsim.cli.commands import Overwrite, Seed
from ehrsim.cli.progress import bars


def evaluate(
    *,
    real: Annotated[
        Path,
        Parameter(help="Real events; of a folder with splits, held_out is compared beside train, else one half."),
    ],
    synthetic: Annotated[Path, Parameter(help="Simulated events, of any generator.")],
    out: Annotated[Path, Parameter(help="Folder to write report.json and report.html to.")],
    train: Annotated[
        Path | None, Parameter(help="Events that the generator learned from, if --real holds none of them.")
    ] = None,
    strict: Annotated[bool, Parameter(negative=(), help="Exit with 1, naming them, if gates are not met.")] = False,
    gates: Annotated[
        Path | None, Parameter(help="TOML file of bars and gates that count before the built-in ones.")
    ] = None,
    patients: Annotated[int, Parameter(help="Compare at most so many patients of each cohort.")] = 20_000,
    draws: Annotated[int, Parameter(help="How often patients are drawn again for intervals.")] = 200,
    attacks: Annotated[
        bool, Parameter(negative=(), help="Attack the training patients with the simulated ones as well: minutes.")
    ] = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Judge simulated patients beside real ones: fidelity and diversity, with intervals, floors and ceilings.

    Example:
        ehrsim evaluate --real events --synthetic cohort --out report

    """
    from ehrsim.evaluate import evaluate_cohort
    from ehrsim.evaluate.gates import insist
    from ehrsim.evaluate.report import table

    with bars() as progress:
        report = evaluate_cohort(
            real,
            synthetic,
            out,
            train=train,
            gates_file=gates,
            patients=patients,
            draws=draws,
            attacks=attacks,
            seed=seed,
            overwrite=overwrite,
            progress=progress,
        )
    print(table(report))
    print(f"wrote {out / 'report.json'} and {out / 'report.html'}")
    if strict:
        insist(report)
