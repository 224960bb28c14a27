"""A party: it keeps its log, masks what it adds to each sum, and takes the sums of all."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from time import sleep
from typing import TYPE_CHECKING

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from jaxtyping import Int

from variseq.errors import InputError
from variseq.evaluation.splits import Part
from variseq.federation.connection import Connection
from variseq.federation.keys import PartyKey
from variseq.federation.messages import (
    Done,
    EphemeralKey,
    Join,
    Message,
    Poll,
    State,
    Terms,
    Update,
    opened,
    sealed,
    transcript,
)
from variseq.federation.rounds import OwnSums, Rounds, refuse_network
from variseq.privacy.noise import Noise, secure_noise
from variseq.privacy.secure_sum import masked

if TYPE_CHECKING:
    from variseq.federation.public_features import PublicFeatures

PROCESS_BYTES = 16
Report = Callable[[str], None]


def take_part(
    connection: Connection,
    key: PartyKey,
    catalog: str,
    part: Part,
    largest_epsilon: float | None,
    report: Report,
    noise: Noise = secure_noise,
    features: Callable[[], PublicFeatures] | None = None,
) -> Rounds:
    """Add the sums of a log to those of the other parties.

    Args:
        connection: To the coordinator.
        key: The key file of this party.
        catalog: `catalog_digest` of the items that the histories are made of.
        part: The validation part of the log, without a test part. Its targets are learned from, too, unless a network
            is trained.
        largest_epsilon: A federation with a larger ε, or without privacy, is refused; None: none is.
        report: Takes lines about what is done and awaited.
        noise: For tests only; without it there is no privacy.
        features: Those of the catalog, which are computed where the terms have their digest.

    Returns:
        The rounds with the sums of all parties.

    Raises:
        InputError: For terms that this party does not accept, a message that is refused, keys of other parties that
            they did not sign, and a coordinator that does not answer.
    """
    terms = connection.terms()
    refuse_terms(terms, key, len(part.histories), largest_epsilon)
    rounds = Rounds(terms, same_features(terms, features))
    spent = "exact sums, which are not private" if terms.epsilon is None else f"ε = {rounds.ledger.epsilon():.3f}"
    report(f"Party {key.party} of {terms.parties}: {spent}, {terms.num_users:,} users declared.")
    if terms.private_network:
        report(f"A network is trained in {rounds.number - 3} steps with noise, within this ε.")
    if (network := terms.network) is not None:
        report(f"A network of size {network.size} is trained in {network.rounds} rounds, without privacy.")
    party = _Party(connection, key, rounds, report)
    party.ask(Join(catalog))
    own = OwnSums(part, key.party, noise)
    while not rounds.is_complete:
        party.add_sum_of_all(lambda: own.of(rounds))
    party.ask(Done())
    return rounds


def same_features(terms: Terms, features: Callable[[], PublicFeatures] | None) -> PublicFeatures | None:
    """The features of this catalog, where the coordinator uses its own. Raises InputError where they differ."""
    if terms.network is None or terms.network.content is None:
        return None
    found = None if features is None else features()
    if found is None or (found.digest, found.number) != (terms.network.content, terms.network.num_features):
        digest = "none" if found is None else found.digest[:16]
        raise InputError(
            f"The catalog here has other titles, categories or columns than that of the coordinator: SHA-256 {digest} "
            f"in place of {terms.network.content[:16]}. Give every party the same table of items, read the same way."
        )
    return found


def refuse_terms(terms: Terms, key: PartyKey, num_users: int, largest_epsilon: float | None) -> None:
    """Raises InputError for terms that would protect the users of this party less than they say."""
    if terms.parties != len(key.public_keys):
        raise InputError(
            f"The coordinator has {terms.parties} parties, and the key file {len(key.public_keys)}. Give both the "
            "files of one `variseq federate keys`."
        )
    if terms.num_users < num_users:
        raise InputError(
            f"This log alone has more users than the {terms.num_users:,} that the coordinator declares. Start it with "
            "a larger --users."
        )
    refuse_network(terms)
    if largest_epsilon is None:
        return
    if terms.epsilon is None or terms.epsilon > largest_epsilon:
        wanted = "without privacy" if terms.epsilon is None else f"with ε = {terms.epsilon:g}"
        raise InputError(f"The coordinator sums {wanted}. Accepted here: ε up to {largest_epsilon:g}.")
    delta, most = terms.ledger().delta, 1 / num_users
    if delta > most:
        raise InputError(f"The coordinator has δ = {delta:.2g}. Accepted here: up to 1 / users = {most:.2g}.")


class _Party:
    """The messages of one process of a party."""

    def __init__(self, connection: Connection, key: PartyKey, rounds: Rounds, report: Report) -> None:
        self._connection, self._key, self._rounds, self._report = connection, key, rounds, report
        self._terms, self._process = rounds.terms, secrets.token_bytes(PROCESS_BYTES)
        self._awaited: list[int] = []

    def ask(self, message: Message) -> State:
        """The state after a message that may arrive twice."""
        return self._connection.waiting(lambda: self._send(message))

    def add_sum_of_all(self, own: Callable[[], Int[np.ndarray, " number"]]) -> None:
        """Take the next sum of all parties.

        The numbers of this party, with their noise, are computed once. Each attempt masks the same ones, so that a
        coordinator that begins a round again learns nothing new.
        """
        values: Int[np.ndarray, " number"] | None = None
        attempt, ephemeral = -1, X25519PrivateKey.generate()
        while True:
            state = self.ask(Poll(len(self._rounds.sums)))
            if state.total is not None:
                self._rounds.add(state.total)
                return
            if state.round != len(self._rounds.sums) or state.attempt < attempt:
                raise InputError("The coordinator went back to an earlier round or attempt. Start this command again.")
            if values is None:
                self._report(f"{self._rounds.progress()}.")
                values = own()
            if state.attempt > attempt:
                attempt, ephemeral = state.attempt, X25519PrivateKey.generate()
            if self._key.party not in state.awaited:
                self._show_awaited(state)
                sleep(self._connection.poll_seconds)
                continue
            # Where the answer is lost or the attempt is over, the next poll says what is awaited.
            with suppress(OSError):
                self._send(self._next_message(state, ephemeral, values))

    def _send(self, message: Message) -> State:
        return self._connection.send(sealed(self._key, self._terms.federation, self._process, message))

    def _next_message(
        self, state: State, ephemeral: X25519PrivateKey, values: Int[np.ndarray, " number"]
    ) -> EphemeralKey | Update:
        if not state.keys:
            return EphemeralKey(state.round, state.attempt, ephemeral.public_key().public_bytes_raw())
        seen = transcript(self._terms, state.round, state.attempt, state.keys, self._rounds.digests)
        hidden = masked(values, ephemeral, self._key.party, self._public_keys(state, ephemeral), seen)
        return Update(state.round, state.attempt, seen, hidden.astype("<u8").tobytes())

    def _public_keys(self, state: State, ephemeral: X25519PrivateKey) -> dict[int, X25519PublicKey]:
        """The keys of all parties for this attempt, each signed by its party. Raises InputError."""
        keys = {}
        for envelope in state.keys:
            message = opened(envelope, self._key, self._terms.federation).message
            attempt = (state.round, state.attempt)
            if not isinstance(message, EphemeralKey) or (message.round, message.attempt) != attempt:
                raise InputError(f"The coordinator relayed a key of party {envelope.party} for another attempt.")
            keys[envelope.party] = X25519PublicKey.from_public_bytes(message.key)
        own = keys.get(self._key.party)
        if sorted(keys) != list(range(1, self._terms.parties + 1)) or own != ephemeral.public_key():
            raise InputError("The coordinator relayed other keys than one of each party. Nothing was sent.")
        return keys

    def _show_awaited(self, state: State) -> None:
        if state.awaited != self._awaited:
            self._awaited = state.awaited
            self._report(f"Round {state.round + 1}: awaiting party {', '.join(map(str, state.awaited))}.")
