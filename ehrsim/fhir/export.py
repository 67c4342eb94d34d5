"""The verb `export_fhir`: events in, FHIR R4 with US Core 6.1 profiles out, every resource labelled as synthetic."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

from ehrsim import codes, groups
from ehrsim.errors import UsageError
from ehrsim.fhir import identity
from ehrsim.fhir.batches import batches
from ehrsim.fhir.cohort import Cohort
from ehrsim.fhir.crosswalk import read_crosswalks
from ehrsim.fhir.fragments import Labels, Resource
from ehrsim.fhir.ips import IpsWriter, lines_as_ips
from ehrsim.fhir.links import link
from ehrsim.fhir.locales import LOCALES, Locale
from ehrsim.fhir.losses import count_losses, count_mapped
from ehrsim.fhir.places import ORGANIZATIONS, payer_resource, place_resources
from ehrsim.fhir.report import ExportReport
from ehrsim.fhir.shapes import Shapes
from ehrsim.fhir.table import table_of, without_control_characters
from ehrsim.fhir.validation import Validate, Validator
from ehrsim.fhir.writers import (
    ALWAYS,
    COHORT_TYPES,
    ENTRIES,
    FINANCIAL_TYPES,
    ON_REQUEST,
    TOLD_TYPES,
    TYPES,
    BundleWriter,
    Format,
    Layout,
    NdjsonWriter,
)
from ehrsim.groups import Events
from ehrsim.outputs import atomic_directory
from ehrsim.progress import Progress, silent

GROUP_EVENTS = {"ndjson": 250_000, "transaction": 25_000, "batch": 25_000, "collection": 25_000, "ips": 25_000}
"""Events of a group by format: bundles are held in memory until their group is complete."""
Writer = NdjsonWriter | BundleWriter
UsCore = Literal["6.1", "8.0", "none"]


def export_fhir(
    events: Events,
    out: str | Path,
    *,
    format: Format = "ndjson",
    entries: int = ENTRIES,
    shard: int | None = None,
    compressed: bool = False,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    validate: Validate = "fast",
    seed: int = 0,
    locale: str = "us",
    us_core: UsCore | None = None,
    measures: str | Path | None = None,
    crosswalk: Iterable[str | Path] = (),
    overwrite: bool = False,
    progress: Progress = silent,
) -> ExportReport:
    """Write events (a MEDS folder, a Parquet file or a frame) as FHIR R4 to the folder `out`, and say what was written.

    `ndjson` is the layout of FHIR Bulk Data: `Type.ndjson` and a `manifest.json`, cut after every `shard` resources and
    gzipped if asked for. `transaction` and `batch` are bundles to upload, of `entries` at most: `shared.json` first,
    then `SUBJECT.json` or its parts `SUBJECT-001.json`, in order. `collection` is one bundle a patient, complete in
    itself, and `ips` one International Patient Summary document a patient, of what tells events.
    All types of resources are written but those of payment (Coverage, Claim, ExplanationOfBenefit) and those on all
    patients together (Group, Measure, MeasureReport, in bundles of their own, `cohort.json`), which are to be asked for
    with `include`; those of `exclude` are left out, with all that refers to them. `measures` is a TOML file of quality
    measures to report instead of the built-in ones, see `ehrsim.quality`. `crosswalk` are files of further codes, see
    `ehrsim.fhir.crosswalk`.
    Ids are UUIDs of the run (from `metadata/dataset.json`), `seed`, the subject and the event, the same for any format,
    order or subset of the subjects. People and places are those of `locale`, a key of `LOCALES`; all but `us` are plain
    FHIR R4 without US Core. `us_core` is the version of US Core of those of `us`, 6.1 if not given, or `none`.
    `validate` is `none`; `fast`, which holds every byte that is written against the rules of FHIR and US Core and every
    reference against what it leads to; or `full`, which also evaluates all invariants and asks fhir.resources, on the
    first resource of every shape and some hundred others. Memory is bounded by a group of some hundred thousand events.

    Raises `InputError` for a source that is no event table, `UsageError` for an unknown option or an output that
    exists, `GateError` for a resource that is not valid; then nothing is written.
    """
    for option, value, known in (
        ("format", format, get_args(Format)),
        ("validate", validate, get_args(Validate)),
        ("locale", locale, tuple(LOCALES)),
        ("us_core", us_core or "none", get_args(UsCore)),
    ):
        if value not in known:
            raise UsageError(f"unknown {option} `{value}`", hint=f"expected one of {', '.join(known)}")
    layout = Layout(format, entries, shard, compressed, chosen_types(format, include, exclude))
    layout.check()
    country = LOCALES[locale]
    version = _version(country, us_core)
    if measures is not None and "MeasureReport" not in layout.types:
        raise UsageError("measures are given, but no MeasureReport is asked for", hint="include MeasureReport")
    further = read_crosswalks(crosswalk)
    report = ExportReport(format=format, mappable_codes=len(further.targets))
    with atomic_directory(Path(out), overwrite=overwrite) as folder, ExitStack() as stack:
        source = groups.open_source(events)
        key = identity.run_key(source.dataset, seed)
        labels = Labels(f"{codes.URI_BASE}/run/{identity.uuids(key.reshape(1, 2))[0]}", version)
        shapes, validator = Shapes(labels, further), Validator(validate, report, version or "6.1")
        prefix = layout.prefixes()
        places = [
            _of_types(place_resources(number, labels, prefix, country), layout.types) for number in range(ORGANIZATIONS)
        ]
        if "Coverage" in layout.types:
            places.append([payer_resource(labels, country)])
        validator.check(chain.from_iterable(places))
        if format == "ips":
            writer: Writer = IpsWriter(folder, places, labels, layout, validator, report)
        else:
            writer = _writer(layout, folder, places, labels, stack, validator)
        cohort = Cohort(source, key, labels, layout, measures) if layout.types & set(COHORT_TYPES) else None
        parts = groups.parts(source, GROUP_EVENTS[format], report)
        total = sum(part.subjects for part in parts)
        for part in parts:
            frame = without_control_characters(groups.read(part, report), report)
            if not frame.is_empty():
                table = table_of(frame, shapes, groups.descriptions_in(frame, source.descriptions), key)
                count_losses(table, shapes, report, layout.types)
                count_mapped(table, shapes, report, layout.types)
                links = link(table, prefix, country)
                for batch in batches(table, shapes, links, layout.types):
                    made = lines_as_ips(batch) if format == "ips" else batch
                    writer.write(made, validator.checked(made))
                writer.end_group(table, links.place.tolist())
                validator.end_group()
                if cohort is not None:
                    cohort.take(frame, table.subjects)
                report.patients += len(table.subjects)
            progress("export", report.patients, total, "patients")
        if cohort is not None:
            writer.write_cohort(validator.checked_alone(cohort.resources(report)))
        writer.finish()
        report.resources = dict(sorted(writer.counts.items()))
    return report


def _version(country: Locale, us_core: UsCore | None) -> str | None:
    """The version of US Core that resources of a country claim, None for plain FHIR."""
    if us_core in ("6.1", "8.0") and not country.us_core:
        raise UsageError(f"US Core {us_core} is of locale `us`, not of `{country.code}`", hint="leave out us_core")
    version = us_core or ("6.1" if country.us_core else "none")
    return None if version == "none" else version


def chosen_types(format: Format, include: Iterable[str], exclude: Iterable[str]) -> frozenset[str]:
    """The types of resources to write: all but those to be asked for, with those included, without those excluded.

    Summaries hold what tells events. Raises `UsageError` for a type that is not known, or that cannot be left out.
    """
    include, exclude = frozenset(include), frozenset(exclude)
    if format == "ips":
        if include | exclude:
            raise UsageError("types are not chosen for summaries", hint="leave out include and exclude")
        return TOLD_TYPES
    for name in sorted(include | exclude):
        if name not in TYPES:
            raise UsageError(f"unknown type of resource `{name}`", hint=f"expected one of {', '.join(TYPES)}")
        if name in exclude & ALWAYS:
            raise UsageError(
                f"`{name}` cannot be left out", hint="others refer to it, or it says that all is simulated"
            )
        if name in include & exclude:
            raise UsageError(f"`{name}` is both included and excluded")
    if include & set(FINANCIAL_TYPES):
        include |= {"Coverage"}
    if "MeasureReport" in include:
        include |= {"Measure"}
    return (frozenset(TYPES) - ON_REQUEST | include) - exclude


def _of_types(resources: list[Resource], types: frozenset[str]) -> list[Resource]:
    return [resource for resource in resources if resource["resourceType"] in types]


def _writer(
    layout: Layout,
    folder: Path,
    places: list[list[Resource]],
    labels: Labels,
    stack: ExitStack,
    validator: Validator,
) -> Writer:
    if layout.format == "ndjson":
        return NdjsonWriter(folder, places, labels, layout, stack)
    return BundleWriter(folder, places, labels, layout, validator.check_bundle)
