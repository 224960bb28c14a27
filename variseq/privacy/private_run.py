"""A run that is made of private releases alone: what is fitted, and the folder that it is written to."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from safetensors.numpy import save_file

from variseq.artifacts.folder import ENCODER, TABLES, new_artifact
from variseq.events.items import ItemTable
from variseq.events.vocabulary import Vocabulary
from variseq.privacy.accounting import Ledger
from variseq.privacy.contributions import DECAY, WINDOW
from variseq.privacy.release import PairCounts, PrivacyOptions
from variseq.ranking.calibration import LENGTH_EDGES, Calibration, CalibrationResult, GatingNetwork
from variseq.ranking.counts import OwnHistory
from variseq.ranking.encoding import Encoder, NoEncoder
from variseq.ranking.mixture import ItemTables, MixtureModel

if TYPE_CHECKING:
    from variseq.model.network import Network

POPULARITY, UNIFORM = 0.08, 0.02
"""The weights of popularity and of a uniform part. They are public, as validation would look at the log."""
OWN = 0.5
"""The weight of what the person did before, where people return to items."""
LEAST_WEIGHT = 1e-9
"""Of a network, in place of 0: weights are a softmax."""
REPEATS = 0.0
"""The probability of seen items where they are left out."""
COUNTED = ("log_share", "log_trend", "offsets", "follower", "count", "is_new")
"""The tables of a folder besides the vectors, as an export has them."""
PUBLIC = (
    "the catalog of items, with all that is known of them",
    "the number of users, rounded up to one digit",
    "the names of behaviors and columns, how rows are read, and all options of the fit",
)
NOT_COVERED = ("the log itself", "evaluations of it", "the histories in the store of a server")


@dataclass(frozen=True)
class NetworkShare:
    """How a network stands beside the counts.

    Args:
        weight: Its weight in the mixture, from 0 to below 1.
        temperature: What its scores are divided by.
    """

    weight: float
    temperature: float = 1.0


@dataclass(frozen=True, eq=False)
class PrivateRun:
    """What was fitted with differential privacy. Nothing in it was computed from the log but what the ledger lists.

    Args:
        ledger: What was released of the log.
        counts: What is made of the release.
        options: The budget, and what is public.
        vocabulary: The public catalog; its users are not written.
        items: What is known of the items.
        split: How the log was divided, without counts.
        parties: How many logs were summed.
        network: A network that was trained on the same items, with its share; None: counts alone.
    """

    ledger: Ledger
    counts: PairCounts
    options: PrivacyOptions
    vocabulary: Vocabulary
    items: ItemTable
    split: dict[str, Any]
    parties: int = 1
    network: tuple[Network, NetworkShare] | None = None

    def save(self, folder: Path) -> None:
        """Write the folder, whole or not at all.

        Raises:
            InputError: The folder exists or cannot be written.
            MissingDependencyError: A network needs the extra `train`.
        """
        nobody = replace(self.vocabulary, users=self.vocabulary.users[:0])
        vectors = self.counts.vectors if self.network is None else self.network[0].vectors_with_bias
        tables = item_tables(self.counts, vectors)
        named = {"item_vectors": tables.vectors[:]} | {name: getattr(tables, name) for name in COUNTED}
        with new_artifact(folder, self._manifest(), nobody, self.items) as unfinished:
            if self.network is not None:
                from variseq.model.exportable import encoder_tables, write_encoder

                named |= encoder_tables(self.network[0])
                write_encoder(self.network[0], unfinished / ENCODER)
            save_file({name: np.ascontiguousarray(table) for name, table in named.items()}, unfinished / TABLES)

    def _manifest(self) -> dict[str, Any]:
        excludes = self.options.exclude_seen
        network, share = (None, None) if self.network is None else self.network
        calibrated = CalibrationResult(calibration(self.options, self.counts.chosen_share, share), None, REPEATS, {})
        federated = {"federated": {"parties": self.parties}} if self.parties > 1 else {}
        is_exact = not any(one.noise_multiplier for one in self.ledger.mechanisms)
        privacy = {
            **({} if is_exact else self.ledger.to_json()),
            "public": list(PUBLIC),
            "not_covered": list(NOT_COVERED),
            "options": asdict(self.options),
            **({} if share is None else {"network_weight": share.weight}),
            **federated,
        }
        return {
            **(federated if is_exact else {}),
            "privacy": None if is_exact else privacy,
            "network": None if network is None else network.config.model_dump(),
            "calibration": calibrated.to_json(),
            "usual_behavior": 0,
            "exclude_seen": excludes,
            "latent": {},
            "protocol": self.split,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {name: version(name) for name in ("variseq", "numpy")},
        }


def item_tables(counts: PairCounts, vectors: Float[np.ndarray, "item vector_plus_one"]) -> ItemTables:
    """What a private model has of its items."""
    log_share = np.log(counts.share).astype(np.float32)
    is_new = np.zeros(len(log_share), dtype=bool)
    return ItemTables(vectors, log_share, log_share, counts.offsets, counts.neighbor, counts.count, is_new)


def mixture_model(
    counts: PairCounts,
    options: PrivacyOptions,
    network: tuple[Encoder, Float[np.ndarray, "item vector_plus_one"], NetworkShare] | None = None,
) -> MixtureModel:
    """The model that a folder with these counts answers with.

    Args:
        counts: What was released.
        options: The options of the fit.
        network: The encoder, `vectors_with_bias` and share of a network. Without one there are no item vectors, which
            order no list.
    """
    repeats = REPEATS if options.exclude_seen else None
    if network is None:
        log_share = np.log(counts.share).astype(np.float32)
        tables = item_tables(counts, np.stack([np.zeros_like(log_share), log_share], axis=1))
        return MixtureModel(NoEncoder(1), tables, calibration(options, counts.chosen_share), repeats)
    encoder, vectors, share = network
    return MixtureModel(
        encoder, item_tables(counts, vectors), calibration(options, counts.chosen_share, share), repeats
    )


def calibration(options: PrivacyOptions, chosen_share: float, network: NetworkShare | None = None) -> Calibration:
    """The mixture of popularity, pairs and a uniform part; with seen items also of what the person did before.

    The uniform part has the probability of items without pairs, which the release cannot tell apart. A network takes
    its weight from all others. Without one the softmax of the item biases alone is the popularity; with one the trend
    is.
    """
    share, own = max(chosen_share, UNIFORM), 0.0 if options.exclude_seen else OWN
    of_release = share * (1 - own) * (1 - UNIFORM)
    transitions, popularity = (1 - POPULARITY) * of_release, POPULARITY * of_release
    weights = {"transitions": transitions, "uniform": 1 - own - of_release, "own": own}
    first = popularity
    if network is not None:
        first = max(network.weight, LEAST_WEIGHT)
        weights = {name: (1 - first) * weight for name, weight in (weights | {"trend": popularity}).items()}
    logits = {name: (math.log(weight / first), 0.0, 0.0) for name, weight in weights.items() if weight}
    return Calibration(
        num_samples=0,
        temperatures=(1.0 if network is None else network.temperature,) * len(LENGTH_EDGES),
        gate=GatingNetwork(**logits),
        own=OwnHistory() if own else None,
        lags=WINDOW if options.pairs == "near" else 1,
        lag_decay=DECAY,
    )
