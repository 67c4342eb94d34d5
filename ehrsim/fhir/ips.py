"""International Patient Summary documents (HL7 IPS 1.1.0, CC0): one document Bundle a patient, from the same resources.

A summary holds what a reader who does not know the patient needs: problems and medications that have not ended, all
allergies, immunizations and procedures, and the latest of each code among results, vital signs and the rest. What is
left out is counted. Resources claim the IPS profile that they meet beside the US Core one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
import polars as pl

from ehrsim import codes
from ehrsim.fhir import contents, identity, profiles
from ehrsim.fhir.fragments import HL7, Fragment, Labels, Resource, absent_extension, concept, narrative
from ehrsim.fhir.patients import NEVER, last_moments
from ehrsim.fhir.record import Batch
from ehrsim.fhir.report import ExportReport
from ehrsim.fhir.summaries import SECTIONS, Section, chosen, section_narrative
from ehrsim.fhir.table import Table
from ehrsim.fhir.validation import Validator
from ehrsim.fhir.writers import REFERENCE, BundleWriter, Entry, Layout

IPS = "http://hl7.org/fhir/uv/ips/StructureDefinition/"
ABSENT_SYSTEM = "http://hl7.org/fhir/uv/ips/CodeSystem/absent-unknown-uv-ips"
_SUMMARY = concept(codes.uri("LOINC"), "60591-5", "Patient summary Document")
_TOBACCO_ANSWERS = frozenset(
    "LA18976-3 LA18977-1 LA15920-4 LA18978-9 LA18979-7 LA18980-5 LA18981-3 LA18982-1".split()  # noqa: SIM905
)
"""LOINC answers that the IPS profile of tobacco use binds its value to."""
_PROFILES = {
    name: f"{name}-uv-ips"
    for name in (
        *("Patient", "Organization", "Practitioner", "Condition", "AllergyIntolerance", "MedicationRequest"),
        *("Immunization", "Procedure"),
    )
}


def lines_as_ips(batch: Batch) -> Batch:
    """A batch whose resources claim the IPS profiles they meet, with what those ask for stated to be unknown."""
    return batch._replace(lines=(pl.Series(_each_as_ips(lines)) for lines in batch.lines))


def _each_as_ips(lines: pl.Series) -> list[str]:
    return [orjson.dumps(as_ips(orjson.loads(line))).decode() for line in lines.to_list()]


def as_ips(resource: Resource) -> Resource:
    """A resource with the IPS profile that it meets added to its own ones, if there is one."""
    kind = resource["resourceType"]
    profile = _PROFILES.get(kind)
    if kind == "Patient" and "birthDate" not in resource:
        resource["_birthDate"] = absent_extension("unknown")
    elif kind == "Procedure" and contents.span(resource) == (None, None):
        resource["_performedDateTime"] = absent_extension("unknown")
    elif kind == "DiagnosticReport" and resource["status"] == "final":
        profile = "DiagnosticReport-uv-ips"
    elif kind == "Observation":
        profile = _observation_profile(resource)
    if f"{contents.TIMES.get(kind)}Period" in resource:
        # The profiles allow a period, but spell out the parts of a time without type, which validators take for all.
        profile = None
    return _claiming(resource, profile) if profile else resource


def _observation_profile(resource: Resource) -> str | None:
    category = contents.category_of(resource)
    if category == profiles.SOCIAL:
        answers = {code for _, code in contents.codings(resource.get("valueCodeableConcept", {}))}
        meets = answers and answers <= _TOBACCO_ANSWERS and "effectiveDateTime" in resource
        is_smoking = contents.codings(resource["code"])[0][1] == profiles.SMOKING_STATUS
        return "Observation-tobaccouse-uv-ips" if meets and is_smoking else None
    if category == profiles.VITAL_SIGN:
        return None
    if contents.span(resource) == (None, None):
        resource["_effectiveDateTime"] = absent_extension("unknown")
    laboratory = category == profiles.LABORATORY and "performer" in resource and _has_coded_value(resource)
    return f"Observation-results-{'laboratory-' if laboratory else ''}uv-ips"


def _has_coded_value(observation: Resource) -> bool:
    """Whether there is a value of its own (ips-2), and its unit, where it has one, is of UCUM."""
    quantity = observation.get("valueQuantity")
    if quantity is not None:
        return bool(quantity.get("system") == codes.UCUM_URI)
    return "valueString" in observation or "valueCodeableConcept" in observation


def _claiming(resource: Resource, profile: str) -> Resource:
    meta = resource["meta"]
    claimed = {"profile": [*meta.get("profile", ()), IPS + profile]}
    resource["meta"] = {"source": meta["source"], **claimed, **{k: v for k, v in meta.items() if k not in claimed}}
    return resource


_ABSENT_WORDS = {
    "no-problem-info": "No information about problems",
    "no-known-problems": "No known problems",
    "no-medication-info": "No information about medications",
    "no-known-medications": "No known medications",
    "no-allergy-info": "No information about allergies",
    "no-known-allergies": "No known allergies",
}
_PATIENT_ELEMENT = {"AllergyIntolerance": "patient"}
_ABSENT_MEMBERS: dict[str, Resource] = {
    "Condition": {"clinicalStatus": concept(f"{HL7}condition-clinical", "active", "Active")},
    "AllergyIntolerance": {"clinicalStatus": concept(f"{HL7}allergyintolerance-clinical", "active", "Active")},
    "MedicationStatement": {"status": "unknown", "_effectiveDateTime": absent_extension("unknown")},
}


def absent_resource(resource_type: str, code: str, patient: str, meta: Resource) -> Resource:
    """The resource that says that there is nothing to report, or no information; its id is of the patient's."""
    said = {**concept(ABSENT_SYSTEM, code, _ABSENT_WORDS[code]), "text": _ABSENT_WORDS[code]}
    resource: Resource = {
        "resourceType": resource_type,
        "id": identity.uuid_of("absent", code, patient),
        "meta": meta,
        **_ABSENT_MEMBERS[resource_type],
        "medicationCodeableConcept" if resource_type == "MedicationStatement" else "code": said,
        _PATIENT_ELEMENT.get(resource_type, "subject"): {"reference": f"urn:uuid:{patient}"},
    }
    return _claiming(resource, f"{resource_type}-uv-ips")


