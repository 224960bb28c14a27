"""Vectors of items without events: what categories and content say of an item, fitted to stand alone."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from variseq.model.losses import Negatives, Pairs, Targets, softmax_loss
from variseq.model.network import Network
from variseq.ranking.new_items import NewItemMap
from variseq.sequences.batches import group_by_length, make_batch, training_windows
from variseq.sequences.histories import Histories
from variseq.training.config import TrainingConfig
from variseq.training.trainer import log_frequency

MAX_EPOCHS, MAX_STEPS = 3, 200
LEARNING_RATE = 3e-3


def folded_with_new_items(
    network: Network, known: Histories, config: TrainingConfig
) -> tuple[Network, NewItemMap | None]:
    """The network without categories and content, in which items without events have vectors that stand alone.

    Beside an item's own vector the shared part is only a correction. Alone it is multiplied by a matrix A, under which
    the training events are most likely when no item has a vector of its own; the preferences stay as they are.

    Args:
        network: The trained network.
        known: The events that it was trained on.
        config: How it was trained.

    Returns:
        The folded network, and the map of its new items; None without categories and content.
    """
    embedding, plain = network.embedding, network.folded()
    if not embedding.is_sum:
        return plain, None
    shared = embedding.shared_vectors().detach()
    matrix = _stand_alone(plain.eval(), shared, known, config)
    is_new = ~embedding.has_own[:-1]
    with torch.no_grad():
        plain.embedding.item[:-1] = torch.where(is_new, shared @ matrix, plain.embedding.item[:-1])
        plain.item_bias[is_new[:, 0]] = 0.0
    of_content, of_category = (
        None if part is None else (part.detach() @ matrix).cpu().numpy()
        for part in (embedding.content_map, embedding.category)
    )
    return plain, NewItemMap(of_content, of_category)


def _stand_alone(
    network: Network, shared: Float[Tensor, "item hidden"], known: Histories, config: TrainingConfig
) -> Float[Tensor, "hidden hidden"]:
    """A: the vectors `shared` A forecast the training events best, with a bias for each item."""
    torch.manual_seed(config.seed)
    num_items, device = network.config.num_items, shared.device
    matrix = torch.eye(shared.shape[1], device=device, requires_grad=True)
    bias = network.item_bias.detach().clone().requires_grad_()
    generator = np.random.default_rng(config.seed)
    windows = training_windows(known, network.config.max_seq_len, generator)
    groups = group_by_length(windows.lengths, config.batch_tokens, generator.permutation(len(windows.first)))
    num_steps = min(MAX_STEPS, MAX_EPOCHS * len(groups))
    order = np.concatenate([generator.permutation(len(groups)) for _ in range(MAX_EPOCHS)])[:num_steps]
    optimizer = torch.optim.Adam([matrix, bias], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    frequency = log_frequency(known, num_items).to(device)
    for index in order.tolist():
        batch = make_batch(known, windows, groups[index], num_items).to(device)
        with torch.no_grad():
            preference = network(batch).preference.unsqueeze(0)
        token, target, _ = batch.targets()
        preference = preference if token is None else preference[:, token]
        masks = config.mask_seen and config.exclude_seen
        seen = Pairs(*batch.seen(num_items)) if masks else None
        is_large = num_items > config.full_softmax_max_items
        negatives = Negatives.draw(frequency, config.num_negatives) if is_large else None
        loss = softmax_loss(preference, shared @ matrix, bias, Targets.next(target), negatives, seen)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return matrix.detach()
