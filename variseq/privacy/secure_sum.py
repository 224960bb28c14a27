"""A sum over parties of which nothing else is seen: each pair of parties adds masks that cancel, modulo 2^64."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from jaxtyping import Int, UInt64

LEAST_PARTIES = 3
"""Of two parties each learns the other's numbers from the sum."""


def masked(
    values: Int[np.ndarray, " number"],
    own_key: X25519PrivateKey,
    party: int,
    public_keys: Mapping[int, X25519PublicKey],
    transcript: bytes,
) -> UInt64[np.ndarray, " number"]:
    """Numbers plus a mask for each other party; the masks of all parties sum to zero modulo 2^64.

    Who does not have the private key of the party or of all others sees uniform numbers.
    Source: Bonawitz et al. 2017, "Practical secure aggregation", section 4.1, without the recovery of dropouts.

    Args:
        values: The numbers of this party.
        own_key: A key that is used for no other sum.
        party: The number of this party.
        public_keys: The keys of all parties by their numbers, for this sum only.
        transcript: A hash of all that the parties have to agree on. Where two of them differ, the sum is random.
    """
    total = values.astype(np.int64).view(np.uint64)
    for other, key in public_keys.items():
        if other == party:
            continue
        mask = _mask(own_key.exchange(key), transcript, len(total))
        total = total + mask if party < other else total - mask
    return total


def sum_of_masked(updates: Iterable[UInt64[np.ndarray, " number"]]) -> Int[np.ndarray, " number"]:
    """The exact sum of what the parties masked."""
    return reduce(np.add, updates).view(np.int64)


def _mask(secret: bytes, transcript: bytes, number: int) -> UInt64[np.ndarray, " number"]:
    """The ChaCha20 stream of a key that belongs to two parties and one sum."""
    key = HKDF(SHA256(), 32, salt=transcript, info=b"variseq secure sum").derive(secret)
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(8 * number))
    return np.frombuffer(stream, dtype="<u8")
