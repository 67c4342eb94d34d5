"""The run folder: everything a trained model is, in open formats, with hashes; nothing in it is ever executed.

config.json           model, its configuration, sizes, training configuration
vocabulary.json       codes and displays
scales.safetensors    bins and quantiles
weights.safetensors   parameters
metrics.jsonl         a line each validation
provenance.json       versions, hash and counts of the training data, reports of the codec
MANIFEST.sha256       hashes of the above; loading refuses whatever does not match
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ehrsim import models
from ehrsim.batch import Precursor
from ehrsim.errors import RunError
from ehrsim.models.base import PatientModel
from ehrsim.outputs import atomic_directory
from ehrsim.visits import table
from ehrsim.visits.scales import Histogram, QuantileScale, Scales
from ehrsim.vocabulary import Vocabulary

FORMAT_VERSION = 9
MANIFEST = "MANIFEST.sha256"
FILES = (
    "config.json",
    "vocabulary.json",
    "scales.safetensors",
    "weights.safetensors",
    "metrics.jsonl",
    "provenance.json",
)


class RunConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `config.json` holds; `model_config` and `training` are the configurations as plain values."""

    format_version: int
    model: str
    preset: str
    model_config: dict[str, Any]
    sizes: dict[str, Any]
    training: dict[str, Any]


class Run(NamedTuple):
    """A trained model with all it needs to generate."""

    config: RunConfig
    vocabulary: Vocabulary
    scales: Scales
    model: PatientModel
    provenance: dict[str, Any]

    @property
    def identity(self) -> str:
        """A hash that names the run: of its configuration and weights, wherever the folder lies."""
        return str(self.provenance.get("run", ""))

    @property
    def model_config(self) -> msgspec.Struct:
        """The configuration of its model."""
        config: msgspec.Struct = msgspec.convert(self.config.model_config, models.family(self.config.model).config)
        return config


def save(run: Run, metrics: Path, out: Path, *, overwrite: bool = False) -> None:
    """Write a run folder, which appears whole or not at all; `metrics` is the metrics file to put into it."""
    with atomic_directory(out, overwrite=overwrite) as folder:
        (folder / "config.json").write_bytes(_pretty(run.config))
        run.vocabulary.save(folder / "vocabulary.json")
        save_file(scales_to_arrays(run.scales), folder / "scales.safetensors")
        save_file(to_arrays(run.model), folder / "weights.safetensors")
        shutil.copyfile(metrics, folder / "metrics.jsonl")
        identity = hashlib.sha256(
            b"".join(_digest(folder / name).encode() for name in ("config.json", "weights.safetensors"))
        ).hexdigest()
        (folder / "provenance.json").write_bytes(_pretty({**run.provenance, "run": identity[:32]}))
        lines = [f"{_digest(folder / name)}  {name}\n" for name in FILES]
        (folder / MANIFEST).write_text("".join(lines))


def load(path: str | Path) -> Run:
    """Read a run folder; raises `RunError` if a file is missing, altered, or of another version."""
    folder = Path(path)
    _check_manifest(folder)
    config = _decode(folder / "config.json", RunConfig)
    if config.format_version != FORMAT_VERSION:
        raise RunError(
            f"{folder} has run format {config.format_version}, expected {FORMAT_VERSION}", hint="fit it again"
        )
    vocabulary = Vocabulary.load(folder / "vocabulary.json")
    scales = scales_from_arrays(read_arrays(folder / "scales.safetensors"))
    blank = _blank(config, vocabulary, scales, folder / "config.json")
    return Run(
        config=config,
        vocabulary=vocabulary,
        scales=scales,
        model=from_arrays(blank, read_arrays(folder / "weights.safetensors"), folder / "weights.safetensors"),
        provenance=_decode(folder / "provenance.json", dict[str, Any]),
    )


