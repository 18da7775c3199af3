from __future__ import annotations

import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import naive
from edgemod.kernels import normalise, tables

PIECES = st.sampled_from(
    [
        *("h4te", "n1ce", "@ss", "@bob", "$hit", "a$$", "sh!t", "!", "@", "$", "&amp;", "&lt;"),
        *("&amp;#x200B;", "&nbsp;", "http://a.bc/d?e", "https://www.X.org,", "www.a", "a@b.co"),
        *("h a t e", "h.a.t.e", "u r a", "I f-u-c-k", "  ", " ", "\n\n", "'", ".", "-", "soooo"),
        *("фuck", "ѕех", "он", "не", "é", "e\u0301", "ß", "ＡＢ", "𝓗", "\u200b", "\u200d", "…"),
        *(
            "漢字",
            "กิ",
            "हि",
            "👍🏽",
            "👨‍👩‍👧",
            "🇺🇸",
            "مرحبا",
            "1",
            "0",
            "4",
            "٣",
            "㎏",
            "℅",
            "A",
            "aaa",
            "m4f",
        ),
    ]
)
TEXTS = st.one_of(
    st.text(max_size=60),
    st.text("ab e.-_013457!@$&'\u0430\u0441\u044f\u200b\u0301\n", max_size=40),
    st.lists(PIECES, max_size=12).map("".join),
    st.lists(PIECES, max_size=12).map(" ".join),
)


def run(texts: list[str], keep: int = 2) -> tuple[list[str], list[dict[str, int]]]:
    encoded = [text.encode() for text in texts]
    data = np.frombuffer(b"".join(encoded), np.uint8)
    offsets = np.cumsum([0, *map(len, encoded)])
    (out, ends), counts = normalise.normalise(data, offsets, keep=keep)
    forms = [out[a:b].tobytes().decode() for a, b in pairwise(ends.tolist())]
    return forms, [dict(zip(normalise.COLUMNS, row, strict=True)) for row in counts.tolist()]


@settings(deadline=None, max_examples=400)
@given(st.lists(TEXTS, min_size=1, max_size=4), st.sampled_from([1, 2]))
@example(["㎣A"], 1)
@example(["A A P:எA A Ƅ"], 1)
def test_kernel_equals_its_twin(texts: list[str], keep: int) -> None:
    forms, counts = run(texts, keep)
    for text, form, count in zip(texts, forms, counts, strict=True):
        assert (form, count) == naive.normalise(text, keep)


@settings(deadline=None)
@given(TEXTS)
def test_trace_gives_the_same_form_and_offsets_that_rise(text: str) -> None:
    data = text.encode()
    form, origin = normalise.trace(np.frombuffer(data, np.uint8))
    assert form.tobytes().decode() == run([text])[0][0]
    assert len(origin) == len(form) + 1
    assert (np.diff(origin) >= 0).all()
    assert all(0 <= at <= len(data) for at in origin.tolist())
    # Every offset is where a character begins, so slices of the original are valid text.
    assert all(at == len(data) or data[at] & 0xC0 != 0x80 for at in origin.tolist())


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_safe_and_never_grow(data: bytes) -> None:
    (out, offsets), _ = normalise.normalise(np.frombuffer(data, np.uint8), np.array([0, len(data)]))
    assert len(out) == offsets[-1] <= len(data)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Hello  World\n", "hello world"),
        ("ｆｕｌｌ 𝓗𝓪𝓽𝓮 ⓗ🅰", "full hate ha"),
        ("Crème BRÛLÉE, e\u0301 straße", "creme brulee, e strasse"),
        ("f\u200bu\u200dc\u2060k", "fuck"),
        ("fuсk you", "fuck you"),
        ("привет, он не мой", "привет, он не мой"),
        ("soooo coool!!!!", "soo cool!!"),
        ("h4te sh1t $hit @ss a$$hole sh!t n1gg3r", "hate shit shit ass asshole shit nigger"),
        ("mp3 2nd covid19 b2b 10am m4f 1488 $GME", "mp3 2nd covid19 b2b 10am m4f 1488 $gme"),
        ("h a t e  y.o.u u-r-a", "hate you ura"),
        ("u r a star, don't u b k", "u r a star, don't u b k"),
        ("I f-u-c-k", "i fuck"),
        ("see https://www.Example.com/a?b=1, @Bob", "see \x01example.com, \x02bob"),
        ("http://a.co/r/Some-words/WoW9/aBcDe?q=FINE", "\x01a.co some words fine"),
        ("@x.good.morning", "\x02x.good.morning"),
        ("go\u180bod mo\u0489rn\u0652ing \u0939\u0941", "good morning \u0939\u0941"),
        ("go\x00od\x7f mor\x01ning\x0b!", "good morning !"),
        ("h•a•t•e f^u^n; d🙂o🙂g", "hate fun; dog"),
        ("bob@site.com", "bob@site.com"),
        ("a &amp;lt; b &amp; c", "a < b & c"),
    ],
)
def test_golden_forms(text: str, form: str) -> None:
    assert run([text])[0] == [form]
    assert naive.normalise(text)[0] == form


def test_stretched_words_can_be_squeezed_to_one() -> None:
    assert run(["fuuuuck goood asss soon"], keep=1)[0] == ["fuck god as soon"]


def test_table_folds_are_lower_case_and_never_longer() -> None:
    for code in (*range(0x3400), *range(0xF900, 0x20000, 7), *range(0xE0000, 0xE0200)):
        known = naive.properties(chr(code))
        assert len(known.form.encode()) <= len(chr(code).encode())
        if known.kind != tables.DROP:  # a Hangul filler is a letter without ink
            category = unicodedata.category(chr(code))
            assert (known.flags & tables.IS_LETTER != 0) == (category[0] == "L")
        if known.kind == tables.LETTER and known.form.isascii():
            assert known.form.islower()
