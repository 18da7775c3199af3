"""Figures against slow and obvious twins, values worked out by hand, and what intervals promise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemod.metrics import (
    FIGURES,
    average_precision,
    bootstrap,
    by_output,
    figures,
    roc_auc,
    wilson,
)
from edgemod.words import OUTPUTS

Pairs = list[tuple[int, float]]


def arrays(pairs: Pairs) -> tuple[Any, Any]:
    labels, scores = zip(*pairs, strict=True)
    return np.array(labels, np.int8), np.array(scores, np.float32)


def slow_average_precision(pairs: Pairs) -> float:
    """One threshold at each distinct score, as scikit-learn defines it."""
    area = before = 0.0
    for threshold in sorted({score for _, score in pairs}, reverse=True):
        taken = [label for label, score in pairs if score >= threshold]
        recall = sum(taken) / sum(label for label, _ in pairs)
        area += (recall - before) * sum(taken) / len(taken)
        before = recall
    return area


def slow_roc_auc(pairs: Pairs) -> float:
    """Every pair of a violating and a harmless record."""
    won = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for label, high in pairs
        for other, low in pairs
        if label == 1 and other == 0
    ]
    return sum(won) / len(won)


ties = st.sampled_from([-2.0, 0.0, 0.5, 1.0])
some = st.tuples(st.integers(0, 1), ties | st.floats(-9, 9, width=32))
both_kinds = st.lists(some, min_size=2, max_size=40).filter(lambda p: len({x for x, _ in p}) == 2)


@pytest.mark.parametrize(
    ("truth", "scores", "auprc", "auroc"),
    [
        ([1, 1, 0, 0], [4, 3, 2, 1], 1.0, 1.0),
        ([0, 1, 0, 1], [4, 3, 2, 1], 0.5, 0.25),
        ([0, 1, 0, 1], [1, 1, 1, 1], 0.5, 0.5),  # one step: the share of violating records
        ([1, 0, 1], [3, 2, 1], 0.5 + 0.5 * 2 / 3, 0.5),
        ([1, 0, 1, 0], [2, 2, 1, 1], 0.5, 0.5),
        ([0, 0, 0, 1], [3, 2, 1, 0], 0.25, 0.0),
    ],
)
def test_areas_by_hand(truth: list[int], scores: list[float], auprc: float, auroc: float) -> None:
    labels, values = np.array(truth, np.int8), np.array(scores, np.float32)
    assert average_precision(labels, values) == pytest.approx(auprc)
    assert roc_auc(labels, values) == pytest.approx(auroc)


@given(both_kinds)
@settings(deadline=None)
def test_areas_equal_the_twins(pairs: Pairs) -> None:
    assert average_precision(*arrays(pairs)) == pytest.approx(slow_average_precision(pairs))
    assert roc_auc(*arrays(pairs)) == pytest.approx(slow_roc_auc(pairs))


@given(both_kinds, st.randoms())
@settings(deadline=None)
def test_areas_do_not_depend_on_order_or_scale(pairs: Pairs, random: Any) -> None:
    labels, scores = arrays(pairs)
    order = random.sample(range(len(pairs)), len(pairs))
    for figure in (average_precision, roc_auc):
        assert figure(labels[order], scores[order]) == pytest.approx(figure(labels, scores))
        assert figure(labels, scores * 2) == pytest.approx(figure(labels, scores))


@given(both_kinds, st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_bootstrap_equals_the_twin(pairs: Pairs, seed: int) -> None:
    """The twin takes the drawn records and starts from nothing."""
    random = np.random.default_rng(seed)
    drawn: list[tuple[float, float]] = []
    while len(drawn) < 20:
        sample = [pairs[i] for i in random.integers(0, len(pairs), len(pairs))]
        if len({label for label, _ in sample}) == 2:
            drawn.append((slow_average_precision(sample), slow_roc_auc(sample)))
    for k, found in enumerate(bootstrap(*arrays(pairs), 20, seed)):
        low, high = np.percentile([areas[k] for areas in drawn], (2.5, 97.5))
        assert [found.low, found.high] == pytest.approx([low, high])
        assert found.value == pytest.approx((slow_average_precision, slow_roc_auc)[k](pairs))


def test_bootstrap_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Two normal distributions one apart: the true AUROC is Phi(1 / sqrt 2)."""
    truth = 0.5 * (1 + math.erf(0.5))
    random, covered, halved = np.random.default_rng(5), 0, 0
    for _ in range(300):
        labels = (random.random(200) < 0.3).astype(np.int8)
        _, auroc = bootstrap(labels, random.normal(size=200) + labels, 200)
        covered += auroc.low <= truth <= auroc.high
        middle, half = (auroc.low + auroc.high) / 2, (auroc.high - auroc.low) / 4
        halved += abs(truth - middle) <= half
    assert 0.91 <= covered / 300 <= 0.98
    assert halved / 300 < 0.80  # so intervals of half the width would have been found out


