"""Blocks of a vocabulary: consecutive codes of one group, about as many as there are blocks.

What is made for one block at a time is made for a *window*, as many consecutive codes as the widest block has, so that
all are of one shape; codes of a window that are not of its block are masked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ehrsim.batch import Sizes
from ehrsim.models.layers import along

Array = jax.Array
Ints = NDArray[np.int32]

TILE = 64
"""Events of one block that are scored together, by one product with its codes."""


class CodeBlocks(NamedTuple):
    """The blocks of a vocabulary, the first of which is the index 0 alone."""

    first: Ints
    """(blocks,) first code of each, and `last` (blocks,) the one past its last."""
    last: Ints
    group: Ints
    """(blocks,) group of codes from 1, 0 of the first block"""
    of_code: Ints
    """(V,)"""
    begin: Ints
    """(blocks,) first code of the window"""
    width: int
    """Codes of a window."""

    @property
    def number(self) -> int:
        """How many blocks there are."""
        return len(self.first)

    def codes(self, block: Array) -> Array:
        """(..., width) codes of the windows of blocks (...)."""
        begin = jnp.asarray(self.begin)[block][..., None]
        return begin + along(jnp.arange(self.width), begin)

    def inside(self, block: Array, codes: Array) -> Array:
        """(..., width) bool: the codes of a window that are of the block."""
        first, last = (jnp.asarray(edge)[block][..., None] for edge in (self.first, self.last))
        return (codes >= first) & (codes < last)

    def windows(self, of_codes: Array) -> Array:
        """(..., blocks, width) of (..., V)."""
        return of_codes[..., self.begin[:, None] + np.arange(self.width)]

    def masked(self) -> NDArray[np.float32]:
        """(blocks, width) 1 for codes of windows that are of their block."""
        codes = self.begin[:, None] + np.arange(self.width)
        return ((codes >= self.first[:, None]) & (codes < self.last[:, None])).astype(np.float32)


def code_blocks(sizes: Sizes) -> CodeBlocks:
    """Groups cut into blocks of about the square root of the vocabulary each, all of a group of about one size."""
    width = math.ceil(math.sqrt(sizes.vocabulary))
    first, last, group = [0], [1], [0]
    for number, (begin, end) in enumerate(sizes.groups, start=1):
        parts = -(-(end - begin) // width)
        edges = np.linspace(begin, end, parts + 1).round().astype(int).tolist()
        first, last, group = first + edges[:parts], last + edges[1 : parts + 1], group + [number] * parts
    sizes_of = np.array(last) - np.array(first)
    widest = int(sizes_of.max())
    return CodeBlocks(
        first=np.array(first, np.int32),
        last=np.array(last, np.int32),
        group=np.array(group, np.int32),
        of_code=np.repeat(np.arange(len(first)), sizes_of).astype(np.int32),
        begin=np.minimum(first, sizes.vocabulary - widest).astype(np.int32),
        width=widest,
    )


def by_block(block: Array, blocks: int, inputs: Any, work: Callable[[Any, Array], Array]) -> Array:
    """(M,) what `work` makes of events with `inputs`, a pytree with leading axis M, for their `block` (M,).

    The events are sorted into tiles of one block each, and `work` is given the inputs with leading axes (tiles, TILE)
    and the block of each tile; it returns (tiles, TILE). What a block has is so taken up once a tile and not once an
    event. Tiles that are not full repeat the first event, and what comes of that is not looked at.
    """
    events = block.shape[0]
    order = jnp.argsort(block, stable=True)
    count = jnp.zeros(blocks, jnp.int32).at[block].add(1)
    tiles = -(-count // TILE)
    begin, first_tile = jnp.cumsum(count) - count, jnp.cumsum(tiles) - tiles
    of = block[order]
    place = jnp.zeros(events, jnp.int32).at[order].set(first_tile[of] * TILE + jnp.arange(events) - begin[of])
    most = -(-events // TILE) + blocks
    source = jnp.zeros(most * TILE, jnp.int32).at[place].set(jnp.arange(events, dtype=jnp.int32))
    of_tile = jnp.zeros(most, jnp.int32).at[place // TILE].set(block)
    tiled = jax.tree.map(lambda part: part[source].reshape(most, TILE, *part.shape[1:]), inputs)
    return work(tiled, of_tile).reshape(-1)[place]
