"""The measurements of a data set into verdicts: what is claimed of posteriors, what was found, and whether it holds."""

from __future__ import annotations

from typing import Any

from posteriors_runs import POPULAR, TWIN, UNCALIBRATED, VARIATIONAL

from variseq.ranking.calibration import MIN_QUERIES

MARGIN = 0.01
"""How much of the twin's NDCG@10 may be lost, as a share of it."""
LARGEST_ERROR, LARGEST_SHARE_OF_ERROR = 0.02, 0.5
OVERALL, IN_GROUPS = (0.88, 0.92), (0.85, 0.95)
LEAST_GAIN = 0.2
SIGNIFICANT = 0.05
Record = dict[str, Any]


def targets_of(record: Record) -> list[Record]:
    """One row for each claim."""
    return [*_likelihood(record), _quality(record), *_calibration(record), *_sets(record), _selective(record)]


def _row(claim: str, found: str, is_met: bool) -> Record:
    return {"claim": claim, "found": found, "is_met": is_met}


def _overall(record: Record, second: str, metric: str) -> Record:
    """The comparison over all seeds of the variational model with another."""
    found: Record = record["comparisons"][f"{VARIATIONAL} / {second}"][metric]["over_seeds"]
    return found


def _likelihood(record: Record) -> list[Record]:
    rows = []
    for second in (TWIN, POPULAR):
        found = _overall(record, second, "nll")
        low, high = found["interval"]
        said = f"{found['difference']:+.4f} nats ({low:+.4f} to {high:+.4f}), p = {found['p_value']:.4f}"
        rows.append(_row(f"NLL below that of: {second}", said, high < 0 and found["p_value"] < SIGNIFICANT))
    return rows


def _quality(record: Record) -> Record:
    found = _overall(record, TWIN, "ndcg")
    if found["relative_interval"] is None:
        return _row("NDCG no worse than the twin's, margin 1 %", "too few users hit", False)
    low, high = found["relative_interval"]
    said = f"{found['relative']:+.2%} ({low:+.2%} to {high:+.2%}), p = {found['p_value']:.4f}"
    return _row("NDCG no worse than the twin's, margin 1 %", said, low > -MARGIN)


def _calibration(record: Record) -> list[Record]:
    rows = []
    for depth in (1, record["k"]):
        ours, raw = (record["models"][name]["mean"][f"ece_top{depth}"] for name in (VARIATIONAL, UNCALIBRATED))
        rows.append(_row(f"ECE of top {depth} at most {LARGEST_ERROR:g}", f"{ours:.4f}", ours <= LARGEST_ERROR))
        claim = f"ECE of top {depth} at most half of: {UNCALIBRATED}"
        share = ours / raw if raw else float("inf")
        rows.append(_row(claim, f"{share:.2f} of {raw:.4f}", share <= LARGEST_SHARE_OF_ERROR))
    return rows


def _sets(record: Record) -> list[Record]:
    found = record["conformal"]
    low, high = found["interval"]
    said = f"{found['coverage']:.2%} ({low:.2%} to {high:.2%})"
    overall = _row("sets of 90 % cover 88–92 %", said, OVERALL[0] <= found["coverage"] <= OVERALL[1])
    # Of a handful of queries the coverage says nothing; all groups are in the record.
    large = [row for row in found["by_history_length"] if row["num_queries"] >= MIN_QUERIES]
    said = ", ".join(f"{row['group']}: {row['coverage']:.1%}" for row in large) or "no group is large enough"
    holds = bool(large) and all(IN_GROUPS[0] <= row["coverage"] <= IN_GROUPS[1] for row in large)
    return [overall, _row(f"85–95 % in each history-length group of {MIN_QUERIES} queries or more", said, holds)]


def _selective(record: Record) -> Record:
    found = next(row for row in record["selective"][VARIATIONAL] if row["share"] == 0.5)
    low, high = found["gain_interval"]
    said = f"{found['gain']:+.1%} ({low:+.1%} to {high:+.1%})"
    return _row("the surer half gains 20 % of NDCG", said, found["gain"] >= LEAST_GAIN)
