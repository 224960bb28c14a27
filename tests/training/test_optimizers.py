"""Our optimizers move weights as those of torch do, and do not import its compiler."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import Tensor
from torch.optim import Optimizer

from variseq.model.optimizers import LBFGS, AdamW

WITHOUT_COMPILER = """
import sys, torch
from variseq.model.optimizers import LBFGS, AdamW
weights = torch.ones(3, requires_grad=True)
for optimizer in (AdamW([weights], fused=True), AdamW([weights]), LBFGS([weights])):
    def loss():
        optimizer.zero_grad()
        found = weights.square().sum()
        found.backward()
        return found
    optimizer.step(loss)
    optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
"""


def moved(kind: type[Optimizer], steps: int, **options: object) -> Tensor:
    """Weights after some steps towards ones, in two groups of which the second does not decay; saved on the way."""
    weights = [torch.linspace(-2, 2, 12).reshape(3, 4).requires_grad_(), torch.ones(5).mul(3).requires_grad_()]
    groups = [{"params": weights}] if kind.__name__ == "LBFGS" else [{"params": [one]} for one in weights]
    if len(groups) == 2:
        groups[1]["weight_decay"] = 0.0  # type: ignore[assignment]
    optimizer = kind(groups, **options)  # type: ignore[arg-type]

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = torch.stack([(one - 1).pow(4).sum() for one in weights]).sum()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    for _ in range(steps):
        optimizer.step(loss)  # type: ignore[arg-type]
        optimizer.load_state_dict(optimizer.state_dict())
    return torch.cat([one.detach().flatten() for one in weights])


def test_weights_are_those_of_torch_to_the_bit() -> None:
    for options in ({"lr": 0.1, "weight_decay": 0.2, "fused": True}, {"lr": 0.1, "weight_decay": 0.0}):
        assert torch.equal(moved(AdamW, 4, **options), moved(torch.optim.AdamW, 4, **options))
    assert torch.equal(moved(AdamW, 4, weight_decay=0.0), moved(torch.optim.Adam, 4))
    options = {"max_iter": 5, "line_search_fn": "strong_wolfe"}
    assert torch.equal(moved(LBFGS, 1, **options), moved(torch.optim.LBFGS, 1, **options))


def test_compiler_is_not_imported() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_COMPILER], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
