"""Policies in a closed loop with simulated shoppers: cumulative reward by round, as one JSON file and one picture.

    python benchmarks/exploration.py [--seeds 10] [--out benchmarks/results/exploration.json]

What a shopper does with a list is told in closed_loop.py; how a list is made and the network learns in explorers.py.
Every seed is another shop with other shoppers; all policies meet the same ones, so that differences are paired by seed.
Finished loops are kept in the JSON file with the commit that they were played at, and the same call after an
interruption, or with another policy, goes on with those that are missing.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from closed_loop import LoopOptions
from exploration_chart import write_chart
from explorers import Learning, Policy, play, play_without_learning
from provenance import ROOT, provenance
from record_file import write_record

from variseq.evaluation.bootstrap import percentile_interval, resampled_sums
from variseq.evaluation.significance import holm, sign_flip_p_value

GREEDY = Policy("greedy")
MAIN_POLICIES = (
    GREEDY,
    Policy("ε-greedy 0.01", epsilon=0.01),
    Policy("Thompson, σ × 1", posterior=1.0),
    Policy("Thompson, σ × 2", posterior=2.0),
    Policy("Thompson, σ × 1, items × 0.6", posterior=1.0, item=0.6),
    Policy("softmax sampling 0.3", score=0.3),
)
OTHER_POLICIES = (
    Policy("ε-greedy 0.03", epsilon=0.03),
    Policy("Thompson, σ × 3", posterior=3.0),
    Policy("noise on items 0.3", item=0.3),
    Policy("noise on item vectors 0.1", item_vector=0.1),
)
WITHOUT_LEARNING = ("random", "oracle")
Record = dict[str, Any]


@dataclass(frozen=True)
class Start:
    """A world and the policies that play in it."""

    options: LoopOptions
    policies: tuple[Policy, ...]


STARTS = {
    "cold": Start(LoopOptions(start_events=3), MAIN_POLICIES + OTHER_POLICIES),
    "warm": Start(LoopOptions(start_events=15), MAIN_POLICIES),
}


def loops_to_play(starts: dict[str, Start], num_seeds: int) -> list[Record]:
    """Every loop of the benchmark, seed by seed, so that an unfinished one is paired as well."""
    return [
        {"start": name, "policy": policy, "seed": seed}
        for name, start in starts.items()
        for seed in range(num_seeds)
        for policy in [*WITHOUT_LEARNING, *(policy.name for policy in start.policies)]
    ]


def play_loop(loop: Record, start: Start, learning: Learning) -> Record:
    """The rewards of one loop, and what it cost."""
    begun = time.process_time()
    if loop["policy"] in WITHOUT_LEARNING:
        rewards, coverage = play_without_learning(start.options, loop["policy"], loop["seed"])
    else:
        policy = next(policy for policy in start.policies if policy.name == loop["policy"])
        rewards, coverage = play(start.options, learning, policy, loop["seed"])
    cpu_seconds = time.process_time() - begun
    return loop | {"rewards": rewards, "catalog_coverage": coverage, "cpu_seconds": cpu_seconds}


def summary_of(loops: list[Record], start: str) -> list[Record]:
    """A row for each policy: cumulative reward a shopper, its gain over greedy, both with intervals over seeds."""
    rewards: dict[str, dict[int, list[float]]] = {}
    for loop in loops:
        if loop["start"] == start:
            rewards.setdefault(loop["policy"], {})[loop["seed"]] = loop["rewards"]
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in rewards.values())))
    curves = {name: np.cumsum([by_seed[seed] for seed in seeds], axis=1) for name, by_seed in rewards.items()}
    rows = [_row(name, curve, curve - curves[GREEDY.name]) for name, curve in curves.items()]
    compared = [row for row in rows if row["policy"] not in (GREEDY.name, *WITHOUT_LEARNING)]
    for row, corrected in zip(compared, holm([row["p_value"] for row in compared]), strict=True):
        row["p_value_holm"] = corrected
    return sorted(rows, key=lambda row: -row["reward"])


def _row(name: str, curve: np.ndarray, gain: np.ndarray) -> Record:
    num_seeds = len(curve)
    drawn = resampled_sums(np.concatenate([curve, gain[:, -1:]], axis=1)) / num_seeds
    bands = [percentile_interval(column) for column in drawn[:, :-1].T]
    row = {
        "policy": name,
        "num_seeds": num_seeds,
        "reward": float(curve[:, -1].mean()),
        "reward_interval": bands[-1],
        "curve": curve.mean(axis=0).round(4).tolist(),
        "curve_low": [round(low, 4) for low, _ in bands],
        "curve_high": [round(high, 4) for _, high in bands],
    }
    if name != GREEDY.name:
        row |= {
            "gain_over_greedy": float(gain[:, -1].mean()),
            "gain_interval": percentile_interval(drawn[:, -1]),
            "p_value": sign_flip_p_value(gain[:, -1]),
        }
    return row


def settings_of(starts: dict[str, Start], learning: Learning) -> Record:
    """What decides the result; loops of other settings are not gone on with."""
    settings = {"starts": {name: asdict(start) for name, start in starts.items()}, "learning": asdict(learning)}
    plain: Record = json.loads(json.dumps(settings))
    return plain


def kept_loops(before: Record, settings: Record) -> list[Record]:
    """The finished loops whose world, learning and policy are still asked for, and are as they were."""
    if before["settings"]["learning"] != settings["learning"]:
        return []
    kept = set()
    for name, start in settings["starts"].items():
        earlier = before["settings"]["starts"].get(name)
        if earlier is not None and earlier["options"] == start["options"]:
            same = [policy["name"] for policy in start["policies"] if policy in earlier["policies"]]
            kept |= {(name, policy) for policy in [*WITHOUT_LEARNING, *same]}
    return [loop for loop in before["loops"] if (loop["start"], loop["policy"]) in kept]


def main() -> None:
    """Play what is missing, then sum up, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "exploration.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "pictures" / "exploration.svg")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    learning = Learning()
    record: Record = provenance() | {"settings": settings_of(STARTS, learning), "loops": []}
    if asked.out.exists():
        record["loops"] = kept_loops(json.loads(asked.out.read_text(encoding="utf-8")), record["settings"])
    finished = {(loop["start"], loop["policy"], loop["seed"]) for loop in record["loops"]}
    for loop in loops_to_play(STARTS, asked.seeds):
        if tuple(loop.values()) not in finished:
            played = play_loop(loop, STARTS[loop["start"]], learning)
            record["loops"].append(played | {"commit": record["commit"], "dirty": record["dirty"]})
            write_record(asked.out, record)
    record["cpu_seconds"] = sum(loop["cpu_seconds"] for loop in record["loops"])
    record["summary"] = {start: summary_of(record["loops"], start) for start in STARTS}
    write_record(asked.out, record)
    write_chart(record["summary"], asked.picture)
    for start, rows in record["summary"].items():
        for row in rows:
            low, high = row["reward_interval"]
            gain = f"  {row['gain_over_greedy']:+.2f}, p = {row['p_value']:.4f}" if "gain_over_greedy" in row else ""
            print(f"{start}  {row['policy']:28} {row['reward']:6.2f} ({low:.2f}–{high:.2f}){gain}")


if __name__ == "__main__":
    main()
