"""Fits the distribution of the time to the next event to the training part, and calibrates it on validation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from variseq.evaluation.next_time import SMALLEST_SHARE, Gaps, gap_nll, gaps_of, likeliest
from variseq.evaluation.splits import Part
from variseq.events.table import MICROSECONDS_PER_SECOND
from variseq.model.optimizers import AdamW
from variseq.ranking.next_time import LOG_SCALES, NextTime, gap_moments, own_gaps
from variseq.sequences.histories import Histories

NUM_COMPONENTS = 6
HIDDEN_SIZE = 64
BATCH_GAPS = 512
LEARNING_RATE = 6e-3
WARMUP = 0.1
WEIGHT_DECAY = 1e-3
EPOCHS = 10
STEPS = (100, 1_000)
"""The fewest and the most steps; between them they are `EPOCHS` passes."""
STATES = 10
"""The likeliest of so many states of the weights on validation is kept."""
MOST_TRAINED, MOST_VALIDATED = 200_000, 10_000
"""How many gaps are looked at."""
ITEM_PRIOR_GAPS = 20.0
"""How many gaps the mean of all counts for among those after one item."""
MIN_VALIDATED = 200
"""With fewer gaps than this on validation, the distribution is not shifted and stretched."""


def fit_next_time(train: Part, valid: Part, is_refitted: bool, seed: int) -> NextTime | None:
    """The distribution of the gap after an event; None for a log without times, or without two gaps.

    The weights are fitted to the gaps of the training part, those at its end that had not ended among them. The state
    of the weights is chosen on the validation part, and the logarithm of time is shifted and stretched there. After a
    refit, what follows an item is counted on both parts. The caller's random numbers are not used. With visits gaps are
    those between their first events.
    """
    train, valid = train.visit_begins(), valid.visit_begins()
    known = train.history()
    if not known.has_times:
        return None
    moved = known.timestamp - known.timestamp.min()
    resolution = max(1.0, float(np.gcd.reduce(moved)) / MICROSECONDS_PER_SECOND)
    every, validated = gaps_of(train, resolution), gaps_of(valid, resolution).sample(MOST_VALIDATED)
    closed = every.rows(~every.is_open)
    if len(closed) < 2:
        return None
    log, prior = train.histories, gap_moments(closed.lower, resolution)
    gaps = every.sample(MOST_TRAINED)
    sums = _item_sums(log, closed, train.num_items, resolution)
    # What follows an item is counted without the gap that is to be forecast.
    without = sums[:, log.item[gaps.event]] - _moments(gaps, resolution) * ~gaps.is_open
    own = own_gaps(log, gaps.event, resolution, prior)
    inputs = np.concatenate([own, _after_item(without, prior)], axis=1)
    shift, scale = inputs.mean(axis=0), inputs.std(axis=0) + 1e-3
    layers = _first_layers(inputs.shape[1], prior, np.random.default_rng(seed))
    start = NextTime(np.array([resolution]), prior, _after_item(sums, prior), shift, scale, *layers)
    chosen = _trained(start, start.standard(inputs), gaps, _Validation.of(start, log, validated), seed)
    if is_refitted:
        ended = gaps_of(valid, resolution)
        sums = sums + _item_sums(log, ended.rows(~ended.is_open), train.num_items, resolution)
    return replace(chosen, item=_after_item(sums, prior))


def _moments(gaps: Gaps, resolution: float) -> Float[np.ndarray, "three gap"]:
    """1, log gap and its square."""
    log_gap = np.log(np.maximum(gaps.lower, resolution))
    return np.stack([np.ones(len(gaps)), log_gap, log_gap**2])


def _item_sums(log: Histories, closed: Gaps, num_items: int, resolution: float) -> Float[np.ndarray, "three item"]:
    """The sums of `_moments` over the gaps after each item."""
    item = log.item[closed.event]
    return np.stack([np.bincount(item, one, num_items) for one in _moments(closed, resolution)])


def _after_item(
    sums: Float[np.ndarray, "three row"], prior: Float[np.ndarray, " moment"]
) -> Float[np.ndarray, "row two"]:
    """Mean and standard deviation of the log gap, shrunk to those of all gaps."""
    count, first, second = sums + ITEM_PRIOR_GAPS * np.array([[1.0], [prior[0]], [prior[1]]])
    return np.stack([first / count, np.sqrt(np.maximum(second / count - (first / count) ** 2, 0.0))], axis=1)


def _first_layers(
    num_inputs: int, prior: Float[np.ndarray, " moment"], generator: np.random.Generator
) -> list[np.ndarray]:
    """Random weights; the components begin side by side over the gaps of all people."""
    sizes = (num_inputs, HIDDEN_SIZE, HIDDEN_SIZE, 3 * NUM_COMPONENTS)
    layers = [
        np.pad(generator.standard_normal(shape) / np.sqrt(shape[0]), ((0, 1), (0, 0))) for shape in pairwise(sizes)
    ]
    layers[-1] *= 0.1
    spread = np.sqrt(max(prior[1] - prior[0] ** 2, 0.01))
    layers[-1][-1, NUM_COMPONENTS : 2 * NUM_COMPONENTS] = prior[0] + spread * np.linspace(-1.5, 1.5, NUM_COMPONENTS)
    return layers


@dataclass(frozen=True, eq=False)
class _Validation:
    """The gaps of the validation part, with the inputs that they are forecast from."""

    gaps: Gaps
    inputs: Float[np.ndarray, "gap input"]

    @classmethod
    def of(cls, start: NextTime, log: Histories, gaps: Gaps) -> _Validation:
        return cls(gaps, start.inputs(log, gaps.event))

    def nll(self, fit: NextTime) -> float:
        """Mean −log p; 0 without a gap."""
        return float(gap_nll(fit.mixture(self.inputs).log_survival, self.gaps).mean()) if len(self.gaps) else 0.0


def _trained(
    start: NextTime, standard: Float[np.ndarray, "gap input"], gaps: Gaps, validation: _Validation, seed: int
) -> NextTime:
    """The likeliest state of the weights on validation, shifted and stretched there."""
    inputs, lower = torch.from_numpy(standard).float(), torch.from_numpy(gaps.lower)
    is_open, unit = torch.from_numpy(gaps.is_open), start.unit
    layers = [torch.from_numpy(one).float().requires_grad_() for one in (start.first, start.second, start.last)]
    num_steps = int(np.clip(EPOCHS * len(gaps) // BATCH_GAPS, *STEPS))
    optimizer = AdamW(layers, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, num_steps, pct_start=WARMUP)
    generator, order = np.random.default_rng(seed), np.zeros(0, dtype=np.int64)
    best, lowest = start, np.inf
    for step in range(1, num_steps + 1):
        if not len(order):
            order = generator.permutation(len(gaps))
        rows, order = torch.from_numpy(order[:BATCH_GAPS]), order[BATCH_GAPS:]
        optimizer.zero_grad()
        _nll(inputs[rows], layers, lower[rows], is_open[rows], unit).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(layers, 1.0)
        optimizer.step()
        schedule.step()
        if step % (num_steps // STATES) == 0 or step == num_steps:
            first, second, last = (one.detach().numpy().copy() for one in layers)
            state = replace(start, first=first, second=second, last=last)
            if (loss := validation.nll(state)) <= lowest:
                best, lowest = state, loss
    if len(validation.gaps) < MIN_VALIDATED:
        return best
    return stretched(best, likeliest(lambda moved: validation.nll(stretched(best, moved)), np.zeros(2)))


def stretched(fit: NextTime, moved: Float[np.ndarray, " two"]) -> NextTime:
    """The fit whose log gap is shifted, and stretched around the mean of all; moved = (shift, log of the factor)."""
    shift, log_factor = moved
    factor, last = np.exp(log_factor), fit.last.astype(np.float64)
    location, log_scale = slice(NUM_COMPONENTS, 2 * NUM_COMPONENTS), slice(2 * NUM_COMPONENTS, None)
    last[:, location] *= factor
    last[-1, location] += shift + (1 - factor) * fit.prior[0]
    last[-1, log_scale] += log_factor
    return replace(fit, last=last)


def _nll(
    inputs: Float[Tensor, "gap input"],
    layers: list[Tensor],
    lower: Float[Tensor, " gap"],
    is_open: Bool[Tensor, " gap"],
    unit: float,
) -> Float[Tensor, ""]:
    """What `gap_nll` gives for `NextTime.mixture`, as a mean, in torch."""
    hidden = inputs
    for layer in layers[:-1]:
        hidden = functional.silu(torch.addmm(layer[-1], hidden, layer[:-1]))
    logit, location, log_scale = torch.addmm(layers[-1][-1], hidden, layers[-1][:-1]).double().chunk(3, dim=1)
    log_weight, log_scale = torch.log_softmax(logit, dim=1), log_scale.clamp(*LOG_SCALES)

    def log_survival(seconds: Tensor) -> Tensor:
        # The logarithm of zero has no gradient; zero is set apart below.
        standard = (seconds.clamp(min=1e-3).log()[:, None] - location) * torch.exp(-log_scale)
        return torch.logsumexp(log_weight + functional.logsigmoid(-standard), dim=1)

    at_lower = torch.where(lower > 0, log_survival(lower), 0.0)
    log_share = torch.log(-torch.expm1((log_survival(lower + unit) - at_lower).clamp(max=-SMALLEST_SHARE)))
    return -(at_lower + torch.where(is_open, 0.0, log_share)).mean()
