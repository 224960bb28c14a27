"""What two processes compute of one batch; the first one writes it to a file.

torchrun --nproc-per-node 2 -m tests.training.two_processes FILE
"""

from __future__ import annotations

import sys

import torch

from tests.training.small_catalog import batch_of, catalog_of, tables_of
from variseq.model.losses import ItemFrequency
from variseq.model.network import Counts, Weights, objective_with
from variseq.model.processes import add_gradients, connected, num_processes, process_index, totals

CASES = {
    "all items": Weights(beta=0.1, regression=0.5, noise=0.0, skip_gram=0.3, mask_seen=True),
    "free nats": Weights(beta=0.1, free_nats=0.6, noise=0.0),
    "negatives": Weights(beta=0.1, regression=0.5, noise=0.0, skip_gram=0.3),
}


def computed(case: str) -> dict[str, torch.Tensor]:
    """The loss and the gradients, over all processes."""
    network, histories = catalog_of(40, skip_gram=2)
    whole, own = batch_of(histories, 40), batch_of(histories, 40, process_index(), num_processes())
    counts, negatives, tables = Counts.of(whole), None, {}
    if case == "negatives":
        drawn = ItemFrequency.of(torch.full((40,), 1 / 40).log()).draw(15, seed=3)
        rows = whole.rows(drawn.items, start=40)
        of_rows, own, negatives = network.of_rows(rows), own.among(rows), drawn.among(rows)
        tables = tables_of(network, rows)
        objective = objective_with(network, of_rows | tables, own, CASES[case], negatives, counts)
    else:
        objective = network.objective(own, CASES[case], None, counts)
    objective.loss.backward()
    add_gradients([*network.parameters(), *tables.values()])
    gradients = {name: parameter.grad for name, parameter in [*network.named_parameters(), *tables.items()]}
    loss = torch.tensor(totals([float(objective.loss.detach()), float(objective.kl)], torch.device("cpu")))
    return {"loss": loss, **{name: one for name, one in gradients.items() if one is not None}}


if __name__ == "__main__":
    with connected("cpu"):
        found = {f"{case}/{name}": tensor for case in CASES for name, tensor in computed(case).items()}
        if process_index() == 0:
            torch.save(found, sys.argv[1])
