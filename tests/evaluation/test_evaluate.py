from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.scored import GivenScores
from tests.model.some_networks import NUM_ITEMS as NETWORK_ITEMS
from tests.model.some_networks import small_network
from variseq.errors import InputError
from variseq.evaluation import evaluate as evaluate_module
from variseq.evaluation import ranks
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.evaluation import Evaluation
from variseq.evaluation.splits import Part, by_time, leave_one_out
from variseq.evaluation.summary import summarize
from variseq.ranking.calibration import Calibration, repeat_share
from variseq.ranking.selection import Constraints, Selector
from variseq.recommend.network_model import ModelRecommender, count_events, mixture_model
from variseq.sequences.histories import Histories

NUM_USERS, NUM_ITEMS = 12, 25
REPEATS = 0.2


def random_part(seed: int, num_items: int = NUM_ITEMS) -> Part:
    """A test part by time in which the first item of user u is u, with empty histories, repeats and unseen items."""
    generator = np.random.default_rng(seed)
    lists = [
        [user, *generator.integers(num_items, size=generator.integers(0, 14)).tolist()] for user in range(NUM_USERS)
    ]
    histories = Histories.of_items(lists)
    # Users come at different times, so that some are seen in the test only.
    arrival_seconds = np.append(generator.integers(30, size=NUM_USERS - 1), 45)
    arrival = np.repeat(arrival_seconds, histories.lengths) * 1_000_000
    histories = dataclasses.replace(histories, timestamp=histories.timestamp + arrival)
    return by_time(histories, test=0.25, valid=0.1, num_items=num_items)[2]


def random_scores(seed: int, num_items: int = NUM_ITEMS, num_levels: int = 6) -> np.ndarray:
    """Few levels, so that there are many ties; both zeros among them."""
    levels = np.random.default_rng(seed).integers(-num_levels, num_levels, size=(NUM_USERS, num_items)) / 2.0
    levels[levels == 0] *= -1
    return levels


def plainly(matrix: np.ndarray, part: Part, k: int, exclude_seen: bool, targets: str) -> list[dict[str, object]]:
    """The definition, one query at a time."""
    queries = part.queries(targets)
    rows = []
    for user, position in zip(queries.user, queries.position, strict=True):
        start = part.histories.offsets[user]
        seen = set(part.histories.item[start:position].tolist()) if exclude_seen else set()
        target = int(part.histories.item[position])
        score = matrix[part.histories.item[start] if position > start else 0].astype(np.float64)
        candidates = [item for item in range(part.num_items) if item not in seen]
        rank = 1.0 + sum(score[item] >= score[target] for item in candidates if item != target)
        if target in seen:
            rank = np.inf
        top = sorted(candidates, key=lambda item: (-score[item], item))[:k]
        probability = np.exp(score) / np.exp(score).sum()
        is_seen = np.isin(np.arange(len(score)), list(seen))
        if exclude_seen and is_seen.any() and not is_seen.all():
            # What may be recommended and what was seen are two distributions, weighed by the share of repeats.
            for inside, share in ((is_seen, REPEATS), (~is_seen, 1 - REPEATS)):
                probability[inside] *= share / probability[inside].sum()
        one = np.eye(part.num_items)[target]
        rows.append(
            {
                "rank": rank,
                "top": top + [-1] * (k - len(top)),
                "top_probability": [probability[item] for item in top] + [0.0] * (k - len(top)),
                "nll": -np.log(probability[target]),
                "brier": ((probability - one) ** 2).sum(),
                "entropy": -(probability * np.log(probability)).sum(),
                "mass_before": sum(
                    [probability[item] for item in candidates if score[item] >= score[target] and item != target]
                )
                if target in candidates
                else 1.0,
            }
        )
    return rows


@given(
    seed=st.integers(0, 1_000),
    k=st.integers(1, NUM_ITEMS),
    exclude_seen=st.booleans(),
    targets=st.sampled_from(["first", "last", "all"]),
    cells_at_once=st.integers(1, 500),
    block_cells=st.integers(1, 500),
)
@settings(max_examples=30, deadline=None)
def test_evaluation_equals_the_plain_definition_for_any_batches(
    seed: int, k: int, exclude_seen: bool, targets: str, cells_at_once: int, block_cells: int
) -> None:
    part, matrix = random_part(seed), random_scores(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_module, "CELLS_AT_ONCE", cells_at_once)
        patch.setattr(ranks, "BLOCK_CELLS", block_cells)
        evaluation = evaluate(GivenScores(matrix), part, EvaluationOptions(k, targets, exclude_seen, REPEATS))
    expected = plainly(matrix, part, k, exclude_seen, targets)
    assert evaluation.rank.tolist() == [row["rank"] for row in expected]
    assert evaluation.top_item.tolist() == [row["top"] for row in expected]
    for name in ("nll", "brier", "entropy", "top_probability", "mass_before"):
        reference = np.array([row[name] for row in expected])
        np.testing.assert_allclose(getattr(evaluation.forecasts, name), reference, rtol=1e-5, atol=1e-6)


def one_query(history: list[int], target: int, scores: list[float], **options: object) -> Evaluation:
    """One test query over a catalog whose items all occur in the training of others."""
    everything = [list(range(len(scores)))] * 2
    lists = [[*history, target], *([[*items, 0, 0] for items in everything])]
    part = leave_one_out(Histories.of_items(lists), num_items=len(scores))[2]
    model = GivenScores(np.tile(np.array(scores), (len(scores), 1)))
    whole = evaluate(model, part, EvaluationOptions(k=2, **options))  # type: ignore[arg-type]
    assert whole.user[0] == 0
    return whole


