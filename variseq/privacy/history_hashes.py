"""One hash for the history of each person, from which the Merkle root of a run's data is made."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np

from variseq.events.vocabulary import Vocabulary
from variseq.privacy.erased_users import typed, user_hash
from variseq.privacy.merkle import MerkleTree
from variseq.sequences.histories import Histories


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
