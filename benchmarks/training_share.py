"""Training steps into the share of the machine's matrix-multiply peak that they reach, and where the rest goes.

    python benchmarks/training_share.py [--threads 1] [--epochs 5] [--events 100000]
    python benchmarks/training_share.py --table       # only writes the table of the last result into docs/ablations.md

Histories are made up with the lengths of two logs; the settings are those that `size=small` derives for the real ones,
without noise, as at the start of a run. What is timed is the trainer itself: an epoch from its plan to its close,
batches, loss, gradient, update and average included, without validation. Beside each epoch, in turn, the peak is
measured: a bare float32 product of large matrices in the same process and threads. The share is that of the same
moment.

FLOPs are counted by formula, see `training_flops`: only what the model needs (matrix products of real positions, pairs
of a position and its past), not what a rectangle, a chunk or a second reckoning adds. Where the time goes is a second
run, under torch.profiler, whose own cost lengthens small steps most.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from marked_file import write_between_markers
from provenance import provenance
from record_file import write_record
from step_profile import profiled_seconds

from variseq.model.network import Network, NetworkConfig
from variseq.sequences.batches import group_by_length, make_batch, training_windows
from variseq.sequences.histories import Histories
from variseq.training.defaults import LogProperties, network_config, training_config
from variseq.training.settings import TrainingConfig
from variseq.training.trainer import Trainer, TrainingData

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "training_share.json"
DOCUMENT = ROOT / "docs" / "ablations.md"
MARKERS = ("<!-- training-share:begin -->", "<!-- training-share:end -->")
PEAK_SIDE, PEAK_REPEATS = 2048, 5
AIM = 0.4
LEVELS = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1)
PARTS = ("catalog", "self-attention", "posterior attention", "feed-forward", "other products")
Flops = dict[str, float]


@dataclass(frozen=True)
class Shape:
    """A log in numbers: `lengths` are those of its histories at `LEVELS`."""

    name: str
    num_events: int
    num_items: int
    mean_length: float
    lengths: tuple[int, ...]
    max_seq_len: int

    def histories(self, num_events: int) -> Histories:
        """About so many events of made-up users: lengths like the log's, items by a power law of their rank."""
        random = np.random.default_rng(0)
        draws = random.random(1 + 2 * int(num_events / self.mean_length))
        lengths = np.exp(np.interp(draws, LEVELS, np.log(self.lengths))).round().astype(np.int64)
        lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), num_events)) + 1]
        share = 1 / (10 + np.arange(self.num_items))
        item = random.choice(self.num_items, size=int(lengths.sum()), p=share / share.sum())
        return Histories.of_items([part.tolist() for part in np.split(item, np.cumsum(lengths)[:-1])])

    def settings(self, epochs: int) -> tuple[NetworkConfig, TrainingConfig]:
        """What `size=small` derives for the real log; without noise, for so many epochs."""
        plain = {"num_behaviors": 1, "has_gaps": False, "has_values": False, "repeat_share": 0.0}
        properties = LogProperties(
            self.num_events, self.num_items, mean_length=self.mean_length, long_length=0.0, **plain
        )
        network = network_config("small", properties, {"max_seq_len": self.max_seq_len})
        quiet = {"max_epochs": epochs, "deterministic_fraction": 1.0}
        return network, training_config(properties, network, 0, quiet)


SHAPES = (
    Shape("Amazon Beauty", 153_776, 12_101, 6.9, (3, 3, 3, 3, 4, 4, 5, 6, 8, 12, 19, 41, 96, 202), 50),
    Shape(
        "MovieLens-1M", 987_531, 3_416, 163.5, (16, 25, 35, 49, 68, 94, 124, 171, 251, 398, 554, 904, 1_339, 2_275), 200
    ),
)
"""Training parts of the leave-one-out split: two events of each user are not in them."""


