"""Histories and the items that came next into forecasts of the values that came with them."""

from __future__ import annotations

import numpy as np
import torch

from variseq.evaluation.splits import Part, Queries
from variseq.evaluation.values import ValueForecasts
from variseq.model.network import Network
from variseq.model.posterior import NetworkScorer


@torch.no_grad()
def forecast_values(network: Network, part: Part, targets: str) -> ValueForecasts | None:
    """What the value head says about the targets of a part; None where the log or the part has no values."""
    every = part.queries(targets)
    in_catalog = ~part.is_unknown_target(every)
    queries, log = Queries(every.user[in_catalog], every.position[in_catalog]), part.histories
    value = log.value[queries.position].astype(np.float64)
    if network.value_head is None or not np.isfinite(value).any():
        return None
    preference = NetworkScorer(network).query(part.histories_before(queries))
    item = torch.from_numpy(log.item[queries.position].astype(np.int64)).to(preference.device)
    estimate = network.value(preference, item)
    scale, mean = float(network.embedding.value_scale), float(network.embedding.value_mean)
    gives_spread = network.config.value_loss == "gaussian"
    spread = scale * torch.exp(0.5 * estimate.log_variance).double().cpu().numpy() if gives_spread else None
    return ValueForecasts(mean + scale * estimate.mean.double().cpu().numpy(), spread, value, mean)
