"""Compile the StructureDefinitions of FHIR R4 and US Core to the rules that `ehrsim.fhir.validation` holds resources
against: one JSON Schema per version of US Core, and the invariants (FHIRPath) that a schema cannot say.

Reproduce: `make fhir-rules PACKAGES=FOLDER`, where FOLDER holds the packages `hl7.fhir.r4.core.tgz`, `us_core_610.tgz`
and `us_core_800.tgz` as HL7 publishes them (CC0). It writes `ehrsim/fhir/rules/us-core-VERSION.json.gz`; the same
packages give the same bytes.

What the schema holds: structure, cardinality, lexical forms, required bindings that can be listed, fixed and pattern
values, slices by value, pattern, type and URL, one value of a choice, types of literal references, and the invariants
of `invariants.py`. Profiles are those of US Core; a resource is held against the ones that its `meta.profile` names.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from definitions import (
    BASE,
    Element,
    Node,
    Package,
    Schema,
    all_of,
    choices,
    coded,
    fixed,
    is_array,
    is_primitive,
    is_resource,
    listed,
    member,
    one_of,
    present,
    primitive,
    reference_to,
    tree_of,
    type_code,
)
from invariants import AS_SCHEMA, has

RULES = Path(__file__).parents[2] / "ehrsim" / "fhir" / "rules"
CORE_PACKAGE = "hl7.fhir.r4.core.tgz"
PACKAGES = {"6.1": "us_core_610.tgz", "8.0": "us_core_800.tgz"}
RESOURCE_TYPES = tuple(
    """
    AdverseEvent AllergyIntolerance Appointment Bundle CarePlan CareTeam Claim Composition Condition Coverage
    Device DiagnosticReport DocumentReference Encounter ExplanationOfBenefit FamilyMemberHistory Goal Group
    Immunization List Location Measure MeasureReport Medication MedicationAdministration MedicationDispense
    MedicationRequest Observation Organization Patient Practitioner PractitionerRole Procedure Provenance
    Questionnaire QuestionnaireResponse RelatedPerson ResearchStudy ResearchSubject ServiceRequest Specimen
    """.split()  # noqa: SIM905
)
"""Types whose content is held against rules; of others only the name is known."""
LARGEST_BINDING = 1_000
"""Codes of a value set that is listed; larger ones are not held."""


class Compiler:
    """Gathers `$defs` by name, and invariants by the definition on whose elements they hold."""

    def __init__(self, package: Package, version: str) -> None:
        self._package, self._version = package, version
        self.definitions: dict[str, Schema] = {}
        self.invariants: dict[str, list[list[str]]] = {}
        self.slices: dict[str, dict[str, Schema]] = {}
        self._profiles: dict[str, str] = {}

    def rules(self) -> Any:
        """The schema and the invariants of all resource types and profiles."""
        for name in RESOURCE_TYPES:
            self._type(name)
        for url, structure in sorted(self._package.structures.items()):
            if "/us/core/" in url and structure["type"] in (*RESOURCE_TYPES, "Extension"):
                self._dispatch(structure, self._profile(url))
        names = [url.removeprefix(BASE) for url, known in self._package.structures.items() if is_resource(known)]
        self.definitions["Resource"] = {
            "type": "object",
            "required": ["resourceType"],
            "properties": {"resourceType": {"enum": sorted(names)}},
            "allOf": [
                {"if": {"properties": {"resourceType": {"const": name}}}, "then": reference_to(name)}
                for name in RESOURCE_TYPES
            ],
        }
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$comment": f"FHIR R4 with US Core {self._version}; content of HL7, CC0-1.0",
            "$ref": "#/$defs/Resource",
            "$defs": dict(sorted(self.definitions.items())),
        }
        return {
            "schema": schema,
            "profiles": dict(sorted(self._profiles.items())),
            "invariants": dict(sorted(self.invariants.items())),
            "slices": dict(sorted(self._slices_with_invariants())),
        }

    def _slices_with_invariants(self) -> Iterator[tuple[str, dict[str, Schema]]]:
        """By element, what tells the slices apart that have invariants of their own."""
        for element, slices in self.slices.items():
            names = {name for name in slices for held in self.invariants if f"{held}.".startswith(f"{element}:{name}.")}
            if names:
                yield element, {name: slices[name] for name in sorted(names)}

    def _dispatch(self, structure: Any, profile: str) -> None:
        """Hold resources against a profile where `meta.profile` names it, extensions where their URL does."""
        url = structure["url"]
        if structure["type"] == "Extension":
            condition: Schema = {"properties": {"url": {"const": url}}, "required": ["url"]}
        else:
            self._profiles[url] = profile
            named = {"contains": {"enum": [url, f"{url}|{structure['version']}"]}}
            meta = {"properties": {"profile": named}, "required": ["profile"]}
            condition = {"properties": {"meta": meta}, "required": ["meta"]}
        rules = self.definitions[structure["type"]].setdefault("allOf", [])
        rules.append({"if": condition, "then": reference_to(profile)})

    # -- types of FHIR itself

    def _type(self, name: str) -> Schema:
        """A reference to the definition of a type, compiled where it is new."""
        if name not in self.definitions:
            self.definitions[name] = {}
            structure = self._package.base(name)
            if structure["kind"] == "primitive-type":
                self.definitions[name] = primitive(structure)
            else:
                self._structure(tree_of(structure), name, structure)
        return reference_to(name)

    def _structure(self, node: Node, name: str, structure: Any) -> None:
        """The definition of an object with its own children: a type, or an element that has some."""
        schema: Schema = {"type": "object", "properties": {}, "additionalProperties": False, "minProperties": 1}
        self.definitions[name] = schema
        required, rules = list[str](), list[Schema]()
        if structure["kind"] == "resource" and name == structure["type"]:
            schema["properties"]["resourceType"] = {"const": name}
            required.append("resourceType")
        for child_name, child in node.children.items():
            element = child.element
            if child_name.endswith("[x]"):
                names = choices(child_name, element)
                for kind, choice in zip(element["type"], names, strict=True):
                    self._property(schema, choice, child, [kind], name)
                rules += one_of(names, element)
            else:
                self._property(schema, child_name, child, element.get("type", []), name)
                if element["min"] and not is_primitive(element.get("type", [])):
                    required.append(child_name)
                elif element["min"]:
                    rules.append(present(child_name))
        self._constraints(name, node.element, rules)
        schema |= {"required": required} if required else {}
        schema |= {"allOf": rules} if rules else {}

    def _property(self, schema: Schema, name: str, node: Node, types: list[Any], above: str) -> None:
        """A property of an object, and of a primitive the one that holds its id and extensions."""
        element = node.element
        one = self._one(node, types, f"{above}.{name}")
        if not node.children and "contentReference" not in element:
            rules = list[Schema]()
            own = [held for held in element.get("constraint", []) if held["key"] != "ext-1"]
            self._constraints(f"{above}.{name}", {"path": element["path"], "constraint": own}, rules)
            one = {**one, "allOf": [*one.get("allOf", []), *rules]} if rules else one
        many = is_array(element)
        if is_primitive(types):
            extension = self._type("Element")
            if many:
                one = {"anyOf": [one, {"type": "null"}]}
                extension = {"anyOf": [extension, {"type": "null"}]}
            schema["properties"][f"_{name}"] = listed(extension) if many else extension
        schema["properties"][name] = listed(one) if many else one

    def _one(self, node: Node, types: list[Any], path: str) -> Schema:
        """The schema of one value of an element."""
        element = node.element
        if "contentReference" in element:
            return reference_to(element["contentReference"].lstrip("#"))
        if node.children:
            self._structure(node, path, {"kind": "element"})
            return reference_to(path)
        kind = types[0]
        code = "id" if element["base"]["path"] == "Resource.id" else type_code(kind)
        if code == "Resource":
            return reference_to("Resource")
        if code == "Reference":
            return self._reference(kind.get("targetProfile", []))
        schema = self._type(code)
        if "binding" in element and element["binding"]["strength"] == "required":
            bound = self._bound(element["binding"].get("valueSet", ""), code)
            if bound:
                schema = bound if code == "code" else {**schema, "allOf": [bound]}
        for profile in kind.get("profile", []):
            schema = {**schema, "allOf": [*schema.get("allOf", []), reference_to(self._profile(profile))]}
        return schema

    def _reference(self, targets: list[str]) -> Schema:
        """References to some types: relative ones name one of them; of others the type is seen in the target only."""
        types = sorted({self._package.structures[url]["type"] for url in targets if url in self._package.structures})
        if not types or "Resource" in types:
            return self._type("Reference")
        name = "Reference-" + "-".join(types)
        if name not in self.definitions:
            pattern = f"^(#|urn:|https?:|({'|'.join(types)})[/?])"
            self.definitions[name] = {
                **self._type("Reference"),
                "properties": {"reference": {"pattern": pattern}, "type": {"enum": types}},
            }
        return reference_to(name)

    def _bound(self, value_set: str, code: str) -> Schema | None:
        """What a required binding asks for; None where the value set cannot be listed."""
        pairs = self._package.value_sets.expanded(value_set.partition("|")[0])
        if not pairs or len(pairs) > LARGEST_BINDING or code not in ("code", "Coding", "CodeableConcept", "Quantity"):
            return None
        name = f"{value_set.partition('|')[0].rpartition('/')[2]}.{code}"
        if name not in self.definitions:
            self.definitions[name] = {"$comment": f"a code of {value_set}", **coded(pairs, code)}
        return reference_to(name)

    def _constraints(self, name: str, element: Element, rules: list[Schema]) -> None:
        """Invariants of an element: as schemas where `AS_SCHEMA` has them, and as they are for FHIRPath."""
        for constraint in element.get("constraint", []):
            key, expression = constraint["key"], constraint.get("expression")
            if constraint["severity"] != "error" or not expression or key == "ele-1":
                continue
            written = AS_SCHEMA.get(f"{element['path']}:{key}", AS_SCHEMA.get(key))
            if written:
                rules.append({"$comment": f"{key}: {constraint['human']}", **written})
            held = self.invariants.setdefault(name, [])
            if [key, expression, constraint["human"]] not in held:
                held.append([key, expression, constraint["human"]])

    # -- profiles

    def _profile(self, url: str) -> str:
        """The name of the definition that holds what a profile asks beyond its type."""
        structure = self._package.structures[url]
        name = structure["id"]
        if name not in self.definitions:
            self.definitions[name] = {}
            self.definitions[name] = self._overlay(tree_of(structure), name, structure)
        return name

    def _overlay(self, node: Node, name: str, structure: Any = None) -> Schema:
        """What the children of an element are asked for beyond what their types ask; `name` is that of invariants."""
        properties: dict[str, Any] = {}
        rules: list[Schema] = []
        for child_name, child in node.children.items():
            if child_name.endswith("[x]"):
                self._choice(child_name, child, properties, rules, name)
                continue
            element = child.element
            if element["max"] == "0":
                properties[child_name] = False
                continue
            if element["min"] > element["base"]["min"] or (element["min"] and structure is None):
                rules.append(present(child_name))
            asked = self._asked(child, name, f"{name}.{child_name}")
            if is_array(element, base=True):
                asked = self._array(child, asked, name)
            if asked:
                properties[child_name] = asked
        if structure is not None:
            known = self._constraint_keys(structure["type"])
            new = [held for held in node.element.get("constraint", []) if held["key"] not in known]
            self._constraints(name, {**node.element, "constraint": new}, rules)
        return {**({"properties": properties} if properties else {}), **({"allOf": rules} if rules else {})}

    def _asked(self, node: Node, profile: str, name: str, types: list[Any] | None = None) -> Schema:
        """What one value of an element is asked for: value, binding, targets, profiles of its type, children."""
        element = node.element
        asked = [fixed(element)]
        for kind in element.get("type", []) if types is None else types:
            code = type_code(kind)
            if code == "Reference" and kind.get("targetProfile"):
                asked.append(self._reference(kind["targetProfile"]))
            asked += [
                reference_to(self._profile(url))
                for url in kind.get("profile", [])
                if url in self._package.structures and len(kind["profile"]) == 1
            ]
            if element.get("binding", {}).get("strength") == "required":
                asked.append(self._bound(element["binding"].get("valueSet", ""), code) or {})
        rules: list[Schema] = []
        owners = [element["base"]["path"].partition(".")[0], *(type_code(kind) for kind in element.get("type", []))]
        known = frozenset[str]().union(*(self._constraint_keys(owner) for owner in owners))
        new = [one for one in element.get("constraint", []) if one["key"] not in known]
        self._constraints(name, {"path": element["path"], "constraint": new}, rules)
        return all_of([*asked, *rules, self._overlay(node, name)])

    def _constraint_keys(self, type_name: str) -> frozenset[str]:
        """The keys of all constraints of a type of FHIR."""
        structure = self._package.structures.get(BASE + type_name)
        elements = structure["snapshot"]["element"] if structure else []
        return frozenset(held["key"] for element in elements for held in element.get("constraint", []))

    def _array(self, node: Node, asked: Schema, profile: str) -> Schema:
        """What the values of an element that repeats are asked for: each of them, their number, and those of slices."""
        element = node.element
        rules: list[Schema] = [{"items": asked}] if asked else []
        if element["max"] not in ("*", element["base"]["max"]):
            rules.append({"maxItems": int(element["max"])})
        if element["min"] > max(1, element["base"]["min"]):
            rules.append({"minItems": element["min"]})
        discriminators = element.get("slicing", {}).get("discriminator", [])
        chosen = []
        for slice_name, one in node.slices.items():
            condition = all_of([self._discriminated(one, each) for each in discriminators])
            if not condition:
                continue
            chosen.append(condition)
            name = f"{profile}.{element['path'].rpartition('.')[2]}"
            self.slices.setdefault(name, {})[slice_name] = condition
            content = self._asked(one, profile, f"{name}:{slice_name}")
            if content and content != condition:
                rules.append({"items": {"if": condition, "then": content}})
            number: Schema = {}
            if one.element["min"]:
                number = {"minContains": one.element["min"]}
            if one.element["max"] != "*":
                number |= {"minContains": one.element["min"], "maxContains": int(one.element["max"])}
            if number:
                said = f"{one.element['min']}..{one.element['max']} of slice {slice_name}"
                rules.append({"$comment": said, "contains": condition, **number})
        if chosen and element["slicing"]["rules"] == "closed":
            rules.append({"items": {"anyOf": chosen}})
        return all_of(rules)

    def _discriminated(self, node: Node, discriminator: dict[str, str]) -> Schema:
        """What tells the values of a slice from others."""
        path = discriminator["path"]
        if path == "url":
            urls = [url for kind in node.element["type"] for url in kind.get("profile", [])]
            url = urls[0] if urls else node.children["url"].element["fixedUri"]
            return {"properties": {"url": {"const": url}}, "required": ["url"]}
        return self._at([node], [] if path == "$this" else path.split("."))

    def _at(self, nodes: list[Node], path: list[str]) -> Schema:
        """What is asked for at a path below an element, as a schema of the element."""
        node = nodes[-1]
        if not path:
            asked = [fixed(node.element)]
            if not asked[0] and node.element.get("binding", {}).get("strength") == "required":
                kinds = node.element["type"]
                asked.append(self._bound(node.element["binding"]["valueSet"], kinds[0]["code"]) or {})
            asked += [member(name, self._at([child], []), child) for name, child in node.children.items()]
            return all_of(asked)
        child = node.children.get(path[0])
        if child is None:
            return fixed(node.element)
        return member(path[0], self._at([child], path[1:]), child)

    def _choice(self, name: str, node: Node, properties: dict[str, Any], rules: list[Schema], above: str) -> None:
        """A choice of types: those that are left, what each is asked for, and that there is one."""
        element = node.element
        every = self._package.base(element["base"]["path"].partition(".")[0])["snapshot"]["element"]
        base = next(one for one in every if one["path"] == element["base"]["path"])
        left = choices(name, element) if element["max"] != "0" else []
        for choice in choices(name, base):
            if choice not in left:
                properties[choice] = properties[f"_{choice}"] = False
        for kind, choice in zip(element.get("type", []), left, strict=False):
            sliced = node.slices.get(choice)
            asked = [self._asked(node, above, f"{above}.{choice}", [kind])]
            if sliced is not None:
                asked.append(self._asked(sliced, above, f"{above}.{choice}"))
                if sliced.element["min"]:
                    rules.append(present(choice))
            if any(asked):
                properties[choice] = all_of(asked)
        if left and element["min"] > element["base"]["min"]:
            rules.append({"$comment": f"`{name}` is required", "anyOf": [has(choice) for choice in left]})


def compiled(packages: Path, version: str) -> bytes:
    """The rules of a version of US Core, packed."""
    rules = Compiler(Package([packages / CORE_PACKAGE, packages / PACKAGES[version]]), version).rules()
    return gzip.compress(json.dumps(rules, separators=(",", ":")).encode(), 9, mtime=0)


def main() -> None:
    """Write the rules of every version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="the folder that holds the packages of HL7")
    packages = parser.parse_args().packages
    RULES.mkdir(exist_ok=True)
    for version in PACKAGES:
        content = compiled(packages, version)
        (RULES / f"us-core-{version}.json.gz").write_bytes(content)
        print(f"US Core {version}: {len(content):,} bytes")


if __name__ == "__main__":
    main()
