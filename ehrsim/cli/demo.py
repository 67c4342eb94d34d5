"""The whole way in one command: reference population, training, generation, FHIR, and a page that shows the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ehrsim.cli.commands import Overwrite, Seed
from ehrsim.cli.progress import bars
from ehrsim.errors import UsageError

if TYPE_CHECKING:
    from ehrsim.fhir.writers import Format

REFERENCE_PEOPLE = 1_500
TRAINING_STEPS = 240
"""Enough for a first look in about a minute on two cores; `ehrsim fit` trains longer."""


def demo(
    *,
    out: Annotated[Path, Parameter(help="Folder to write everything to.")] = Path("ehrsim-demo"),
    patients: Annotated[int, Parameter(help="How many patients to simulate.")] = 500,
    seed: Seed = 0,
    people: Annotated[int, Parameter(help="How many reference people to learn from.")] = REFERENCE_PEOPLE,
    max_steps: Annotated[int, Parameter(help="How many steps to train for.")] = TRAINING_STEPS,
    overwrite: Overwrite = False,
) -> None:
    """Learn from the built-in reference population, simulate patients, and write them as FHIR, with no data needed.

    Example:
        ehrsim demo --patients 20 --people 300 --max-steps 30 --out demo

    """
    from ehrsim.evaluate import write_overview
    from ehrsim.fhir import export_fhir
    from ehrsim.fhir.writers import ON_REQUEST
    from ehrsim.reference import write_reference
    from ehrsim.sampling import generate_to
    from ehrsim.training import best, fit, training_config

    if out.exists() and any(out.iterdir()) and not overwrite:
        raise UsageError(f"output {out} exists already", hint="name another --out, or pass --overwrite")
    config = training_config("small", seed=seed, max_steps=max_steps)
    population, run, cohort = out / "population", out / "run", out / "cohort"
    with bars() as progress:
        written = write_reference(population, people, seed=seed, overwrite=overwrite, progress=progress)
        print(f"1  reference population   {population}  {people:,} people, {written.events:,} events")
        fit(population, run, training=config, overwrite=overwrite, progress=progress)
        step, loss = best(run / "metrics.jsonl")
        print(f"2  run                    {run}  tuning loss {loss:.2f} nats a visit at step {step:,}")
        generate_to(run, cohort, patients, seed=seed, overwrite=overwrite, progress=progress)
        print(f"3  simulated patients     {cohort}  {patients:,} patients")
        forms: tuple[tuple[str, Format], ...] = (("ndjson", "ndjson"), ("bundles", "transaction"))
        for name, form in forms:
            folder = out / "fhir" / name
            report = export_fhir(
                cohort,
                folder,
                format=form,
                include=ON_REQUEST,
                seed=seed,
                overwrite=overwrite,
                progress=progress,
            )
            total = sum(report.resources.values())
            print(f"4  FHIR {name:<18}{folder}  {total:,} resources")
    page = out / "overview.html"
    facts = (
        ("Simulated patients", f"{patients:,}"),
        ("Learned from", f"{people:,} reference people"),
        ("Seed", str(seed)),
    )
    write_overview(population, cohort, page, metrics=run / "metrics.jsonl", title="ehrsim demo", facts=facts)
    print(f"5  page to look at        {page}")
