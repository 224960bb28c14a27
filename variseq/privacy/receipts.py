"""Receipts of erasures: signed files, each with the hash of the one before, which name nobody."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from variseq.atomic import write_durably
from variseq.errors import InputError
from variseq.privacy.erased_users import SECRET_BYTES
from variseq.privacy.merkle import Neighbor, is_absent

FORMAT_VERSION = 1
KEY = "key"
NAME = re.compile(r"receipt-(\d{6})\.json")
MAX_BYTES = 256 << 20
Content = dict[str, Any]


@dataclass(frozen=True)
class Receipts:
    """A folder of receipts and their secret key, which signs them and hashes user ids."""

    folder: Path
    key: bytes

    @classmethod
    def open(cls, folder: Path) -> Receipts:
        """The receipts of a folder, which is made with a new key where it is not there.

        Raises InputError for receipts without their key, and for a folder that cannot be written.
        """
        path = folder / KEY
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                if _names(folder):
                    raise InputError(f"{folder} has receipts, but their key is missing. Restore {path} from a copy.")
                write_durably(path, secrets.token_hex(SECRET_BYTES).encode())
        except OSError as error:
            raise InputError(f"The receipts cannot be kept in {folder}: {error.strerror or error}.") from error
        return cls(folder, read_key(folder))

    def add(self, content: Mapping[str, Any]) -> Path:
        """Sign and write the next receipt; its path. Raises InputError where the last one was altered."""
        names = _names(self.folder)
        last = None if not names else self.folder / names[-1]
        number = 1 if last is None else _number(last) + 1
        previous = None if last is None else read_receipt(last)[1]
        signed = {"format": FORMAT_VERSION, "number": number, **content, "previous": previous}
        path = self.folder / f"receipt-{number:06}.json"
        write_durably(path, _text(signed | {"signature": _signature(signed, self.key)}), 0o644)
        return path


def read_key(folder: Path) -> bytes:
    """The key of a folder of receipts. Raises InputError."""
    try:
        return bytes.fromhex((folder / KEY).read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"The key of the receipts, {folder / KEY}, cannot be read ({error}). Without it no receipt can be checked."
        ) from error


def read_receipt(path: Path) -> tuple[Content, str]:
    """A receipt whose signature is right, and the SHA-256 of its file.

    Raises InputError for one that was altered in any byte, and where it or the key cannot be read.
    """
    key, altered = read_key(path.parent), InputError(f"{path} was altered: its signature is wrong. Do not rely on it.")
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"The receipt {path} cannot be read: {error.strerror or error}.") from error
    try:
        content = json.loads(text)
        signature = content.pop("signature")
        is_right = hmac.compare_digest(_signature(content, key).encode(), str(signature).encode())
        is_right &= _text(content | {"signature": signature}) == text
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise altered from error
    if not is_right:
        raise altered
    return content, hashlib.sha256(text).hexdigest()


def verify_receipt(path: Path) -> Content:
    """A receipt that was checked: its signature, all receipts before it, and that nobody erased is in the data.

    Raises InputError for the first that is wrong.
    """
    content, _ = read_receipt(path)
    if _number(path) != content["number"]:
        raise InputError(f"{path} has the number {content['number']}: it was renamed. Give it its name again.")
    later = content
    while later["number"] > 1:
        before = path.with_name(f"receipt-{later['number'] - 1:06}.json")
        earlier, digest = read_receipt(before)
        if later["previous"] != digest or earlier["number"] != later["number"] - 1:
            raise InputError(f"{before} is not the receipt that the next one names. Do not rely on either.")
        later = earlier
    if not all(_is_proof(one, marker) for one in content["runs"] for marker in content["erased"]):
        raise InputError(f"{path} does not prove that everybody it names was erased. Do not rely on it.")
    return content


def _is_proof(run: Content, marker: str) -> bool:
    after = run["after"]
    neighbors = [
        Neighbor(index, bytes.fromhex(leaf), tuple(map(bytes.fromhex, nodes)))
        for index, leaf, nodes in run["absent"].get(marker, [])
    ]
    return is_absent(bytes.fromhex(marker), neighbors, bytes.fromhex(after["root"]), after["num_users"])


def proof_of(neighbors: Sequence[Neighbor]) -> list[list[Any]]:
    """A proof of `MerkleTree.absence` as JSON: index, leaf and path of each neighbor."""
    return [[one.index, one.leaf.hex(), [node.hex() for node in one.path]] for one in neighbors]


def source_sha256() -> str:
    """The SHA-256 of this package's source: of the paths and the bytes of its files."""
    root, digest = Path(__file__).parent.parent, hashlib.sha256()
    for path in sorted(one for one in root.rglob("*") if one.suffix in (".py", ".sql", ".lua")):
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _names(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if NAME.fullmatch(name))


def _number(path: Path) -> int:
    found = NAME.fullmatch(path.name)
    if found is None:
        raise InputError(f"{path.name!r} is not the name of a receipt. Receipts have names like receipt-000001.json.")
    return int(found[1])


def _text(content: Content) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"


def _signature(content: Content, key: bytes) -> str:
    # With the first bytes no signature is the hash of a user id.
    return hmac.new(key, b"receipt\0" + _text(content), "sha256").hexdigest()
