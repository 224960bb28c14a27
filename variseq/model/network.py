"""The network: its configuration, the forward pass from a batch to preferences, and the training objective."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from variseq.model import losses
from variseq.model.attention import ATTENTION_OF
from variseq.model.ensemble import DecoderEnsemble, LatentEnsemble, SideBySide
from variseq.model.layers import (
    INITIAL_SCALE,
    Decoder,
    Encoder,
    EventEmbedding,
    LatentHead,
    Posterior,
    SkipGram,
    pooling,
)
from variseq.model.processes import total
from variseq.model.value_head import TwoValuedHead, ValueEstimate, ValueHead, ValueTask
from variseq.sequences.batches import Batch
from variseq.sequences.histories import Histories
from variseq.sequences.value_biases import ValueBiases

ITEM_TABLES = ("embedding.item", "item_bias", "value_head.vector")
"""Parameters with a row for each item; a log without values has no value head."""
_GENERATOR = threading.Lock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of torch by a seed. Its generator is one for all threads, so others wait; it is set back."""
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class NetworkConfig(BaseModel):
    """The shape of the network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_items: int = Field(ge=2, description="size of the catalog")
    num_behaviors: int = Field(default=1, ge=1, description="behavior types of the log")
    has_gaps: bool = Field(default=False, description="embed the time since the event before")
    has_values: bool = Field(default=False, description="embed values and predict the next event's value")
    visit_gap: int | None = Field(
        default=None, ge=0, description="longest time between events of a visit, in microseconds; None: no visits"
    )
    hidden_size: int = Field(default=64, ge=4, description="numbers per item vector and hidden state")
    latent_dim: int = Field(default=64, ge=2, description="dimensions of a posterior")
    num_layers: int = Field(default=2, ge=1, description="encoder blocks")
    num_heads: int = Field(default=2, ge=1, description="attention heads of a block")
    num_members: int = Field(
        default=1,
        ge=1,
        description="networks side by side whose scores are averaged; each has its part of hidden_size, latent_dim "
        "and num_heads",
    )
    max_seq_len: int = Field(default=200, ge=2, description="events that the network looks back on")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="share of numbers dropped in training")
    attention: Literal["additive", "dot"] = Field(default="additive", description="form of encoder-decoder attention")
    attention_dim: int = Field(default=32, ge=1, description="hidden units of the additive attention")
    skip_gram_window: int = Field(
        default=0, ge=0, description="events after the next one that the last item alone forecasts in training; 0: none"
    )
    mean_scale: float | None = Field(
        default=1.0, gt=0, description="root mean square γ of μ: KL ≥ ½ γ² per dimension; None: μ is not normalized"
    )
    value_loss: Literal["gaussian", "squared", "logistic"] = Field(
        default="gaussian", description="loss of values; logistic for logs with two different values"
    )

    @model_validator(mode="after")
    def _check_shapes(self) -> NetworkConfig:
        if self.skip_gram_window and self.visit_gap is not None:
            raise ValueError("skip_gram_window is for logs without visits, whose events have an order: set it to 0")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        for name in ("hidden_size", "latent_dim", "num_heads"):
            if (size := getattr(self, name)) % self.num_members:
                raise ValueError(f"{name} {size} is not a multiple of num_members {self.num_members}")
        return self

    @property
    def member_size(self) -> int:
        """The part of `hidden_size` that each member of an ensemble has."""
        return self.hidden_size // self.num_members


@dataclass(frozen=True)
class Output:
    """Posteriors and preferences at every position of a batch."""

    posterior: Posterior
    preference: Float[Tensor, "token hidden"]


@dataclass(frozen=True)
class Objective:
    """The β-ELBO and its parts; NLL and KL in nats per position."""

    loss: Float[Tensor, ""]
    nll: Float[Tensor, ""]
    kl: Float[Tensor, ""]
    regression: Float[Tensor, ""]


@dataclass(frozen=True)
class Weights:
    """The weights of the terms of the objective, the scale of the noise and the number of samples.

    `skip_gram` is the weight of the event after the next one; each later one has this share of the weight before it.
    With `mask_seen` items of the history are left out of the softmax, as they are where seen items are not ranked.
    """

    beta: float = 0.0
    free_nats: float = 0.0
    regression: float = 0.0
    noise: float = 1.0
    num_samples: int = 1
    skip_gram: float = 0.0
    mask_seen: bool = False


@dataclass(frozen=True)
class Counts:
    """The numbers of positions, targets and known values that the terms of the objective are means over."""

    tokens: int
    targets: int
    values: int

    @classmethod
    def of(cls, batch: Batch) -> Counts:
        """Those of a batch."""
        return cls(batch.num_tokens, batch.num_targets, int(batch.targets()[2].isfinite().sum()))

    def shares_of(self, whole: Counts) -> tuple[float, float, float]:
        """The share that a part of a batch has of each; 0 where there is none."""
        pairs = ((self.tokens, whole.tokens), (self.targets, whole.targets), (self.values, whole.values))
        tokens, targets, values = (part / max(1, of_whole) for part, of_whole in pairs)
        return tokens, targets, values


class Network(nn.Module):
    """Encoder → posterior at every position → attention over posteriors → preference → a score for every item.

    >>> import numpy as np
    >>> from variseq.sequences.batches import make_batch, query_windows
    >>> from variseq.sequences.histories import Histories
    >>> histories = Histories.of_items([[3, 1], [2]])
    >>> network = Network(NetworkConfig(num_items=5, hidden_size=8, latent_dim=4)).eval()
    >>> batch = make_batch(histories, query_windows(histories, 200), np.arange(2), num_items=5)
    >>> network(batch).preference.shape  # two start tokens and three events
    torch.Size([5, 8])
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = EventEmbedding(
            config.num_items, config.hidden_size, config.num_behaviors, config.has_gaps, config.has_values
        )
        self.embedding.scale = math.sqrt(config.member_size)
        number, size, latent_dim = config.num_members, config.member_size, config.latent_dim // config.num_members
        num_heads, attention_of = config.num_heads // number, ATTENTION_OF[config.attention]
        encoders = [Encoder(size, num_heads, config.num_layers, config.dropout) for _ in range(number)]
        latents = [LatentHead(size, latent_dim, config.mean_scale) for _ in range(number)]
        decoders = [
            Decoder(latent_dim, size, attention_of(latent_dim, config.attention_dim), config.dropout)
            for _ in range(number)
        ]
        self.encoder: Encoder | SideBySide = encoders[0] if number == 1 else SideBySide(encoders)
        self.latent: LatentHead | LatentEnsemble = latents[0] if number == 1 else LatentEnsemble(latents)
        self.decoder: Decoder | DecoderEnsemble = decoders[0] if number == 1 else DecoderEnsemble(decoders)
        self.skip_gram: SkipGram | SideBySide | None = None
        if config.skip_gram_window:
            skip_grams = [SkipGram(size, config.dropout) for _ in range(number)]
            self.skip_gram = skip_grams[0] if number == 1 else SideBySide(skip_grams)
        self.item_bias = nn.Parameter(torch.zeros(config.num_items))
        self.value_task = ValueTask(config.hidden_size) if config.has_values else None
        head = TwoValuedHead if config.value_loss == "logistic" else ValueHead
        self.value_head = head(config.num_items, config.dropout) if config.has_values else None
        self._begin_as_identity()

    @torch.no_grad()
    def _begin_as_identity(self) -> None:
        # The network begins by scoring what resembles the last item: blocks add almost nothing, and the decoder undoes
        # a map to the posterior. On sparse logs this is never quite learned from random maps (development/log.md).
        for encoder, latent, decoder in self.members():
            for part in (encoder, decoder.feed_forward):
                for module in part.modules():
                    if isinstance(module, nn.Linear):
                        nn.init.normal_(module.weight, std=INITIAL_SCALE)
            if isinstance(latent.mean, nn.Linear) and isinstance(decoder.posterior, nn.Linear):
                nn.init.orthogonal_(latent.mean.weight)
                nn.init.zeros_(latent.mean.bias)
                decoder.posterior.weight.copy_(latent.mean.weight.T)

    def members(self) -> list[tuple[Encoder, LatentHead, Decoder]]:
        """Encoder, latent head and decoder of each member of the ensemble, or of the network itself."""
        of_each = (
            one.members if isinstance(one, SideBySide) else [one] for one in (self.encoder, self.latent, self.decoder)
        )
        return list(zip(*of_each, strict=True))

    def folded(self) -> Network:
        """A copy whose item vectors include categories and content; this network itself if it has neither."""
        if not self.embedding.is_sum:
            return self
        plain = copy.deepcopy(self)
        plain.embedding.fold()
        return plain

    @property
    def item_vectors(self) -> Float[Tensor, "item hidden"]:
        """The output vectors of all items: those of the embedding, without the start token."""
        return self.embedding.vectors()[: self.config.num_items]

    @property
    def vectors_with_bias(self) -> Float[np.ndarray, "item hidden_plus_one"]:
        """The item vectors with the item bias as last column, as `ItemTables` has them."""
        return torch.cat([self.item_vectors, self.item_bias[:, None]], dim=1).detach().cpu().numpy()

    def forward(self, batch: Batch, noise: float = 0.0) -> Output:
        """Posteriors and preferences at z = μ + noise · σ ⊙ ε: 0 gives the posterior mean, 1 a sample."""
        posterior = self.encode(batch)
        return Output(posterior, self._preferences(posterior, batch, noise, num_samples=1)[0])

    def encode(self, batch: Batch, vectors: Float[Tensor, "item_and_start hidden"] | None = None) -> Posterior:
        """The posterior after each event; `vectors` are those of the embedding, where they are known."""
        vectors = self.embedding.vectors() if vectors is None else vectors
        tokens = (batch.item, batch.behavior, batch.gap, batch.value, batch.value.isfinite())
        pool = None if batch.token is None else pooling(batch.token, batch.num_tokens)
        posterior: Posterior = self.latent(self.encoder(self.embedding(tokens, vectors, pool), batch.layout))
        return posterior

    def _preferences(
        self, posterior: Posterior, batch: Batch, noise: float, num_samples: int
    ) -> Float[Tensor, "sample token hidden"]:
        """The preferences under samples of the posteriors; every second sample mirrors the one before it (ε, −ε)."""
        samples = posterior.mean.unsqueeze(0)
        if noise:
            draws = [noise * torch.randn_like(posterior.mean) for _ in range((num_samples + 1) // 2)]
            mirrored = [sign * draw for draw in draws for sign in (1, -1)][:num_samples]
            samples = posterior.sample(torch.stack(mirrored))
        preference: Tensor = self.decoder(posterior.mean, samples, batch.layout)
        return preference

    def of_rows(self, rows: Int[Tensor, " row"]) -> dict[str, Tensor]:
        """Buffers with something of each item, for `rows` alone, by their names; `rows` ends with the start token.

        With them, and the same rows of `ITEM_TABLES`, in place of its own, the network is one of these items alone.
        """
        found = {f"embedding.{name}": tensor for name, tensor in self.embedding.of_rows(rows).items()}
        if self.value_head is not None:
            found |= {f"value_head.{name}": getattr(self.value_head, name)[rows] for name in ("bias", "count")}
        return found

    def scores(self, preference: Float[Tensor, "row hidden"], first: int, last: int) -> Float[Tensor, "row item"]:
        """Scores of the items first:last."""
        return torch.addmm(self.item_bias[first:last], preference, self.item_vectors[first:last].T)

    def set_known(self, known: Histories) -> None:
        """Set which items have events, and the biases of values, by the events that the network is trained on."""
        num_events = np.bincount(known.item, minlength=self.config.num_items)
        self.embedding.has_own[:-1, 0] = torch.from_numpy(num_events > 0)
        if self.value_head is not None:
            found, scale = ValueBiases.of(known, self.config.num_items), float(self.embedding.value_scale)
            bias = (found.mean - float(self.embedding.value_mean) + found.item) / scale
            self.value_head.bias[:-1] = torch.from_numpy(bias)
            self.value_head.count[:-1] = torch.from_numpy(found.count)
            self.value_head.spread.fill_(1.0)

    def values(self, batch: Batch) -> ValueEstimate:
        """The estimated value of each target, of whose visit nothing is known; only for logs with values."""
        assert self.value_head is not None
        of_events, of_targets, position = batch.by_event()
        targets = (of_targets.rectangle(column) for column in (batch.target_item, batch.target_time, position))
        value = self.embedding.standardise(batch.value)
        earlier = (of_events.rectangle(column) for column in (batch.item, batch.time, value))
        estimate: ValueEstimate = self.value_head(*targets, *earlier)
        mean, log_variance = of_targets.pack(torch.stack([estimate.mean, estimate.log_variance], dim=2)).unbind(1)
        return ValueEstimate(mean, log_variance)

    def objective(
        self,
        batch: Batch,
        weights: Weights,
        negatives: losses.Negatives | None = None,
        whole: Counts | None = None,
    ) -> Objective:
        """−log p(next item) + β · max(KL, free nats) + λ · regression + skip-gram, each a mean over positions.

        With several samples p is that of their mixture. Where only some events are targets, the first and the last term
        are means over those; the KL is a mean over all positions. Without negatives the softmax is over all items. With
        visits a position has the events of the next visit as targets: the likelihood of a set, without order.

        With β = 1 and no free nats the first two terms bound −log p(x_{t+1} | x_≤t) from above under the prior
        predictive. As q sees only x_≤t, this is an information bottleneck (Alemi et al. 2017, equation 14) rather than
        a classical ELBO.

        Where the batch is one process's part of a larger one, `whole` has the counts of that. Losses and gradients of
        all parts add up to those of the larger batch.
        """
        of_tokens, of_targets, of_values = (1.0, 1.0, 1.0) if whole is None else Counts.of(batch).shares_of(whole)
        vectors, num_items = self.embedding.vectors(), len(self.item_bias)
        posterior = self.encode(batch, vectors)
        preference = self._preferences(posterior, batch, weights.noise, weights.num_samples)
        token, target, target_value = batch.targets()
        if token is not None:
            preference = preference[:, token]
        seen = losses.Pairs(*batch.seen(num_items)) if weights.mask_seen else None
        # What each member forecasts alone.
        preference = self.config.num_members * preference
        nll = of_targets * self._softmax_loss(preference, vectors, losses.Targets.next(target), negatives, seen)
        per_dimension = of_tokens * posterior.kl_to_prior().mean(dim=0)
        kl = per_dimension.sum()
        penalty = kl
        if weights.free_nats:
            # Free bits on the batch mean of each dimension (Kingma et al. 2016, appendix C.8), which is that of all
            # processes; each adds its part.
            is_free = total(per_dimension.detach()) < weights.free_nats
            penalty = torch.where(is_free, of_tokens * weights.free_nats, per_dimension).sum()
        regression = nll.new_zeros(())
        loss = nll + weights.beta * penalty
        if self.skip_gram is not None and weights.skip_gram > 0:
            of_later = self._skip_gram_loss(batch, vectors, weights.skip_gram, negatives, seen)
            loss = loss + of_targets * of_later
        if self.value_head is not None and weights.regression > 0:
            value, estimate = self.embedding.standardise(batch.target_value), self.values(batch)
            value = value if batch.is_target is None else value.where(batch.is_target, torch.nan)
            regression = of_values * losses.value_loss(estimate, value, self.config.value_loss)
            of_task = self._value_task_loss(preference, functional.embedding(target, vectors), target_value)
            loss = loss + weights.regression * (regression + of_values * of_task)
        return Objective(loss, nll.detach() / self.config.num_members, kl.detach(), regression.detach())

    def _softmax_loss(
        self,
        preference: Float[Tensor, "sample target hidden"],
        vectors: Float[Tensor, "item_and_start hidden"],
        targets: losses.Targets,
        negatives: losses.Negatives | None,
        seen: losses.Pairs | None,
    ) -> Float[Tensor, ""]:
        """The sum of the losses of all members; each forecasts by its own part of the numbers."""
        number, vectors = self.config.num_members, vectors[: len(self.item_bias)]
        if number == 1:
            return losses.softmax_loss(preference, vectors, self.item_bias, targets, negatives, seen)
        parts = zip(preference.chunk(number, dim=-1), vectors.chunk(number, dim=-1), strict=True)
        of_each = [losses.softmax_loss(*part, self.item_bias, targets, negatives, seen) for part in parts]
        return torch.stack(of_each).sum()

    def _skip_gram_loss(
        self,
        batch: Batch,
        vectors: Float[Tensor, "item_and_start hidden"],
        weight: float,
        negatives: losses.Negatives | None,
        seen: losses.Pairs | None,
    ) -> Float[Tensor, ""]:
        """The loss of `SkipGram`, in nats per position: what comes after the next event, from the last item alone."""
        item, of_each = batch.later(weight, self.config.skip_gram_window)
        token = batch.targets()[0]
        is_kept = of_each.sum(dim=1) > 0
        if not is_kept.any():
            return of_each.sum()
        last_item = (batch.item if token is None else batch.item[token])[is_kept]
        assert self.skip_gram is not None
        preference = self.skip_gram(functional.embedding(last_item, vectors)).unsqueeze(0)
        targets = losses.Targets(item[is_kept], of_each[is_kept])
        seen = None if seen is None else seen.of_tokens(is_kept)
        loss = self._softmax_loss(preference, vectors, targets, negatives, seen)
        return loss * of_each.sum() / len(of_each)

    def _value_task_loss(
        self,
        preference: Float[Tensor, "sample target hidden"],
        item: Float[Tensor, "target hidden"],
        value: Float[Tensor, " target"],
    ) -> Float[Tensor, ""]:
        """The loss of `ValueTask`, a mean over samples."""
        assert self.value_task is not None
        standard = self.embedding.standardise(value)
        of_samples = [
            losses.value_loss(self.value_task(each, item), standard, self.config.value_loss) for each in preference
        ]
        return torch.stack(of_samples).mean()


class _AsForward(nn.Module):
    """The objective as a forward pass, which `functional_call` needs."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, *arguments: Any) -> Objective:
        return self.network.objective(*arguments)


def objective_with(network: Network, tensors: dict[str, Tensor], *arguments: Any) -> Objective:
    """`Network.objective` with other tensors in place of its own, such as those of `Network.of_rows`."""
    named = {f"network.{name}": tensor for name, tensor in tensors.items()}
    objective: Objective = functional_call(_AsForward(network), named, arguments)
    return objective
