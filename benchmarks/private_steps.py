"""The cost of clipped gradients of each user, in units of a plain training step on the same users.

    python -m benchmarks.private_steps --threads 1

One record for each number of items and length of histories: CPU seconds of a plain step (objective and gradients), and
of one with the clipped sum over users: for all parameters, and with frozen item vectors, as a private fit takes it.
Beyond 4,096 items the softmax has 2,048 negatives, as in training. Ways take turns, and medians are recorded.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from measurement.records import Record, append_records, command_parser, exit_code, record_of
from variseq.model.losses import ItemFrequency
from variseq.model.network import Network, NetworkConfig, Weights
from variseq.privacy.user_gradients import user_gradients
from variseq.sequences.batches import Windows, make_batch
from variseq.sequences.histories import Histories

CASES = ((1_000, 32, 50), (1_000, 16, 200), (10_000, 32, 50), (10_000, 16, 200), (50_000, 16, 50))
"""Items, users of a step, and events of each."""
MOST_ITEMS, NUM_NEGATIVES = 4_096, 2_048


def case_record(num_items: int, users: int, events: int, repeats: int) -> Record:
    """The cost of one case."""
    torch.manual_seed(0)
    network = Network(NetworkConfig(num_items=num_items, dropout=0.0, attention_dim=16))
    generator = np.random.default_rng(0)
    histories = Histories.of_items(generator.integers(num_items, size=(users, events)).tolist())
    windows = Windows(histories.offsets[:-1], histories.offsets[:-1], histories.offsets[1:])
    batch = make_batch(histories, windows, np.arange(users), num_items)
    negatives = None
    if num_items > MOST_ITEMS:
        frequency = ItemFrequency.of(torch.full((num_items,), -math.log(num_items)))
        negatives = frequency.draw(NUM_NEGATIVES, seed=0)
    weights = Weights(noise=0.0)

    def plain() -> None:
        network.zero_grad()
        network.objective(batch, weights, negatives).loss.backward()

    def of_users(frozen: bool) -> Callable[[], Any]:
        like = dict(network.named_parameters())

        def step() -> Any:
            for one in (network.embedding.item, network.item_bias):
                one.requires_grad_(not frozen)
            found = user_gradients(network, batch, weights, negatives).clipped_steps(1.0, like)
            for one in (network.embedding.item, network.item_bias):
                one.requires_grad_(True)
            return found

        return step

    works = {
        "plain": plain,
        "all": of_users(frozen=False),
        "frozen": of_users(frozen=True),
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            begun = time.process_time()
            work()
            if repeat:
                taken[name].append(time.process_time() - begun)
    seconds = {name: statistics.median(each) for name, each in taken.items()}
    metrics = {f"{name}_ms": 1e3 * each for name, each in seconds.items()}
    metrics |= {f"{name}_ratio": seconds[name] / seconds["plain"] for name in works if name != "plain"}
    case = {"items": num_items, "users": users, "events": events}
    return record_of("private_steps", case, metrics, settings={"repeats": repeats})


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "private_steps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args(words)

    def run() -> None:
        torch.set_num_threads(given.threads)
        for case in CASES:
            one = case_record(*case, given.repeats)
            append_records(given.out, [one])
            print(one["case"], one["metrics"], flush=True)

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
