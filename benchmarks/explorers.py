"""What a shop has seen into the list of each shopper: a small network that learns on, and policies that explore."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from closed_loop import LoopOptions, Shoppers
from jaxtyping import Float, Int
from torch import Tensor

from variseq.model.network import Network, NetworkConfig, Weights
from variseq.sequences.batches import group_by_length, make_batch, query_windows, training_windows
from variseq.sequences.histories import Histories
from variseq.training.defaults import SIZES
from variseq.training.kl_control import KlController
from variseq.training.settings import TrainingConfig
from variseq.training.trainer import build_optimizer, gradient_step

MAX_LENGTH = 30
BATCH_POSITIONS = 1024


@dataclass(frozen=True)
class Policy:
    """How a list is made of the network's scores; one without any of these numbers is greedy.

    `posterior` samples z = μ + posterior · σ ⊙ ε for each shopper and round. `item` adds item / √(events of the item +
    1) · ε to each score, and `item_vector` a sample of what the item's vector may be: item_vector · √(Pᵀ (I + Σ P_t
    P_tᵀ)⁻¹ P) · ε, the sum over the events of the item. `score` adds score · Gumbel noise to each score, the same for
    all: k items drawn one after the other from the softmax at that temperature. `epsilon` puts a random item into each
    place of the list with that chance.
    """

    name: str
    posterior: float = 0.0
    item: float = 0.0
    item_vector: float = 0.0
    score: float = 0.0
    epsilon: float = 0.0


@dataclass(frozen=True)
class Learning:
    """How the network learns: some epochs before the loop, the first half of them without noise, then some a round."""

    start_epochs: int = 40
    epochs_a_round: int = 2
    learning_rate: float = 3e-3
    learning_rate_in_the_loop: float = 2e-3
    dropout: float = 0.5
    kl_target: float = 40.0


class Learner:
    """A tiny network, trained by the package's own objective, rate control and step; it forgets nothing in between."""

    def __init__(self, num_items: int, learning: Learning, seed: int) -> None:
        torch.manual_seed(seed)
        self.learning = learning
        self.network = Network(
            NetworkConfig(**SIZES["tiny"], num_items=num_items, max_seq_len=MAX_LENGTH, dropout=learning.dropout)
        )
        config = TrainingConfig()
        self._clip_norm = config.max_grad_norm
        self._optimizer = build_optimizer(self.network, config)
        self._controller = KlController(config.beta, learning.kl_target)
        self._random = np.random.default_rng(seed)

    def begin(self, histories: Histories) -> None:
        """Learn what was known before the loop."""
        half = self.learning.start_epochs // 2
        self._train(histories, half, self.learning.learning_rate, noise=0.0)
        self._train(histories, self.learning.start_epochs - half, self.learning.learning_rate, noise=1.0)

    def go_on(self, histories: Histories) -> None:
        """Learn for a short while on everything seen so far."""
        self._train(histories, self.learning.epochs_a_round, self.learning.learning_rate_in_the_loop, noise=1.0)

    def _train(self, histories: Histories, num_epochs: int, learning_rate: float, noise: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self.network.train()
        for _ in range(num_epochs):
            windows = training_windows(histories, MAX_LENGTH, self._random)
            order = self._random.permutation(len(windows.first))
            for members in group_by_length(windows.lengths, BATCH_POSITIONS, order):
                batch = make_batch(histories, windows, members, self.network.config.num_items)
                objective = self.network.objective(batch, Weights(beta=self._controller.beta * noise, noise=noise))
                gradient_step(self.network, self._optimizer, objective.loss, self._clip_norm)
                if noise:
                    self._controller.observe(float(objective.rate))
        self.network.eval()


class Explorer:
    """A policy with the random numbers of one seed."""

    def __init__(self, policy: Policy, seed: int) -> None:
        self.policy = policy
        self._random = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def lists(self, network: Network, histories: Histories, k: int) -> Int[np.ndarray, "shopper k"]:
        """The list of each shopper, best item first."""
        policy, num_items = self.policy, network.config.num_items
        batch = make_batch(histories, query_windows(histories, MAX_LENGTH), np.arange(len(histories)), num_items)
        posterior = network.encode(batch)
        latent = (
            posterior.sample(policy.posterior * self._noise(posterior.mean)) if policy.posterior else posterior.mean
        )
        preference = network.decoder.last(posterior.mean, latent.unsqueeze(0), batch.layout).squeeze(0)
        scores = network.scores(preference, 0, num_items)
        if policy.item:
            num_events = torch.from_numpy(np.bincount(histories.item, minlength=num_items))
            scores = scores + policy.item * torch.rsqrt(num_events + 1.0) * self._noise(scores)
        if policy.item_vector:
            doubt = item_vector_doubt(network, histories, preference)
            scores = scores + policy.item_vector * doubt * self._noise(scores)
        if policy.score:
            uniform = torch.rand(scores.shape, generator=self._random).clamp(1e-7, 1 - 1e-7)
            scores = scores - policy.score * torch.log(-torch.log(uniform))
        best = scores.topk(k, dim=1).indices
        if policy.epsilon:
            is_random = torch.rand(best.shape, generator=self._random) < policy.epsilon
            best = torch.where(is_random, torch.randint(num_items, best.shape, generator=self._random), best)
        return best.numpy()

    def _noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self._random)


