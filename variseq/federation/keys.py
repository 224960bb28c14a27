"""Key files: a signing key for each party, and the public keys of all for everybody."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from variseq.atomic import atomic_directory, refuse_existing, write_durably
from variseq.errors import InputError
from variseq.privacy.secure_sum import LEAST_PARTIES

MOST_PARTIES = 100
COORDINATOR = "coordinator.json"


class PublicKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file of the coordinator.

    Args:
        public_keys: The Ed25519 keys of all parties in hexadecimal digits, party 1 first.
    """

    public_keys: list[str]

    def __post_init__(self) -> None:
        if not LEAST_PARTIES <= len(self.public_keys) <= MOST_PARTIES:
            raise ValueError(f"{len(self.public_keys)} public keys, and {LEAST_PARTIES} to {MOST_PARTIES} are possible")
        for key in self.public_keys:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))

    def of(self, party: int) -> Ed25519PublicKey:
        """The key of a party. Raises InputError for a party that there is not."""
        if not 1 <= party <= len(self.public_keys):
            raise InputError(f"There is no party {party}. Allowed: 1 to {len(self.public_keys)}.")
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public_keys[party - 1]))


class PartyKey(PublicKeys, frozen=True, forbid_unknown_fields=True):
    """The file of one party.

    Args:
        party: Its number, from 1.
        private_key: Its Ed25519 key in hexadecimal digits.
    """

    party: int
    private_key: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.of(self.party) != self.signing_key.public_key():
            raise ValueError("the private key does not belong to the public key of the party")

    def __repr__(self) -> str:
        return f"PartyKey(party={self.party})"

    @property
    def signing_key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(self.private_key))


def create_keys(folder: Path, parties: int) -> list[Path]:
    """Make new keys: a file for each party and one for the coordinator, all with mode 0600.

    Returns:
        The files of the parties, party 1 first, and that of the coordinator.

    Raises:
        InputError: For fewer than three parties, and a folder that exists.
    """
    refuse_other_number(parties)
    refuse_existing(folder)
    private = [Ed25519PrivateKey.generate() for _ in range(parties)]
    public = [key.public_key().public_bytes_raw().hex() for key in private]
    files: dict[str, PublicKeys] = {
        f"party-{party}.json": PartyKey(public, party, key.private_bytes_raw().hex())
        for party, key in enumerate(private, 1)
    }
    files[COORDINATOR] = PublicKeys(public)
    with atomic_directory(folder) as unfinished:
        for name, content in files.items():
            write_durably(unfinished / name, msgspec.json.format(msgspec.json.encode(content)) + b"\n")
    return [folder / name for name in files]


def refuse_other_number(parties: int) -> None:
    """Raises InputError for too few parties or too many."""
    if not LEAST_PARTIES <= parties <= MOST_PARTIES:
        raise InputError(
            f"A federation of {parties} is not possible, as of two parties each learns the other's numbers from the "
            f"sum. Give {LEAST_PARTIES} to {MOST_PARTIES} parties."
        )


def read_public_keys(path: Path) -> PublicKeys:
    """The file of the coordinator. Raises InputError for one that is missing, damaged or open to other writers."""
    return _read(path, PublicKeys, stat.S_IWGRP | stat.S_IWOTH)


def read_party_key(path: Path) -> PartyKey:
    """The file of a party. Raises InputError for one that is missing, damaged or open to other readers."""
    return _read(path, PartyKey, stat.S_IRWXG | stat.S_IRWXO)


_Keys = TypeVar("_Keys", bound=PublicKeys)


def _read(path: Path, kind: type[_Keys], forbidden: int) -> _Keys:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise InputError(f"The key file {path} cannot be used: {error}. See `variseq federate keys`.") from error
    if stat.S_IMODE(path.stat().st_mode) & forbidden:
        raise InputError(f"The key file {path} is open to others. Close it: chmod 600 {path}")
    return found
