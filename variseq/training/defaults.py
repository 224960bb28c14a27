"""The one dial `size` and the properties of a log into the settings of network and training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from variseq.errors import InputError
from variseq.events.vocabulary import Vocabulary
from variseq.model.network import NetworkConfig
from variseq.sequences.histories import Histories
from variseq.training.kl_control import good_kl, refuse_unreachable_kl_target
from variseq.training.settings import TrainingConfig
from variseq.training.settings_error import settings_error

Size = Literal["tiny", "small", "medium", "large"]

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 32, "latent_dim": 32, "num_layers": 1, "num_heads": 1, "attention_dim": 16},
    "small": {"hidden_size": 64, "latent_dim": 64, "num_layers": 2, "num_heads": 2, "attention_dim": 16},
    "medium": {"hidden_size": 128, "latent_dim": 64, "num_layers": 2, "num_heads": 2, "attention_dim": 32},
    "large": {"hidden_size": 256, "latent_dim": 64, "num_layers": 3, "num_heads": 4, "attention_dim": 64},
}

LONGEST_WINDOW = 200
MAX_REPEAT_SHARE = 0.1
SHORT_MEAN_LENGTH = 20
"""Histories that are shorter on average make a sparse log: more dropout."""
LARGE_LOG = 120_000
"""Training events from which on noise comes late: a smaller log is learned by heart before (docs/ablations.md)."""
LATE_NOISE = {"deterministic_fraction": 0.75, "kl_anneal_fraction": 0.05, "num_samples": 4}
"""Noise from the start of the last quarter on, with the mixture of four samples in the loss. Only the last fifth of the
epochs can then be chosen, 4 or 5 by default: fewer than `patience`, so such a run always goes on to its end."""
POSITIONS_BUDGET = 3_000_000
"""Positions that a run may train on by default: the number of epochs follows from it (between 20 and 40)."""
EVENTS_PER_BATCH_POSITION = 128
BATCH_POSITIONS = (256, 2048)
"""The smallest and the largest: with one of 8,192 a large log takes ten epochs for six (docs/ablations.md)."""
MIN_KL_TARGET = 40.0
EVENTS_OF_A_WELL_KNOWN_ITEM = 100
"""From so many events an item on, one refit does as much as the mean of two, and in a large log posteriors are steered
to twice the KL, as wide ones only cost there. Below, items are little known: in a large log their vectors decay
more."""
ITEM_DECAY_EVENTS = 2.2
"""Decay of item vectors times the events of an item: what is known of an item against what is thought beforehand."""
STRONGER_DECAY = 2.0
"""So many times as strong it is in a large log of little known items, and as many times again in the refit."""
FROM_THE_LOG = ("num_items", "num_behaviors")
"""What the log alone decides."""


@dataclass(frozen=True)
class LogProperties:
    """What the defaults depend on."""

    num_events: int
    num_items: int
    num_behaviors: int
    mean_length: float
    long_length: float
    has_gaps: bool
    has_values: bool
    repeat_share: float

    @classmethod
    def of(cls, histories: Histories, vocabulary: Vocabulary) -> LogProperties:
        """The properties of the training histories; `long_length` is the 95th percentile of their lengths."""
        lengths = histories.lengths[histories.lengths > 0]
        values = histories.value[np.isfinite(histories.value)]
        return cls(
            num_events=histories.num_events,
            num_items=vocabulary.num_items,
            num_behaviors=len(vocabulary.behaviors),
            mean_length=float(lengths.mean()),
            long_length=float(np.quantile(lengths, 0.95)),
            has_gaps=histories.has_times,
            has_values=len(values) > 0 and float(values.std()) > 0,
            repeat_share=histories.num_repeats() / max(1, histories.num_targets),
        )

    @property
    def knows_its_items(self) -> bool:
        """Whether the items have `EVENTS_OF_A_WELL_KNOWN_ITEM` events on average."""
        return self.num_events >= EVENTS_OF_A_WELL_KNOWN_ITEM * self.num_items


def refuse_bad_settings(size: Size, seed: int, model: dict[str, Any], training: dict[str, Any]) -> None:
    """Raises InputError for settings that no log makes right; before a log is read, as that may take long."""
    any_log = LogProperties(1, 2, 1, 1.0, 1.0, has_gaps=False, has_values=False, repeat_share=0.0)
    network = network_config(size, any_log, model)
    refuse_unreachable_kl_target(network, training_config(any_log, network, seed, training))


def network_config(size: Size, properties: LogProperties, overrides: dict[str, Any]) -> NetworkConfig:
    """The network for a log: dropout falls with the length of histories, the window covers 95 % of them up to 200."""
    fixed = sorted(set(FROM_THE_LOG) & set(overrides))
    if fixed:
        raise InputError(f"model.{fixed[0]} cannot be set: it follows from the log. Leave it out.")
    derived: dict[str, Any] = {
        **SIZES[size],
        "num_items": properties.num_items,
        "num_behaviors": properties.num_behaviors,
        "has_gaps": properties.has_gaps,
        "has_values": properties.has_values,
        "dropout": 0.5 if properties.mean_length < SHORT_MEAN_LENGTH else 0.3 if properties.mean_length < 60 else 0.2,
        "max_seq_len": int(np.clip(properties.long_length + 1, 20, LONGEST_WINDOW)),
    }
    try:
        return NetworkConfig(**{**derived, **overrides})
    except ValidationError as error:
        raise settings_error(error, NetworkConfig, "model") from error


def training_config(
    properties: LogProperties, network: NetworkConfig, seed: int, overrides: dict[str, Any]
) -> TrainingConfig:
    """The training for a log: batches and epochs follow from the number of events, the learning rate from hidden_size.

    A batch is a 128th of the events (between 256 and 2,048 positions); the rate is 0.003 at hidden_size 64 and falls
    with its root. Item vectors decay the more the fewer events an item has, and twice as much in a large log of
    items with fewer than 100 events: 0.4 at 11 events, where it was seen to pay, and 0.8 in the refit. The KL is
    steered to a quarter above the least that a network can have, and to 40 nats at least; to twice that in a large log
    with 100 events an item or more. From 120,000 events on the noise comes in the last quarter only, and the mixture of
    four samples is trained: so it costs less ranking and still buys likelihood. A smaller log is learned by heart by
    then, and noise from the third part of the run on keeps it from that (docs/ablations.md). Where people come back to
    the same items (more than a tenth of the events), an item that the user already had may be recommended again;
    elsewhere it is left out. The mean of two refits answers, where items have fewer than 100 events; of those that have
    more nothing is learned by heart that a mean would take out.
    """
    kl = max(MIN_KL_TARGET, good_kl(network.latent_dim, network.bn_gamma))
    is_large, knows_its_items = properties.num_events >= LARGE_LOG, properties.knows_its_items
    stronger = STRONGER_DECAY if is_large and not knows_its_items else 1.0
    item_weight_decay = stronger * ITEM_DECAY_EVENTS * properties.num_items / max(properties.num_events, 1)
    derived: dict[str, Any] = {
        "seed": seed,
        "batch_tokens": int(
            np.clip(2 ** round(np.log2(max(properties.num_events, 1) / EVENTS_PER_BATCH_POSITION)), *BATCH_POSITIONS)
        ),
        "exclude_seen": properties.repeat_share <= MAX_REPEAT_SHARE,
        "learning_rate": round(3e-3 * (64 / network.hidden_size) ** 0.5, 5),
        "kl_target": 2 * kl if is_large and knows_its_items else kl,
        "item_weight_decay": round(item_weight_decay, 4),
        **(LATE_NOISE if is_large else {}),
        "refit_weight_decay_multiplier": stronger,
        "num_refits": 1 if knows_its_items else 2,
        "max_epochs": int(np.clip(POSITIONS_BUDGET // max(properties.num_events, 1), 20, 40)),
    }
    try:
        return TrainingConfig(**{**derived, **overrides})
    except ValidationError as error:
        raise settings_error(error, TrainingConfig, "training") from error
