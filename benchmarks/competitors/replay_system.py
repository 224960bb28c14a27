"""RePlay: SasRec with the full cross-entropy, over Parquet files, for the runner of competitors."""

from __future__ import annotations

import contextlib
import copy
import logging
import tempfile
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import torch
from process import (
    CostProbe,
    EnoughMeasured,
    Histories,
    Job,
    K,
    LearningCurve,
    Lists,
    Sequences,
    Settings,
    measure,
    padded,
    without_seen,
)
from replay.data import FeatureHint, FeatureSource, FeatureType
from replay.data.nn import ParquetModule, TensorFeatureInfo, TensorFeatureSource, TensorSchema
from replay.nn.lightning import LightningModule
from replay.nn.lightning.callback import ComputeMetricsCallback, PandasTopItemsCallback
from replay.nn.lightning.optimizer import OptimizerFactory
from replay.nn.lightning.postprocessor import SeenItemsFilter
from replay.nn.sequential import SasRec
from replay.nn.transform.template.sasrec import make_default_sasrec_transforms


class RePlaySasRec:
    """Fed with the latest `max_seq_len` + 1 events of each user: it takes whole sequences and does not cut them."""

    def __init__(self, sequences: Sequences, settings: Settings) -> None:
        lightning.seed_everything(settings.seed, verbose=False)
        self.sequences = sequences
        self.settings = settings
        self.targets_per_epoch = sequences.num_targets(settings.max_seq_len)
        self.position = {item: place for place, item in enumerate(sequences.items)}
        self.users = list(sequences.histories)
        self.folder = tempfile.TemporaryDirectory(prefix="replay-")
        schema = self._schema()
        self.data = self._data(schema)
        self.network = SasRec.from_params(
            schema,
            embedding_dim=settings.hidden_size,
            num_heads=settings.num_heads,
            num_blocks=settings.num_layers,
            max_sequence_length=settings.max_seq_len,
            dropout=settings.dropout,
        )
        self.module = LightningModule(self.network, OptimizerFactory(learning_rate=settings.learning_rate))
        self.answers = pd.DataFrame()

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    def describe(self) -> dict[str, Any]:
        versions = {"replay-rec": version("replay-rec"), "torch": torch.__version__}
        return {"versions": versions, "own_settings": {"loss": "CE"}}

    def measure_cost(self) -> float:
        probe = CostProbe()
        ticking = Ticking(probe)
        with contextlib.suppress(EnoughMeasured):
            trainer_with(ticking, max_epochs=1).fit(self.module, datamodule=self.data)
        return probe.step_seconds * -(-len(self.users) // self.settings.batch_rows)

    def train(self, curve: LearningCurve) -> str:
        watch = Watch(self.network, curve)
        metrics = ComputeMetricsCallback(
            metrics=["ndcg"], ks=[K], item_count=self.num_items, postprocessors=[self._seen_filter()], verbose=False
        )
        trainer_with(metrics, watch, max_epochs=-1).fit(self.module, datamodule=self.data)
        self.network.load_state_dict(watch.best)
        assert curve.stop_reason is not None
        return curve.stop_reason

    def recommend_all(self) -> None:
        best = PandasTopItemsCallback(
            top_k=K, query_column="user_id", item_column="item_id", postprocessors=[self._seen_filter()]
        )
        trainer_with(best, max_epochs=1).predict(self.module, datamodule=self.data, return_predictions=False)
        self.answers = best.get_result()

    def test_lists(self) -> Lists:
        lists: Lists = {}
        for user, item in zip(self.answers["user_id"], self.answers["item_id"], strict=True):
            lists.setdefault(self.users[int(user)], []).append(self.sequences.items[int(item)])
        return lists

    def recommend_one(self, history: list[int]) -> Sequence[Any]:
        """By torch: the library itself answers only for the rows of a file."""
        seen = [[self.position[item] for item in history]]
        window = padded(seen, self.settings.max_seq_len, padding=self.num_items, at_end=False)
        self.network.eval()
        with torch.no_grad():
            output = self.network(feature_tensors={"item_id": window}, padding_mask=window != self.num_items)
        scores = without_seen(output["logits"][:, : self.num_items], seen)
        return [self.sequences.items[place] for place in scores[0].topk(K).indices.tolist()]

    @property
    def num_items(self) -> int:
        return len(self.sequences.items)

    def _seen_filter(self) -> SeenItemsFilter:
        return SeenItemsFilter(item_count=self.num_items)

    def _schema(self) -> TensorSchema:
        source = TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")
        item = TensorFeatureInfo(
            "item_id",
            is_seq=True,
            feature_type=FeatureType.CATEGORICAL,
            embedding_dim=self.settings.hidden_size,
            padding_value=self.num_items,
            cardinality=self.num_items,
            feature_hint=FeatureHint.ITEM_ID,
            feature_sources=[source],
        )
        return TensorSchema([item])

    def _data(self, schema: TensorSchema) -> ParquetModule:
        length, num_items = self.settings.max_seq_len, self.num_items
        longest = max(map(len, self.sequences.histories.values()))
        folder = Path(self.folder.name)
        train = [self._positions(history)[-(length + 1) :] for history in self.sequences.train.values()]
        table = pd.DataFrame({"user_id": range(len(self.users)), "item_id": train})
        table.to_parquet(folder / "train.parquet")
        self._write_queries(folder / "validate.parquet", self.sequences.train, self.sequences.validation)
        self._write_queries(folder / "predict.parquet", self.sequences.before_test, self.sequences.test)
        query = {
            "user_id": {},
            "item_id": {"shape": length, "padding": num_items},
            "ground_truth": {"shape": 1, "padding": -1},
            "seen_ids": {"shape": longest, "padding": -2},
        }
        rows = {"user_id": {}, "item_id": {"shape": length + 1, "padding": num_items}}
        return ParquetModule(
            batch_size=self.settings.batch_rows,
            metadata={"train": rows, "validate": query, "predict": query},
            transforms=make_default_sasrec_transforms(schema),
            train_path=str(folder / "train.parquet"),
            validate_path=str(folder / "validate.parquet"),
            predict_path=str(folder / "predict.parquet"),
        )

    def _write_queries(self, path: Path, histories: Histories, target: dict[int, int]) -> None:
        seen = [self._positions(history) for history in histories.values()]
        rows = {
            "user_id": range(len(self.users)),
            "item_id": [positions[-self.settings.max_seq_len :] for positions in seen],
            "ground_truth": [[self.position[target[user]]] for user in self.users],
            "seen_ids": seen,
        }
        pd.DataFrame(rows).to_parquet(path)

    def _positions(self, history: list[int]) -> list[int]:
        return [self.position[item] for item in history]


class Watch(lightning.Callback):
    """Reads the library's own validation after each epoch, keeps the best weights, stops."""

    def __init__(self, network: SasRec, curve: LearningCurve) -> None:
        self.network = network
        self.curve = curve
        self.best: dict[str, Any] = {}

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: LightningModule) -> None:
        self.curve.begin_epoch()

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: LightningModule) -> None:
        self.curve.end_epoch()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: LightningModule) -> None:
        values = [value for name, value in trainer.callback_metrics.items() if name.lower().startswith(f"ndcg@{K}")]
        if self.curve.validated(float(values[0])):
            self.best = copy.deepcopy(self.network.state_dict())
        trainer.should_stop = self.curve.stop_reason is not None


class Ticking(lightning.Callback):
    """Tells a probe of each batch."""

    def __init__(self, probe: CostProbe) -> None:
        self.probe = probe

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.probe.tick()


def trainer_with(*callbacks: lightning.Callback, max_epochs: int) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    measure(Job.from_command_line(), RePlaySasRec)
