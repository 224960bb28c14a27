"""What is changed in an ablation: settings, or one piece of the code put in place of another while a run lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional

from variseq.model import decoder, encoder
from variseq.model.latent import Posterior
from variseq.model.network import Network, NetworkConfig
from variseq.sequences.batches import Batch, Windows
from variseq.training import trainer
from variseq.training.settings import TrainingConfig

Patch = Callable[[], AbstractContextManager[Any]]
NO_NOISE: dict[str, Any] = {"training.deterministic_fraction": 1.0}
SAME_RATE = {"training.learning_rate": 0.003}
"""That of width 64: by default the rate follows from the width."""
EARLY = {"training.deterministic_fraction": 0.3, "training.kl_anneal_fraction": 0.1, "training.num_samples": 1}


@dataclass(frozen=True)
class Change:
    """One row: its name, the settings it asks for, and what stands in place of which code while it is trained."""

    name: str
    settings: dict[str, Any]
    patch: Patch = nullcontext


class PlainFeedForward(nn.Module):
    """GELU between two maps, with as many weights as the gated form has with `hidden_width`."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.input = nn.Linear(width, 3 * hidden_width // 2, bias=False)
        self.output = nn.Linear(3 * hidden_width // 2, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.output(functional.gelu(self.input(hidden)))


@contextmanager
def plain_feed_forward() -> Iterator[None]:
    """In the encoder and in the decoder."""
    with (
        mock.patch.object(encoder, "FeedForward", PlainFeedForward),
        mock.patch.object(decoder, "FeedForward", PlainFeedForward),
    ):
        yield


def no_distance_bias() -> AbstractContextManager[Any]:
    """Nothing but the mask tells of the order."""

    def mask_only(self: encoder.CausalSelfAttention, longest: int) -> Tensor:
        future = torch.ones(longest, longest, dtype=torch.bool).triu(1)
        # Zero times the bias, so that it still has a gradient.
        return (self.distance_bias[:, :1, None] * 0).masked_fill(future, float("-inf"))

    return mock.patch.object(encoder.CausalSelfAttention, "bias", mask_only)


def constant_rate() -> AbstractContextManager[Any]:
    """A warm-up, and then the same rate to the end."""

    def constant(config: TrainingConfig, step: int, num_steps: int) -> float:
        return config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))

    return mock.patch.object(trainer, "learning_rate", constant)


def latest_window_only() -> AbstractContextManager[Any]:
    """Of each user the latest events that fit into one window, the rest never."""

    def latest(histories: Any, max_seq_len: int, generator: Any) -> Windows:
        start, end = histories.offsets[:-1], histories.offsets[1:]
        start, end = start[end > start], end[end > start]
        return Windows(start, (end - max_seq_len).clip(min=start), end)

    return mock.patch.object(trainer, "training_windows", latest)


def gain_of_preferences(gain: float) -> Patch:
    """Scores begin so many times as large; the gain is learned from there."""
    begin = Network._begin_as_identity

    def begin_louder(self: Network) -> None:
        begin(self)
        with torch.no_grad():
            self.decoder.norm.weight.fill_(gain)

    return lambda: mock.patch.object(Network, "_begin_as_identity", begin_louder)


def fixed_gain() -> AbstractContextManager[Any]:
    """Preferences keep the length that they begin with: the root of the width."""
    begin = Network._begin_as_identity

    def begin_fixed(self: Network) -> None:
        begin(self)
        self.decoder.norm.weight.requires_grad_(False)

    return mock.patch.object(Network, "_begin_as_identity", begin_fixed)


def random_start() -> AbstractContextManager[Any]:
    """The weights as the layers are born with."""
    return mock.patch.object(Network, "_begin_as_identity")


@dataclass(frozen=True)
class PosteriorAfter(Posterior):
    """A posterior whose rate counts only what the posterior before it did not foretell."""

    foretold: Tensor
    foretold_log_variance: Tensor

    def kl_to_prior(self) -> Tensor:
        """KL(q(z_t) ‖ N(foretold, its variance)) per dimension in nats."""
        ratio = self.log_variance - self.foretold_log_variance
        distance = (self.mean - self.foretold).square() * torch.exp(-self.foretold_log_variance)
        return 0.5 * (distance + ratio.exp() - 1 - ratio)


