"""Softmax, additive attention, dropout and the best of a row beside their plain twins: one table, one JSON file.

    python benchmarks/kernels.py [--threads 2] [--repeats 7]
    python benchmarks/kernels.py --table      # only writes the cost of attention by length into docs/ablations.md

Each pair runs in turn, forward and backward; medians are quoted, and the peak of a bare matrix product beside them.
Then additive and dot-product attention over one history of up to 10,000 events, with the memory of each.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from marked_file import write_between_markers
from provenance import peak_megabytes, provenance, short_commit
from record_file import write_record
from torch import Tensor
from torch.nn import functional

from variseq.evaluation.top_k import best_scores
from variseq.model.additive import additive_context, additive_context_plain
from variseq.model.attention import DotProductAttention
from variseq.model.decoder import build_attention
from variseq.model.dropout import drop
from variseq.model.losses import Negatives, softmax_loss, softmax_loss_plain

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "kernels.json"
DOCUMENT = ROOT / "docs" / "ablations.md"
MARKERS = ("<!-- attention-cost:begin -->", "<!-- attention-cost:end -->")
HIDDEN_WIDTH, WIDE = 16, 32
"""Hidden units of the additive attention: those of size small, and twice as many."""
LENGTHS = (50, 200, 1_000, 2_000, 5_000, 10_000)
FORMS = ("additive", "dot")
Work = Callable[[], Tensor]
Record = dict[str, Any]


def seconds_of_each(works: dict[str, Work], repeats: int) -> dict[str, float]:
    """Median seconds of forward and backward, the works taken in turn after one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            begun = time.perf_counter()
            work().backward()
            if repeat:
                times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(taken) for name, taken in times.items()}


def peak_gigaflops(repeats: int) -> float:
    """What a bare matrix product reaches on this machine."""
    left, right = torch.randn(2048, 512), torch.randn(512, 2048)
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        left @ right
        taken.append(time.perf_counter() - begun)
    return 2 * 2048 * 512 * 2048 / min(taken) / 1e9


def softmax_row(num_items: int, width: int, num_tokens: int, repeats: int) -> dict[str, float | str]:
    """The full softmax of a batch: chunked against plain."""
    tensors = [torch.randn(1, num_tokens, width), torch.randn(num_items, width) * 0.1, torch.zeros(num_items)]
    preference, vectors, bias = (tensor.requires_grad_() for tensor in tensors)
    target = torch.randint(num_items, (num_tokens,))
    taken = seconds_of_each(
        {
            "chunked": lambda: softmax_loss(preference, vectors, bias, target),
            "plain": lambda: softmax_loss_plain(preference, vectors, bias, target),
        },
        repeats,
    )
    flops = 3 * 2 * num_tokens * num_items * width
    return {
        "what": f"full softmax, {num_tokens} tokens x {num_items} items, width {width}",
        **_chunked_beside_plain(taken),
        "chunked_gigaflops": flops / taken["chunked"] / 1e9,
    }


def sampled_row(num_items: int, num_negatives: int, num_tokens: int, repeats: int) -> dict[str, float | str]:
    """The softmax over shared negatives: chunked against plain, and against the full one."""
    tensors = [torch.randn(1, num_tokens, 64), torch.randn(num_items, 64) * 0.1, torch.zeros(num_items)]
    preference, vectors, bias = (tensor.requires_grad_() for tensor in tensors)
    target = torch.randint(num_items, (num_tokens,))
    negatives = Negatives.draw(torch.full((num_items,), -math.log(num_items)), num_negatives)
    taken = seconds_of_each(
        {
            "chunked": lambda: negatives.loss(preference, vectors, bias, target),
            "plain": lambda: negatives.loss_plain(preference, vectors, bias, target),
            "full": lambda: softmax_loss(preference, vectors, bias, target),
        },
        repeats,
    )
    return {
        "what": f"softmax over {num_negatives} of {num_items} items, {num_tokens} tokens, width 64",
        **_chunked_beside_plain(taken),
        "full_over_chunked": taken["full"] / taken["chunked"],
    }


def dropout_row(num_tokens: int, width: int, repeats: int) -> dict[str, float | str]:
    """Dropout by bytes against that of torch."""
    values = torch.randn(num_tokens, width, requires_grad=True)
    taken = seconds_of_each(
        {
            "bytes": lambda: drop(values, 0.5, training=True).sum(),
            "torch": lambda: functional.dropout(values, 0.5, training=True).sum(),
        },
        repeats,
    )
    return {
        "what": f"dropout, {num_tokens} tokens, width {width}",
        "bytes_ms": taken["bytes"] * 1e3,
        "torch_ms": taken["torch"] * 1e3,
        "torch_over_bytes": taken["torch"] / taken["bytes"],
    }


