"""Maps, curves and thresholds from scores and labels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemod import calibration, fitting
from edgemod.fitting import QUANTILES, Ladder
from edgemod.words import OUTPUTS

K = len(OUTPUTS)


def drawn(n: int, seed: int) -> tuple[Any, Any]:
    """Probabilities (n, K) and labels (n, K) that go with them, some unknown."""
    random = np.random.default_rng(seed)
    labels = (random.random((n, K)) < 0.2).astype(np.int8)
    odds = 3 * labels - 2 + random.normal(size=(n, K))
    labels[random.random((n, K)) < 0.3] = -1
    return calibration.sigmoid(odds), labels


def test_fit_map_recovers_a_known_map() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40_000, 2)) * 2
    odds = scores @ [1.5, -0.5] + 0.7
    labels = (rng.random(len(odds)) < 1 / (1 + np.exp(-odds))).astype(np.int8)
    np.testing.assert_allclose(fitting.fit_map(scores, labels), [1.5, -0.5, 0.7], atol=0.06)


def test_fit_map_survives_separable_and_refuses_one_class() -> None:
    beta = fitting.fit_map(np.array([-1.0, 1.0]), np.array([0, 1], np.int8))
    assert np.isfinite(beta).all()
    assert beta[0] > 0
    with pytest.raises(ValueError, match="both kinds"):
        fitting.fit_map(np.zeros(3), np.zeros(3, np.int8))


probabilities = st.lists(st.floats(0, 1, width=32), min_size=0, max_size=60)


@settings(deadline=None)
@given(probabilities, st.sampled_from([0.02, 0.05, 0.3]))
def test_flag_threshold_is_the_smallest_that_keeps_false_positives(
    p: list[float], rate: float
) -> None:
    values = np.array(p, np.float32)
    threshold = fitting.flag_threshold(values, rate)
    if len(values) * rate < 1:
        assert math.isinf(threshold)
        return
    assert (values >= np.float32(threshold)).mean() <= rate
    below = np.unique(values[values < np.float32(threshold)])
    if len(below):
        assert (values >= below[-1]).mean() > rate


def test_a_curve_is_chosen_that_fits() -> None:
    random = np.random.default_rng(1)
    true = random.random(6000).astype(np.float32)
    labels = (random.random(6000) < true).astype(np.int8)
    steps = np.where(true < 0.5, np.float32(0.2), np.float32(0.9))
    stepped = (random.random(6000) < steps).astype(np.int8)
    odds = np.log(true / (1 - true))
    for given_p, answers, kinds in (
        (true, labels, {"identity", "platt", "beta"}),  # right as they are
        (calibration.sigmoid(3 * odds + 1), labels, {"platt", "beta"}),
        (true, stepped, {"isotonic"}),
    ):
        curve = fitting.fit_curve(given_p, answers)
        assert curve.kind in kinds
        fitted = curve(given_p)
        for low in np.arange(0.1, 0.9, 0.2):
            rows = (fitted >= low) & (fitted < low + 0.2)
            if rows.sum() > 200:
                assert abs(fitted[rows].mean() - answers[rows].mean()) < 0.06
        grid = curve(np.linspace(0, 1, 200, dtype=np.float32))
        assert (np.diff(grid) >= 0).all()
        assert np.isnan(curve(np.array([np.nan], np.float32))).all()


def test_few_labels_leave_probabilities_as_they_are() -> None:
    p = np.linspace(0, 1, 200, dtype=np.float32)
    assert fitting.fit_curve(p, (p > 0.9).astype(np.int8)).kind == "identity"


def test_weights_count_as_copies() -> None:
    random = np.random.default_rng(2)
    p = random.random(300).astype(np.float32)
    labels = (random.random(300) < p).astype(np.int8)
    times = random.integers(1, 4, 300)
    copies = np.repeat(np.arange(300), times)
    for kind in ("platt", "beta", "isotonic"):
        weighted = fitting._curve(kind, p, labels, times.astype(float))
        copied = fitting._curve(kind, p[copies], labels[copies], np.ones(len(copies)))
        np.testing.assert_allclose(weighted(p), copied(p), atol=0.01)
    found, label = drawn(200, 3)
    times = random.integers(1, 4, 200)
    copies = np.repeat(np.arange(200), times)
    weighted_rungs = Ladder.of(found, label, times.astype(float)).rungs
    copied_rungs = Ladder.of(found[copies], label[copies]).rungs
    np.testing.assert_array_equal(weighted_rungs, copied_rungs)


def test_a_ladder_holds_the_threshold_of_each_share() -> None:
    p, labels = drawn(500, 4)
    fixed = np.full(K, np.nan)
    fixed[3], fixed[4] = 0.2, np.inf
    ladder = Ladder.of(p, labels, fixed=fixed)
    for step, share in enumerate(QUANTILES):
        for k in range(K):
            violating = np.sort(p[labels[:, k] == 1, k])
            own = violating[int(share * len(violating) * (1 + 1e-12))]  # so many are below it
            wanted = min(own, 0.5) if k not in (3, 4) else float(fixed[k])
            wanted = wanted if step else 0.0
            assert ladder.rungs[step, k] == np.float32(wanted)
    p[0, 4] = p[1, 3] = np.nan
    needs = ladder.needs(p)
    for i in range(0, 500, 7):
        for k in range(K):
            below = p[i, k] < ladder.rungs[:, k]
            first = int(below.argmax()) if below.any() else len(QUANTILES)
            assert needs[i, k] == (first if i or k != 4 else 1)
    assert needs[1, 3] == len(QUANTILES)


@pytest.mark.parametrize("weighted", [False, True])
def test_clear_steps_keep_every_miss_rate_and_none_could_be_raised(weighted: bool) -> None:
    p, labels = drawn(3000, 5)
    weight = np.random.default_rng(6).uniform(1, 4, 3000) if weighted else np.ones(3000)
    before = np.random.default_rng(7).random(3000) < 0.01
    ladder = Ladder.of(p, labels, weight if weighted else None)
    needs = ladder.needs(p)
    steps = fitting.clear_steps(
        needs, labels, 0.04, weights=weight if weighted else None, cleared=before
    )

    def misses(tried: list[int]) -> float:
        cleared = before | (p < ladder.at(tried)).all(axis=1)
        rates = []
        for k in range(K):
            kind = weight * (labels[:, k] == 1)
            rates.append((kind[cleared].sum() + kind.max()) / (kind.sum() + kind.max()))
        return float(max(rates))

    assert misses(steps) <= 0.04
    assert min(steps) > 0
    cleared = before | (p < ladder.at(steps)).all(axis=1)
    for k in range(K):
        for raised in range(steps[k] + 1, len(QUANTILES)):
            tried = [*steps[:k], raised, *steps[k + 1 :]]
            more = before | (p < ladder.at(tried)).all(axis=1)
            if (more & ~cleared).any():
                new = labels[more & ~cleared]
                assert misses(tried) > 0.04 or (new == 1).any(axis=1).all()
                break


def test_nothing_is_cleared_where_nothing_can_be() -> None:
    p, labels = drawn(30, 8)
    needs = Ladder.of(p, labels).needs(p)
    assert fitting.clear_steps(needs, labels, 0.001) == [0] * K
