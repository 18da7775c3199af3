from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from edgemod.features import _LISTS, Lexicons, buffers, extract, spans
from edgemod.kernels import scan
from edgemod.policy import Lexicon
from edgemod.words import FEATURES

TEXTS = st.one_of(
    st.text(max_size=60),
    st.text('aB1 .!?#&/"“«>\n\r\u200b\u200d\ufe0f\u0301😀👍🏽🇺🇸漢я', max_size=40),
    st.lists(st.sampled_from(["&gt; a", "\n", '"b"', "👨‍👩‍👧", "#tag", " ", "x"]), max_size=9).map(
        "".join
    ),
)


def lexicon(
    name: str, terms: tuple[str, ...], allow: tuple[str, ...] = (), match: str = "word"
) -> Lexicon:
    return Lexicon(name, "toxic", terms, allow, match)


def column(texts: list[str], name: str, lexicons: Lexicons | None = None) -> list[float]:
    measured = extract(pa.array(texts, pa.large_string()), lexicons or Lexicons.compile(()))
    return [float(value) for value in measured.values[:, list(FEATURES).index(name)]]


@settings(deadline=None, max_examples=300)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_scan_equals_its_twin(texts: list[str]) -> None:
    got = scan.scan(*buffers(pa.array(texts, pa.large_string())))
    for text, row in zip(texts, got, strict=True):
        want = naive.scan(text)
        assert list(want) == list(scan.COLUMNS)
        np.testing.assert_allclose(row, list(want.values()), rtol=1e-6, atol=1e-6)


@settings(deadline=None)
@given(st.lists(st.text("ab1é' .", max_size=30), min_size=1, max_size=4))
def test_repeated_words_equal_their_twin(texts: list[str]) -> None:
    got = scan.repeated_words(*buffers(pa.array(texts, pa.large_string())))
    want = [naive.repeated_words(text.encode()) for text in texts]
    np.testing.assert_allclose(got, want, rtol=1e-6)


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=6), st.integers(0, 3), st.integers(0, 3))
def test_a_slice_measures_as_its_own_array(texts: list[str], before: int, after: int) -> None:
    lexicons = Lexicons.compile([lexicon("x", ("a", "b1"))])
    padded = pa.array(["pad é"] * before + texts + ["pad"] * after, pa.large_string())
    sliced = extract(padded.slice(before, len(texts)), lexicons)
    whole = extract(pa.array(texts, pa.large_string()), lexicons)
    np.testing.assert_array_equal(sliced.values, whole.values)
    np.testing.assert_array_equal(sliced.hits, whole.hits)
    assert sliced.normalised[0].tobytes() == whole.normalised[0].tobytes()
    assert sliced.values.dtype == np.float32
    assert sliced.values.shape == (len(texts), len(FEATURES))
    assert np.isfinite(sliced.values).all()


LISTED = st.lists(
    st.one_of(
        st.sampled_from(" ".join(_LISTS.values()).replace("_", " ").split()),
        st.sampled_from([" ", " ", " ", "  ", "-", ".", "_", "é", "1", "x", "'", "’", "漢", "ооо"]),
        st.sampled_from(["YOU", "youuu", "nooo", "n0t", "Don’t", "called  me", "\u200b", "@me"]),
    ),
    max_size=12,
).map("".join)


@settings(deadline=None, max_examples=200)
@given(st.lists(LISTED, min_size=1, max_size=3))
def test_word_lists_equal_their_twin(texts: list[str]) -> None:
    for name, words in _LISTS.items():
        assert column(texts, name) == [naive.listed(text, words) for text in texts]


def test_buffers_are_views() -> None:
    texts = pa.array(["a", "bc", "def"], pa.large_string())
    data, offsets = buffers(texts.slice(1))
    assert data.ctypes.data == texts.buffers()[2].address
    assert offsets.tolist() == [1, 3, 6]
    assert not data.flags.writeable
    assert buffers(texts.slice(3))[1].tolist() == [0]


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("Don't you dare, u r not my friend", "second_person", 2),
        ("Don't you dare, u r not my friend", "negations", 2),
        ("I said me, my, mine", "first_person", 4),
        ("She said he called me names, according to her", "reported", 3),
        ("hello @bob and @ann", "mentions", 2),
        ("buy now buy now buy now", "repeated_words", 4 / 6),
        ("sooo cooool ok", "stretched", 2),
        ("h a t e and f-u-c-k", "spelled_out", 2),
        ("fuсk", "homoglyphs", 1),
        ("h4t3 @ss", "leet", 3),
        ("www.aa.bb cc", "link_share", 9 / 12),
        ("👨‍👩‍👧 👍🏽 🇺🇸🇬🇧 ❤️", "emoji", 5),
        ("👨‍👩‍👧 ❤️", "invisible", 0),
        ("a\u200bb\u202e", "invisible", 2),
        ("aabb", "entropy", 1),
    ],
)
def test_golden_features(text: str, name: str, value: float) -> None:
    assert column([text], name) == [pytest.approx(value)]


def test_spans_point_into_the_original() -> None:
    text = "Wéll, you fuuuuck\u200b! f-u-c-k at bob@x.org 😀 sh1t"
    lexicons = Lexicons.compile([lexicon("rude", ("fuck", "shit"))])
    found = [(span.what, text[span.start : span.end]) for span in spans(text, lexicons)]
    assert found == [
        ("lexicon.rude", "fuuuuck\u200b"),
        ("lexicon.rude", "f-u-c-k"),
        ("emails", "bob@x.org"),
        ("lexicon.rude", "sh1t"),
    ]