def test_bootstrap_repeats_with_its_seed() -> None:
    labels = np.array([0, 1] * 30, np.int8)
    scores = np.random.default_rng(1).normal(size=60) + labels
    assert bootstrap(labels, scores, 50, 3) == bootstrap(labels, scores, 50, 3)
    assert bootstrap(labels, scores, 50, 3) != bootstrap(labels, scores, 50, 4)


def test_one_violating_record_still_has_an_interval() -> None:
    labels, scores = arrays([(1, 0.5), (0, 0.9), (0, 0.1)])
    auprc, auroc = bootstrap(labels, scores, 200)
    assert 0 < auprc.low <= auprc.value <= auprc.high <= 1
    assert (auroc.low, auroc.value, auroc.high) == (0.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1, 1], [0.1, 0.2], "both kinds"),
        ([0, 0], [0.1, 0.2], "both kinds"),
        ([], [], "both kinds"),
        ([0, 1, -1], [0.1, 0.2, 0.3], "both kinds"),
        ([0, 1], [0.1, math.nan], "numbers"),
    ],
)
def test_areas_need_both_kinds_and_numbers(
    labels: list[int], scores: list[float], message: str
) -> None:
    for figure in (average_precision, roc_auc, bootstrap):
        with pytest.raises(ValueError, match=message):
            figure(np.array(labels, np.int8), np.array(scores, np.float32))


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (1, 100, 0.0018, 0.0545),
    ],
)
def test_wilson_intervals(hits: int, n: int, low: float, high: float) -> None:
    found = wilson(hits, n)
    assert found is not None
    assert found.value == hits / n
    assert [found.low, found.high] == pytest.approx([low, high], abs=1e-4)


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_wilson_intervals_solve_the_score_equation(n: int, share: float) -> None:
    """An end is a share from which the one found is exactly 1.96 standard errors away."""
    found = wilson(round(share * n), n)
    assert found is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    for end in (found.low, found.high):
        if 1e-9 < end < 1 - 1e-9:
            away = (found.value - end) ** 2 * n / (end * (1 - end))
            assert away == pytest.approx(1.959964**2, rel=1e-4)


def test_a_share_of_nothing_is_not_a_number() -> None:
    assert wilson(0, 0) is None


def test_by_output_leaves_out_what_is_unknown_or_not_scored() -> None:
    labels = np.full((4, len(OUTPUTS)), -1, np.int8)
    scores = np.zeros((4, len(OUTPUTS)), np.float32)
    labels[:, 0], scores[:, 0] = [1, 0, 0, -1], [0.5, 0.9, np.nan, 1.0]
    labels[:, 1] = [1, 1, 1, -1]
    assert by_output(labels, scores) == {"hate": 0.5}


