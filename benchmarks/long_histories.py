"""Ways of reading histories longer than a network's window into their quality and cost, by the length of the history.

    python benchmarks/long_histories.py RUN --part valid [--cost]     # RUN without refit: chooses
    python benchmarks/long_histories.py RUN --part test
    python benchmarks/long_histories.py --table                       # only writes the table of the results

- "truncated": the latest tokens that fit the window, as the package does;
- "chunks": the encoder reads the history window by window, and the decoder's last query attends over the posteriors of
  all windows: linear in the length, and the very same numbers where a history fits one window;
- "chunks that overlap": each window but the first begins with the last half of the one before, whose posteriors are not
  taken again, so that no posterior knows of fewer than half a window of events;
- "one window": the encoder reads everything at once: quadratic.

The network is the run's, trained with its window; nothing is trained here. It is judged alone, at the posterior mean.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from marked_file import write_between_markers
from provenance import provenance
from record_file import write_record
from torch import Tensor

from variseq.estimator import load
from variseq.evaluation.bootstrap import mean_interval
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.evaluation import Evaluation
from variseq.evaluation.splits import Part, split_at
from variseq.model.network import Network
from variseq.model.scorer import NetworkScorer
from variseq.sequences.batches import Layout, Windows, group_by_length, make_batch
from variseq.sequences.histories import Histories

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "long_histories.json"
DOCUMENT = ROOT / "docs" / "ablations.md"
MARKERS = ("<!-- long-histories:begin -->", "<!-- long-histories:end -->")
TOKENS_AT_ONCE = 8192
COST_LENGTHS = (200, 1_000, 2_000, 5_000, 10_000)
COST_REPEATS = 5
LONGEST_WINDOW = 2_000
"""A single window beyond this is not timed: it needs gigabytes."""


@dataclass(frozen=True)
class Reading:
    """A way of reading: windows of `window` tokens, each beginning with `overlap` tokens of the one before.

    With `whole` the decoder sees the posteriors of all windows, otherwise those of the last.
    """

    name: str
    window: int
    overlap: int = 0
    whole: bool = True

    @property
    def longest(self) -> int:
        """The most tokens that the decoder sees."""
        return np.iinfo(np.int64).max if self.whole else self.window


def readings(window: int, longest: int) -> list[Reading]:
    """What is compared; the first is what the package does."""
    return [
        Reading("truncated", window, whole=False),
        Reading("truncated to half", window // 2, whole=False),
        Reading("chunks", window),
        Reading("chunks that overlap", window, window // 2),
        Reading("one window", longest),
    ]


@dataclass(frozen=True, eq=False)
class Chunks:
    """Windows of histories, those of a history side by side, oldest first; `is_new` marks tokens not read before."""

    windows: Windows
    is_new: list[Int[np.ndarray, " token"]]
    num_of_history: Int[np.ndarray, " history"]


def chunked(histories: Histories, reading: Reading) -> Chunks:
    """The windows of each history, counted from its end; a start token stands before the first event."""
    stride = reading.window - reading.overlap
    start, first, last, is_new, number = [], [], [], [], []
    for begin, end in zip(histories.offsets[:-1].tolist(), histories.offsets[1:].tolist(), strict=True):
        of_history = [(max(begin, end + 1 - reading.window), end + 1)]
        while reading.whole and of_history[0][0] > begin:
            stop = of_history[0][1] - stride
            of_history.insert(0, (max(begin, stop - reading.window), stop))
        seen = begin
        for left, right in of_history:
            is_new.append(np.arange(left, right) >= seen)
            seen = right
        start += [begin] * len(of_history)
        first += [left for left, _ in of_history]
        last += [right for _, right in of_history]
        number.append(len(of_history))
    return Chunks(
        Windows(*(np.array(column, dtype=np.int64) for column in (start, first, last))), is_new, np.array(number)
    )


class LongHistoryScorer(NetworkScorer):
    """A network that reads histories in a given way."""

    def __init__(self, network: Network, reading: Reading) -> None:
        super().__init__(network, reading.name)
        self.reading = reading

    @torch.no_grad()
    def query(self, histories: Histories) -> Float[Tensor, "history hidden"]:
        self.network.eval()
        lengths = np.minimum(histories.lengths + 1, self.reading.longest)
        preference = torch.empty(len(histories), self.network.config.hidden_size)
        for members in group_by_length(lengths, TOKENS_AT_ONCE, np.arange(len(histories))):
            preference[torch.from_numpy(members)] = self._preference(histories.rows(members))
        return preference

    def _preference(self, histories: Histories) -> Float[Tensor, "history hidden"]:
        """Encode window by window; then the tokens of a history are one row for the decoder."""
        chunks = chunked(histories, self.reading)
        members = np.arange(len(chunks.windows.first))
        batch = make_batch(histories, chunks.windows, members, self.network.config.num_items)
        kept = torch.from_numpy(np.concatenate(chunks.is_new))
        mean = self.network.encode(batch).mean[kept]
        history_of_window = np.repeat(np.arange(len(histories)), chunks.num_of_history)
        lengths = np.bincount(history_of_window, weights=[new.sum() for new in chunks.is_new]).astype(np.int64)
        return self.network.decoder.last_at_mean(mean, packed_layout(lengths))


def packed_layout(lengths: Int[np.ndarray, " history"]) -> Layout:
    """The layout of histories with so many tokens, side by side."""
    longest = int(lengths.max())
    row = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    slot = torch.from_numpy(row * longest + position)
    return Layout(len(lengths), longest, slot, torch.from_numpy(lengths))


def quality(network: Network, part: Part) -> list[dict[str, Any]]:
    """NDCG@10 and NLL of each way of reading, by length of the history, paired with truncation.

    Only users whose history does not fit the window are asked: for the others all ways but one are the same.
    """
    window = network.config.max_seq_len
    start = part.histories.offsets[:-1]
    fits = part.target_end - 1 - start < window
    part = replace(part, target_end=np.where(fits, part.history_end, part.target_end))
    longest = int(part.histories.lengths.max()) + 1
    options = EvaluationOptions(k=10, targets="last")
    evaluations = [
        evaluate(LongHistoryScorer(network, reading), part, options) for reading in readings(window, longest)
    ]
    edges = {
        f"{window:,} to {2 * window - 1:,}": (window, 2 * window - 1),
        f"{2 * window:,} to {4 * window - 1:,}": (2 * window, 4 * window - 1),
        f"{4 * window:,} and more": (4 * window, longest),
        f"all from {window:,} on": (window, longest),
    }
    rows = [_row(one, evaluations[0], name, bounds) for name, bounds in edges.items() for one in evaluations]
    return [row for row in rows if row["num_users"]]


def _row(one: Evaluation, truncated: Evaluation, group: str, bounds: tuple[int, int]) -> dict[str, Any]:
    low, high = bounds
    inside = (one.history_length >= low) & (one.history_length <= high)
    row: dict[str, Any] = {"events": group, "num_users": int(inside.sum()), "reading": one.model}
    for metric in ("ndcg", "nll") if row["num_users"] else ():
        value, other = np.asarray(one.metric(metric))[inside], np.asarray(truncated.metric(metric))[inside]
        row[metric] = float(value.mean())
        row[f"{metric}_difference"] = float((value - other).mean())
        row[f"{metric}_interval"] = mean_interval(one.user[inside], value - other)
    return row


def cost(network: Network) -> list[dict[str, Any]]:
    """Seconds to ask for one history of each length, the ways of reading taken in turn; the least of a few."""
    random = np.random.default_rng(0)
    rows = []
    for length in COST_LENGTHS:
        history = Histories.of_items([random.integers(network.config.num_items, size=length).tolist()])
        taken: dict[str, list[float]] = {}
        for _ in range(COST_REPEATS):
            for reading in readings(network.config.max_seq_len, length + 1):
                if reading.window > LONGEST_WINDOW + 1:
                    continue
                begun = time.perf_counter()
                LongHistoryScorer(network, reading).query(history)
                taken.setdefault(reading.name, []).append(time.perf_counter() - begun)
        rows.append({"events": length, "seconds": {name: min(seconds) for name, seconds in taken.items()}})
    return rows


def part_of(folder: Path, name: str) -> tuple[Network, Part]:
    """The network of a run, and the part that it may be judged on."""
    model = load(folder)
    checkpoint = model.checkpoint
    assert checkpoint is not None
    assert checkpoint.histories is not None
    assert checkpoint.bounds is not None
    if name == "valid" and checkpoint.config["training"]["refit_fraction"]:
        raise SystemExit("This run was refitted with the validation events: give one with refit_fraction=0.")
    begins = checkpoint.bounds
    parts = split_at(
        checkpoint.histories, begins[0], begins[1], checkpoint.vocabulary.num_items, {"method": "of the run"}
    )
    return checkpoint.network, parts[1] if name == "valid" else parts[2]


def table(record: dict[str, Any]) -> str:
    """The record as the Markdown that stands in the documentation."""
    lines = []
    for part in ("valid", "test"):
        if part not in record:
            continue
        lines += [f"| {part}: events | users | read as | NDCG@10 | against truncated | NLL | against truncated |"]
        lines += ["|---|---:|---|---:|---:|---:|---:|"]
        lines += [_line(row) for row in record[part]["rows"]]
        lines += [""]
    if "cost" in record:
        names = list(record["cost"][0]["seconds"])
        lines += ["| one history of | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
        for row in record["cost"]:
            seconds = [row["seconds"].get(name) for name in names]
            cells = " | ".join("–" if taken is None else f"{1e3 * taken:.0f} ms" for taken in seconds)
            lines.append(f"| {row['events']:,} events | {cells} |")
        lines += [""]
    dirty = " with uncommitted changes" if record["dirty"] else ""
    machine = f"{record['hardware']['cpu']}, {record['hardware']['threads']} thread(s)"
    lines += [
        f"<sub>95 % intervals over users. {machine}. Commit `{str(record['commit'])[:10]}`{dirty}, "
        f"{record['date'][:10]}; `benchmarks/long_histories.py`.</sub>"
    ]
    return "\n".join(lines) + "\n"


def _line(row: dict[str, Any]) -> str:
    cells = [row["events"], f"{row['num_users']:,}", row["reading"]]
    for metric, digits in (("ndcg", 4), ("nll", 3)):
        low, high = row[f"{metric}_interval"]
        difference = f"{row[f'{metric}_difference']:+.{digits}f} [{low:+.{digits}f} to {high:+.{digits}f}]"
        cells += [f"{row[metric]:.{digits}f}", "–" if row["reading"] == "truncated" else difference]
    return "| " + " | ".join(cells) + " |"


def main(words: Sequence[str] | None = None) -> None:
    """Judge a run on a part, add it to the record, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN")
    parser.add_argument("--part", choices=("valid", "test"), default="valid")
    parser.add_argument("--cost", action="store_true", help="measure the cost as well; on a quiet machine")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--result", type=Path, default=RESULT, help="file of the record")
    parser.add_argument("--table", action="store_true", help="measure nothing; write the table of the record")
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    record = json.loads(options.result.read_text(encoding="utf-8")) if options.result.exists() else {}
    if not options.table:
        if options.run is None:
            parser.error("a RUN is needed")
        network, part = part_of(options.run, options.part)
        rows = quality(network, part)
        record |= provenance() | {options.part: {"split_hash": part.protocol["split_hash"], "rows": rows}}
        if options.cost:
            record["cost"] = cost(network)
        write_record(options.result, record)
    text = table(record)
    print(text)
    if options.result == RESULT:
        write_between_markers(DOCUMENT, MARKERS, text)


if __name__ == "__main__":
    main()
