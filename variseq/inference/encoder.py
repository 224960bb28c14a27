"""The exported network in ONNX Runtime: histories to preferences, without torch; shared beginnings are encoded once."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.errors import CheckpointError, MissingDependencyError
from variseq.events.table import MICROSECONDS_PER_SECOND
from variseq.ranking.encoding import OUTPUTS, EncodedHistories
from variseq.ranking.item_codes import ItemVectors, with_rows
from variseq.sequences.histories import Histories, gap_bucket

CELLS_AT_ONCE = 1 << 15
"""At most about so many samples × histories × tokens are encoded in one run, which bounds its memory."""


def require_runtime() -> None:
    """Raises MissingDependencyError where no exported encoder can be run."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("onnxruntime", "serve") from error


class OnnxEncoder:
    """An exported encoder. One session, used by one thread at a time, on one core."""

    def __init__(
        self,
        path: Path,
        vectors: ItemVectors,
        start_vector: Float[np.ndarray, " hidden"],
        distance_biases: Float[np.ndarray, "block head distance_plus_one"],
        latent_dim: int,
    ) -> None:
        """The vectors of items (without bias) that a batch needs are handed to the runtime.

        Raises CheckpointError for a file that ONNX Runtime cannot read.
        """
        require_runtime()
        import onnxruntime

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
        self.vectors, self.start_vector = vectors, start_vector
        self.distance_biases, self.latent_dim = distance_biases, latent_dim
        self.max_seq_len = distance_biases.shape[2] - 1

    def encode(
        self,
        histories: Histories,
        noise: Float[np.ndarray, "sample position latent"],
        source: Int[np.ndarray, " history"] | None = None,
    ) -> EncodedHistories:
        """All histories; those of like length are run together.

        Histories with the same `source` (0, 1, ...) begin alike for a long way, and what they share is encoded once.
        """
        lengths = np.minimum(histories.visits.lengths + 1, self.max_seq_len)
        if source is None:
            source, order = np.arange(len(histories)), np.argsort(lengths, kind="stable")
        else:
            order = np.argsort(source, kind="stable")
        groups = _groups(lengths[order] * len(noise), source[order])
        parts = [self._run(histories.rows(order[group]), source[order[group]], noise) for group in groups]
        back = np.argsort(order, kind="stable")
        attention = [weights for part in parts for weights in part.attention or []]
        return EncodedHistories(
            np.concatenate([part.preference for part in parts], axis=1)[:, back],
            np.concatenate([part.log_variance for part in parts])[back],
            [attention[row] for row in back.tolist()],
        )

    def with_items(self, vectors: Float[np.ndarray, "added hidden"]) -> OnnxEncoder:
        """See `Encoder.with_items`; both use one session."""
        longer = copy.copy(self)
        longer.vectors = with_rows(self.vectors, vectors)
        return longer

    def _run(self, histories: Histories, source: np.ndarray, noise: np.ndarray) -> EncodedHistories:
        tokens = padded_batch(histories, self.max_seq_len, len(self.vectors))
        _, row = np.unique(source, return_inverse=True)
        tree = prefix_tree(tokens, row)
        position = tree.distance[np.arange(len(tree.query))[:, None], tree.query].astype(np.int64)
        # Much faster here than as an operation of the runtime. A distance of −1 finds the last one, of what is unseen.
        bias = np.take(self.distance_biases, tree.distance, axis=2)
        given = {"bias": bias, "query": tree.query, "position": position}
        given |= {name: array for name, array in tree.cells.items() if name in self.taken}
        given["item"], given["vectors"] = self._items(tree.cells["item"])
        # Positions before the longest history are not looked at.
        given["noise"] = noise[:, : tokens.item.shape[1]]
        preference, log_variance, attention = self.session.run(OUTPUTS, given)
        of_history = (tree.row, tree.index)
        weights = [row[:length] for row, length in zip(attention[of_history], tokens.length, strict=True)]
        return EncodedHistories(preference[:, *of_history], log_variance[of_history], weights)

    def _items(
        self, item: Int[np.ndarray, "tree token *event"]
    ) -> tuple[Int[np.ndarray, "tree token *event"], Float[np.ndarray, "row hidden"]]:
        """The items as rows of the vectors beside them, which are those of this batch alone; −1 is no event."""
        of_batch, row = np.unique(np.maximum(item, 0), return_inverse=True)
        vectors = self.vectors[np.minimum(of_batch, len(self.vectors) - 1)]
        vectors[of_batch == len(self.vectors)] = self.start_vector
        return np.where(item < 0, -1, row.reshape(item.shape)), vectors


