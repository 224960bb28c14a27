"""The default settings of network and training, derived from `size` and from the properties of the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from variseq.errors import InputError
from variseq.events.vocabulary import Vocabulary
from variseq.model.network import NetworkConfig
from variseq.sequences.histories import Histories
from variseq.sequences.value_biases import two_values
from variseq.training.config import TrainingConfig, validated
from variseq.training.schedule import good_kl, refuse_unreachable_kl_target

Size = Literal["tiny", "small", "medium", "large"]


def _members(number: int) -> dict[str, int]:
    """So many small networks side by side."""
    sizes = {name: number * size for name, size in (("hidden_size", 64), ("latent_dim", 64), ("num_heads", 2))}
    return sizes | {"num_layers": 2, "attention_dim": 16, "num_members": number}


SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 32, "latent_dim": 32, "num_layers": 1, "num_heads": 1, "attention_dim": 16},
    "small": _members(1),
    "medium": _members(3),
    "large": _members(5),
}
"""`medium` and `large` are ensembles of small networks: more of them are better on every log that was tried, wider
ones are not (docs/development/log.md)."""

LONGEST_WINDOW = 200
MAX_REPEAT_SHARE = 0.1
SHORT_MEAN_LENGTH = 20
"""Histories that are shorter on average make a sparse log: more dropout."""
LONG_MEAN_LENGTH = 60
"""Without repeats, logs of longer histories are trained with a mask of seen items, others with the skip-gram task."""
LARGE_LOG = 120_000
"""Training events from which noise begins late; a smaller log is overfitted by then (docs/development/log.md)."""
NOISE_EPOCHS = 0.2
"""Share of the epochs of a large log that have noise, at the end. Validation chooses between them and those before."""
NOISE_RATE = 0.3
"""Highest learning rate of these epochs over that of the others."""
NOISE_SAMPLES = 4
"""Samples in the mixture that the loss of a large log is of."""
TOKEN_BUDGET = 3_000_000
"""Tokens that a run trains on without noise by default; the number of epochs follows from it (between 20 and 40)."""
HUGE_LOG = 1_000_000
"""Training events above which cost decides: the steps of a run do not grow further, and there is one short refit."""
FEWEST_EPOCHS = 3
ONE_SHORT_REFIT = {"num_refits": 1, "refit_fraction": 0.2}
EVENTS_PER_BATCH_TOKEN = 128
BATCH_TOKENS = (256, 2048)
"""The smallest and the largest batch; with 8,192 tokens a large log needs ten epochs for six (development/log.md)."""
MIN_KL_TARGET = 40.0
MANY_EVENTS_PER_ITEM = 100
"""From this mean number of events per item, one refit is as good as the mean of two, and a large log gets twice the
`kl_target`. Below it, the item vectors of a large log decay more."""
ITEM_DECAY_EVENTS = 2.2
"""`item_weight_decay` times the mean number of events per item."""
STRONGER_DECAY = 2.0
"""Factor of the decay in a large log with few events per item, and once more in the refit."""
SKIP_GRAM_WINDOW = 2
"""Events after the next one that an item alone forecasts, as a second task of training."""
FROM_THE_LOG = ("num_items", "num_behaviors", "visit_gap")
"""Settings that the log determines."""


@dataclass(frozen=True)
class LogProperties:
    """The properties of a log that the defaults depend on."""

    num_events: int
    num_items: int
    num_behaviors: int
    mean_length: float
    long_length: float
    has_gaps: bool
    has_values: bool
    repeat_share: float
    visit_gap: int | None = None
    has_two_values: bool = False

    @classmethod
    def of(cls, histories: Histories, vocabulary: Vocabulary) -> LogProperties:
        """The properties of the training histories; lengths are in visits, `long_length` is their 95th percentile."""
        lengths = histories.visits.lengths[histories.lengths > 0]
        values = histories.value[np.isfinite(histories.value)]
        return cls(
            num_events=histories.num_events,
            num_items=vocabulary.num_items,
            num_behaviors=len(vocabulary.behaviors),
            mean_length=float(lengths.mean()),
            long_length=float(np.quantile(lengths, 0.95)),
            has_gaps=histories.has_times,
            has_values=len(values) > 0 and float(values.std()) > 0,
            repeat_share=histories.num_repeats() / max(1, histories.distinct_in_visits().num_targets),
            visit_gap=histories.visit_gap,
            has_two_values=two_values(values) is not None,
        )

    @property
    def has_many_events_per_item(self) -> bool:
        """Whether the items have at least `MANY_EVENTS_PER_ITEM` events on average."""
        return self.num_events >= MANY_EVENTS_PER_ITEM * self.num_items


def refuse_bad_settings(size: Size, seed: int, model: dict[str, Any], training: dict[str, Any]) -> None:
    """Check settings before a log is read, which may take long. Raises InputError for those that no log allows."""
    any_log = LogProperties(1, 2, 1, 1.0, 1.0, has_gaps=False, has_values=False, repeat_share=0.0)
    network = network_config(size, any_log, model)
    refuse_unreachable_kl_target(network, training_config(any_log, network, seed, training))


def network_config(size: Size, properties: LogProperties, overrides: dict[str, Any]) -> NetworkConfig:
    """The network for a log.

    - `dropout`: less for longer histories.
    - `max_seq_len`: covers 95 % of the histories, up to 200 events.
    - `skip_gram_window`: 2 in a log of short histories without repeats and visits.
    - `value_loss`: logistic where the log has two different values.
    """
    fixed = sorted(set(FROM_THE_LOG) & set(overrides))
    if fixed:
        raise InputError(f"model.{fixed[0]} cannot be set: it follows from the log. Leave it out.")
    if overrides.get("value_loss") == "logistic" and properties.has_values and not properties.has_two_values:
        raise InputError(
            "model.value_loss=logistic is for logs with two different values, and this log has more. Leave it out."
        )
    mean_length = properties.mean_length
    is_sparse = mean_length < LONG_MEAN_LENGTH and properties.repeat_share <= MAX_REPEAT_SHARE
    derived: dict[str, Any] = {
        **SIZES[size],
        "num_items": properties.num_items,
        "num_behaviors": properties.num_behaviors,
        "has_gaps": properties.has_gaps,
        "has_values": properties.has_values,
        "value_loss": "logistic" if properties.has_two_values else "gaussian",
        "visit_gap": properties.visit_gap,
        "skip_gram_window": SKIP_GRAM_WINDOW if is_sparse and properties.visit_gap is None else 0,
        "dropout": 0.5 if mean_length < SHORT_MEAN_LENGTH else 0.3 if mean_length < LONG_MEAN_LENGTH else 0.2,
        "max_seq_len": int(np.clip(properties.long_length + 1, 20, LONGEST_WINDOW)),
    }
    return validated(NetworkConfig, derived | overrides, "model")


def training_config(
    properties: LogProperties, network: NetworkConfig, seed: int, overrides: dict[str, Any]
) -> TrainingConfig:
    """The training settings for a log. The reasons for the numbers are in docs/development/log.md.

    - `batch_tokens`: a 128th of the events, between 256 and 2,048.
    - `learning_rate`: 0.003 where a network has 64 numbers an item; it falls with the root of that. The members of an
      ensemble have that of one alone.
    - `item_weight_decay`: grows as the events per item fall, and is twice as large in a large log (120,000 events or
      more) with fewer than 100 events per item, but for the members of an ensemble.
    - `kl_target`: a quarter above the least KL of the network and at least 40 nats; twice that in a large log with 100
      or more events per item.
    - noise: in the last fifth of a large log, with four samples, and validation chooses between these epochs and those
      without noise; after 30 % of a smaller log.
    - `exclude_seen`: off where more than a tenth of the events repeat an item of the user.
    - `mask_seen`: on where seen items are not ranked and histories have 60 events or more on average.
    - `targets`: all visits of validation in a log of visits, for many people have one visit there.
    - `only_new_targets`: on in a log of visits where seen items are ranked.
    - `num_refits`: 2, or 1 with 100 or more events per item.
    - `max_epochs`: from 40 to 20 as the log grows to a million events, and a quarter more for the noise of a large log.
      Above a million it falls, at most to three, so that the number of steps stays.
    - above a million events one refit, with a fifth of the epochs.
    """
    kl = max(MIN_KL_TARGET, good_kl(network.latent_dim, network.mean_scale))
    excludes_seen = properties.repeat_share <= MAX_REPEAT_SHARE
    is_large, has_many_events_per_item = properties.num_events >= LARGE_LOG, properties.has_many_events_per_item
    rate = round(3e-3 * (64 / network.member_size) ** 0.5, 5)
    stronger = STRONGER_DECAY if is_large and not has_many_events_per_item else 1.0
    # What members of an ensemble overfit averages out.
    of_own = stronger if network.num_members == 1 else 1.0
    item_weight_decay = of_own * ITEM_DECAY_EVENTS * properties.num_items / max(properties.num_events, 1)
    derived: dict[str, Any] = {
        "seed": seed,
        "batch_tokens": int(
            np.clip(2 ** round(np.log2(max(properties.num_events, 1) / EVENTS_PER_BATCH_TOKEN)), *BATCH_TOKENS)
        ),
        "exclude_seen": excludes_seen,
        "mask_seen": excludes_seen and properties.mean_length >= LONG_MEAN_LENGTH,
        "targets": "last" if properties.visit_gap is None else "all",
        "only_new_targets": properties.visit_gap is not None and properties.repeat_share > MAX_REPEAT_SHARE,
        "learning_rate": rate,
        "kl_target": 2 * kl if is_large and has_many_events_per_item else kl,
        "item_weight_decay": round(item_weight_decay, 4),
        "refit_weight_decay_multiplier": stronger,
        "num_refits": 1 if has_many_events_per_item else 2,
        "max_epochs": _epochs(properties.num_events),
        **(_late_noise(int(overrides.get("max_epochs", _epochs(properties.num_events))), rate) if is_large else {}),
        **(ONE_SHORT_REFIT if properties.num_events > HUGE_LOG else {}),
    }
    return validated(TrainingConfig, derived | overrides, "training")


def _epochs(num_events: int) -> int:
    usual = int(np.clip(TOKEN_BUDGET // max(num_events, 1), 20, 40))
    if num_events >= LARGE_LOG:
        usual = round(usual / (1 - NOISE_EPOCHS))
    return usual if num_events <= HUGE_LOG else max(FEWEST_EPOCHS, round(usual * HUGE_LOG / num_events))


def _late_noise(max_epochs: int, learning_rate: float) -> dict[str, Any]:
    """Noise rises in the second half of its first epoch, so that all epochs before are wholly without it."""
    with_noise = max(1, round(NOISE_EPOCHS * max_epochs))
    return {
        "deterministic_fraction": round((max_epochs - with_noise + 0.5) / max_epochs, 4),
        "kl_anneal_fraction": round(0.4 / max_epochs, 4),
        "noise_learning_rate": round(NOISE_RATE * learning_rate, 5),
        "num_samples": NOISE_SAMPLES,
    }
