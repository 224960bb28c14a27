"""What a federation of three silos costs beside the joined log: accuracy, bytes and CPU seconds of a party.

    python -m benchmarks.federation ml-100k DATA

The users of a log are divided among three parties. Parties and coordinator are threads of one process and talk by HTTP
on this machine.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.privacy import metrics_of
from measurement.datasets import load_dataset
from measurement.records import Record, append_records, command_parser, exit_code, record_of
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.splits import Part
from variseq.federation.connection import Connection
from variseq.federation.coordinator import Coordinator
from variseq.federation.federated_run import new_terms, save_run
from variseq.federation.keys import create_keys, read_party_key, read_public_keys
from variseq.federation.messages import Terms
from variseq.federation.party import take_part
from variseq.federation.server import Address, serve
from variseq.log import Log, LogPart
from variseq.privacy.noise import no_noise
from variseq.privacy.release import NoisySums, PrivacyOptions, Release, chosen_items
from variseq.private_model import PrivateModel
from variseq.recommend.network_model import ModelRecommender
from variseq.sequences.histories import Histories

PARTIES = 3
EPSILONS = (None, 8.0, 3.0)
"""None: exact sums."""


def records(name: str, log: Log, data: dict[str, Any], releases: int) -> Iterable[Record]:
    """One record for each release, of the joined log and of three parties."""
    columns = {} if log.items is None else {one: log.items.table.column(one) for one in log.items.table.column_names}
    train, valid, test = log.on_catalog(pa.table({"item_id": log.vocabulary.items, **columns})).split("leave-one-out")
    known = valid.part.history_with_targets()
    data = data | {"num_users": len(known), "num_items": train.part.num_items}
    for epsilon in EPSILONS:
        terms = new_terms(
            train.vocabulary, PARTIES, len(known), PrivacyOptions(epsilon or math.inf), epsilon is not None
        )
        terms.ledger().epsilon()  # computed once and kept, so that it is in no party's seconds
        for number in range(releases if epsilon else 1):
            for parties in (1, PARTIES):
                released, costs = joined(known, terms) if parties == 1 else federated(known, terms)
                metrics = quality(released, terms, train, test.part) | costs
                case = {"data": name, "silos": parties, "epsilon": "exact" if epsilon is None else epsilon}
                yield record_of("federation", case, metrics, seed=number, data=data, threads=1)


def joined(known: Histories, terms: Terms) -> tuple[Release, dict[str, float]]:
    """A release of the joined log, and its CPU seconds."""
    begun, ledger = time.thread_time(), terms.ledger()
    sums = NoisySums(known, terms.num_items, terms.options(), ledger)
    popularity = sums.popularity()
    released = Release.of_sums(popularity, sums.pairs(chosen_items(popularity, ledger)), terms.pairs, ledger)
    return released, {"cpu_seconds": time.thread_time() - begun, "megabytes": 0.0}


def federated(known: Histories, terms: Terms) -> tuple[Release, dict[str, float]]:
    """A release of three parties, and the mean CPU seconds and bytes of one of them."""

    def party(number: int) -> tuple[float, int]:
        begun, connection = time.thread_time(), Connection(url, 60.0, 0.05)
        key = read_party_key(keys / f"party-{number + 1}.json")
        histories = known.rows(np.arange(number, len(known), PARTIES))
        take_part(connection, key, terms.catalog, histories, terms.epsilon, lambda text: None)
        return time.thread_time() - begun, connection.num_bytes

    address = Address("127.0.0.1", 0)
    with (
        tempfile.TemporaryDirectory() as folder,
        address.bind() as listener,
        ThreadPoolExecutor(PARTIES + 1) as threads,
    ):
        keys, url = Path(folder) / "keys", f"http://127.0.0.1:{listener.getsockname()[1]}"
        create_keys(keys, PARTIES)
        coordinator = Coordinator(terms, read_public_keys(keys / "coordinator.json"), lambda text: None)
        ended = threads.submit(serve, coordinator, address, listener, 600.0, lambda: None)
        costs = [one.result() for one in [threads.submit(party, number) for number in range(PARTIES)]]
        ended.result()
    if terms.epsilon is None:
        refuse_other_sums(coordinator, known, terms)
    seconds, num_bytes = np.mean(costs, axis=0)
    return coordinator.release(), {"cpu_seconds": float(seconds), "megabytes": float(num_bytes) / 1e6}


def refuse_other_sums(coordinator: Coordinator, known: Histories, terms: Terms) -> None:
    """Raises AssertionError unless the sums are those of the joined log, bit for bit."""
    exact = NoisySums(known, terms.num_items, terms.options(), terms.ledger(), noise=no_noise)
    popularity, pairs = coordinator.sums
    assert np.array_equal(popularity, exact.popularity())
    assert np.array_equal(pairs, exact.pairs(coordinator.release().chosen))


def quality(released: Release, terms: Terms, train: LogPart, test: Part) -> dict[str, float]:
    """Metrics of the run of a release on the last event of each user."""
    assert train.items is not None
    with tempfile.TemporaryDirectory() as folder:
        save_run(released, terms, train.vocabulary, train.items, Path(folder) / "run")
        model = PrivateModel(Path(folder) / "run")
        return metrics_of(evaluate(ModelRecommender(model.engine.model, "private"), test, EvaluationOptions()))


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "federation")
    parser.add_argument("name", help="a data set of the recipes")
    parser.add_argument("folder", type=Path, metavar="DATA", help="the folder with its files")
    parser.add_argument("--releases", type=int, default=3)
    given = parser.parse_args(words)

    def run() -> None:
        loaded = load_dataset(given.name, given.folder)
        for one in records(given.name, loaded.log, loaded.description, given.releases):
            append_records(given.out, [one])
            print(one["case"], one["metrics"], flush=True)

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