def training_flops(config: NetworkConfig, num_tokens: int, num_pairs: int, num_scored: int) -> Flops:
    """Floating-point operations of the matrix products of one forward and backward pass, by part.

    A product of n × k and k × m takes 2 n k m; the backward pass takes twice the forward. `num_pairs` counts pairs of a
    position and one at or before it, `num_scored` the items that each position is compared with. Not counted, though
    they take time: tanh and softmax, norms, dropout, the look-up of vectors, the update, and whatever is reckoned a
    second time to save memory. `tests/benchmarks` holds the formula against torch.utils.flop_counter.

    >>> config = NetworkConfig(num_items=10, hidden_size=4, num_heads=1)
    >>> training_flops(config, num_tokens=1, num_pairs=1, num_scored=10)["catalog"]
    240.0
    """
    width, latent, hidden = config.hidden_size, config.latent_dim, config.attention_dim
    per_token = {
        "catalog": width * num_scored,
        "self-attention": config.num_layers * 4 * width * width,
        "posterior attention": 2 * latent * hidden,
        "feed-forward": (config.num_layers + 1) * 6 * width * width,
        "other products": 4 * latent * width,
    }
    per_pair = {"self-attention": config.num_layers * 2 * width, "posterior attention": hidden + latent}
    return {part: 6.0 * (per_token[part] * num_tokens + per_pair.get(part, 0) * num_pairs) for part in PARTS}


