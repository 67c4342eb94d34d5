"""The thorough checks of single resources: FHIRPath invariants, codes, units, narratives, and a second opinion.

They take milliseconds a resource, so an export runs them on the first resource of every layout and on a sample.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree

from ehrsim import codes
from ehrsim.errors import MissingExtraError
from ehrsim.fhir.syntax import is_well_formed
from ehrsim.fhir.ucum import is_ucum
from ehrsim.fhir.validation.findings import Problem, shown
from ehrsim.fhir.validation.rules import Element, Rules

Expression = Callable[[Any, dict[str, Any]], list[Any]]
XHTML = "{http://www.w3.org/1999/xhtml}"
_ACTIVE = frozenset(["script", "form", "base", "link", "xlink", "iframe", "object", "head", "body", "input"])
NOT_EVALUATED = frozenset(
    (
        "dom-3",  # contained resources are referred to: told by references themselves
        "txt-1",
        "txt-2",  # htmlChecks: see `_narrative`
        "ref-1",  # told by references themselves
        "ctm-1",
        "provenance-1",  # resolve(): see `_on_behalf_of`
        "que-2",
        "sdcqr-2",  # need descendants of types that change by item
        "us-core-23",
        "us-core-24",  # their expressions compare a code with a union by `in`, which FHIRPath binds otherwise
    )
)
"""Invariants whose expressions ask for what FHIRPath engines do not have, or that are checked otherwise."""


def problems_in_full(resource: Any, rules: Rules) -> list[Problem]:
    """What the thorough checks find wrong with a resource that is valid by the schema."""
    problems = list(_second_opinion(resource))
    kind = resource["resourceType"]
    named = _profiles(resource, rules)
    elements = [Element("", kind, kind, frozenset(), resource), *rules.elements(resource)]
    for element in elements:
        for name in _names(element):
            problems += _invariants(element, name, resource, rules)
        problems += _of_type(element)
    for profile in named:
        problems += _of_profile(Element("", profile, kind, frozenset(), resource), resource, rules)
    return list(dict.fromkeys(problems))


def _profiles(resource: Any, rules: Rules) -> list[str]:
    named = [url.partition("|")[0] for url in (resource.get("meta") or {}).get("profile", []) if isinstance(url, str)]
    return [rules.profiles[url] for url in named if url in rules.profiles]


def _names(element: Element) -> Iterator[str]:
    """The names that invariants of an element are kept under: its type, and the property it stands in."""
    yield element.type_name
    if element.name != element.type_name:
        yield element.name


def _of_profile(element: Element, resource: Any, rules: Rules) -> Iterator[Problem]:
    """The invariants of a profile, which names the element, on it and on those below that it says more of."""
    yield from _invariants(element, element.name, resource, rules)
    if not isinstance(element.value, dict):
        return
    fields = rules.fields(element.type_name)
    for key, member in element.value.items():
        below = f"{element.name}.{key}"
        said = any(f"{held}.".startswith((f"{below}.", f"{below}:")) for held in rules.invariants)
        if not said or key not in fields:
            continue
        for number, one in enumerate(member if isinstance(member, list) else [member]):
            at = f"{element.path}.{key}".lstrip(".") + (f"[{number}]" if isinstance(member, list) else "")
            inner = Element(at, below, *fields[key], one)
            yield from _of_profile(inner, resource, rules)
            for slice_name in rules.slices.get(below, {}):
                if rules.conforms(one, below, slice_name):
                    yield from _of_profile(inner._replace(name=f"{below}:{slice_name}"), resource, rules)


def _invariants(element: Element, name: str, resource: Any, rules: Rules) -> Iterator[Problem]:
    for key, expression, human in rules.invariants.get(name, ()):
        if key not in NOT_EVALUATED and not _holds(expression, element, resource):
            yield Problem(element.path, shown(element.value), f"{key}: {human}")


def _holds(expression: str, element: Element, resource: Any) -> bool:
    """Whether an invariant is true; one that has no value, since it asks for what is not there, is not false."""
    evaluate, node = _expression(expression)
    context = {"resource": resource, "rootResource": resource}
    # The engine tells the types of choices by the path that a value stands at.
    value = node(element.value, element.type_name) if isinstance(element.value, dict) else element.value
    try:
        return False not in evaluate(value, context)
    except Exception:  # the engine raises nothing narrower
        # Its words for "this cannot be asked of such a value", as of `a or b` where there are many a.
        return True


@lru_cache(maxsize=1 << 10)
def _expression(text: str) -> tuple[Expression, Callable[[Any, str], Any]]:
    """An expression ready to be evaluated, and what makes a typed node of a value."""
    try:
        fhirpathpy = importlib.import_module("fhirpathpy")
        model = importlib.import_module("fhirpathpy.models").models["r4"]
        node = importlib.import_module("fhirpathpy.engine.nodes").ResourceNode.create_node
    except ImportError:
        raise MissingExtraError("validation in full", "validate") from None
    options = {
        "userInvocationTable": {"hasValue": {"fn": _has_value, "arity": {0: []}}},
        "traceFn": lambda *_: None,
    }
    return fhirpathpy.compile(text, model, options), node


def _has_value(values: list[Any]) -> bool:
    """FHIRPath `hasValue()`: one primitive that is there."""
    return len(values) == 1 and values[0] is not None and not isinstance(values[0], dict)


def _of_type(element: Element) -> Iterator[Problem]:
    """Checks of codes, units and narratives."""
    value, path = element.value, element.path
    match element.type_name:
        case "Coding":
            system, code = value.get("system"), value.get("code")
            if isinstance(system, str) and isinstance(code, str):
                # A code that cannot be one of its system stands under a local URI on purpose.
                name = "" if system.startswith(codes.LOCAL_URI) else codes.system_of_uri(system)
                if not is_well_formed(name, code) or (system == codes.UCUM_URI and not is_ucum(code)):
                    yield Problem(path, shown(code), f"a code of {system}")
        case "Quantity" | "Age" | "Count" | "Duration" | "Distance" | "Money":
            if value.get("system") == codes.UCUM_URI and "code" in value and not is_ucum(value["code"]):
                yield Problem(f"{path}.code", shown(value["code"]), "a unit of UCUM")
        case "Narrative":
            yield from _narrative(value.get("div", ""), path)
        case "Provenance.agent":
            yield from _on_behalf_of(value, path)
        case _:
            if isinstance(value, dict):
                yield from _nulls(value, path)


def _narrative(text: str, path: str) -> Iterator[Problem]:
    """Invariants txt-1 and txt-2: XHTML of formatting only, that says something."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        yield Problem(f"{path}.div", shown(text), f"well-formed XHTML: {error}")
        return
    tags = {str(one.tag).removeprefix(XHTML) for one in root.iter()}
    if tags & _ACTIVE:
        yield Problem(f"{path}.div", shown(text), "XHTML of formatting only (txt-1)")
    if not "".join(root.itertext()).strip() and "img" not in tags:
        yield Problem(f"{path}.div", shown(text), "a narrative that says something (txt-2)")