class Document(NamedTuple):
    """What is made for a document beside the resources of the record."""

    composition: Resource
    absent: list[Resource]
    sections: int
    """A bit for each section that it has, to tell the shapes of compositions."""


def document(resources: list[Resource], recorded: str, meta: Resource, report: ExportReport) -> Document:
    """The Composition of one patient's resources (the Patient first); what it leaves out is counted in `report`."""
    patient = resources[0]
    parts, made, mask = [], [], 0
    placed = {"Patient", "Encounter", "Provenance"}
    for bit, section in enumerate(SECTIONS):
        own, repeated = chosen(section, resources)
        report.leave_out(f"{section.title.lower()} of a code that has an entry already", repeated)
        code = ""
        if not own and section.absent:
            code = section.absent.all_ended if _recorded(section, resources) else section.absent.never_recorded
            own = [absent_resource(section.absent.resource_type, code, patient["id"], meta)]
            made += own
        if own:
            mask |= 1 << bit
            text = narrative(_ABSENT_WORDS[code]) if code else _table_of(section, own)
            parts.append(_section(section, own, text))
    for resource in resources:
        if resource["resourceType"] not in placed and not any(section.takes(resource) for section in SECTIONS):
            report.leave_out(f"{resource['resourceType']} that has ended", 1)
    return Document(_composition(patient, parts, recorded, meta), made, mask)


def _recorded(section: Section, resources: list[Resource]) -> bool:
    """Whether a record has anything of the kind of a section, listed or not."""
    kind = section.absent.resource_type if section.absent else ""
    kind = "MedicationRequest" if kind == "MedicationStatement" else kind
    return any(resource["resourceType"] == kind for resource in resources)


def _table_of(section: Section, own: list[Resource]) -> Resource:
    return section_narrative(section.columns, [section.row(resource) for resource in own])


def _section(section: Section, own: list[Resource], text: Resource) -> Resource:
    return {
        "title": section.title,
        "code": concept(codes.uri("LOINC"), section.code, section.display),
        "text": text,
        "entry": [{"reference": f"urn:uuid:{resource['id']}"} for resource in own],
    }


def _composition(patient: Resource, sections: list[Resource], recorded: str, meta: Resource) -> Resource:
    number = patient["identifier"][0]["value"]
    composition: Resource = {
        "resourceType": "Composition",
        "id": identity.uuid_of("Composition", patient["id"]),
        "meta": meta,
        "text": narrative(f"Summary of the simulated patient {number}, who never existed"),
        "status": "final",
        "type": _SUMMARY,
        "subject": {"reference": f"urn:uuid:{patient['id']}"},
        "date": recorded,
        "author": patient["generalPractitioner"],
        "title": f"Patient summary of simulated patient {number}",
        "custodian": patient["managingOrganization"],
        "section": sections,
    }
    return _claiming(composition, "Composition-uv-ips")