def epoch_flops(config: NetworkConfig, training: TrainingConfig, window_lengths: Iterable[int]) -> Flops:
    """FLOPs of an epoch: `training_flops` of all its windows."""
    lengths = np.asarray(list(window_lengths), dtype=np.int64)
    is_full = config.num_items <= training.full_softmax_max_items
    num_scored = config.num_items if is_full else training.num_negatives
    return training_flops(config, int(lengths.sum()), int((lengths * (lengths + 1) // 2).sum()), num_scored)


def peak_flops_per_second() -> float:
    """What a bare product of large matrices reaches now: the best of a few."""
    left, right = torch.randn(PEAK_SIDE, PEAK_SIDE), torch.randn(PEAK_SIDE, PEAK_SIDE)
    taken = []
    for _ in range(PEAK_REPEATS):
        begun = time.perf_counter()
        left @ right
        taken.append(time.perf_counter() - begun)
    return 2 * PEAK_SIDE**3 / min(taken)


def new_trainer(shape: Shape, histories: Histories, epochs: int) -> Trainer:
    """A trainer at its first step."""
    network, training = shape.settings(epochs)
    torch.manual_seed(0)
    return Trainer(Network(network), TrainingData(histories, None), training)


def timed_epochs(shape: Shape, histories: Histories, epochs: int) -> list[dict[str, float]]:
    """Seconds of each epoch after the first, and the peak before and after it."""
    trainer = new_trainer(shape, histories, epochs + 1)
    rows: list[dict[str, float]] = []
    before = {"seconds": 0.0, "peak": peak_flops_per_second()}

    def record(_epoch: dict[str, Any]) -> None:
        total, peak = trainer.progress.total_seconds, peak_flops_per_second()
        rows.append({"seconds": total - before["seconds"], "peak": (peak + before["peak"]) / 2})
        before.update(seconds=total, peak=peak)

    trainer.run([record])
    return rows[1:]


def batching_seconds(shape: Shape, histories: Histories) -> float:
    """Seconds in which an epoch's batches are made, alone."""
    network, training = shape.settings(1)
    begun = time.perf_counter()
    windows = training_windows(histories, network.max_seq_len, np.random.default_rng(0))
    for members in group_by_length(windows.lengths, training.batch_tokens, np.arange(len(windows.first))):
        make_batch(histories, windows, members, network.num_items)
    return time.perf_counter() - begun


def measure(shape: Shape, epochs: int, num_events: int) -> dict[str, Any]:
    """Everything about one shape."""
    histories = shape.histories(num_events)
    config, training = shape.settings(epochs)
    windows = training_windows(histories, config.max_seq_len, np.random.default_rng(0))
    flops = epoch_flops(config, training, windows.lengths)
    timed = timed_epochs(shape, histories, epochs)
    total = sum(flops.values())
    shares = [total / (epoch["peak"] * epoch["seconds"]) for epoch in timed]
    profile = profiled_seconds(new_trainer(shape, histories, 2))
    return {
        "name": shape.name,
        "num_items": config.num_items,
        "width": config.hidden_size,
        "max_seq_len": config.max_seq_len,
        "batch_tokens": training.batch_tokens,
        "num_events": histories.num_events,
        "gigaflops_of_epoch": total / 1e9,
        "seconds_of_epoch": [epoch["seconds"] for epoch in timed],
        "peak_gigaflops_per_second": [epoch["peak"] / 1e9 for epoch in timed],
        "positions_per_second": histories.num_events / statistics.median(epoch["seconds"] for epoch in timed),
        "share_of_peak": statistics.median(shares),
        "shares_of_peak": shares,
        "flops_by_part": flops,
        "batching_seconds": batching_seconds(shape, histories),
        "profiled_seconds": profile,
    }


def table(record: dict[str, Any]) -> str:
    """The record as the Markdown that stands in the documentation."""
    hardware, shapes = record["hardware"], record["shapes"]
    lines = [
        "| log | model FLOPs, per position | positions/s | peak, GFLOP/s | **share of the peak** |",
        "|---|---:|---:|---:|---:|",
    ]
    for shape in shapes:
        low, high = min(shape["shares_of_peak"]), max(shape["shares_of_peak"])
        lines.append(
            f"| {shape['name']} ({shape['num_items']:,} items, window {shape['max_seq_len']}, batches of "
            f"{shape['batch_tokens']:,}) | {shape['gigaflops_of_epoch'] * 1e3 / shape['num_events']:.2f} million | "
            f"{shape['positions_per_second']:,.0f} | {statistics.median(shape['peak_gigaflops_per_second']):.0f} | "
            f"**{shape['share_of_peak']:.0%}** ({low:.0%}–{high:.0%}) |"
        )
    lines += ["", "| where the time goes (profiled) | " + " | ".join(shape["name"] for shape in shapes) + " |"]
    lines += ["|---|" + "---:|" * len(shapes)]
    for part in shapes[0]["profiled_seconds"]:
        lines.append(f"| {part} | " + " | ".join(_cell(shape, part) for shape in shapes) + " |")
    lines += [
        "",
        f"<sub>Share of the profiled seconds; in brackets the part of the peak that the matrix products of that row "
        f"reach there. Width {shapes[0]['width']}; share: median and range of {len(shapes[0]['shares_of_peak'])} "
        f"epochs; the aim is {AIM:.0%}. {hardware['cpu']}, {hardware['threads']} thread(s) of {hardware['cores']} "
        f"cores. Commit `{str(record['commit'])[:10]}`{' with uncommitted changes' if record['dirty'] else ''}, "
        f"{record['date'][:10]}; `benchmarks/training_share.py`.</sub>",
    ]
    return "\n".join(lines) + "\n"


def _cell(shape: dict[str, Any], part: str) -> str:
    seconds = shape["profiled_seconds"]
    text = f"{seconds[part] / sum(seconds.values()):.0%}"
    flops = shape["flops_by_part"].get(part)
    peak = statistics.median(shape["peak_gigaflops_per_second"]) * 1e9
    return text if flops is None or not seconds[part] else f"{text} ({flops / seconds[part] / peak:.0%})"


def main(words: Sequence[str] | None = None) -> None:
    """Measure both shapes, write the record and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--epochs", type=int, default=5, help="epochs that are timed, after one to warm up")
    parser.add_argument("--events", type=int, default=100_000, help="events of an epoch")
    parser.add_argument("--result", type=Path, default=RESULT, help="file of the record")
    parser.add_argument("--table", action="store_true", help="measure nothing; write the table of the record")
    options = parser.parse_args(words)
    if not options.table:
        torch.set_num_threads(options.threads)
        shapes = [measure(shape, options.epochs, options.events) for shape in SHAPES]
        record = {**provenance(), "seed": 0, "shapes": shapes}
        write_record(options.result, record)
    text = table(json.loads(options.result.read_text(encoding="utf-8")))
    print(text)
    if options.result == RESULT:
        write_between_markers(DOCUMENT, MARKERS, text)


if __name__ == "__main__":
    main()
