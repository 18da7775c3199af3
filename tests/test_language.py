from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemod.features import Lexicons, extract
from edgemod.language import _ENGLISH, english_share, unsupported

LEXICONS = Lexicons.compile(())


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
