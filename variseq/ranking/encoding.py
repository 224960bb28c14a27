"""What an encoder has to give: preferences under samples of the posterior, from histories and fixed noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from variseq.sequences.histories import Histories

INPUTS = ("item", "behavior", "gap", "value", "has_value", "vectors", "bias", "query", "position", "noise")
OUTPUTS = ("preference", "log_variance", "attention")
"""What an exported encoder takes and gives, by the names of the file."""


@dataclass(frozen=True, eq=False)
class EncodedHistories:
    """What a network makes of histories.

    Args:
        preference: The preference vector after the latest event, under each posterior sample.
        log_variance: The mean log σ² of the posterior there.
        attention: For each history one weight a token of the window, or None where the encoder gives none.
    """

    preference: Float[np.ndarray, "sample history hidden"]
    log_variance: Float[np.ndarray, " history"]
    attention: list[np.ndarray] | None = None

    def rows(self, chosen: Int[np.ndarray, " row"]) -> EncodedHistories:
        """Some of the histories."""
        attention = None if self.attention is None else [self.attention[row] for row in chosen.tolist()]
        return EncodedHistories(self.preference[:, chosen], self.log_variance[chosen], attention)


@runtime_checkable
class Encoder(Protocol):
    """A trained network up to its preference vectors: in torch (`NetworkEncoder`) or exported (`OnnxEncoder`)."""

    max_seq_len: int
    latent_dim: int

    def encode(
        self,
        histories: Histories,
        noise: Float[np.ndarray, "sample position latent"],
        source: Int[np.ndarray, " history"] | None = None,
    ) -> EncodedHistories:
        """Encodes histories under each sample of the noise.

        Args:
            histories: Any number; an empty history has the start token alone.
            noise: ε of z = μ + σ ⊙ ε, see `antithetic_noise`.
            source: Histories with the same number begin alike for a long way; an encoder may share that work.

        Returns:
            The preferences; they do not depend on which histories are encoded together.
        """
        ...

    def with_items(self, vectors: Float[np.ndarray, "added hidden"]) -> Encoder:
        """One that also knows further items, behind its own, by their vectors."""
        ...


class NoEncoder:
    """`Encoder` of a model without a network: all preferences are zero, so that the item biases alone decide.

    Args:
        hidden_size: Numbers of a preference.
    """

    max_seq_len, latent_dim = 1, 0

    def __init__(self, hidden_size: int) -> None:
        self.hidden_size = hidden_size

    def encode(
        self,
        histories: Histories,
        noise: Float[np.ndarray, "sample position latent"],
        source: Int[np.ndarray, " history"] | None = None,
    ) -> EncodedHistories:
        """See `Encoder.encode`."""
        preference = np.zeros((len(noise), len(histories), self.hidden_size), dtype=np.float32)
        return EncodedHistories(preference, np.zeros(len(histories)))

    def with_items(self, vectors: Float[np.ndarray, "added hidden"]) -> NoEncoder:
        """See `Encoder.with_items`."""
        return self


def antithetic_noise(
    num_samples: int, max_seq_len: int, latent_dim: int, seed: int = 0
) -> Float[np.ndarray, "sample position latent"]:
    """ε of z = μ + σ ⊙ ε: one row a sample and a position, counted back from the latest event; the same for everybody.

    Fixed noise gives the same answer to the same history in any batch. Samples come in pairs of opposite sign, so that
    their mean is the posterior mean (antithetic variates, Hammersley and Morton 1956); an odd one stays unpaired.

    Args:
        num_samples: How many samples; 0 means one row of zeros, the posterior mean.
        max_seq_len: Positions.
        latent_dim: Dimensions of the posterior.
        seed: Of the random numbers.

    >>> noise = antithetic_noise(2, max_seq_len=3, latent_dim=4)
    >>> noise.shape, np.array_equal(noise[0], -noise[1])
    ((2, 3, 4), True)
    """
    if num_samples == 0:
        return np.zeros((1, max_seq_len, latent_dim), dtype=np.float32)
    generator = np.random.default_rng(seed)
    half = generator.standard_normal(((num_samples + 1) // 2, max_seq_len, latent_dim), dtype=np.float32)
    return np.concatenate([half, -half])[:num_samples]
