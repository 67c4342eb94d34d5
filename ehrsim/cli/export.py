"""The command that writes events in other formats, each with options of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ehrsim.cli.commands import Overwrite
from ehrsim.cli.progress import bars
from ehrsim.errors import UsageError

Several = Annotated[list[str] | None, Parameter(negative=())]


def export(
    events: Annotated[Path, Parameter(help="Events: a MEDS folder or a Parquet file.")],
    /,
    *,
    to: Annotated[Literal["fhir", "omop", "csv", "meds"], Parameter(help="Format to write.")] = "fhir",
    out: Annotated[Path, Parameter(help="Folder to write.")],
    format: Annotated[
        Literal["ndjson", "transaction", "batch", "collection", "csv", "parquet"] | None,
        Parameter(
            help="FHIR: ndjson (the default) by resource type, transaction or batch bundles to upload, or collection, "
            "one complete bundle a patient. OMOP: csv (the default) or parquet."
        ),
    ] = None,
    entries: Annotated[
        int | None, Parameter(help="FHIR: most entries of a transaction or batch, 150 if not given.")
    ] = None,
    shard: Annotated[
        int | None,
        Parameter(help="FHIR: most resources of an NDJSON file; one file a type without. MEDS: events of a file."),
    ] = None,
    gzip: Annotated[bool, Parameter(negative=(), help="FHIR: compress NDJSON files.")] = False,
    include: Annotated[
        Several, Parameter(help="FHIR: a type to write beside the usual ones, such as Claim; repeatable.")
    ] = None,
    exclude: Annotated[
        Several, Parameter(help="FHIR: a type to leave out, such as DocumentReference; repeatable.")
    ] = None,
    locale: Annotated[
        str | None, Parameter(help="FHIR: country of people and places, us (with US Core) if not given, gb, de, fr.")
    ] = None,
    validate: Annotated[
        Literal["none", "fast", "full"] | None,
        Parameter(
            help="FHIR: hold none, one of every shape with some hundred others (fast, the default), or all against "
            "fhir.resources."
        ),
    ] = None,
    vocabulary: Annotated[
        Path | None,
        Parameter(
            help="OMOP: folder of an Athena download (CONCEPT.csv, CONCEPT_RELATIONSHIP.csv) for standard concepts."
        ),
    ] = None,
    splits: Annotated[
        Literal["keep", "hash", "none"] | None,
        Parameter(help="MEDS: splits of the source (keep, the default), by a hash of the patient, or none."),
    ] = None,
    strict: Annotated[
        bool, Parameter(negative=(), help="MEDS: leave out unit, visit and end time, which MEDS does not name.")
    ] = False,
    seed: Annotated[int | None, Parameter(help="FHIR: seed of ids, names and places; 0 if not given.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write events as FHIR R4 (US Core 6.1), OMOP CDM 5.4, CSV or MEDS, labelled as synthetic where the format can.

    Example:
        ehrsim export cohort --to fhir --out fhir --include Claim --exclude DocumentReference
        ehrsim export cohort --to omop --format parquet --out omop
        ehrsim export cohort --to csv --out tables
        ehrsim export cohort --to meds --strict --out meds

    """
    import ehrsim

    given = {
        "format": format,
        "entries": entries,
        "shard": shard,
        "compressed": gzip or None,
        "include": include,
        "exclude": exclude,
        "locale": locale,
        "validate": validate,
        "vocabulary": vocabulary,
        "splits": splits,
        "strict": strict or None,
        "seed": seed,
    }
    options = {name: value for name, value in given.items() if value is not None}
    _refuse_options_of_others(to, options)
    verbs: dict[str, Callable[..., Any]] = {
        "fhir": ehrsim.export_fhir,
        "omop": ehrsim.export_omop,
        "csv": ehrsim.export_csv,
        "meds": ehrsim.export_meds,
    }
    with bars() as progress:
        report = verbs[to](events, out, overwrite=overwrite, progress=progress, **options)
    print("\n".join(report.lines()))


_OPTIONS = {
    "fhir": ("format", "entries", "shard", "compressed", "include", "exclude", "locale", "validate", "seed"),
    "omop": ("format", "vocabulary"),
    "csv": (),
    "meds": ("shard", "splits", "strict"),
}
"""The options that each format has, as the verbs name them."""
_FORMATS = {"fhir": ("ndjson", "transaction", "batch", "collection"), "omop": ("csv", "parquet")}
_NAMES = {"compressed": "--gzip"}
"""Of options that the command line names otherwise."""


def _refuse_options_of_others(to: str, options: dict[str, Any]) -> None:
    """Raise `UsageError` for an option that the format does not have, or a value of `--format` that it does not."""
    for name in options:
        if name not in _OPTIONS[to]:
            owners = [owner for owner, names in _OPTIONS.items() if name in names]
            option = _NAMES.get(name, f"--{name.replace('_', '-')}")
            raise UsageError(
                f"{option} does not go with --to {to}", hint=f"it is an option of --to {' and '.join(owners)}"
            )
    known = _FORMATS.get(to, ())
    if "format" in options and options["format"] not in known:
        raise UsageError(
            f"--format {options['format']} does not go with --to {to}", hint=f"expected one of {', '.join(known)}"
        )
