"""Several deterministic networks into one forecast that is unsure where they disagree, calibrated as a run's own is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from variseq.evaluation.evaluate import EvaluationOptions
from variseq.evaluation.splits import Part
from variseq.model.network import Network
from variseq.model.posterior import SampledPreferences, posterior_noise, sample_preferences
from variseq.ranking.calibration import Calibration
from variseq.recommend.calibrate import Calibrator
from variseq.recommend.forecast import Forecast
from variseq.recommend.memory import Memory
from variseq.sequences.histories import Histories

Make = Callable[[Calibration], Forecast]


def fitted(make: Make, num_samples: int, valid: Part, options: EvaluationOptions) -> Forecast:
    """A forecast with the temperatures and the gate that make validation most likely, as a run's own are found.

    Its networks must not have learned from the validation events.
    """
    return make(Calibrator(make(Calibration(num_samples)), valid, options).fit())


class EnsembleForecast(Forecast):
    """The mean of the softmaxes of several networks, each at its posterior mean, mixed with the memory as ever.

    All item vectors stand side by side; the preference of one network is zero at the vectors of the others. Source:
    Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep ensembles" (2017).
    """

    def __init__(self, networks: Sequence[Network], memory: Memory, calibration: Calibration) -> None:
        super().__init__(networks[0], memory, calibration, posterior_noise(networks[0].config, num_samples=0))
        self.networks = networks
        vectors = [torch.cat([one.item_vectors, one.item_bias[:, None]], dim=1).detach() for one in networks]
        # The last column is the place of the one item bias of a lone network.
        self.vectors = torch.cat([*vectors, torch.zeros(len(vectors[0]), 1)], dim=1)

    def sample(self, histories: Histories) -> SampledPreferences:
        found = [sample_preferences(network, histories, self.noise) for network in self.networks]
        width = self.network.config.hidden_size + 1
        preference = torch.zeros(len(found), len(histories), len(found) * width)
        for place, one in enumerate(found):
            preference[place, :, place * width : (place + 1) * width - 1] = one.preference[0]
            preference[place, :, (place + 1) * width - 1] = 1.0
        return SampledPreferences(preference, torch.stack([one.log_variance for one in found]).mean(dim=0))
