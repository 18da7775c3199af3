from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgemod import emoji
from edgemod.emoji import in_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("plain text, 100 %", "plain text, 100 %"),
        ("crème 漢字", "crème 漢字"),
        ("hi 👍🏿", "hi thumbs up black skin"),
        ("😂😂 so 😂", "face tears joy so face tears joy"),
        ("🇮🇹🇫🇷", "flag"),
        ("I ♥ 🐒", "i heart suit monkey"),
        ("❤", "heart"),
    ],
)
def test_names_stand_in_the_place_of_emoji(text: str, words: str) -> None:
    assert " ".join(in_words(text.lower()).split()) == words


@given(st.text() | st.text("a \t👍🏿🇮🇹é\U0001f203"))  # the last has no name
@example(" \U0001f203")
@example("👍\t 👍")
def test_no_emoji_is_left_and_nothing_else_changes(text: str) -> None:
    words = in_words(text)
    assert in_words(words) == words
    at = 0
    for piece in emoji._FOUND.split(text):
        at = words.index(piece, at) + len(piece)
