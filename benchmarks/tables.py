"""The tables of docs/results and of the development log from the records in benchmarks/results.

    python -m benchmarks.tables                    # writes every table of which there are records
    python -m benchmarks.tables --check            # writes nothing; exit code 1 when a page does not show the records
    python -m benchmarks.tables --print FILE ...   # prints the tables of other record files

A page has a line `<!-- table:NAME -->` and ends the table with `<!-- /table -->`. Of each case and seed the latest
record counts. Seeds are one row: mean (smallest–largest). A number with an interval is shown with it when it is of one
seed. Below a table stand commit, hardware, seeds and dates of its records.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.growth_results import AXES, LEAST_SECONDS, STAGES, exponent_records
from measurement.records import RESULTS, ROOT, Record, command_parser, exit_code, read_records
from variseq.atomic import atomic_write
from variseq.errors import InputError

PAGES = (
    *sorted((ROOT / "docs" / "results").glob("*.md")),
    *(ROOT / "docs" / "explanation" / f"{name}.md" for name in ("time-to-the-next-event", "what-the-latent-is-worth")),
    ROOT / "docs" / "how-to" / "size-a-deployment.md",
    ROOT / "docs" / "development" / "log.md",
)
NOTHING = "–"
BLOCK = re.compile(r"<!-- table:([\w-]+) -->\n.*?<!-- /table -->", re.DOTALL)


@dataclass(frozen=True)
class Column:
    """A metric: its name in the records, its heading, and how many digits are shown."""

    metric: str
    heading: str
    digits: int = 4


@dataclass(frozen=True)
class Table:
    """Cases as rows, metrics as columns; `where` limits it to records with these entries in case or settings."""

    benchmark: str
    case: tuple[str, ...]
    columns: tuple[Column, ...]
    where: tuple[tuple[str, Any], ...] = ()
    note: str = ""


REFITTED, TRAINING_ONLY = "refitted", "training events only"
"""The two tracks of accuracy; see `track_of`."""
QUALITY = (Column("ndcg@10", "NDCG@10"), Column("recall@10", "Recall@10"), Column("nll", "NLL", 3))
DIFFERENCE = (Column("difference", "difference"), Column("p_value", "p", 3), Column("p_value_holm", "p (Holm)", 3))
COST = (
    Column("positions_per_second", "positions / CPU s", 0),
    Column("epoch_seconds", "an epoch, CPU s", 1),
    Column("training_peak_megabytes", "training peak, MB", 0),
    Column("recommend_all_seconds", "all users, CPU s", 1),
    Column("latency_p50_milliseconds", "one history, CPU ms", 1),
)
OF_GROWTH = (("size", "tiny"), ("max_epochs", None))
TABLES = {
    "accuracy": Table(
        "accuracy", ("data", "model"),
        (*QUALITY, Column("ece_top10", "ECE, top 10"), Column("training_seconds", "training, s", 0),
         Column("peak_megabytes", "peak, MB", 0), Column("kl", "KL, nats", 1)),
        (("request_time", False), ("track", REFITTED)),
    ),
    "accuracy-training-only": Table(
        "accuracy", ("data", "model"),
        (*QUALITY, Column("ece_top10", "ECE, top 10"), Column("training_seconds", "training, s", 0)),
        (("request_time", False), ("track", TRAINING_ONLY)),
        "All learn from training events alone, without categories; the model is chosen on validation",
    ),
    "request-time": Table(
        "accuracy", ("data", "model"), QUALITY, (("request_time", True),), "The model gets the time of the request"
    ),
    "visits": Table(
        "visits", ("data", "model"),
        (Column("visit_recall@20", "recall@20"), Column("visit_precision@20", "precision@20"),
         Column("visit_jaccard@20", "Jaccard@20"), Column("visit_ndcg@20", "NDCG@20"),
         Column("visit_recall_repeats@20", "recall@20, had before"), Column("visit_recall_new@20", "recall@20, new"),
         Column("nll", "NLL", 3)),
        note="Means over the visits that are not the first of their person",
    ),
    "attacks": Table(
        "attacks", ("data", "epochs", "attack"),
        (Column("auc", "AUC", 3), Column("tpr@0.01", "TPR at 1 % FPR", 2), Column("tpr@0.05", "TPR at 5 % FPR", 2),
         Column("num_canaries", "canaries", 0), Column("cpu_seconds", "a fit, CPU s", 0)),
        note="Intervals are over canaries",
    ),
    "one-run-audit": Table(
        "one_run_audit", ("data", "epsilon", "release"),
        (Column("epsilon_lower_bound", "ε is above", 2), Column("num_canaries", "canaries", 0),
         Column("num_guesses", "guesses", 0), Column("num_correct", "correct", 0), Column("auc", "AUC", 3),
         Column("largest_auc", "largest AUC allowed", 3), Column("tpr@0.01", "TPR at 1 % FPR", 3),
         Column("cpu_seconds", "both releases, CPU s", 1)),
        note="Intervals are over canaries",
    ),
    "steps-audit": Table(
        "steps_audit", ("data", "epsilon", "release"),
        (Column("epsilon_claimed", "ε of the steps", 2), Column("epsilon_lower_bound", "ε is above", 2),
         Column("num_canaries", "canaries", 0), Column("num_guesses", "guesses", 0),
         Column("num_correct", "correct", 0), Column("auc", "AUC", 3),
         Column("largest_auc", "largest AUC allowed", 3), Column("tpr@0.01", "TPR at 1 % FPR", 3),
         Column("largest_tpr", "largest TPR allowed", 3), Column("cpu_seconds", "both attacks, CPU s", 0)),
        note="Intervals are over canaries",
    ),
    "significance": Table("significance", ("data", "model", "compared_with", "metric"), DIFFERENCE),
    "ablations": Table(
        "ablations", ("data", "change"),
        (Column("ndcg@10", "NDCG@10"), Column("nll", "NLL", 3), Column("network_nll", "NLL, network alone", 3),
         Column("best_epoch", "best epoch", 0), Column("cpu_seconds", "CPU, s", 0)),
    ),
    "competitors-quality": Table(
        "competitors", ("data", "system"),
        (Column("ndcg@10", "NDCG@10"), Column("hit_rate@10", "HR@10"),
         Column("seconds_to_best", "CPU s to its best", 0)),
        (("only_cost", False), ("is_converged", True)),
        "Same training events, no content. Only systems that ended by themselves; a run that its budget stopped is "
        "not shown here",
    ),
    "competitors-cost": Table(
        "competitors", ("data", "system"), COST, note="This table is about cost alone: some runs were stopped early"
    ),
    "calibration": Table(
        "calibration", ("data", "model"),
        (Column("nll", "NLL", 3), Column("brier", "Brier"), Column("ece_top1", "ECE, top 1"),
         Column("ece_top10", "ECE, top 10"), Column("conformal_coverage_90", "coverage of 90 % sets", 3),
         Column("selective_ndcg_gain", "gain of the confident half", 3)),
    ),
    "reasons": Table(
        "reasons", ("data",),
        (Column("reasons", "fall, nats", 3), Column("random", "random events", 3), Column("latest", "latest", 3),
         Column("over_random", "over random", 3), Column("over_latest", "over latest", 3)),
    ),
    "diversity": Table(
        "diversity", ("data", "lists"),
        (Column("ndcg@10", "NDCG@10"), Column("cosine_distance", "cosine distance", 3),
         Column("catalog_coverage", "catalog coverage", 3)),
    ),
    "values": Table(
        "values", ("data", "split", "model"),
        (Column("value_rmse", "RMSE, all"), Column("value_rmse_warm", "warm"), Column("value_rmse_cold", "cold"),
         Column("value_interval_coverage_90", "coverage of 90 % intervals", 3), Column("num_values", "targets", 0),
         Column("num_values_warm", "warm", 0)),
    ),
    "education": Table(
        "fields", ("data", "model"),
        (Column("value_auc", "AUC"), Column("value_rmse", "RMSE"), Column("num_values", "answers", 0),
         Column("cpu_seconds", "fit, CPU s", 0)),
        (("data", "assist2009"),),
    ),
    "medicine": Table(
        "fields", ("data", "model"),
        (Column("visit_recall@20", "recall@20"), Column("visit_ndcg@20", "NDCG@20"),
         Column("visit_recall_repeats@20", "recall@20, had before"), Column("visit_recall_new@20", "recall@20, new"),
         Column("nll", "NLL", 3), Column("cpu_seconds", "fit, CPU s", 0)),
        (("data", "synthea"),),
        "Means over the visits that are not the first of their person",
    ),
    "finance": Table(
        "fields", ("data", "model"),
        (*QUALITY, Column("value_rmse", "RMSE, log amount"), Column("gap_nll", "NLL of the gap", 3),
         Column("cpu_seconds", "fit, CPU s", 0)),
        (("data", "accounts"),),
    ),
    "transactions": Table(
        "fields", ("data", "model"),
        (*QUALITY, Column("value_rmse", "RMSE, log amount"), Column("gap_nll", "NLL of the gap", 3),
         Column("cpu_seconds", "fit, CPU s", 0)),
        (("data", "anz"),),
    ),
    "mobility": Table(
        "fields", ("data", "model"),
        (*QUALITY, Column("value_rmse", "RMSE, log minutes"),
         Column("value_interval_coverage_90", "90 % intervals hold", 3), Column("num_values", "stays", 0),
         Column("cpu_seconds", "fit, CPU s", 0)),
        (("data", "geolife-dwell"),),
    ),
    "driving": Table(
        "fields", ("data", "model"),
        (Column("recall@1", "recall@1"), Column("nll", "NLL", 3), Column("cpu_seconds", "fit, CPU s", 0)),
        (("data", "drives"),),
    ),
    "erasure": Table(
        "erasure", ("data", "attack", "state"),
        (Column("auc", "AUC", 3), Column("true_positives", "true-positive rate at 5 % false ones", 3)),
    ),
    "time-to-next": Table(
        "time_to_next", ("data", "split", "model"),
        (Column("gap_nll", "NLL, nats", 3), Column("gap_log_rmse", "RMSE of log gap", 3),
         Column("gap_interval_coverage_90", "90 % intervals hold", 3), Column("num_gaps", "gaps", 0),
         Column("num_open_gaps", "still open", 0), Column("cpu_seconds", "fit, CPU s", 1)),
    ),
    "kernels": Table(
        "kernels", ("kernel",),
        (Column("variseq_ms", "variseq, ms", 2), Column("plain_ms", "plain PyTorch, ms", 2),
         Column("sampled_ms", "2,048 negatives, ms", 2), Column("dot_ms", "dot product, ms", 2)),
    ),
    "attention": Table(
        "attention", ("events",),
        (Column("additive_ms", "additive, ms", 1), Column("dot_ms", "dot product, ms", 1),
         Column("additive_peak_megabytes", "additive, MB", 0), Column("dot_peak_megabytes", "dot product, MB", 0)),
    ),
    "training-speed": Table(
        "training_speed", ("log",),
        (Column("positions_per_second", "positions / s", 0), Column("megaflops_per_position", "MFLOP a position", 2),
         Column("peak_gigaflops", "peak, GFLOP/s", 0), Column("share_of_peak", "share of peak", 2)),
    ),
    "privacy": Table(
        "privacy", ("data", "model"),
        (*QUALITY, Column("content", "weight of content", 2), Column("network", "of a network", 2),
         Column("fit_seconds", "fit, CPU s", 1)),
    ),
    "private-steps": Table(
        "private_steps", ("items", "users", "events"),
        (Column("plain_ms", "plain step, CPU ms", 0), Column("all_ms", "of each user", 0),
         Column("all_ratio", "over plain", 2), Column("frozen_ms", "items frozen", 0),
         Column("frozen_ratio", "over plain", 2)),
        note="One thread; from 4,096 items on with 2,048 negatives",
    ),
    "opacus": Table(
        "opacus_gradients", ("scores",),
        (Column("error", "error over norm, mean", 3), Column("largest_error", "largest", 3),
         Column("norm_share", "smallest share of the norm", 3)),
        note="50 items, 4 users of 6 events",
    ),
    "off-policy": Table(
        "off_policy", ("num_lists", "policy", "estimator"),
        (Column("bias_percent", "bias, %", 2), Column("bias_standard_errors", "in its standard errors", 1),
         Column("rmse_percent", "RMSE, %", 2), Column("rmse_over_IPS", "over that of IPS", 2),
         Column("rmse_over_whole-list IPS", "of whole-list IPS", 2), Column("coverage", "intervals hold", 3),
         Column("refused", "refused", 3)),
        note="200 replications. Percent of the true value. Refused logs are in all columns",
    ),
    "off-policy-cascade": Table(
        "off_policy_cascade", ("num_lists", "policy", "estimator"),
        (Column("bias_percent", "bias, %", 2), Column("bias_standard_errors", "in its standard errors", 1),
         Column("rmse_percent", "RMSE, %", 2), Column("rmse_over_RIPS", "over that of RIPS", 2),
         Column("coverage", "intervals hold", 3), Column("refused", "refused", 3)),
        note="200 replications. Percent of the true value. Refused logs are in all columns",
    ),
    "experiments": Table(
        "experiments", ("case",),
        (Column("always_valid", "always-valid, looks each day", 3),
         Column("fixed_each_day", "fixed, looks each day", 3),
         Column("fixed_at_the_end", "fixed, one look at the end", 3),
         Column("mean_users", "users until always-valid found it", 0),
         Column("users_of_one_look", "users of one look", 0),
         Column("planned_users", "planned", 0)),
        note="Share of 1,000 experiments of 60 days in which the interval left out 0",
    ),
    "open-bandit": Table(
        "open_bandit", ("data", "policy"),
        (Column("mean_weight", "mean weight", 3), Column("effective_sample", "effective sample", 0),
         Column("largest_share", "largest weight", 3), Column("on-policy_mean", "mean of the log"),
         Column("ips", "IPS"), Column("snips", "SNIPS"), Column("doubly_robust", "doubly robust")),
    ),
    "feedback-loop": Table(
        "feedback_loop", ("num_lists",),
        (Column("num_rebuilt", "histories rebuilt", 0), Column("num_dropped", "dropped", 0),
         Column("num_events", "events", 0), Column("num_joined", "joined", 0), Column("truth", "truth"),
         Column("SNIPS", "SNIPS"), Column("SNIPS holds", "its intervals hold", 2),
         Column("doubly robust", "doubly robust"), Column("doubly robust holds", "its intervals hold", 2)),
        note="Purchases a list of the policy at temperature 0.5, from lists at 0.3",
    ),
    "improvement": Table(
        "improvement", ("num_lists",),
        (Column("purchases", "purchases", 0), Column("learned drawn", "drawn, %", 2),
         Column("learned drawn taken", "taken, %", 2), Column("learned greedy", "greedy, %", 2),
         Column("learned greedy taken", "taken, %", 2), Column("learned held out", "held out, %", 2),
         Column("learned above 0", "above 0, not refused", 2), Column("learned holds", "intervals hold", 2)),
        note="Changes of purchases a list, and of items taken, by drawn and by greedy lists. Held out: the estimate by "
        "other people",
    ),
    "improvement-simple": Table(
        "improvement", ("num_lists",),
        (Column("simple drawn", "drawn, %", 2), Column("simple drawn taken", "taken, %", 2),
         Column("simple greedy", "greedy, %", 2), Column("simple greedy taken", "taken, %", 2),
         Column("simple above 0", "above 0, not refused", 2), Column("true drawn", "true rates, drawn, %", 2),
         Column("true drawn taken", "taken, %", 2), Column("true greedy", "greedy, %", 2)),
        note="Offsets are the logarithms of shrunk reward rates; then those of the true rates",
    ),
    "list-improvement": Table(
        "list_improvement", ("reward", "num_lists"),
        (Column("drawn", "drawn, %", 2), Column("greedy", "greedy, %", 2), Column("step", "size of offsets", 3),
         Column("effective_share", "effective share", 2), Column("whole-list SNIPS", "held out, SNIPS, %", 2),
         Column("whole-list SNIPS above 0", "above 0, not refused", 2),
         Column("whole-list SNIPS holds", "intervals hold", 2), Column("whole-list IPS", "IPS, %", 2),
         Column("whole-list IPS above 0", "above 0, not refused", 2),
         Column("whole-list IPS holds", "intervals hold", 2)),
        note="Changes of the reward of a list of people held out, by drawn and by greedy lists, and their estimates",
    ),
    "shown-lists": Table(
        "shown_lists", ("split", "model"),
        (Column("ndcg@10", "NDCG@10"), Column("ndcg@5", "NDCG@5"), Column("mrr", "MRR"), Column("auc", "AUC"),
         Column("ndcg@10_difference", "NDCG@10 minus that with offsets"),
         Column("catalog_ndcg@10", "over the catalog"), Column("catalog_nll", "NLL", 3)),
        note="Means over the lists of the test part; size tiny",
    ),
    "feedback-cost": Table(
        "feedback_cost", ("strategy",),
        (Column("p50_without", "p50 without, ms", 2), Column("p50_with", "with, ms", 2),
         Column("p99_without", "p99 without, ms", 2), Column("p99_with", "with, ms", 2)),
        note="One client, 2,000 requests to each of two servers in turn, lists of ten",
    ),
    "feedback-bytes": Table(
        "feedback_bytes", ("strategy",),
        (Column("line_bytes", "bytes a list", 0), Column("compressed_line_bytes", "compressed", 0)),
        note="Lists of ten",
    ),
    "federation": Table(
        "federation", ("data", "silos", "epsilon"),
        (*QUALITY, Column("megabytes", "MB a party", 2), Column("cpu_seconds", "CPU s a party", 3)),
    ),
    "federated-network": Table(
        "federated_network", ("data", "size", "silos"),
        (*QUALITY, Column("weight", "weight of the network", 2), Column("counts ndcg@10", "NDCG@10 of the counts"),
         Column("megabytes", "MB a party", 1), Column("cpu_seconds", "CPU s a party", 0)),
    ),
    "federated-difference": Table(
        "federated_difference", ("data", "size", "silos"),
        (Column("difference", "NDCG@10 minus that of the joined log, %", 1),
         Column("standard error", "standard error", 1)),
        note="Paired over users, on the mean of the seeds",
    ),
    "processes": Table(
        "processes", ("case", "processes", "threads"),
        (Column("positions_per_second", "positions / s", 0), Column("speed_ratio", "times one process", 2)),
    ),
    "busy-machine": Table(
        "busy_machine", ("threads wait by", "busy processes"),
        (Column("positions_per_second", "positions / s", 0), Column("share_of_fair", "share of fair speed", 2)),
    ),
    "reading": Table(
        "reading", ("events", "job"),
        (Column("seconds", "s", 1), Column("cpu_seconds", "CPU s", 1), Column("peak_megabytes", "peak, MB", 0)),
    ),
    "serving": Table(
        "serving", ("items", "system", "connections"),
        (Column("requests_per_second", "requests / s", 0),
         Column("p50_ms", "p50, ms", 1), Column("p99_ms", "p99, ms", 1), Column("failed", "failed", 0)),
    ),
    "serving-sizes": Table(
        "serving_sizes", ("items",),
        (Column("folder_megabytes", "folder, MB", 1), Column("peak_megabytes", "memory, MB", 0),
         Column("p50_ms", "one call, ms", 1)),
    ),
    "sizing-requests": Table(
        "serving_cpu", ("items", "request", "connections"),
        (Column("cpu_milliseconds", "CPU ms a request", 2), Column("peak_megabytes", "memory, MB", 0)),
        note="CPU time of the server, whose client had the other core",
    ),
    "sizing-stores": Table(
        "stores", ("store", "users"),
        (Column("append_cpu_us", "one event, CPU µs", 0), Column("append_batch_cpu_us", "an event of 100, CPU µs", 0),
         Column("history_cpu_us", "a history, CPU µs", 0),
         Column("server_cpu_us", "an event of 100 in a shared server, CPU µs", 0),
         Column("disk_bytes", "disk, bytes an event", 0), Column("redis_bytes", "Redis, bytes an event", 0)),
        note="50 events a user, ids of events of 36 characters",
    ),
    "joint": Table(
        "joint", ("data", "form"),
        (Column("next", "NLL, next event", 3), Column("next_difference", "difference", 3),
         Column("joint", "NLL, next three", 3), Column("joint_difference", "difference to independent", 3),
         Column("cpu_seconds", "training, CPU s", 0)),
        note="Differences are to the deterministic network, paired by user",
    ),
    "compression": Table(
        "compression", ("data", "part", "compress"),
        (Column("bundle_bytes", "folder, bytes", 0), Column("table_bytes", "item vectors in memory, bytes", 0),
         Column("ndcg@10", "NDCG@10"), Column("ndcg_change", "its change, %", 2),
         Column("nll_change", "change of NLL", 4),
         Column("microseconds", "one answer, CPU µs", 0), Column("answers_per_second", "answers / CPU s, by 64", 0)),
        note="Changes are to the whole export, paired by user, with intervals over users",
    ),
    "content-rows": Table(
        "content", ("data", "row"),
        (Column("ndcg", "NDCG@10"), Column("ndcg_difference", "difference"), Column("recall", "recall@10"),
         Column("nll", "NLL", 3), Column("recall_rare", "recall@10, rare targets"),
         Column("cpu_seconds", "training, CPU s", 0)),
        (("mode", "rows"),),
        "Training events alone. Differences are to categories, paired by user. Rare targets have at most five training "
        "events",
    ),
    "content-held-out": Table(
        "content", ("data",),
        (Column("num_held_out", "items", 0), Column("num_asking", "their targets", 0),
         Column("recall of held-out, 1 of 10 ranks", "recall@10, one rank"),
         Column("recall of held-out, 3 of 10 ranks", "three ranks"), Column("recall among held-out", "among them"),
         Column("recall of all, all items", "recall@10 of all"),
         Column("recall of all, 1 of 10 ranks", "of all, one rank")),
        (("mode", "held-out"),),
        "Training events alone",
    ),
    "content-first-days": Table(
        "content", ("data", "row"),
        (Column("nll", "NLL", 3), Column("nll_new", "new targets", 3), Column("nll_known", "other targets", 3),
         Column("ndcg", "NDCG@10"), Column("ndcg_known", "other targets"),
         Column("recall_new", "recall@10, new targets"), Column("share_of_new", "probability of new", 3),
         Column("num_new", "new targets", 0), Column("num_queries", "targets", 0)),
        (("mode", "first-days"),),
        "After a refit",
    ),
    "content-parts": Table(
        "content", ("data", "row"),
        (Column("ndcg", "NDCG@10"), Column("ndcg_difference", "difference"), Column("nll", "NLL", 3),
         Column("nll_difference", "difference", 3), Column("ndcg_rare", "NDCG@10, rare targets"),
         Column("ndcg_difference_rare", "difference"), Column("recall_new", "recall@10, new items", 3),
         Column("num_queries", "queries", 0), Column("num_rare", "rare", 0)),
        (("mode", "parts"),),
        "Training events alone. Rows of fits are compared with the one without content, rows without a part with the "
        "fit that they are made of, paired by user. New items are ranked among themselves",
    ),
    "content-unordered": Table(
        "content", ("data", "row"),
        (Column("recall", "recall@20"), Column("recall_difference", "to a random order"),
         Column("num_users", "users", 0), Column("num_pairs", "hidden pairs", 0), Column("num_cold", "new items", 0)),
        (("mode", "unordered"),),
    ),
    "content-held-out-tenth": Table(
        "content", ("data",),
        (Column("num_held_out", "items", 0), Column("num_asking", "their targets", 0),
         Column("recall among held-out", "recall@10 among them"),
         Column("recall of held-out, all items", "in the whole catalog"),
         Column("recall of held-out, 1 of 10 ranks", "one rank"),
         Column("recall of held-out, 3 of 10 ranks", "three ranks"), Column("recall of all, all items", "of all"),
         Column("share_of_new", "probability of new", 3)),
        (("mode", "held-out-tenth"),),
        "Training events alone, 8 epochs",
    ),
    "content-speed": Table(
        "content", ("what",),
        (Column("num_items", "items", 0), Column("seconds", "seconds", 1), Column("cpu_seconds", "CPU seconds", 1),
         Column("answer_seconds", "the next answer, s", 2), Column("num_named", "of them in its 10 ranks", 0)),
        (("mode", "speed"),),
    ),
    "domains": Table(
        "domains", ("data", "row"),
        (Column("ndcg", "NDCG@10"), Column("ndcg_difference", "to nearest titles"), Column("recall", "recall@10"),
         Column("nll", "NLL", 3), Column("power", "power of popularity", 2), Column("num_queries", "queries", 0),
         Column("num_items", "items", 0)),
        (("part", "test"),),
        "Test part of the target, of which no run has learned. Differences are paired by user",
    ),
    "long-term": Table(
        "long_term", ("setting", "policy"),
        (Column("reward", "reward", 2), Column("to_greedy", "to greedy", 2), Column("p_value_greedy", "p (Holm)", 3),
         Column("to_one_step", "to one step", 2), Column("p_value_one_step", "p (Holm)", 3),
         Column("rounds", "rounds", 1), Column("taken", "items taken", 1)),
        note="Means per visitor; intervals over 20 worlds, seeds 0 to 19; differences are paired by world",
    ),
    "growth": Table(
        "growth", ("events", "items"),
        (*(Column(f"{stage}_seconds", name, 1) for stage, name in STAGES.items() if not stage.startswith("fit_")),
         Column("serve_answer_seconds", "first answer", 2), Column("fit_cpu_seconds", "fit, CPU s", 1)),
        OF_GROWTH,
        "Seconds of the clock, each stage in a process of its own",
    ),
    "growth-fit": Table(
        "growth", ("events", "items"),
        (*(Column(f"{stage}_seconds", name, 1) for stage, name in STAGES.items() if stage.startswith("fit_")),
         Column("epochs", "epochs", 0)),
        OF_GROWTH,
        "Seconds of the clock within fit",
    ),
    "growth-memory": Table(
        "growth", ("events", "items"),
        (*(Column(f"{stage}_peak_megabytes", name, 0) for stage, name in STAGES.items()),
         Column("serve_peak_megabytes", "server", 0)),
        OF_GROWTH,
        "Peak memory of each process in MB; of parts of fit: from the start of the process to the end of the part",
    ),
    "growth-exponents": Table(
        "growth_exponents", ("stage",),
        tuple(column for axis, fixed in AXES.items() for column in (
            Column(f"{axis}_exponent", f"by {axis} at fixed {fixed}", 2), Column(f"{axis}_cpu_exponent", "CPU s", 2),
            Column(f"{axis}_steepest", "steepest step, CPU s", 2), Column(f"{axis}_points", "points", 0))),
        note=f"Slope of log seconds by log size. Stages under {LEAST_SECONDS:.0f} s are left out",
    ),
    "startup": Table("startup", ("what",), (Column("seconds", "s", 3),)),
    "installed-size": Table("installed_size", ("package",), (Column("megabytes", "MB", 1),)),
}  # fmt: skip


def table_text(table: Table, records: Iterable[Record]) -> str | None:
    """The table in Markdown with its conditions below; None where there are no records of it."""
    groups: dict[tuple[Any, ...], dict[int | None, Record]] = {}
    for record in records:
        both = record["settings"] | record["case"] | {"track": track_of(record)}
        if record["benchmark"] == table.benchmark and all(both.get(key) == value for key, value in table.where):
            of_seed = groups.setdefault(tuple(both.get(name) for name in table.case), {})
            if str(of_seed.get(record["seed"], record)["date"]) <= str(record["date"]):
                of_seed[record["seed"]] = record
    if not groups:
        return None
    rows = [(case, list(of_seed.values())) for case, of_seed in groups.items()]
    for case, found in rows:
        _check_comparable(case, found)
    used = [one for _, found in rows for one in found]
    measured = {metric for one in used for metric in one["metrics"]}
    columns = [column for column in table.columns if measured & {column.metric, _least(column)}]
    header = [*table.case, "seeds", *(column.heading for column in columns)]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(table.case) + "---:|" * (len(columns) + 1)]
    # A model that nothing of this table was measured of has no row.
    wanted = {name for column in columns for name in (column.metric, _least(column))}
    for case, found in rows:
        if not any(wanted & one["metrics"].keys() for one in found):
            continue
        seeds = sum(one["seed"] is not None for one in found)
        cells = [_text(value) for value in case] + [str(seeds) if seeds else NOTHING]
        lines.append("| " + " | ".join([*cells, *(_cell(found, column) for column in columns)]) + " |")
    return "\n".join([*lines, "", f"<sub>{conditions(used, table.note)}</sub>", ""])


def track_of(record: Record) -> str:
    """What a run of a recipe has learned from: training events alone without content, or all that it may know."""
    training = record["settings"].get("training") or {}
    has_content = training.get("use_categories") is not False or training.get("use_content") is True
    is_alone = training.get("refit_fraction") == 0 and not has_content
    return TRAINING_ONLY if is_alone else REFITTED


def _check_comparable(case: tuple[Any, ...], records: Sequence[Record]) -> None:
    """Seeds are one row only when data and settings are the same. Raises InputError."""
    for part in ("data", "settings"):
        found = [_without_seed(one[part]) for one in records]
        if any(one != found[0] for one in found):
            name = ", ".join(map(str, case))
            raise InputError(f"The records of {name} differ in their {part}. Measure the older seeds again.")


def _without_seed(value: Any) -> Any:
    """Settings without the seed and what is found during a run."""
    left_out = ("seed", "curve", "stop_reason", "was_improving", "versions", "own_settings", "calibration", "round")
    if isinstance(value, dict):
        return {key: _without_seed(one) for key, one in value.items() if key not in left_out}
    return value


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _least(column: Column) -> str:
    """The name of the metric where it was stopped before its end."""
    return f"{column.metric}_at_least"


def _cell(records: Sequence[Record], column: Column) -> str:
    values = [value for one in records if (value := one["metrics"].get(column.metric)) is not None]
    if not values:
        least = records[0]["metrics"].get(_least(column))
        return NOTHING if least is None else f"> {least:,.{column.digits}f}"
    text = spread(values, column.digits)
    if column.metric.startswith("p_value") and max(values) < 10**-column.digits:
        text = f"< {10**-column.digits:.{column.digits}f}"
    interval = records[0]["metrics"].get(f"{column.metric}_interval") or (
        records[0]["metrics"].get("interval") if column.metric == "difference" else None
    )
    if len(records) == 1 and interval:
        text += f" [{interval[0]:,.{column.digits}f} to {interval[1]:,.{column.digits}f}]"
    return text


def spread(values: Sequence[float], digits: int) -> str:
    """One number, or the mean of several with the smallest and the largest.

    >>> spread([0.1, 0.3], 2)
    '0.20 (0.10–0.30)'
    """
    mean = f"{sum(values) / len(values):,.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def conditions(records: Sequence[Record], note: str = "") -> str:
    """Under which conditions the records of a table were measured."""
    seeds = sorted({one["seed"] for one in records if one["seed"] is not None})
    commits = _unique(
        f"`{one['commit'][:10]}`{' with uncommitted changes' if one['dirty'] else ''}" if one["commit"] else "unknown"
        for one in records
    )
    machines = _unique(f"{one['hardware']['cpu']}, {_threads(one['hardware'])}" for one in records)
    data = _unique(
        f"{one['data']['title']}: {one['data']['num_users']:,} users, {one['data']['num_items']:,} items, "
        f"{one['data']['num_events']:,} events" for one in records if one["data"].get("title")
    )  # fmt: skip
    dates = sorted({str(one["date"])[:10] for one in records})
    facts = [note, "; ".join(data), f"Seeds {', '.join(map(str, seeds))}" if seeds else "", "; ".join(machines)]
    facts += [f"Commit {', '.join(commits)}", " to ".join(_unique([dates[0], dates[-1]]))]
    return ". ".join(fact for fact in facts if fact) + "."


def _threads(hardware: dict[str, Any]) -> str:
    threads, cores = hardware.get("threads"), f"{hardware['cores']} cores"
    return cores if threads is None else f"{threads} thread{'s' * (threads != 1)} of {cores}"


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def update_page(path: Path, records: Sequence[Record], only_check: bool = False) -> bool:
    """Whether the page showed the records already; otherwise it is written. A table without records stays as it is.

    Raises InputError for a page that names a table which does not exist.
    """
    before = path.read_text(encoding="utf-8")

    def table(found: re.Match[str]) -> str:
        name = found[1]
        if name not in TABLES:
            raise InputError(f"{path.name} names the table {name!r}. There are: {', '.join(TABLES)}.")
        text = table_text(TABLES[name], records)
        return found[0] if text is None else f"<!-- table:{name} -->\n{text}<!-- /table -->"

    after = BLOCK.sub(table, before)
    if after != before and not only_check:
        with atomic_write(path) as unfinished:
            unfinished.write_text(after, encoding="utf-8")
    return after == before


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "tables")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a page is not current")
    parser.add_argument("--print", type=Path, nargs="+", metavar="FILE", help="print the tables of these record files")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records")
    parser.add_argument("--pages", type=Path, nargs="+", default=PAGES, help="pages with tables")
    given = parser.parse_args(words)
    old: list[str] = []

    def work() -> None:
        records = read_records(*(given.print or [given.results]))
        records += exponent_records(records)
        if given.print:
            texts = {name: text for name, table in TABLES.items() if (text := table_text(table, records))}
            print("\n".join(f"{name}\n\n{text}" for name, text in texts.items()))
            return
        old.extend(path.name for path in given.pages if not update_page(path, records, given.check))

    code = exit_code(work)
    if given.check and old:
        print(f"{', '.join(old)}: not what the records say. Run: python -m benchmarks.tables", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
