"""The guarantee of a private run in words, what its folder may hold, and what a run without privacy gives away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors import safe_open

from variseq.artifacts.folder import (
    BOUNDS,
    CHANGES,
    CONFIG,
    COUNTS,
    ENCODER,
    HISTORIES,
    INDEX,
    ITEM_COLUMNS,
    MANIFEST,
    METRICS,
    SERVED_FILES,
    TABLES,
    VOCABULARY,
    WEIGHTS,
    is_of_sums,
    read_manifest,
    reading,
)
from variseq.privacy.accounting import Ledger
from variseq.privacy.best_attack import BestAttack

FALSE_POSITIVES = 0.01
LEAKS = {
    HISTORIES: "all events of every user",
    BOUNDS: "how many events each user has",
    f"{VOCABULARY}/users.parquet": "the ids of the users",
    f"{VOCABULARY}/items.parquet": "the items of the log, also one that a single person had",
    f"{VOCABULARY}/vocabulary.json": "exact numbers of users and items, and the behaviors of the log",
    ITEM_COLUMNS: "what is known of these items",
    COUNTS: "exact counts of what followed what: one pair of rare items shows that a person is in the log; popularity, "
    "also of late, times between events, and what groups of people take",
    TABLES: "exact counts of what followed what",
    WEIGHTS: "a network whose forecasts are better for the people it was trained on; the number and the bias of the "
    "values of each item",
    ENCODER: "a network whose forecasts are better for the people it was trained on",
    INDEX: "vectors of items of such a network",
    METRICS: "exact losses and metrics of each epoch",
    "tensorboard": "the same",
    CONFIG: "settings that were chosen by looking at the log",
    MANIFEST: "a hash of all histories, exact numbers of users and events, the first and the last time, rows that were "
    "rejected, and weights, temperatures and thresholds that were fitted to validation events",
    "evaluation.json": "exact metrics on the events of the test part",
    "report.html": "exact metrics on the events of the test part",
    "report": "the same",
}
"""What each file of a run without privacy gives away."""


FILES = {
    *(MANIFEST, TABLES, ENCODER, ITEM_COLUMNS, CHANGES),
    *(f"{VOCABULARY}/{name}" for name in ("users.parquet", "items.parquet", "vocabulary.json")),
}
ARRAYS = {
    *("item_vectors", "log_share", "log_trend", "offsets", "follower", "count", "is_new"),
    *("start_vector", "distance_biases"),
}
ENTRIES = {
    *("format_version", "privacy", "network", "calibration", "usual_behavior", "exclude_seen", "latent", "protocol"),
    *("created", "versions", "sha256"),
}
"""What the folder, the tables and the manifest of a private run may hold, and nothing else."""


def guarantee(record: dict[str, Any]) -> str:
    """What a private run guarantees, from whom, and what not.

    Args:
        record: The part `privacy` of its manifest.
    """
    ledger, options = Ledger.from_json(record), record["options"]
    found = float(BestAttack.of(ledger).true_positive_rate(FALSE_POSITIVES))
    parties = record.get("federated", {}).get("parties")
    federated = [f"Federated: {parties} parties, each with its share of the noise."] if parties else []
    weight = options["content"]
    content = [f"Items with like public content have the weight {weight:g}."] if weight else []
    network = [f"A network has the weight {record['network_weight']:g}."] if "network_weight" in record else []
    lines = [
        f"This run is differentially private: ε = {ledger.epsilon():.3f} at δ = {ledger.delta:.2g}.",
        f"Unit: {record['unit']}; the last {options['max_user_events']:,} events of each user count.",
        f"Who reads this folder and accuses {FALSE_POSITIVES:.0%} of others wrongly, finds at most {found:.1%} of "
        "those who are in the log.",
        *federated,
        *content,
        *network,
        "Mechanisms:",
        *(
            f"  - {one.released}: normal noise of {one.noise_multiplier:.3f} times what one user adds at most"
            + (
                f", in each of {one.num_steps:,} steps with {one.sampling_rate:.1%} of the users, drawn at random"
                if one.num_steps > 1
                else ""
            )
            for one in ledger.mechanisms
        ),
        "Declared public, and not protected:",
        *(f"  - {one}" for one in record["public"]),
        "Not covered: " + "; ".join(record["not_covered"]) + ".",
    ]
    return "\n".join(lines)


def leaks_of_run(folder: Path) -> str:
    """What the files of a run without privacy give away of the people in its log."""
    names = {name: LEAKS[name] for name in (TABLES, ENCODER)} if is_of_sums(read_manifest(folder)) else LEAKS
    leaks = [f"  - {name}: {what}" for name, what in names.items() if (folder / name).exists()]
    return "\n".join(
        [
            f"{folder} is not private. Who reads it can learn:",
            *leaks,
            "Fit with `variseq fit LOG --items CATALOG --private 8` for a run with a guarantee.",
        ]
    )


def faults_of(folder: Path) -> list[str]:
    """What a folder holds besides what a private run may hold, a sentence each.

    Raises CheckpointError for a folder that is missing, damaged or changed since it was written.
    """
    with reading(folder, SERVED_FILES) as manifest:
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
        faults = [f"The file {name} is not part of a private run. Remove it." for name in sorted(names - FILES)]
        with safe_open(folder / TABLES, framework="np") as tables:
            faults += [f"{TABLES} has an array {name!r}." for name in sorted(set(tables.keys()) - ARRAYS)]
        faults += [f"{MANIFEST} has an entry {name!r}." for name in sorted(manifest.keys() - ENTRIES)]
        faults += [f"{MANIFEST} has protocol.{name}." for name in sorted(manifest["protocol"].keys() - {"method"})]
        num_users = pq.read_metadata(folder / VOCABULARY / "users.parquet").num_rows
        if num_users:
            faults.append(f"{VOCABULARY}/users.parquet names {num_users:,} users.")
    return faults