class IpsWriter(BundleWriter):
    """Documents by patient, named by the subject id; `counts` are the resources in them."""

    def __init__(
        self,
        folder: Path,
        places: list[list[Resource]],
        labels: Labels,
        layout: Layout,
        validator: Validator,
        report: ExportReport,
    ) -> None:
        as_documents = [[as_ips(orjson.loads(orjson.dumps(resource))) for resource in place] for place in places]
        super().__init__(folder, as_documents, labels, layout, validator.check_bundle)
        self._validator, self._report = validator, report
        self._labels: Resource = orjson.loads(orjson.dumps(labels.meta()))

    def write(self, batch: Batch, lines: Iterator[pl.Series]) -> None:
        """Gather the entries of a batch by subject; they are counted when it is known which are in the documents."""
        self.gather(batch, lines)

    def end_group(self, table: Table, places: list[int]) -> None:
        """Write the documents of a group."""
        recorded = last_moments(table).fill_null(NEVER).to_list()
        gathered = [self._entries.pop(subject) for subject in range(len(table.subjects))]
        documents = [
            document([orjson.loads(entry.resource) for entry in entries], moment, self._labels, self._report)
            for entries, moment in zip(gathered, recorded, strict=True)
        ]
        for subject, made in enumerate(documents):
            self._validate(subject, made.composition, -1 - made.sections)
            for resource in made.absent:
                self._validate(subject, resource, -1 - list(_ABSENT_WORDS).index(_absent_code(resource)))
        rows = zip(table.subjects.tolist(), places, gathered, documents, recorded, strict=True)
        for number, place, entries, made, moment in rows:
            self._write_document(str(number), self._places[place] + entries, made, moment)

    def finish(self) -> None:
        """Nothing is left to write."""

    def _validate(self, subject: int, resource: Resource, shape: int) -> None:
        ids, line = pl.Series([resource["id"]]), pl.Series([orjson.dumps(resource).decode()])
        batch = Batch(resource["resourceType"], ids, np.array([subject]), np.array([shape]), iter([line]))
        deque(self._validator.checked(batch), maxlen=0)

    def _write_document(self, name: str, entries: list[Entry], made: Document, recorded: str) -> None:
        """The Composition, the Patient, and in the order of the record what these lead to, with the Provenance."""
        first = [_entry(resource) for resource in (made.composition, *made.absent)]
        provenance = [entry for entry in entries if entry.resource_type == "Provenance"]
        reached = _reached([*first, *provenance], {entry.uuid: entry for entry in entries})
        kept = [entry for entry in entries if entry.uuid in reached or entry.resource_type == "Provenance"]
        unseen = sum(entry.resource_type == "Encounter" for entry in entries)
        unseen -= sum(entry.resource_type == "Encounter" for entry in kept)
        self._report.leave_out("Encounter that no entry refers to", unseen)
        patient = [entry for entry in kept if entry.resource_type == "Patient"]
        others = [entry for entry in kept if entry.resource_type != "Patient"]
        ordered = [first[0], *patient, *first[1:], *others]
        self.counts.update(entry.resource_type for entry in ordered)
        uuid = identity.uuid_of("document", patient[0].uuid)
        bundle = _claiming({"meta": self._labels}, "Bundle-uv-ips")
        document: Resource = {
            "resourceType": "Bundle",
            "id": uuid,
            "meta": bundle["meta"],
            "identifier": {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{uuid}"},
            "type": "document",
            "timestamp": recorded,
            "entry": [{"fullUrl": f"urn:uuid:{one.uuid}", "resource": Fragment(one.resource)} for one in ordered],
        }
        (self._folder / f"{name}.json").write_bytes(orjson.dumps(document))


def _absent_code(resource: Resource) -> str:
    said = resource.get("code", resource.get("medicationCodeableConcept"))
    return contents.codings(said)[0][1]


def _entry(resource: Resource) -> Entry:
    return Entry(resource["resourceType"], resource["id"], orjson.dumps(resource))


def _reached(start: list[Entry], known: dict[str, Entry]) -> set[str]:
    """The ids of all entries that some entries lead to by references."""
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        for uuid in REFERENCE.findall(waiting.pop().resource):
            identifier = uuid.decode()
            if identifier in known and identifier not in found:
                found.add(identifier)
                waiting.append(known[identifier])
    return found
