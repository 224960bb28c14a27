"""Export of a run: the encoder as ONNX and the other parameters as tables, which are served without torch."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors.numpy import save_file

from variseq.artifacts.catalog_changes import write_changes
from variseq.artifacts.checkpoint import Checkpoint, load_checkpoint
from variseq.artifacts.folder import ENCODER, INDEX, TABLES, add_files, has_file, new_artifact
from variseq.atomic import refuse_existing
from variseq.errors import InputError
from variseq.inference.engine import load_engine
from variseq.model.exportable import encoder_tables, write_encoder
from variseq.ranking.catalog_changes import CatalogChanges
from variseq.ranking.index import EXACT_ITEMS, build_index
from variseq.ranking.item_codes import COMPRESSIONS, Compression, ItemCodes, int8_codes, product_codes
from variseq.ranking.mixture import SCORE_OFFSET, MixtureModel
from variseq.ranking.near_items import COORDINATES
from variseq.ranking.options import RecommendOptions
from variseq.recommend.network_model import CONTENT, mixture_model
from variseq.sequences.histories import Histories

SAMPLED_HISTORIES = 2000
RECALL_HISTORIES = 500
"""So many histories show how much an index finds."""
SERVED_MANIFEST = (
    *("network", "calibration", "usual_behavior", "exclude_seen", "latent", "protocol", "created", "versions"),
    "erasures",
)
"""What the manifest of an export takes over from that of the run: nothing that quotes rows of the log."""


def export(run: Path, out: Path | None = None, compress: Compression = "none") -> Path:
    """Write what is served without torch: the encoder as ONNX, tables and, above `EXACT_ITEMS` items, an index.

    Args:
        run: The folder of a finished run.
        out: A folder that does not exist yet, which then names no user and holds no events; into the run where None.
        compress: The item vectors, in memory too: "none" (32 bits a number), "int8" (8 bits a number), or "pq" (product
            quantization, 2 bits a number).

    Returns:
        The folder that can be served.

    Raises:
        CheckpointError: For a run that cannot be read.
        InputError: When `out` exists, when the run has been exported before, when nothing can be written, and for
            another `compress`.
    """
    if compress not in COMPRESSIONS:
        raise InputError(f"compress={compress!r} is not possible. Allowed: {', '.join(COMPRESSIONS)}.")
    if out is not None:
        refuse_existing(out)
    elif has_file(run, TABLES):
        raise InputError(f"{run} is exported already. Choose another folder with --out.")
    checkpoint = load_checkpoint(run)
    with tempfile.TemporaryDirectory() as workspace:
        files = _files(checkpoint, Path(workspace), compress)
        if out is None:
            add_files(run, files)
            return run
        vocabulary = replace(checkpoint.vocabulary, users=checkpoint.vocabulary.users[:0])
        manifest = {key: checkpoint.manifest[key] for key in SERVED_MANIFEST if key in checkpoint.manifest}
        with new_artifact(out, manifest, vocabulary, checkpoint.items) as unfinished:
            if checkpoint.changes != CatalogChanges():
                write_changes(unfinished, checkpoint.changes)
            for name, path in files.items():
                shutil.copyfile(path, unfinished / name)
    return out


def recall_of_index(run: Path, folder: Path, k: int = 10) -> float | None:
    """The share of the k best items that the index of an export finds, for a sample of the users of its run.

    None where there is no index, or where the run has no histories.
    """
    if not has_file(folder, INDEX):
        return None
    histories, approximate = load_checkpoint(run).histories, load_engine(folder)
    if histories is None:
        return None
    chosen = np.sort(np.random.default_rng(0).permutation(len(histories))[:RECALL_HISTORIES])
    options, rows = RecommendOptions(k=k, ranks_only=True), histories.rows(chosen)
    nobody: list[None] = [None] * len(rows)
    found, best = (
        engine.recommend(rows, chosen.tolist(), nobody, options) for engine in (approximate, load_engine(folder, True))
    )
    pairs, wanted = (set(zip(one.user_id, one.item_id, strict=True)) for one in (found, best))
    return len(pairs & wanted) / max(1, len(wanted))


def _files(checkpoint: Checkpoint, workspace: Path, compress: Compression) -> dict[str, Path]:
    """Encoder, tables and index in a temporary folder, by the name that they get."""
    files = {name: workspace / name for name in (ENCODER, TABLES)}
    write_encoder(checkpoint.network, files[ENCODER])
    model = mixture_model(checkpoint.network, checkpoint.counts, checkpoint.calibrated.calibration)
    vectors = model.tables.vectors[:]
    coded = {"item_vectors": vectors} if compress == "none" else _codes(checkpoint, model, vectors, compress).tensors()
    tables = coded | _tables(checkpoint)
    save_file({name: np.ascontiguousarray(table) for name, table in tables.items()}, files[TABLES])
    # New items are all looked at for each answer, so an index of nothing else would save no work.
    if len(vectors) > EXACT_ITEMS and not model.tables.is_new.all():
        files[INDEX] = workspace / INDEX
        build_index(vectors, files[INDEX], compress)
    return files


def _codes(
    checkpoint: Checkpoint, model: MixtureModel, vectors: Float[np.ndarray, "item hidden_plus_one"], compress: str
) -> ItemCodes:
    """Codes of item vectors; what errors cost in product codes is known from a sample of histories.

    A run that was saved without histories has those of one event, by popularity.
    """
    if compress == "int8":
        return int8_codes(vectors)
    popularity, generator = np.exp(model.tables.log_share.astype(np.float64)), np.random.default_rng(0)
    histories = checkpoint.histories
    if histories is not None and histories.num_events:
        histories = histories.rows(np.sort(generator.permutation(len(histories))[:SAMPLED_HISTORIES]))
    else:
        item = generator.choice(len(popularity), SAMPLED_HISTORIES, p=popularity / popularity.sum())
        histories = replace(Histories.of_items(item[:, None].tolist()), visit_gap=checkpoint.network.config.visit_gap)
    preference = model.scaled(model.encode(histories), histories).reshape(-1, vectors.shape[1]).astype(np.float64)
    return product_codes(vectors, preference.T @ preference / len(preference), popularity)


def _tables(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """The numbers outside the encoder; the followers of item i are those at `offsets[i]:offsets[i + 1]`."""
    counts = checkpoint.counts
    return {
        **encoder_tables(checkpoint.network),
        **{
            name: counts[name].numpy()
            for name in ("log_share", "log_trend", "is_new", CONTENT, SCORE_OFFSET, COORDINATES)
            if name in counts
        },
        "offsets": _smallest_type(counts["offsets"].numpy()),
        "follower": _smallest_type(counts["item"].numpy()),
        "count": _smallest_type(counts["value"].numpy()),
        **({} if checkpoint.next_time is None else checkpoint.next_time.tensors()),
        **({} if checkpoint.attributes is None else checkpoint.attributes.tensors()),
        **({} if checkpoint.new_item_vectors is None else checkpoint.new_item_vectors.tensors()),
    }


def _smallest_type(numbers: np.ndarray) -> np.ndarray:
    """The same numbers, in the smallest unsigned type where all are whole."""
    smallest = numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))
    return smallest if np.array_equal(smallest, numbers) else numbers
