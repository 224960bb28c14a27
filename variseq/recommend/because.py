"""Histories and recommended items into reasons: the earlier items without which each would be less probable."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int

from variseq.model.network import Network
from variseq.model.posterior import belief_noise
from variseq.model.scorer import TOKENS_PER_BATCH
from variseq.recommend.forecast import Forecast
from variseq.recommend.recommender import TILE_HISTORIES
from variseq.sequences.batches import group_by_length, make_batch, query_windows
from variseq.sequences.deletion import latest_items, without_items
from variseq.sequences.histories import Histories

NUM_REASONS = 3
NUM_CANDIDATES = 5
"""How many of the latest items are tried: on validation, trying more lowered the probability hardly more than five."""
CONTEXT_EVENTS = 32
"""How many of the latest events the trials look at, so that a long history costs no more than this."""
LEAST_FALL = 0.01
"""An item is a reason when without it log p is lower by at least so many nats: the probability by 1 % of itself."""
PAIRS_AT_ONCE = 16_384
"""At most so many pairs of a history and a recommended item are tried together."""

Reasons = list[list[list[int]]]


def reasons(forecast: Forecast, histories: Histories, items: Int[np.ndarray, "history k"]) -> Reasons:
    """For each history and each of its recommended items at most three items of the history, the strongest first.

    One of the latest items is taken out of the history (all its events) and the forecast is asked again, at the
    posterior mean; the item is a reason when the recommended one is then less probable. Where nothing supports a
    recommended item its list is empty, as it is for an item of −1. `deletion_test` measures how far this holds for the
    forecast over samples and whole histories.

    >>> from variseq.model.network import NetworkConfig
    >>> from variseq.recommend.baselines import LastItemTransitions
    >>> from variseq.recommend.calibration import Calibration
    >>> network = Network(NetworkConfig(num_items=5, width=8, latent_width=4))
    >>> forecast = Forecast(network, LastItemTransitions(5), Calibration())
    >>> found = reasons(forecast, Histories.of_items([[3, 1, 3], []]), np.array([[0, 2], [0, 2]]))
    >>> [len(of_history) for of_history in found], found[1]
    ([2, 2], [[], []])
    """
    noise = belief_noise(forecast.network.config, num_samples=0)
    at_the_mean = Forecast(forecast.network, forecast.memory, forecast.calibration, noise)
    size = min(TILE_HISTORIES, max(1, PAIRS_AT_ONCE // max(1, items.shape[1])))
    found: Reasons = []
    for begin in range(0, len(histories), size):
        bounds = histories.offsets[begin : begin + size + 1]
        context = histories.select(bounds[:-1], bounds[1:]).latest(CONTEXT_EVENTS)
        candidates = latest_items(context, NUM_CANDIDATES)
        falls = _falls(at_the_mean, context, candidates, items[begin : begin + size])
        order = np.argsort(-falls, axis=2, kind="stable")[..., :NUM_REASONS]
        named = np.take_along_axis(candidates[:, None], order, axis=2).tolist()
        counts = np.minimum((falls >= LEAST_FALL).sum(axis=2), NUM_REASONS).tolist()
        for of_history, of_counts in zip(named, counts, strict=True):
            found.append([of_item[:count] for of_item, count in zip(of_history, of_counts, strict=True)])
    return found


def _falls(
    forecast: Forecast,
    context: Histories,
    candidates: Int[np.ndarray, "history candidate"],
    items: Int[np.ndarray, "history k"],
) -> Float[np.ndarray, "history k candidate"]:
    """By how much log p of each item falls without each candidate; 0 where one of the two is −1."""
    source, place = np.nonzero(candidates >= 0)
    known = np.maximum(items, 0)
    before = _log_p(forecast, context, known)
    after = _log_p(forecast, without_items(context, source, candidates[source, place][:, None]), known[source])
    falls = np.zeros((*candidates.shape, items.shape[1]), dtype=np.float32)
    falls[source, place] = before[source] - after
    return np.where(items[..., None] >= 0, falls.transpose(0, 2, 1), 0.0)


@torch.no_grad()
def _log_p(
    forecast: Forecast, histories: Histories, items: Int[np.ndarray, "history k"]
) -> Float[np.ndarray, "history k"]:
    wanted = torch.from_numpy(items.astype(np.int64))
    return forecast.sampled_probabilities(forecast.query(histories), wanted)[0].log().cpu().numpy()


@torch.no_grad()
def attention_over_events(network: Network, histories: Histories) -> list[Float[np.ndarray, " event"]]:
    """For each history the weights a_Ti of its events at the moment of recommending; they sum to at most 1.

    What is missing to 1 went to the start token. Events before the network's window have no weight. The weights show
    where the decoder looks, and are no reasons: `benchmarks/reasons.py` holds both to the same test.
    """
    network.eval()
    config = network.config
    device = network.item_bias.device
    windows = query_windows(histories, config.max_length)
    weights = [np.zeros(length, dtype=np.float32) for length in histories.lengths]
    for members in group_by_length(windows.lengths, TOKENS_PER_BATCH, np.arange(len(histories))):
        batch = make_batch(histories, windows, members, config.num_items).to(device)
        of_tokens = network.decoder.last_weights(network.encode(batch).mean, batch.layout).cpu().numpy()
        for row, member in enumerate(members):
            # The token before target p is event p − 1; the start token, where the window has it, comes first.
            num_tokens = int(windows.lengths[member])
            num_events = min(num_tokens, len(weights[member]))
            if num_events:
                weights[member][-num_events:] = of_tokens[row, num_tokens - num_events : num_tokens]
    return weights
