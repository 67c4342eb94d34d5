"""The commands, but for the demo: each reads its arguments, calls one verb of the library, and says what it wrote."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from cyclopts import Parameter

from ehrsim.cli.progress import bars
from ehrsim.errors import UsageError

Number = TypeVar("Number", int, float)
Overwrite = Annotated[bool, Parameter(negative=(), help="Replace what stands at --out.")]
Seed = Annotated[int, Parameter(help="Seed: the same seed gives the same bytes.")]
Processes = Annotated[int, Parameter(help="Processes that share the work; the bytes do not depend on it.")]


def reference(
    *,
    number: Annotated[int, Parameter(name=["--number", "-n"], help="How many people.")],
    out: Annotated[Path, Parameter(help="Folder to write the events to, as a MEDS data set.")],
    seed: Seed = 0,
    processes: Processes = 1,
    overwrite: Overwrite = False,
) -> None:
    """Write the built-in reference population as events: whole lives, with no data needed.

    Example:
        ehrsim reference -n 500 --seed 1 --out population

    """
    from ehrsim.reference import write_reference

    with bars() as progress:
        counts = write_reference(out, number, seed=seed, processes=processes, overwrite=overwrite, progress=progress)
    print(f"wrote {counts.events:,} events of {counts.patients:,} people to {out}")


def import_(
    source: Annotated[Path, Parameter(help="File or folder to import.")],
    /,
    *,
    from_: Annotated[
        Literal["fhir", "omop", "mimic", "meds", "synthea", "table"] | None,
        Parameter(name="--from", help="Format of the source; found out if not given."),
    ] = None,
    out: Annotated[Path, Parameter(help="Folder to write the events to, as a MEDS data set.")],
    held_out: Annotated[float, Parameter(help="Share of the training patients to hold out for tests.")] = 0.0,
    identified: Annotated[
        bool, Parameter(negative=(), help="Leave the data as they are, with whatever identifies people.")
    ] = False,
    deidentify: Annotated[
        str | None,
        Parameter(
            help="Policy to de-identify by: safe-harbor (of FHIR, OMOP and MIMIC without asking), or a TOML file."
        ),
    ] = None,
    seed: Annotated[
        str | None,
        Parameter(help="Seed of ids and shifts in time, as secret as the source; drawn and forgotten if not given."),
    ] = None,
    mapping: Annotated[Path | None, Parameter(help="CSV file to write which id became which to.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Import event data, and report what was read, changed, skipped and found.

    FHIR, OMOP and MIMIC sources are de-identified, unless --identified says that they may stay as they are.

    Example:
        ehrsim import population --out events --held-out 0.1

    """
    from ehrsim.importers import import_events

    with bars() as progress:
        report = import_events(
            source,
            out,
            format=from_,
            held_out=held_out,
            identified=identified,
            deidentify=deidentify,
            seed=seed,
            mapping=mapping,
            overwrite=overwrite,
            progress=progress,
        )
    print("\n".join(report.lines()))
    print(f"events and their report (metadata/import.json) are in {out}")


