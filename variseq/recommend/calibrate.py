"""Fits temperatures, mixture weights and conformal thresholds to the validation part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from variseq.distinct import distinct
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.splits import Part, Queries
from variseq.model.optimizers import LBFGS
from variseq.ranking.calibration import (
    LENGTH_EDGES,
    OWN,
    Calibration,
    CalibrationResult,
    ConformalThresholds,
    GatingNetwork,
    length_group,
    repeat_share,
)
from variseq.ranking.counts import OwnHistory, own_history
from variseq.ranking.mixture import MixtureModel
from variseq.ranking.near_items import NearItems
from variseq.ranking.visits import VisitProbability
from variseq.recommend.network_model import ModelRecommender
from variseq.recommend.new_items import fit_new_items
from variseq.sequences.calendar import NO_CALENDAR, UTC
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
FIRST_WEIGHTS = {"transitions": -1.5, "trend": -3.0, "uniform": -3.0, "own": -1.0, "near": -3.0}
"""The bias of each component at which the search begins, in the order of `GatingNetwork`."""
SCALES_KM, DECAYS_OF_NEAR = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0), (0.3, 0.5, 0.7, 0.8, 0.9)
"""How the distance to the items of a history may count, see `NearItems`."""
DECAYS, DECAYS_OF_VISITS = (0.8, 0.9, 0.95, 0.98, 1.0), (0.01, 0.1, 0.3, 0.5, 0.8, 0.95, 1.0)
PRIOR_OF_VISITS = 0.2
"""With more, popularity decides too much of the order of new items; with less, the likelihood falls."""
OWN_TRANSITIONS = (0.0, 1.0, 3.0, 10.0)
"""How own events may be counted where seen items are ranked; see `Calibrator`."""
AT_REQUEST: dict[str, tuple[Any, ...]] = {
    "hour": (0.0, 2.0, 8.0, 16.0),
    "weekend": (1.0, 0.5, 0.2, 0.05),
    "gap": (0.0, 0.3, 0.7),
    "transitions": (0.0, 1.0, 3.0, 10.0, 30.0),
    "decay": (0.8, 0.9, 0.95, 0.98, 0.99, 1.0),
}
"""How they may be counted where the request time is known: one field of `OwnHistory` at a time, all of them twice."""
DECAY = 1e-3


@dataclass(frozen=True, eq=False)
class Table:
    """What −log p of each query is computed from, for any temperature and gating network.

    Of the network, and of the other components in the order of `GatingNetwork`, the probability of the target and that
    of all seen items; and the inputs of the gating network, the last of them where the request time is known.
    """

    neural: Float[Tensor, "temperature query"]
    neural_seen: Float[Tensor, "temperature query"]
    log_mass: Float[Tensor, "temperature query"]
    counted: Float[Tensor, "component query"]
    counted_seen: Float[Tensor, "component query"]
    log_variance: Float[Tensor, " query"]
    log_gap: Float[Tensor, " query"] | None = None

    def inputs(self, index: int) -> Float[Tensor, "input query"]:
        """The inputs of the gating network at a temperature."""
        inputs = [self.log_mass[index], self.log_variance]
        return torch.stack(inputs if self.log_gap is None else [*inputs, self.log_gap])

    def losses(self, index: int, gate: Float[Tensor, "component weight"]) -> Float[Tensor, " query"]:
        """−log p of each target among the items that are no repeat, at a temperature.

        The rows of `gate` are the components of `GatingNetwork`, each with bias and slopes.
        """
        inputs = self.inputs(index)
        ones = torch.ones_like(inputs[:1])
        logits = torch.cat([0 * ones, gate @ torch.cat([ones, inputs])])
        weights = torch.softmax(logits, dim=0)
        target = weights[0] * self.neural[index] + (weights[1:] * self.counted).sum(dim=0)
        seen = weights[0] * self.neural_seen[index] + (weights[1:] * self.counted_seen).sum(dim=0)
        return (1 - seen).clamp(min=1e-9).log() - target.clamp(min=1e-30).log()


def calibrate(untuned: MixtureModel, part: Part, options: EvaluationOptions, calendar: str = UTC) -> CalibrationResult:
    """Fits temperatures and mixture weights on a validation part, then conformal thresholds with both.

    Where the log has times, weights and thresholds are fitted a second time for requests whose time is known.

    Args:
        untuned: The model; its own temperatures and weights are not used.
        part: Validation queries.
        options: How they are evaluated.
        calendar: The IANA time zone of hours and days, or "none".

    Returns:
        The calibration, the thresholds, the share of repeats and the metrics on the validation part.
    """
    calibrator = Calibrator(untuned, part, options, calendar)
    model = MixtureModel(untuned.encoder, untuned.tables, calibrator.fit())
    calibration = fit_new_items(model, *calibrator.with_new_items, part.history())
    tuned = ModelRecommender(MixtureModel(untuned.encoder, untuned.tables, calibration))
    thresholds, found, at_request = *_thresholds(tuned, part, options), None
    if calibration.at_request is not None:
        at_request, found_at_request = _thresholds(tuned, part, replace(options, request_time=True))
        found |= {f"{name}_at_request": value for name, value in found_at_request.items()}
    repeats = repeat_share(part.history()) if options.repeat_share is None else options.repeat_share
    return CalibrationResult(calibration, thresholds, repeats, found, at_request)


def _thresholds(
    tuned: ModelRecommender, part: Part, options: EvaluationOptions
) -> tuple[ConformalThresholds, dict[str, float]]:
    """The thresholds of a calibrated model, and its metrics."""
    evaluation = evaluate(tuned, part, options)
    assert evaluation.forecasts is not None
    # Where seen items are not ranked, sets hold new items: they cover the next item that is one.
    is_new = ~evaluation.target_was_seen
    group = length_group(evaluation.history_length)
    num_users = len(distinct(evaluation.user[is_new]))
    thresholds = ConformalThresholds.fit(evaluation.forecasts.mass_before[is_new], group[is_new], num_users)
    return thresholds, {name: float(evaluation.metric(name).mean()) for name in ("ndcg", "nll")}


class Calibrator:
    """A model without calibration, and the validation queries that it is fitted to.

    Queries whose target is a repeat are left out where repeats are not ranked: their probability is counted. So are
    those whose target is a new item; they are in `with_new_items`.
    """

    def __init__(self, model: MixtureModel, part: Part, options: EvaluationOptions, calendar: str = UTC) -> None:
        self.model, self.options, self.calendar = model, options, calendar
        queries = part.queries(options.targets)
        wanted = int(np.clip(CELLS // part.num_items, 256, MOST_QUERIES))
        # Visits are taken whole; without visits each query is one.
        begin, number = np.unique(part.histories.begin_of_visits(queries.position), return_inverse=True)
        wanted = min(len(begin), max(1, wanted * len(begin) // max(1, len(queries))))
        visits = np.unique(np.linspace(0, len(begin) - 1, wanted).astype(np.int64))
        chosen = np.flatnonzero(np.isin(number, visits))
        queries = Queries(queries.user[chosen], queries.position[chosen])
        at_request, target = (
            part.histories_before(queries, True),
            part.histories.item[queries.position].astype(np.int64),
        )
        self.all_queries = (at_request, begin[number[chosen]], target)
        if options.exclude_seen:
            row = np.repeat(np.arange(len(target)), at_request.lengths)
            is_first = np.bincount(row[at_request.item == target[row]], minlength=len(target)) == 0
            at_request, target = at_request.rows(np.flatnonzero(is_first)), target[is_first]
        self.with_new_items = (replace(at_request, request_time=None), target)
        # New items are forecast apart.
        chosen = np.flatnonzero(~model.tables.is_new[target])
        at_request, target = at_request.rows(chosen), target[chosen]
        histories = replace(at_request, request_time=None)
        self.histories, self.target = histories, torch.from_numpy(target)
        self.part, self.at_request = part, at_request if part.histories.has_times else None
        self.group = torch.from_numpy(length_group(histories.lengths))
        # Where seen items are not ranked, what somebody did before is no candidate.
        self.own = None if options.exclude_seen else self._likeliest(self.histories, target, self._candidates())
        self.near: NearItems | None = None

    @property
    def components(self) -> list[str]:
        """The components beside the network, in the order of `GatingNetwork`."""
        left_out = {"own": self.own is None, "near": self.near is None}
        return [name for name in FIRST_WEIGHTS if not left_out.get(name)]

    @property
    def first_weights(self) -> list[list[float]]:
        """Where the search of the gating network begins."""
        return [[FIRST_WEIGHTS[name], 0.0, 0.0] for name in self.components]

    def _candidates(self) -> list[OwnHistory]:
        """How own events may be counted: all pairs of a decay and a weight of transitions."""
        has_visits = self.histories.visit_gap is not None
        decays, prior = (DECAYS_OF_VISITS, PRIOR_OF_VISITS) if has_visits else (DECAYS, OwnHistory.prior_events)
        return [OwnHistory(decay, weight, prior_events=prior) for decay in decays for weight in OWN_TRANSITIONS]

    def _likeliest(
        self, histories: Histories, target: Int[np.ndarray, " query"], candidates: Sequence[OwnHistory]
    ) -> OwnHistory:
        """The way of counting own events under which the targets are most likely."""
        likelihoods = [np.log(self._own_share(histories, target, one)).sum() for one in candidates]
        return candidates[int(np.argmax(likelihoods))]

    def _own_share(
        self, histories: Histories, target: Int[np.ndarray, " query"], own: OwnHistory
    ) -> Float[np.ndarray, " query"]:
        """p of the targets by what somebody did before."""
        return own_history(histories, own).share(target[:, None], self.model.prior[target[:, None]])[:, 0]

    def _likeliest_at_request(self) -> OwnHistory:
        """The same where the request time is known, for the latest targets of each person, those of validation last.

        A few people have few validation targets, and counting own events is not trained, so earlier ones do as well.
        """
        log, end = self.part.histories, self.part.target_end
        is_queried = end > self.part.history_end
        first = np.maximum(log.offsets[:-1] + 1, end - -(-MOST_QUERIES // is_queried.sum()))
        queries = replace(self.part, history_end=np.where(is_queried, np.minimum(first, end), end)).queries("all")
        step = -(-len(queries) // MOST_QUERIES)
        queries = Queries(queries.user[::step], queries.position[::step])
        histories = self.part.histories_before(queries, request_time=True)
        target = log.item[queries.position].astype(np.int64)
        own, allowed = OwnHistory(calendar=self.calendar), AT_REQUEST
        if log.visit_gap is not None:
            own, allowed = replace(own, prior_events=PRIOR_OF_VISITS), AT_REQUEST | {"decay": DECAYS_OF_VISITS}
        names = [name for name in AT_REQUEST if self.calendar != NO_CALENDAR or name not in ("hour", "weekend")]
        for name in 2 * names:
            own = self._likeliest(histories, target, [replace(own, **{name: value}) for value in allowed[name]])
        return own

    @torch.no_grad()
    def fit(self) -> Calibration:
        """The temperatures and the gating network that make the validation targets most likely."""
        if not len(self.target):
            return self.model.calibration
        table = self._table()
        everywhere, weights = self._most_likely(table)
        if self.model.tables.coordinates is not None:
            self.near = self._likeliest_near(table, everywhere)
            table = self._with_near(table, self.near)
            everywhere, weights = self._most_likely(table)
        chosen = self._temperatures(table, weights, everywhere)
        temperatures = tuple(round(float(TEMPERATURES[index]), 4) for index in chosen)
        calibration = replace(self.model.calibration, temperatures=temperatures, gate=self._gate(weights))
        calibration = replace(calibration, own=self.own, near=self.near)
        if self.histories.visit_gap is not None:
            calibration = replace(calibration, visit=self._visit_probability(calibration))
        if self.at_request is None:
            return calibration
        gate, own = self._fit_at_request(table, self.at_request, chosen)
        log_gap = self.at_request.log_gap
        assert log_gap is not None
        seen = log_gap[self.at_request.lengths > 0]
        log_gaps = (round(float(seen.min()), 4), round(float(seen.max()), 4)) if len(seen) else Calibration.log_gaps
        known = replace(calibration, gate=gate, own=own, log_gaps=log_gaps)
        if self.histories.visit_gap is not None:
            known = replace(known, visit=self._visit_probability(replace(calibration, at_request=known), known=True))
        return replace(calibration, at_request=known)

    def _most_likely(self, table: Table) -> tuple[int, Float[Tensor, "component weight"]]:
        """The temperature and the gating network that are likeliest together."""
        gates = [_most_likely_gate(table, index, self.first_weights) for index in range(len(TEMPERATURES))]
        losses = [float(table.losses(index, gate).mean()) for index, gate in enumerate(gates)]
        return int(np.argmin(losses)), gates[int(np.argmin(losses))]

    def _likeliest_near(self, table: Table, index: int) -> NearItems:
        """How distance counts where the targets are likeliest at a temperature: the scale, and then the decay."""
        self.near, losses = NearItems(SCALES_KM[0]), {}
        for name, values in (("scale_km", SCALES_KM), ("decay", DECAYS_OF_NEAR)):
            for one in [replace(self.near, **{name: value}) for value in values]:
                if one not in losses:
                    with_near = self._with_near(table, one)
                    gate = _most_likely_gate(with_near, index, self.first_weights)
                    losses[one] = float(with_near.losses(index, gate).mean())
            self.near = min(losses, key=lambda one: losses[one])
        return self.near

    def _with_near(self, table: Table, options: NearItems) -> Table:
        """The table with the component of near items."""
        near = self.model.near_items(options)
        assert near is not None
        target = torch.from_numpy(near.at(self.histories, self.target.numpy()[:, None])).float().T
        of_seen = torch.zeros_like(target)
        if self.options.exclude_seen:
            for tile, histories, row, item in self._tiles():
                p = torch.from_numpy(near.dense(histories))[row, item]
                of_seen[0, tile] = torch.zeros(len(histories)).index_add_(0, row, p)
        counted, counted_seen = torch.cat([table.counted, target]), torch.cat([table.counted_seen, of_seen])
        return replace(table, counted=counted, counted_seen=counted_seen)

    def _gate(self, weights: Float[Tensor, "component weight"]) -> GatingNetwork:
        rounded = [tuple(round(w, 4) for w in of_component) for of_component in weights.tolist()]
        return GatingNetwork(**dict(zip(self.components, rounded, strict=True)))

    @torch.no_grad()
    def losses(self, gates: Sequence[GatingNetwork]) -> Float[Tensor, "temperature gate query"]:
        """−log p of each target at each of `TEMPERATURES` with each gating network.

        Own events are counted as the model does.
        """
        self.own = self.model.calibration.own
        table = self._table()
        rows = [torch.tensor([getattr(gate, name) for name in self.components]) for gate in gates]
        return torch.stack(
            [torch.stack([table.losses(index, row) for row in rows]) for index in range(len(TEMPERATURES))]
        )

    def _fit_at_request(
        self, table: Table, histories: Histories, chosen: list[int]
    ) -> tuple[GatingNetwork, OwnHistory | None]:
        """Gating network and own history for requests whose time is known, at the chosen temperatures.

        What is likeliest alone can say what the other components say already; own history without the time stays where
        the mixture is better with it.
        """
        at = (torch.tensor(chosen)[self.group], torch.arange(len(self.target)))
        neural, neural_seen, log_mass = (one[at][None] for one in (table.neural, table.neural_seen, table.log_mass))
        log_gap = torch.as_tensor(histories.log_gap).float()
        fits = []
        for own in [None] if self.own is None else [self._likeliest_at_request(), self.own]:
            counted = table.counted.clone()
            if own is not None:
                counted[OWN - 1] = torch.from_numpy(self._own_share(histories, self.target.numpy(), own)).float()
            known = Table(neural, neural_seen, log_mass, counted, table.counted_seen, table.log_variance, log_gap)
            weights = _most_likely_gate(known, 0, [[*one, 0.0] for one in self.first_weights])
            fits.append((float(known.losses(0, weights).mean()), self._gate(weights), own))
        _, gate, own = min(fits, key=lambda fit: fit[0])
        return gate, own

    def _visit_probability(self, calibration: Calibration, known: bool = False) -> VisitProbability:
        """Fitted to visits that have a history, as many as `CELLS` allow; `known` is whether the request time is."""
        model, (histories, visit, target) = self.model, self.all_queries
        _, first, row = np.unique(visit, return_index=True, return_inverse=True)
        chosen = np.flatnonzero(histories.lengths[first])
        if not len(chosen):
            return VisitProbability()
        wanted = min(len(chosen), max(1, CELLS // model.num_items))
        chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, wanted).astype(np.int64))]
        before, of_chosen = histories.rows(first[chosen]), np.isin(row, chosen)
        before = before if known else replace(before, request_time=None)
        is_in = np.zeros((len(chosen), model.num_items), dtype=bool)
        is_in[np.searchsorted(chosen, row[of_chosen]), target[of_chosen]] = True
        tuned = MixtureModel(model.encoder, model.tables, calibration)
        p = np.exp(ModelRecommender(tuned).scores(before).numpy())
        return VisitProbability.fit(p, is_in, before, len(target) / len(first))

    def _temperatures(self, table: Table, weights: Tensor, everywhere: int) -> list[int]:
        """The most likely temperature of each group of history lengths, given the gating network."""
        losses = torch.stack([table.losses(index, weights) for index in range(len(TEMPERATURES))])
        chosen = []
        for group in range(len(LENGTH_EDGES)):
            inside = self.group == group
            is_large = int(inside.sum()) >= MIN_GROUP_QUERIES
            chosen.append(int(losses[:, inside].mean(dim=1).argmin()) if is_large else everywhere)
        return chosen

    def _table(self) -> Table:
        model = self.model
        encoded = model.encode(self.histories)
        neural, neural_seen, log_mass = torch.zeros(3, len(TEMPERATURES), len(self.target))
        counted, counted_seen = torch.zeros(2, len(self.components), len(self.target))
        sampled, vectors = torch.from_numpy(encoded.preference), torch.from_numpy(model.tables.vectors[:])
        preference = torch.cat([sampled, torch.ones_like(sampled[..., :1])], dim=2)
        for tile, histories, seen_row, seen_item in self._tiles():
            target = self.target[tile]
            for one in preference[:, tile]:
                logits = one @ vectors.T
                # New items are forecast apart and have no part in the softmax.
                logits[:, model.new_items] = -torch.inf
                at_target, at_seen = logits.gather(1, target[:, None]).squeeze(1), logits[seen_row, seen_item]
                for index, temperature in enumerate(TEMPERATURES):
                    mass = torch.logsumexp(logits / temperature, dim=1)
                    log_mass[index, tile] += mass / len(preference)
                    neural[index, tile] += torch.exp(at_target / temperature - mass) / len(preference)
                    p = torch.exp(at_seen / temperature - mass[seen_row]) / len(preference)
                    neural_seen[index, tile] += torch.zeros(len(target)).index_add_(0, seen_row, p)
            for component, p in enumerate(self._counted(histories)):
                counted[component, tile] = p.gather(1, target[:, None]).squeeze(1)
                counted_seen[component, tile] = torch.zeros(len(target)).index_add_(0, seen_row, p[seen_row, seen_item])
        return Table(neural, neural_seen, log_mass, counted, counted_seen, torch.from_numpy(encoded.log_variance))

    def _counted(self, histories: Histories) -> list[Float[Tensor, "history item"]]:
        """p of all items by each component but the network, in the order of `GatingNetwork`."""
        model = self.model
        trend, uniform = torch.from_numpy(model.trend), torch.full((model.num_items,), 1 / model.num_items)
        alike = [one.expand(len(histories), -1) for one in (trend, uniform)]
        counted = [model.followers(histories)]
        if self.own is not None:
            counted.append(own_history(histories, self.own))
        transitions, *own = (torch.from_numpy(one.dense(model.prior)).float() for one in counted)
        return [transitions, *alike, *own]

    def _tiles(self) -> Iterator[tuple[slice, Histories, Tensor, Tensor]]:
        """Some queries at a time, with the row and the item of what is not ranked for them."""
        num_items = self.model.num_items
        size = max(1, CELLS_AT_ONCE // num_items)
        for first in range(0, len(self.target), size):
            tile = slice(first, min(first + size, len(self.target)))
            bounds = self.histories.offsets[first : tile.stop + 1]
            histories = self.histories.select(bounds[:-1], bounds[1:])
            seen = histories.distinct_items() if self.options.exclude_seen else np.zeros((2, 0), dtype=np.int64)
            yield tile, histories, torch.from_numpy(seen[0]), torch.from_numpy(seen[1])


@torch.enable_grad()
def _most_likely_gate(table: Table, index: int, first_weights: list[list[float]]) -> Float[Tensor, "component weight"]:
    """The weights with the lowest mean loss at a temperature; the inputs are standardized during the search."""
    inputs = table.inputs(index)
    mean, scale = inputs.mean(dim=1), inputs.std(dim=1, correction=0).clamp(min=1e-3)
    weights = torch.tensor(first_weights, requires_grad=True)

    def unscaled() -> Tensor:
        slopes = weights[:, 1:] / scale
        return torch.cat([weights[:, :1] - (slopes @ mean)[:, None], slopes], dim=1)

    optimizer = LBFGS([weights], max_iter=GATE_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        # A little weight decay, so that a handful of queries cannot make the weights a step.
        loss: Tensor = table.losses(index, unscaled()).mean() + DECAY * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return unscaled().detach()
