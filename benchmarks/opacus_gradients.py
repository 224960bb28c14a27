"""Gradients of users by Opacus, where items have one table for input and output, beside one user at a time.

    pip install opacus
    python -m benchmarks.opacus_gradients

One record a seed and way to score all items (a product with the table, or a module that shares it): the distance of
a user's gradient to the true one over its norm, mean and largest, and the smallest share of the norm that Opacus sees.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from measurement.records import Record, append_records, command_parser, exit_code, record_of
from variseq.model.network import Network, NetworkConfig

NUM_ITEMS, NUM_USERS, NUM_EVENTS, HIDDEN = 50, 4, 6, 8


class TiedNetwork(nn.Module):
    """Scores of all items after the mean of a history; the table of the history is that of the scores.

    Args:
        has_module: The scores are a module of their own that shares its weights; else they are a product.
    """

    def __init__(self, has_module: bool) -> None:
        super().__init__()
        self.item, self.layer = nn.Embedding(NUM_ITEMS, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.scores = nn.Linear(HIDDEN, NUM_ITEMS, bias=False) if has_module else None
        if self.scores is not None:
            self.scores.weight = self.item.weight

    def forward(self, history: Tensor) -> Tensor:
        preference = self.layer(self.item(history).mean(dim=1))
        return preference @ self.item.weight.T if self.scores is None else self.scores(preference)


def one_at_a_time(network: nn.Module, history: Tensor, target: Tensor) -> Tensor:
    """The gradient of each user, all parameters in a row."""
    found = []
    for user in range(len(target)):
        loss = functional.cross_entropy(network(history[user : user + 1]), target[user : user + 1])
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        found.append(torch.cat([one.flatten() for one in gradients]))
    return torch.stack(found)


def of_opacus(seed: int) -> list[Record]:
    """The gradients that Opacus keeps for each user, where the scores are a product and where they are a module."""
    from opacus.grad_sample import GradSampleModule

    torch.manual_seed(seed)
    history, target = torch.randint(NUM_ITEMS, (NUM_USERS, NUM_EVENTS)), torch.randint(NUM_ITEMS, (NUM_USERS,))
    records = []
    for scores in ("product", "module"):
        network = TiedNetwork(scores == "module")
        true = one_at_a_time(network, history, target)
        functional.cross_entropy(GradSampleModule(network)(history), target, reduction="mean").backward()
        found = torch.cat([one.grad_sample.flatten(1) for one in network.parameters()], dim=1)
        norms = true.norm(dim=1)
        metrics = {
            "error": float(((found - true).norm(dim=1) / norms).mean()),
            "largest_error": float(((found - true).norm(dim=1) / norms).max()),
            "norm_share": float((found.norm(dim=1) / norms).min()),
        }
        settings = {"items": NUM_ITEMS, "users": NUM_USERS, "events": NUM_EVENTS, "opacus": version("opacus")}
        records.append(record_of("opacus_gradients", {"scores": scores}, metrics, seed=seed, settings=settings))
    return records


def refusals() -> dict[str, str]:
    """What Opacus says to the network of this package, and to a table of two modules with norms alone."""
    from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping

    history = torch.zeros(1, NUM_EVENTS, dtype=torch.int64)
    works: dict[str, Callable[[], Any]] = {
        "network of this package": lambda: GradSampleModule(Network(NetworkConfig(num_items=NUM_ITEMS))),
        "two modules, norms alone": lambda: GradSampleModuleFastGradientClipping(
            TiedNetwork(has_module=True), max_grad_norm=1.0, use_ghost_clipping=True
        )(history),
    }
    said = {}
    for name, work in works.items():
        try:
            work()
            said[name] = "taken"
        except NotImplementedError as error:
            said[name] = str(error).strip("[]").split("(:")[0]
    return said


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "opacus_gradients")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args(words)

    def run() -> None:
        print(refusals())
        for seed in given.seeds:
            records = of_opacus(seed)
            append_records(given.out, records)
            print(*((one["case"], one["metrics"]) for one in records), sep="\n", flush=True)

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
