"""Speed of training in several processes, one thread each, and in one process with as many threads.

    python -m benchmarks.processes --number 2 --rounds 3

Run it on a quiet machine with a core for each process. The setups take turns, and medians are recorded.
An epoch of warm-up is left out; nothing is validated.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from measurement.records import Record, append_records, child, command_parser, exit_code, record_of
from variseq.model.network import Network, NetworkConfig
from variseq.model.processes import connected, process_index
from variseq.sequences.histories import Histories
from variseq.training.config import TrainingConfig
from variseq.training.defaults import NOISE_SAMPLES, SIZES
from variseq.training.trainer import Trainer

CASES = {
    "full softmax, small": (3_000, "small"),
    "negatives, small": (100_000, "small"),
    "negatives, tiny": (100_000, "tiny"),
}
NUM_EVENTS, MEAN_LENGTH, BATCH_TOKENS = 100_000, 20, 2048


def histories_of(num_items: int) -> Histories:
    """Histories of geometric lengths, with items of Zipf's law."""
    random = np.random.default_rng(0)
    lengths = random.geometric(1 / MEAN_LENGTH, NUM_EVENTS // MEAN_LENGTH)
    share = np.cumsum(1 / (10 + np.arange(num_items)))
    events = np.searchsorted(share, random.random(lengths.sum()) * share[-1]).clip(max=num_items - 1)
    return Histories.of_items([one.tolist() for one in np.split(events, np.cumsum(lengths)[:-1])])


def positions_per_second(num_items: int, size: str, threads: int) -> float:
    """Of all processes together, in the second epoch and in the last one, which has noise."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    shape: dict[str, Any] = {**SIZES[size], "max_seq_len": 100, "dropout": 0.3, "skip_gram_window": 2}
    network = Network(NetworkConfig(num_items=num_items, **shape))
    noise = {"deterministic_fraction": 0.75, "num_samples": NOISE_SAMPLES}
    config = TrainingConfig(max_epochs=4, batch_tokens=BATCH_TOKENS, refit_fraction=0.0, **noise)
    trainer = Trainer(network, histories_of(num_items), None, config)
    trainer.run()
    seconds = [record["seconds"] for record in trainer.records]
    return trainer.histories.num_events * 2 / (seconds[1] + seconds[3])


def records(number: int, rounds: int) -> list[Record]:
    """One record for each case, number of processes and number of threads of each."""
    found = []
    setups = ((1, 1), (number, 1), (1, number))
    for case, (num_items, size) in CASES.items():
        speeds: dict[tuple[int, int], list[float]] = {setup: [] for setup in setups}
        for _ in range(rounds):
            for processes, threads in setups:
                words = f"--standalone --nproc-per-node {processes} -m benchmarks.processes"
                of = ("--of", str(num_items), size, str(threads))
                measured = child(
                    "torch.distributed.run", *words.split(), *of, variables={"OMP_NUM_THREADS": str(threads)}
                )
                speeds[processes, threads].append(measured)
        first = statistics.median(speeds[1, 1])
        for (processes, threads), taken in speeds.items():
            speed = statistics.median(taken)
            metrics = {
                "positions_per_second": speed,
                "positions_per_second_interval": [min(taken), max(taken)],
                "speed_ratio": speed / first,
            }
            setup = {"case": case, "processes": processes, "threads": threads}
            found.append(record_of("processes", setup, metrics, seed=0, threads=threads))
            print(
                f"{case}, {processes} processes of {threads} threads: {speed:,.0f} positions/s, {speed / first:.2f} x",
                flush=True,
            )
    return found


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "processes")
    parser.add_argument("--number", type=int, default=2, help="of processes, or of threads of one process")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--of", nargs=3, help="items, size and threads; what each process measures")
    given = parser.parse_args(words)
    if given.of is None:
        return exit_code(lambda: append_records(given.out, records(given.number, given.rounds)))
    num_items, size, threads = given.of
    with connected("cpu"):
        speed = positions_per_second(int(num_items), size, int(threads))
        if process_index() == 0:
            print(json.dumps(speed), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
