"""Histories into the attention of the decoder over their events, at the moment of recommending."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from variseq.model.encoded import encoded
from variseq.model.network import Network
from variseq.sequences.histories import Histories


@torch.no_grad()
def attention_over_events(network: Network, histories: Histories) -> list[Float[np.ndarray, " event"]]:
    """For each history the weights a_Ti of its events at the moment of recommending; they sum to at most 1.

    What is missing to 1 went to the start token. Events before the network's window have no weight. The weights show
    where the decoder looks, and are no reasons: `benchmarks/reasons.py` holds both to the same test.
    """
    network.eval()
    weights = [np.zeros(length, dtype=np.float32) for length in histories.lengths]
    for row, posterior, layout in encoded(network, histories):
        of_tokens = network.decoder.last_weights(posterior.mean, layout).cpu().numpy()
        for place, (member, num_tokens) in enumerate(zip(row.tolist(), layout.lengths.tolist(), strict=True)):
            # The token before target p is event p − 1; the start token, where the window has it, comes first.
            num_events = min(num_tokens, len(weights[member]))
            if num_events:
                weights[member][-num_events:] = of_tokens[place, num_tokens - num_events : num_tokens]
    return weights
