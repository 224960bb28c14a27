"""Speed of kernels, of training, and of training on a busy machine.

    python -m benchmarks.speed kernels --threads 1
    python -m benchmarks.speed training --threads 1       # positions a second, share of the matrix-product peak
    python -m benchmarks.speed busy                       # training with 0, 1, 2 and 4 busy processes; four minutes

Run it on a quiet machine. Alternatives of one kernel take turns and medians are recorded. Training is timed by `fit`
on simulated logs with the history lengths of two published ones, after one epoch of warm-up, without noise. FLOPs are
counted by formula: only what the model needs, no padding and no second computation to save memory. The peak is that of
a bare float32 product of large matrices in the same process.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# First, as it sets what torch reads when it is imported.
from variseq.threads import available_cores  # isort: skip

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional

from measurement.records import Record, append_records, child, command_parser, exit_code, peak_megabytes, record_of
from variseq import ReadOptions, VariationalAttention, read
from variseq.log import Log
from variseq.model.attention import ATTENTION_OF, DotProductAttention
from variseq.model.layers import drop
from variseq.model.losses import ItemFrequency, Targets, softmax_loss

HIDDEN_SIZE, NUM_TOKENS = 64, 4096
LENGTHS = (50, 200, 1_000, 2_000, 5_000, 10_000)
PEAK_SIDE, PEAK_REPEATS = 2048, 5
BUSY = (0, 1, 2, 4)
SPIN_DEFAULT = "300000"
"""libgomp's own: https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html"""
THREAD_SETTINGS: dict[str, dict[str, str]] = {
    "OpenMP's default": {"GOMP_SPINCOUNT": SPIN_DEFAULT},
    "variseq's default": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
OF_OPENMP = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
QUANTILES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1)


