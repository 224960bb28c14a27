"""A network into the forecast it makes with dropout left on: the rival of a posterior that costs no training."""

from __future__ import annotations

import torch

from variseq.errors import InputError
from variseq.evaluation.evaluate import EvaluationOptions
from variseq.evaluation.splits import Part
from variseq.model.posterior import SampledPreferences, mean_preferences
from variseq.ranking.calibration import Calibration
from variseq.recommend.calibrate import Calibrator
from variseq.recommend.forecast import Forecast
from variseq.sequences.histories import Histories

SEED = 0


class DropoutForecast(Forecast):
    """The mean over passes with dropout on of what the posterior mean forecasts; batch-norm stands as after training.

    `calibration.num_samples` passes are made. The same histories asked together get the same answer; which units are
    dropped for one of them depends on the others. Source: Gal and Ghahramani, "Dropout as a Bayesian approximation"
    (2016).
    """

    @torch.no_grad()
    def sample(self, histories: Histories) -> SampledPreferences:
        network, device = self.network, self.network.item_bias.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(SEED)
            network.train()
            network.latent.norm.eval()
            try:
                passes = [mean_preferences(network, histories) for _ in range(self.calibration.num_samples)]
            finally:
                network.eval()
        log_variance = torch.stack([one.log_variance for one in passes]).mean(dim=0)
        return SampledPreferences(torch.cat([one.preference for one in passes]), log_variance)


def with_dropout(forecast: Forecast, num_passes: int, valid: Part, options: EvaluationOptions) -> DropoutForecast:
    """The same network and memory with dropout left on, under temperatures and a gate of its own.

    They are those that make the validation targets most likely, as a run's own are found, so the network and its memory
    must not have learned from these. Raises InputError for a network without dropout.
    """
    if not forecast.network.config.dropout:
        raise InputError(
            f"{forecast.name!r} was trained without dropout (model.dropout = 0), so there is none to leave on. Ask "
            "without dropout, or fit again with some."
        )
    untuned = DropoutForecast(forecast.network, forecast.memory, Calibration(num_passes))
    tuned = DropoutForecast(forecast.network, forecast.memory, Calibrator(untuned, valid, options).fit())
    tuned.name = f"{forecast.name}, dropout"
    return tuned
