"""A user id into what may stay of it after an erasure: a keyed hash, which only the store that has the key can make."""

from __future__ import annotations

import hmac
import secrets
import time

from variseq.events.vocabulary import Id

SECRET_BYTES = 32


def new_secret() -> bytes:
    """The key of one store, made when the store is."""
    return secrets.token_bytes(SECRET_BYTES)


def user_hash(secret: bytes, user_id: Id) -> bytes:
    """HMAC-SHA256 of the id with its type: 12 and "12" are different users.

    >>> user_hash(b"key", 12) == user_hash(b"key", "12")
    False
    """
    typed = f"{'i' if isinstance(user_id, int) else 's'}:{user_id}"
    return hmac.digest(secret, typed.encode("utf-8"), "sha256")


def erased_until(latest_timestamp: int | None) -> int:
    """Up to which time (UTC microseconds) events of a user who is erased now are refused.

    That is now, or the latest event that was there: an event dated into the future must not come back either.
    """
    now = time.time_ns() // 1000
    return now if latest_timestamp is None else max(now, latest_timestamp)