def _blank(config: RunConfig, vocabulary: Vocabulary, scales: Scales, source: Path) -> Any:
    """The shapes of the model of a configuration, which must be of the same making as vocabulary and scales."""
    if config.model not in models.MODELS:
        raise RunError(f"{source}: unknown model `{config.model}`", hint=f"expected one of {', '.join(models.MODELS)}")
    try:
        model_config = msgspec.convert(config.model_config, models.MODELS[config.model].config)
        places = msgspec.convert(config.sizes.get("places"), Annotated[int, msgspec.Meta(ge=1)])
        precursors = msgspec.convert(config.sizes.get("precursors"), tuple[Precursor, ...])
        classes = msgspec.convert(config.sizes.get("classes"), tuple[tuple[int, ...], ...])
    except msgspec.ValidationError as error:
        raise RunError(f"{source}: {error}") from error
    sizes = table.sizes(vocabulary, scales, places)._replace(precursors=precursors, classes=classes)
    if msgspec.json.decode(msgspec.json.encode(sizes._asdict())) != config.sizes:
        raise RunError(f"{source}: the sizes are not those of the vocabulary and scales", hint="copy the whole folder")
    return jax.eval_shape(lambda: models.create(config.model, sizes, model_config, 0))


def _check_manifest(folder: Path) -> None:
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise RunError(f"{folder} is no run folder: it has no {MANIFEST}", hint="expected the --out of ehrsim fit")
    entries = (line.partition("  ") for line in manifest.read_text(errors="replace").splitlines())
    listed = {name: digest for digest, _, name in entries}
    for name in FILES:
        path = folder / name
        if not path.is_file():
            raise RunError(f"{path} is missing", hint="copy the whole run folder")
        if name not in listed:
            raise RunError(f"{manifest} has no hash of {name}", hint="copy the whole run folder")
        if _digest(path) != listed[name]:
            raise RunError(f"{path} has been altered: its hash is not the one in {MANIFEST}", hint="restore the folder")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pretty(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=1)


def _decode(path: Path, kind: Any) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error


def read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The named arrays of a safetensors file; raises `RunError` if it is anything else."""
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error


def to_arrays(tree: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The leaves of a pytree by their path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}


def from_arrays(like: Any, arrays: dict[str, np.ndarray[Any, Any]], source: Path) -> Any:
    """A pytree of the structure and shapes of `like` from the leaves in `arrays`; the inverse of `to_arrays`."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    known = {jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves}
    if surplus := sorted(arrays.keys() - known):
        raise RunError(f"{source}: `{surplus[0]}` is not a part of this model")
    filled = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name not in arrays or arrays[name].shape != leaf.shape or arrays[name].dtype != leaf.dtype:
            found = f"{arrays[name].dtype}{list(arrays[name].shape)}" if name in arrays else "nothing"
            raise RunError(f"{source}: `{name}` should be {leaf.dtype}{list(leaf.shape)}, found {found}")
        filled.append(jnp.asarray(arrays[name]))
    return jax.tree_util.tree_unflatten(structure, filled)


def scales_to_arrays(scales: Scales) -> dict[str, np.ndarray[Any, Any]]:
    """Scales as named arrays."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name, part in scales._asdict().items():
        if isinstance(part, (Histogram, QuantileScale)):
            arrays |= {f"{name}.{field}": np.ascontiguousarray(column) for field, column in part._asdict().items()}
        else:
            arrays[name] = np.ascontiguousarray(part)
    return arrays


def scales_from_arrays(arrays: dict[str, np.ndarray[Any, Any]]) -> Scales:
    """The inverse of `scales_to_arrays`."""
    nested: dict[str, Any] = {}
    for name, column in arrays.items():
        head, _, field = name.partition(".")
        if field:
            nested.setdefault(head, {})[field] = column
        else:
            nested[head] = column.item() if column.size == 1 and name in _SCALARS else column
    try:
        built = {
            n: QuantileScale(**p) if "decimals" in p else Histogram(**p)
            for n, p in nested.items()
            if isinstance(p, dict)
        }
        return Scales(**{**nested, **built})
    except TypeError as error:
        raise RunError(f"scales are incomplete: {error}", hint="fit the run again") from error


_SCALARS = ("step_seconds", "end_in_days", "born_at_first", "births_known", "ends_known", "horizon", "longest")
