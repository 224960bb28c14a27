"""What a federation begins with and ends with: a public catalog, terms, and a run."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from variseq.errors import InputError
from variseq.events.items import ItemTable, read_catalog
from variseq.events.options import ReadOptions
from variseq.events.vocabulary import Vocabulary, catalog_digest
from variseq.federation.messages import NetworkTerms, Terms
from variseq.federation.rounds import Rounds, refuse_network
from variseq.privacy.private_run import PrivateRun
from variseq.privacy.release import PrivacyOptions

FEDERATION_BYTES = 16
BEHAVIOR = "event"
WITHOUT_TEST = {"method": "leave-one-out"}
"""The split of a federation: as the commands of one log have it, with no test part."""


def read_public_catalog(source: str, options: ReadOptions) -> tuple[Vocabulary, ItemTable]:
    """The catalog of a coordinator, which has no log: ids are integers where all are. Raises InputError."""
    with suppress(InputError):
        return _catalog(source, pa.int64(), options)
    return _catalog(source, pa.string(), options)


def _catalog(source: str, kind: pa.DataType, options: ReadOptions) -> tuple[Vocabulary, ItemTable]:
    items, table = read_catalog(source, kind, options)
    return Vocabulary(pa.array([], pa.string()), items, (BEHAVIOR,)), table


def new_terms(
    vocabulary: Vocabulary,
    parties: int,
    num_users: int,
    options: PrivacyOptions,
    is_private: bool,
    network: NetworkTerms | None = None,
) -> Terms:
    """The terms of a new federation; without privacy the budget of the options is not looked at.

    A network of a private federation has the settings of a private fit, and not those of `network`.

    Raises InputError for a network of a size that there is not, or of too many items, and where the kind of pairs is
    left to the log.
    """
    if options.pairs == "auto":
        raise InputError("pairs='auto' looks at one log, and a federation has several. Give near or next.")
    terms = Terms(
        federation=secrets.token_bytes(FEDERATION_BYTES),
        parties=parties,
        catalog=catalog_digest(vocabulary.items),
        num_items=vocabulary.num_items,
        num_users=num_users,
        epsilon=options.epsilon if is_private else None,
        delta=options.delta,
        max_user_events=options.max_user_events,
        exclude_seen=options.exclude_seen,
        pairs=options.pairs,
        network=None if is_private else network,
        private_network=is_private and network is not None,
    )
    refuse_network(terms)
    return terms


def save_run(rounds: Rounds, vocabulary: Vocabulary, items: ItemTable, folder: Path) -> None:
    """Write the run of a federation; its tables are the same at the coordinator and at every party."""
    terms, network = rounds.terms, rounds.trained()
    if network is not None:
        # A network across silos knows one behavior.
        vocabulary = replace(vocabulary, behaviors=(BEHAVIOR,))
    run = (rounds.ledger, rounds.counts, terms.options(), vocabulary, items, WITHOUT_TEST, terms.parties, network)
    PrivateRun(*run).save(folder)
