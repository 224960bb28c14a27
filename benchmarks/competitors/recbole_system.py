"""RecBole: SASRec with the full cross-entropy, every prefix a row of its own, for the runner of competitors."""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import recbole
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
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.utils import get_model, get_trainer, init_seed

HISTORIES_AT_ONCE = 512
UNLIMITED = 1_000_000


class Stopped(Exception):
    """Training is over by the rule of the bench."""


class RecBoleSASRec:
    """As shipped: the library turns anomaly detection of torch on when it is imported, for every model.

    Its own evaluation recommends items of the history again, so lists and validation are made here from its scores.
    """

    def __init__(self, sequences: Sequences, settings: Settings) -> None:
        self.sequences = sequences
        self.settings = settings
        self.folder = tempfile.TemporaryDirectory(prefix="recbole-")
        self._write_events(Path(self.folder.name) / "events")
        os.chdir(self.folder.name)  # it writes folders of logs where it is started
        sys.argv = sys.argv[:1]  # it reads the command line
        config = Config(model="SASRec", dataset="events", config_dict=self._config())
        init_seed(config["seed"], config["reproducibility"])
        self.dataset = create_dataset(config)
        self.rows, self.validation_rows, _ = data_preparation(config, self.dataset)
        self.targets_per_epoch = len(self.rows.dataset)
        self.network = get_model("SASRec")(config, self.rows.dataset).to(config["device"])
        self.trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, self.network)
        self.position = {item: int(self.dataset.token2id("item_id", str(item))) for item in sequences.items}
        self.item_of = {place: item for item, place in self.position.items()}
        self.lists: Lists = {}

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    def describe(self) -> dict[str, Any]:
        versions = {"recbole": recbole.__version__, "torch": torch.__version__}
        own = {"loss": "CE", "anomaly_detection": torch.is_anomaly_enabled()}
        return {"versions": versions, "own_settings": own}

    def measure_cost(self) -> float:
        probe, loss_of = CostProbe(), self.network.calculate_loss

        def counted(interaction: Interaction) -> Any:
            probe.tick()
            return loss_of(interaction)

        self.network.calculate_loss = counted
        with contextlib.suppress(EnoughMeasured):
            self.trainer.fit(self.rows, None, saved=False, verbose=False)
        return probe.step_seconds * len(self.rows)

    def train(self, curve: LearningCurve) -> str:
        best: dict[str, Any] = {}
        train_epoch = self.trainer._train_epoch

        def timed_epoch(*words: Any, **names: Any) -> Any:
            curve.begin_epoch()
            loss = train_epoch(*words, **names)
            curve.end_epoch()
            return loss

        def validate(*_: Any, **__: Any) -> tuple[float, dict[str, float]]:
            ndcg = self.validation_ndcg()
            if curve.validated(ndcg):
                best["weights"] = copy.deepcopy(self.network.state_dict())
            if curve.stop_reason is not None:
                raise Stopped
            return ndcg, {"ndcg@10": ndcg}

        # The loop is the library's; what it does at the end of an epoch is replaced, as it has no masked validation.
        self.trainer._train_epoch, self.trainer._valid_epoch = timed_epoch, validate
        with contextlib.suppress(Stopped):
            self.trainer.fit(self.rows, self.validation_rows, saved=False, verbose=False)
        self.network.load_state_dict(best["weights"])
        assert curve.stop_reason is not None
        return curve.stop_reason

    def validation_ndcg(self) -> float:
        total, users = 0.0, list(self.sequences.train)
        for first in range(0, len(users), HISTORIES_AT_ONCE):
            chosen = users[first : first + HISTORIES_AT_ONCE]
            target = torch.tensor([self.position[self.sequences.validation[user]] for user in chosen])
            total += sum_of_ndcg(self._scores([self.sequences.train[user] for user in chosen]), target)
        return total / len(users)

    def recommend_all(self) -> None:
        histories: Histories = self.sequences.before_test
        users = list(histories)
        for first in range(0, len(users), HISTORIES_AT_ONCE):
            chosen = users[first : first + HISTORIES_AT_ONCE]
            best = self._scores([histories[user] for user in chosen]).topk(K).indices.tolist()
            for user, places in zip(chosen, best, strict=True):
                self.lists[user] = [self.item_of[place] for place in places]

    def test_lists(self) -> Lists:
        return self.lists

    def recommend_one(self, history: list[int]) -> Sequence[Any]:
        return [self.item_of[place] for place in self._scores([history])[0].topk(K).indices.tolist()]

    def _scores(self, histories: list[list[int]]) -> torch.Tensor:
        """Scores [history, place in its vocabulary] without padding and items of the history."""
        seen = [[self.position[item] for item in history] for history in histories]
        length = self.settings.max_seq_len
        rows = {
            "item_id_list": padded(seen, length, padding=0, at_end=True),
            "item_length": torch.tensor([min(len(places), length) for places in seen]),
        }
        self.network.eval()
        with torch.no_grad():
            scores = self.network.full_sort_predict(Interaction(rows)).view(len(histories), -1)
        scores[:, 0] = -torch.inf
        return without_seen(scores, seen)

    def _write_events(self, folder: Path) -> None:
        folder.mkdir()
        with (folder / "events.inter").open("w", encoding="utf-8") as file:
            file.write("user_id:token\titem_id:token\ttimestamp:float\n")
            for user, history in self.sequences.histories.items():
                file.writelines(f"{user}\t{item}\t{time}\n" for time, item in enumerate(history))

    def _config(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "data_path": self.folder.name,
            "checkpoint_dir": f"{self.folder.name}/saved",
            "USER_ID_FIELD": "user_id",
            "ITEM_ID_FIELD": "item_id",
            "TIME_FIELD": "timestamp",
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {
                "split": {"LS": "valid_and_test"},
                "order": "TO",
                "mode": "full",
                "group_by": "user",
            },
            "train_neg_sample_args": None,
            "loss_type": "CE",
            "MAX_ITEM_LIST_LENGTH": settings.max_seq_len,
            "train_batch_size": settings.batch_rows,
            "epochs": UNLIMITED,
            "stopping_step": UNLIMITED,
            "topk": [K],
            "metrics": ["NDCG"],
            "valid_metric": f"NDCG@{K}",
            "learning_rate": settings.learning_rate,
            "seed": settings.seed,
            "reproducibility": True,
            "use_gpu": False,
            "show_progress": False,
            "state": "ERROR",
            "n_layers": settings.num_layers,
            "n_heads": settings.num_heads,
            "hidden_size": settings.hidden_size,
            "inner_size": 4 * settings.hidden_size,
            "hidden_dropout_prob": settings.dropout,
            "attn_dropout_prob": settings.dropout,
        }


if __name__ == "__main__":
    # RecBole loads no checkpoint here; whoever lets it needs torch.load with weights_only=False since torch 2.6.
    measure(Job.from_command_line(), RecBoleSASRec)
