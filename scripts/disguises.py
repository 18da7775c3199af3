"""Ways in which people write a word around a filter. make_demo.py, training and the scoreboard
use the same ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import numpy as np

HOMOGLYPHS: Final = str.maketrans("aeopcxyiAEOPCXTKHBM", "аеорсхуіАЕОРСХТКНВМ")
LEET: Final = str.maketrans("aeiostAEIOST", "431057431057")

_WORD: Final = re.compile(r"\w{3,}")


def leet(word: str) -> str:
    """Digits for letters: h4t3."""
    return word.translate(LEET)


def homoglyphs(word: str) -> str:
    """Cyrillic letters that look like Latin ones."""
    return word.translate(HOMOGLYPHS)


def zero_width(word: str) -> str:
    """A zero-width space after every second letter."""
    return "\u200b".join(word[i : i + 2] for i in range(0, len(word), 2))


def spaced(word: str) -> str:
    """One letter at a time: h a t e."""
    return " ".join(word)


def stretched(word: str) -> str:
    """A vowel, or the last letter, three times more: haaaate."""
    vowel = re.search("[aeiou]", word[1:])
    at = vowel.start() + 1 if vowel else len(word) - 1
    return word[:at] + word[at] * 3 + word[at:]


def starred(word: str) -> str:
    """A star for the second letter: h*te."""
    return word[0] + "*" + word[2:] if len(word) > 2 else word


WAYS: Final = (leet, homoglyphs, zero_width, spaced, stretched, starred)


def disguise(
    text: str, random: np.random.Generator, share: float, ways: tuple[Callable[[str], str], ...]
) -> str:
    """About ``share`` of the words written around a filter, one way for the whole text."""
    way = ways[random.integers(len(ways))]

    def change(match: re.Match[str]) -> str:
        return way(match[0]) if random.random() < share else match[0]

    return _WORD.sub(change, text)
