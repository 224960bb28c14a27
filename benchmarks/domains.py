"""What a run is worth on another catalog, of whose items and users it has seen nothing.

    python -m benchmarks.domains DATA --runs RUNS --pairs films --shown valid
    python -m benchmarks.domains DATA --runs RUNS --seeds 0 1 2

DATA is the folder of all data sets. A run learns from the source by its titles, with the training part alone, for 20
epochs and of size tiny. Then the last event of each user of the target is ranked, and for choices the one before.

- items: Amazon Beauty, half of the items and half of the users, to the other halves.
- hair: Amazon Beauty without hair care and half of the users, to hair care and the other half.
- films: 300 users of MovieLens-1M, without the films of MovieLens-100K, to MovieLens-100K. Genres are text.
- far: source of `items`, to MovieLens-100K.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from measurement.datasets import dataset_spec, load_dataset
from measurement.files import find_files
from measurement.records import Record, append_records, check_writable, command_parser, exit_code, record_of
from variseq import ReadOptions, VariationalAttention, load, read
from variseq.content.item_content import ItemContent
from variseq.evaluation.baselines import Popular
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.evaluation import Evaluation
from variseq.evaluation.recommender import Recommender
from variseq.evaluation.significance import mean_interval
from variseq.evaluation.splits import Part
from variseq.evaluation.user_sample import sampled_users
from variseq.log import Log
from variseq.ranking.content_table import ContentTable
from variseq.ranking.mixture import MixtureModel
from variseq.recommend.network_model import ModelRecommender, engine_of
from variseq.recommend.other_catalog import on_other_catalog
from variseq.sequences.histories import Histories
from variseq.terminal.run_config import RunConfig, run_config

HAIR_CARE = "1"
"""The attribute of 2,627 items."""
GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
"""The last columns of the films of MovieLens-100K."""
NUM_FILM_USERS = 300
ONE_TIME = 1_600_000_000
"""Of all events, whose order is that of the rows."""
PARTS = ["valid", "test"]
SHORT = {
    "size": "tiny",
    "training.refit_fraction": 0.0,
    "training.max_epochs": 20,
    "training.validation_users": 300,
    "training.batch_tokens": 512,
    "training.num_negatives": 512,
}
POPULARITY_POWERS = (0.5, 1.0)
NEAREST_FACTOR = 8.0
"""Likeness times this is a logit, the usual one of new items."""
MOST_USERS = 1000
"""A random sample of the people of the target is asked for."""
NEAREST, ALONE = "nearest titles", ", network alone"
OPTIONS = EvaluationOptions(10, "last", True)
OTHER = "run of another catalog"


@dataclass(frozen=True, eq=False)
class Domains:
    """A log to learn from, and a log of other users and items."""

    source: Log
    target: Log
    data: dict[str, Any]
    named: str
    """Domains with the same name and seed have the same source."""


def log_of(log: Log, users: Bool[np.ndarray, " user"], items: Bool[np.ndarray, " item"], more: pa.Table | None) -> Log:
    """The events of some users at some items, of users with three or more; titles, and the columns `more` of items."""
    histories = log.histories
    user = np.repeat(np.arange(len(histories)), histories.lengths)
    kept = users[user] & items[histories.item]
    events = {"user_id": user[kept], "item_id": histories.item[kept], "timestamp": np.full(int(kept.sum()), ONE_TIME)}
    assert log.items is not None
    table = pa.table({"item_id": np.arange(len(items)), "title": log.items.table.column("title")})
    if more is not None:
        for name in more.column_names:
            table = table.append_column(name, more.column(name))
    return read(pa.table(events), items=table, options=ReadOptions(time_unit="seconds", min_user_events=3))


def beauty(folder: Path, seed: int, hair: bool) -> Domains:
    """Halves of users, and of items: by hair care, or at random."""
    dataset = load_dataset("amazon-beauty-shuffled", folder / "amazon-beauty")
    log, random = dataset.log, np.random.default_rng(seed)
    assert log.items is not None
    first = random.random(log.vocabulary.num_users) < 0.5
    if hair:
        is_source = np.array([HAIR_CARE not in names for names in log.items.categories(range(len(log.items)))])
    else:
        is_source = random.random(log.vocabulary.num_items) < 0.5
    logs = log_of(log, first, is_source, None), log_of(log, ~first, ~is_source, None)
    return Domains(*logs, dataset.description, "no hair care" if hair else "half")


def small_films(folder: Path) -> Log:
    """MovieLens-100K with titles, and genres as text."""
    rows = []
    path = find_files(folder / "ml-100k", "u.item")[0]
    with path.open(encoding="latin-1", newline="") as stream:
        for fields in csv.reader(stream, delimiter="|", quoting=csv.QUOTE_NONE):
            genres = " ".join(name for name, flag in zip(GENRES, fields[5:], strict=True) if flag == "1")
            rows.append({"item_id": int(fields[0]), "title": fields[1], "text": genres})
    options = ReadOptions(columns=["user_id", "item_id", "value", "timestamp"])
    return read(find_files(folder / "ml-100k", "u.data")[0], pa.Table.from_pylist(rows), options)


def films(folder: Path, seed: int) -> Domains:
    dataset = load_dataset("ml-1m", folder / "ml-1m")
    log, target = dataset.log, small_films(folder)
    assert log.items is not None
    assert target.items is not None
    known = set(target.items.table.column("title").to_pylist())
    titles, genres = log.items.table.column("title").to_pylist(), log.items.categories(range(len(log.items)))
    is_source = np.array([title not in known for title in titles])
    chosen = np.random.default_rng(seed).permutation(log.vocabulary.num_users)[:NUM_FILM_USERS]
    users = np.isin(np.arange(log.vocabulary.num_users), chosen)
    text = pa.table({"text": [" ".join(names) for names in genres]})
    return Domains(log_of(log, users, is_source, text), target, dataset.description, "films")


PAIRS: dict[str, Callable[[Path, int], Domains]] = {
    "items": lambda folder, seed: beauty(folder, seed, hair=False),
    "hair": lambda folder, seed: beauty(folder, seed, hair=True),
    "films": films,
    "far": lambda folder, seed: replace(beauty(folder, seed, hair=False), target=small_films(folder)),
}


class Likeness:
    """Scores items by the likeness of their content to that of the history."""

    name, gives_probabilities = NEAREST, False

    def __init__(self, content: Float[np.ndarray, "item content"]) -> None:
        self.table = ContentTable.of(content)

    def scores(self, histories: Histories) -> Float[Tensor, "history item"]:
        wanted = self.table.of_histories(histories)
        return torch.from_numpy(NEAREST_FACTOR * self.table.likeness(wanted, slice(None)))


class WithPopularity:
    """The scores of another recommender plus a multiple of log popularity."""

    gives_probabilities = False

    def __init__(self, recommender: Recommender, popular: Popular, power: float) -> None:
        self.name, self.recommender, self.popular, self.power = recommender.name, recommender, popular, power

    def scores(self, histories: Histories) -> Float[Tensor, "history item"]:
        return self.recommender.scores(histories) + self.power * self.popular.scores(histories)


def transferred(model: VariationalAttention, target: Log, **changes: float) -> ModelRecommender:
    """The run on the catalog of the target, with changes of `NewItemForecast`."""
    assert model.checkpoint is not None
    assert target.items is not None
    other = engine_of(on_other_catalog(model.checkpoint, target.vocabulary.items, target.items)).model
    calibration = other.calibration
    assert calibration.new is not None
    changed = replace(calibration, new=replace(calibration.new, **changes))
    return ModelRecommender(MixtureModel(other.encoder, other.tables, changed, other.repeat_share))


def fitted(log: Log, settings: RunConfig) -> VariationalAttention:
    train, valid, _ = log.split("leave-one-out")
    model = VariationalAttention(settings.size, settings.seed, "cpu", settings.model, settings.training)
    return model.fit(train, valid, verbose=0)


def recommenders(domains: Domains, settings: RunConfig, runs: Path) -> Iterator[tuple[str, Recommender]]:
    """Each row that is not popularity alone."""
    assert domains.target.items is not None
    table = domains.target.items.table
    content = ItemContent.fit(table, np.ones(len(table), dtype=bool))
    assert content is not None
    yield NEAREST, Likeness(content.encode(table))
    folder = runs / f"{domains.named}-{settings.seed}".replace(" ", "_")
    if not folder.exists():
        fitted(domains.source, settings).save(folder)
    model = load(folder, "cpu")
    yield OTHER, transferred(model, domains.target)
    yield f"{OTHER}{ALONE}", transferred(model, domains.target, likeness=0.0, scale=1.0)


def evaluations(
    domains: Domains, settings: RunConfig, runs: Path
) -> Iterator[tuple[str, str, Evaluation, float | None]]:
    """Row, part, evaluation, and the power of popularity, which is chosen on the validation part of the target."""
    _, valid, test = domains.target.split("leave-one-out")
    parts: list[Part] = [sampled_users(part.part, most_users=MOST_USERS) for part in (valid, test)]
    popular = {part.name: Popular(part.num_items).fit(part.history()) for part in parts}
    for part in parts:
        yield "popular", part.name, evaluate(popular[part.name], part, OPTIONS), None
    for name, recommender in recommenders(domains, settings, runs):
        for part in parts:
            yield name, part.name, evaluate(recommender, part, OPTIONS), None
        if name.endswith(ALONE):
            continue
        valid_name, test_name = (part.name for part in parts)
        tried = {
            power: evaluate(WithPopularity(recommender, popular[valid_name], power), parts[0], OPTIONS)
            for power in POPULARITY_POWERS
        }
        power = max(tried, key=lambda one: float(tried[one].metric("ndcg").mean()))
        yield f"{name}, with popularity", valid_name, tried[power], power
        found = evaluate(WithPopularity(recommender, popular[test_name], power), parts[1], OPTIONS)
        yield f"{name}, with popularity", test_name, found, power


def compare(pair: str, folder: Path, seed: int, runs: Path) -> Iterator[Record]:
    """A record for each row and part, with the difference to the nearest titles, paired by user."""
    domains = PAIRS[pair](folder, seed)
    settings = run_config(None, {**dataset_spec("amazon-beauty-shuffled").settings, **SHORT, "seed": seed}, ())
    nearest: dict[str, Evaluation] = {}
    for row, part, found, power in evaluations(domains, settings, runs):
        metrics: dict[str, Any] = {"num_queries": len(found.user), "num_items": domains.target.vocabulary.num_items}
        metrics |= {name: float(found.metric(name).mean()) for name in ("ndcg", "recall")}
        metrics |= {} if power is None else {"power": power}
        if found.forecasts is not None:
            metrics["nll"] = float(found.metric("nll").mean())
        if row == NEAREST:
            nearest[part] = found
        elif nearest:
            difference = found.metric("ndcg") - nearest[part].metric("ndcg")
            metrics |= {"ndcg_difference": float(difference.mean())}
            metrics["ndcg_difference_interval"] = list(mean_interval(found.user, difference))
        case = {"data": pair, "part": part, "row": row}
        yield record_of("domains", case, metrics, seed=seed, settings=SHORT, data=domains.data)


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "domains")
    parser.add_argument("data", type=Path, metavar="DATA", help="the folder of all data sets")
    parser.add_argument("--pairs", choices=list(PAIRS), nargs="+", default=list(PAIRS))
    parser.add_argument("--runs", type=Path, required=True, help="folder of runs; those in it are not fitted again")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--shown", choices=["valid", "test"], nargs="+", default=["valid", "test"], help="printed parts"
    )
    given = parser.parse_args(words)

    def work() -> None:
        check_writable(given.out)
        for seed in given.seeds:
            for pair in given.pairs:
                for record in compare(pair, given.data, seed, given.runs):
                    append_records(given.out, [record])
                    if record["case"]["part"] in given.shown:
                        print(seed, record["case"], record["metrics"], flush=True)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
