"""The term of codes that lead to the first of others: see `ehrsim.visits.precursors`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from ehrsim.batch import Sizes
from ehrsim.models.layers import QUICK, Constant, added, along, softplus

Array = jax.Array


class PrecursorTerm(nnx.Module):
    """A weight for each precursor of each code, added to the code's logit while the patient has never had it.

    A second one is added in the very visit in which the precursor comes: some drugs begin with their disease, and some
    never before the next visit. Where the codes of a visit are not told one another (not `in_order`), there is none.
    """

    def __init__(self, sizes: Sizes, *, in_order: bool = True) -> None:
        self.sizes = sizes
        self.weight = Constant(jnp.asarray([pair.weight / QUICK for pair in sizes.precursors], jnp.float32))
        if in_order:
            self.at_once = Constant(jnp.asarray([pair.at_once / QUICK for pair in sizes.precursors], jnp.float32))

    def shifted(self, change: Array, at_once: Array) -> PrecursorTerm:
        """The term with both its weights (precursors,) changed."""
        term: PrecursorTerm = jax.tree.map(lambda part: part, self)
        term.weight = added(self.weight, change / QUICK)
        if hasattr(self, "at_once"):
            term.at_once = added(self.at_once, at_once / QUICK)
        return term

    def before(self, seen: Array, part: slice) -> Array:
        """(..., codes of `part`) what is added by codes `seen` (..., V) in visits before."""
        return self.led_to(seen, part) * (1 - seen[..., part])

    def within(self, seen: Array, known: Array, part: slice) -> Array:
        """(..., codes of `part`) what is added by codes `known` (..., V) that were not yet `seen` before the visit."""
        new, weights = self.known(known) - self.known(seen), self._weights_at_once()[:, part]
        return jnp.dot(new, weights, preferred_element_type=jnp.float32) * (1 - seen[..., part])

    def led_to(self, seen: Array, part: slice) -> Array:
        """(..., codes of `part`) as `before`, of codes never seen."""
        return jnp.dot(self.known(seen), self._weights(self.weight[...])[:, part], preferred_element_type=jnp.float32)

    def sooner(self, prospects: Array, wanted: Array, seen: Array) -> Array:
        """(..., V) how much sooner codes come that lead to those that are `wanted`, and have not been `seen`.

        `prospects` (..., V) are the log odds that codes are still to come. Nothing is learned from it: what leads to
        what is told by all patients better than by those few of whom it is told.
        """
        pairs = self.sizes.precursors
        if not pairs:
            return jnp.zeros_like(seen)
        code, before = (np.array([pair[at] for pair in pairs], np.int32) for at in (0, 1))
        leads = np.zeros((len(pairs), self.sizes.vocabulary), np.float32)
        for row, (of, leading, *_) in enumerate(pairs):
            of_class = leading - self.sizes.vocabulary
            leads[row, list((leading,) if of_class < 0 else self.sizes.classes[of_class])] = 1
            leads[row, of] = 0
        unknown = 1 - self.known(seen)[..., self._row(before)]
        at_hand = prospects[..., code]
        likelier = softplus(-at_hand) - softplus(-at_hand - along(QUICK * self.weight[...], at_hand))
        each = jax.lax.stop_gradient(wanted[..., code] * unknown * likelier)
        return jnp.dot(each, leads, preferred_element_type=jnp.float32) * (1 - seen)

    def known(self, codes: Array) -> Array:
        """(..., leading codes + classes) 1 for those that are among `codes` (..., V)."""
        return jnp.concatenate([codes[..., self._leading()], self.classes(codes)], axis=-1)

    def gives(self, code: Array) -> Array:
        """(..., leading codes + classes) 1 for those that a `code` (...) makes known."""
        of_code = along(jnp.asarray(self._leading()), code[..., None]) == code[..., None]
        return jnp.concatenate([of_code.astype(jnp.float32), _members(self.sizes)[code]], axis=-1)

    def led(self, codes: Array, known: Array, before: Array) -> Array:
        """(tiles, n, width) what `codes` (tiles, width) get for `known` (tiles, n, leading codes + classes).

        `before` (tiles, n, leading codes + classes) are those known before the visit. Each code's own precursors are
        looked up, since there are few of each.
        """
        pairs, rows = self._pairs()
        total = jnp.zeros((*known.shape[:-1], codes.shape[-1]))
        weights = [(self.weight, known), (self.at_once, known - before)]
        for of_code, row in zip(pairs, rows, strict=True):
            for weight, of in weights:
                there = jax.vmap(lambda of, row: of[:, row])(of, jnp.asarray(row)[codes])
                each = QUICK * jnp.concatenate([weight[...], jnp.zeros(1)])
                total = total + there * each[jnp.asarray(of_code)[codes]][:, None]
        return total

    def _pairs(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(most precursors of a code, V) numbers of the pairs of each code, past the last where it has fewer.

        Also rows of what is known, (most precursors of a code, V), for each of them.
        """
        pairs, size = self.sizes.precursors, self.sizes.vocabulary
        code, before = (np.array([pair[at] for pair in pairs], np.int32) for at in (0, 1))
        order = np.argsort(code, kind="stable")
        nth = np.empty_like(code)
        nth[order] = np.arange(len(code)) - np.searchsorted(code[order], code[order])
        shape = (int(nth.max(initial=-1)) + 1, size)
        numbers, rows = np.full(shape, len(code), np.int32), np.zeros(shape, np.int32)
        numbers[nth, code], rows[nth, code] = np.arange(len(code)), self._row(before)
        return numbers, rows

    def classes(self, known: Array) -> Array:
        """(..., classes) 1 for those of which a code is `known` (..., V)."""
        return jnp.minimum(jnp.dot(known, _members(self.sizes), preferred_element_type=jnp.float32), 1.0)

    def after(self, seen: Array, classes: Array, code: Array) -> tuple[Array, Array]:
        """(..., V) what is added when `code` (...) is drawn in a visit, and the `classes` (..., classes) then known."""
        if not self.sizes.precursors:
            return jnp.zeros_like(seen), classes
        leading = self._leading()
        rows = np.full(self.sizes.vocabulary, len(leading), np.int32)
        rows[leading] = np.arange(len(leading))
        weights = self._weights_at_once()
        alone = jnp.concatenate([weights[: len(leading)], jnp.zeros_like(weights[:1])])
        new = 1 - jnp.take_along_axis(seen, code[..., None], axis=-1)
        total = alone[jnp.asarray(rows)[code]] * new
        of = _members(self.sizes)[code]
        total = total + jnp.dot(of * (1 - classes), weights[len(leading) :], preferred_element_type=jnp.float32)
        return total * (1 - seen), jnp.maximum(classes, of)

    def _leading(self) -> NDArray[np.int32]:
        """Codes that are precursors themselves, ascending."""
        codes = [pair.before for pair in self.sizes.precursors if pair.before < self.sizes.vocabulary]
        return np.unique(np.array(codes, np.int32))

    def _weights_at_once(self) -> Array:
        """(leading codes + classes, V) in the visit in which a precursor comes."""
        return self._weights(self.weight[...] + self.at_once[...])

    def _weights(self, each: Array) -> Array:
        """(leading codes + classes, V) the weights of `each` (precursors,)."""
        code, before = (np.array([pair[at] for pair in self.sizes.precursors], np.int32) for at in (0, 1))
        nothing = jnp.zeros((len(self._leading()) + len(self.sizes.classes), self.sizes.vocabulary), jnp.float32)
        return nothing.at[self._row(before), code].set(QUICK * each)

    def _row(self, before: NDArray[np.int32]) -> NDArray[np.int32]:
        """(pairs,) where the precursors `before` (pairs,) stand among leading codes and classes."""
        leading, size = self._leading(), self.sizes.vocabulary
        row: NDArray[np.int32] = np.where(
            before < size, np.searchsorted(leading, before), before - size + len(leading)
        ).astype(np.int32)
        return row


def _members(sizes: Sizes) -> Array:
    """(V, classes) 1 for the codes of each class."""
    members = np.zeros((sizes.vocabulary, len(sizes.classes)), np.float32)
    for index, codes in enumerate(sizes.classes):
        members[list(codes), index] = 1
    return jnp.asarray(members)
