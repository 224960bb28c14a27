"""A trained network in the answering core: its encoder in torch, its tables, and the core as a recommender."""

from __future__ import annotations

import copy

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from variseq.artifacts.checkpoint import Checkpoint
from variseq.evaluation.baselines import LastItemTransitions, RecentPopular, State
from variseq.model.network import Network
from variseq.model.posterior import preferences
from variseq.ranking.attributes import UserAttributes
from variseq.ranking.calibration import Calibration
from variseq.ranking.catalog import Catalog
from variseq.ranking.content_table import ContentTable
from variseq.ranking.encoding import EncodedHistories
from variseq.ranking.engine import Engine
from variseq.ranking.mixture import SCORE_OFFSET, ItemTables, MixtureModel
from variseq.ranking.near_items import COORDINATES
from variseq.sequences.histories import Histories

NAME = "variseq"
CONTENT = "item_content"
"""The name of the codes of a `ContentTable` among the counts."""
HISTORIES_AT_ONCE, CELLS_AT_ONCE = 8, 1 << 25
"""Eight histories, whose blocks fit a core's cache, and at most so many samples × histories × items: 128 MB."""


class NetworkEncoder:
    """`Encoder` of a network in torch, on the device of the network."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.max_seq_len, self.latent_dim = network.config.max_seq_len, network.config.latent_dim

    def encode(
        self,
        histories: Histories,
        noise: Float[np.ndarray, "sample position latent"],
        source: Int[np.ndarray, " history"] | None = None,
    ) -> EncodedHistories:
        """See `Encoder.encode`; nothing is shared between histories with the same `source`."""
        preference, log_variance = preferences(self.network.eval(), histories, torch.from_numpy(noise))
        return EncodedHistories(preference.cpu().numpy(), log_variance.cpu().numpy())

    def with_items(self, vectors: Float[np.ndarray, "added hidden"]) -> NetworkEncoder:
        """See `Encoder.with_items`."""
        network = copy.deepcopy(self.network)
        network.config = network.config.model_copy(update={"num_items": network.config.num_items + len(vectors)})
        own = self.network.embedding.item.detach()
        added = torch.from_numpy(vectors).to(own)
        network.embedding.item = torch.nn.Parameter(torch.cat([own[:-1], added, own[-1:]]), requires_grad=False)
        return NetworkEncoder(network)


def count_events(num_items: int, histories: Histories | None = None) -> State:
    """What is counted in a log: what followed each item, popularity, and what was popular of late; None: no events."""
    transitions, trend = LastItemTransitions(num_items), RecentPopular(num_items)
    if histories is not None:
        transitions.fit(histories)
        trend.fit(histories)
    is_new = torch.full((num_items,), histories is not None)
    if histories is not None:
        is_new[torch.from_numpy(histories.item.astype(np.int64))] = False
    return {"log_trend": trend.log_share, "is_new": is_new} | transitions.state()


def mixture_model(
    network: Network, counts: State, calibration: Calibration, repeat_share: float | None = None
) -> MixtureModel:
    """The mixture of a network and the counts of `count_events`, with the network's own encoder."""
    attributes = UserAttributes.of_tensors({name: tensor.numpy() for name, tensor in counts.items()})
    vectors = network.vectors_with_bias
    names = ("log_share", "log_trend", "offsets", "item", "value", "is_new")
    content = ContentTable(counts[CONTENT].numpy()) if CONTENT in counts else None
    log_share, log_trend, offsets, follower, count, is_new = (counts[name].numpy() for name in names)
    score_offset = counts[SCORE_OFFSET].numpy() if SCORE_OFFSET in counts else None
    coordinates = counts[COORDINATES].numpy() if COORDINATES in counts else None
    further = (content, score_offset, coordinates)
    tables = ItemTables(vectors, log_share, log_trend, offsets, follower, count, is_new, *further)
    return MixtureModel(NetworkEncoder(network), tables, calibration, repeat_share, attributes)


def engine_of(checkpoint: Checkpoint) -> Engine:
    """A finished run as an engine, in torch."""
    calibrated = checkpoint.calibrated
    excludes_seen = bool(checkpoint.manifest["exclude_seen"])
    hurdle = calibrated.hurdle(excludes_seen)
    model = mixture_model(checkpoint.network, checkpoint.counts, calibrated.calibration, hurdle)
    return Engine(
        model,
        Catalog(checkpoint.vocabulary, checkpoint.items, model.tables),
        calibrated.thresholds,
        repeat_share=calibrated.repeat_share,
        exclude_seen=excludes_seen,
        usual_behavior=checkpoint.usual_behavior,
        thresholds_at_request=calibrated.thresholds_at_request,
        next_time=checkpoint.next_time,
        new_item_vectors=checkpoint.new_item_vectors,
        visit_gap=checkpoint.network.config.visit_gap,
    )


class ModelRecommender:
    """A mixture model as a `Recommender`: scores are log p."""

    gives_probabilities = True

    def __init__(self, model: MixtureModel, name: str = NAME) -> None:
        self.model, self.name = model, name
        # Kept from call to call: the system takes longer to give new memory than the softmax needs to fill it.
        self._memory = np.empty(0, dtype=np.float32)

    def scores(self, histories: Histories) -> Float[Tensor, "history item"]:
        """log p of all items."""
        model = self.model
        encoded = model.encode(histories)
        log_p = np.empty((len(histories), model.num_items), dtype=np.float32)
        cells = len(encoded.preference) * model.num_items
        # New items have numbers of their own besides.
        at_once = CELLS_AT_ONCE if self.model.calibration.new is None else CELLS_AT_ONCE // 4
        size = int(np.clip(at_once // cells, 1, HISTORIES_AT_ONCE))
        if len(self._memory) < size * cells:
            self._memory = np.empty(size * cells, dtype=np.float32)
        for first in range(0, len(histories), size):
            rows = np.arange(first, min(first + size, len(histories)))
            part = model.distribution(encoded.rows(rows), histories.rows(rows), memory=self._memory)
            np.log(part.probabilities(), out=log_p[rows[0] : rows[-1] + 1])
        return torch.from_numpy(log_p)
