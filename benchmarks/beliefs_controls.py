"""Deterministic networks into forecasts that are unsure in other ways: dropout left on, or several networks at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from variseq.evaluation.evaluate import EvaluationOptions
from variseq.evaluation.splits import Part
from variseq.model.network import Network
from variseq.model.posterior import TOKENS_PER_BATCH, SampledPreferences, belief_noise, sample_preferences
from variseq.recommend.baselines import LastItemTransitions
from variseq.recommend.calibrate import Calibrator
from variseq.recommend.calibration import Calibration
from variseq.recommend.forecast import Forecast
from variseq.sequences.batches import group_by_length, make_batch, query_windows
from variseq.sequences.histories import Histories

SEED = 0
Make = Callable[[Calibration], Forecast]


def fitted(make: Make, num_samples: int, valid: Part, options: EvaluationOptions) -> Forecast:
    """A forecast with the temperatures and the gate that make validation most likely, as a run's own are found.

    Its networks must not have learned from the validation events.
    """
    return make(Calibrator(make(Calibration(num_samples)), valid, options).fit())


class DropoutForecast(Forecast):
    """The mean over passes with dropout on of what the posterior mean forecasts; batch-norm stands as after training.

    `calibration.num_samples` passes are made, with the same random numbers for equal histories. Source: Gal and
    Ghahramani, "Dropout as a Bayesian approximation" (2016).
    """

    @torch.no_grad()
    def sample(self, histories: Histories) -> SampledPreferences:
        network = self.network
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            network.train()
            network.latent.norm.eval()
            try:
                passes = [_one_pass(network, histories) for _ in range(self.calibration.num_samples)]
            finally:
                network.eval()
        preference, log_variance = (torch.stack(values) for values in zip(*passes, strict=True))
        return SampledPreferences(preference, log_variance.mean(dim=0))


def _one_pass(network: Network, histories: Histories) -> tuple[Tensor, Tensor]:
    """The preference of each history and its mean log σ², in whatever mode the network is."""
    config = network.config
    windows = query_windows(histories, config.max_length)
    preference, log_variance = torch.empty(len(histories), config.width), torch.empty(len(histories))
    for members in group_by_length(windows.lengths, TOKENS_PER_BATCH, np.arange(len(histories))):
        batch = make_batch(histories, windows, members, config.num_items)
        belief, row = network.encode(batch), torch.from_numpy(members)
        preference[row] = network.decoder.last(belief.mean, batch.layout)
        log_variance[row] = belief.log_variance[batch.layout.last_tokens()].mean(dim=1)
    return preference, log_variance


class EnsembleForecast(Forecast):
    """The mean of the softmaxes of several networks, each at its posterior mean, mixed with the memory as ever.

    All item vectors stand side by side; the preference of one network is zero at the vectors of the others. Source:
    Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep ensembles" (2017).
    """

    def __init__(self, networks: Sequence[Network], memory: LastItemTransitions, calibration: Calibration) -> None:
        super().__init__(networks[0], memory, calibration, belief_noise(networks[0].config, num_samples=0))
        self.networks = networks
        vectors = [torch.cat([one.item_vectors, one.item_bias[:, None]], dim=1).detach() for one in networks]
        # The last column is the place of the one item bias of a lone network.
        self.vectors = torch.cat([*vectors, torch.zeros(len(vectors[0]), 1)], dim=1)

    def sample(self, histories: Histories) -> SampledPreferences:
        found = [sample_preferences(network, histories, self.noise) for network in self.networks]
        width = self.network.config.width + 1
        preference = torch.zeros(len(found), len(histories), len(found) * width)
        for place, one in enumerate(found):
            preference[place, :, place * width : (place + 1) * width - 1] = one.preference[0]
            preference[place, :, (place + 1) * width - 1] = 1.0
        return SampledPreferences(preference, torch.stack([one.log_variance for one in found]).mean(dim=0))
