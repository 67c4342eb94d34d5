"""The rules of FHIR R4 and US Core that resources are held against, as `schemas/fhir/compile.py` writes them.

A JSON Schema says what is asked of a resource on its own. The same schema tells the type of every element, which is
what the other checks need: references are of this type to those types, this is a Period, that is a Quantity.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple, get_args

import jsonschema_rs
import orjson

from ehrsim.errors import UsageError
from ehrsim.fhir.validation.findings import Problem, shown

UsCore = Literal["6.1", "8.0"]
Schema = dict[str, Any]
_PLAIN = frozenset(("Meta", "Narrative", "Coding", "CodeableConcept", "Quantity", "HumanName", "ContactPoint"))


class Field(NamedTuple):
    """What the schema says of a property."""

    type_name: str
    """The definition of its values: a type of FHIR, or the path of an element with children of its own."""
    targets: frozenset[str]
    """Of a Reference, the types it may lead to; empty for any."""


class Element(NamedTuple):
    """An element of a resource."""

    path: str
    """As FHIRPath has it, with the numbers of what repeats: `name[0].family`."""
    name: str
    """The definition and the property it stands in: `HumanName.family`."""
    type_name: str
    targets: frozenset[str]
    value: Any


class Rules:
    """The rules of one version of US Core; see `rules_of`."""

    def __init__(self, us_core: UsCore) -> None:
        packed = files("ehrsim.fhir") / "rules" / f"us-core-{us_core}.json.gz"
        content = orjson.loads(gzip.decompress(packed.read_bytes()))
        self.us_core = us_core
        self.definitions: dict[str, Schema] = content["schema"]["$defs"]
        self.profiles: dict[str, str] = content["profiles"]
        self.invariants: dict[str, list[tuple[str, str, str]]] = content["invariants"]
        self.slices: dict[str, dict[str, Schema]] = content["slices"]
        self._fields: dict[str, dict[str, Field]] = {}

    def holds(self, resource_type: str) -> bool:
        """Whether there are rules for a type of resource; of others only the name is known."""
        return resource_type in self.definitions

    def is_valid(self, resource: Any) -> bool:
        """Whether a resource is valid on its own; entries of a Bundle are not looked into."""
        return self._validator.is_valid(resource)

    def problems(self, resource: Any) -> list[Problem]:
        """What the schema finds wrong with a resource."""
        if self._validator.is_valid(resource):
            return []
        found = dict.fromkeys(self._problem(error, resource) for error in self._validator.iter_errors(resource))
        return list(found)

    def conforms(self, value: Any, slice_of: str, slice_name: str) -> bool:
        """Whether a value is of a slice."""
        return self._slice_validator.is_valid({"slice": f"{slice_of}:{slice_name}", "value": value})

    def fields(self, name: str) -> dict[str, Field]:
        """The properties of a definition."""
        fields = self._fields.get(name)
        if fields is None:
            properties = self.definitions.get(name, {}).get("properties", {})
            fields = {key: field for key, one in properties.items() if (field := self._field(one)) is not None}
            self._fields[name] = fields
        return fields

    def elements(self, resource: Any, *, every: bool = True) -> Iterator[Element]:
        """The elements of a resource that the definitions know, in order; contained resources and entries are skipped.

        Without `every`, those of types that hold neither times nor references, but for extensions, are skipped too.
        """
        skipped = frozenset[str]() if every else _PLAIN
        yield from self._below(resource, resource["resourceType"], "", skipped)

    def _below(self, value: Any, name: str, path: str, skipped: frozenset[str]) -> Iterator[Element]:
        fields = self.fields(name)
        for key, member in value.items():
            field = fields.get(key)
            if field is None or field.type_name in skipped:
                continue
            where = f"{path}.{key}" if path else key
            listed = [(where, member)]
            if isinstance(member, list):
                listed = [(f"{where}[{number}]", one) for number, one in enumerate(member)]
            for at, one in listed:
                yield Element(at, f"{name}.{key}", field.type_name, field.targets, one)
                if isinstance(one, dict):
                    yield from self._below(one, field.type_name, at, skipped)

    def _field(self, schema: Any) -> Field | None:
        if not isinstance(schema, dict):
            return None
        schema = schema.get("items", schema)
        schema = schema["anyOf"][0] if "anyOf" in schema else schema
        name = schema.get("$ref", "").removeprefix("#/$defs/")
        if name.startswith("Reference"):
            return Field("Reference", frozenset(name.split("-")[1:]))
        if not name or name == "Resource":
            return None
        return Field("code" if name.endswith(".code") and name[0].islower() else name, frozenset())

    @cached_property
    def _validator(self) -> jsonschema_rs.Validator:
        """One validator for resources of all types: it holds the definitions once, where one a type would copy them."""
        return self._compiled({"$ref": "#/$defs/Resource"})

    @cached_property
    def _slice_validator(self) -> jsonschema_rs.Validator:
        """One validator for the values of all slices, each with the name of its slice."""
        named = {f"{of}:{name}": schema for of, slices in self.slices.items() for name, schema in slices.items()}
        each = [
            {"if": {"properties": {"slice": {"const": name}}}, "then": {"properties": {"value": schema}}}
            for name, schema in named.items()
        ]
        return self._compiled({"allOf": each})

    def _compiled(self, schema: Schema) -> jsonschema_rs.Validator:
        entry = self.definitions["Bundle.entry"]
        properties = {**entry["properties"], "resource": {"type": "object", "required": ["resourceType"]}}
        definitions = {**self.definitions, "Bundle.entry": {**entry, "properties": properties}}
        return jsonschema_rs.validator_for(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "$defs": definitions},
            pattern_options=jsonschema_rs.RegexOptions(),
        )

    def _problem(self, error: jsonschema_rs.ValidationError, resource: Any) -> Problem:
        """An error of the schema, in words."""
        found, path = resource, ""
        for step in error.instance_path:
            found = found[step]
            path += f"[{step}]" if isinstance(step, int) else f".{step}"
        kind, said = error.kind.name, error.kind.as_dict()
        if kind == "additionalProperties":
            return Problem(path.lstrip("."), ", ".join(said["unexpected"]), "no such element")
        expected = self._comment(error.schema_path)
        if not expected:
            expected = _EXPECTED[kind](said) if kind in _EXPECTED else error.message.rpartition(" is not ")[2]
        return Problem(path.lstrip("."), shown(found), expected)

    def _comment(self, path: list[Any]) -> str:
        """What the innermost schema on a path says of itself."""
        comment = ""
        here: Any = {"$defs": self.definitions}
        for step in path:
            here = here[step] if isinstance(here, list) or step in here else {}
            if isinstance(here, dict):
                comment = here.get("$comment", comment)
        return comment


_EXPECTED: dict[str, Callable[[dict[str, Any]], str]] = {
    "type": lambda said: " or ".join(said["types"]),
    "enum": lambda said: "one of " + ", ".join(map(str, said["options"])),
    "constant": lambda said: shown(said["expected_value"]),
    "pattern": lambda said: f"a text that matches {said['pattern']}",
    "required": lambda said: f"`{said['property']}`",
    "falseSchema": lambda _: "nothing here",
    "minItems": lambda said: f"at least {said['limit']}",
    "minProperties": lambda said: f"at least {said['limit']}",
    "minLength": lambda said: f"at least {said['limit']} characters",
    "maxItems": lambda said: f"at most {said['limit']}",
}
"""What a kind of error of a schema says was expected."""


@lru_cache(maxsize=len(get_args(UsCore)))
def rules_of(us_core: UsCore) -> Rules:
    """The rules of a version of US Core, read once; raises `UsageError` for a version that is not known."""
    if us_core not in get_args(UsCore):
        raise UsageError(f"unknown version `{us_core}` of US Core", hint=f"expected {' or '.join(get_args(UsCore))}")
    return Rules(us_core)
