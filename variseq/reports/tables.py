"""What a report is made of into its words and tables: verdicts, facts, the evaluation, a few users."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from variseq.evaluation.results import Results
from variseq.evaluation.significance import compare
from variseq.events.table import MICROSECONDS_PER_SECOND
from variseq.model.checkpoint import Checkpoint
from variseq.reports.material import Material

NUM_USERS = 5
NUM_RECOMMENDED = 5
SHOWN = ("rank", "probability", "low", "high", "because")
NUM_RECENT = 5


@dataclass(frozen=True)
class Cell:
    """A number of the evaluation as text, with its interval if it has one; `is_best` marks the best of a column."""

    value: str
    interval: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class Recommended:
    """One recommendation as text."""

    rank: int
    name: str
    probability: str
    interval: str
    because: list[str]


@dataclass(frozen=True)
class Example:
    """One user with the latest events and what is recommended."""

    user_id: str
    recent: list[str]
    recommended: list[Recommended]
    source: str


@dataclass(frozen=True)
class Grid:
    """A part of the evaluation table: headings of its columns, and the cells of each model."""

    title: str
    headings: list[str]
    rows: list[tuple[str, list[Cell]]]


@dataclass(frozen=True)
class Column:
    """A number of the evaluation; `direction` says which way is better (1 up, -1 down, 0 neither)."""

    key: str
    heading: str
    digits: int
    direction: int


def evaluation_grids(results: Results) -> list[Grid]:
    """The evaluation of the model and its baselines in three tables, each narrow enough for a page."""
    k = results.evaluations[0].k
    ranking = [
        Column(f"ndcg@{k}", f"NDCG@{k} ↑", 4, 1),
        Column(f"recall@{k}", f"Recall@{k} ↑", 4, 1),
        Column("mrr", "MRR ↑", 4, 1),
    ]
    probability = [
        Column("nll", "NLL ↓", 3, -1),
        Column("brier", "Brier ↓", 4, -1),
        *(Column(f"ece_top{depth}", f"ECE top {depth} ↓", 4, -1) for depth in sorted({1, k})),
    ]
    knowing = [
        Column("entropy", "Entropy", 3, 0),
        Column(f"selective_ndcg@{k}", f"NDCG@{k} of the surest half ↑", 4, 1),
        Column("selective_ndcg_gain", "Its gain over all ↑", 3, 1),
        Column("risk_coverage_area", "Risk-coverage area ↑", 4, 1),
        Column("conformal_coverage_90", "Coverage of 90 % sets", 3, 0),
    ]
    beyond = [
        Column(f"catalog_coverage@{k}", f"Coverage@{k}", 3, 0),
        Column(f"gini@{k}", f"Gini@{k}", 3, 0),
        Column(f"novelty@{k}", f"Novelty@{k}, bits", 2, 0),
        Column(f"diversity@{k}", f"Diversity@{k}", 3, 0),
    ]
    titles = {
        "Ranking": ranking,
        "Probabilities (NLL in nats)": probability,
        "Knowing when not to know (entropy in nats)": knowing,
        "Beyond accuracy": beyond,
    }
    grids = [_grid(title, columns, results.table["rows"]) for title, columns in titles.items()]
    return [*grids, _fairness_grid(results.table["rows"], k)]


def _fairness_grid(rows: list[dict[str, Any]], k: int) -> Grid:
    """How far apart the groups are: the gap of the worst to the best, with the name of the worst below."""
    metrics = {f"ndcg@{k}": f"NDCG@{k}"} | {f"ece_top{depth}": f"ECE top {depth}" for depth in sorted({1, k})}
    kinds = {"history_length": "history length", "item_popularity": "item popularity"}
    pairs = [(kind, metric) for kind in kinds for metric in metrics]
    by_model = []
    for row in rows:
        found = [row["group_gaps"][kind][metric] for kind, metric in pairs]
        cells = [
            Cell("–") if one is None else Cell(f"{one['gap']:.4f}", f"worst: {one['worst_group']}") for one in found
        ]
        by_model.append((row["model"], cells))
    headings = [f"{metrics[metric]}, by {kinds[kind]}" for kind, metric in pairs]
    return Grid("Gap from the best to the worst group (named below)", headings, by_model)


def _grid(title: str, columns: list[Column], rows: list[dict[str, Any]]) -> Grid:
    by_column = []
    for column in columns:
        values = [np.nan if row.get(column.key) is None else column.direction * float(row[column.key]) for row in rows]
        best = max((value for value in values if np.isfinite(value)), default=None) if column.direction else None
        by_column.append([_cell(row, column, value == best) for row, value in zip(rows, values, strict=True)])
    by_model = [list(cells) for cells in zip(*by_column, strict=True)]
    return Grid(
        title, [column.heading for column in columns], list(zip([r["model"] for r in rows], by_model, strict=True))
    )


def _cell(row: dict[str, Any], column: Column, is_best: bool) -> Cell:
    value, interval, digits = row.get(column.key), row.get(f"{column.key}_interval"), column.digits
    if value is None:
        return Cell("–")
    told = "" if interval is None else f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"
    return Cell(f"{value:.{digits}f}", told, is_best)


def accuracy_verdict(results: Results) -> str:
    """The model against the best baseline, as a paired comparison over users, in a sentence."""
    model, *baselines = results.evaluations
    key = f"ndcg@{model.k}"
    best = max(baselines, key=lambda one: float(results.row(one.model)[key]))
    paired = compare(model, best)
    row, (low, high) = results.row(model.model), paired.interval
    if low > 0:
        outcome = "better than"
    elif high < 0:
        outcome = "worse than"
    else:
        outcome = "not told apart from"
    return (
        f"NDCG@{model.k} on the test part is {row[key]:.4f} [{row[f'{key}_interval'][0]:.4f}, "
        f"{row[f'{key}_interval'][1]:.4f}]: {outcome} the best baseline, {best.model} "
        f"({results.row(best.model)[key]:.4f}; paired difference {paired.difference:+.4f} [{low:+.4f}, {high:+.4f}], "
        f"p = {paired.p_value:.3g}, {paired.num_users:,} users; one training seed)."
    )


def facts(material: Material) -> list[tuple[str, str]]:
    """How the run was made, a name and a value each."""
    checkpoint = material.checkpoint
    manifest, config, network = checkpoint.manifest, checkpoint.config, checkpoint.network
    protocol, shape = manifest["protocol"], network.config
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    behaviors = ", ".join(checkpoint.vocabulary.behaviors)
    return [
        ("Split", _split(protocol)),
        ("Users, items", f"{protocol['num_users']:,} users, {protocol['num_items']:,} items"),
        ("Training events", f"{protocol['num_train_events']:,}"),
        ("Validation, test events", f"{protocol['num_valid_events']:,} and {protocol['num_test_events']:,}"),
        ("Items unseen in training", f"{protocol['num_items_unseen_in_training']:,}"),
        ("Behaviors", behaviors),
        ("Split hash", str(protocol["split_hash"])),
        *_judging(material.results),
        ("Size", f"{config['size']}: hidden size {shape.hidden_size}, latent {shape.latent_dim}, {shape.num_layers} "
                 f"encoder block(s), {shape.attention} attention, {num_parameters:,} parameters"),
        ("Seeds", f"training {config['training']['seed']}, pictures 0"),
        ("Temperature", _temperatures(manifest["forecast"]["calibration"]["temperatures"])),
        ("Epochs", f"{len(checkpoint.metrics)} trained, {config['training']['max_epochs']} allowed"),
        ("Training time", f"{manifest['seconds']:,} seconds"),
        ("Hardware", ", ".join(f"{name} {value}" for name, value in manifest["hardware"].items())),
        ("Versions", ", ".join(f"{name} {value}" for name, value in manifest["versions"].items())),
        ("Made", str(manifest["created"])),
    ]  # fmt: skip


def _temperatures(temperatures: list[float]) -> str:
    low, high = min(temperatures), max(temperatures)
    span = f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}, by the length of the history"
    return f"{span}, fitted on the validation part"


def _split(protocol: dict[str, Any]) -> str:
    of_targets = f", of {', '.join(protocol['targets_of'])} events" if "targets_of" in protocol else ""
    has_test = bool(protocol["num_test_events"])
    if protocol["method"] == "leave-one-out":
        last = "is test, the one before validation" if has_test else "is validation, no test part"
        return f"leave-one-out: each user's last event {last}{of_targets}"
    test = f"test from {_moment(protocol['test_start_microseconds'])} on" if has_test else "no test part"
    return f"by time: validation from {_moment(protocol['valid_start_microseconds'])}, {test}{of_targets}"


def _moment(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / MICROSECONDS_PER_SECOND, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _judging(results: Results | None) -> list[tuple[str, str]]:
    if results is None:
        return []
    protocol, row = results.table["protocol"], results.table["rows"][0]
    seen = "items already in the history are not ranked" if protocol["exclude_seen"] else "all items are ranked"
    return [
        (
            "Evaluation",
            f"{protocol['part']} part, {row['num_queries']:,} queries of {row['num_users']:,} users, target: "
            f"{protocol['targets']}, {protocol['candidates']}, {seen}, ties {protocol['ties']}",
        ),
        (
            "Among the queries",
            f"{row['cold_queries']:,} with an empty history, {row['unseen_targets']:,} whose item is unseen in "
            f"training and {row['repeat_targets']:,} whose item is in the user's own history (both count as misses)",
        ),
        ("Intervals", f"95 %, {protocol['num_resamples']:,} bootstrap resamples, seed {protocol['bootstrap_seed']}"),
    ]


def example_users(checkpoint: Checkpoint) -> list[int]:
    """Users spread evenly over the list of ids, among those with some history; the same each time."""
    assert checkpoint.histories is not None
    lengths = checkpoint.histories.lengths
    candidates = np.flatnonzero(lengths >= min(NUM_RECENT, int(lengths.max(initial=0))))
    places = np.linspace(0, len(candidates) - 1, min(NUM_USERS, len(candidates)))
    return [int(user) for user in candidates[places.astype(np.int64)]]


def examples(material: Material) -> list[Example]:
    """What a few users get; empty for a run without histories."""
    checkpoint = material.checkpoint
    if checkpoint.histories is None:
        return []
    users = example_users(checkpoint)
    ids = checkpoint.vocabulary.user_ids(users)
    k = min(NUM_RECOMMENDED, checkpoint.vocabulary.num_items)
    told = []
    for user, user_id in zip(users, ids, strict=True):
        answer = material.model.recommend(users=[user_id], k=k)
        recent = checkpoint.histories.history(user).item[::-1][:NUM_RECENT]
        positions = checkpoint.vocabulary.item_positions(answer["item_id"].tolist())
        recommended = [
            Recommended(rank, material.names[item], f"{p:.2%}", f"{low:.2%}–{high:.2%}", list(because))
            for rank, item, p, low, high, because in zip(
                answer["rank"],
                positions,
                *(answer[name] for name in ("probability", "low", "high", "because")),
                strict=True,
            )
        ]
        source = "" if answer.empty else str(answer["source"].iloc[0])
        told.append(Example(str(user_id), [material.names[item] for item in recent], recommended, source))
    return told
