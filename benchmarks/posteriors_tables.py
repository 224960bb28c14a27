"""The record of a data set, or of simulated shops, into tables on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

Record = dict[str, Any]


def print_tables(record: Record, console: Console) -> None:
    """All that was measured on a data set, verdicts last."""
    seeds = ", ".join(map(str, record["seeds"]))
    console.rule(f"{record['data']}: {record['num_users']:,} test users, seeds {seeds}")
    for run in record["runs"]["twin"]:
        if run["deterministic_fraction"] < 1:
            console.print(f"warning: the twin {run['name']} was trained with noise", style="red", markup=False)
    _print_models(record, console, "on the test part")
    _print_comparisons(record["comparisons"], console)
    if record["before_refit"]:
        _print_models(record["before_refit"], console, "without a refit, beside controls of about equal cost")
        _print_comparisons(record["before_refit"]["comparisons"], console)
        console.print(f"without a refit, sets of 90 % hold {record['before_refit']['conformal']['coverage']:.2%}")
    _print_groups(record, console)
    table = Table("share answered", "NDCG", "of all", "gain", "95 %", title="least entropy first")
    for name, rows in record["selective"].items():
        for row in rows:
            low, high = row["gain_interval"]
            cells = (
                f"{row['ndcg']:.4f}",
                f"{row['ndcg_of_all']:.4f}",
                f"{row['gain']:+.1%}",
                f"{low:+.1%}–{high:+.1%}",
            )
            table.add_row(f"{name} {row['share']:.0%}", *cells)
    console.print(table)
    size = record["conformal"]["set_size"]
    console.print(
        f"sets of 90 %: {size['mean']:,.0f} items on average ({size['mean_share']:.1%} of the catalog), "
        f"median {size['median']:,.0f} ({size['median_share']:.1%})"
    )
    print_targets(record["targets"], console)


def print_targets(targets: list[Record], console: Console) -> None:
    """What is claimed and what was found."""
    table = Table("claim", "found", "holds", title="targets")
    for row in targets:
        table.add_row(row["claim"], row["found"], "yes" if row["is_met"] else "NO")
    console.print(table)


def _print_models(record: Record, console: Console, title: str) -> None:
    models = record["models"]
    names = [
        name
        for name in next(iter(models.values()))["mean"]
        if name not in ("mrr", "entropy") and "by_chance" not in name
    ]
    table = Table("model", "seeds", *names, "CPU s", title=title)
    for model, found in models.items():
        values = [f"{found['mean'][name]:.4f}" for name in names]
        table.add_row(model, str(len(found["by_seed"])), *values, f"{found['cpu_seconds']:.1f}")
    console.print(table)


def _print_comparisons(comparisons: dict[str, dict[str, Record]], console: Console) -> None:
    """Over all seeds, and seed by seed where there are several."""
    table = Table("first / second", "metric", "seed", "difference", "95 %", "relative", "p", title="paired by user")
    for pair, by_metric in comparisons.items():
        for metric, found in by_metric.items():
            by_seed = found.get("by_seed", {})
            by_seed = by_seed if len(by_seed) > 1 else {}
            for seed, row in {"all": found["over_seeds"], **by_seed}.items():
                low, high = row["interval"]
                is_relative = metric == "ndcg" and row["relative_interval"] is not None
                cells = [
                    f"{row['difference']:+.4f}",
                    f"{low:+.4f} to {high:+.4f}",
                    _relative(row) if is_relative else "",
                ]
                table.add_row(pair, metric, str(seed), *cells, f"{row['p_value']:.4f}")
    console.print(table)


def _relative(row: Record) -> str:
    low, high = row["relative_interval"]
    return f"{row['relative']:+.2%} ({low:+.2%} to {high:+.2%})"


def _print_groups(record: Record, console: Console) -> None:
    ours, twin = (record["groups"]["history_length"][name] for name in ("variational", "twin"))
    table = Table("history", "queries", "NDCG", "NLL", "twin's NLL", "entropy", "epistemic", f"ece_top{record['k']}",
                  "90 % sets hold", title="by history length (epistemic of a sample of users)")  # fmt: skip
    epistemic = {row["group"]: row["epistemic"] for row in record["uncertainty"]}
    for row, other, held in zip(ours, twin, record["conformal"]["by_history_length"], strict=True):
        values = (row[f"ndcg@{record['k']}"], row["nll"], other["nll"], row["entropy"], epistemic.get(row["group"]))
        cells = ["" if value is None else f"{value:.4f}" for value in (*values, row[f"ece_top{record['k']}"])]
        table.add_row(row["group"], f"{row['num_queries']:,}", *cells, f"{held['coverage']:.1%}")
    console.print(table)


def print_simulated(record: Record, console: Console) -> None:
    """What intervals and uncertainties are worth where the truth is known."""
    table = Table("events seen", "shoppers", "interval holds", "true below", "true above", "high / low", "epistemic",
                  "entropy", "true entropy", "KL from truth", title="simulated shops")  # fmt: skip
    for row in record["by_num_events"]:
        shares = [f"{row[name]:.1%}" for name in ("inside", "below", "above")]
        names = ("reach", "epistemic", "total", "true_entropy", "divergence")
        table.add_row(str(row["num_events"]), f"{row['num_shoppers']:,}", *shares, *[f"{row[n]:.4f}" for n in names])
    console.print(table)
    low, high = record["inside_interval"]
    console.print(
        f"intervals hold the true probability in {record['inside']:.1%} ({low:.1%}–{high:.1%}) of recommended items; "
        f"rank correlation of epistemic uncertainty with events seen {record['epistemic_with_num_events']:+.3f}, "
        f"with the divergence from the truth {record['epistemic_with_divergence']:+.3f}"
    )
