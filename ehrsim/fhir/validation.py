"""Exported resources held against fhir.resources, whose R4B classes are those of R4 for every type written here."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import orjson

from ehrsim.errors import GateError
from ehrsim.fhir.fragments import Resource, encoded
from ehrsim.fhir.record import Batch
from ehrsim.fhir.report import ExportReport

Validate = Literal["none", "fast", "full"]
SAMPLE_RATE = 1_024
"""One resource in so many is validated in a sample, beside the first of every shape."""
LARGEST_SAMPLE = 500
"""Resources validated in a sample beside the first of every shape."""


class Validator:
    """Picks resources of an export and validates them; the same export picks the same ones."""

    def __init__(self, extent: Validate, report: ExportReport) -> None:
        self._extent = extent
        self._report = report
        self._seen: set[tuple[str, int]] = set()
        self._drawn = 0

    def check(self, resources: Iterable[Resource]) -> None:
        """Validate resources that are few; raises `GateError` for one that is not valid."""
        if self._extent != "none":
            for resource in resources:
                self._validate(encoded(resource))

    def checked(self, batch: Batch, lines: Iterator[bytes]) -> Iterator[bytes]:
        """The lines of a batch, those picked validated as they pass; raises `GateError` for one that is not valid."""
        if self._extent == "none":
            return lines
        picked = set(range(len(batch.ids))) if self._extent == "full" else self._sample(batch)
        return self._checking(lines, picked)

    def _checking(self, lines: Iterator[bytes], picked: set[int]) -> Iterator[bytes]:
        for number, line in enumerate(lines):
            if number in picked:
                self._validate(line)
            yield line

    def _validate(self, line: bytes) -> None:
        resource = orjson.loads(line)
        validate(resource)
        counts, name = self._report.validated, resource["resourceType"]
        counts[name] = counts.get(name, 0) + 1

    def _sample(self, batch: Batch) -> set[int]:
        shapes, first = np.unique(batch.shapes, return_index=True)
        picked = set()
        for shape, number in zip(shapes.tolist(), first.tolist(), strict=True):
            if (batch.resource_type, shape) not in self._seen:
                self._seen.add((batch.resource_type, shape))
                picked.add(number)
        drawn = [number for number, uuid in enumerate(batch.ids) if int(uuid[:4], 16) % SAMPLE_RATE == 0]
        drawn = drawn[: LARGEST_SAMPLE - self._drawn]
        self._drawn += len(drawn)
        return picked.union(drawn)


def validate(resource: dict[str, Any]) -> None:
    """Hold one resource against its fhir.resources class; raises `GateError` naming it and the reason."""
    resource_type = resource["resourceType"]
    model, error_class = _model(resource_type)
    try:
        model.model_validate(resource)
    except error_class as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise GateError(
            f"{resource_type}/{resource.get('id')} is not valid FHIR: {where}: {first['msg']}",
            hint="this is a defect of ehrsim; please report it with the event that the resource was made from",
        ) from error


@lru_cache(maxsize=64)
def _model(resource_type: str) -> tuple[Any, type[Any]]:
    module = importlib.import_module(f"fhir.resources.R4B.{resource_type.lower()}")
    pydantic = importlib.import_module("pydantic")
    return getattr(module, resource_type), pydantic.ValidationError
