"""The definitions of HL7 as trees of elements, and the pieces of JSON Schema that single elements become."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from invariants import has, has_choice
from value_sets import Pairs, ValueSets

Schema = dict[str, Any]
Element = dict[str, Any]

BASE = "http://hl7.org/fhir/StructureDefinition/"
_WHOLE = {"integer": (-(2**31), 2**31 - 1), "unsignedInt": (0, 2**31 - 1), "positiveInt": (1, 2**31 - 1)}


class Package:
    """The definitions of some packages by URL; those of later packages stand beside, not above, earlier ones."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.structures: dict[str, Any] = {}
        value_sets: dict[str, Any] = {}
        code_systems: dict[str, Any] = {}
        kinds = {"StructureDefinition": self.structures, "ValueSet": value_sets, "CodeSystem": code_systems}
        for file in files:
            for definition in _definitions(file):
                kinds[definition["resourceType"]].setdefault(definition["url"], definition)
        self.value_sets = ValueSets(value_sets, code_systems)

    def base(self, type_name: str) -> Any:
        """The definition of a type of FHIR itself."""
        return self.structures[BASE + type_name]


def _definitions(file: Path) -> Iterator[Any]:
    with tarfile.open(file) as package:
        for member in package:
            folder, _, name = member.name.rpartition("/")
            wanted = name.startswith(("StructureDefinition-", "ValueSet-", "CodeSystem-")) and name.endswith(".json")
            content = package.extractfile(member) if folder == "package" and wanted else None
            if content is not None:
                yield json.load(content)


class Node:
    """An element of a definition with its children and its slices, by name."""

    def __init__(self, element: Element) -> None:
        self.element = element
        self.children: dict[str, Node] = {}
        self.slices: dict[str, Node] = {}


def tree_of(structure: Any) -> Node:
    """The elements of a snapshot as a tree, by their ids (`Patient.extension:race.url`)."""
    elements = structure["snapshot"]["element"]
    root = Node(elements[0])
    nodes = {elements[0]["id"]: root}
    for element in elements[1:]:
        above, _, name = element["id"].rpartition(".")
        base, _, slice_name = name.partition(":")
        node = nodes[element["id"]] = Node(element)
        if slice_name:
            nodes[f"{above}.{base}"].slices[slice_name] = node
        else:
            nodes[above].children[name] = node
    return root


def reference_to(name: str) -> Schema:
    """A `$ref` to a definition."""
    return {"$ref": f"#/$defs/{name}"}


def present(name: str) -> Schema:
    """That an element is there: itself, or of a primitive what stands in for it."""
    if name.endswith("[x]"):
        return has_choice(name[:-3])
    return {"$comment": f"`{name}` is required", **has(name)}


def is_resource(structure: Any) -> bool:
    """Whether a definition is that of a type of resource that there can be one of."""
    return (
        structure["kind"] == "resource"
        and structure.get("derivation") == "specialization"
        and not structure["abstract"]
    )


def type_code(kind: Any) -> str:
    """The name of a type; FHIR writes those of ids and of the values of primitives as FHIRPath types."""
    return kind["code"].removeprefix("http://hl7.org/fhirpath/System.").replace("String", "string")


def is_primitive(types: list[Any]) -> bool:
    """Whether an element may have its value, or extensions in its place beside it, as `_name`."""
    return (
        bool(types)
        and types[0]["code"][0].islower()
        and "fhirpath" not in types[0]["code"]
        and types[0]["code"] != "xhtml"
    )


def is_array(element: Element, *, base: bool = False) -> bool:
    """Whether an element repeats; `base`: in the type of FHIR, which is what decides how it is written."""
    return (element["base"]["max"] if base else element["max"]) not in ("0", "1")


def choices(name: str, element: Element) -> list[str]:
    """The properties of a choice: `valueQuantity`, `valueString` of `value[x]`."""
    return [name[:-3] + kind["code"][0].upper() + kind["code"][1:] for kind in element["type"]]


def listed(one: Schema) -> Schema:
    """A list that is not empty."""
    return {"type": "array", "items": one, "minItems": 1}


def one_of(names: list[str], element: Element) -> list[Schema]:
    """That a choice has one value at most, and one where it must."""
    options = [has(name) for name in names]
    if element["min"]:
        return [{"$comment": f"one `{element['path'].rpartition('.')[2]}` is required", "oneOf": options}]
    if len(names) == 1:
        return []
    return [
        {"if": present(element["path"].rpartition(".")[2]), "then": {"$comment": "one value only", "oneOf": options}}
    ]


def primitive(structure: Any) -> Schema:
    """The JSON type and lexical form of a primitive, as its definition gives it."""
    name = structure["type"]
    if name == "boolean":
        return {"type": "boolean"}
    if name == "decimal":
        return {"type": "number"}
    if name in _WHOLE:
        least, most = _WHOLE[name]
        return {"type": "integer", "minimum": least, "maximum": most}
    if name == "xhtml":
        return {"type": "string", "pattern": "^\\s*<div[\\s>]"}
    value = next(one for one in structure["snapshot"]["element"] if one["path"] == f"{name}.value")
    forms = [one["valueString"] for one in value["type"][0].get("extension", []) if one["url"].endswith("/regex")]
    schema: Schema = {"type": "string", "minLength": 1}
    if forms:
        schema["pattern"] = f"^({forms[0]})$"
    return schema


def coded(pairs: Pairs, code: str) -> Schema:
    """What a value of a listed value set looks like."""
    if code == "code":
        return {"enum": sorted({one for _, one in pairs})}
    systems: dict[str, list[str]] = {}
    for system, one in sorted(pairs):
        systems.setdefault(system, []).append(one)
    each = [
        {"properties": {"system": {"const": system}, "code": {"enum": codes}}, "required": ["system", "code"]}
        for system, codes in systems.items()
    ]
    coding = each[0] if len(each) == 1 else {"anyOf": each}
    return (
        {"properties": {"coding": {"contains": coding}}, "required": ["coding"]}
        if code == "CodeableConcept"
        else coding
    )


def fixed(element: Element) -> Schema:
    """That a value is, or holds, the fixed or pattern value of an element."""
    for name, value in element.items():
        if name.startswith("fixed"):
            return {"const": value}
        if name.startswith("pattern"):
            return _holding(value)
    return {}


def _holding(value: Any) -> Schema:
    if isinstance(value, dict):
        return {"properties": {name: _holding(one) for name, one in value.items()}, "required": list(value)}
    if isinstance(value, list):
        return all_of([{"contains": _holding(one)} for one in value])
    return {"const": value}


def member(name: str, asked: Schema, node: Node) -> Schema:
    """That an object has a member with what is asked for, one of them where it repeats."""
    if not asked:
        return {}
    return {
        "properties": {name: {"contains": asked} if is_array(node.element, base=True) else asked},
        "required": [name],
    }


def all_of(schemas: list[Schema]) -> Schema:
    """All of some schemas, without empty ones and repeats."""
    kept = list[Schema]()
    for schema in schemas:
        if schema and schema not in kept:
            kept.append(schema)
    if len(kept) < 2:
        return kept[0] if kept else {}
    merged: Schema = {}
    for schema in kept:
        # What says of itself what it is for does not say it of others.
        if "$comment" in schema or not merged.keys().isdisjoint(schema):
            return {"allOf": kept}
        merged |= schema
    return merged
