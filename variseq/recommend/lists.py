"""A forecast into lists: the best items, those of one sampled posterior, a spread, or a set that holds the next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from variseq.model.posterior import posterior_noise
from variseq.ranking.calibration import CalibrationResult, length_group
from variseq.recommend.because import Reasons, reasons
from variseq.recommend.diversity import pool_size, spread_out
from variseq.recommend.forecast import Forecast, log_probability_at_the_mean
from variseq.recommend.manner import Manner
from variseq.recommend.posteriors import PosteriorsOfTile, posteriors_of_tile
from variseq.recommend.ranks import Ranks, ranks
from variseq.recommend.recommender import RankedTile, ranked_tiles
from variseq.recommend.wishes import Wish, allowed_pins, with_pins
from variseq.sequences.histories import Histories


@dataclass(frozen=True, eq=False)
class MadeLists:
    """Lists with what is believed of them; −1 where a list is shorter. Uncertainties in nats, see `PosteriorsOfTile`.

    `because[h][place]` are the items of the history that are the reasons, the strongest first.
    """

    item: Int[np.ndarray, "history k"]
    score: Float[np.ndarray, "history k"]
    probability: Float[np.ndarray, "history k"]
    low: Float[np.ndarray, "history k"]
    high: Float[np.ndarray, "history k"]
    total: Float[np.ndarray, " history"]
    aleatoric: Float[np.ndarray, " history"]
    epistemic: Float[np.ndarray, " history"]
    because: Reasons


class Lists:
    """A calibrated forecast, asked for lists."""

    def __init__(self, forecast: Forecast, learned: CalibrationResult) -> None:
        self.forecast = forecast
        self.learned = learned

    def make(self, histories: Histories, wish: Wish, manner: Manner) -> MadeLists:
        """A list for each history."""
        parts = []
        for tile in self._tiles(histories, wish, manner):
            parts.append((tile, posteriors_of_tile(self.forecast, tile)))
        item = _joined([tile.item for tile, _ in parts], -1).numpy()
        named = {name: _of(parts, name) for name in ("probability", "low", "high")}
        of_history = {
            name: torch.cat([getattr(one, name) for _, one in parts]).numpy()
            for name in ("total", "aleatoric", "epistemic")
        }
        return MadeLists(
            item=item,
            score=_joined([tile.score for tile, _ in parts], -torch.inf).numpy(),
            because=reasons(log_probability_at_the_mean(self.forecast), histories, item),
            **named,
            **of_history,
        )

    def ranks(self, histories: Histories, wish: Wish) -> Ranks:
        """The order alone, at the posterior mean."""
        return ranks(self.forecast.at_the_mean(), histories, wish)

    def _tiles(self, histories: Histories, wish: Wish, manner: Manner) -> Iterator[RankedTile]:
        if manner.coverage is not None:
            yield from self._sets(histories, wish, manner.coverage)
            return
        wanted = replace(wish, k=pool_size(wish.k, wish.num_items)) if manner.diversity else wish
        ranking = self.forecast if manner.explore is None else self._sampled(manner.seed)
        tiles = (self._arranged(ranking, tile, wish, manner) for tile in ranked_tiles(ranking, histories, wanted))
        yield from tiles if manner.explore is None else self._asked_of_all(tiles, histories, wish)

    def _arranged(self, ranking: Forecast, tile: RankedTile, wish: Wish, manner: Manner) -> RankedTile:
        """Ranked items, spread out and with pins where that is asked for."""
        spread = self._spread(tile, wish.k, manner.diversity) if manner.diversity else tile
        return _pinned(ranking, spread, wish) if wish.pins else spread

    def _sampled(self, seed: int) -> Forecast:
        """The forecast under one sample of every posterior."""
        forecast = self.forecast
        noise = posterior_noise(forecast.network.config, num_samples=1, seed=seed)
        return Forecast(forecast.network, forecast.memory, forecast.calibration, noise)

    def _asked_of_all(self, tiles: Iterator[RankedTile], histories: Histories, wish: Wish) -> Iterator[RankedTile]:
        """Tiles ranked by one sample of every posterior; what is said of their items is still the whole forecast."""
        plain = ranked_tiles(self.forecast, histories, replace(wish, k=1))
        for tile, said in zip(tiles, plain, strict=True):
            yield replace(tile, query=said.query, log_weight=said.log_weight)

    def _spread(self, tile: RankedTile, k: int, diversity: float) -> RankedTile:
        probability = (tile.score.double() + tile.log_weight[:, None]).exp().float()
        vectors = self.forecast.network.item_vectors.detach().cpu()
        place = torch.from_numpy(spread_out(tile.item.numpy(), probability.numpy(), vectors.numpy(), k, diversity))
        is_there, chosen = place >= 0, place.clamp(min=0)
        item = tile.item.gather(1, chosen).where(is_there, -1)
        return replace(tile, item=item, score=tile.score.gather(1, chosen).where(is_there, -torch.inf))

    def _sets(self, histories: Histories, wish: Wish, coverage: float) -> Iterator[RankedTile]:
        """The candidates before which the list has at most the threshold of probability.

        The threshold is that of the whole catalog: a set out of `only` or `category` is the part of it that is asked
        for.
        """
        threshold = torch.from_numpy(self.learned.thresholds.at(coverage)[length_group(histories.lengths)])
        everything = replace(wish, k=wish.num_items, candidates=None)
        first = 0
        for tile in ranked_tiles(self.forecast, histories, everything):
            limit = threshold[first : first + len(tile.item)]
            first += len(tile.item)
            p = (tile.score.double() + tile.log_weight[:, None]).exp()
            inside = (p.cumsum(dim=1) - p <= limit[:, None]) & (tile.item >= 0)
            if wish.candidates is not None:
                inside &= torch.from_numpy(wish.candidates)[tile.item.clamp(min=0)]
            yield _kept(tile, inside)


def _pinned(ranking: Forecast, tile: RankedTile, wish: Wish) -> RankedTile:
    """The pinned items that may be recommended at their places, the others around them.

    What is pinned was not ranked, so scores are worked out anew by the forecast that ranked: an item has the score
    that it would be ranked by without the pins.
    """
    item = np.full_like(tile.item.numpy(), -1)
    for row, ranked in enumerate(tile.item.tolist()):
        pins = allowed_pins(wish, tile.histories.history(row).item)
        found = with_pins(ranked, pins, wish.k)
        item[row, : len(found)] = found
    known = torch.from_numpy(np.maximum(item, 0))
    score = ranking.sampled_probabilities(tile.query, known).mean(dim=0).log().float().cpu()
    if wish.log_boost is not None:
        score += torch.from_numpy(wish.log_boost)[known]
    is_there = torch.from_numpy(item >= 0)
    return replace(tile, item=torch.from_numpy(item), score=score.where(is_there, -torch.inf))


def _kept(tile: RankedTile, inside: Tensor) -> RankedTile:
    """The items of a tile that are inside, moved together, in a table as wide as the longest list."""
    order = torch.argsort((~inside).to(torch.uint8), dim=1, stable=True)[:, : max(1, int(inside.sum(dim=1).max()))]
    is_there = inside.gather(1, order)
    item = tile.item.gather(1, order).where(is_there, -1)
    return replace(tile, item=item, score=tile.score.gather(1, order).where(is_there, -torch.inf))


def _of(parts: list[tuple[RankedTile, PosteriorsOfTile]], name: str) -> Float[np.ndarray, "history k"]:
    found: Float[np.ndarray, "history k"] = _joined([getattr(one, name) for _, one in parts], 0.0).numpy()
    return found


def _joined(tables: list[Tensor], filling: float | int) -> Tensor:
    """Tables one below the other, the narrower ones filled up to the right."""
    width = max(table.shape[1] for table in tables)
    return torch.cat([torch.nn.functional.pad(table, (0, width - table.shape[1]), value=filling) for table in tables])
