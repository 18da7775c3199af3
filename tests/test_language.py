from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from edgemod import language
from edgemod.features import Lexicons, buffers, extract
from edgemod.kernels import langid
from edgemod.language import _ENGLISH, english_share, unsupported

LEXICONS = Lexicons.compile(())
SENTENCES = [
    "I do not understand why you did that yesterday, said the man at the desk.",
    "Je ne comprends pas pourquoi vous avez fait cela hier soir, @anne, à 20h30 !",
    "Ich verstehe nicht, warum du das gestern GETAN hast: https://example.com/Straße?a=1 ging.",
    "No entiendo por qué hiciste eso ayer. ¿Mañana también? #mañana www.example.es",
    "Tôi không hiểu tại sao bạn đã làm điều đó ngày hôm qua",
    "Dün bunu neden yaptığını anlamıyorum, İstanbul'da IŞIK yoktu",
    "Не понимаю, почему вы это сделали вчера",
    "Δεν καταλαβαίνω γιατί το έκανες αυτό χθες, ΟΔΥΣΣΕΥΣ",
    "我不明白你昨天为什么这样做",
    "昨日なぜそんなことをしたのか分かりません",
    "어제 왜 그랬는지 모르겠어요",
    "मुझे समझ नहीं आता कि तुमने कल ऐसा क्यों किया",
    "لا أفهم لماذا فعلت ذلك أمس",
    "OMG SO CUTE!!! 😂😂❤️ 12345 @you",
    "Cafe\u0301 et the\u0301a\u0302tre",
    "",
]
LETTERS = "htpwsTW@#_ \t\n012٣½²éÉßẞİıΣσςΑάȺⱥK\u0301\u00a0\u2028あ゙한글ᄀ"
PIECES = st.one_of(
    st.sampled_from([*LETTERS, "http://", "https://", "www.", "HTTP://"]),
    st.characters(codec="utf-8"),
)
ANY = st.lists(PIECES, max_size=40).map("".join)


@cache
def twin() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def tidied(texts: list[str], most: int) -> tuple[list[bytes], list[bool]]:
    column = pa.array(texts, pa.large_string())
    (data, offsets), odd = langid.tidy(
        *buffers(column), np.arange(len(texts)), most, language._identifier().characters
    )
    forms = [data[low:high].tobytes() for low, high in pairwise(offsets.tolist())]
    return forms, odd.tolist()


@settings(deadline=None)
@given(st.lists(ANY, max_size=4))
def test_tidying_equals_its_twin(texts: list[str]) -> None:
    forms, odd = tidied(texts, language._ENOUGH)
    for text, form, is_odd in zip(texts, forms, odd, strict=True):
        assert form == (b"" if is_odd else language.tidy(text).encode())
        assert not (is_odd and text.isascii())


def test_what_is_tidied() -> None:
    forms, odd = tidied(
        ["See HTTP://a.b http://a.b/C?d #Tag @ 2nd É ❤️", "abc", "ΟΔΥΣΣΕΥΣ", "e\u0301"], 99
    )
    assert forms[0].decode() == "see http://a.b     @  nd é ❤️"
    assert odd == [False, False, True, True]
    assert tidied(["äbc", "http://abc"], 2)[0] == ["äb".encode(), b"ht"]


@settings(deadline=None, max_examples=30)
@given(st.lists(ANY, max_size=40))
def test_languages_equal_those_of_py3langid(texts: list[str]) -> None:
    texts = [*texts, *SENTENCES, *(a + " " + b for a, b in pairwise(SENTENCES)), SENTENCES[1] * 40]
    column = pa.array(texts, pa.large_string())
    names, probabilities = language._identify(column, np.arange(len(texts)))
    for text, name, probability in zip(texts, names, probabilities, strict=True):
        want = twin().rank(language.tidy(text))
        assert probability == pytest.approx(want[0][1], abs=1e-3)
        near = [of for of, value in want if value > want[0][1] - 1e-3]  # equal but for rounding
        assert name in near
        assert language.identify(text) == (name, probability)


def test_bytes_that_are_no_text_stay_within_what_is_written_to() -> None:
    raw = b"\xff" * 100
    characters = langid.characters()
    offsets = np.array([0, 60, 100], np.int64)
    (data, ends), odd = langid.tidy(
        np.frombuffer(raw, np.uint8), offsets, np.arange(2), 50, characters
    )
    assert data.tobytes().decode() == "\ufffd" * 90
    assert ends.tolist() == [0, 150, 270]
    assert not odd.any()


def test_the_weights_are_those_of_py3langid() -> None:
    weights = language._identifier().model.weights.astype(np.float32)
    assert (weights / langid.UNIT == twin().nb_ptc).all()


def judge(text: str, *languages: str) -> bool:
    texts = pa.array([text], pa.large_string())
    return bool(unsupported(texts, extract(texts, LEXICONS).values, languages)[0])


@settings(deadline=None)
@given(st.lists(st.text("theandyouiXé ", max_size=30), min_size=1, max_size=4))
def test_english_share_equals_its_twin(texts: list[str]) -> None:
    known = set(_ENGLISH.split())
    want = []
    for text in texts:
        words = text.lower().replace("É", "é").split()
        want.append(sum(word in known for word in words) / max(len(words), 1))
    assert english_share(pa.array(texts, pa.large_string())).tolist() == pytest.approx(want)


@pytest.mark.parametrize(
    "text",
    [
        "Je ne comprends pas pourquoi vous avez fait cela hier soir",
        "Не понимаю, почему вы это сделали вчера",
        "我不明白你昨天为什么这样做",
        "لا أفهم لماذا فعلت ذلك أمس",
        "杀了你",
        "死ね",
        "\u05d0",
    ],
)
def test_what_is_surely_foreign(text: str) -> None:
    assert judge(text, "en")
    assert not judge(text)


@pytest.mark.parametrize(
    "text",
    [
        "I do not understand why you did that yesterday",
        "lol wtf bro",
        "OMG SO CUTE!!! 😂😂😂",
        "https://example.com/une/adresse/en/francais",
        "merci beaucoup",
        "fuсk уоu all, you know who you are",
        "fuсk",
        "😂😂😂",
        "¡¿!? 123 ∑ €5",
        "💀 12:30",
        "ich töte dich",  # the limit: Latin script, under 20 letters
        "",
    ],
)
def test_what_is_english_or_unsure(text: str) -> None:
    assert not judge(text, "en")


def test_supported_languages_are_supported() -> None:
    assert not judge("Je ne comprends pas pourquoi vous avez fait cela hier soir", "en", "fr")
    assert not judge("Не понимаю, почему вы это сделали вчера", "en", "ru")
    assert judge("Je ne comprends pas pourquoi vous avez fait cela hier soir", "en", "ru")
    assert judge("I do not understand why you did that to me yesterday evening", "fr")
    assert not judge("Je ne comprends pas pourquoi vous avez fait cela hier soir", "en", "xx")
    assert not judge("死ね", "en", "ja")
    assert not judge("死ね", "en", "ru")  # too short to tell one other script from another