def median_seconds(works: dict[str, Callable[[], Any]], repeats: int, backward: bool = True) -> dict[str, float]:
    """Median seconds of each work (forward, and backward if asked for), in turn after one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            begun = time.perf_counter()
            result = work()
            if backward:
                result.backward()
            if repeat:
                times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(taken) for name, taken in times.items()}


def peak_flops() -> float:
    """FLOP/s of a bare product of large matrices now: the best of a few."""
    left, right = torch.randn(PEAK_SIDE, PEAK_SIDE), torch.randn(PEAK_SIDE, PEAK_SIDE)
    taken = []
    for _ in range(PEAK_REPEATS):
        begun = time.perf_counter()
        left @ right
        taken.append(time.perf_counter() - begun)
    return 2 * PEAK_SIDE**3 / min(taken)


def kernel_records(repeats: int) -> list[Record]:
    """Softmax, dropout and attention compared with the plain PyTorch form of each; then attention by length."""
    torch.manual_seed(0)
    found: dict[str, dict[str, float]] = {}
    for num_items in (3_416, 12_101):
        found[f"softmax over {num_items:,} items, {NUM_TOKENS:,} tokens"] = _softmax(num_items, repeats)
    values = torch.randn(NUM_TOKENS, HIDDEN_SIZE, requires_grad=True)
    dropout = {
        "variseq": lambda: drop(values, 0.5, training=True).sum(),
        "plain": lambda: functional.dropout(values, 0.5, training=True).sum(),
    }
    found[f"dropout, {NUM_TOKENS:,} tokens"] = median_seconds(dropout, repeats)
    for shape in ((400, 10), (20, 200), (4, 1000)):
        for hidden in (16, 32):
            name = f"additive attention, {shape[0]} histories of {shape[1]} events, {hidden} hidden units"
            found[name] = _attention(*shape, hidden, repeats)
    records = []
    for kernel, taken in found.items():
        metrics = {f"{name}_ms": 1e3 * seconds for name, seconds in taken.items()}
        metrics |= {f"{name}_ratio": taken[name] / taken["variseq"] for name in taken if name != "variseq"}
        records.append(record_of("kernels", {"kernel": kernel}, metrics, seed=0))
    for length in LENGTHS:
        metrics = {}
        for form in ("additive", "dot"):
            seconds, megabytes = child("benchmarks.speed", "attention", form, str(length))
            metrics |= {f"{form}_ms": 1e3 * seconds, f"{form}_peak_megabytes": megabytes}
        records.append(record_of("attention", {"events": length}, metrics, seed=0, threads=1))
    return records


def _softmax(num_items: int, repeats: int) -> dict[str, float]:
    tensors = [
        torch.randn(1, NUM_TOKENS, HIDDEN_SIZE),
        torch.randn(num_items, HIDDEN_SIZE) * 0.1,
        torch.zeros(num_items),
    ]
    preference, vectors, bias = (tensor.requires_grad_() for tensor in tensors)
    target = torch.randint(num_items, (NUM_TOKENS,))
    targets, frequency = Targets.next(target), ItemFrequency.of(torch.full((num_items,), -math.log(num_items)))
    negatives = frequency.draw(2_048, 0)
    works = {
        "variseq": lambda: softmax_loss(preference, vectors, bias, targets),
        "plain": lambda: functional.cross_entropy(functional.linear(preference[0], vectors, bias), target),
        "sampled": lambda: softmax_loss(preference, vectors, bias, targets, negatives),
    }
    return median_seconds(works, repeats)


def _attention(histories: int, length: int, hidden: int, repeats: int) -> dict[str, float]:
    value = torch.randn(histories, length, HIDDEN_SIZE, requires_grad=True)
    position = torch.arange(length).expand(histories, length)
    additive, dot = ATTENTION_OF["additive"](HIDDEN_SIZE, hidden), DotProductAttention(HIDDEN_SIZE, hidden)
    works = {
        "variseq": lambda: additive(value, value, value, position).sum(),
        "dot": lambda: dot(value, value, value, position).sum(),
    }
    return median_seconds(works, repeats)


def attention_cost(form: str, length: int) -> tuple[float, float]:
    """Seconds of forward and backward on one history of that length, and the peak memory of this process in MB."""
    torch.set_num_threads(1)
    attention = ATTENTION_OF[form](HIDDEN_SIZE, 16)
    posteriors = torch.randn(1, length, HIDDEN_SIZE, requires_grad=True)
    position = torch.arange(length).unsqueeze(0)
    work: Callable[[], Tensor] = lambda: attention(posteriors, posteriors, posteriors, position).sum()  # noqa: E731
    return median_seconds({form: work}, repeats=3)[form], peak_megabytes()


@dataclass(frozen=True)
class Shape:
    """A log in numbers; `lengths` are those of its training histories at `QUANTILES`."""

    name: str
    num_items: int
    lengths: tuple[int, ...]
    max_seq_len: int
    batch_tokens: int

    def log(self, num_events: int) -> Log:
        """About so many training events of simulated users, and two more for each to hold out."""
        generator = np.random.default_rng(0)
        drawn = (
            np.exp(np.interp(generator.random(num_events), QUANTILES, np.log(self.lengths))).round().astype(np.int64)
        )
        lengths = drawn[: int(np.searchsorted(np.cumsum(drawn), num_events)) + 1] + 2
        share = 1 / (10 + np.arange(self.num_items))
        columns = {
            "user_id": np.repeat(np.arange(len(lengths)), lengths),
            "item_id": generator.choice(self.num_items, size=int(lengths.sum()), p=share / share.sum()),
            "timestamp": np.concatenate([np.arange(1, length + 1) for length in lengths]),
        }
        return read(pa.table(columns), options=ReadOptions(time_unit="seconds"))


SHAPES = (
    Shape("Amazon Beauty", 12_101, (3, 3, 3, 3, 4, 4, 5, 6, 8, 12, 19, 41, 96, 202), 50, 1_024),
    Shape("MovieLens-1M", 3_416, (16, 25, 35, 49, 68, 94, 124, 171, 251, 398, 554, 904, 1_339, 2_275), 200, 2_048),
)


def flops_per_position(config: Any, num_scored: int, pairs_per_position: float) -> float:
    """FLOPs of the matrix products of a forward and backward pass: a product of n × k and k × m takes 2 n k m.

    `pairs_per_position` counts a position and those before it in its window. The backward pass takes twice the forward.
    """
    hidden, latent, attention = config.hidden_size, config.latent_dim, config.attention_dim
    layers = config.num_layers * (4 * hidden**2 + 2 * hidden * pairs_per_position)
    posterior = 2 * latent * attention + (attention + latent) * pairs_per_position
    feed_forward = (config.num_layers + 1) * 6 * hidden**2
    return 6.0 * (hidden * num_scored + layers + posterior + feed_forward + 4 * latent * hidden)


def training_records(num_events: int, epochs: int) -> list[Record]:
    """Positions a second and share of the peak for each shape; the median over epochs after the first."""
    records = []
    for shape in SHAPES:
        train, valid, _ = shape.log(num_events).split("leave-one-out")
        training = {
            "max_epochs": epochs + 1, "batch_tokens": shape.batch_tokens, "deterministic_fraction": 1.0,
            "refit_fraction": 0.0, "validation_users": 100, "patience": epochs + 1,
        }  # fmt: skip
        model = VariationalAttention("small", 0, "cpu", {"max_seq_len": shape.max_seq_len}, training)
        before = peak_flops()
        model.fit(train, valid, verbose=0)
        peak = (before + peak_flops()) / 2
        assert model.checkpoint is not None
        config, own = model.checkpoint.network.config, model.checkpoint.config["training"]
        is_full = config.num_items <= own["full_softmax_max_items"]
        lengths = train.part.history().lengths
        pairs = [sum(n * (n + 1) // 2 for n in _windows(int(length), shape.max_seq_len)) for length in lengths]
        flops = flops_per_position(
            config, config.num_items if is_full else own["num_negatives"], sum(pairs) / int(lengths.sum())
        )
        speeds = [epoch["tokens_per_second"] for epoch in model.checkpoint.metrics[1:]]
        speed = statistics.median(speeds)
        metrics = {
            "positions_per_second": speed, "positions_per_second_interval": [min(speeds), max(speeds)],
            "megaflops_per_position": flops / 1e6, "peak_gigaflops": peak / 1e9, "share_of_peak": speed * flops / peak,
        }  # fmt: skip
        records.append(record_of("training_speed", {"log": shape.name}, metrics, seed=0, settings=training))
        print(f"{shape.name}: {speed:,.0f} positions/s, {metrics['share_of_peak']:.0%} of the peak", flush=True)
    return records


def _windows(length: int, max_seq_len: int) -> list[int]:
    return [max_seq_len] * (length // max_seq_len) + ([length % max_seq_len] if length % max_seq_len else [])


def busy_records(seconds: float) -> list[Record]:
    """Positions a second with busy processes, for three ways in which threads wait.

    A fair scheduler gives each of T threads next to B busy processes on C cores min(1, C / (T + B)) of a core, and
    min(1, C / T) on a quiet machine: the fair speed is the quiet speed times the ratio of the two.
    """
    cores, found = available_cores(), []
    for name, variables in THREAD_SETTINGS.items():
        quiet = 0.0
        for num_busy in BUSY:
            row = _beside_busy_processes(variables, num_busy, seconds)
            speed, threads = row["positions_per_second"], row["threads"]
            quiet = speed if num_busy == 0 else quiet
            fair = quiet * min(1.0, cores / (threads + num_busy)) / min(1.0, cores / threads)
            metrics = {"positions_per_second": speed, "share_of_fair": speed / fair}
            case = {"threads wait by": name, "busy processes": num_busy}
            found.append(record_of("busy_machine", case, metrics, seed=0, threads=int(threads)))
            print(f"{name:>18}, {num_busy} busy: {speed:8,.0f} positions/s, {speed / fair:.0%} of fair", flush=True)
    return found


def _beside_busy_processes(variables: dict[str, str], num_busy: int, seconds: float) -> dict[str, float]:
    for name in OF_OPENMP:
        os.environ.pop(name, None)
    spawn = multiprocessing.get_context("spawn")
    busy = [spawn.Process(target=_count, args=(60 + 20 * seconds,), daemon=True) for _ in range(num_busy)]
    for process in busy:
        process.start()
    try:
        found: dict[str, float] = child("benchmarks.speed", "train", str(seconds), variables=variables)
    finally:
        for process in busy:
            process.terminate()
            process.join()
    return found


def _count(seconds: float) -> None:
    ended = time.perf_counter() + seconds
    while time.perf_counter() < ended:
        pass


def train_for(seconds: float) -> dict[str, float]:
    """Positions a second in epochs that begin within these seconds, after one of warm-up; and the threads used."""
    shape = SHAPES[0]
    train, valid, _ = shape.log(10_000).split("leave-one-out")
    begun, speeds = time.perf_counter(), []
    while time.perf_counter() - begun < seconds or not speeds:
        training = {"max_epochs": 4, "refit_fraction": 0.0, "validation_users": 50, "deterministic_fraction": 1.0}
        model = VariationalAttention("small", 0, "cpu", None, training)
        model.fit(train, valid, verbose=0)
        assert model.checkpoint is not None
        speeds += [epoch["tokens_per_second"] for epoch in model.checkpoint.metrics[1:]]
    return {"positions_per_second": statistics.median(speeds), "threads": torch.get_num_threads()}


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "speed")
    parser.add_argument("what", choices=("kernels", "training", "busy", "attention", "train"))
    parser.add_argument("arguments", nargs="*", help="of attention and train, which run in processes of their own")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--repeats", type=int, default=7, help="of each kernel")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--events", type=int, default=100_000, help="of an epoch")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement on a busy machine")
    given = parser.parse_args(words)
    if given.what == "attention":
        print(json.dumps(attention_cost(given.arguments[0], int(given.arguments[1]))))
        return 0
    if given.what == "train":
        print(json.dumps(train_for(float(given.arguments[0]))))
        return 0
    torch.set_num_threads(given.threads)
    works: dict[str, Callable[[], list[Record]]] = {
        "kernels": lambda: kernel_records(given.repeats),
        "training": lambda: training_records(given.events, given.epochs),
        "busy": lambda: busy_records(given.seconds),
    }
    return exit_code(lambda: append_records(given.out, works[given.what]()))


if __name__ == "__main__":
    sys.exit(main())
