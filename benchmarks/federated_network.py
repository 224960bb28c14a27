"""What a network that three silos train is worth beside the same network of the joined log.

    python -m benchmarks.federated_network ml-100k DATA

Both have the settings that follow from the joined log, the same counts beside them, and weights from one grid that are
chosen on validation events. They are trained on training events alone, for as many epochs at most, and the best
round or epoch is taken.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from msgspec.structs import replace

from benchmarks.federation import PARTIES, federated, parts_of
from benchmarks.privacy import metrics_of
from measurement.datasets import load_dataset
from measurement.records import Record, append_records, command_parser, exit_code, record_of
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.splits import Part
from variseq.federation.federated_run import new_terms
from variseq.federation.local_training import calibration_sums
from variseq.federation.messages import NetworkTerms, Terms
from variseq.federation.rounds import LENGTHS, OwnSums, Rounds
from variseq.federation.shared_network import SharedNetwork, parameters_of, set_parameters
from variseq.log import Log
from variseq.model.network import seeded
from variseq.privacy.private_run import mixture_model
from variseq.privacy.release import PrivacyOptions
from variseq.recommend.network_model import ModelRecommender, NetworkEncoder
from variseq.training.trainer import Trainer, Validation


def records(name: str, log: Log, data: dict[str, Any], seeds: int, network: NetworkTerms) -> Iterable[Record]:
    """Of each seed a record of three parties and one of the joined log; each has the counts alone beside it."""
    columns = {} if log.items is None else {one: log.items.table.column(one) for one in log.items.table.column_names}
    on_catalog = log.on_catalog(pa.table({"item_id": log.vocabulary.items, **columns}))
    train, valid, test = on_catalog.split("leave-one-out")
    known = valid.part.history_with_targets()
    joined, parts = parts_of(known, train.part.num_items)
    data = data | {"num_users": len(known), "num_items": train.part.num_items}
    for seed in range(seeds):
        terms = new_terms(
            train.vocabulary,
            PARTIES,
            len(known),
            PrivacyOptions(math.inf),
            is_private=False,
            network=NetworkTerms(network.size, network.rounds, seed),
        )
        for silos in (PARTIES, 1):
            rounds, costs = federated(parts, terms) if silos > 1 else trained_on(joined, terms)
            metrics = quality(rounds, test.part) | costs
            case = {"data": name, "size": network.size, "silos": silos}
            settings = {"rounds": network.rounds}
            yield record_of("federated_network", case, metrics, seed=seed, settings=settings, data=data, threads=1)


def trained_on(joined: Part, terms: Terms) -> tuple[Rounds, dict[str, float]]:
    """The same network, trained by the ordinary trainer on the joined log; and its CPU seconds."""
    begun, rounds = time.thread_time(), Rounds(replace(terms, parties=1))
    while len(rounds.sums) <= LENGTHS:
        rounds.add(OwnSums(joined, 1).of(rounds).astype("<i8").tobytes())
    shared = rounds.network
    assert isinstance(shared, SharedNetwork)
    network = shared.copy()
    with seeded(shared.config.seed):
        Trainer(network, joined.history(), Validation(joined, shared.config), shared.config).run()
    set_parameters(shared.network, parameters_of(network))
    shared.round = shared.rounds + 1
    shared.add(calibration_sums(shared, joined, rounds.counts))
    return rounds, {"cpu_seconds": time.thread_time() - begun, "megabytes": 0.0}


def quality(rounds: Rounds, test: Part) -> dict[str, float]:
    """Metrics of the run on the last event of each user, and the weight of the network in it."""
    trained = rounds.trained()
    assert trained is not None
    network, share = trained
    beside = (NetworkEncoder(network), network.vectors_with_bias, share)
    metrics = {"weight": share.weight, "temperature": share.temperature}
    for prefix, of_network in (("", beside), ("counts ", None)):
        model = ModelRecommender(mixture_model(rounds.counts, rounds.terms.options(), of_network))
        found = metrics_of(evaluate(model, test, EvaluationOptions()))
        metrics |= {f"{prefix}{metric}": value for metric, value in found.items()}
    return metrics


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "federated_network")
    parser.add_argument("name", help="a data set of the recipes")
    parser.add_argument("folder", type=Path, metavar="DATA", help="the folder with its files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args(words)

    def run() -> None:
        loaded = load_dataset(given.name, given.folder)
        network = NetworkTerms(given.size, given.rounds, 0)
        for one in records(given.name, loaded.log, loaded.description, given.seeds, network):
            append_records(given.out, [one])
            print(one["case"], one["metrics"], flush=True)

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
