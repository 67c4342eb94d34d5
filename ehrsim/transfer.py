"""Transfer: a model for new data that begins with the weights of a run on other data.

The two know different codes, visit types and statics. An axis of a weight that goes by one of these is matched by name:
a code that the other run lacks begins as its nearest parent there, and what has none begins afresh. All else is taken
over where the shapes agree.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from numpy.typing import NDArray

from ehrsim import models
from ehrsim.batch import Sizes
from ehrsim.runs import Run
from ehrsim.visits.precursors import MOST
from ehrsim.vocabulary import Vocabulary

Int64 = NDArray[np.int64]

PRECURSORS = ("precursors.weight.value", "precursors.at_once.value")
"""Ends of the paths of weights that go by pairs of codes."""
PLAIN, MIXED = "plain", "mixed"
"""Axes that go by nothing that is named, and by a product of what is: the weights of the latter are not taken over."""


class Matched(NamedTuple):
    """Indices of the new data with the indices of the same, or of the nearest broader, in the run."""

    new: Int64
    old: Int64


def transferred(run: Run, fresh: Any, vocabulary: Vocabulary) -> Any:
    """`fresh`, a model of the run's kind and configuration made for `vocabulary`, with the weights of `run`."""
    matches = {
        "vocabulary": match_codes(run.vocabulary, vocabulary),
        "kinds": match_kinds(run.vocabulary, vocabulary),
        "statics": match_statics(run.vocabulary, vocabulary),
    }
    named_axes = _named_axes(run, fresh.sizes)

    def fill(new: jax.Array, old: jax.Array, names: tuple[str, ...]) -> jax.Array:
        differs = any(a != b and name == PLAIN for a, b, name in zip(new.shape, old.shape, names, strict=True))
        if differs or MIXED in names:
            return new
        whole = [Matched(np.arange(size), np.arange(size)) for size in new.shape]
        axes = [matches.get(name, every) for name, every in zip(names, whole, strict=True)]
        filled = np.array(new)
        filled[np.ix_(*(axis.new for axis in axes))] = np.asarray(old)[np.ix_(*(axis.old for axis in axes))]
        return jnp.asarray(filled)

    def transfer(path: tuple[Any, ...], new: jax.Array, old: jax.Array, names: tuple[str, ...]) -> jax.Array:
        if jax.tree_util.keystr(path, simple=True, separator=".").endswith(PRECURSORS):
            return _weights_of_pairs(new, fresh.sizes, old, run.model.sizes, matches["vocabulary"])
        return fill(new, old, names)

    paths, structure = jax.tree_util.tree_flatten_with_path(fresh)
    filled = [transfer(*leaf, *rest) for leaf, *rest in zip(paths, jax.tree.leaves(run.model), named_axes, strict=True)]
    return jax.tree.unflatten(structure, filled)


def inherited(run: Run, vocabulary: Vocabulary, found: Sizes) -> Sizes:
    """The sizes of a model that begins with `run`: precursors of the run for codes that it knows, those `found` for
    others.

    What the run has learned of a code rests on its own precursors.
    """
    old, match = run.model.sizes, match_codes(run.vocabulary, vocabulary)
    known = dict(zip(match.new.tolist(), match.old.tolist(), strict=True))
    classes = [tuple(match.new[np.isin(match.old, members)].tolist()) for members in old.classes]

    def of_new_data(before: int) -> int:
        return before + len(classes) if before >= found.vocabulary else before

    def of_run(before: int) -> list[int]:
        if before < old.vocabulary:
            return [int(new) for new in match.new[match.old == before]]
        index = before - old.vocabulary
        return [found.vocabulary + index] if classes[index] else []

    pairs = [p._replace(before=of_new_data(p.before)) for p in found.precursors if p.code not in known]
    for code, same in known.items():
        taken = [pair for pair in old.precursors if pair.code == same]
        pairs += [pair._replace(code=code, before=before) for pair in taken for before in of_run(pair.before)][:MOST]
    pairs = [pair for pair in pairs if pair.code != pair.before]
    return found._replace(
        precursors=tuple(sorted(pairs, key=lambda pair: pair.code)), classes=(*classes, *found.classes)
    )


def _weights_of_pairs(new: jax.Array, sizes: Sizes, old: jax.Array, of_run: Sizes, match: Matched) -> jax.Array:
    """Weights of precursors, `new` but for those of pairs that the run has as well."""
    known = dict(zip(match.new.tolist(), match.old.tolist(), strict=True))
    # The classes of the run come first.
    known |= {sizes.vocabulary + index: of_run.vocabulary + index for index in range(len(of_run.classes))}
    pairs = [(pair.code, pair.before) for pair in of_run.precursors]
    learned = dict(zip(pairs, np.asarray(old).tolist(), strict=True))
    filled = np.array(new)
    for index, (code, before, *_) in enumerate(sizes.precursors):
        filled[index] = learned.get((known.get(code, 0), known.get(before, 0)), filled[index])
    return jnp.asarray(filled)


def _named_axes(run: Run, sizes: Sizes) -> list[tuple[str, ...]]:
    """For each weight what its axes go by: the size that makes it longer by one where that is longer by one."""
    first, last = sizes.groups[-1]
    longer = {
        "vocabulary": sizes._replace(vocabulary=sizes.vocabulary + 1, groups=(*sizes.groups[:-1], (first, last + 1))),
        "kinds": sizes._replace(kinds=sizes.kinds + 1),
        "statics": sizes._replace(statics=sizes.statics + 1),
    }
    usual = _shapes(run, sizes)
    grown = {name: _shapes(run, changed) for name, changed in longer.items()}

    def named(leaf: int, axis: int) -> str:
        growth = {name: shapes[leaf][axis] - usual[leaf][axis] for name, shapes in grown.items()}
        by = [name for name, more in growth.items() if more]
        if not by:
            return PLAIN
        return by[0] if len(by) == 1 and growth[by[0]] == 1 else MIXED

    return [tuple(named(leaf, axis) for axis in range(len(shape))) for leaf, shape in enumerate(usual)]


def _shapes(run: Run, sizes: Sizes) -> list[tuple[int, ...]]:
    blank = jax.eval_shape(lambda: models.create(run.config.model, sizes, run.model_config, 0))
    return [leaf.shape for leaf in jax.tree.leaves(blank)]


def match_codes(known: Vocabulary, vocabulary: Vocabulary) -> Matched:
    """Codes: the same, else the same without its text, else the nearest parent that either of the two tells of."""
    either = msgspec.structs.replace(known, parents=vocabulary.parents | known.parents)
    return _matched([0, *map(either.lookup, vocabulary.entries)])


def match_kinds(known: Vocabulary, vocabulary: Vocabulary) -> Matched:
    """Kinds of step: no visit, the visit types, and the three kinds after them."""
    types = [known.lookup_type(entry) or 0 for entry in vocabulary.visit_types]
    after = len(known.visit_types) + 1
    return _matched([0, *types, *range(after, after + 3)])


def match_statics(known: Vocabulary, vocabulary: Vocabulary) -> Matched:
    """Statics: the same."""
    return _matched([0, *(known.static_index.get(entry, 0) for entry in vocabulary.statics)])


def _matched(old: list[int]) -> Matched:
    """From the index in the run of each index of the new data, 0 where there is none but for the first."""
    indices = np.array(old, np.int64)
    new = np.flatnonzero((indices > 0) | (np.arange(len(old)) == 0))
    return Matched(new, indices[new])
