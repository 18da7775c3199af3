"""Kernels behind trends against slow twins, and its tests against their nulls."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from edgemod import patterns
from edgemod.kernels import shingles
from edgemod.kernels.terms import RECENT, Table

WORDS = st.lists(
    st.sampled_from(["alpha", "beta", "gamma", "a", "it's", "x" * 33, "é"]), max_size=9
)
FORMS = WORDS.map(" ".join) | WORDS.map("- ".join) | st.text("ab 'é-", max_size=40)


def buffers(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    data = np.frombuffer(b"".join(texts), np.uint8)
    return data, np.cumsum([0, *map(len, texts)], dtype=np.int64)


@settings(max_examples=40, deadline=None)
@given(st.lists(FORMS, min_size=1, max_size=5))
def test_signatures_equal_their_twin(texts: list[str]) -> None:
    forms = [text.encode() for text in texts]
    found = shingles.sign(*buffers(forms))
    assert found.tolist() == [naive.signature(form) for form in forms]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 63), max_size=24)), max_size=12)
)
def test_clusters_equal_their_twin(made: list[tuple[int, list[int]]]) -> None:
    signatures = np.zeros((len(made), 64), np.uint16)
    for i, (base, changed) in enumerate(made):
        signatures[i] = 100 * (base // 2) + np.arange(64)
        signatures[i, changed] = 1000 + base  # texts of one base share what was changed
    assert shingles.clusters(signatures).tolist() == naive.clusters(signatures.tolist())


def test_copies_with_small_edits_are_one_cluster_and_other_texts_are_not() -> None:
    base = "join our winter savings circle today and tell every neighbour about it number {}"
    other = "the printer on the second floor has eaten page {} of the report once more, sadly"
    texts = [line.format(i).encode() for i in range(8) for line in (base, other)]
    first = shingles.clusters(shingles.sign(*buffers(texts)))
    assert first.tolist() == [0, 1] * 8


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), FORMS), max_size=8), st.booleans())
def test_terms_equal_their_twin(made: list[tuple[int, str]], small: bool) -> None:
    made = sorted(made, key=lambda one: one[0])
    forms = [text.encode() for _, text in made]
    record = np.array([who for who, _ in made], np.int64)
    cells = np.array([[0, 2], [1, -1], [0, 3], [1, 3]], np.int16)
    moments = np.array([3.0, 1.0, 2.0, 0.0])
    table = Table.empty(4, 1 << (10 if small else 12))
    table.add(*buffers(forms), record, cells, moments)
    expected: dict[bytes, Counter[int]] = {}
    having: dict[bytes, list[int]] = {}
    for who in range(4):
        for term in set().union(
            *(naive.terms(f) for f, w in zip(forms, record, strict=True) if w == who)
        ):
            expected.setdefault(term, Counter()).update(c for c in cells[who].tolist() if c >= 0)
            having.setdefault(term, []).append(who)
    names, at = table.found(1)
    assert names == sorted(expected)
    for name, place in zip(names, at.tolist(), strict=True):
        assert table.counts[place].tolist() == [expected[name][c] for c in range(4)]
        assert sorted(r for r in table.recent[place].tolist() if r >= 0) == having[name]
        assert table.first[place] == min(having[name], key=lambda r: float(moments[r]))


def test_a_full_table_forgets_rare_terms_and_says_how_much_it_may_lack() -> None:
    table = Table.empty(1, 256)
    cells, moments = np.zeros((600, 1), np.int16), np.arange(600.0)
    texts = [f"common w{i} v{i}".encode() for i in range(600)]
    for low, high in pairwise(range(0, 601, 60)):
        table.add(*buffers(texts[low:high]), np.arange(low, high), cells, moments, pairs=False)
    names, at = table.found(1)
    counts = dict(zip(names, table.counts[at, 0].tolist(), strict=True))
    assert counts[b"common"] == 600
    assert table.short >= 1
    assert all(1 <= n <= 1 for name, n in counts.items() if name != b"common")
    assert len(names) < 256
    assert (table.recent[at[names.index(b"common")]] >= 600 - RECENT).all()


@settings(max_examples=50, deadline=None)
@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_one_edit_is_a_distance_of_one(a: str, b: str) -> None:
    assert patterns.one_edit(a, b) == (naive.edits(a, b) == 1)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text("abc", min_size=1, max_size=5), max_size=6),
    st.lists(st.text("abc", min_size=1, max_size=5), max_size=4),
)
def test_near_misses_are_those_one_edit_away(words: list[str], terms: list[str]) -> None:
    found = patterns.near(words, terms, least=4)
    long = [term for term in terms if len(term) >= 4]
    for word in words:
        close = [term for term in long if naive.edits(word, term) == 1]
        assert found.get(word) == (
            min(close) if close and word not in terms and len(word) >= 3 else None
        )


def test_holm_is_bonferroni_for_the_first_and_stops_at_the_first_that_fails() -> None:
    assert patterns.holm(np.array([0.04, 0.001, 0.03, 0.0]), 0.05).tolist() == [
        False,
        True,
        False,
        True,
    ]
    assert patterns.holm(np.array([0.02, 0.024]), 0.05).tolist() == [True, True]
    assert patterns.holm(np.zeros(0)).tolist() == []


def test_log_odds_of_terms_that_say_nothing_are_small_and_the_tail_is_that_of_chance() -> None:
    """Of terms that fall at random into unequal halves, no more are over z than z says."""
    random = np.random.default_rng(5)
    for share in (0.5, 0.1, 0.02):
        sizes = random.geometric(0.02, 60_000) + 4
        here = random.binomial(sizes, share)
        odds, error = patterns.log_odds(
            here, sizes - here, int(here.sum()), int((sizes - here).sum())
        )
        over = (odds / error)[here >= 5] > patterns.critical(len(sizes))
        assert over.sum() <= 1
    odds, error = patterns.log_odds(np.array([40]), np.array([2]), 10_000, 10_000)
    assert odds[0] / error[0] > patterns.critical(1000)


def test_scan_statistic_keeps_its_false_alarm_rate() -> None:
    random = np.random.default_rng(3)
    for n in (5, 20, 100):
        alarms = 0
        for _ in range(600):
            u = np.sort(random.random(n))
            alarms += patterns.scan(u, u)[0] <= 0.05
        assert alarms <= 43  # 30 expected at most; 43 is 2.4 standard deviations more
    burst = np.sort(np.append(random.random(10), 0.4 + random.random(10) / 1000))
    p, a, b = patterns.scan(burst, burst)
    assert p < 1e-9
    assert b - a + 1 >= 10
    day = np.full(10, 0.3), np.full(10, 0.8)  # all on one day, and so is half of the archive
    assert patterns.scan(*day)[0] > 0.01


def test_shares_have_intervals_and_p_values() -> None:
    hits, totals = np.array([30, 5, 0]), np.array([100, 100, 0])
    d, low, high, p = patterns.shares(hits, totals, 1.96)
    assert d[0] == pytest.approx(0.25)
    assert low[0] < d[0] < high[0]
    assert low[0] > 0
    assert p[0] == pytest.approx(p[1])
    assert p[0] < 1e-4
    assert p[2] == 1.0


def test_novelty_is_the_chance_that_all_come_so_late() -> None:
    p = patterns.novelty(np.array([0, 500, 900]), np.array([9, 3, 2]), 1000)
    assert p.tolist() == pytest.approx([1.0, 0.125, 0.01])


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=80))
def test_masks_leave_first_letters_and_no_more(text: str) -> None:
    term = patterns.masked_term(text)
    assert len(term) == len(text)
    assert not any(c.isalnum() for c in term[1:])
    for word in patterns.masked_text(text).split():
        assert not any(c.isalnum() for c in word[1:])
    assert patterns.masked_text("f u c k it") == "* * * * i*"
