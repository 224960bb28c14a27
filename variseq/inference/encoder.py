"""Histories into preferences by ONNX Runtime: the exported half of the network, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from variseq.errors import CheckpointError, MissingDependencyError
from variseq.inference.rectangle import rectangle
from variseq.inference.tree import as_tree
from variseq.sequences.histories import Histories

INPUTS = ("item", "behavior", "gap", "value", "has_value", "bias", "query", "place", "noise")
OUTPUTS = ("preference", "log_variance", "attention")
CELLS_AT_ONCE = 1 << 15
"""At most about so many samples × histories × tokens are encoded in one run, which bounds its memory."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """The preference after the latest event under each sample; the mean log σ² there; attention there.

    `attention` has one weight a token, from the left, of the window that was read.
    """

    preference: Float[np.ndarray, "sample history hidden"]
    log_variance: Float[np.ndarray, " history"]
    attention: list[np.ndarray]

    def of(self, rows: Int[np.ndarray, " row"]) -> Encoded:
        """Some of the histories."""
        attention = [self.attention[row] for row in rows.tolist()]
        return Encoded(self.preference[:, rows], self.log_variance[rows], attention)


class OnnxEncoder:
    """An exported encoder. One session, used by one thread at a time, on one core."""

    def __init__(
        self, path: Path, distance_biases: Float[np.ndarray, "block head distance_plus_one"], num_items: int
    ) -> None:
        """Raises CheckpointError for a file that ONNX Runtime cannot read."""
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependencyError("onnxruntime", "serve") from error
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
        self.distance_biases, self.num_items = distance_biases, num_items
        self.max_seq_len = distance_biases.shape[2] - 1

    def encode(
        self,
        histories: Histories,
        noise: Float[np.ndarray, "sample place latent"],
        source: Int[np.ndarray, " history"] | None = None,
    ) -> Encoded:
        """All histories; those of like length are run together.

        Histories with the same `source` (0, 1, ...) begin alike for a long way, and what they share is encoded once.
        """
        lengths = np.minimum(histories.lengths + 1, self.max_seq_len)
        if source is None:
            source, order = np.arange(len(histories)), np.argsort(lengths, kind="stable")
        else:
            order = np.argsort(source, kind="stable")
        groups = _groups(lengths[order] * len(noise), source[order])
        parts = [self._run(histories.rows(order[group]), source[order[group]], noise) for group in groups]
        back = np.argsort(order, kind="stable")
        attention = [weights for part in parts for weights in part.attention]
        return Encoded(
            np.concatenate([part.preference for part in parts], axis=1)[:, back],
            np.concatenate([part.log_variance for part in parts])[back],
            [attention[row] for row in back.tolist()],
        )

    def _run(self, histories: Histories, source: np.ndarray, noise: np.ndarray) -> Encoded:
        tokens = rectangle(histories, self.max_seq_len, self.num_items)
        _, row = np.unique(source, return_inverse=True)
        tree = as_tree(tokens, row)
        place = tree.distance[np.arange(len(tree.query))[:, None], tree.query].astype(np.int64)
        # Much faster here than as an operation of the runtime. A distance of −1 finds the last one, of what is unseen.
        bias = np.take(self.distance_biases, tree.distance, axis=2)
        given = {"bias": bias, "query": tree.query, "place": place}
        given |= {name: array for name, array in tree.cells.items() if name in self.taken}
        # Places before the widest history are not looked at.
        given["noise"] = noise[:, : tokens.item.shape[1]]
        preference, log_variance, attention = self.session.run(OUTPUTS, given)
        of_history = (tree.row, tree.place)
        weights = [row[:length] for row, length in zip(attention[of_history], tokens.length, strict=True)]
        return Encoded(preference[:, *of_history], log_variance[of_history], weights)


def _groups(cells: Int[np.ndarray, " history"], source: Int[np.ndarray, " history"]) -> list[slice]:
    """Slices of histories, cut where there would be too many cells, between two sources.

    >>> _groups(np.full(4, 20_000), np.array([0, 0, 1, 2]))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    groups, first, widest = [], 0, 0
    for place, (num_cells, one) in enumerate(zip(cells.tolist(), source.tolist(), strict=True)):
        widest = max(widest, num_cells)
        if place > first and widest * (place + 1 - first) > CELLS_AT_ONCE and one != source[place - 1]:
            groups.append(slice(first, place))
            first, widest = place, num_cells
    return [*groups, slice(first, len(cells))]
