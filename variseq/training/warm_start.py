"""Warm start: a run begins with the weights of an earlier run, for a log with further items and events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from variseq.artifacts.checkpoint import Checkpoint
from variseq.errors import InputError
from variseq.events.vocabulary import Vocabulary, positions_in
from variseq.model.layers import EventEmbedding
from variseq.model.network import ITEM_TABLES, Network, NetworkConfig
from variseq.training.config import TrainingConfig
from variseq.training.diagnosis import is_deterministic

SHAPE = (
    *("hidden_size", "latent_dim", "num_layers", "num_heads", "attention", "attention_dim"),
    *("num_members", "mean_scale", "value_loss"),
)
"""Settings that determine the shapes of the weights; a warm start takes them from the earlier run."""
EPOCHS_SHARE = 0.3
"""Epochs of a warm start, as a fraction of those of a cold start."""
OF_VALUES = "value_head.vector"
BY_ROW = (*ITEM_TABLES, "embedding.behavior", "value_head.bias", "value_head.count")
VALUE_SCALE = ("embedding.value_mean", "embedding.value_scale")


@dataclass(frozen=True, eq=False)
class Start:
    """The earlier network, and the index there of each item and behavior of the new log (-1: new)."""

    network: Network
    items: Int[np.ndarray, " item"]
    behaviors: Int[np.ndarray, " behavior"]

    @classmethod
    def of(cls, earlier: Checkpoint, vocabulary: Vocabulary) -> Start:
        """Raises InputError when no item of the new log is known to the earlier run."""
        items = positions_in(earlier.vocabulary.items, vocabulary.items)
        if not (items >= 0).any():
            raise InputError(
                f"The earlier run knows no item of this log: it has ids like {earlier.vocabulary.items[0].as_py()!r}, "
                f"the log like {vocabulary.items[0].as_py()!r}. Give a run of the same catalog, or fit from nothing."
            )
        index = {name: number for number, name in enumerate(earlier.vocabulary.behaviors)}
        return cls(earlier.network, items, np.array([index.get(name, -1) for name in vocabulary.behaviors]))


def shape_of(earlier: Checkpoint) -> dict[str, Any]:
    """The settings of the network that a warm start keeps."""
    return {name: getattr(earlier.network.config, name) for name in SHAPE}


def refuse_other_shape(network: NetworkConfig, earlier: NetworkConfig) -> None:
    """Raises InputError where the weights of the earlier network do not fit."""
    different = [name for name in SHAPE if getattr(network, name) != getattr(earlier, name)]
    if different:
        name = different[0]
        raise InputError(
            f"model.{name}={getattr(network, name)!r} does not fit the earlier run, which has "
            f"{getattr(earlier, name)!r}. A warm start keeps {', '.join(SHAPE)}: leave them out, or fit from nothing."
        )


def warm_training(config: TrainingConfig, earlier: Checkpoint, chosen: dict[str, Any]) -> TrainingConfig:
    """The training of a warm start: 0.3 of the epochs, with the noise and β at the end of the earlier run.

    Settings in `chosen` are not changed. Raises InputError if only one of the two runs is deterministic.
    """
    was_deterministic = is_deterministic(earlier.metrics)
    if config.chooses_noise and "deterministic_fraction" not in chosen:
        # The earlier run has chosen.
        config = config.model_copy(update={"deterministic_fraction": float(was_deterministic)})
    if was_deterministic != (config.deterministic_fraction >= 1):
        raise InputError(
            f"The earlier run was trained {'without' if was_deterministic else 'with'} noise and this one is to be "
            f"trained {'with' if was_deterministic else 'without'} it (training.deterministic_fraction). Use the same "
            "for both, or fit from nothing."
        )
    changes: dict[str, Any] = {"max_epochs": max(1, round(EPOCHS_SHARE * config.max_epochs))}
    if not was_deterministic:
        changes |= {"deterministic_fraction": 0.0, "kl_anneal_fraction": 0.0}
        last_beta = earlier.metrics[-1]["beta"] if earlier.metrics else 0.0
        changes |= {"beta": last_beta} if last_beta > 0 and config.kl_target is not None else {}
    return config.model_copy(update={name: value for name, value in changes.items() if name not in chosen})


@torch.no_grad()
def take_over(network: Network, start: Start) -> None:
    """Copy the earlier weights into a new network.

    A new item begins at the mean of its categories, or of all items, with small noise; its bias is the mean bias. A new
    behavior keeps its random weights.
    """
    earlier = {name: tensor.cpu() for name, tensor in start.network.folded().state_dict().items()}
    for name, tensor in network.state_dict().items():
        has_no_scale = name in VALUE_SCALE and not start.network.config.has_values
        if name in earlier and name not in BY_ROW and not has_no_scale:
            tensor.copy_(earlier[name])
    items = torch.from_numpy(start.items)
    is_known = items >= 0
    _take_over_items(network.embedding, earlier["embedding.item"], items)
    bias = earlier["item_bias"]
    network.item_bias.copy_(torch.where(is_known, bias[items.clamp(min=0)], bias.mean()))
    if network.value_head is not None and OF_VALUES in earlier:
        network.value_head.vector[:-1][is_known] = earlier[OF_VALUES][items[is_known]]
    behavior = network.embedding.behavior
    if behavior is not None and "embedding.behavior" in earlier:
        known = torch.from_numpy(np.flatnonzero(start.behaviors >= 0))
        behavior[known] = earlier["embedding.behavior"][torch.from_numpy(start.behaviors)[known]]


def _take_over_items(embedding: EventEmbedding, earlier: Tensor, items: Tensor) -> None:
    """Vectors of items: those of known ones are the earlier ones whether or not the new log has categories."""
    is_known, mean = items >= 0, earlier[:-1].mean(dim=0)
    known = torch.nonzero(is_known)[:, 0]
    noise = embedding.item[:-1].clone()
    wanted = mean + noise
    wanted[known] = earlier[items[known]]
    embedding.item[-1] = earlier[-1]
    if embedding.category is None:
        embedding.item[:-1] = wanted - embedding.shared_vectors()
        return
    number = embedding.link_offsets.diff()
    of_link = torch.repeat_interleave(torch.arange(len(items)), number)
    link_known = is_known[of_link]
    category = embedding.link_category[link_known]
    count = torch.bincount(category, minlength=len(embedding.category))
    # The nodes of a tree are summed, so each has its part of the vector.
    total = torch.zeros(len(items)).index_add_(0, of_link, embedding.link_weight)[of_link[link_known], None]
    sums = torch.zeros_like(embedding.category).index_add_(0, category, earlier[items[of_link[link_known]]] / total)
    embedding.category.copy_(torch.where(count[:, None] > 0, sums / count.clamp(min=1)[:, None], mean))
    has_categories = (number > 0) & ~is_known
    embedding.item[:-1] = torch.where(has_categories[:, None], noise, wanted - embedding.shared_vectors())
