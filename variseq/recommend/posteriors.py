"""A forecast and ranked items into how sure it is: intervals of probabilities, and the uncertainty of each answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from variseq.ranking.calibration import NORMAL_90
from variseq.recommend.forecast import Forecast, ForecastQuery
from variseq.recommend.recommender import TILE_ITEMS, RankedTile


@dataclass(frozen=True, eq=False)
class PosteriorsOfTile:
    """`low` and `high` hold the probability for 90 % of what the user may be like according to the posterior.

    In nats: `total` is the entropy of the forecast, `aleatoric` its mean under samples of the posterior, and
    `epistemic` the rest, the mutual information of posterior and next item: what would be known if the posterior were a
    point. Source: Depeweg et al. 2018, section 3.
    """

    probability: Float[Tensor, "history k"]
    low: Float[Tensor, "history k"]
    high: Float[Tensor, "history k"]
    total: Float[Tensor, " history"]
    aleatoric: Float[Tensor, " history"]

    @property
    def epistemic(self) -> Float[Tensor, " history"]:
        return (self.total - self.aleatoric).clamp(min=0)


@torch.no_grad()
def posteriors_of_tile(forecast: Forecast, tile: RankedTile) -> PosteriorsOfTile:
    """How sure the forecast is of the items of a tile (those of −1 have probability 0); `tile.query` is its own."""
    query: ForecastQuery = tile.query
    is_item = (tile.item >= 0).to(query.log_mass.device)
    item = tile.item.clamp(min=0).to(query.log_mass.device)
    sampled = forecast.sampled_probabilities(query, item)
    weight = (tile.log_weight[:, None].exp() * is_item.cpu()).to(sampled)
    mean = sampled.mean(dim=0)
    # Probabilities are far from normal near zero; their logarithms are closer to it.
    reach = torch.exp(NORMAL_90 * sampled.log().std(dim=0, correction=0))
    low, high = mean / reach * weight, (mean * reach * weight).clamp(max=1)
    entropy = forecast.sampled_entropy(query)
    total = entropy[0] if len(entropy) == 1 else _entropy(forecast, query)
    values = (mean * weight, low, high, total, entropy.mean(dim=0))
    return PosteriorsOfTile(*(value.double().cpu() for value in values))


def _entropy(forecast: Forecast, query: ForecastQuery) -> Float[Tensor, " history"]:
    total = torch.zeros(query.log_mass.shape[1], device=query.log_mass.device)
    num_items = len(forecast.vectors)
    for first in range(0, num_items, TILE_ITEMS):
        log_p = forecast.scores(query, first, min(first + TILE_ITEMS, num_items))
        total -= (log_p.exp() * log_p).sum(dim=1)
    return total