def test_ties_are_broken_against_the_model_and_lists_take_the_smaller_item() -> None:
    evaluation = one_query([5, 5], target=0, scores=[1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    assert evaluation.rank[0] == 3
    assert evaluation.top_item[0].tolist() == [0, 1]


def test_constant_scores_put_every_target_last() -> None:
    evaluation = one_query([5, 4], target=0, scores=[2.0] * 6)
    assert evaluation.rank[0] == 4  # six items, of which two are seen


def test_target_seen_before_is_a_miss_only_when_seen_items_are_excluded() -> None:
    scores = [9.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    excluded = one_query([0, 5], target=0, scores=scores)
    assert excluded.rank[0] == np.inf
    assert excluded.target_was_seen[0]
    assert 0 not in excluded.top_item[0]
    kept = one_query([0, 5], target=0, scores=scores, exclude_seen=False)
    assert kept.rank[0] == 1
    assert not kept.target_was_seen[0]


def test_items_without_training_events_are_ranked_as_all_others_and_counted() -> None:
    part = leave_one_out(Histories.of_items([[0, 1, 2, 3], [1, 0, 2, 1]]))[2]
    matrix = np.zeros((4, 4))
    matrix[:, 3] = 5
    evaluation = evaluate(GivenScores(matrix), part, EvaluationOptions(k=2))
    assert evaluation.target_count.tolist() == [0, 2]
    assert evaluation.rank[0] == 1
    assert summarize(evaluation)["unseen_targets"] == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_by_the_name_of_the_model(bad: float) -> None:
    matrix = random_scores(0)
    matrix[:, 3] = bad
    with pytest.raises(InputError, match=r"'broken' gave scores that are NaN or infinite"):
        evaluate(GivenScores(matrix, name="broken"), random_part(0))


def test_scores_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"scores of shape .* one row a history"):
        evaluate(GivenScores(random_scores(0)[:, :5]), random_part(0))


@pytest.mark.parametrize("k", [0, NUM_ITEMS + 1])
def test_k_that_does_not_fit_the_catalog_is_refused(k: int) -> None:
    with pytest.raises(InputError, match=f"k={k} does not fit a catalog of {NUM_ITEMS} items. Allowed: 1 to"):
        evaluate(GivenScores(random_scores(0)), random_part(0), EvaluationOptions(k=k))


def test_training_part_cannot_be_evaluated_on() -> None:
    train = leave_one_out(Histories.of_items([[0, 1, 2]]))[0]
    with pytest.raises(InputError, match="no event to predict"):
        evaluate(GivenScores(np.zeros((3, 3))), train, EvaluationOptions(k=1))


def test_wrong_options_are_refused() -> None:
    part, model = random_part(0), GivenScores(random_scores(0))
    with pytest.raises(InputError, match="item_categories has 1 entries"):
        evaluate(model, part, EvaluationOptions(item_categories=[("drama",)]))


def test_large_scores_do_not_overflow_the_probabilities() -> None:
    evaluation = evaluate(GivenScores(random_scores(1) * 1e4), random_part(1))
    assert np.isfinite(evaluation.forecasts.nll).all()
    assert (evaluation.forecasts.entropy >= -1e-9).all()


def test_model_without_probabilities_gets_no_probability_metrics() -> None:
    evaluation = evaluate(GivenScores(random_scores(0), gives_probabilities=False), random_part(0))
    summary = summarize(evaluation, num_resamples=20)
    assert evaluation.forecasts is None
    assert summary["nll"] is None
    assert summary["ece_top1"] is None
    assert summary["ndcg@10"] is not None


LISTS = st.lists(st.lists(st.integers(0, NETWORK_ITEMS - 1), min_size=3, max_size=8), min_size=2, max_size=6)


@settings(max_examples=10, deadline=None)
@given(histories=LISTS, share=st.floats(0.01, 0.6))
def test_recommended_probabilities_are_those_of_the_evaluation(histories: list[list[int]], share: float) -> None:
    part = leave_one_out(Histories.of_items(histories), NETWORK_ITEMS)[2]
    model = mixture_model(small_network(), count_events(NETWORK_ITEMS, part.history()), Calibration(2))
    options = EvaluationOptions(k=4, targets="last", repeat_share=share)
    evaluation = evaluate(ModelRecommender(model), part, options)
    known, shares = part.history(), np.full(len(histories), share)
    p = model.distribution(model.encode(known), known, repeats=shares).probabilities()
    selector = Selector.of(known, [Constraints(NETWORK_ITEMS, 4)] * len(histories), model.everything)
    item, score = selector.best(p, 0.0, model.tables.vectors)
    np.testing.assert_array_equal(item, evaluation.top_item)
    np.testing.assert_allclose(np.exp(score), evaluation.forecasts.top_probability, atol=1e-5)
    # What is seen shares the probability of a repeat, and nothing is lost.
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    of_seen = np.array([p[row, list(set(items[:-1]))].sum() for row, items in enumerate(histories)])
    has_new = [len(set(items[:-1])) < NETWORK_ITEMS for items in histories]
    np.testing.assert_allclose(of_seen, np.where(has_new, share, 1.0), atol=1e-5)


def test_repeat_share_is_counted_after_the_first_event_and_never_zero() -> None:
    assert repeat_share(Histories.of_items([[1, 2, 3], [4, 5]])) == pytest.approx(0.5 / 4)
    assert repeat_share(Histories.of_items([[1, 1, 1], [], [4]])) == pytest.approx(2.5 / 3)
