"""RecTools: SASRec with the full softmax, or eSASRec-like (LiGR layers, 256 sampled negatives)."""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import rectools
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
    sum_of_ndcg,
    without_seen,
)
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.transformers.ligr import LiGRLayers

NUM_NEGATIVES = 256
HISTORIES_AT_ONCE = 256
VARIANTS: dict[str, dict[str, Any]] = {
    "sasrec": {"loss": "softmax"},
    "esasrec": {
        "loss": "sampled_softmax",
        "n_negatives": NUM_NEGATIVES,
        "transformer_layers_type": LiGRLayers,
    },
}


class RecToolsSASRec:
    """Trains on the latest `max_seq_len` + 1 events of each user, as the library does."""

    def __init__(self, sequences: Sequences, settings: Settings) -> None:
        seed_everything(settings.seed, verbose=False)
        self.sequences = sequences
        self.settings = settings
        self.dataset = dataset_of(sequences.train)
        self.targets_per_epoch = sequences.num_targets(settings.max_seq_len)
        self.model: SASRecModel
        self.answers = pd.DataFrame()

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.torch_model.parameters())

    def describe(self) -> dict[str, Any]:
        versions = {"rectools": rectools.__version__, "torch": torch.__version__}
        return {"versions": versions, "own_settings": {"loss": VARIANTS[self.settings.variant]["loss"]}}

    def measure_cost(self) -> float:
        probe = CostProbe()
        ticking = Ticking(probe)
        self.model = self._model(ticking)
        with contextlib.suppress(EnoughMeasured):
            self.model.fit(self.dataset)
        return probe.step_seconds * ticking.num_steps

    def train(self, curve: LearningCurve) -> str:
        watch = Watch(self, curve)
        self.model = self._model(watch)
        self.model.fit(self.dataset)
        self.model.torch_model.load_state_dict(watch.best)
        assert curve.stop_reason is not None
        return curve.stop_reason

    def validation_ndcg(self) -> float:
        """Over all users and the whole catalog; the library has no such validation of its own."""
        network, item_map = self.model.torch_model, self.model.data_preparator.item_id_map
        position = dict(zip(item_map.external_ids, item_map.internal_ids, strict=True))
        vectors = network.similarity_module.item_tower_forward(network.item_model.get_all_embeddings())
        total, users = 0.0, list(self.sequences.train)
        for first in range(0, len(users), HISTORIES_AT_ONCE):
            # An item without a vector, seen only before the latest events, cannot be recommended: a miss.
            chosen = [u for u in users[first : first + HISTORIES_AT_ONCE] if self.sequences.validation[u] in position]
            seen = [[position[i] for i in self.sequences.train[user] if i in position] for user in chosen]
            batch = {"x": padded(seen, self.settings.max_seq_len, padding=0, at_end=False)}
            encoded = network.encode_sessions(batch, network.item_model.get_all_embeddings())[:, -1]
            scores = without_seen(network.similarity_module.session_tower_forward(encoded) @ vectors.T, seen)
            scores[:, 0] = -torch.inf
            target = torch.tensor([position[self.sequences.validation[user]] for user in chosen])
            total += sum_of_ndcg(scores, target)
        return total / len(users)

    def recommend_all(self) -> None:
        history = dataset_of(self.sequences.before_test)
        users = list(self.sequences.before_test)
        self.answers = self.model.recommend(users=users, dataset=history, k=K, filter_viewed=True)

    def test_lists(self) -> Lists:
        ordered = self.answers.sort_values([Columns.User, Columns.Rank])
        return {int(user): rows.tolist() for user, rows in ordered.groupby(Columns.User)[Columns.Item]}

    def recommend_one(self, history: list[int]) -> Sequence[Any]:
        answer = self.model.recommend(users=[-1], dataset=dataset_of({-1: history}), k=K, filter_viewed=True)
        return answer[Columns.Item].tolist()

    def _model(self, callback: Callback) -> SASRecModel:
        """The library makes its trainer, and so takes the callback, when the model is made."""
        settings = self.settings
        return SASRecModel(
            n_blocks=settings.num_layers,
            n_heads=settings.num_heads,
            n_factors=settings.hidden_size,
            dropout_rate=settings.dropout,
            session_max_len=settings.max_seq_len,
            batch_size=settings.batch_rows,
            lr=settings.learning_rate,
            get_trainer_func=lambda: trainer_with(callback),
            **VARIANTS[settings.variant],
        )


class OwnCallback(Callback):
    """Stays one and the same: the library trains with a deep copy of its trainer and of all that hangs on it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class Watch(OwnCallback):
    """Validates after each epoch, keeps the best weights, stops."""

    def __init__(self, system: RecToolsSASRec, curve: LearningCurve) -> None:
        self.system = system
        self.curve = curve
        self.best: dict[str, Any] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.curve.begin_epoch()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.curve.end_epoch()
        network = self.system.model.torch_model
        network.eval()
        with torch.no_grad():
            ndcg = self.system.validation_ndcg()
        network.train()
        if self.curve.validated(ndcg):
            self.best = copy.deepcopy(network.state_dict())
        trainer.should_stop = self.curve.stop_reason is not None


class Ticking(OwnCallback):
    """Tells a probe of each batch."""

    def __init__(self, probe: CostProbe) -> None:
        self.probe = probe
        self.num_steps = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.num_steps = int(trainer.num_training_batches)
        self.probe.tick()


def trainer_with(callback: Callback) -> Trainer:
    return Trainer(
        max_epochs=-1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    )


def dataset_of(histories: Histories) -> Dataset:
    """Events a day apart: the library orders by time."""
    lengths = [len(history) for history in histories.values()]
    days = np.concatenate([np.arange(length) for length in lengths])
    events = {
        Columns.User: np.repeat(list(histories), lengths),
        Columns.Item: np.concatenate(list(histories.values())),
        Columns.Weight: 1.0,
        Columns.Datetime: pd.Timestamp("2020-01-01") + pd.to_timedelta(days, unit="D"),
    }
    return Dataset.construct(pd.DataFrame(events))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    measure(Job.from_command_line(), RecToolsSASRec)