def slow_figures(pairs: list[tuple[int, float]], flag_above: float) -> dict[str, float]:
    """Every threshold there is, one by one."""
    n, positives = len(pairs), sum(label for label, _ in pairs)
    points = []
    for threshold in sorted({p for _, p in pairs}, reverse=True):
        taken = [label for label, p in pairs if p >= threshold]
        points.append((threshold, sum(taken), len(taken)))

    def f1(threshold: float) -> float:
        taken = [label for label, p in pairs if p >= threshold]
        return 2 * sum(taken) / (len(taken) + positives)

    expected = {
        "auprc": slow_average_precision(pairs),
        "auroc": slow_roc_auc(pairs),
        "f1_at_half": f1(0.5),
        "f1_at_flag_threshold": f1(flag_above),
        "f1_oracle": max(f1(threshold) for threshold, *_ in points),
    }
    for percent in (1, 10):
        within = [hit for _, hit, all_ in points if 100 * (all_ - hit) <= percent * (n - positives)]
        expected[f"recall_at_fpr_{percent}"] = max(within, default=0) / positives
    for percent in (80, 90, 95):
        enough = [hit / all_ for _, hit, all_ in points if 100 * hit >= percent * positives]
        expected[f"precision_at_recall_{percent}"] = max(enough)
    for percent in (1, 2, 5, 10):
        kept = [
            all_ / n for _, hit, all_ in points if 100 * (positives - hit) <= percent * positives
        ]
        expected[f"review_at_miss_{percent}"] = min(kept)
    area, wrong, kept_n = 0.0, 0, 0
    for sure in sorted({round(abs(p - 0.5), 9) for _, p in pairs}, reverse=True):
        group = [(label, p) for label, p in pairs if round(abs(p - 0.5), 9) == sure]
        errors = sum((p >= 0.5) != (label == 1) for label, p in group)
        area += len(group) / n * (wrong + errors / 2) / n
        wrong, kept_n = wrong + errors, kept_n + len(group)
    expected["augrc"] = area
    bins: dict[int, list[tuple[int, float]]] = {}
    for label, p in pairs:
        bins.setdefault(min(int(p * 15), 14), []).append((label, p))
    gaps = (abs(sum(p - label for label, p in group)) for group in bins.values())
    expected["ece"] = sum(gaps) / n
    return expected


quarters = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
likely = st.tuples(st.integers(0, 1), quarters | st.integers(0, 1000).map(lambda i: i / 1000))


@settings(deadline=None, max_examples=200)
@given(
    st.lists(likely, min_size=2, max_size=40).filter(lambda p: len({x for x, _ in p}) == 2),
    st.sampled_from([0.3, 0.75, math.inf]),
)
def test_every_figure_has_a_slow_twin(pairs: Pairs, flag_above: float) -> None:
    labels = np.array([label for label, _ in pairs], np.int8)
    p = np.array([value for _, value in pairs])
    found = figures(labels, p, flag_above, resamples=3)
    asked = [name for name in FIGURES if name != "f1_at_flag_threshold" or flag_above < 1]
    assert [*found] == asked
    slow = slow_figures(pairs, flag_above)
    for name, value in ((name, slow[name]) for name in asked):
        assert found[name].value == pytest.approx(value, abs=1e-9), name


def test_figures_of_good_and_of_useless_probabilities() -> None:
    labels = np.array([0, 1] * 200, np.int8)
    best = figures(labels, labels.astype(float), 0.9, resamples=20)
    assert best["f1_at_half"].value == best["recall_at_fpr_1"].value == 1
    assert best["augrc"].value == best["ece"].value == 0
    assert best["review_at_miss_1"].value == 0.5
    flat = figures(labels, np.full(400, 0.5), 0.9, resamples=20)
    assert flat["augrc"].value == 0.25  # kept and wrong: half of them, averaged from 0 to all
    assert flat["f1_at_flag_threshold"].value == flat["ece"].value == 0
    assert flat["review_at_miss_10"].value == 1
