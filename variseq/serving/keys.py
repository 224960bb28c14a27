"""API keys and their roles, kept as SHA-256 in a file and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from variseq.atomic import write_durably
from variseq.errors import InputError

Role = Literal["read", "write", "erase", "admin"]
ROLES: tuple[str, ...] = get_args(Role)
PREFIX = "vsk_"
KEY_BYTES = 32
MAX_KEYS = 200


class Key(BaseModel):
    """Who has a key, what it may do, and its hash, as the file has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    roles: list[Role] = Field(min_length=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: str = ""


class KeyFileContent(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: list[Key] = Field(max_length=MAX_KEYS)


ANONYMOUS = Key(name="-", roles=list(get_args(Role)), sha256="0" * 64)
"""Everybody, where a server has no keys."""


def find_key(keys: Sequence[Key], key: str) -> Key | None:
    """Whose key this is; every stored hash is compared, so that the time reveals nothing."""
    digest = _digest(key)
    found = None
    for stored in keys:
        if hmac.compare_digest(stored.sha256, digest):
            found = stored
    return found


def read_keys(path: Path) -> list[Key]:
    """The keys of a file. Raises InputError for a file that is missing, damaged, empty or open to other writers."""
    keys = _stored(path)
    if not keys:
        raise InputError(f"The key file {path} has no key. Make one: variseq keys create --name shop --role read ...")
    if stat.S_IMODE(path.stat().st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        raise InputError(f"The key file {path} can be written by others. Close it: chmod 600 {path}")
    return keys


def create_key(path: Path, name: str, roles: Sequence[str]) -> str:
    """Make a key, add its hash to the file (made with mode 0600 where missing), and return the key itself.

    Raises InputError for a name that is taken or has other signs than letters, digits, `_`, `.`, `-`, and for roles
    that do not exist.
    """
    key = PREFIX + secrets.token_urlsafe(KEY_BYTES)
    entry = {
        "name": name,
        "roles": list(dict.fromkeys(roles)),
        "sha256": _digest(key),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        added = Key.model_validate(entry)
    except ValidationError as error:
        raise InputError(
            f"The key {name!r} with roles {', '.join(roles) or 'none'} is not possible. A name has 1 to 64 letters, "
            f"digits, '_', '.' or '-'; roles are {', '.join(ROLES)}, at least one."
        ) from error
    keys = _stored(path) if path.exists() else []
    if any(key_before.name == name for key_before in keys):
        raise InputError(f"{path} has a key {name!r} already. Choose another name, or take that entry out first.")
    if len(keys) >= MAX_KEYS:
        raise InputError(f"{path} has {len(keys)} keys, which is the most. Take out those that are not used.")
    _write(path, [*keys, added])
    return key


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _stored(path: Path) -> list[Key]:
    try:
        keys = KeyFileContent.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))).keys
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"The key file {path} cannot be read: {str(error).splitlines()[0]}.") from error
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InputError(
            f"The key file {path} is not of the form keys: [{{name, roles, sha256}}]: {error.errors()[0]['msg']} at "
            f"{where or 'its top'}."
        ) from error
    if len({key.name for key in keys}) < len(keys):
        raise InputError(f"The key file {path} has a name twice. Each key needs a name of its own.")
    return keys


def _write(path: Path, keys: Sequence[Key]) -> None:
    text = yaml.safe_dump({"keys": [key.model_dump() for key in keys]}, sort_keys=False)
    try:
        write_durably(path, text.encode())
    except OSError as error:
        raise InputError(f"The key file {path} cannot be written: {error.strerror}.") from error