@contextmanager
def transition_prior() -> Iterator[None]:
    """p(z_t | z_t−1) = N(A μ_t−1 + b, diag s), learned with the rest, in place of N(0, 1)."""
    init, encode = Network.__init__, Network._encode

    def with_prior(self: Network, config: NetworkConfig) -> None:
        init(self, config)
        self.transition = nn.Linear(config.latent_dim, config.latent_dim)
        self.transition_log_variance = nn.Parameter(torch.zeros(config.latent_dim))

    def encode_after(self: Network, batch: Batch, vectors: Tensor) -> Posterior:
        posterior = encode(self, batch, vectors)
        before = batch.layout.unpack(posterior.mean.detach())
        # The first posterior of a window has none before it: zeros.
        before = functional.pad(before, (0, 0, 1, 0))[:, :-1]
        foretold = self.transition(batch.layout.pack(before))
        log_variance = self.transition_log_variance.clamp(-6.0, 2.0).expand_as(foretold)
        return PosteriorAfter(posterior.mean, posterior.log_variance, foretold, log_variance)

    with mock.patch.object(Network, "__init__", with_prior), mock.patch.object(Network, "_encode", encode_after):
        yield


CHANGES = (
    Change("the defaults, without noise", NO_NOISE),
    Change("of each user only the latest window", NO_NOISE, latest_window_only),
    Change("dropout of 0.3 in place of 0.5", NO_NOISE | {"model.dropout": 0.3}),
    Change("dropout of 0.7", NO_NOISE | {"model.dropout": 0.7}),
    Change("width 32 in place of 64", NO_NOISE | SAME_RATE | {"model.hidden_size": 32, "model.latent_dim": 32}),
    Change("width 128", NO_NOISE | SAME_RATE | {"model.hidden_size": 128}),
    Change("one block in place of two", NO_NOISE | {"model.num_layers": 1}),
    Change("four blocks", NO_NOISE | {"model.num_layers": 4}),
    Change("the softmax over all items in place of 2,048", NO_NOISE | {"training.full_softmax_max_items": 20_000}),
    Change("batches of 512 positions in place of 1,024", NO_NOISE | {"training.batch_tokens": 512}),
    Change("batches of 2,048 positions", NO_NOISE | {"training.batch_tokens": 2048}),
    Change("512 negatives", NO_NOISE | {"training.num_negatives": 512}),
    Change("plain feed-forward in place of the gated one", NO_NOISE, plain_feed_forward),
    Change("no bias for distances", NO_NOISE, no_distance_bias),
    Change("random weights at the start", NO_NOISE, random_start),
    Change("scores begin twice as large", NO_NOISE, gain_of_preferences(2.0)),
    Change("scores begin half as large", NO_NOISE, gain_of_preferences(0.5)),
    Change("preferences of fixed length", NO_NOISE, fixed_gain),
    Change("a constant rate in place of the cosine", NO_NOISE, constant_rate),
    Change("no average of weights", NO_NOISE | {"training.ema_decay": 0.0}),
    Change("a constant rate and no average", NO_NOISE | {"training.ema_decay": 0.0}, constant_rate),
    Change("no decay of item vectors", NO_NOISE | {"training.item_weight_decay": 0.0}),
    Change("no categories", NO_NOISE | {"training.use_categories": False}),
    Change("dot-product attention over posteriors", NO_NOISE | {"model.attention": "dot"}),
    Change("noise late, mixture of four (the default)", {}),
    Change("noise early, one sample", EARLY),
    Change("noise late, no steering of the rate", {"training.beta": 0.0, "training.kl_target": None}),
    Change("noise late, learned transition prior, target of 40 nats", {}, transition_prior),
    Change("noise early, learned transition prior, target of 40 nats", EARLY, transition_prior),
)
