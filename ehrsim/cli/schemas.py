"""The JSON Schemas of ehrsim's own files: written from the models themselves."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import orjson

from ehrsim.errors import GateError
from ehrsim.outputs import atomic_file


def _of(model: Any) -> Callable[[], dict[str, Any]]:
    return lambda: msgspec.json.schema(model)


def registry() -> dict[str, Callable[[], dict[str, Any]]]:
    """Name of each schema file, and the function that gives its schema."""
    from ehrsim.evaluate.gates import Gates
    from ehrsim.evaluate.report import Report
    from ehrsim.evaluate.rules import RuleSet
    from ehrsim.fhir.cds_requests import request_schema
    from ehrsim.importers.deidentification import Policy
    from ehrsim.importers.report import ImportReport
    from ehrsim.importers.table import mapping_schema
    from ehrsim.models.gan import GANConfig
    from ehrsim.models.vae import VAEConfig
    from ehrsim.optimisation import TrainingConfig
    from ehrsim.quality import Library
    from ehrsim.reference import specification_schema
    from ehrsim.runs import RunConfig

    return {
        "cds-hooks-request": request_schema,
        "clinical-rules": _of(RuleSet),
        "deidentification-policy": _of(Policy),
        "evaluation-report": _of(Report),
        "gan-config": _of(GANConfig),
        "gates": _of(Gates),
        "import-report": _of(ImportReport),
        "quality-measures": _of(Library),
        "reference-specification": specification_schema,
        "run-config": _of(RunConfig),
        "table-mapping": mapping_schema,
        "training-config": _of(TrainingConfig),
        "vae-config": _of(VAEConfig),
    }


def _dedented(schema: Any) -> Any:
    """The schema with every description as `inspect.getdoc` gives it: Python 3.13 strips docstrings, 3.11 does not."""
    if isinstance(schema, list):
        return [_dedented(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: inspect.cleandoc(part) if name == "description" and isinstance(part, str) else _dedented(part)
        for name, part in schema.items()
    }


def _texts() -> dict[str, bytes]:
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {
        f"{name}.schema.json": orjson.dumps(_dedented(dialect | schema()), option=options)
        for name, schema in registry().items()
    }


def write(folder: Path) -> list[Path]:
    """Write every schema into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in _texts().items():
        with atomic_file(folder / name) as temporary:
            temporary.write_bytes(text)
        written.append(folder / name)
    return written


def differing(folder: Path) -> None:
    """Raise `GateError` if a schema file is missing or not what the models give."""
    for name, text in _texts().items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != text:
            raise GateError(f"{path} is not what the models give", hint=f"ehrsim schemas {folder}")
