"""Removes people from a folder of exposures."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from variseq.artifacts.catalog_changes import locked
from variseq.errors import InputError
from variseq.events.vocabulary import Id
from variseq.exposures.folder import hashed_user, read_key, segment_lines, segments, written_anew
from variseq.privacy.erased_users import ErasedUsers

SHOWN = b'"kind":"shown"'


def count_lines(folder: Path, users: Sequence[Id]) -> int:
    """How many lines of a folder are of some users. Raises InputError where it cannot be read."""
    hashes = _hashes(folder, users)
    exposure_ids = _exposure_ids(folder, hashes)
    return sum(of_users for path in segments(folder) for _, of_users in _marked(path, hashes, exposure_ids))


def erase_users(folder: Path, users: Sequence[Id]) -> int:
    """Remove all lines of some users, also those that say what they were shown; how many.

    A segment is written again, whole or not at all, while nothing is appended. Records of these users that wait in a
    process are not written any more. What is interrupted is done again by the same call.

    Args:
        folder: With segments and their key.
        users: Ids of the data.

    Raises:
        InputError: The folder cannot be read or written.
    """
    hashes, num_lines = _hashes(folder, users), 0
    try:
        with locked(folder):
            (ErasedUsers.read(folder) or ErasedUsers()).with_users(users, time.time_ns() // 1000).write(folder)
            for rest in folder.glob(".exposures-*.partial"):
                rest.unlink()
        # From here on no process appends a line of them: each looks at the file above before it writes.
        exposure_ids = _exposure_ids(folder, hashes)
        for path in segments(folder):
            if any(is_of_users for _, is_of_users in _marked(path, hashes, exposure_ids)):
                with locked(folder):
                    num_lines += _rewrite(path, hashes, exposure_ids)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written: {error.strerror or error}. Give the same command again when it can."
        ) from error
    return num_lines


def _hashes(folder: Path, users: Sequence[Id]) -> list[bytes]:
    key = read_key(folder)
    return [hashed_user(key, one).encode() for one in users]


def _exposure_ids(folder: Path, hashes: Sequence[bytes]) -> set[str]:
    """Of the lists of users, and of those that their events name."""
    lines = (line for path in segments(folder) for line, is_of_users in _marked(path, hashes, set()) if is_of_users)
    return {found for line in lines if (found := _exposure_id(line)) is not None}


def _marked(path: Path, hashes: Sequence[bytes], exposure_ids: set[str]) -> Iterator[tuple[bytes, bool]]:
    """The lines of a segment, and whether they are of the users: they have a hash of 12 bytes, or such an id."""
    for line in segment_lines(path):
        is_shown_to_them = bool(exposure_ids) and SHOWN in line and _exposure_id(line) in exposure_ids
        yield line, is_shown_to_them or any(one in line for one in hashes)


def _exposure_id(line: bytes) -> str | None:
    try:
        found = json.loads(line).get("exposure_id")
    except (ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def _rewrite(path: Path, hashes: Sequence[bytes], exposure_ids: set[str]) -> int:
    """Write a segment again without some lines; how many. Nothing is left of a segment without others."""
    num_lines, num_left = 0, 0
    with written_anew(path) as stream:
        for line, is_of_users in _marked(path, hashes, exposure_ids):
            num_lines += is_of_users
            num_left += not is_of_users
            if not is_of_users:
                stream.write(line)
    if not num_left:
        path.unlink()
    return num_lines
