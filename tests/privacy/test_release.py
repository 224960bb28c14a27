"""Contributions of users are bounded, releases are exact but for their noise, and counts are made of releases alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from variseq.privacy.alike_items import POPULARITY_POWER, SHARPNESS, AlikeItems, smoothed_counts, with_alike
from variseq.privacy.contributions import (
    DECAY,
    WINDOW,
    Pairs,
    pair_index,
    pair_sums,
    popularity_sums,
)
from variseq.privacy.denoising import posterior_means
from variseq.privacy.noise import GRID, Noise, no_noise
from variseq.privacy.release import NoisySums, PairCounts, PrivacyOptions, pair_counts, private_ledger, release
from variseq.ranking.content_table import ContentTable
from variseq.ranking.counts import PRIOR_EVENTS, followers
from variseq.sequences.histories import Histories

NUM_ITEMS = 6
HISTORIES = st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=25), min_size=1, max_size=6)


KINDS: tuple[Pairs, ...] = ("near", "next")


def plain_pairs(history: list[int], chosen: list[int], kind: Pairs) -> np.ndarray:
    """The contribution of one user, pair by pair."""
    counts: Counter[tuple[int, int]] = Counter()
    for end, last in enumerate(history):
        for lag in range(1, min(WINDOW if kind == "near" else 1, end) + 1):
            first = history[end - lag]
            if first != last and first in chosen and last in chosen:
                pair = (min(first, last), max(first, last)) if kind == "near" else (first, last)
                counts[pair] += DECAY ** (lag - 1)
    pairs = [(a, b) for number, a in enumerate(chosen) for b in (chosen[number + 1 :] if kind == "near" else chosen)]
    vector = np.array([counts[pair] for pair in pairs], dtype=np.float64)
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


@given(HISTORIES, st.lists(st.integers(0, NUM_ITEMS - 1), min_size=2, unique=True), st.sampled_from(KINDS))
def test_sums_are_those_of_each_user_alone(histories: list[list[int]], chosen: list[int], kind: Pairs) -> None:
    chosen = sorted(chosen)
    sums = pair_sums(Histories.of_items(histories), np.array(chosen), NUM_ITEMS, kind) * GRID
    plain = np.sum([plain_pairs(history, chosen, kind) for history in histories], axis=0)
    np.testing.assert_allclose(sums, plain, atol=2 * GRID * len(histories))


@settings(max_examples=60)
@given(HISTORIES, st.integers(0, 5), st.sampled_from(KINDS))
def test_one_user_changes_each_sum_by_a_norm_of_at_most_one(histories: list[list[int]], row: int, kind: Pairs) -> None:
    row, chosen = row % len(histories), np.arange(NUM_ITEMS)
    whole = Histories.of_items(histories)
    others = Histories.of_items([one for number, one in enumerate(histories) if number != row])
    assert np.linalg.norm((popularity_sums(whole, NUM_ITEMS) - popularity_sums(others, NUM_ITEMS)) * GRID) <= 1
    changed = pair_sums(whole, chosen, NUM_ITEMS, kind) - pair_sums(others, chosen, NUM_ITEMS, kind)
    assert np.linalg.norm(changed * GRID) <= 1


@pytest.mark.parametrize("events", [0, 1, 2000])
def test_longest_shortest_and_empty_users_are_bounded_alike(events: int) -> None:
    random = np.random.default_rng(0)
    others = [random.integers(0, 50, 20).tolist() for _ in range(30)]
    one = random.integers(0, 50, events).tolist()
    chosen = np.arange(50)
    with_one, without = (Histories.of_items(histories) for histories in ([*others, one], others))
    for sums in (lambda histories: popularity_sums(histories, 50), lambda histories: pair_sums(histories, chosen, 50)):
        change = float(np.linalg.norm((sums(with_one) - sums(without)) * GRID))
        assert change <= 1
        assert change > 0.99 or events < 2


def test_sums_do_not_depend_on_how_users_are_divided() -> None:
    """Silos that add up their sums have those of the joined log, bit for bit."""
    random = np.random.default_rng(1)
    histories = [random.integers(0, 20, length).tolist() for length in random.integers(0, 40, 50)]
    chosen, parts = np.arange(20), (histories[:17], histories[17:])
    whole = pair_sums(Histories.of_items(histories), chosen, 20)
    assert np.array_equal(whole, sum(pair_sums(Histories.of_items(part), chosen, 20) for part in parts))


def test_pairs_are_numbered_as_a_triangle() -> None:
    first, second = np.triu_indices(7, 1)
    assert np.array_equal(pair_index(first, second, 7), np.arange(21))


def test_only_the_last_events_of_a_user_count() -> None:
    options = PrivacyOptions(8.0, max_user_events=2)
    whole = release(Histories.of_items([[1, 2, 3, 4], [5], []]), 6, options, no_noise)
    latest = release(Histories.of_items([[3, 4], [5], []]), 6, options, no_noise)
    assert np.array_equal(whole.popularity, latest.popularity)
    assert np.array_equal(whole.pairs, latest.pairs)


def seeded_noise(seed: int) -> Noise:
    random = np.random.default_rng(seed)
    return lambda deviation, number: np.rint(random.normal(0, deviation / GRID, number)).astype(np.int64)


@pytest.mark.parametrize("is_on_all_cells", [True, False])
def test_noise_is_on_the_same_cells_with_and_without_one_user(is_on_all_cells: bool) -> None:
    """Noise on observed cells alone, the negative control, shows which pairs are of the one user."""
    others, options = [[0, 1, 2], [1, 2, 3]], PrivacyOptions(1.0, delta=1e-5)
    ledger, chosen = private_ledger(options, 3), np.arange(NUM_ITEMS)

    def released(histories: Histories, seed: int) -> np.ndarray:
        sums = NoisySums(histories, NUM_ITEMS, options, ledger, noise=seeded_noise(seed)).pairs(chosen)
        return sums if is_on_all_cells else np.where(pair_sums(histories, chosen, NUM_ITEMS) != 0, sums, 0)

    logs = [Histories.of_items(rows) for rows in (others, [*others, [4, 5]])]
    noisy = [released(log, 0) != released(log, 1) for log in logs]
    assert np.array_equal(*noisy) == is_on_all_cells


def made_up_log(num_users: int = 400) -> Histories:
    """Two groups of people: those with items 0 to 9, and those with items 10 to 19."""
    random = np.random.default_rng(2)
    rows = [(random.integers(0, 10, 20) + 10 * (user % 2)).tolist() for user in range(num_users)]
    return Histories.of_items(rows)


def test_release_without_noise_is_the_sums_and_with_noise_is_near_them() -> None:
    histories, options = made_up_log(), PrivacyOptions(8.0)
    exact, noisy = release(histories, 30, options, no_noise), release(histories, 30, options)
    assert np.array_equal(exact.popularity, popularity_sums(histories, 30) * GRID)
    assert noisy.ledger == exact.ledger
    of_popularity, of_pairs = noisy.noise
    # One of 30 numbers is 0 once in 2,000 times.
    assert (noisy.popularity != exact.popularity).sum() >= 28
    assert np.abs(noisy.popularity - exact.popularity).max() < 6 * of_popularity
    assert np.array_equal(noisy.chosen, np.arange(20))
    assert len(noisy.pairs) == 190
    sums = pair_sums(histories, noisy.chosen, 30) * GRID
    assert (noisy.pairs - sums).std() == pytest.approx(of_pairs, rel=0.3)


def test_counts_of_a_release_find_who_is_near_whom() -> None:
    counts = pair_counts(release(made_up_log(), 30, PrivacyOptions(8.0)))
    assert counts.share.sum() == pytest.approx(1)
    assert counts.share[:20].min() > 2 * counts.share[20:].max()
    for item in range(20):
        cells = slice(counts.offsets[item], counts.offsets[item + 1])
        same = (counts.neighbor[cells] < 10) == (item < 10)
        assert counts.count[cells][same].sum() > 20 * counts.count[cells][~same].sum()
    assert np.diff(counts.offsets)[20:].sum() == 0


def share_within_groups(counts: PairCounts) -> float:
    """The mean share of the neighbors of items 0 to 19 that are of the own group."""
    shares = []
    for item in range(20):
        cells = slice(counts.offsets[item], counts.offsets[item + 1])
        same = (counts.neighbor[cells] < 10) == (item < 10)
        shares.append(counts.count[cells][same].sum() / max(counts.count[cells].sum(), 1e-9))
    return float(np.mean(shares))


def test_items_with_like_neighbors_make_up_for_pairs_that_noise_hides() -> None:
    for seed in range(3):
        released = release(made_up_log(), 30, PrivacyOptions(1.0), seeded_noise(seed))
        counts = pair_counts(released)
        smoothed = smoothed_counts(counts, "near")
        assert share_within_groups(smoothed) > share_within_groups(counts)
        assert smoothed.share is counts.share
    assert smoothed_counts(counts, "next") is counts


def test_pairs_in_a_row_keep_their_order() -> None:
    random = np.random.default_rng(4)
    rounds = Histories.of_items([((start + np.arange(12)) % 5).tolist() for start in random.integers(0, 5, 300)])
    counts = pair_counts(release(rounds, 5, PrivacyOptions(8.0, pairs="next")))
    for item in range(5):
        cells = slice(counts.offsets[item], counts.offsets[item + 1])
        assert counts.neighbor[cells][np.argmax(counts.count[cells])] == (item + 1) % 5


def test_content_is_a_part_of_each_distribution_with_its_weight() -> None:
    """An item with pairs has both; one without has content beside popularity."""
    random, num_items, weight = np.random.default_rng(5), 12, 0.4
    counts = PairCounts(
        share=random.dirichlet(np.ones(num_items)),
        offsets=np.array([0, 2, 3, *[3] * 10]),
        neighbor=np.array([1, 2, 5], dtype=np.int32),
        count=np.array([30.0, 10.0, 50.0], dtype=np.float32),
        chosen_share=0.5,
    )
    directions = random.normal(size=(num_items, 4)).astype(np.float32)
    content = ContentTable.of(directions)
    directions = content.directions(slice(None))
    alike = np.maximum(directions @ directions.T, 0) ** SHARPNESS * counts.share**POPULARITY_POWER
    np.fill_diagonal(alike, 0)
    alike /= alike.sum(axis=1, keepdims=True)
    found = with_alike(counts, AlikeItems.of(content, counts.share), weight)
    rows = [[0], [1], [7]]
    smoothed = followers(Histories.of_items(rows), found.offsets, found.neighbor, found.count).dense(
        PRIOR_EVENTS * counts.share
    )
    pairs = followers(Histories.of_items(rows), counts.offsets, counts.neighbor, counts.count)
    for row, (item,) in enumerate(rows):
        total = pairs.total[row]
        mass = (total or PRIOR_EVENTS) * weight / (1 - weight)
        counted = np.bincount(pairs.item[pairs.row == row], pairs.count[pairs.row == row], minlength=num_items)
        plain = (counted + mass * alike[item] + PRIOR_EVENTS * counts.share) / (total + mass + PRIOR_EVENTS)
        np.testing.assert_allclose(smoothed[row], plain, rtol=1e-4)
    assert found.chosen_share == pytest.approx(0.7)


def test_posterior_means_are_nearer_to_the_truth_than_noisy_counts() -> None:
    random = np.random.default_rng(3)
    expected = random.exponential(1.0, 20_000)
    truth = np.where(random.random(20_000) < 0.1, 8 * expected, 0.0)
    noisy = truth + random.normal(size=20_000)
    estimates = posterior_means(noisy, expected)
    assert np.mean((estimates - truth) ** 2) < 0.35 * np.mean((noisy - truth) ** 2)
    assert estimates.min() >= 0
    assert np.array_equal(estimates[noisy > 12], noisy[noisy > 12])


def test_empty_catalog_of_pairs_is_possible() -> None:
    counts = pair_counts(release(Histories.of_items([[0], [1]]), 5, PrivacyOptions(0.1)))
    assert len(counts.count) == 0
    assert counts.share.sum() == pytest.approx(1)
