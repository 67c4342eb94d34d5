import uuid

import numpy as np
import pytest

from ehrsim.fhir import identity

GOLDEN = ["859d83cb-e20e-8173-a9e4-db2cbc99bf90", "7f14c494-b8b4-86af-906d-25d7f53424a5"]


def test_ids_are_version_8_uuids_in_canonical_form():
    texts = identity.uuids(identity.hashed(identity.key_of("a"), np.arange(2_000))).to_list()
    parsed = [uuid.UUID(text) for text in texts]
    assert [str(one) for one in parsed] == texts
    assert {one.version for one in parsed} == {8}
    assert {one.variant for one in parsed} == {uuid.RFC_4122}


def test_the_digits_are_those_of_the_hash():
    lanes = np.array([[0x0123456789ABCDEF, 0x0FEDCBA987654321]], dtype=np.uint64)
    assert identity.uuids(lanes).to_list() == ["01234567-89ab-8def-8fed-cba987654321"]


def test_ids_never_change():
    """Ids stand in what users have exported: another value here breaks their references."""
    assert identity.uuids(identity.hashed(identity.key_of("a"), np.array([1, 2]), np.array([3, 4]))).to_list() == GOLDEN


def test_every_part_of_the_key_and_every_column_counts():
    keys = [
        identity.run_key({"run": run, "dataset_name": name}, seed) for run in "ab" for name in "cd" for seed in (0, 1)
    ]
    base = np.array([5, 6])
    variants = [identity.hashed(key, base, base + change) for key in keys for change in (0, 1)]
    variants.append(identity.hashed(keys[0], base + 1, base))
    assert len({text for lanes in variants for text in identity.uuids(lanes)}) == 2 * len(variants)
    assert not set(identity.key_of("ab", "c")) & set(identity.key_of("a", "bc"))


def test_bits_are_even():
    lanes = identity.hashed(identity.key_of(0), np.arange(50_000))
    bits = np.unpackbits(lanes.view(np.uint8).reshape(-1, 16), axis=1).mean(axis=0)
    assert np.abs(bits - 0.5).max() < 5 * 0.5 / np.sqrt(50_000)


@pytest.mark.slow
def test_ten_million_ids_are_unique():
    lanes = identity.hashed(
        identity.key_of("run"), np.repeat(np.arange(10_000), 1_000), np.tile(np.arange(1_000), 10_000)
    )
    masked = lanes & np.array([0xFFFFFFFFFFFF0FFF, 0x3FFFFFFFFFFFFFFF], dtype=np.uint64)
    order = np.lexsort(masked.T)
    assert (np.diff(masked[order].view(np.int64), axis=0) != 0).any(axis=1).all()
