"""Histories into preferences by ONNX Runtime: the exported half of the network, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from variseq.errors import CheckpointError, MissingExtra
from variseq.inference.rectangle import rectangle
from variseq.sequences.histories import Histories

INPUTS = ("item", "behaviour", "gap", "value", "has_value", "length", "noise")
OUTPUTS = ("preference", "log_variance", "attention")
CELLS_AT_ONCE = 1 << 15
"""At most so many samples × histories × tokens are encoded in one run, which bounds its memory."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """The preference after the latest event under each sample; the mean log σ² there; attention under the first sample.

    `attention` has one weight a token, from the left, of the window that was read.
    """

    preference: Float[np.ndarray, "sample history width"]
    log_variance: Float[np.ndarray, " history"]
    attention: list[np.ndarray]

    def of(self, rows: Int[np.ndarray, " row"]) -> Encoded:
        """Some of the histories."""
        attention = [self.attention[row] for row in rows.tolist()]
        return Encoded(self.preference[:, rows], self.log_variance[rows], attention)


class OnnxEncoder:
    """An exported encoder. One session, used by one thread at a time, on one core."""

    def __init__(self, path: Path, max_length: int, num_items: int) -> None:
        """Raises CheckpointError for a file that ONNX Runtime cannot read."""
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtra("onnxruntime", "serve") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # The runtime's own errors have no common base that is public.
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"{path} cannot be run ({reason}). Export the run again: variseq export RUN"
            ) from error
        self.taken = {given.name for given in self.session.get_inputs()}
        self.max_length, self.num_items = max_length, num_items

    def encode(self, histories: Histories, noise: Float[np.ndarray, "sample place latent"]) -> Encoded:
        """All histories; those of like length are run together."""
        order = np.argsort(np.minimum(histories.lengths + 1, self.max_length), kind="stable")
        parts = [self._run(histories, rows, noise) for rows in self._groups(histories, order, len(noise))]
        back = np.argsort(order, kind="stable")
        attention = [weights for part in parts for weights in part.attention]
        return Encoded(
            np.concatenate([part.preference for part in parts], axis=1)[:, back],
            np.concatenate([part.log_variance for part in parts])[back],
            [attention[row] for row in back],
        )

    def _groups(self, histories: Histories, order: np.ndarray, num_samples: int) -> list[np.ndarray]:
        """Rows in the given order, cut where a rectangle would be too large."""
        lengths = np.minimum(histories.lengths + 1, self.max_length)[order]
        groups, first = [], 0
        for place in range(1, len(order) + 1):
            is_end = place == len(order)
            if is_end or lengths[place] * (place + 1 - first) * num_samples > CELLS_AT_ONCE:
                groups.append(order[first:place])
                first = place
        return groups

    def _run(self, histories: Histories, rows: np.ndarray, noise: np.ndarray) -> Encoded:
        chosen = histories.select(histories.offsets[rows], histories.offsets[rows + 1])
        cells = rectangle(chosen, self.max_length, self.num_items)
        given = {name: array for name, array in vars(cells).items() if name in self.taken}
        # Places after the widest row are not looked at.
        given["noise"] = noise[:, : cells.item.shape[1]]
        preference, log_variance, attention = self.session.run(OUTPUTS, given)
        weights = [row[:length] for row, length in zip(attention, cells.length, strict=True)]
        return Encoded(preference, log_variance, weights)
