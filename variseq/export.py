"""A finished run into a folder that is served without torch: the encoder as ONNX, the rest as tables."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from variseq.errors import InputError, MissingDependencyError
from variseq.inference.bundle import ENCODER, INDEX, INSIDE_A_RUN, Bundle, Facts, Tables, write_bundle
from variseq.inference.encoder import INPUTS, OUTPUTS
from variseq.model.checkpoint import Checkpoint, load_checkpoint
from variseq.model.exportable import LastPreference, distance_biases
from variseq.model.network import Network
from variseq.model.posterior import posterior_noise
from variseq.ranking.index import EXACT_ITEMS, build_index
from variseq.recommend.learned import Learned

OPSET = 23
TOLD_OF_NETWORK = ("num_items", "hidden_size", "latent_dim", "num_layers", "num_heads", "max_seq_len", "attention")


def export(run: Path, out: Path | None = None, small: bool = False) -> Path:
    """Write the exported model of a run folder and return where it is; RUN/serving where no `out` is given.

    `small` writes the encoder with weights of 8 bits in place of 32: a third of the size, at the same speed. A
    catalog of more than `EXACT_ITEMS` gets an index. Raises CheckpointError for a run that cannot be read and
    InputError when the folder exists.
    """
    folder = run / INSIDE_A_RUN if out is None else out
    if folder.exists():
        raise InputError(f"{folder} exists already. Choose another folder with --out, or remove it.")
    checkpoint = load_checkpoint(run)
    bundle = Bundle(folder, "", _facts(checkpoint, run), _tables(checkpoint), checkpoint.vocabulary, checkpoint.items)
    with tempfile.TemporaryDirectory() as workshop:
        files = {ENCODER: Path(workshop) / ENCODER}
        write_encoder(checkpoint.network, files[ENCODER])
        if small:
            whole, files[ENCODER] = files[ENCODER], Path(workshop) / "small.onnx"
            _write_small(whole, files[ENCODER])
        if len(bundle.tables.item_bias) > EXACT_ITEMS:
            files[INDEX] = Path(workshop) / INDEX
            tables = bundle.tables
            vectors = np.concatenate([tables.item_vectors, tables.item_bias[:, None]], axis=1)
            build_index(vectors, files[INDEX])
        write_bundle(bundle, files)
    return folder


def write_encoder(network: Network, path: Path) -> None:
    """The network as ONNX, for trees of any number and hidden_size; a history has at most `max_seq_len` tokens."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("onnx and onnxscript", "serve") from error
    config = network.config
    tokens = min(7, config.max_seq_len)
    whole, item = torch.zeros(3, tokens, dtype=torch.int64), torch.zeros(3, tokens, dtype=torch.int64)
    value, has_value = torch.zeros(3, tokens), torch.zeros(3, tokens, dtype=torch.bool)
    bias = torch.zeros(config.num_layers, config.num_heads, 3, tokens, tokens)
    query, place = torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 2, tokens, dtype=torch.int64)
    noise = posterior_noise(config, 2)[:, :tokens].contiguous()
    tree, token, branch, sample = (torch.export.Dim(name) for name in ("tree", "token", "branch", "sample"))
    cells, pairs = {0: tree, 1: token}, {2: tree, 3: token, 4: token}
    ends = ({0: tree, 1: branch}, {0: tree, 1: branch, 2: token}, {0: sample, 1: torch.export.Dim("place")})
    shapes = (tuple(cells for _ in range(5)), pairs, *ends)
    given = ((item, whole, whole.clone(), value, has_value), bias, query, place, noise)
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            LastPreference(network),
            given,
            str(path),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _write_small(encoder: Path, path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(str(encoder), str(path), weight_type=QuantType.QInt8)


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn of their own insides; what they made is held against the network in the tests."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _tables(checkpoint: Checkpoint) -> Tables:
    network = checkpoint.network
    counts = checkpoint.memory
    return Tables(
        item_vectors=network.item_vectors.detach().numpy(),
        item_bias=network.item_bias.detach().numpy(),
        distance_biases=distance_biases(network).numpy(),
        log_share=counts["log_share"].numpy(),
        log_trend=counts["log_trend"].numpy(),
        offsets=counts["offsets"].numpy(),
        follower=counts["item"].numpy().astype(np.int32),
        count=counts["value"].numpy().astype(np.float32),
    )


def _facts(checkpoint: Checkpoint, run: Path) -> Facts:
    config = checkpoint.network.config
    return Facts(
        max_seq_len=config.max_seq_len,
        latent_dim=config.latent_dim,
        usual_behavior=checkpoint.usual_behavior,
        exclude_seen=bool(checkpoint.config["training"]["exclude_seen"]),
        learned=Learned.of_manifest(checkpoint.manifest, run),
        health=_health(checkpoint),
    )


def _health(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the page tells of the model: its size, how it was judged on validation, and whether its latent is used."""
    config, manifest = checkpoint.network.config, checkpoint.manifest
    epochs = [record for record in checkpoint.metrics if record.get("health")]
    chosen = next((record for record in reversed(epochs) if record.get("is_best")), epochs[-1] if epochs else {})
    return {
        "network": config.model_dump(include=set(TOLD_OF_NETWORK)),
        "created": manifest.get("created"),
        "protocol": manifest.get("protocol", {}),
        "validation": Learned.of_manifest(manifest, "memory").found,
        "posterior": chosen.get("health", {}),
        "alarms": chosen.get("alarms", []),
    }
