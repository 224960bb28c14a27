"""Measures on validation histories how a network uses its posteriors: KL, active units and functional tests."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from variseq.model.layers import MAX_LOG_VARIANCE, Posterior
from variseq.model.network import Network
from variseq.ranking.calibration import LENGTH_EDGES
from variseq.sequences.batches import Batch, Layout, Windows, make_batch
from variseq.sequences.histories import Histories

MIN_ACTIVE_SHARE = 0.10
MIN_SWAP_GAP_NATS = 0.05
ACTIVE_VARIANCE = 0.01
DIAGNOSTIC_TOKENS = 4096
MUTUAL_INFORMATION_SAMPLES = 512
SCORES_AT_ONCE = 1 << 22
"""16 MB."""
MOST_SCORES, FEWEST_TARGETS = 1 << 27, 128
"""Of a large catalog the losses are those of fewer targets: of at most so many pairs of a target and an item."""


@dataclass(frozen=True)
class PosteriorHealth:
    """Measures of the posteriors, in nats unless stated; lists are per dimension or per group of `LENGTH_EDGES`.

    `loss` and `swap_gap` are those of a sample, `..._at_mean` those of μ, which ranks items. `mean_spread` is the
    standard deviation of μ between events, `mean_sigma` that of a posterior, both averaged over dimensions;
    `clamped_share` is the share of log-variances at their upper bound.
    """

    kl: float
    kl_per_dimension: list[float]
    kl_per_position: list[float | None]
    active_share: float
    mutual_information: float
    swap_gap: float
    prior_gap: float
    loss: float
    loss_at_mean: float
    swap_gap_at_mean: float
    mean_sigma: float
    mean_spread: float
    clamped_share: float
    swap_gap_per_position: list[float | None]
    sigma_per_position: list[float | None]
    alarms: list[str]


@torch.no_grad()
def examine(network: Network, histories: Histories, seed: int = 0, mask_seen: bool = False) -> PosteriorHealth:
    """KL, active units, mutual information and two functional tests.

    Swap gap: by how much −log p(next item) rises with the posteriors of another history. Prior gap: the same with z
    drawn from N(0, 1). Active units follow Burda et al. 2016 (variance of μ over inputs above 0.01); the mutual
    information is E KL(q(z|x) ‖ p) − KL(q(z) ‖ p) with q(z) from the batch (Hoffman and Johnson 2016). NDCG is no
    measure of it: a network that ignores z can rank well.
    """
    was_training = network.training
    network.eval()
    generator = torch.Generator().manual_seed(seed)
    batch = diagnostic_batch(histories, network.config.max_seq_len, network.config.num_items, seed)
    batch = batch.to(network.item_bias.device)
    posterior = network.encode(batch)
    mean = posterior.mean
    latent = posterior.sample(torch.randn(mean.shape, generator=generator).to(mean))
    kl = posterior.kl_to_prior()
    sigma = torch.exp(0.5 * posterior.log_variance)
    variance = mean.var(dim=0, correction=0)
    other, position = neighbor_tokens(batch.layout), batch.layout.positions()
    if not batch.num_targets:
        batch = replace(batch, is_target=None)
    token = batch.targets()[0]
    every = -(-batch.num_targets // max(FEWEST_TARGETS, MOST_SCORES // network.config.num_items))
    target = (torch.arange(len(mean), device=mean.device) if token is None else token)[::every]
    drawn = torch.randn(latent.shape, generator=generator).to(latent)
    losses_of = partial(_losses, network, batch, mask_seen, every)
    loss, at_mean = losses_of(mean, latent), losses_of(mean, mean)
    swap_gap = losses_of(mean[other], latent[other]) - loss
    swapped_at_mean = float(losses_of(mean[other], mean[other]).mean())
    active = float((variance > ACTIVE_VARIANCE).float().mean())
    health = PosteriorHealth(
        kl=float(kl.sum(dim=1).mean()),
        kl_per_dimension=kl.mean(dim=0).tolist(),
        kl_per_position=_per_position(kl.sum(dim=1), position),
        active_share=active,
        mutual_information=mutual_information(posterior, latent, generator),
        swap_gap=float(swap_gap.mean()),
        prior_gap=float(losses_of(drawn, drawn).mean() - loss.mean()),
        loss=float(loss.mean()),
        loss_at_mean=float(at_mean.mean()),
        swap_gap_at_mean=swapped_at_mean - float(at_mean.mean()),
        mean_sigma=float(sigma.mean()),
        mean_spread=float(variance.sqrt().mean()),
        clamped_share=float((posterior.log_variance >= MAX_LOG_VARIANCE).float().mean()),
        swap_gap_per_position=_per_position(swap_gap, position[target]),
        sigma_per_position=_per_position(sigma.mean(dim=1), position),
        alarms=alarms(active, float(swap_gap.mean())),
    )
    network.train(was_training)
    return health


def alarms(active_share: float, swap_gap: float) -> list[str]:
    """Signs of posterior collapse; empty when the latent is used.

    >>> alarms(active_share=1.0, swap_gap=2.0)
    []
    """
    found = []
    if active_share < MIN_ACTIVE_SHARE:
        found.append(f"only {active_share:.0%} of the latent dimensions are active (less than {MIN_ACTIVE_SHARE:.0%})")
    if swap_gap < MIN_SWAP_GAP_NATS:
        found.append(
            f"with the posteriors of another user the loss rises by {swap_gap:.3f} nats only (less than "
            f"{MIN_SWAP_GAP_NATS}): the decoder hardly reads them"
        )
    return found


def diagnostic_batch(histories: Histories, max_seq_len: int, num_items: int, seed: int) -> Batch:
    """One batch of the latest events of random histories, of about `DIAGNOSTIC_TOKENS` tokens.

    Histories of one event have a start token alone, the same for all: they are taken only where there are no others.
    """
    offsets = histories.visits.offsets
    num_visits = histories.visits.lengths
    candidates = np.flatnonzero(num_visits >= 2)
    if len(candidates) < 2:
        candidates = np.flatnonzero(num_visits)
    order = np.random.default_rng(seed).permutation(candidates)
    lengths = np.minimum(num_visits[order], max_seq_len)
    chosen = order[: max(2, int(np.searchsorted(np.cumsum(lengths), DIAGNOSTIC_TOKENS)))]
    chosen = chosen[np.argsort(num_visits[chosen], kind="stable")]
    start, end = offsets[chosen], offsets[chosen + 1]
    windows = Windows(start, np.maximum(start, end - max_seq_len), end)
    return make_batch(histories, windows, np.arange(len(chosen)), num_items)


def neighbor_tokens(layout: Layout) -> Int[Tensor, " token"]:
    """For each token the token at the same position (or the last one) of the history before it in the batch."""
    starts = torch.cumsum(layout.lengths, 0) - layout.lengths
    other = (layout.slot // layout.longest - 1) % layout.num_histories
    return starts[other] + torch.minimum(layout.positions(), layout.lengths[other] - 1)


def mutual_information(
    posterior: Posterior, latent: Float[Tensor, "token latent"], generator: torch.Generator
) -> float:
    """E log q(z|x) − E log q(z) on a sample of tokens, in nats; at most log(sample size)."""
    size = min(MUTUAL_INFORMATION_SAMPLES, len(latent))
    chosen = torch.randperm(len(latent), generator=generator)[:size].to(latent.device)
    mean, log_variance, sample = posterior.mean[chosen], posterior.log_variance[chosen], latent[chosen]
    precision = torch.exp(-log_variance)
    # log N(z_i; μ_j, σ_j) for all pairs, with the square expanded so that it is two matrix products.
    squared = sample.square() @ precision.T - 2 * sample @ (mean * precision).T + (mean.square() * precision).sum(1)
    log_density = -0.5 * (squared + log_variance.sum(dim=1))
    return float((log_density.diagonal() - torch.logsumexp(log_density, dim=1) + math.log(size)).mean())


def _losses(
    network: Network,
    batch: Batch,
    mask_seen: bool,
    every: int,
    mean: Float[Tensor, "token latent"],
    latent: Float[Tensor, "token latent"],
) -> Float[Tensor, " target"]:
    """−log p of each n-th target (n = `every`); without seen items where training left them out."""
    preference = network.decoder(mean, latent.unsqueeze(0), batch.layout).squeeze(0)
    token, target, _ = batch.targets()
    preference, target = (preference if token is None else preference[token])[::every], target[::every]
    num_items = network.config.num_items
    # Allocated once: small results between large blocks would fragment the heap.
    losses = preference.new_empty(len(target))
    row, item = batch.seen(num_items) if mask_seen else (target[:0], target[:0])
    row, item = row[row % every == 0] // every, item[row % every == 0]
    rows = max(1, SCORES_AT_ONCE // num_items)
    for first in range(0, len(target), rows):
        block = slice(first, first + rows)
        scores = network.scores(preference[block], 0, num_items)
        of_target = scores.gather(1, target[block, None])
        inside = (row >= first) & (row < first + rows)
        scores[row[inside] - first, item[inside]] = -math.inf
        scores.scatter_(1, target[block, None], of_target)
        losses[block] = functional.cross_entropy(scores, target[block], reduction="none")
    return losses


def _per_position(value: Tensor, position: Tensor) -> list[float | None]:
    group = torch.bucketize(position, torch.tensor(LENGTH_EDGES, device=position.device), right=True) - 1
    groups = (value[group == index] for index in range(len(LENGTH_EDGES)))
    return [float(one.mean()) if len(one) else None for one in groups]
