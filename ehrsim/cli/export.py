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
    to: Annotated[
        Literal["fhir", "cds-hooks", "omop", "csv", "meds"],
        Parameter(help="Format to write: FHIR, requests of CDS Hooks to test with, or tables."),
    ] = "fhir",
    out: Annotated[Path, Parameter(help="Folder to write.")],
    format: Annotated[
        Literal["ndjson", "transaction", "batch", "collection", "ips", "csv", "parquet"] | None,
        Parameter(
            help="FHIR: ndjson (the default) by resource type, transaction or batch bundles to upload, collection, "
            "one complete bundle a patient, or ips, one summary a patient. OMOP: csv (the default) or parquet."
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
        Several, Parameter(help="FHIR: a type to write beside the usual ones, such as Claim or Group; repeatable.")
    ] = None,
    exclude: Annotated[
        Several, Parameter(help="FHIR: a type to leave out, such as DocumentReference; repeatable.")
    ] = None,
    locale: Annotated[
        str | None, Parameter(help="FHIR: country of people and places, us (with US Core) if not given, gb, de, fr.")
    ] = None,
    us_core: Annotated[
        Literal["6.1", "8.0", "none"] | None,
        Parameter(help="FHIR: version of US Core, 6.1 if not given, or none for plain R4; of locale us."),
    ] = None,
    crosswalk: Annotated[
        list[Path] | None,
        Parameter(
            negative=(),
            help="FHIR: CSV or Parquet file of source_code and target_code, as ICD10CM//E11.9,SNOMED//44054006: the "
            "second is written beside the first; repeatable.",
        ),
    ] = None,
    measures: Annotated[
        Path | None,
        Parameter(help="FHIR: TOML file of quality measures to report instead of the built-in ones; see docs/fhir.md."),
    ] = None,
    validate: Annotated[
        Literal["none", "fast", "full"] | None,
        Parameter(
            help="FHIR and CDS Hooks: hold none, one of every shape with some hundred others (fast, the default), or "
            "all against fhir.resources."
        ),
    ] = None,
    hooks: Annotated[
        str | None,
        Parameter(
            help="CDS Hooks: some of patient-view,order-select,order-sign,encounter-discharge; all if not given."
        ),
    ] = None,
    moments: Annotated[
        int | None, Parameter(help="CDS Hooks: most moments of a patient for each hook, 1 if not given.")
    ] = None,
    prefetch: Annotated[
        Path | None, Parameter(help='CDS Hooks: TOML or JSON file of more queries to prefetch, as key = "Query".')
    ] = None,
    fhir_server: Annotated[
        str | None, Parameter(help="CDS Hooks: a URL to state that leads nowhere, as https://fhir.example.invalid/r4.")
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
    seed: Annotated[
        int | None, Parameter(help="FHIR and CDS Hooks: seed of ids, names and places; 0 if not given.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write events as FHIR R4 (US Core 6.1), CDS Hooks requests, OMOP CDM 5.4, CSV or MEDS, labelled as synthetic.

    Example:
        ehrsim export cohort --to fhir --out fhir --include Claim --exclude DocumentReference
        ehrsim export cohort --format ips --out summaries
        ehrsim export cohort --to cds-hooks --hooks patient-view,order-sign --out requests
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
        "us_core": us_core,
        "crosswalk": crosswalk,
        "measures": measures,
        "validate": validate,
        "hooks": hooks and [hook.strip() for hook in hooks.split(",")],
        "moments": moments,
        "prefetch_templates": prefetch,
        "fhir_server": fhir_server,
        "vocabulary": vocabulary,
        "splits": splits,
        "strict": strict or None,
        "seed": seed,
    }
    options = {name: value for name, value in given.items() if value is not None}
    _refuse_options_of_others(to, options)
    verbs: dict[str, Callable[..., Any]] = {
        "fhir": ehrsim.export_fhir,
        "cds-hooks": ehrsim.export_cds_hooks,
        "omop": ehrsim.export_omop,
        "csv": ehrsim.export_csv,
        "meds": ehrsim.export_meds,
    }
    with bars() as progress:
        report = verbs[to](events, out, overwrite=overwrite, progress=progress, **options)
    print("\n".join(report.lines()))


_OPTIONS = {
    "fhir": (
        *("format", "entries", "shard", "compressed", "include", "exclude", "locale", "us_core", "crosswalk"),
        *("measures", "validate", "seed"),
    ),
    "cds-hooks": ("hooks", "moments", "prefetch_templates", "fhir_server", "validate", "seed"),
    "omop": ("format", "vocabulary"),
    "csv": (),
    "meds": ("shard", "splits", "strict"),
}
"""The options that each format has, as the verbs name them."""
_FORMATS = {"fhir": ("ndjson", "transaction", "batch", "collection", "ips"), "omop": ("csv", "parquet")}
_NAMES = {"compressed": "--gzip", "prefetch_templates": "--prefetch"}
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
