from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from edgemod.errors import InputError
from edgemod.features import Lexicons, extract, spans
from edgemod.kernels import automaton
from edgemod.policy import Lexicon

# Few letters, so that terms overlap, nest and share prefixes; é and 漢 for the word boundaries.
WORDS = st.text("abé漢 ", min_size=1, max_size=8)


def lexicon(
    name: str, terms: tuple[str, ...], allow: tuple[str, ...] = (), match: str = "word"
) -> Lexicon:
    return Lexicon(name, "toxic", terms, allow, match)


def hits(text: str, *lexicons: Lexicon) -> list[int]:
    measured = extract(pa.array([text], pa.large_string()), Lexicons.compile(lexicons))
    return [int(count) for count in measured.hits[0]]


@settings(deadline=None, max_examples=300)
@given(st.text("abcé漢😀 ", max_size=40), st.lists(WORDS), st.lists(WORDS), st.booleans())
def test_automaton_equals_its_twin(
    text: str, terms: list[str], allow: list[str], word: bool
) -> None:
    flags = automaton.WORD if word else 0
    built = automaton.build(
        [(term.encode(), 0, flags) for term in terms]
        + [(term.encode(), 0, flags | automaton.ALLOW) for term in allow]
    )
    data = text.encode()
    want = [
        (len(text[:low].encode()), len(text[:high].encode()))
        for low, high in naive.hits(text, terms, allow, word)
    ]
    found = automaton.find(np.frombuffer(data, np.uint8), built, 1)
    assert sorted((low, high) for _, low, high in found) == want
    offsets = np.array([0, len(data), len(data)])
    counted = automaton.count(np.frombuffer(data, np.uint8), offsets, built, 1)
    assert counted.tolist() == [[len(want)], [0]]


@settings(deadline=None, max_examples=20)
@given(st.text("abc", max_size=200), st.lists(st.text("abc", min_size=1, max_size=9), max_size=40))
def test_deep_states_find_what_full_rows_find(text: str, terms: list[str]) -> None:
    built = automaton.build([(term.encode(), 0, 0) for term in terms])
    shallow = built._replace(dense=built.dense[: built.width].copy())
    data = np.frombuffer(text.encode(), np.uint8)
    assert automaton.find(data, shallow, 1) == automaton.find(data, built, 1)


def test_allowed_words_hide_the_terms_inside_them() -> None:
    slurs = lexicon(
        "slurs", ("cunt", "rape", "dick"), ("Scunthorpe", "grape", "Dick Van Dyke"), "substring"
    )
    assert hits("Scunthorpe", slurs) == [0]
    assert hits("grapes and GRAPE juice", slurs) == [0]
    assert hits("Mr. Dick van Dyke", slurs) == [0]
    assert hits("a dick, a rape in Scunthorpe", slurs) == [2]
    assert hits("scunthorpecunt", slurs) == [1]


def test_words_match_whole_words_and_surnames_stay() -> None:
    words = lexicon("words", ("ass", "cock", "kill yourself", "死", "🖕"), ("Cock Lane",))
    assert hits("assess the class of Hancock and Dickens", words) == [0]
    assert hits("ass. ASS! (ass) a-ass", words) == [4]
    assert hits("go  kill\nyourself now, 去死吧 x🖕x", words) == [3]
    assert hits("off Cock Lane", words) == [0]


def test_disguises_do_not_hide_a_term() -> None:
    words = lexicon("words", ("fuck", "asshole", "1488"))
    for text in ("f u c k you", "f.u.c.k", "FUCK", "ｆｕｃｋ", "fuсk", "f\u200buck", "fuuuuck"):
        assert hits(text, words) == [1], text
    assert hits("a$$h0le @sshole assh0le 1488", words) == [4]


def test_a_longer_hit_counts_once_and_lexicons_are_apart() -> None:
    one = lexicon("one", ("rape", "rapes", "rape crisis"), ("rape crisis centre",), "substring")
    two = lexicon("two", ("rape",), (), "substring")
    assert hits("rapes, rape crisis, rape crisis centre", one, two) == [2, 3]


def test_many_terms() -> None:
    terms = tuple(f"w{k * 7919 % 20011}q{k}" for k in range(20_000))
    lexicons = Lexicons.compile([lexicon("many", terms)])
    texts = pa.array([" ".join(terms[k : k + 50]) for k in range(0, 500, 50)], pa.large_string())
    assert extract(texts, lexicons).hits.ravel().tolist() == [50] * 10


def test_a_term_of_nothing_is_an_error() -> None:
    with pytest.raises(InputError) as caught:
        Lexicons.compile([lexicon("ghosts", ("boo", "\u200b"))])
    assert str(caught.value) == (
        "lexicon ghosts: a term has no letters, digits or symbols\n"
        "  Remove it, or write it in visible characters."
    )


def test_no_texts_and_no_lexicons() -> None:
    measured = extract(pa.array([], pa.large_string()), Lexicons.compile(()))
    assert measured.values.shape[0] == 0
    assert measured.hits.shape == (0, 0)


@pytest.mark.parametrize("text", ["what a bufffoooon!", "BUFFFFOOOON", "buuuffoon", "buffoon"])
def test_a_stretched_word_may_have_double_letters_at_heart(text: str) -> None:
    terms = lexicon("test", ("buffoon", "bee"))
    assert hits(text, terms) == [1]
    assert [span.what for span in spans(text, Lexicons.compile([terms]))] == ["lexicon.test"]


def test_a_short_term_without_its_double_letters_is_another_word() -> None:
    assert hits("sooo be it", lexicon("test", ("bee",))) == [0]