@torch.no_grad()
def item_vector_doubt(
    network: Network, histories: Histories, preference: Float[Tensor, "shopper hidden"]
) -> Float[Tensor, "shopper item"]:
    """√(Pᵀ (I + Σ P_t P_tᵀ)⁻¹ P) for each shopper and item, the sum over the places where the item came next.

    The posterior of a linear last layer (MacKay 1992): the score of an item is unsure for a preference that is unlike
    all those that the item followed.
    """
    windows = training_windows(histories, MAX_LENGTH, np.random.default_rng(0))
    precision = torch.eye(network.config.hidden_size).repeat(network.config.num_items, 1, 1)
    for members in group_by_length(windows.lengths, 4 * BATCH_POSITIONS, np.arange(len(windows.first))):
        batch = make_batch(histories, windows, members, network.config.num_items)
        before = network(batch).preference
        precision.index_add_(0, batch.target_item, before[:, :, None] * before[:, None, :])
    variance = torch.einsum("sw,iwv,sv->si", preference, torch.linalg.inv(precision), preference)
    return variance.clamp_min(0.0).sqrt()


def play(options: LoopOptions, learning: Learning, policy: Policy, seed: int) -> tuple[list[float], float]:
    """One loop of a policy that learns: the share of shoppers who took something in each round, catalog coverage."""
    shoppers, explorer = Shoppers(options, seed), Explorer(policy, seed)
    learner = Learner(options.num_items, learning, seed)
    learner.begin(shoppers.histories())
    rewards, was_shown = [], np.zeros(options.num_items, dtype=bool)
    for round_number in range(options.num_rounds):
        lists = explorer.lists(learner.network, shoppers.histories(), options.k)
        was_shown[lists] = True
        rewards.append(float(shoppers.respond(round_number, lists).mean()))
        learner.go_on(shoppers.histories())
    return rewards, float(was_shown.mean())


def play_without_learning(options: LoopOptions, name: str, seed: int) -> tuple[list[float], float]:
    """The same for lists at random ("random"), or of the items that are truly most probable ("oracle")."""
    shoppers, random = Shoppers(options, seed), np.random.default_rng([seed, 2])
    rewards, was_shown = [], np.zeros(options.num_items, dtype=bool)
    for round_number in range(options.num_rounds):
        truth = shoppers.true_probabilities()
        worth = truth if name == "oracle" else random.random(truth.shape)
        lists = np.argsort(-worth, axis=1, kind="stable")[:, : options.k]
        was_shown[lists] = True
        rewards.append(float(shoppers.respond(round_number, lists).mean()))
    return rewards, float(was_shown.mean())