def top_row(num_items: int, num_rows: int, k: int, repeats: int) -> dict[str, float | str]:
    """The best scores of each row by groups against those of torch."""
    scores = torch.randn(num_rows, num_items)
    taken: dict[str, list[float]] = {"groups": [], "torch": []}
    for _ in range(repeats):
        for name, best in (("groups", best_scores), ("torch", torch.topk)):
            begun = time.perf_counter()
            best(scores, k)
            taken[name].append(time.perf_counter() - begun)
    groups, by_torch = (statistics.median(taken[name]) for name in ("groups", "torch"))
    return {
        "what": f"the {k} best of {num_items} scores, {num_rows} rows",
        "groups_ms": groups * 1e3,
        "torch_ms": by_torch * 1e3,
        "torch_over_groups": by_torch / groups,
    }


def _chunked_beside_plain(taken: dict[str, float]) -> dict[str, float]:
    return {
        "chunked_ms": taken["chunked"] * 1e3,
        "plain_ms": taken["plain"] * 1e3,
        "plain_over_chunked": taken["plain"] / taken["chunked"],
    }


def attention_row(histories: int, length: int, width: int, repeats: int) -> dict[str, float | str]:
    """Additive attention: chunked against plain and against the dot-product form."""
    query, key = (torch.randn(histories, length, width, requires_grad=True) for _ in range(2))
    value = torch.randn(histories, length, 64, requires_grad=True)
    score = torch.randn(width, requires_grad=True)
    position = torch.arange(length).expand(histories, length)
    dot = DotProductAttention(64, width)
    taken = seconds_of_each(
        {
            "chunked": lambda: additive_context(query, key, value, score, position).sum(),
            "plain": lambda: additive_context_plain(query, key, value, score, position).sum(),
            "dot": lambda: dot(value, value, value, position).sum(),
        },
        repeats,
    )
    return {
        "what": f"additive attention, {histories} histories x {length} events, hidden width {width}",
        **_chunked_beside_plain(taken),
        "chunked_over_dot": taken["chunked"] / taken["dot"],
    }


def cost_of_length(form: str, length: int) -> tuple[float, float]:
    """Seconds of forward and backward on one history of that length, and the peak of this process in MB."""
    torch.set_num_threads(1)
    attention = build_attention(form, 64, HIDDEN_WIDTH)
    posteriors = torch.randn(1, length, 64, requires_grad=True)
    position = torch.arange(length).unsqueeze(0)
    taken = seconds_of_each({form: lambda: attention(posteriors, posteriors, posteriors, position).sum()}, repeats=3)
    return taken[form], peak_megabytes()


def name_of_length(length: int) -> str:
    return f"attention over one history of {length} events, hidden width {HIDDEN_WIDTH}"


def length_row(length: int) -> dict[str, float | str]:
    """Both forms on one long history, each in a process of its own, one thread."""
    row: dict[str, float | str] = {"what": name_of_length(length)}
    for form in FORMS:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            seconds, megabytes = pool.submit(cost_of_length, form, length).result()
        row |= {f"{form}_ms": seconds * 1e3, f"{form}_peak_megabytes": megabytes}
    return row | {"additive_over_dot": float(row["additive_ms"]) / float(row["dot_ms"])}


def measured(threads: int, repeats: int) -> Record:
    """All rows."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rows = [softmax_row(items, width, 4096, repeats) for items in (3_416, 12_101) for width in (64, 128)]
    rows += [sampled_row(12_101, 2_048, 4096, repeats), dropout_row(4096, 64, repeats)]
    rows += [top_row(items, 64, 11, repeats) for items in (3_416, 12_101, 32_768)]
    rows += [
        attention_row(*shape, width, repeats)
        for width in (HIDDEN_WIDTH, WIDE)
        for shape in ((400, 10), (20, 200), (4, 1000))
    ]
    rows += [length_row(length) for length in LENGTHS]
    return {**provenance(), "seed": 0, "peak_gigaflops": peak_gigaflops(repeats), "rows": rows}


def table(record: Record) -> str:
    """What one history costs in the attention of size small and in the dot product, by its length, in Markdown."""
    rows = {row["what"]: row for row in record["rows"]}
    lines = ["| events | additive, ms | dot product, ms | ratio | additive, MB | dot product, MB |", "|" + "---:|" * 6]
    for length in LENGTHS:
        row = rows[name_of_length(length)]
        cells = [f"{length:,}"]
        cells += [f"{row[f'{form}_ms']:,.1f}" for form in FORMS] + [f"{row['additive_over_dot']:.1f}"]
        cells += [f"{row[f'{form}_peak_megabytes']:,.0f}" for form in FORMS]
        lines.append(f"| {' | '.join(cells)} |")
    note = f"Forward and backward; memory of the whole process. {record['hardware']['cpu']}, one thread"
    return "\n".join([*lines, "", f"<sub>{note}. Commit {short_commit(record)}; `benchmarks/kernels.py`.</sub>", ""])


def main() -> None:
    """Run all rows, print them and write them down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--table", action="store_true", help="measure nothing; write the table of the record")
    options = parser.parse_args()
    if not options.table:
        record = measured(options.threads, options.repeats)
        write_record(RESULT, record)
        print(f"peak of a matrix product: {record['peak_gigaflops']:.0f} GFLOP/s")
        for row in record["rows"]:
            print("  ".join(f"{key} {value:.2f}" if isinstance(value, float) else value for key, value in row.items()))
    write_between_markers(DOCUMENT, MARKERS, table(json.loads(RESULT.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
