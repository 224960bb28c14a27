"""A finished run into what spread and exploration cost: NDCG@10 against diversity, coverage and overlap of lists.

    python benchmarks/diversity.py runs/first [--part test] [--users 5000] [--out benchmarks/results/diversity.json]

Two sweeps over the same users. `diversity` re-orders a pool of the best items (variseq/recommend/diversity.py).
Exploring ranks by one sample of the posterior, z = μ + scale · σ ⊙ ε; a scale of 0 is the posterior mean. A run is
added to the file, and the picture shows all that are in it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diversity_chart import write_chart
from jaxtyping import Float, Int
from provenance import ROOT, provenance
from record_file import write_record
from torch.nn import functional

from variseq.estimator import VariationalAttention, load
from variseq.evaluation.beyond_accuracy import catalog_coverage, diversity, exposure
from variseq.evaluation.bootstrap import mean_interval
from variseq.evaluation.splits import Part
from variseq.model.posterior import posterior_noise
from variseq.recommend.diversity import pool_size, spread_out
from variseq.recommend.forecast import Forecast
from variseq.recommend.learned import Learned
from variseq.recommend.memory import Memory
from variseq.recommend.recommender import RankedItems, rank_items
from variseq.recommend.wishes import Wish
from variseq.sequences.histories import Histories

K = 10
DIVERSITIES = tuple(round(0.1 * step, 1) for step in range(11))
SCALES = (0.0, 0.5, 1.0, 2.0, 3.0)
NUM_SEEDS = 3
USERS_A_DRAW = 50
Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """The histories that are asked about, what each did next, and what is known of the items."""

    histories: Histories
    target: Int[np.ndarray, " query"]
    wish: Wish
    vectors: Float[torch.Tensor, "item hidden"]
    categories: Sequence[Sequence[str]] | None


def asked_of(model: VariationalAttention, part: Part, num_users: int) -> Asked:
    """The last target of each user of the part, of a sample where there are more than `num_users`."""
    checkpoint = model.checkpoint
    assert checkpoint is not None
    queries = part.queries("last")
    sample = np.random.default_rng(0).permutation(len(queries))[:num_users]
    user, position = queries.user[sample], queries.position[sample]
    num_items = checkpoint.vocabulary.num_items
    of_items = [] if checkpoint.items is None else checkpoint.items.categories(range(num_items))
    return Asked(
        part.histories.select(part.histories.offsets[user], position),
        part.histories.item[position],
        Wish(num_items, pool_size(K, num_items), checkpoint.config["training"]["exclude_seen"]),
        checkpoint.network.item_vectors.detach(),
        of_items if any(of_items) else None,
    )


def pool_of(model: VariationalAttention, asked: Asked, scale: float, seed: int) -> RankedItems:
    """The best items under one sample of the posterior, or under its mean where the scale is 0.

    One draw is the same for everybody who is asked about with it: some users at a time get one of their own, so that
    what is measured is not the luck of a few draws.
    """
    users = np.arange(len(asked.target))
    draws = [users[first : first + USERS_A_DRAW] for first in range(0, len(users), USERS_A_DRAW)]
    pools = [_drawn(model, asked, part, (scale, seed * len(draws) + draw)) for draw, part in enumerate(draws)]
    columns = ("item", "score", "probability")
    return RankedItems(*(np.concatenate([getattr(pool, name) for pool in pools]) for name in columns))


def _drawn(
    model: VariationalAttention, asked: Asked, part: Int[np.ndarray, " user"], drawn: tuple[float, int]
) -> RankedItems:
    checkpoint = model.checkpoint
    assert checkpoint is not None
    scale, seed = drawn
    noise = posterior_noise(checkpoint.network.config, 1 if scale else 0, seed) * scale
    memory = Memory.from_state(checkpoint.memory)
    calibration = Learned.of_manifest(checkpoint.manifest, "run").calibration
    forecast = Forecast(checkpoint.network, memory, calibration, noise)
    return rank_items(forecast, asked.histories.rows(part), asked.wish)


def judged(item: Int[np.ndarray, "query k"], asked: Asked) -> Row:
    """What lists are worth: NDCG@10 with its interval over users, spread and coverage."""
    hit = item == asked.target[:, None]
    ndcg = np.where(hit.any(axis=1), 1 / np.log2(2 + hit.argmax(axis=1)), 0.0)
    count = exposure(item, asked.wish.num_items)
    row: Row = {
        "ndcg": float(ndcg.mean()),
        "ndcg_interval": mean_interval(np.arange(len(ndcg)), ndcg),
        "recall": float(hit.any(axis=1).mean()),
        "cosine_distance": float(np.nanmean(mean_cosine_distance(item, asked.vectors))),
        "catalog_coverage": catalog_coverage(count),
    }
    if asked.categories is not None:
        row["category_diversity"] = float(np.nanmean(diversity(item, asked.categories)))
    return row


def mean_cosine_distance(
    item: Int[np.ndarray, "query k"], vectors: Float[torch.Tensor, "item hidden"]
) -> Float[np.ndarray, " query"]:
    """The mean over pairs of a list of 1 − cosine of their vectors; NaN for a list with an empty place.

    With unit vectors the cosines of all pairs, each twice, and of k items with themselves add up to |their sum|².
    """
    direction = functional.normalize(vectors, dim=1)
    total = sum(direction[torch.from_numpy(np.maximum(column, 0))] for column in item.T)
    num_places = item.shape[1]
    cosine = (torch.as_tensor(total).square().sum(dim=1).numpy() - num_places) / (num_places * (num_places - 1))
    return np.where((item >= 0).all(axis=1), 1 - cosine, np.nan)


def sweep_diversity(pool: RankedItems, asked: Asked) -> list[Row]:
    """One row for each diversity, all from one pool."""
    rows = []
    for value in DIVERSITIES:
        place = spread_out(pool.item, pool.probability, asked.vectors.numpy(), K, value)
        chosen = np.where(place >= 0, np.take_along_axis(pool.item, np.maximum(place, 0), axis=1), -1)
        rows.append({"diversity": value, **judged(chosen, asked)})
    return rows


def sweep_exploration(model: VariationalAttention, asked: Asked) -> list[Row]:
    """One row for each scale; metrics are means over seeds, overlap and joint coverage are between seeds."""
    rows: list[Row] = []
    plain = pool_of(model, asked, 0.0, 0).item[:, :K]
    for scale in SCALES:
        lists = [pool_of(model, asked, scale, seed).item[:, :K] for seed in range(NUM_SEEDS if scale else 1)]
        of_seeds = [judged(item, asked) for item in lists]
        row: Row = {name: np.mean([one[name] for one in of_seeds], axis=0).tolist() for name in of_seeds[0]}
        row["overlap_of_two_requests"] = float(np.mean(overlap(lists[0], lists[-1])))
        row["overlap_with_the_mean"] = float(np.mean(overlap(lists[0], plain)))
        row["joint_coverage"] = catalog_coverage(exposure(np.concatenate(lists), asked.wish.num_items))
        rows.append({"scale": scale, **row})
    return rows


def overlap(first: Int[np.ndarray, "query k"], second: Int[np.ndarray, "query k"]) -> Float[np.ndarray, " query"]:
    """The share of each list that is in the other one as well."""
    return (first[:, :, None] == second[:, None, :]).any(axis=2).mean(axis=1)


def main() -> None:
    """Both sweeps over a run; print, write and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--part", choices=("valid", "test"), default="test")
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "diversity.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "pictures" / "diversity.svg")
    chosen = parser.parse_args()
    model = load(chosen.run, device="cpu")
    parts = {part.name: part for part in model._split()}
    asked = asked_of(model, parts[chosen.part], chosen.users)
    record = {
        **provenance(),
        "run": chosen.run.name,
        "part": chosen.part,
        "protocol": parts[chosen.part].protocol,
        "num_users": len(asked.target),
        "k": K,
        "pool": asked.wish.k,
        "diversity": sweep_diversity(pool_of(model, asked, 0.0, 0), asked),
        "exploration": sweep_exploration(model, asked),
    }
    records = json.loads(chosen.out.read_text(encoding="utf-8")) if chosen.out.exists() else {}
    records[f"{chosen.run.name} {chosen.part}"] = record
    write_record(chosen.out, records)
    write_chart(records, chosen.picture)
    for row in record["diversity"] + record["exploration"]:
        print("  ".join(f"{name} {value:.4f}" for name, value in row.items() if isinstance(value, float)))


if __name__ == "__main__":
    main()