def _on_behalf_of(agent: Any, path: str) -> Iterator[Problem]:
    """Invariant provenance-1, where the type of `who` is told by the reference."""
    who = agent.get("who", {})
    kind = who.get("type") or str(who.get("reference", "")).partition("/")[0]
    if kind in ("Practitioner", "Device") and "onBehalfOf" not in agent:
        yield Problem(
            path, shown(agent), "provenance-1: onBehalfOf SHALL be present when who is a Practitioner or Device"
        )


def _nulls(value: Any, path: str) -> Iterator[Problem]:
    """A null in a list stands only for a primitive that has extensions instead of a value."""
    for key, member in value.items():
        if isinstance(member, list) and None in member:
            other = value.get(key[1:] if key.startswith("_") else f"_{key}") or []
            for number, one in enumerate(member):
                if one is None and (number >= len(other) or other[number] is None):
                    yield Problem(f"{path}.{key}[{number}]", "null", "a value or extensions")


def _second_opinion(resource: Any) -> Iterator[Problem]:
    """What fhir.resources finds, whose R4B classes are those of R4 for the types held against rules.

    Of a Bundle only itself is looked at: its entries are resources of their own.
    """
    kind = resource["resourceType"]
    if kind == "Bundle":
        entries = [{key: one for key, one in entry.items() if key != "resource"} for entry in resource.get("entry", [])]
        resource = {**resource, "entry": [entry or {"fullUrl": "urn:uuid:0"} for entry in entries] or None}
    try:
        model, error_class = _model(kind)
    except ImportError:
        return
    try:
        model.model_validate(resource)
    except error_class as error:
        for one in error.errors():
            yield Problem(".".join(str(part) for part in one["loc"]), shown(one.get("input")), one["msg"])


@lru_cache(maxsize=64)
def _model(resource_type: str) -> tuple[Any, type[Any]]:
    module = importlib.import_module(f"fhir.resources.R4B.{resource_type.lower()}")
    pydantic = importlib.import_module("pydantic")
    return getattr(module, resource_type), pydantic.ValidationError
