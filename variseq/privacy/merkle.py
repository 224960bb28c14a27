"""A Merkle tree over sorted leaves, that of a run's data, and proofs that no leaf begins with a key.

Source of the hashes of leaves and nodes: RFC 6962, section 2.1. The root also covers the number of leaves, so that a
proof cannot name another one.
"""

from __future__ import annotations

import hashlib
import hmac
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from variseq.events.vocabulary import Vocabulary, typed
from variseq.privacy.erased_users import user_hash
from variseq.sequences.histories import Histories


def _hash(kind: bytes, *parts: bytes) -> bytes:
    return hashlib.sha256(kind + b"".join(parts)).digest()


def _root(num_leaves: int, top: bytes) -> bytes:
    return _hash(b"\x02", num_leaves.to_bytes(8, "big"), top)


class MerkleTree:
    """The tree of some leaves, which are sorted here.

    >>> tree = MerkleTree([b"b", b"a", b"d"])
    >>> proof = tree.absence(b"c")
    >>> [neighbor.leaf for neighbor in proof]
    [b'b', b'd']
    >>> is_absent(b"c", proof, tree.root, 3), is_absent(b"d", proof, tree.root, 3)
    (True, False)
    """

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = sorted(leaves)
        self._levels = [[_hash(b"\x00", leaf) for leaf in self.leaves]]
        while len(level := self._levels[-1]) > 1:
            pairs = [_hash(b"\x01", *level[first : first + 2]) for first in range(0, len(level) - 1, 2)]
            # The last node of an odd number has no partner and goes up as it is.
            self._levels.append(pairs + level[len(level) & ~1 :])

    @property
    def root(self) -> bytes:
        """32 bytes that follow from all leaves and their number."""
        return _root(len(self.leaves), self._levels[-1][0] if self.leaves else b"")

    def absence(self, key: bytes) -> list[Neighbor]:
        """The leaves before and after a key that no leaf begins with; at the ends of the tree there is one."""
        after = bisect_left(self.leaves, key)
        return [self._neighbor(index) for index in (after - 1, after) if 0 <= index < len(self.leaves)]

    def _neighbor(self, index: int) -> Neighbor:
        path, position = [], index
        for level in self._levels[:-1]:
            if (sibling := position ^ 1) < len(level):
                path.append(level[sibling])
            position //= 2
        return Neighbor(index, self.leaves[index], tuple(path))


@dataclass(frozen=True)
class Neighbor:
    """A leaf, its index, and the hashes that lead from it to the root."""

    index: int
    leaf: bytes
    path: tuple[bytes, ...]

    def root(self, num_leaves: int) -> bytes | None:
        """The root of the tree with this leaf; None where there cannot be one."""
        position, last, path = self.index, num_leaves - 1, list(self.path)
        if not 0 <= position <= last:
            return None
        node = _hash(b"\x00", self.leaf)
        while last:
            if position % 2 or position < last:
                if not path:
                    return None
                sibling = path.pop(0)
                node = _hash(b"\x01", sibling, node) if position % 2 else _hash(b"\x01", node, sibling)
            position, last = position // 2, last // 2
        return None if path else _root(num_leaves, node)


def is_absent(key: bytes, neighbors: Sequence[Neighbor], root: bytes, num_leaves: int) -> bool:
    """Whether a proof of `MerkleTree.absence` shows that no leaf of the tree with this root begins with the key."""
    if not neighbors:
        return num_leaves == 0 and root == _root(0, b"")
    if any(one.root(num_leaves) != root or one.leaf.startswith(key) for one in neighbors):
        return False
    before = [one.index for one in neighbors if one.leaf < key]
    after = [one.index for one in neighbors if one.leaf > key]
    if len(before) > 1 or len(after) > 1:
        return False
    # What is before the first leaf and after the last one has no neighbor.
    left, right = (before or [-1])[0], (after or [num_leaves])[0]
    return right == left + 1


def data_tree(histories: Histories, vocabulary: Vocabulary, key: bytes) -> MerkleTree:
    """The Merkle tree of a log: a leaf of 64 bytes for each person.

    A leaf is the HMAC-SHA256 of the user id and then that of the person's events, oldest first. Without the key a short
    history could be guessed from its hash. An event is the SHA-256 of its item id, that of its behavior, the time in
    microseconds (int64) and the value (float32), both little-endian. So the root does not depend on the order of users
    and items in the vocabulary.
    """
    item = _digests([typed(one) for one in vocabulary.item_ids(range(vocabulary.num_items))])
    behavior = _digests(list(vocabulary.behaviors))
    value = np.where(np.isnan(histories.value), np.float32(np.nan), histories.value).astype("<f4")
    numbers = [_bytes_of(histories.timestamp.astype("<i8")), _bytes_of(value)]
    leaves = []
    ends = histories.offsets.tolist()
    for user_id, first, end in zip(vocabulary.users.to_pylist(), ends[:-1], ends[1:], strict=True):
        events = [item[histories.item[first:end]], behavior[histories.behavior[first:end]]]
        events += [one[first:end] for one in numbers]
        text = b"events\0" + np.concatenate(events, axis=1).tobytes()
        leaves.append(user_hash(key, user_id) + hmac.digest(key, text, "sha256"))
    return MerkleTree(leaves)


def _digests(texts: list[str]) -> np.ndarray:
    return np.array([list(hashlib.sha256(text.encode()).digest()) for text in texts], np.uint8).reshape(-1, 32)


def _bytes_of(numbers: np.ndarray) -> np.ndarray:
    """A row of bytes for each number."""
    return np.ascontiguousarray(numbers).view(np.uint8).reshape(len(numbers), numbers.itemsize)
