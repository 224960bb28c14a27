"""Validation queries and an uncalibrated forecast into the temperatures and the gate that make it most likely."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.mass import Pairs, seen_pairs
from variseq.evaluation.splits import Part
from variseq.ranking.calibration import (
    LENGTH_EDGES,
    Calibration,
    CalibrationResult,
    ConformalThresholds,
    GatingNetwork,
    length_group,
    repeat_share,
)
from variseq.recommend.forecast import Forecast
from variseq.sequences.histories import Histories

CELLS = 25_000_000
MOST_QUERIES = 4096
"""At most so many queries, and at most `CELLS` pairs of a query and an item, are looked at."""
CELLS_AT_ONCE = 1 << 21
TEMPERATURES = torch.logspace(-0.25, 0.47, 13, base=10)
"""Temperatures that are tried: 0.56 to 2.95, fifteen per cent apart."""
MIN_GROUP_QUERIES = 200
"""A group of history lengths with fewer queries than this takes the temperature of all."""
GATE_STEPS = 60
FIRST_GATE = [[-1.5, 0.0, 0.0], [-3.0, 0.0, 0.0], [-3.0, 0.0, 0.0]]
"""Where the search for a gate begins: the voices in the order of `GatingNetwork`."""
DECAY = 1e-3


@dataclass(frozen=True, eq=False)
class Table:
    """Per query what the forecast comes to for any temperature and gate.

    Of the network and of the other voices (`counted`, in the order of `GatingNetwork`) the probability of the target
    and that of all seen items, and what the gate looks at.
    """

    neural: Float[Tensor, "temperature query"]
    neural_seen: Float[Tensor, "temperature query"]
    log_mass: Float[Tensor, "temperature query"]
    counted: Float[Tensor, "voice query"]
    counted_seen: Float[Tensor, "voice query"]
    log_variance: Float[Tensor, " query"]

    def losses(self, place: int, gate: Float[Tensor, "voice weight"]) -> Float[Tensor, " query"]:
        """−log p of each target among the items that are no repeat, at a temperature.

        The rows of `gate` are the voices of `GatingNetwork`, each with bias, certainty and spread.
        """
        inputs = torch.stack([torch.ones_like(self.log_variance), self.log_mass[place], self.log_variance])
        odds = torch.cat([torch.zeros_like(inputs[:1]), gate @ inputs])
        shares = torch.softmax(odds, dim=0)
        target = shares[0] * self.neural[place] + (shares[1:] * self.counted).sum(dim=0)
        seen = shares[0] * self.neural_seen[place] + (shares[1:] * self.counted_seen).sum(dim=0)
        return (1 - seen).clamp(min=1e-9).log() - target.clamp(min=1e-30).log()


def calibrate(untuned: Forecast, part: Part, options: EvaluationOptions) -> CalibrationResult:
    """Fit temperatures and gate on a validation part, then see there how much probability stands before the targets."""
    calibration = Calibrator(untuned, part, options).fit()
    tuned = Forecast(untuned.network, untuned.memory, calibration)
    judged = evaluate(tuned, part, options)
    assert judged.forecasts is not None
    # Where seen items are not ranked, sets are of new items: they are promised for the next item that is one.
    is_new = ~judged.target_was_seen
    group = length_group(judged.history_length)
    thresholds = ConformalThresholds.fit(judged.forecasts.mass_before[is_new], group[is_new])
    found = {name: float(judged.metric(name).mean()) for name in ("ndcg", "nll")}
    repeats = repeat_share(part.history()) if options.repeat_share is None else options.repeat_share
    return CalibrationResult(calibration, thresholds, repeats, found)


class Calibrator:
    """An uncalibrated forecast and the validation queries that it is tried on.

    Queries whose target is a repeat where repeats are not ranked are left out: their probability is counted.
    """

    def __init__(self, forecast: Forecast, part: Part, options: EvaluationOptions) -> None:
        self.forecast, self.options = forecast, options
        queries = part.queries(options.targets)
        wanted = int(np.clip(CELLS // part.num_items, 256, MOST_QUERIES))
        chosen = np.unique(np.linspace(0, len(queries) - 1, min(wanted, len(queries))).astype(np.int64))
        log, position, user = part.histories, queries.position[chosen], queries.user[chosen]
        histories, target = log.select(log.offsets[user], position), log.item[position].astype(np.int64)
        if options.exclude_seen:
            row = np.repeat(np.arange(len(target)), histories.lengths)
            is_new = np.bincount(row[histories.item == target[row]], minlength=len(target)) == 0
            histories = log.select(log.offsets[user[is_new]], position[is_new])
            target = target[is_new]
        self.histories, self.target = histories, torch.from_numpy(target)
        self.group = torch.from_numpy(length_group(histories.lengths))

    @torch.no_grad()
    def fit(self) -> Calibration:
        """The temperatures and the gate that make the validation targets most likely.

        The gate weighs the voices against each other by how sure the network is.
        """
        if not len(self.target):
            return self.forecast.calibration
        table = self._table()
        gates = [_most_likely_gate(table, place) for place in range(len(TEMPERATURES))]
        losses = [float(table.losses(place, gate).mean()) for place, gate in enumerate(gates)]
        everywhere = int(np.argmin(losses))
        return self._with_temperatures(table, gates[everywhere], everywhere)

    def _with_temperatures(self, table: Table, gate: Tensor, everywhere: int) -> Calibration:
        """The most likely temperature of each group of history lengths, given the gate."""
        losses = torch.stack([table.losses(place, gate) for place in range(len(TEMPERATURES))])
        places = []
        for group in range(len(LENGTH_EDGES)):
            inside = self.group == group
            is_large = int(inside.sum()) >= MIN_GROUP_QUERIES
            places.append(int(losses[:, inside].mean(dim=1).argmin()) if is_large else everywhere)
        voices = [(round(w[0], 4), round(w[1], 4), round(w[2], 4)) for w in gate.tolist()]
        temperatures = tuple(round(float(TEMPERATURES[place]), 4) for place in places)
        return replace(self.forecast.calibration, temperatures=temperatures, gate=GatingNetwork(*voices))

    def _table(self) -> Table:
        forecast = self.forecast
        sampled = forecast.sample(self.histories)
        neural, neural_seen, log_mass = torch.zeros(3, len(TEMPERATURES), len(self.target))
        counted, counted_seen = torch.zeros(2, len(FIRST_GATE), len(self.target))
        ones = torch.ones_like(sampled.preference[..., :1])
        preference = torch.cat([sampled.preference, ones], dim=2)
        for tile, histories, seen in self._tiles():
            target = self.target[tile]
            for one in preference[:, tile]:
                logits = (one @ forecast.vectors.T).cpu()
                at_target, at_seen = logits.gather(1, target[:, None]).squeeze(1), logits[seen.row, seen.item]
                for place, temperature in enumerate(TEMPERATURES):
                    mass = torch.logsumexp(logits / temperature, dim=1)
                    log_mass[place, tile] += mass / len(preference)
                    neural[place, tile] += torch.exp(at_target / temperature - mass) / len(preference)
                    p = torch.exp(at_seen / temperature - mass[seen.row]) / len(preference)
                    neural_seen[place, tile] += torch.zeros(len(target)).index_add_(0, seen.row, p)
            for voice, p in enumerate(forecast.other_voices(histories)):
                counted[voice, tile] = p.gather(1, target[:, None]).squeeze(1)
                counted_seen[voice, tile] = torch.zeros(len(target)).index_add_(0, seen.row, p[seen.row, seen.item])
        return Table(neural, neural_seen, log_mass, counted, counted_seen, sampled.log_variance.cpu())

    def _tiles(self) -> Iterator[tuple[slice, Histories, Pairs]]:
        """Some queries at a time, with the items that are not ranked for them."""
        num_items = len(self.forecast.vectors)
        size = max(1, CELLS_AT_ONCE // num_items)
        for first in range(0, len(self.target), size):
            tile = slice(first, min(first + size, len(self.target)))
            bounds = self.histories.offsets[first : tile.stop + 1]
            histories = self.histories.select(bounds[:-1], bounds[1:])
            none = Pairs(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
            yield tile, histories, seen_pairs(histories, num_items) if self.options.exclude_seen else none


@torch.enable_grad()
def _most_likely_gate(table: Table, place: int) -> Float[Tensor, "voice weight"]:
    """The gate with the lowest mean loss at a temperature; its inputs are standardised while it is sought."""
    inputs = torch.stack([table.log_mass[place], table.log_variance])
    mean, scale = inputs.mean(dim=1), inputs.std(dim=1, correction=0).clamp(min=1e-3)
    weights = torch.tensor(FIRST_GATE, requires_grad=True)

    def unscaled() -> Tensor:
        slopes = weights[:, 1:] / scale
        return torch.cat([weights[:, :1] - (slopes @ mean)[:, None], slopes], dim=1)

    optimizer = torch.optim.LBFGS([weights], max_iter=GATE_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        # A little weight decay, so that a handful of queries cannot make the gate a step.
        loss: Tensor = table.losses(place, unscaled()).mean() + DECAY * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return unscaled().detach()
