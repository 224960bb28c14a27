"""Proofs of a Merkle tree show that a key is not there, and nothing else passes for one."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq.privacy.merkle import MerkleTree, Neighbor, is_absent

LEAVES = st.sets(st.binary(min_size=2, max_size=3), max_size=20)


def plain_top(leaves: list[bytes]) -> bytes:
    """The Merkle tree hash of RFC 6962, as it is defined there."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    half = 1
    while 2 * half < len(leaves):
        half *= 2
    return hashlib.sha256(b"\x01" + plain_top(leaves[:half]) + plain_top(leaves[half:])).digest()


@given(LEAVES)
def test_root_is_that_of_the_definition(leaves: set[bytes]) -> None:
    top = plain_top(sorted(leaves)) if leaves else b""
    whole = hashlib.sha256(b"\x02" + len(leaves).to_bytes(8, "big") + top).digest()
    assert MerkleTree(sorted(leaves, reverse=True)).root == whole


@given(LEAVES, st.binary(min_size=2, max_size=2))
def test_proof_holds_exactly_for_keys_that_are_not_there(leaves: set[bytes], key: bytes) -> None:
    tree = MerkleTree(list(leaves))
    is_there = any(leaf.startswith(key) for leaf in leaves)
    assert is_absent(key, tree.absence(key), tree.root, len(leaves)) != is_there


@given(LEAVES.filter(lambda leaves: len(leaves) > 2), st.data())
def test_no_pair_of_leaves_is_a_proof_that_a_leaf_is_missing(leaves: set[bytes], data: st.DataObject) -> None:
    tree = MerkleTree(list(leaves))
    key = data.draw(st.sampled_from(tree.leaves))
    every = [one for leaf in tree.leaves for one in tree.absence(leaf + b"\x00")]
    chosen = data.draw(st.lists(st.sampled_from(every), max_size=2))
    num_leaves = data.draw(st.integers(0, len(leaves) + 1))
    assert not is_absent(key, chosen, tree.root, num_leaves)


@pytest.mark.parametrize(
    "changed",
    [
        lambda one: replace(one, index=one.index + 1),
        lambda one: replace(one, index=-1),
        lambda one: replace(one, leaf=one.leaf + b"x"),
        lambda one: replace(one, path=one.path[:-1]),
        lambda one: replace(one, path=(*one.path, b"x" * 32)),
    ],
)
def test_changed_neighbor_is_no_proof(changed: object) -> None:
    tree = MerkleTree([b"a", b"c", b"e", b"g", b"i"])
    left, right = tree.absence(b"d")
    assert is_absent(b"d", [left, right], tree.root, 5)
    assert not is_absent(b"d", [changed(left), right], tree.root, 5)  # type: ignore[operator]
    assert not is_absent(b"d", [left], tree.root, 5)
    assert not is_absent(b"d", [Neighbor(0, b"z", ())], tree.root, 5)
