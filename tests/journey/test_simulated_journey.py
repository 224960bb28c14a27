"""A model that is trained on simulated users comes close to the true probabilities of their next items.

The simulated users often come back to an item (view, cart, purchase), so the true ranking ranks seen items too. The
comparison without seen items is tested as well, as both ways are in use.
"""

from __future__ import annotations

import warnings

import pytest

from tests.oracle import Oracle
from variseq.estimator import VariationalAttention
from variseq.evaluation.baselines import LastItemTransitions, Popular
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.evaluation import Evaluation
from variseq.evaluation.item_knn import ItemKNN
from variseq.evaluation.recommender import Recommender
from variseq.evaluation.splits import Part
from variseq.events.simulate import SimulationOptions, simulate
from variseq.log import read
from variseq.recommend.network_model import ModelRecommender

pytestmark = pytest.mark.slow

SHARE_OF_THE_ORACLE = 0.90
NETWORK = {
    "hidden_size": 64,
    "latent_dim": 64,
    "num_layers": 1,
    "num_heads": 1,
    "attention_dim": 16,
    "max_seq_len": 50,
    "dropout": 0.1,
}
TRAINING = {
    "max_epochs": 6,
    "patience": 6,
    "batch_tokens": 1024,
    "learning_rate": 0.005,
    "warmup_steps": 50,
    "weight_decay": 0.01,
    "item_weight_decay": 0.0,
    "num_samples": 1,
    "ema_decay": 0.995,
    "deterministic_fraction": 0.3,
    "kl_anneal_fraction": 0.1,
    "kl_target": 60.0,
    "beta": 1e-4,
    "value_loss_weight": 0.0,
    "exclude_seen": False,
}
Compared = tuple[Part, list[Recommender]]


@pytest.fixture(scope="module")
def compared() -> Compared:
    """The test part with model, oracle and baselines; a warning of posterior collapse is an error."""
    options = SimulationOptions(
        num_users=1500,
        num_items=100,
        num_categories=5,
        mean_events=25,
        transition_share=0.4,
        taste_prior_events=1.0,
        seed=0,
    )
    simulation = simulate(options)
    log = read(simulation.events(), items=simulation.items())
    train, valid, test = log.split("leave-one-out")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = VariationalAttention("tiny", seed=0, device="cpu", model=NETWORK, training=TRAINING)
        model.fit(train, valid, verbose=0)
    known, num_items = train.part.history(), log.vocabulary.num_items
    return test.part, [
        ModelRecommender(model._engine().model),
        Oracle(simulation, log.vocabulary.items.to_pylist(), log.vocabulary.behaviors),
        Popular(num_items).fit(known),
        LastItemTransitions(num_items).fit(known),
        ItemKNN(num_items).fit(known),
    ]


def evaluations(compared: Compared, exclude_seen: bool) -> dict[str, Evaluation]:
    part, recommenders = compared
    options = EvaluationOptions(k=10, exclude_seen=exclude_seen)
    return {recommender.name: evaluate(recommender, part, options) for recommender in recommenders}


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_model_reaches_nine_tenths_of_the_oracle_and_beats_baselines(compared: Compared, exclude_seen: bool) -> None:
    found = evaluations(compared, exclude_seen)
    ndcg = {name: float(evaluation.metric("ndcg").mean()) for name, evaluation in found.items()}
    assert ndcg["variseq"] >= SHARE_OF_THE_ORACLE * ndcg["oracle"]
    assert ndcg["variseq"] > 1.2 * ndcg["item-knn"]
    assert ndcg["variseq"] > 2.0 * ndcg["popular"]
    assert ndcg["variseq"] < 1.02 * ndcg["oracle"], "no ranking can be better than the true one"


def test_probabilities_come_near_the_true_ones(compared: Compared) -> None:
    found = evaluations(compared, exclude_seen=False)
    nll = {name: float(found[name].metric("nll").mean()) for name in ("variseq", "oracle", "popular")}
    assert nll["oracle"] < nll["variseq"]
    # Of what can be known beyond popularity, in nats, the model knows more than four fifths.
    assert nll["popular"] - nll["variseq"] > 0.8 * (nll["popular"] - nll["oracle"])
    assert nll["variseq"] < float(found["last-item-transitions"].metric("nll").mean())
