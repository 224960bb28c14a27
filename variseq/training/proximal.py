"""A penalty that holds a network near another one while it is trained."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from variseq.model.network import Network


class ProximalTerm:
    """½ μ ‖w − w₀‖² over all parameters, where w₀ are those of the network when this was made.

    Source: Li et al. 2020, "Federated optimization in heterogeneous networks" (FedProx).

    Args:
        network: The network as it is now.
        weight: μ.
    """

    def __init__(self, network: Network, weight: float) -> None:
        self.weight = weight
        self._start = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}

    def penalty(
        self, network: Network, of_rows: Mapping[str, Tensor] | None = None, rows: Int[Tensor, " row"] | None = None
    ) -> Float[Tensor, ""]:
        """The penalty of the network as it is now.

        Args:
            network: The network that is trained.
            of_rows: Rows of some parameters that stand for these, by name. Other rows are left out.
            rows: Which rows; a parameter without a row for the start token has one less.
        """
        squares = []
        for name, parameter in network.named_parameters():
            now: Tensor = parameter
            start = self._start[name]
            if of_rows is not None and rows is not None and name in of_rows:
                now, start = of_rows[name], start[rows[: len(of_rows[name])]]
            squares.append((now - start).square().sum())
        return 0.5 * self.weight * torch.stack(squares).sum()
