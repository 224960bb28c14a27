"""The audit log is on the disk before the act is answered, and names no user."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from variseq.errors import InputError
from variseq.serving.auth import AuditLog
from variseq.serving.http import HTTPError


def test_same_user_gives_the_same_hash_after_a_restart_and_other_ids_give_others(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    hashes = []
    for user in ("ann", "ann", "bob", "12", 12):
        log = AuditLog(file)
        asyncio.run(log.write("erase user", "boss", "done", "r-1", user))
        log.close()
        hashes.append(json.loads(file.read_text().splitlines()[-1])["user"])
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4
    assert "ann" not in file.read_text()


def test_hash_cannot_be_guessed_without_its_key(tmp_path: Path) -> None:
    one, other = AuditLog(tmp_path / "one"), AuditLog(tmp_path / "other")
    assert one.hash_of("ann") != other.hash_of("ann")
    one.close()
    other.close()


def test_log_on_a_full_disk_refuses_the_act() -> None:
    log = AuditLog(None)
    log._descriptor = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(HTTPError, match="cannot be written") as refused:
        asyncio.run(log.write("erase user", "boss", "done", "r-1"))
    assert refused.value.status == 503
    log.close()


def test_place_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        AuditLog(tmp_path / "missing" / "audit.jsonl")