def inspect(
    path: Annotated[Path, Parameter(help="Events (folder or Parquet file), a run folder, or a folder of FHIR.")],
    /,
    *,
    validate: Annotated[
        Literal["fast", "full"] | None,
        Parameter(
            help="Hold FHIR, of a folder or a file, against R4 and US Core: by schema, or by all invariants too."
        ),
    ] = None,
    chart: Annotated[Path | None, Parameter(help="Page to write on one patient of a folder of FHIR.")] = None,
    patient: Annotated[
        str | None, Parameter(help="Whose chart: a subject id; the patient with the most resources without it.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Say what is in events, in a run or in a folder of FHIR, and what is wrong with it.

    Example:
        ehrsim inspect events
        ehrsim inspect fhir --validate fast
        ehrsim inspect fhir --chart chart.html --patient 7

    """
    from ehrsim.cli.inspection import describe

    if patient is not None and chart is None:
        raise UsageError("--patient is of a chart", hint="name the page to write with --chart")
    lines = describe(path, validate)
    if chart is not None:
        from ehrsim.fhir.chart import write_chart

        shown = write_chart(path, chart, patient=patient, overwrite=overwrite)
        lines.append(f"chart of patient {shown}: {chart}")
    print("\n".join(lines))


def fit(
    events: Annotated[Path, Parameter(help="Events: a MEDS folder or a Parquet file.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Run folder to write.")],
    model: Annotated[
        Literal["vae", "gan", "markov"] | None, Parameter(help="The kind of model: that of --init, or else vae.")
    ] = None,
    preset: Annotated[
        Literal["small", "base", "large"], Parameter(help="Size and length of training: minutes, half an hour, a GPU.")
    ] = "small",
    max_steps: Annotated[int | None, Parameter(help="Train for fewer or more steps than the preset.")] = None,
    min_patients: Annotated[
        int | None, Parameter(help="Codes of fewer patients are rolled up to their parent, or left out.")
    ] = None,
    seed: Seed = 0,
    init: Annotated[
        Path | None, Parameter(help="Run to begin with, of other data: helps most where patients are few.")
    ] = None,
    resume: Annotated[bool, Parameter(negative=(), help="Go on with an interrupted training.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a model on the training split, stopping early by the tuning split.

    Example:
        ehrsim fit events --model markov --max-steps 60 --out run

    """
    from ehrsim.models import family
    from ehrsim.training import best, training_config
    from ehrsim.training import fit as train

    config = training_config(preset, seed=seed, max_steps=max_steps, min_patients=min_patients)
    with bars() as progress:
        run = train(
            events,
            out,
            model=model,
            preset=preset,
            training=config,
            init=init,
            resume=resume,
            overwrite=overwrite,
            progress=progress,
        )
    step, loss = best(out / "metrics.jsonl")
    print(f"wrote run {run.identity[:12]} to {out}: {run.config.model} ({preset}), {run.vocabulary.size - 1:,} codes")
    print(f"tuning loss {loss:.3f} {family(run.config.model).measure} at step {step:,}")


def generate(
    run: Annotated[Path, Parameter(help="Run folder of a trained model.")],
    /,
    *,
    number: Annotated[
        int, Parameter(name=["--number", "-n"], help="How many patients; with --continue, how many futures of each.")
    ],
    out: Annotated[Path, Parameter(help="Folder to write the events to, as a MEDS data set.")],
    seed: Seed = 0,
    continue_: Annotated[
        Path | None,
        Parameter(name="--continue", help="Go on with these histories: events, a MEDS folder or a Parquet file."),
    ] = None,
    since: Annotated[
        str | None,
        Parameter(help="With --continue: date to go on from, as 2020-12-31; from each last event if not given."),
    ] = None,
    years: Annotated[
        float | None,
        Parameter(help="With --continue: years to go on for; to the end of the run's data if not given."),
    ] = None,
    sex: Annotated[str | None, Parameter(help="female or male.")] = None,
    race: Annotated[str | None, Parameter(help="A race of the training data, by code or display.")] = None,
    ethnicity: Annotated[str | None, Parameter(help="An ethnicity of the training data, by code or display.")] = None,
    age: Annotated[str | None, Parameter(help="Age at the end of the record: 40:60 is from 40 up to 60.")] = None,
    with_: Annotated[
        tuple[str, ...],
        Parameter(
            name="--with",
            negative=(),
            help="Code every patient has; a prefix ends in *, A|B is either, @FILE any of its lines. May be repeated.",
        ),
    ] = (),
    without: Annotated[tuple[str, ...], Parameter(negative=(), help="Code no patient has. May be repeated.")] = (),
    alive: Annotated[bool, Parameter(negative=(), help="Only patients alive at the end.")] = False,
    deceased: Annotated[bool, Parameter(negative=(), help="Only patients who die.")] = False,
    range_: Annotated[
        str | None, Parameter(name="--range", help="Write only patients I up to J of the number: I:J, counted from 0.")
    ] = None,
    processes: Processes = 1,
    slots: Annotated[int, Parameter(help="Patients drawn side by side; the bytes do not depend on it.")] = 256,
    overwrite: Overwrite = False,
) -> None:
    """Draw patients who never existed. Conditions hold for every one of them.

    Example:
        ehrsim generate run -n 50 --seed 7 --sex female --age 18:90 --out cohort
        ehrsim generate run -n 3 --continue cohort --years 2 --out futures

    """
    from ehrsim.sampling import Conditions, continue_to, generate_to

    if alive and deceased:
        raise UsageError("--alive and --deceased contradict one another", hint="give one of them")
    first, end = _pair("--range", range_, int) if range_ else (0, number)
    if not 0 <= first < end <= number:
        raise UsageError(f"--range {first}:{end} does not lie within 0:{number}")
    conditions = Conditions(
        sex=sex,
        race=race,
        ethnicity=ethnicity,
        age=_pair("--age", age, float) if age else None,
        alive=True if alive else False if deceased else None,
        required=with_,
        excluded=without,
    )
    if continue_ is None and (since is not None or years is not None):
        raise UsageError("--since and --years are of histories", hint="give them with --continue")
    if continue_ is not None and range_:
        raise UsageError("--range does not go with --continue", hint="choose among the histories instead")
    shared: dict[str, Any] = {
        "seed": seed,
        "conditions": conditions,
        "slots": slots,
        "processes": processes,
        "overwrite": overwrite,
    }
    with bars() as progress:
        if continue_ is None:
            report = generate_to(run, out, end - first, first=first, progress=progress, **shared)
            lines = [f"wrote {report.patients:,} simulated patients to {out}"]
        else:
            begin = _moment(since) if since else None
            report, histories = continue_to(
                run, continue_, out, copies=number, since=begin, years=years, progress=progress, **shared
            )
            lines = [f"wrote {report.patients:,} simulated futures to {out}", *histories.lines()]
    print("\n".join([*lines, *report.lines()]))


def upload(
    folder: Annotated[Path, Parameter(help="Export to send: NDJSON, transactions or batches.")],
    /,
    *,
    server: Annotated[str, Parameter(help="Base URL of a FHIR R4 server.")],
    workers: Annotated[int, Parameter(help="Bundles sent at a time.")] = 4,
    attempts: Annotated[int, Parameter(help="How often a request that fails for a while is sent at most.")] = 6,
    again: Annotated[bool, Parameter(negative=(), help="Send what the server has accepted before as well.")] = False,
) -> None:
    """Send an export to a FHIR server. Every resource keeps its id, so sending it twice changes nothing.

    After an interruption the same command goes on. A bearer token is read from EHRSIM_TOKEN.

    Example:
        ehrsim upload fhir --server http://127.0.0.1:8080/fhir

    """
    from ehrsim.fhir import upload_fhir

    with bars() as progress:
        report = upload_fhir(folder, server, workers=workers, attempts=attempts, again=again, progress=progress)
    print("\n".join(report.lines()))


def schemas(
    folder: Annotated[Path, Parameter(help="Folder of the schema files.")] = Path("schemas"),
    *,
    check: Annotated[bool, Parameter(negative=(), help="Write nothing; fail if a file differs.")] = False,
) -> None:
    """Write the JSON Schemas of ehrsim's own files, or check that they are up to date.

    Example:
        ehrsim schemas written

    """
    from ehrsim.cli.schemas import differing, write

    if check:
        differing(folder)
        print(f"the schemas in {folder} are up to date")
    else:
        print("\n".join(f"wrote {path}" for path in write(folder)))


def _moment(text: str) -> dt.datetime:
    """The moment that `--since` names."""
    try:
        moment = dt.datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            raise ValueError
        return moment
    except ValueError:
        raise UsageError(f"--since is `{text}`", hint="write a date, as in --since 2020-12-31") from None


def _pair(option: str, text: str, number: type[Number]) -> tuple[Number, Number]:
    """The two numbers of `A:B`."""
    low, colon, high = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return number(low), number(high)
    except ValueError:
        raise UsageError(f"{option} is `{text}`", hint=f"write two numbers, as in {option} 40:60") from None
