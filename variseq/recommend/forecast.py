"""A network's posterior and what is counted into one probability for every item: one generalises, one remembers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from variseq.evaluation.baselines import FollowersOfLast
from variseq.model.network import Network
from variseq.model.posterior import SampledPreferences, posterior_noise, sample_preferences
from variseq.ranking.calibration import Calibration, GatingNetwork
from variseq.recommend.because import LogProbability
from variseq.recommend.memory import Memory
from variseq.recommend.recommender import TILE_HISTORIES, TILE_ITEMS
from variseq.sequences.histories import Histories

FLOOR = 1e-37


def voice_shares(
    gate: GatingNetwork, log_mass: Float[Tensor, " history"], log_variance: Float[Tensor, " history"]
) -> Float[Tensor, "voice history"]:
    """The shares of the voices, in the order of `GatingNetwork`, the network before them."""
    return torch.softmax(torch.stack([torch.zeros_like(log_mass), *gate.logits(log_mass, log_variance)]), dim=0)


@dataclass(frozen=True, eq=False)
class ForecastQuery:
    """What is known of the histories before any item is looked at.

    `preference` is divided by the temperature and has 1 / temperature as its last column, the weight of the item bias.
    `softmaxes` are those of the samples where the catalog is one block, so that they are worked out once.
    """

    preference: Float[Tensor, "sample history hidden_plus_one"]
    log_mass: Float[Tensor, "sample history"]
    log_variance: Float[Tensor, " history"]
    shares: Float[Tensor, "voice history"]
    followers: FollowersOfLast
    softmaxes: Float[Tensor, "sample history item"] | None


class Forecast:
    """p(i) = a · mean over samples of softmax(network / temperature)(i) + b · p(i | last item, counted) + c · trend(i)
    + d / items.

    a + b + c + d = 1 for each history, see `GatingNetwork`. Scores are log p. Samples are z = μ + σ ⊙ ε, with the noise
    of `posterior_noise` unless other noise is given; the mean of their softmaxes is the posterior predictive. On sparse
    logs counts of what followed the last item rank nearly as well as a deep model and know other things; in a mixture
    of probabilities each is heard where it is sure. The trend is what was popular of late when the model was fitted.
    """

    name = "variseq"
    gives_probabilities = True

    def __init__(
        self,
        network: Network,
        memory: Memory,
        calibration: Calibration,
        noise: Float[Tensor, "sample place latent"] | None = None,
    ) -> None:
        self.network = network
        self.noise = posterior_noise(network.config, calibration.num_samples) if noise is None else noise
        self.memory = memory
        self.calibration = calibration
        self.vectors = torch.cat([network.item_vectors, network.item_bias[:, None]], dim=1).detach()
        trend = memory.trend.log_share.exp().to(self.vectors)
        self.alike = torch.stack([trend, torch.full_like(trend, 1 / len(trend))])
        """What trend and anything say of every item to everybody."""

    def sample(self, histories: Histories) -> SampledPreferences:
        """The preferences that the forecast averages over."""
        return sample_preferences(self.network, histories, self.noise)

    def at_the_mean(self) -> Forecast:
        """The same of one sample, the posterior mean."""
        noise = posterior_noise(self.network.config, num_samples=0)
        return Forecast(self.network, self.memory, self.calibration, noise)

    def query(self, histories: Histories) -> ForecastQuery:
        return self.query_of(histories, self.sample(histories))

    @torch.no_grad()
    def query_of(self, histories: Histories, sampled: SampledPreferences) -> ForecastQuery:
        """The query of histories whose preferences are known already."""
        temperature = torch.from_numpy(self.calibration.temperature(histories.lengths)).to(sampled.preference)
        ones = torch.ones_like(sampled.preference[..., :1])
        preference = torch.cat([sampled.preference, ones], dim=2) / temperature[:, None]
        log_mass, softmaxes = self._network_mass(preference)
        shares = voice_shares(self.calibration.gate, log_mass.mean(dim=0), sampled.log_variance)
        followers = self.memory.transitions.query(histories)
        return ForecastQuery(preference, log_mass, sampled.log_variance, shares, followers, softmaxes)

    def scores(self, query: ForecastQuery, first: int, last: int) -> Float[Tensor, "history item"]:
        """log p of the items first:last."""
        # The floor keeps log p finite where nobody is heard but a network that is sure.
        return self.probabilities(query, first, last).clamp_(min=FLOOR).log_()

    def probabilities(self, query: ForecastQuery, first: int, last: int) -> Float[Tensor, "history item"]:
        """p of the items first:last; 0 where it is too small for a number of 32 bits."""
        weight = (query.shares[0] / len(query.preference))[:, None]
        mixed = self._mixed_others(query, first, last)
        for softmax in self._softmaxes(query, first, last):
            mixed.addcmul_(softmax, weight)
        return mixed

    def sampled_probabilities(
        self, query: ForecastQuery, item: Int[Tensor, "history k"]
    ) -> Float[Tensor, "sample history k"]:
        """p of some items under each sample alone; their mean over samples is p."""
        vectors = self.vectors[item]
        logits = torch.einsum("shw,hkw->shk", query.preference, vectors)
        neural = torch.exp(logits - query.log_mass[..., None])
        remembered = self.memory.transitions.probabilities(query.followers, item).to(neural)
        network, transitions, *_ = query.shares[..., None]
        alike = torch.einsum("vh,vhk->hk", query.shares[2:], self.alike[:, item])
        return network * neural + transitions * remembered + alike

    def sampled_entropy(self, query: ForecastQuery) -> Float[Tensor, "sample history"]:
        """The entropy in nats of what is forecast under each sample alone."""
        entropy = torch.zeros_like(query.log_mass)
        for first in range(0, len(self.vectors), TILE_ITEMS):
            last = min(first + TILE_ITEMS, len(self.vectors))
            other = self._mixed_others(query, first, last)
            for sample, softmax in enumerate(self._softmaxes(query, first, last)):
                p = torch.addcmul(other, softmax, query.shares[0][:, None]).clamp_(min=FLOOR)
                entropy[sample] -= torch.linalg.vecdot(p, p.log())
        return entropy

    def other_voices(self, histories: Histories) -> list[Float[Tensor, "history item"]]:
        """What each voice but the network says of all items, in the order of `GatingNetwork`."""
        transitions = self.memory.transitions
        counted = transitions.scores(transitions.query(histories), 0, len(self.vectors)).exp()
        return [counted, *(one.cpu().expand(len(histories), -1) for one in self.alike)]

    def _mixed_others(self, query: ForecastQuery, first: int, last: int) -> Float[Tensor, "history item"]:
        """What all voices but the network say of the items first:last, times their shares."""
        alike = query.shares[2:].T @ self.alike[:, first:last]
        return self.memory.transitions.add_probabilities(query.followers, first, last, query.shares[1], alike)

    def _network_mass(
        self, preference: Float[Tensor, "sample history hidden"]
    ) -> tuple[Float[Tensor, "sample history"], Float[Tensor, "sample history item"] | None]:
        """log Z of every sample; and where the catalog is one block, the samples' softmaxes."""
        num_items = len(self.vectors)
        if num_items > TILE_ITEMS:
            blocks = [self.vectors[first : first + TILE_ITEMS].T for first in range(0, num_items, TILE_ITEMS)]
            parts = [[torch.logsumexp(torch.mm(one, block), dim=1) for one in preference] for block in blocks]
            return torch.logsumexp(torch.stack([torch.stack(of_block) for of_block in parts]), dim=0), None
        log_mass = torch.empty(preference.shape[:2], device=preference.device)
        softmaxes = torch.empty(*preference.shape[:2], num_items, device=preference.device)
        for sample, one in enumerate(preference):
            # Powers of two are the cheaper ones, so the logits are those to base two.
            logits = torch.mm(one / math.log(2), self.vectors.T, out=softmaxes[sample])
            highest = logits.amax(dim=1, keepdim=True)
            mass = logits.sub_(highest).exp2_().sum(dim=1, keepdim=True)
            log_mass[sample] = (math.log(2) * highest + mass.log()).squeeze(1)
            logits.div_(mass)
        return log_mass, softmaxes

    def _softmaxes(self, query: ForecastQuery, first: int, last: int) -> Iterator[Float[Tensor, "history item"]]:
        """What the network says of the items first:last under each sample."""
        for sample, preference in enumerate(query.preference):
            if query.softmaxes is not None:
                yield query.softmaxes[sample, :, first:last]
            else:
                logits = torch.mm(preference, self.vectors[first:last].T)
                yield logits.sub_(query.log_mass[sample][:, None]).exp_()


def log_probability_at_the_mean(forecast: Forecast) -> LogProbability:
    """What reasons ask: log p of some items of each history at the posterior mean, for a fraction of the cost."""
    at_the_mean = forecast.at_the_mean()

    @torch.no_grad()
    def log_probability(
        histories: Histories, items: Int[np.ndarray, "copy k"], source: Int[np.ndarray, " copy"]
    ) -> Float[np.ndarray, "copy k"]:
        found = np.empty(items.shape, dtype=np.float32)
        for first in range(0, len(histories), TILE_HISTORIES):
            tile, bounds = slice(first, first + TILE_HISTORIES), histories.offsets[first : first + TILE_HISTORIES + 1]
            query = at_the_mean.query(histories.select(bounds[:-1], bounds[1:]))
            wanted = torch.from_numpy(items[tile].astype(np.int64))
            found[tile] = at_the_mean.sampled_probabilities(query, wanted)[0].log().float().cpu().numpy()
        return found

    return log_probability