def _groups(cells: Int[np.ndarray, " history"], source: Int[np.ndarray, " history"]) -> list[slice]:
    """Slices of histories, cut where there would be too many cells, between two sources.

    >>> _groups(np.full(4, 20_000), np.array([0, 0, 1, 2]))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    groups, first, widest = [], 0, 0
    for index, (num_cells, one) in enumerate(zip(cells.tolist(), source.tolist(), strict=True)):
        widest = max(widest, num_cells)
        if index > first and widest * (index + 1 - first) > CELLS_AT_ONCE and one != source[index - 1]:
            groups.append(slice(first, index))
            first, widest = index, num_cells
    return [*groups, slice(first, len(cells))]


@dataclass(frozen=True, eq=False)
class PaddedBatch:
    """One row a history, one column a token; a start token stands before the first event of a history.

    Cells at or after a row's length hold zeros and are seen by nobody. The fields are those of `Batch`. With visits all
    but the gap have one axis more, the events of a visit; an item of −1 is no event.
    """

    item: Int[np.ndarray, "history token *event"]
    behavior: Int[np.ndarray, "history token *event"]
    gap: Int[np.ndarray, "history token"]
    value: Float[np.ndarray, "history token *event"]
    has_value: Bool[np.ndarray, "history token *event"]
    length: Int[np.ndarray, " history"]


def padded_batch(histories: Histories, max_seq_len: int, num_items: int) -> PaddedBatch:
    """At most `max_seq_len` tokens of each history; the start token, `num_items`, is one where there is room.

    >>> found = padded_batch(Histories.of_items([[3, 1, 4], []]), 3, num_items=5)
    >>> found.item, found.length
    (array([[3, 1, 4],
           [5, 0, 0]]), array([3, 1]))
    """
    visits = histories.visits
    lengths = np.minimum(visits.lengths + 1, max_seq_len)
    widest = int(lengths.max(initial=1))
    # Token j of a row is visit `source`; −1 visits before the first is the start token.
    index = np.arange(widest)[None, :]
    source = visits.offsets[1:, None] - lengths[:, None] + index
    start = visits.offsets[:-1, None]
    is_token, is_start = index < lengths[:, None], source < start
    is_visit = is_token & ~is_start
    last = max(len(visits) - 1, 0)
    source = np.clip(source, 0, last)
    before = np.clip(np.maximum(source - 1, start), 0, last)
    if histories.num_events == 0:
        histories = replace(Histories.of_items([[0]]), visit_gap=histories.visit_gap)
        visits = histories.visits
    ended = np.where(before == source, visits.begin(source), visits.begin(before + 1) - 1)
    gap_seconds = (histories.timestamp[visits.begin(source)] - histories.timestamp[ended]) / MICROSECONDS_PER_SECOND
    event, is_event, otherwise = source, is_visit, np.where(is_token, num_items, 0)
    if histories.visit_gap is not None:
        # One axis more: the events of each visit, −1 where it has fewer than the largest.
        nth, size = np.arange(int((visits.size(source) * is_visit).max(initial=1))), visits.size(source)[..., None]
        event = np.minimum(visits.begin(source)[..., None] + nth, histories.num_events - 1)
        is_event = is_visit[..., None] & (nth < size)
        otherwise = np.where(is_visit[..., None] | (nth > 0), -1, otherwise[..., None])
    value = histories.value[event]
    has_value = is_event & np.isfinite(value)
    return PaddedBatch(
        item=np.where(is_event, histories.item[event], otherwise).astype(np.int64),
        behavior=np.where(is_event, histories.behavior[event], 0).astype(np.int64),
        gap=np.where(is_visit, gap_bucket(gap_seconds), 0),
        value=np.where(has_value, value, 0.0).astype(np.float32),
        has_value=has_value,
        length=lengths.astype(np.int64),
    )


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """One row a tree: `cells` of its tokens, which of them see each other, and where its branches end.

    `distance` is how many indexs the key (last axis) stands before the query, −1 where the query does not see it. The
    last token of history j is `query[row[j], index[j]]`. Tokens beyond the end of a row see each other only.
    """

    cells: dict[str, np.ndarray]
    distance: Int[np.ndarray, "tree token token"]
    query: Int[np.ndarray, "tree branch"]
    row: Int[np.ndarray, " history"]
    index: Int[np.ndarray, " history"]


def prefix_tree(tokens: PaddedBatch, row: Int[np.ndarray, " history"]) -> PrefixTree:
    """Histories with the same `row` share that row and the tokens with which they begin as its first history does.

    >>> tokens = padded_batch(Histories.of_items([[3, 1, 4], [3, 4], [2]]), 4, num_items=9)
    >>> tree = prefix_tree(tokens, np.array([0, 0, 1]))
    >>> tree.cells["item"]
    array([[9, 3, 1, 4, 4],
           [9, 2, 0, 0, 0]])
    >>> tree.distance[0, 4].tolist(), tree.query.tolist()
    ([2, 1, -1, -1, 0], [[3, 4], [1, 0]])
    """
    first, index = _first_and_index(row)
    shared = np.minimum(_num_equal(tokens, first), tokens.length)
    added = tokens.length - shared
    is_first = first == np.arange(len(row))
    added[is_first], shared[is_first] = tokens.length[is_first], 0
    num_rows = int(row.max()) + 1
    start = _sum_before(added, row, index)
    # Token by token: its history, its index there, and its column in the tree.
    history = np.repeat(np.arange(len(row)), added)
    step = np.arange(len(history)) - np.repeat(np.cumsum(added) - added, added)
    position, column = shared[history] + step, start[history] + step
    cell = (row[history], column)
    widest = int(column.max()) + 1
    cells = {}
    for name in (field.name for field in fields(tokens) if field.name != "length"):
        source = getattr(tokens, name)
        cells[name] = np.zeros((num_rows, widest, *source.shape[2:]), dtype=source.dtype)
        cells[name][cell] = source[history, position]
    query = np.zeros((num_rows, int(index.max()) + 1), dtype=np.int64)
    end = np.where(added > 0, start + added, tokens.length) - 1
    query[row, index] = end
    return PrefixTree(
        cells, _distance(cell, position, index[history], shared[history], (num_rows, widest)), query, row, index
    )


def _distance(
    cell: tuple[np.ndarray, np.ndarray],
    position: Int[np.ndarray, " cell"],
    branch: Int[np.ndarray, " cell"],
    shared: Int[np.ndarray, " cell"],
    shape: tuple[int, int],
) -> Int[np.ndarray, "tree token token"]:
    """A token sees those of its own branch up to itself, and those of the first branch that its own shares."""
    of_position, of_branch, of_shared = (np.full(shape, fill, dtype=np.int32) for fill in (0, -1, 0))
    of_position[cell], of_branch[cell], of_shared[cell] = position, branch, shared
    distance = of_position[:, :, None] - of_position[:, None, :]
    sees: Bool[np.ndarray, "tree token token"] = of_branch[:, :, None] == of_branch[:, None, :]
    if shared.any():
        sees |= (of_branch[:, None, :] == 0) & (of_position[:, None, :] < of_shared[:, :, None])
    return np.where(sees & (distance >= 0), distance, np.int32(-1))


def _first_and_index(
    row: Int[np.ndarray, " history"],
) -> tuple[Int[np.ndarray, " history"], Int[np.ndarray, " history"]]:
    """The first history of the row of each, and how many stand before it there."""
    order = np.argsort(row, kind="stable")
    ordered = row[order]
    begin = np.searchsorted(ordered, ordered)
    first, index = np.empty(len(row), dtype=np.int64), np.empty(len(row), dtype=np.int64)
    first[order], index[order] = order[begin], np.arange(len(row)) - begin
    return first, index


def _num_equal(tokens: PaddedBatch, first: Int[np.ndarray, " history"]) -> Int[np.ndarray, " history"]:
    """With how many tokens each history begins as another one does."""
    widest = tokens.item.shape[1]
    equal = np.arange(widest) < np.minimum(tokens.length, tokens.length[first])[:, None]
    for name in (field.name for field in fields(tokens) if field.name != "length"):
        column = getattr(tokens, name)
        equal &= (column == column[first]).reshape(*equal.shape, -1).all(axis=2)
    return np.where(equal.all(axis=1), widest, equal.argmin(axis=1))


def _sum_before(
    number: Int[np.ndarray, " history"], row: Int[np.ndarray, " history"], index: Int[np.ndarray, " history"]
) -> Int[np.ndarray, " history"]:
    """The sum of the numbers of those that stand before each in its row."""
    table = np.zeros((int(row.max()) + 1, int(index.max()) + 2), dtype=np.int64)
    table[row, index + 1] = number
    return np.cumsum(table, axis=1)[row, index]
