"""Histories into batches: windows that cover every target, grouped by length, packed without padding."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from variseq.events.table import MICROSECONDS_PER_SECOND
from variseq.sequences.histories import Histories, gap_bucket, ragged_index

SHUFFLE_POOL_BATCHES = 32
"""Windows are sorted by length inside pools of so many batches: little padding, and still well shuffled."""


def ragged(
    first: Int[Tensor, " row"], number: Int[Tensor, " row"]
) -> tuple[Int[Tensor, " cell"], Int[Tensor, " cell"]]:
    """The positions first, first + 1, ... of each row, `number` of them, and before them the row of each.

    >>> ragged(torch.tensor([5, 0, 7]), torch.tensor([2, 0, 1]))
    (tensor([0, 0, 2]), tensor([5, 6, 7]))
    """
    row = torch.repeat_interleave(torch.arange(len(number), device=number.device), number)
    nth = torch.arange(len(row), device=number.device) - (number.cumsum(0) - number)[row]
    return row, first[row] + nth


@dataclass(frozen=True)
class Windows:
    """Slices of histories, each with the targets `first:last` (flat positions of visits; of events without visits).

    The input before a target is the visit before it, or the start token where the target is the first visit of its
    history, which begins at `start`.
    """

    start: Int[np.ndarray, " window"]
    first: Int[np.ndarray, " window"]
    last: Int[np.ndarray, " window"]

    @property
    def lengths(self) -> Int[np.ndarray, " window"]:
        return self.last - self.first


@dataclass(frozen=True)
class Layout:
    """Where packed tokens sit in the rectangle [history, longest] that attention works on."""

    num_histories: int
    longest: int
    slot: Int[Tensor, " token"]
    lengths: Int[Tensor, " history"]

    @property
    def is_full(self) -> bool:
        """True when every history has the same length, so that packed and rectangular are the same."""
        return len(self.slot) == self.num_histories * self.longest

    def unpack(self, packed: Float[Tensor, "token hidden"]) -> Float[Tensor, "history longest hidden"]:
        """Packed tokens into the rectangle; empty slots are zero and sit after the real ones."""
        width = packed.shape[1]
        if self.is_full:
            return packed.view(self.num_histories, self.longest, width)
        rectangle = packed.new_zeros(self.num_histories * self.longest, width)
        return rectangle.index_copy(0, self.slot, packed).view(self.num_histories, self.longest, width)

    def rectangle(self, column: Shaped[Tensor, " token"]) -> Shaped[Tensor, "history longest"]:
        """A column of packed tokens as the rectangle; empty slots are zero and sit after the real ones."""
        found = column.new_zeros(self.num_histories * self.longest).index_copy(0, self.slot, column)
        return found.view(self.num_histories, self.longest)

    def pack(self, rectangle: Float[Tensor, "history longest hidden"]) -> Float[Tensor, "token hidden"]:
        """The inverse of `unpack`."""
        flat = rectangle.reshape(self.num_histories * self.longest, rectangle.shape[2])
        return flat if self.is_full else flat.index_select(0, self.slot)

    def spread(self, token: Int[Tensor, " event"]) -> Layout:
        """The layout of events in place of their tokens, which are in ascending order."""
        history = (self.slot // self.longest)[token]
        lengths = torch.bincount(history, minlength=self.num_histories)
        longest = int(lengths.max())
        index = torch.arange(len(token), device=token.device) - (torch.cumsum(lengths, 0) - lengths)[history]
        return Layout(self.num_histories, longest, history * longest + index, lengths)

    def enlarged(self, num_histories: int, longest: int) -> Layout:
        """The same tokens in a rectangle that is at least as large; further histories are empty."""
        slot = self.slot // self.longest * longest + self.slot % self.longest
        empty = self.lengths.new_zeros(num_histories - self.num_histories)
        return Layout(num_histories, longest, slot, torch.cat([self.lengths, empty]))

    def last_tokens(self) -> Int[Tensor, " history"]:
        """The packed position of the last token of each history."""
        return torch.cumsum(self.lengths, 0) - 1

    def positions(self) -> Int[Tensor, " token"]:
        """The position of each token inside its history, from 0."""
        return self.slot % self.longest


@dataclass(frozen=True)
class Batch:
    """Packed tokens: the input at each position, and the event or the events that came next.

    `item` of a start token is `num_items` (one past the catalog). `gap` is the bucket of the time since the token
    before; `value` and `target_value` are NaN where there is none. `is_target` marks the next events that are targets;
    None stands for all of them. With visits a token has several events, those of `token`, and several next events,
    those of `target_token`; without visits both are None, and each token has one.
    """

    item: Int[Tensor, " event"]
    behavior: Int[Tensor, " event"]
    gap: Int[Tensor, " token"]
    value: Float[Tensor, " event"]
    target_item: Int[Tensor, " target"]
    target_value: Float[Tensor, " target"]
    layout: Layout
    time: Int[Tensor, " event"]
    target_time: Int[Tensor, " target"]
    is_target: Bool[Tensor, " target"] | None = None
    token: Int[Tensor, " event"] | None = None
    target_token: Int[Tensor, " target"] | None = None

    @property
    def num_tokens(self) -> int:
        return len(self.gap)

    @property
    def num_targets(self) -> int:
        return len(self.target_item) if self.is_target is None else int(self.is_target.sum())

    def targets(self) -> tuple[Int[Tensor, " target"] | None, Int[Tensor, " target"], Float[Tensor, " target"]]:
        """Of each target its token (None: each token has one target), its item and its value."""
        token, item, value = self.target_token, self.target_item, self.target_value
        if self.is_target is None:
            return token, item, value
        index = torch.nonzero(self.is_target)[:, 0]
        return index if token is None else token[index], item[index], value[index]

    def later(self, weight: float, number: int) -> tuple[Int[Tensor, "target later"], Float[Tensor, "target later"]]:
        """Of each of `targets()` the items that come after it in the window, with weights; only without visits.

        The first has the given weight, the next its square, and so on; 0 where the window has ended before it.
        """
        every, lengths = torch.arange(self.num_tokens, device=self.gap.device).unsqueeze(1), self.layout.lengths
        last = torch.repeat_interleave(self.layout.last_tokens(), lengths).unsqueeze(1)
        index = every + torch.arange(1, number + 1, device=every.device)
        of_each = weight ** (index - every) * (index <= last)
        index = index.minimum(last)
        if self.is_target is None:
            return self.target_item[index], of_each
        return self.target_item[index][self.is_target], (of_each * self.is_target[index])[self.is_target]

    def seen(self, num_items: int) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
        """Pairs of an index into `targets()` and an item of the window before it, by target."""
        position, token = self.layout.positions(), self.targets()[0]
        every = torch.arange(len(position), device=position.device)
        first, last = every - position, every + 1
        if self.token is not None:
            first, last = torch.searchsorted(self.token, first), torch.searchsorted(self.token, every, right=True)
        if token is not None:
            first, last = first[token], last[token]
        target, event = ragged(first, last - first)
        item = self.item[event]
        is_event = item < num_items
        return target[is_event], item[is_event]

    def rows(self, *others: Int[Tensor, " item"], start: int) -> Int[Tensor, " row"]:
        """All items of the batch and others, ascending, and last the start token."""
        start_token = torch.tensor([start], device=self.item.device)
        return torch.unique(torch.cat([self.item, self.target_item, *others, start_token]))

    def among(self, rows: Int[Tensor, " row"]) -> Batch:
        """The same batch with the index in `rows`, ascending, in place of each item."""
        item, target_item = (torch.searchsorted(rows, items) for items in (self.item, self.target_item))
        return replace(self, item=item, target_item=target_item)

    def by_event(self) -> tuple[Layout, Layout, Int[Tensor, " target"]]:
        """The layouts of events and of targets, and for each target the position of the last event before it."""
        layout = self.layout
        if self.token is None or self.target_token is None:
            return layout, layout, layout.positions()
        of_events = layout.spread(self.token)
        last = torch.searchsorted(self.token, torch.arange(self.num_tokens, device=self.token.device), right=True) - 1
        return of_events, layout.spread(self.target_token), of_events.positions()[last][self.target_token]

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        if device.type == "cpu":
            return self
        columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "layout"}
        moved = {name: column.to(device) for name, column in columns.items() if column is not None}
        layout = self.layout
        return Batch(
            layout=Layout(layout.num_histories, layout.longest, layout.slot.to(device), layout.lengths.to(device)),
            **moved,
        )


def training_windows(histories: Histories, max_seq_len: int, generator: np.random.Generator) -> Windows:
    """Windows of at most `max_seq_len` targets that together cover every event of every history exactly once.

    A history longer than that is cut at a random offset, so that over the epochs each event is seen at every depth.
    A window without any event that is a target is left out: there is nothing to learn in it.

    >>> windows = training_windows(Histories.of_items([[1, 2, 3], [4]]), 50, np.random.default_rng(0))
    >>> windows.first.tolist(), windows.last.tolist()
    ([0, 3], [3, 4])
    """
    visits = histories.visits
    starts, lengths = visits.offsets[:-1], visits.lengths
    has_events = lengths > 0
    starts, lengths = starts[has_events], lengths[has_events]
    offset = np.where(lengths > max_seq_len, generator.integers(1, max_seq_len + 1, size=len(lengths)), lengths)
    num_windows = 1 + -(-(lengths - offset) // max_seq_len)
    row = np.repeat(np.arange(len(lengths)), num_windows)
    index = np.arange(len(row)) - np.repeat(np.cumsum(num_windows) - num_windows, num_windows)
    first = np.where(index == 0, 0, offset[row] + (index - 1) * max_seq_len)
    last = np.minimum(offset[row] + index * max_seq_len, lengths[row])
    windows = Windows(starts[row], starts[row] + first, starts[row] + last)
    if histories.is_target is None:
        return windows
    num_before = np.concatenate([[0], np.cumsum(histories.is_target)])
    kept = num_before[visits.begin(windows.last)] > num_before[visits.begin(windows.first)]
    return Windows(windows.start[kept], windows.first[kept], windows.last[kept])


def query_windows(histories: Histories, max_seq_len: int) -> Windows:
    """One window per history whose last token is the latest visit, as a recommendation needs it.

    >>> query_windows(Histories.of_items([[1, 2, 3], []]), 2).lengths
    array([2, 1])
    """
    offsets = histories.visits.offsets
    start, end = offsets[:-1], offsets[1:]
    return Windows(start, np.maximum(start, end + 1 - max_seq_len), end + 1)


def group_by_length(
    lengths: Int[np.ndarray, " window"], max_tokens: int, order: Int[np.ndarray, " window"]
) -> list[Int[np.ndarray, " member"]]:
    """Groups of windows of similar length, each with about `max_tokens` tokens.

    Windows are taken in the given order, sorted by length inside pools, and cut so that a batch holds at most
    `max_tokens` slots of its rectangle (a longer window stands alone).
    """
    groups: list[Int[np.ndarray, " member"]] = []
    pool_of_token = np.cumsum(lengths[order]) // (max_tokens * SHUFFLE_POOL_BATCHES)
    for pool in np.split(order, np.flatnonzero(np.diff(pool_of_token)) + 1):
        ordered = pool[np.argsort(lengths[pool], kind="stable")]
        begin = 0
        while begin < len(ordered):
            size = lengths[ordered[begin:]] * np.arange(1, len(ordered) - begin + 1)
            end = begin + max(1, int(np.searchsorted(size, max_tokens, side="right")))
            groups.append(ordered[begin:end])
            begin = end
    return groups


def make_batch(histories: Histories, windows: Windows, members: Int[np.ndarray, " member"], num_items: int) -> Batch:
    """The packed batch of some windows."""
    lengths = windows.lengths[members]
    longest = int(lengths.max())
    row = np.repeat(np.arange(len(members)), lengths)
    position = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    target = windows.first[members][row] + position
    start = windows.start[members][row]
    is_start = target == start
    layout = Layout(
        len(members), longest, torch.from_numpy(row * longest + position), torch.from_numpy(lengths.astype(np.int64))
    )
    if histories.num_events == 0:
        histories = Histories.of_items([[0]])
    visits = histories.visits
    last_visit = len(visits) - 1
    source = np.clip(target - 1, np.minimum(start, last_visit), last_visit)
    # The first visit of a history has none before it: its gap is that to itself, zero.
    before = np.minimum(np.maximum(source - 1, start), last_visit)
    target = np.minimum(target, last_visit)
    ended = np.where(before == source, visits.begin(source), visits.begin(before + 1) - 1)
    gap_seconds = (histories.timestamp[visits.begin(source)] - histories.timestamp[ended]) / MICROSECONDS_PER_SECOND
    token = target_token = None
    event, next_event = source, target
    if histories.visit_gap is not None:
        sizes = np.where(is_start, 1, visits.size(source)), visits.size(target)
        event, next_event = (
            ragged_index(visits.begin(of), size) for of, size in zip((source, target), sizes, strict=True)
        )
        token, target_token = (np.repeat(np.arange(len(row)), size) for size in sizes)
        is_start = is_start[token]
    value = np.where(is_start, np.nan, histories.value[event]).astype(np.float32)
    return Batch(
        item=torch.from_numpy(np.where(is_start, num_items, histories.item[event]).astype(np.int64)),
        behavior=torch.from_numpy(np.where(is_start, 0, histories.behavior[event]).astype(np.int64)),
        gap=torch.from_numpy(gap_bucket(gap_seconds)),
        value=torch.from_numpy(value),
        target_item=torch.from_numpy(histories.item[next_event].astype(np.int64)),
        target_value=torch.from_numpy(histories.value[next_event]),
        layout=layout,
        time=torch.from_numpy(histories.timestamp[event]),
        target_time=torch.from_numpy(histories.timestamp[next_event]),
        is_target=None if histories.is_target is None else torch.from_numpy(histories.is_target[next_event]),
        token=None if token is None else torch.from_numpy(token),
        target_token=None if target_token is None else torch.from_numpy(target_token),
    )
