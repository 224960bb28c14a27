"""The text and tables of a report: verdict, evaluation, example users, and how the run was made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from jaxtyping import Int

from variseq.artifacts.checkpoint import Checkpoint
from variseq.estimator import VariationalAttention
from variseq.evaluation.results import Results, sample_of
from variseq.evaluation.significance import compare
from variseq.evaluation.summary import CONFORMAL, SELECTIVE_GAIN, UNSEEN
from variseq.events.table import MICROSECONDS_PER_SECOND
from variseq.recommend.network_model import CONTENT

NUM_USERS = NUM_RECOMMENDED = NUM_RECENT = 5
NUM_NEIGHBORS = 3
KINDS = {"history_length": "history length", "item_popularity": "item popularity"}


@dataclass(frozen=True, eq=False)
class ReportData:
    """`train_count` is None for a run without histories, `results` also for one without a test part.

    `names` has the title (or id) of every item; `categories` is None where no item has one.
    """

    model: VariationalAttention
    checkpoint: Checkpoint
    names: list[str]
    categories: list[tuple[str, ...]] | None
    results: Results | None
    train_count: Int[np.ndarray, " item"] | None


@dataclass(frozen=True)
class Cell:
    """A number of the evaluation as text, with its interval if it has one; `is_best` marks the best of a column."""

    value: str
    interval: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class Grid:
    """A part of the evaluation table: headings of its columns, and the cells of each model."""

    title: str
    headings: list[str]
    rows: list[tuple[str, list[Cell]]]


@dataclass(frozen=True)
class Column:
    """A number of the evaluation; higher is better where `direction` is 1, lower where it is -1."""

    key: str
    heading: str
    digits: int
    direction: int = 0

    def cells(self, rows: list[dict[str, Any]]) -> list[Cell]:
        values = [np.nan if row.get(self.key) is None else self.direction * float(row[self.key]) for row in rows]
        best = max((value for value in values if np.isfinite(value)), default=None) if self.direction else None
        return [self._cell(row, value == best) for row, value in zip(rows, values, strict=True)]

    def _cell(self, row: dict[str, Any], is_best: bool) -> Cell:
        value, interval, digits = row.get(self.key), row.get(f"{self.key}_interval"), self.digits
        if value is None:
            return Cell("–")
        text = "" if interval is None else f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"
        return Cell(f"{value:.{digits}f}", text, is_best)


def evaluation_grids(results: Results) -> list[Grid]:
    """The evaluation of the model and its baselines in tables that are narrow enough for a page."""
    k, rows = results.evaluations[0].k, results.table["rows"]
    depths = sorted({1, k})
    columns = {
        "Ranking": [
            Column(f"ndcg@{k}", f"NDCG@{k} ↑", 4, 1),
            Column(f"recall@{k}", f"Recall@{k} ↑", 4, 1),
            Column("mrr", "MRR ↑", 4, 1),
        ],
        "Probabilities (NLL in nats)": [
            Column("nll", "NLL ↓", 3, -1),
            Column("brier", "Brier ↓", 4, -1),
            *(Column(f"ece_top{depth}", f"ECE top {depth} ↓", 4, -1) for depth in depths),
        ],
        "Uncertainty (entropy in nats)": [
            Column("entropy", "Entropy", 3),
            Column(f"selective_ndcg@{k}", f"NDCG@{k} of the most certain half ↑", 4, 1),
            Column(SELECTIVE_GAIN, "Its gain over all ↑", 3, 1),
            Column("risk_coverage_area", "Risk-coverage area ↑", 4, 1),
            Column(CONFORMAL, "Coverage of 90 % sets", 3),
        ],
        "Beyond accuracy": [
            Column(f"catalog_coverage@{k}", f"Catalog coverage@{k}", 3),
            Column(f"gini@{k}", f"Gini@{k}", 3),
            Column(f"novelty@{k}", f"Novelty@{k}, bits", 2),
            Column(f"diversity@{k}", f"Diversity@{k}", 3),
        ],
    }
    grids = [
        Grid(title, [column.heading for column in some], _by_model(rows, [column.cells(rows) for column in some]))
        for title, some in columns.items()
    ]
    metrics = {f"ndcg@{k}": f"NDCG@{k}"} | {f"ece_top{depth}": f"ECE top {depth}" for depth in depths}
    pairs = [(kind, metric) for kind in KINDS for metric in metrics]
    gaps = [[_gap_cell(row["group_gaps"][kind][metric]) for row in rows] for kind, metric in pairs]
    headings = [f"{metrics[metric]}, by {KINDS[kind]}" for kind, metric in pairs]
    of_content = rows[: 1 + results.num_competitors]
    if len(of_content) > 1:
        of_parts = Column(f"ndcg@{k}", f"NDCG@{k}", 4), Column("nll", "NLL in nats", 3)
        grids += [_content_grid(of_content, one) for one in of_parts]
    return [*grids, Grid("Gap from the best to the worst group (named below)", headings, _by_model(rows, gaps))]


def _content_grid(rows: list[dict[str, Any]], metric: Column) -> Grid:
    """A metric with and without each part of the content of items, for all targets and for the rarest."""
    groups = [group["group"] for group in rows[0]["by_item_popularity"][:2]]
    cells = [metric.cells(rows)]
    cells += [metric.cells([row["by_item_popularity"][index] for row in rows]) for index in range(len(groups))]
    headings = ["all targets", *(name if name == UNSEEN else f"{name} training events" for name in groups)]
    title = f"{metric.heading} with a part of the content taken out; a fit without the part may lose far less"
    return Grid(title, headings, _by_model(rows, cells))


def _gap_cell(gap: dict[str, Any] | None) -> Cell:
    return Cell("–") if gap is None else Cell(f"{gap['gap']:.4f}", f"worst: {gap['worst_group']}")


def _by_model(rows: list[dict[str, Any]], by_column: list[list[Cell]]) -> list[tuple[str, list[Cell]]]:
    return [(row["model"], list(cells)) for row, cells in zip(rows, zip(*by_column, strict=True), strict=True)]


def accuracy_verdict(results: Results) -> str:
    """The model against the best baseline, as a paired comparison over users, in a sentence."""
    model = results.evaluations[0]
    key = f"ndcg@{model.k}"
    best = max(results.baselines, key=lambda one: float(results.row(one.model)[key]))
    paired = compare(model, best)
    row, (low, high) = results.row(model.model), paired.interval
    outcome = "better than" if low > 0 else "worse than" if high < 0 else "not significantly different from"
    return (
        f"NDCG@{model.k} on the test part is {row[key]:.4f} [{row[f'{key}_interval'][0]:.4f}, "
        f"{row[f'{key}_interval'][1]:.4f}]: {outcome} the best baseline, {best.model} "
        f"({results.row(best.model)[key]:.4f}; paired difference {paired.difference:+.4f} [{low:+.4f}, {high:+.4f}], "
        f"p = {paired.p_value:.3g}, {paired.num_users:,} users; one training seed)."
    )


def facts(data: ReportData) -> list[tuple[str, str]]:
    """How the run was made, a name and a value each."""
    checkpoint = data.checkpoint
    manifest, config, network = checkpoint.manifest, checkpoint.config, checkpoint.network
    protocol, shape = manifest["protocol"], network.config
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    return [
        ("Split", _split(protocol)),
        ("Users, items", f"{protocol['num_users']:,} users, {protocol['num_items']:,} items"),
        ("Training events", f"{protocol['num_train_events']:,}"),
        ("Validation, test events", f"{protocol['num_valid_events']:,} and {protocol['num_test_events']:,}"),
        ("Items unseen in training", f"{protocol['num_items_unseen_in_training']:,}"),
        ("Behaviors", ", ".join(checkpoint.vocabulary.behaviors)),
        ("Split hash", str(protocol["split_hash"])),
        *_facts_of_evaluation(data.results),
        ("Size", f"{config['size']}: {shape.num_members} network(s), hidden size {shape.hidden_size}, latent "
                 f"{shape.latent_dim}, {shape.num_layers} encoder layer(s), {shape.attention} attention, "
                 f"{num_parameters:,} parameters"),
        ("Seeds", f"training {config['training']['seed']}, figures 0"),
        ("Temperature", _temperatures(manifest["calibration"]["temperatures"])),
        *_facts_of_new_items(checkpoint),
        ("Epochs", f"{len(checkpoint.metrics)} trained, {config['training']['max_epochs']} allowed"),
        ("Training time", f"{manifest['seconds']:,} seconds"),
        ("Hardware", ", ".join(f"{name} {value}" for name, value in manifest["hardware"].items())),
        ("Versions", ", ".join(f"{name} {value}" for name, value in manifest["versions"].items())),
        ("Created", str(manifest["created"])),
        *_facts_of_erasures(checkpoint),
    ]  # fmt: skip


def _facts_of_erasures(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    erasures = checkpoint.manifest.get("erasures")
    if erasures is None:
        return []
    due = "the weights have learned from them, and a refit is due" if checkpoint.needs_refit else "fitted without them"
    return [("Erased people", f"{erasures['num_people']:,}, last on {erasures['date']}: {due}")]


def _facts_of_new_items(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    new = checkpoint.calibrated.calibration.new
    if new is None or not new.share:
        return []
    trust = f"scores times {new.scale:g}, uniform part {new.uniform:.0%}"
    return [("New items", f"{new.share:.2%} of the probability together; {trust}")]


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
    if protocol["method"] != "time":
        slices = f"validation {protocol['valid']}, test {protocol['test'] if has_test else 'none'}"
        what = "the last part of each user's events" if protocol["method"] == "user-time" else "users of their own"
        return f"{protocol['method']}: {slices}, {what}{of_targets}"
    test = f"test from {_moment(protocol['test_start_microseconds'])} on" if has_test else "no test part"
    return f"by time: validation from {_moment(protocol['valid_start_microseconds'])}, {test}{of_targets}"


def _moment(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / MICROSECONDS_PER_SECOND, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _facts_of_evaluation(results: Results | None) -> list[tuple[str, str]]:
    if results is None:
        return []
    protocol, row = results.table["protocol"], results.table["rows"][0]
    seen = "items of the history are not ranked" if protocol["exclude_seen"] else "all items are ranked"
    users = sample_of(protocol) or f" of {row['num_users']:,} users"
    evaluation = (
        f"{protocol['part']} part, {row['num_queries']:,} queries{users}, targets: "
        f"{protocol['targets']}, {protocol['candidates']}, {seen}, ties {protocol['ties']}"
    )
    queries = (
        f"{row['cold_queries']:,} with an empty history; {row['unseen_targets']:,} targets unseen in training and "
        f"{row['repeat_targets']:,} targets that are misses, as items of the history are not ranked"
    )
    intervals = f"95 %, {protocol['num_resamples']:,} bootstrap resamples, seed {protocol['bootstrap_seed']}"
    return [("Evaluation", evaluation), ("Among the queries", queries), ("Intervals", intervals)]


def example_users(checkpoint: Checkpoint) -> list[int]:
    """Users spread evenly over the list of ids, among those with some history; the same each time."""
    assert checkpoint.histories is not None
    lengths = checkpoint.histories.lengths
    candidates = np.flatnonzero(lengths >= min(NUM_RECENT, int(lengths.max(initial=0))))
    chosen = np.linspace(0, len(candidates) - 1, min(NUM_USERS, len(candidates)))
    return [int(user) for user in candidates[chosen.astype(np.int64)]]


def examples(data: ReportData) -> list[dict[str, Any]]:
    """The latest events and the recommendations of a few users; empty for a run without histories."""
    checkpoint, vocabulary = data.checkpoint, data.checkpoint.vocabulary
    if checkpoint.histories is None:
        return []
    users = example_users(checkpoint)
    shown = []
    for user, user_id in zip(users, vocabulary.user_ids(users), strict=True):
        answer = data.model.recommend(users=[user_id], k=min(NUM_RECOMMENDED, vocabulary.num_items))
        rows = answer.to_dicts()
        for row, item in zip(rows, vocabulary.item_positions(answer.item_id), strict=True):
            interval = f"{row['probability_low']:.2%}–{row['probability_high']:.2%}"
            row |= {"name": data.names[item], "interval": interval}
        recent = checkpoint.histories.history(user).item[::-1][:NUM_RECENT]
        shown.append({"user_id": str(user_id), "recent": [data.names[item] for item in recent], "rows": rows})
    return shown


def neighbors(data: ReportData) -> list[tuple[str, list[str], list[str]]]:
    """For the most popular items those most similar by events, and by content; empty for a run without content."""
    if CONTENT not in data.checkpoint.counts or data.train_count is None:
        return []
    popular = np.argsort(-data.train_count, kind="stable")[:NUM_RECOMMENDED]
    k = min(NUM_NEIGHBORS, len(data.names) - 1)
    rows = []
    for item, item_id in zip(popular.tolist(), data.checkpoint.vocabulary.item_ids(popular), strict=True):
        if item_id not in data.checkpoint.changes.removed:
            found = (data.model.similar_items([item_id], k, by).to_dict("records") for by in ("events", "content"))
            by_events, by_content = ([one["title"] or str(one["similar_item_id"]) for one in of] for of in found)
            rows.append((data.names[item], by_events, by_content))
    return rows
