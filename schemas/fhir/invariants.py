"""Invariants of FHIR R4 and US Core as JSON Schema, by key (or `path:key` where one key means different things).

Only those that no schema can say (those that compare values, or follow references) are left to FHIRPath alone.
`compile.py` puts a schema where a definition has the constraint of that key, so what no definition has is not used.

None may depend on the digits of a `value`, of ids or of times: `ehrsim.fhir.validation` holds one line of each layout
against the schema, and of all others of that layout only that their ids, times and numbers are well formed.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_UCUM = "http://unitsofmeasure.org"
_THO = "http://terminology.hl7.org/CodeSystem/"


def has(name: str) -> Schema:
    """That an element is there, as itself or as a primitive that has only extensions."""
    return {"anyOf": [{"required": [name]}, {"required": [f"_{name}"]}]}


def has_choice(name: str) -> Schema:
    """That a choice (`value[x]`) has a value."""
    return {"not": {"patternProperties": {f"^_?{name}[A-Z]": False}}}


def either(*schemas: Schema) -> Schema:
    """That one of some schemas holds, or more."""
    return {"anyOf": list(schemas)}


def both(*schemas: Schema) -> Schema:
    """That all of some schemas hold."""
    return {"allOf": list(schemas)}


def no(schema: Schema) -> Schema:
    """That a schema does not hold."""
    return {"not": schema}


def implies(condition: Schema, consequence: Schema) -> Schema:
    """That one schema holds where another does."""
    return {"if": condition, "then": consequence}


def requires(name: str, *others: str) -> Schema:
    """That an element stands only beside another one."""
    return implies(has(name), either(*(has(other) for other in others)))


def excludes(name: str, other: str) -> Schema:
    """That one of two elements stands without the other."""
    return no(both(has(name), has(other)))


def is_one_of(name: str, *codes: str) -> Schema:
    """That an element is one of some codes."""
    return {"properties": {name: {"enum": list(codes)}}, "required": [name]}


def is_coded(name: str, system: str, *codes: str) -> Schema:
    """That a CodeableConcept has a coding of one of some codes."""
    coding = {
        "properties": {"system": {"const": system}, "code": {"enum": list(codes)}},
        "required": ["system", "code"],
    }
    return {
        "properties": {name: {"properties": {"coding": {"contains": coding}}, "required": ["coding"]}},
        "required": [name],
    }


def _each(name: str, schema: Schema) -> Schema:
    return {"properties": {name: {"items": schema}}}


def _in(name: str, schema: Schema) -> Schema:
    return {"properties": {name: schema}}


_REPORTED = ("partial", "preliminary", "final", "amended", "corrected", "appended")
_ORDERED = ("order", "original-order", "reflex-order", "filler-order", "instance-order")
_DATA_ABSENT = {
    "properties": {
        "extension": {
            "contains": {
                "properties": {"url": {"const": "http://hl7.org/fhir/StructureDefinition/data-absent-reason"}},
                "required": ["url"],
            }
        }
    },
    "required": ["extension"],
}
_OBSERVED = either(has("component"), has("hasMember"), has_choice("value"), has("dataAbsentReason"))
_NOT_HOME = _each("telecom", no(is_one_of("use", "home")))
_UCUM_ONLY = _in("system", {"const": _UCUM})
_SUBMITTED = is_one_of("type", "batch", "transaction", "history")
_ANSWERED = is_one_of("type", "batch-response", "transaction-response", "history")
_DOCUMENT = is_one_of("type", "document")
_DISPLAY = is_one_of("type", "display")
_LISTED = is_one_of(
    "type", *["choice", "open-choice", "decimal", "integer", "date", "dateTime", "time", "string", "quantity"]
)


def _entries(condition: Schema, name: str) -> Schema:
    """That all entries of a bundle have a member where the bundle is of some type, and none otherwise."""
    return {"if": condition, "then": _each("entry", has(name)), "else": _each("entry", no(has(name)))}


AS_SCHEMA: dict[str, Schema] = {
    # data types
    "ext-1": {"oneOf": [has("extension"), has_choice("value")]},
    "qty-3": requires("code", "system"),
    "cpt-2": requires("value", "system"),
    "att-1": requires("data", "contentType"),
    "drt-1": implies(has("code"), both(is_one_of("system", _UCUM), has("value"))),
    "rat-1": {
        "oneOf": [
            both(has("numerator"), has("denominator")),
            both(no(has("numerator")), no(has("denominator")), has("extension")),
        ]
    },
    "tim-1": requires("duration", "durationUnit"),
    "tim-2": requires("period", "periodUnit"),
    "tim-4": _in("duration", {"minimum": 0}),
    "tim-5": _in("period", {"minimum": 0}),
    "tim-6": requires("periodMax", "period"),
    "tim-7": requires("durationMax", "duration"),
    "tim-8": requires("countMax", "count"),
    "tim-10": excludes("timeOfDay", "when"),
    # Xhtml is a string for a schema: its active parts are told by their tags.
    "Narrative.div:txt-1": {
        "not": {"pattern": r"<\s*(script|form|base|link|xlink|iframe|object|head|body|input)[\s>/]"}
    },
    # resources of FHIR
    "dom-2": _each("contained", no(has("contained"))),
    "dom-4": _each("contained", _in("meta", no(either(has("versionId"), has("lastUpdated"))))),
    "dom-5": _each("contained", _in("meta", no(has("security")))),
    "ait-1": either(
        is_coded("verificationStatus", f"{_THO}allergyintolerance-verification", "entered-in-error"),
        has("clinicalStatus"),
    ),
    "ait-2": no(
        both(
            is_coded("verificationStatus", f"{_THO}allergyintolerance-verification", "entered-in-error"),
            has("clinicalStatus"),
        )
    ),
    "app-1": either(has("type"), has("actor")),
    "app-2": either(both(has("start"), has("end")), both(no(has("start")), no(has("end")))),
    "app-3": either(both(has("start"), has("end")), is_one_of("status", "proposed", "cancelled", "waitlist")),
    "app-4": implies(has("cancelationReason"), is_one_of("status", "no-show", "cancelled")),
    "bdl-1": implies(has("total"), is_one_of("type", "searchset", "history")),
    "bdl-2": either(is_one_of("type", "searchset"), _each("entry", no(has("search")))),
    "bdl-3": _entries(_SUBMITTED, "request"),
    "bdl-4": _entries(_ANSWERED, "response"),
    "bdl-5": either(has("resource"), has("request"), has("response")),
    "bdl-8": _in("fullUrl", no({"pattern": "/_history/"})),
    "bdl-9": implies(_DOCUMENT, {**_in("identifier", both(has("system"), has("value"))), "required": ["identifier"]}),
    "bdl-10": implies(_DOCUMENT, has("timestamp")),
    "bdl-11": implies(
        _DOCUMENT, _in("entry", {"prefixItems": [_in("resource", {**_in("resourceType", {"const": "Composition"})})]})
    ),
    "cmp-1": either(has("text"), has("entry"), has("section")),
    "cmp-2": excludes("emptyReason", "entry"),
    "con-1": either(has("summary"), has("assessment")),
    "con-2": either(has("code"), has("detail")),
    "con-4": implies(
        has_choice("abatement"),
        is_coded("clinicalStatus", f"{_THO}condition-clinical", "resolved", "remission", "inactive"),
    ),
    "con-5": no(
        both(is_coded("verificationStatus", f"{_THO}condition-ver-status", "entered-in-error"), has("clinicalStatus"))
    ),
    "cpl-3": excludes("detail", "reference"),
    "fhs-1": no(both(has_choice("age"), has_choice("born"))),
    "fhs-2": requires("estimatedAge", "ageAge", "ageRange", "ageString"),
    "gol-1": implies(has_choice("detail"), has("measure")),
    "grp-1": implies(has("member"), _in("actual", {"const": True})),
    "imm-1": either(has("documentType"), has("reference")),
    "lst-1": excludes("emptyReason", "entry"),
    "lst-2": either(is_one_of("mode", "changes"), _each("entry", no(has("deleted")))),
    "lst-3": either(is_one_of("mode", "working"), _each("entry", no(has("date")))),
    "mrp-1": implies(is_one_of("type", "data-collection"), no(has("group"))),
    "mad-1": either(has("dose"), has_choice("rate")),
    "obs-3": either(has("low"), has("high"), has("text")),
    "obs-6": implies(has("dataAbsentReason"), no(has_choice("value"))),
    "org-1": either(has("identifier"), has("name")),
    "org-2": _each("address", no(is_one_of("use", "home"))),
    "org-3": _NOT_HOME,
    "pat-1": either(has("name"), has("telecom"), has("address"), has("organization")),
    "prr-1": requires("orderDetail", "code"),
    "que-1": both(implies(is_one_of("type", "group"), has("item")), implies(_DISPLAY, no(has("item")))),
    "que-3": implies(_DISPLAY, no(has("code"))),
    "que-4": excludes("answerOption", "answerValueSet"),
    "que-5": either(_LISTED, both(no(has("answerOption")), no(has("answerValueSet")))),
    "que-6": implies(_DISPLAY, both(no(has("required")), no(has("repeats")))),
    "que-8": implies(is_one_of("type", "group", "display"), no(has("initial"))),
    "que-9": implies(_DISPLAY, no(has("readOnly"))),
    "que-11": excludes("answerOption", "initial"),
    "qrs-1": excludes("answer", "item"),
    # US Core
    "us-core-1": {"minLength": 10},
    "us-core-2": _OBSERVED,
    "us-core-6": {"oneOf": [either(has("family"), has("given")), _DATA_ABSENT]},
    "DocumentReference.content.attachment:us-core-6": either(has("url"), has("data")),
    "us-core-7": implies(is_one_of("status", "completed", "in-progress"), has_choice("performed")),
    "us-core-8": implies(is_one_of("status", *_REPORTED), has_choice("effective")),
    "us-core-9": implies(is_one_of("status", *_REPORTED), has("issued")),
    "us-core-10": implies(is_one_of("status", *_REPORTED), has_choice("effective")),
    "us-core-13": either(has("practitioner"), has("organization"), has("healthcareService"), has("location")),
    "us-core-14": either(has("name"), has("relationship")),
    "us-core-20": implies(is_one_of("status", "completed"), has("whenHandedOver")),
    "us-core-21": implies(is_one_of("intent", *_ORDERED), has("requester")),
    "us-core-22": both(_in("low", _UCUM_ONLY), _in("high", _UCUM_ONLY)),
    "us-core-26": either(has_choice("value"), has("dataAbsentReason")),
    "pd-1": either(has("telecom"), has("endpoint")),
    "vs-1": {"minLength": 10},
    "vs-2": _OBSERVED,
    "vs-3": either(has_choice("value"), has("dataAbsentReason")),
    "provenance-1": implies(
        {
            "properties": {
                "who": {"properties": {"reference": {"pattern": "^(Practitioner|Device)/"}}, "required": ["reference"]}
            },
            "required": ["who"],
        },
        has("onBehalfOf"),
    ),
}
