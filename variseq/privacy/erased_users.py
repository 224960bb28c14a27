"""Which users were erased, as keyed hashes: a file in a folder of runs, so that no old run brings them back."""

from __future__ import annotations

import hmac
import json
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from variseq.atomic import write_durably
from variseq.errors import CheckpointError
from variseq.events.vocabulary import Id, typed

ERASED_USERS = "erased_users.json"
SECRET_BYTES = 32
"""Of the key of the hashes."""
BEFORE_ALL_TIME = -(2**63)


def user_hash(secret: bytes, user_id: Id) -> bytes:
    """HMAC-SHA256 of a user id with its type.

    >>> user_hash(b"key", 12) == user_hash(b"key", "12")
    False
    """
    return hmac.digest(secret, typed(user_id).encode("utf-8"), "sha256")


def read_or_make_secret(path: Path) -> bytes:
    """The key of hashes in a file, made where it is not there; of several processes that start at once, one makes it.

    Raises OSError where it cannot be read or made.
    """
    if not path.exists():
        own = path.with_name(f".{path.name}.{os.getpid()}")
        write_durably(own, secrets.token_bytes(SECRET_BYTES))
        with suppress(FileExistsError):
            os.link(own, path)
        own.unlink()
    return path.read_bytes()


@dataclass(frozen=True)
class ErasedUsers:
    """Until when (UTC microseconds) events of a user are those of before the erasure, by `user_hash`."""

    secret: bytes = field(default_factory=lambda: secrets.token_bytes(SECRET_BYTES))
    until: dict[bytes, int] = field(default_factory=dict)

    def refuses(self, user_id: Id, timestamp: int) -> bool:
        """Whether an event is of an erased user, from before the erasure.

        >>> ErasedUsers().with_users(["ann"], until=9).refuses("ann", 9), ErasedUsers().refuses("ann", 9)
        (True, False)
        """
        return bool(self.until) and timestamp <= self.until.get(user_hash(self.secret, user_id), BEFORE_ALL_TIME)

    def with_users(self, users: Sequence[Id], until: int) -> ErasedUsers:
        """These users and more."""
        added = {user_hash(self.secret, one): until for one in users}
        latest = {marker: max(time, self.until.get(marker, time)) for marker, time in added.items()}
        return replace(self, until=self.until | latest)

    def write(self, folder: Path) -> None:
        """Write the file of a folder, whole or not at all; its owner alone may read it."""
        users = {marker.hex(): time for marker, time in sorted(self.until.items())}
        write_durably(folder / ERASED_USERS, json.dumps({"secret": self.secret.hex(), "users": users}).encode())

    @classmethod
    def read(cls, folder: Path) -> ErasedUsers | None:
        """The file of a folder; None where there is none. Raises CheckpointError for a damaged one."""
        path = folder / ERASED_USERS
        try:
            record = json.loads(path.read_bytes())
            until = {bytes.fromhex(marker): int(time) for marker, time in record["users"].items()}
            return cls(bytes.fromhex(record["secret"]), until)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({error}), so who was erased is not known. Restore it from a copy, or "
                "give who runs this the right to read it."
            ) from error


def erased_users_above(run: Path) -> list[ErasedUsers]:
    """The files of all folders that a run is in. Raises CheckpointError for a damaged one."""
    found = [ErasedUsers.read(folder) for folder in run.resolve().parents]
    return [one for one in found if one is not None]
