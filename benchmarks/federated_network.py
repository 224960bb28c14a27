"""What a network that three silos train is worth beside the same network of the joined log.

    python -m benchmarks.federated_network ml-100k DATA

Both have the settings that follow from the joined log, the same counts beside them, and weights from one grid that are
chosen on validation events. They are trained on training events alone, for as many epochs at most, and the best
round or epoch is taken. The users are dealt among the silos, or divided by taste into silos of several sizes.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from msgspec.structs import asdict, replace

from benchmarks.federation import PARTIES, dealt, federated, parts_of
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
from variseq.sequences.histories import Histories
from variseq.training.trainer import Trainer, Validation

SHARES = (0.5, 0.3, 0.2)
"""Of the users, of silos that differ by taste."""
JOINED, DEALT, BY_TASTE = 1, PARTIES, f"{PARTIES}, by taste"


def by_taste(known: Histories, num_items: int) -> list[np.ndarray]:
    """The users of three silos: in the order of the first principal component of what they had, in unequal shares."""
    row = np.repeat(np.arange(len(known)), known.lengths)
    had = np.zeros((len(known), num_items))
    had[row, known.item] = 1.0
    had /= np.maximum(np.linalg.norm(had, axis=1, keepdims=True), 1e-9)
    had -= had.mean(axis=0)
    order = np.argsort(np.linalg.svd(had, full_matrices=False)[0][:, 0], kind="stable")
    ends = np.cumsum([round(share * len(known)) for share in SHARES[:-1]])
    return [np.sort(one) for one in np.split(order, ends)]


def records(name: str, log: Log, data: dict[str, Any], seeds: int, network: NetworkTerms) -> Iterable[Record]:
    """Of each seed a record of the joined log and of both divisions, and the differences over all seeds so far."""
    columns = {} if log.items is None else {one: log.items.table.column(one) for one in log.items.table.column_names}
    on_catalog = log.on_catalog(pa.table({"item_id": log.vocabulary.items, **columns}))
    train, valid, test = on_catalog.split("leave-one-out")
    known, num_items = valid.part.history_with_targets(), train.part.num_items
    divided: dict[int | str, list[np.ndarray]] = {DEALT: dealt(len(known)), BY_TASTE: by_taste(known, num_items)}
    data = data | {"num_users": len(known), "num_items": num_items}
    found: dict[int | str, list[np.ndarray]] = {JOINED: [], **{silos: [] for silos in divided}}
    options = PrivacyOptions(math.inf)
    for seed in range(seeds):
        own = replace(network, seed=seed)
        terms = new_terms(train.vocabulary, PARTIES, len(known), options, is_private=False, network=own)
        for silos, of_users in found.items():
            joined, parts = parts_of(known, num_items, divided.get(silos, ()))
            rounds, costs = trained_on(joined, terms) if silos == JOINED else federated(parts, terms)
            metrics, ndcg = quality(rounds, test.part)
            of_users.append(ndcg)
            case, settings = {"data": name, "size": network.size, "silos": silos}, asdict(network)
            yield record_of(
                "federated_network", case, metrics | costs, seed=seed, settings=settings, data=data, threads=1
            )
        for silos in divided:
            case = {"data": name, "size": network.size, "silos": silos}
            metrics = difference(found[silos], found[JOINED])
            settings = asdict(network) | {"seeds": seed + 1}
            yield record_of("federated_difference", case, metrics, settings=settings, data=data, threads=1)


def difference(silos: Sequence[np.ndarray], joined: Sequence[np.ndarray]) -> dict[str, float]:
    """How much lower the mean NDCG@10 of the silos is, in percent, and its standard error over users."""
    of_user, reference = np.mean(silos, axis=0) - np.mean(joined, axis=0), float(np.mean(joined)) / 100
    error = of_user.std(ddof=1) / math.sqrt(len(of_user))
    return {"difference": float(of_user.mean()) / reference, "standard error": float(error) / reference}


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


def quality(rounds: Rounds, test: Part) -> tuple[dict[str, float], Float[np.ndarray, " user"]]:
    """Metrics of the run on the last event of each user, with the weight of the network; and the NDCG@10 of each."""
    trained = rounds.trained()
    assert trained is not None
    network, share = trained
    beside = (NetworkEncoder(network), network.vectors_with_bias, share)
    metrics = {"weight": share.weight, "temperature": share.temperature}
    ndcg = {}
    for prefix, of_network in (("", beside), ("counts ", None)):
        model = ModelRecommender(mixture_model(rounds.counts, rounds.terms.options(), of_network))
        evaluation = evaluate(model, test, EvaluationOptions())
        ndcg[prefix] = evaluation.metric("ndcg")
        metrics |= {f"{prefix}{metric}": value for metric, value in metrics_of(evaluation).items()}
    return metrics, ndcg[""]


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
