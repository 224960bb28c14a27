"""What parties and the coordinator send each other: terms, signed messages and states, as MessagePack."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from cryptography.exceptions import InvalidSignature
from jaxtyping import Int

from variseq.errors import InputError
from variseq.federation.keys import PartyKey, PublicKeys
from variseq.privacy.accounting import Ledger
from variseq.privacy.contributions import Pairs
from variseq.privacy.noise import GRID, LARGEST_NOISE
from variseq.privacy.release import PrivacyOptions, exact_ledger, private_ledger

SIGNED = b"variseq federation 2\0"
"""Stands before all that is signed, so that a signature is of use nowhere else."""
MOST_ROUNDS = 1000
encode = msgspec.msgpack.Encoder().encode


class NetworkTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The network that is trained after the counts; its other settings follow from sums over the logs.

    Args:
        size: The size that the settings follow from, one of `variseq.training.defaults.SIZES`.
        rounds: Rounds of training, each of one epoch at every party.
        seed: Seed of the parameters that all parties begin with, and of training.
        server_optimizer: What moves the shared network after each round, see `ServerOptimizer`.
        server_rate: Its learning rate.
        server_momentum: Its momentum.
        proximal: The weight μ of FedProx, which holds a party near the shared network; 0: none.
        content: The digest of `PublicFeatures` that item vectors are sums of; None: the ids alone are known.
        num_features: How many vectors they are.
    """

    size: str = "small"
    rounds: Annotated[int, msgspec.Meta(ge=1, le=MOST_ROUNDS)] = 40
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 0
    server_optimizer: Literal["sgd", "adam"] = "sgd"
    server_rate: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0
    server_momentum: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    proximal: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0
    content: str | None = None
    num_features: Annotated[int, msgspec.Meta(ge=0)] = 0


def network_terms(given: dict[str, Any]) -> NetworkTerms:
    """Terms with the settings that were given. Raises InputError for ones that are not allowed."""
    try:
        return msgspec.convert(given, NetworkTerms)
    except msgspec.ValidationError as error:
        raise InputError(
            f"The settings of the network are not allowed: {error}. Given: {given}. Optimizers: sgd, adam."
        ) from error


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all parties agree on before they send anything.

    Args:
        federation: Random bytes: no message of one federation is taken in another.
        parties: How many.
        catalog: `catalog_digest` of the public catalog.
        num_items: Its size.
        num_users: The declared number of users of all parties together.
        epsilon: The budget ε of a private release; None: exact sums.
        delta: The budget δ; None: `default_delta` of the number of users.
        max_user_events: Only the last events of each user count, at most so many.
        exclude_seen: Whether items of a person's own history are left out of answers.
        pairs: Which pairs are counted, see `pair_sums`.
        network: The network to train without privacy; None: none. With one the last event of each user is kept for
            validation, and the counts are of those before it.
        private_network: Whether a network is trained by noisy steps, within the budget; its settings are those of
            `PrivacyOptions`. Then the last events are kept for the choice of its weight.
    """

    federation: bytes
    parties: int
    catalog: str
    num_items: int
    num_users: int
    epsilon: float | None
    delta: float | None
    max_user_events: int
    exclude_seen: bool
    pairs: Pairs
    network: NetworkTerms | None = None
    private_network: bool = False

    def options(self) -> PrivacyOptions:
        """The options of the run. Raises InputError for ones that are not possible."""
        epsilon = float("inf") if self.epsilon is None else self.epsilon
        given = (epsilon, self.delta, self.max_user_events, self.exclude_seen, self.pairs)
        return PrivacyOptions(*given, content=0.0, network="yes" if self.private_network else "no")

    def refuse_sum(self, total: Int[np.ndarray, " number"], noise_multiplier: float) -> None:
        """Raises InputError for a sum with a number that the declared users and the noise cannot make."""
        most = self.num_users + LARGEST_NOISE * noise_multiplier
        if np.abs(total * GRID).max(initial=0.0) > most:
            raise InputError(
                f"It is larger than {self.num_users:,} users can make it. A party is broken, or --users is too low. "
                "Start all again."
            )

    def ledger(self) -> Ledger:
        """The noise of each sum, which every party computes alone. Raises InputError for an impossible budget."""
        options = self.options()
        return exact_ledger(options) if self.epsilon is None else private_ledger(options, self.num_users)


class Join(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """A process of a party begins, or begins again."""

    catalog: str


class EphemeralKey(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The X25519 key of a party for one attempt of one round."""

    round: int
    attempt: int
    key: bytes


class Update(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The masked numbers of a party, eight bytes each, low byte first."""

    round: int
    attempt: int
    transcript: bytes
    values: bytes


class Poll(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """A party asks for the state; it has so many sums."""

    num_sums: int


class Done(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """A party has all sums."""


Message = Join | EphemeralKey | Update | Poll | Done


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a party signs; `process` are random bytes that each start of its command draws."""

    federation: bytes
    process: bytes
    message: Message


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signed message; `content` is a `Content` as it was signed."""

    party: int
    content: bytes
    signature: bytes


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer to each message.

    Args:
        round: The number of sums that are complete.
        attempt: How often the round was begun again.
        awaited: The parties whose key is missing; where none is, those whose update is missing.
        keys: The signed keys of all parties, where all have come.
        total: The first sum that the party does not have.
    """

    round: int
    attempt: int
    awaited: list[int]
    keys: list[Envelope]
    total: bytes | None


def sealed(key: PartyKey, federation: bytes, process: bytes, message: Message) -> Envelope:
    """A message with the signature of a party."""
    content = encode(Content(federation, process, message))
    return Envelope(key.party, content, key.signing_key.sign(SIGNED + content))


def opened(envelope: Envelope, keys: PublicKeys, federation: bytes) -> Content:
    """The content of a signed message. Raises InputError for a wrong signature, form or federation."""
    who = f"The message of party {envelope.party}"
    try:
        keys.of(envelope.party).verify(envelope.signature, SIGNED + envelope.content)
    except InvalidSignature as error:
        raise InputError(f"{who} has a wrong signature. Give the party the key file that was made for it.") from error
    content = decoded(envelope.content, Content, who)
    if content.federation != federation:
        raise InputError(f"{who} is of another federation. Start its command again.")
    return content


def decoded(body: bytes, kind: type[Any], who: str) -> Any:
    """Raises InputError for bytes that are not of the right form."""
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{who} is not of the right form: {error}.") from error


def transcript(terms: Terms, number: int, attempt: int, keys: Iterable[Envelope], sums: Iterable[bytes]) -> bytes:
    """A hash of all that the parties of one attempt have to agree on; `sums` are `digest` of each sum before."""
    parts = [encode(terms), encode((number, attempt)), *(one.content for one in keys)]
    return digest(b"".join([*map(digest, parts), *sums]))


def digest(part: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(part).digest()
