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
from msgspec.structs import replace

from benchmarks.privacy import metrics_of
from measurement.datasets import load_dataset
from measurement.records import Record, append_records, command_parser, exit_code, record_of
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.splits import Part, leave_one_out
from variseq.federation.connection import Connection
from variseq.federation.coordinator import Coordinator
from variseq.federation.federated_run import new_terms, save_run
from variseq.federation.keys import create_keys, read_party_key, read_public_keys
from variseq.federation.messages import Terms
from variseq.federation.party import take_part
from variseq.federation.rounds import OwnSums, Rounds
from variseq.federation.server import Address, serve
from variseq.log import Log, LogPart
from variseq.privacy.release import PrivacyOptions
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
    joined, parts = parts_of(known, train.part.num_items)
    for epsilon in EPSILONS:
        options = PrivacyOptions(epsilon or math.inf)
        terms = new_terms(train.vocabulary, PARTIES, len(known), options, epsilon is not None)
        terms.ledger().epsilon()  # computed once and kept, so that it is in no party's seconds
        for number in range(releases if epsilon else 1):
            for parties in (1, PARTIES):
                rounds, costs = of_joined(joined, terms) if parties == 1 else federated(parts, terms)
                if parties > 1 and epsilon is None:
                    refuse_other_sums(rounds, of_joined(joined, terms)[0])
                metrics = quality(rounds, train, test.part) | costs
                case = {"data": name, "silos": parties, "epsilon": "exact" if epsilon is None else epsilon}
                yield record_of("federation", case, metrics, seed=number, data=data, threads=1)


def dealt(num_users: int) -> list[np.ndarray]:
    """The users of each party, dealt one by one."""
    return [np.arange(party, num_users, PARTIES) for party in range(PARTIES)]


def parts_of(known: Histories, num_items: int, users: Sequence[np.ndarray] = ()) -> tuple[Part, list[Part]]:
    """The validation part of the joined log, and those of the parties with these users; they are dealt otherwise."""
    rows = [np.arange(len(known)), *(users or dealt(len(known)))]
    joined, *parts = (leave_one_out(known.rows(one), num_items, with_test=False)[1] for one in rows)
    return joined, parts


def of_joined(joined: Part, terms: Terms) -> tuple[Rounds, dict[str, float]]:
    """The sums of the joined log, and their CPU seconds."""
    begun, rounds = time.thread_time(), Rounds(replace(terms, parties=1))
    while not rounds.is_complete:
        rounds.add(OwnSums(joined, 1).of(rounds).astype("<i8").tobytes())
    return rounds, {"cpu_seconds": time.thread_time() - begun, "megabytes": 0.0}


def federated(parts: Sequence[Part], terms: Terms) -> tuple[Rounds, dict[str, float]]:
    """The rounds of the coordinator, and the mean CPU seconds and bytes of a party."""

    def party(number: int) -> tuple[float, int]:
        begun, connection = time.thread_time(), Connection(url, 60.0, 0.05)
        key = read_party_key(keys / f"party-{number + 1}.json")
        take_part(connection, key, terms.catalog, parts[number], terms.epsilon, lambda text: None)
        return time.thread_time() - begun, connection.num_bytes

    address = Address("127.0.0.1", 0)
    with (
        tempfile.TemporaryDirectory() as folder,
        address.bind() as listener,
        ThreadPoolExecutor(len(parts) + 1) as threads,
    ):
        keys, url = Path(folder) / "keys", f"http://127.0.0.1:{listener.getsockname()[1]}"
        create_keys(keys, len(parts))
        coordinator = Coordinator(terms, read_public_keys(keys / "coordinator.json"), lambda text: None)
        ended = threads.submit(serve, coordinator, address, listener, 3600.0, lambda: None)
        costs = [one.result() for one in [threads.submit(party, number) for number in range(len(parts))]]
        ended.result()
    seconds, num_bytes = np.mean(costs, axis=0)
    return coordinator.rounds, {"cpu_seconds": float(seconds), "megabytes": float(num_bytes) / 1e6}


def refuse_other_sums(found: Rounds, joined: Rounds) -> None:
    """Raises AssertionError unless the sums are those of the joined log, bit for bit."""
    assert found.digests == joined.digests


def quality(rounds: Rounds, train: LogPart, test: Part) -> dict[str, float]:
    """Metrics of the run of a federation on the last event of each user."""
    assert train.items is not None
    with tempfile.TemporaryDirectory() as folder:
        save_run(rounds, train.vocabulary, train.items, Path(folder) / "run")
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
