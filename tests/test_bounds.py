"""Tests and bounds of risks against sums written out, and against chance itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemod import bounds
from edgemod.bounds import Drawn


def marks(bad: int, n: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.arange(n) < bad


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 60), st.sampled_from([0.01, 0.05, 0.3, 0.9]))
def test_p_value_is_a_sum_of_binomial_chances(bad: int, n: int, target: float) -> None:
    bad = min(bad, n)
    chances = (math.comb(n, k) * target**k * (1 - target) ** (n - k) for k in range(bad + 1))
    assert bounds.p_value(marks(bad, n), target) == pytest.approx(sum(chances), abs=1e-9)


def test_nothing_drawn_proves_nothing() -> None:
    none = np.zeros(0, bool)
    drawn = Drawn(np.zeros(0), 9.0)
    assert bounds.p_value(none, 0.5) == bounds.p_value(none, 0.5, drawn) == 1
    assert bounds.bound(none, 0.05) == bounds.bound(none, 0.05, drawn) == 1


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 40), st.sampled_from([0.01, 0.05, 0.5]))
def test_a_bound_is_the_least_that_is_certified(bad: int, n: int, delta: float) -> None:
    bad = min(bad, n)
    rows = marks(bad, n)
    for weight in (None, Drawn(np.linspace(1, 3, n), 3.0)):
        most = bounds.bound(rows, delta, weight)
        assert bad / n <= most or weight is not None
        if most < 1:
            assert bounds.p_value(rows, min(most + 1e-6, 1), weight) <= delta
            assert bounds.p_value(rows, most - 1e-6, weight) > delta


@pytest.mark.parametrize("spread", [1.0, 8.0, 40.0, 400.0])
def test_a_false_claim_is_certified_no_more_often_than_delta(spread: float) -> None:
    """Records violate and are missed by chance; the ones missed are drawn less often."""
    random = np.random.default_rng(1)
    target, delta, certified = 0.1, 0.1, 0
    for _ in range(1500):
        missed = random.random(600) < target  # all records: as risky as the claim denies
        chance = np.where(missed, 0.5 / spread, 0.5)
        drawn = random.random(600) < chance
        # Of the rarely drawn ones, which are the missed ones, a sample often holds none.
        how = None if spread == 1 else Drawn(1 / chance[drawn], 2 * spread)
        certified += bounds.p_value(missed[drawn], target, how) <= delta
    assert certified / 1500 <= delta + 3 * math.sqrt(delta * (1 - delta) / 1500)
    assert certified > 0 or spread > 1  # the exact test is not idle


def test_weighted_labels_prove_what_they_should() -> None:
    random = np.random.default_rng(2)
    drawn = Drawn(random.uniform(1, 3, 4000), 3.0)
    bad = random.random(4000) < 0.02
    assert bounds.p_value(bad, 0.05, drawn) < 1e-6
    assert 0.02 < bounds.bound(bad, 0.05, drawn) < 0.04
    assert bounds.p_value(bad, 0.02, drawn) > 0.05


@pytest.mark.parametrize("target", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("delta", [0.025, 0.1])
def test_needed_is_enough_and_one_less_is_not(target: float, delta: float) -> None:
    n = bounds.needed(target, delta)
    assert n is not None
    assert bounds.p_value(marks(0, n), target) <= delta < bounds.p_value(marks(0, n - 1), target)
    more = bounds.needed(target, delta, target / 2)
    assert more is not None
    assert bounds.p_value(marks(math.ceil(more * target / 2), more), target) <= delta
    less = more - max(more // 100, 1)  # it is about that many, by steps of a 200th
    assert bounds.p_value(marks(math.ceil(less * target / 2), less), target) > delta * 0.5
    assert bounds.needed(target, delta, target) is None


def test_a_sequence_stops_at_the_first_level_that_fails() -> None:
    asked = []

    def levels() -> object:
        for number, level in enumerate([[0.01, 0.02], [0.03], [0.5, 0.0], [0.0]]):
            asked.append(number)
            yield level

    assert bounds.fixed_sequence(levels(), 0.05) == 2  # type: ignore[arg-type]
    assert asked == [0, 1, 2]
    assert bounds.fixed_sequence([[], [0.2]], 0.05) == 1
