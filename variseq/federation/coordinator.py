"""The state of a federation: who has joined, the keys and updates of the running attempt, and the sums."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np

from variseq.errors import InputError
from variseq.federation.keys import PublicKeys
from variseq.federation.messages import (
    Done,
    Envelope,
    EphemeralKey,
    Join,
    Message,
    State,
    Terms,
    Update,
    decoded,
    encode,
    opened,
    transcript,
)
from variseq.federation.rounds import Rounds
from variseq.privacy.secure_sum import sum_of_masked

if TYPE_CHECKING:
    from variseq.federation.public_features import PublicFeatures

HEAD_BYTES = 64 * 1024
"""The size of a message without its numbers."""
KEY_BYTES = 32


class OutdatedError(InputError):
    """A message of an earlier attempt, or one that is sent again. Its party can ask for the state and go on."""


class Coordinator:
    """Relays keys and adds masked numbers. It sees no numbers of one party.

    Args:
        terms: What the parties agree on.
        keys: The public keys of the parties.
        report: Takes lines about who joins and what is refused.
        features: Those of the catalog, where the terms have their digest.
    """

    def __init__(
        self,
        terms: Terms,
        keys: PublicKeys,
        report: Callable[[str], None],
        features: PublicFeatures | None = None,
    ) -> None:
        self.terms, self.keys, self.report = terms, keys, report
        self.rounds = Rounds(terms, features)
        self.finished: set[int] = set()
        self.failure: InputError | None = None
        self.attempt = 0
        self.last_progress = monotonic()
        self._last_seen: dict[int, float] = {}
        self._processes: dict[int, bytes] = {}
        self._past_processes: set[tuple[int, bytes]] = set()
        self._ephemeral: dict[int, Envelope] = {}
        self._updates: dict[int, bytes] = {}

    @property
    def max_bytes(self) -> int:
        """The size of the largest message that is taken."""
        return 8 * self.rounds.size + HEAD_BYTES

    @property
    def is_complete(self) -> bool:
        """Whether all sums are there."""
        return self.rounds.is_complete

    @property
    def awaited(self) -> list[int]:
        """The parties that have to send something before anything goes on."""
        arrived = self.finished if self.is_complete else self._updates if self._has_keys else self._ephemeral
        return [party for party in range(1, self.terms.parties + 1) if party not in arrived]

    @property
    def position(self) -> tuple[int, int, list[int]]:
        """Changes with each round and each attempt, and with each party that has all sums."""
        return self.num_sums, self.attempt, self.awaited if self.is_complete else []

    def progress(self) -> str:
        """Where the federation is, and whom it awaits."""
        step = "The sums are complete" if self.is_complete else self.rounds.progress()
        return f"{step}; awaited: {', '.join(map(self._party, self.awaited)) or 'nobody'}."

    def answer(self, body: bytes) -> bytes:
        """The state, after a message was taken. Raises InputError, which names the party, for one that is refused."""
        try:
            envelope: Envelope = decoded(body, Envelope, "A message")
            content = opened(envelope, self.keys, self.terms.federation)
            self._take(envelope, content.process, content.message)
        except InputError as error:
            self.report(f"Refused: {error}")
            raise
        have = getattr(content.message, "num_sums", self.num_sums)
        total = self.rounds.sums[have].astype("<i8").tobytes() if 0 <= have < self.num_sums else None
        keys = [self._ephemeral[party] for party in sorted(self._ephemeral)] if self._has_keys else []
        return encode(State(self.num_sums, self.attempt, self.awaited, keys, total))

    @property
    def num_sums(self) -> int:
        """How many rounds are over."""
        return len(self.rounds.sums)

    @property
    def _has_keys(self) -> bool:
        return len(self._ephemeral) == self.terms.parties

    def _party(self, party: int) -> str:
        if party not in self._last_seen:
            return f"party {party} (not yet seen)"
        return f"party {party} (seen {monotonic() - self._last_seen[party]:.0f} s ago)"

    def _take(self, envelope: Envelope, process: bytes, message: Message) -> None:
        party = envelope.party
        if isinstance(message, Join):
            self._join(party, process, message)
        elif self._processes.get(party) != process:
            raise InputError(f"Party {party} has joined with another process since, or not at all. Start it again.")
        self._last_seen[party] = monotonic()
        if isinstance(message, EphemeralKey | Update):
            self._refuse_other_attempt(party, message)
        if isinstance(message, EphemeralKey):
            if len(message.key) != KEY_BYTES:
                raise InputError(f"The key of party {party} has {len(message.key)} bytes, and not {KEY_BYTES}.")
            self._ephemeral[party] = envelope
        elif isinstance(message, Update):
            self._add(party, message)
        elif isinstance(message, Done):
            self.finished.add(party)
        else:
            return
        self.last_progress = monotonic()

    def _join(self, party: int, process: bytes, message: Join) -> None:
        if message.catalog != self.terms.catalog:
            raise InputError(
                f"Party {party} has another catalog: SHA-256 {message.catalog[:16]} in place of "
                f"{self.terms.catalog[:16]}. Give every party the same table of items, with ids of one type."
            )
        if process == self._processes.get(party):
            return
        if (party, process) in self._past_processes:
            raise InputError(f"A process of party {party} that joined before cannot join again. Start a new one.")
        self._past_processes.add((party, process))
        begins_again = party in self._ephemeral
        self._processes[party] = process
        self.last_progress = monotonic()
        self.report(f"Party {party} has joined.")
        if begins_again:
            self.report(f"Round {self.num_sums + 1} begins again with new keys, as party {party} had left it.")
            self._begin(self.attempt + 1)

    def _begin(self, attempt: int) -> None:
        self.attempt = attempt
        self._ephemeral, self._updates = {}, {}

    def _refuse_other_attempt(self, party: int, message: EphemeralKey | Update) -> None:
        here, sent = (self.num_sums, self.attempt), (message.round, message.attempt)
        what = "key" if isinstance(message, EphemeralKey) else "update"
        if here != sent:
            raise OutdatedError(
                f"The {what} of party {party} is for round {sent[0] + 1}, attempt {sent[1] + 1}, and this is round "
                f"{here[0] + 1}, attempt {here[1] + 1}. It is not taken."
            )
        if party not in self.awaited or self._has_keys != (what == "update"):
            raise InputError(f"The {what} of party {party} is not awaited now. It is not taken.")

    def _add(self, party: int, update: Update) -> None:
        size = self.rounds.size
        if len(update.values) != 8 * size:
            raise InputError(
                f"The update of party {party} has {len(update.values):,} bytes; {size:,} integers of 8 bytes "
                "are awaited. It is not taken."
            )
        keys = [self._ephemeral[one] for one in sorted(self._ephemeral)]
        if update.transcript != transcript(self.terms, self.num_sums, self.attempt, keys, self.rounds.digests):
            raise InputError(f"Party {party} has seen other terms, keys or sums than those of here. It is not taken.")
        self._updates[party] = update.values
        if len(self._updates) == self.terms.parties:
            self._complete()

    def _complete(self) -> None:
        total = sum_of_masked(np.frombuffer(values, dtype="<u8") for values in self._updates.values())
        try:
            self.rounds.add(total.astype("<i8").tobytes())
        except InputError as error:
            self.failure = error
            return
        self._begin(0)
