"""Histories into reasons: the events that the attention weighted most when the network looked back."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from variseq.model.network import Network
from variseq.sequences.batches import group_by_length, make_batch, query_windows
from variseq.sequences.histories import Histories

TOKENS_PER_BATCH = 8192


@torch.no_grad()
def attention_over_events(network: Network, histories: Histories) -> list[Float[np.ndarray, " event"]]:
    """For each history the weights a_Ti of its events at the moment of recommending; they sum to at most 1.

    What is missing to 1 went to the start token. Events before the network's window have no weight.
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


def strongest_events(network: Network, histories: Histories, num_events: int = 3) -> list[list[int]]:
    """Flat positions of the events with the most weight, strongest first; an item counts once, none without weight."""
    reasons = []
    for start, weight in zip(histories.offsets[:-1], attention_over_events(network, histories), strict=True):
        chosen: dict[int, int] = {}
        for place in np.argsort(-weight, kind="stable"):
            if weight[place] == 0:
                break
            chosen.setdefault(int(histories.item[start + place]), int(start + place))
            if len(chosen) == num_events:
                break
        reasons.append(list(chosen.values()))
    return reasons
