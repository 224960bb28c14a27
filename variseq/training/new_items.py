"""Vectors of items without events: what categories and content say of an item, fitted to stand alone."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from variseq.content.item_content import ItemContent
from variseq.model.layers import EventEmbedding
from variseq.model.losses import Pairs, Targets, softmax_loss
from variseq.model.network import Network
from variseq.model.optimizers import AdamW
from variseq.ranking.new_items import NewItemVectors
from variseq.sequences.batches import make_batch
from variseq.sequences.histories import Histories
from variseq.training.config import TrainingConfig
from variseq.training.trainer import epoch_plan, item_frequency, seed_of_step

MAX_EPOCHS, MAX_STEPS = 3, 200
LEARNING_RATE = 3e-3
MANY_ITEMS = 10
"""With so many items with events for each number of content, the map that was trained beside own vectors is used."""
RIDGES = (0.1, 1.0, 10.0, 100.0, 1000.0)


def folded_with_new_items(
    network: Network,
    known: Histories,
    config: TrainingConfig,
    names: tuple[str, ...] = (),
    encoder: ItemContent | None = None,
) -> tuple[Network, NewItemVectors | None]:
    """The network without categories and content, in which items without events have vectors that stand alone.

    Beside an item's own vector the shared part is only a correction. Alone it is multiplied by a matrix, under which
    the training events are most likely when no item has a vector of its own; the preferences stay as they are. Where
    there are few items for the numbers that are known of each, the shared part fits these items too well. There the
    map is a ridge regression of the trained vectors.

    Args:
        network: The trained network.
        known: The events that it was trained on.
        config: How it was trained.
        names: The names of the categories.
        encoder: What gave the content vectors.

    Returns:
        The folded network, and what gives new items their vectors; None without categories and content.
    """
    embedding, plain = network.embedding, network.folded()
    if not embedding.is_sum:
        return plain, None
    is_new = ~embedding.has_own[:-1, 0]
    content_map, category = embedding.content_map, embedding.category
    if content_map is None or int((~is_new).sum()) >= MANY_ITEMS * len(content_map):
        matrix = _stand_alone(plain.eval(), embedding.shared_vectors().detach(), known, config)
        of_content, of_category = (None if part is None else part.detach() @ matrix for part in (content_map, category))
    else:
        vectors = plain.item_vectors.detach()[~is_new]
        features = torch.cat([embedding.content, *([] if category is None else [_shares(embedding)])], dim=1)[~is_new]
        weight = ridge(features.double(), (vectors - vectors.mean(dim=0)).double()).float()
        of_content, of_category = weight[: len(content_map)], None if category is None else weight[len(content_map) :]
    with torch.no_grad():
        of_all = torch.zeros_like(plain.item_vectors)
        if of_content is not None:
            of_all += embedding.content @ of_content
        if of_category is not None:
            of_all += embedding.of_categories(of_category)
        plain.embedding.item[:-1] = torch.where(is_new[:, None], of_all, plain.embedding.item[:-1])
        plain.item_bias[is_new] = 0.0
    maps = (of_content, of_category, None if content_map is None else content_map.detach())
    arrays = [None if one is None else one.cpu().numpy() for one in maps]
    return plain, NewItemVectors(arrays[0], arrays[1], names, encoder, arrays[2])


def _shares(embedding: EventEmbedding) -> Float[Tensor, "item category"]:
    """What each category of an item counts."""
    assert embedding.category is not None
    length = embedding.link_offsets.diff()
    row = torch.repeat_interleave(torch.arange(len(length), device=length.device), length)
    shares = torch.zeros(len(length), len(embedding.category), device=length.device)
    shares[row, embedding.link_category] = embedding.link_weight
    return shares


def ridge(
    features: Float[Tensor, "item feature"], vectors: Float[Tensor, "item hidden"]
) -> Float[Tensor, "feature hidden"]:
    """The ridge regression of vectors with the least squared error on items left out, one at a time.

    The error follows from the whole fit: Golub, Heath and Wahba 1979, equation 1.2.
    """
    left, strength, right = torch.linalg.svd(features, full_matrices=False)
    turned, best = left.T @ vectors, (float("inf"), features)
    for penalty in RIDGES:
        shrunk = strength**2 / (strength**2 + penalty)
        leverage = (left**2 * shrunk).sum(dim=1, keepdim=True)
        error = float((((vectors - left @ (shrunk[:, None] * turned)) / (1 - leverage)) ** 2).sum())
        if error < best[0]:
            best = error, right.T @ ((strength / (strength**2 + penalty))[:, None] * turned)
    return best[1]


def _stand_alone(
    network: Network, shared: Float[Tensor, "item hidden"], known: Histories, config: TrainingConfig
) -> Float[Tensor, "hidden hidden"]:
    """A: the vectors `shared` A forecast the training events best, with a bias for each item."""
    torch.manual_seed(config.seed)
    matrix = torch.eye(shared.shape[1], device=shared.device, requires_grad=True)
    bias = network.item_bias.detach().clone().requires_grad_()
    plans = [epoch_plan(known, network.config, config, epoch) for epoch in range(MAX_EPOCHS)]
    batches = [(windows, group) for windows, groups in plans for group in groups][:MAX_STEPS]
    optimizer = AdamW([matrix, bias], lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    frequency, num_items = item_frequency(known, network, config), network.config.num_items
    for step, (windows, group) in enumerate(batches):
        batch = make_batch(known, windows, group, num_items).to(shared.device)
        with torch.no_grad():
            preference = network(batch).preference.unsqueeze(0)
        of_items, of_bias, negatives = shared, bias, None
        if frequency is not None:
            drawn = frequency.draw(config.num_negatives, seed_of_step(config.seed, step))
            rows = batch.rows(drawn.items, start=num_items)
            of_items, of_bias = shared[rows[:-1]], bias[rows[:-1]]
            batch, negatives = batch.among(rows), drawn.among(rows)
        token, target, _ = batch.targets()
        preference = preference if token is None else preference[:, token]
        seen = Pairs(*batch.seen(len(of_bias))) if config.masks_seen else None
        loss = softmax_loss(preference, of_items @ matrix, of_bias, Targets.next(target), negatives, seen)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return matrix.detach()
