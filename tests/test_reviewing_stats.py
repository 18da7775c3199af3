"""Agreement against slow twins and published examples; what the answers say of edgemod."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemod.reviewing.agreement import alpha, alpha_interval, kappa, kappa_interval
from edgemod.reviewing.answers import Answer, new_id
from edgemod.reviewing.queue import Queue, open_queue
from edgemod.reviewing.stats import stats
from queues import write_queue


def naive_kappa(a: list[int], b: list[int]) -> float | None:
    n = len(a)
    observed = sum(x == y for x, y in zip(a, b, strict=True)) / n
    expected = sum(a.count(k) / n * (b.count(k) / n) for k in {*a, *b})
    return None if expected == 1 else (observed - expected) / (1 - expected)


def naive_alpha(table: list[list[int]]) -> float | None:
    """By the matrix of coincidences, pair by pair (Krippendorff 2011, section C)."""
    coincidences: dict[tuple[int, int], float] = {}
    for record in table:
        given_ = [one for one in record if one >= 0]
        for pair in permutations(given_, 2):
            coincidences[pair] = coincidences.get(pair, 0) + 1 / (len(given_) - 1)
    kinds = sorted({c for c, _ in coincidences})
    totals = {c: sum(coincidences.get((c, k), 0) for k in kinds) for c in kinds}
    n = sum(totals.values())
    observed = sum(v for (c, k), v in coincidences.items() if c != k) / n if n else 0
    expected = sum(totals[c] * totals[k] for c in kinds for k in kinds if c != k)
    return 1 - observed / (expected / n / (n - 1)) if expected else None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_kappa_equals_its_twin(pairs: list[tuple[int, int]]) -> None:
    a, b = ([*column] for column in zip(*pairs, strict=True))
    wanted, found = naive_kappa(a, b), kappa(np.array(a), np.array(b))
    assert found == (None if wanted is None else pytest.approx(wanted))


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(-1, 3), min_size=4, max_size=4), max_size=20))
def test_alpha_equals_its_twin(table: list[list[int]]) -> None:
    wanted, found = naive_alpha(table), alpha(np.array(table, np.int64).reshape(-1, 4))
    assert found == (None if wanted is None else pytest.approx(wanted))


def test_alpha_of_the_published_example() -> None:
    """Krippendorff 2011, section C: four observers, twelve units, answers missing: 0.743."""
    rows = [
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    ]
    table = np.array([[-1 if c == "." else int(c) for c in row.split()] for row in rows]).T
    assert alpha(table) == pytest.approx(0.743, abs=5e-4)


def test_kappa_of_a_textbook_example() -> None:
    """20 and 15 alike of 50, 5 and 10 not: 0.40."""
    a = np.repeat([0, 0, 1, 1], [20, 5, 10, 15])
    b = np.repeat([0, 1, 0, 1], [20, 5, 10, 15])
    assert kappa(a, b) == pytest.approx(0.4)
    interval = kappa_interval(a, b)
    assert interval is not None
    assert 0.1 < interval.low < 0.25
    assert 0.55 < interval.high < 0.7
    assert kappa_interval(a, b) == interval


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    draw = np.random.default_rng(5)
    whole = draw.random(200_000) < 0.4
    both = np.stack([np.where(draw.random(len(whole)) < 0.85, whole, ~whole) for _ in range(2)])
    truth = alpha(both.T.astype(np.int64))
    assert truth is not None
    hits = 0
    for seed in range(60):
        rows = draw.integers(0, len(whole), 120)
        found = alpha_interval(both[:, rows].T.astype(np.int64), seed)
        assert found is not None
        hits += found.low <= truth <= found.high
    assert hits >= 50


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Queue:
    folder: Path = tmp_path_factory.mktemp("run") / "out"
    return open_queue(write_queue(folder))


def a(queue: Queue, i: int, said: str, reviewer: str, second: int) -> Answer:
    flagged = said not in ("clear", "escalate")
    return Answer(
        new_id(), f"r{i}", *queue.keys()[i], reviewer, "flag" if flagged else said,
        said if flagged else None, answered_at=f"2026-01-01T10:00:{second:02d}.000000+00:00",
        seconds=float(second), revealed=2,
    )  # fmt: skip


def test_stats_of_a_small_queue(queue: Queue) -> None:
    given_ = [a(queue, i, "clear", "anna", 10 + i) for i in range(6)]
    given_ += [a(queue, i, "hate" if i == 0 else "clear", "ben", 10 + i) for i in range(4)]
    lead = given_[5]
    given_.append(
        replace(a(queue, 7, "clear", "anna", 15), decided_with=lead.answer_id, seconds=None)
    )
    found = stats(queue, given_)
    assert (found.records, found.answered) == (23, 7)
    anna, ben = found.pace
    assert (anna.answers, anna.alike, anna.clear, anna.unseen) == (6, 1, 6, 0.0)
    assert (anna.seconds, anna.an_hour) == (12.5, 3600.0)
    assert (ben.flag, ben.clear) == (1, 3)
    pairs = {(one.figure, one.scale): one for one in found.agreement}
    assert pairs["kappa", "violates"].records == 4
    assert pairs["kappa", "violates"].value is not None
    assert pairs["kappa", "violates"].value.value == pytest.approx(0)
    assert found.drift[0].flagged is not None
    assert found.drift[0].flagged.value == 0
    of_p = queue.table["p_any"].to_numpy()[:6].mean()
    assert found.drift[0].expected == pytest.approx(of_p)
    # r0 is in dispute; of r1 to r5 all were cleared, though their p is over 0.5: leaning to flag.
    bands = [one for one in found.overturned if one.by == "band"]
    assert sum(one.records for one in bands) == 5
    assert {(one.proposal, one.share and one.share.value) for one in bands} == {("flag", 1.0)}
    assert {one.of for one in found.overturned if one.by == "category"} == {
        "hate", "spam_scam", "threat_violence", "toxic",
    }  # fmt: skip


def test_few_answers_alike_do_not_prove_that_people_always_agree() -> None:
    both = np.array([0, 1, 0, 1, 1])
    pair = kappa_interval(both, both)
    every = alpha_interval(np.stack([both, both], axis=1))
    assert pair is not None
    assert every is not None
    # 5 of 5: alike in 48 % at least (Clopper and Pearson), and 52 % would be by chance.
    assert pair.low == pytest.approx((0.025**0.2 - 0.52) / 0.48)
    assert (pair.value, pair.high, every.value) == (1, 1, 1)
    assert every.low < 0.1
    many = kappa_interval(np.tile(both, 200), np.tile(both, 200))
    assert many is not None
    assert many.low > 0.99


def test_categories_in_dispute_are_named(queue: Queue) -> None:
    given_ = [a(queue, i, "hate", "anna", i) for i in range(6)]
    given_ += [a(queue, i, "hate" if i < 2 else "harassment", "ben", i) for i in range(5)]
    given_ += [a(queue, 5, "escalate", "ben", 9), a(queue, 7, "clear", "anna", 9)]
    given_ += [a(queue, 7, "clear", "ben", 9)]
    first, second = stats(queue, given_).disputes
    assert (first.category, first.pairs, first.mostly) == ("harassment", 3, "hate")
    assert (second.category, second.pairs, second.mostly) == ("hate", 5, "harassment")
    assert second.otherwise is not None
    assert second.otherwise.value == pytest.approx(3 / 5)


def test_stats_of_nothing(queue: Queue) -> None:
    found = stats(queue, [])
    assert (found.answered, found.pace, found.drift, found.overturned) == (0, (), (), ())
    assert all(one.value is None for one in found.agreement)
