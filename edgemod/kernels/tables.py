"""What the kernels know of Unicode: one 64-bit entry a code point, built at import.

Entry of code point c: ``ENTRIES[PAGES[c >> 8] << 8 | c & 255]`` (for ASCII, ``ENTRIES[c]``).

===========  ====================================================================
bits 0-31    UTF-8 of the folded form, first byte lowest; 0 where c folds to itself
bits 32-34   its length, never more than that of c; 0 where c folds to itself or is dropped
bits 35-41   the ASCII letter that the folded form resembles, else 0
bits 42-44   class of the folded form: DROP, OTHER, SPACE, LETTER or DIGIT
bits 45-     flags of c itself, the constants below
===========  ====================================================================

The data is that of ``unicodedata``, so of the Unicode version of the Python in use.
Kernels take the tables as arguments: numba would freeze a global into its on-disk cache.
"""

from __future__ import annotations

import re
import string
import unicodedata
from typing import Final

import numpy as np
import numpy.typing as npt

FORM: Final = (1 << 35) - 1
SIZE_SHIFT: Final = 32
RESEMBLES_SHIFT: Final = 35
CLASS_SHIFT: Final = 42

DROP: Final = 0
OTHER: Final = 1
SPACE: Final = 2
LETTER: Final = 3
DIGIT: Final = 4

IS_LETTER: Final = 1 << 45  # general category L
IS_UPPER: Final = 1 << 46  # Lu
IS_LOWER: Final = 1 << 47  # Ll
IS_DIGIT: Final = 1 << 48  # Nd
IS_LATIN: Final = 1 << 49  # a letter that is Latin, or folds to one
IS_MARK: Final = 1 << 50  # a combining mark that the fold drops
IS_INVISIBLE: Final = 1 << 51  # format characters and blank fillers
IS_EMOJI: Final = 1 << 52
IS_PUNCTUATION: Final = 1 << 53  # ASCII punctuation
IS_SPECIAL: Final = 1 << 54  # ASCII that may begin a link, an entity, a mention or a leet letter
IS_UNSPACED: Final = 1 << 55  # a letter of a script written without spaces between words
IS_SIGN: Final = 1 << 56  # a mark of one script, with no place on an ASCII letter

# Letters of other scripts that pass for a Latin one, in folded (lower) case. The capital
# decides only where the lower-case letter resembles nothing.
_RESEMBLES: Final = {
    "a": "аα",
    "b": "вьβ",
    "c": "сϲ",
    "d": "ԁժ",
    "e": "еєёεҽ",
    "g": "ցԍ",
    "h": "нһհ",
    "i": "іїιӏ",
    "j": "јϳյ",
    "k": "кκқҝ",
    "l": "լ",
    "m": "м",
    "n": "пηռ",
    "o": "оοσօө",
    "p": "рρ",
    "q": "ԛզ",
    "r": "гґ",
    "s": "ѕտ",
    "t": "тτ",
    "u": "υμս",
    "v": "νѵ",
    "w": "ԝωшա",
    "x": "хχҳ",
    "y": "уγүұ",
    "z": "ζ",
}
# Latin letters whose name does not end in the letter they are a shape of.
_LATIN: Final = {"ı": "i", "ɑ": "a", "ɡ": "g", "ƞ": "n", "ɩ": "i", "æ": "ae", "œ": "oe"}
_PUNCTUATION: Final = {
    **dict.fromkeys("‘’‚‛′`´ʼʹ", "'"),
    **dict.fromkeys("“”„‟″«»", '"'),
    **dict.fromkeys("‐‑‒–—―−", "-"),
    "…": "..",  # the same as three full stops after squeezing
    **dict.fromkeys("•·∙⋅●◦‧・･▪■○", "*"),  # bullets, which also spell words out
}
_NAMED: Final = re.compile(
    r"LATIN (?:SMALL |CAPITAL |LETTER SMALL CAPITAL )(?:LETTER )?([A-Z])(?: WITH .*)?$"
)
# Not marks of one script but of all (Unicode blocks): dropping them changes no other script.
_MARKS: Final = frozenset(
    (*range(0x300, 0x370), *range(0x1AB0, 0x1B00), *range(0x1DC0, 0x1E00), *range(0x20D0, 0x2100))
)
_SELECTORS: Final = frozenset((*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))  # of glyphs
# Without ink though letters, marks or unassigned: Hangul fillers, Khmer inherent vowels,
# Mongolian selectors, and what Unicode keeps ignorable (Default_Ignorable_Code_Point).
_BLANK: Final = frozenset(
    (
        *(0x115F, 0x1160, 0x3164, 0xFFA0, 0x17B4, 0x17B5, 0x2065),
        *(*range(0x180B, 0x1810), *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000)),
    )
)
_BRAILLE_BLANK: Final = 0x2800
# The blocks that emoji come from (the emoji property itself is not in unicodedata).
EMOJI: Final = (
    *((0x231A, 0x231B), (0x23E9, 0x23F3), (0x25FD, 0x25FE), (0x2600, 0x27BF), (0x2B1B, 0x2B1C)),
    *((0x2B50, 0x2B50), (0x2B55, 0x2B55), (0x1F000, 0x1F0FF), (0x1F18E, 0x1F18E)),
    *((0x1F191, 0x1F19A), (0x1F1E6, 0x1F1FF), (0x1F201, 0x1F3FA), (0x1F400, 0x1FAFF)),
)
# Scripts without spaces: Thai to Lao, Myanmar, Khmer, kana, Han.
_UNSPACED: Final = (
    *((0xE00, 0xEFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x4DBF)),
    *((0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
)
# Letters that fold to themselves, and code points without meaning: no need to ask about each.
_PLAIN: Final = (
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xA48C), (0xAC00, 0xD7A3), (0x12000, 0x12399)),
    *((0x13000, 0x1342E), (0x14400, 0x14646), (0x16800, 0x16A38), (0x17000, 0x187F7)),
    *((0x18800, 0x18CD5), (0x1B170, 0x1B2FB), (0x20000, 0x2A6DF), (0x2A700, 0x2B738)),
    *((0x2B740, 0x2B81D), (0x2B820, 0x2CEA1), (0x2CEB0, 0x2EBE0), (0x30000, 0x3134A)),
)
_NOTHING: Final = ((0xD800, 0xF8FF), (0x1FC00, 0x1FFFF), (0x31350, 0xDFFFF), (0xE1000, 0x10FFFF))
_RESEMBLING: Final = {look: ord(letter) for letter, looks in _RESEMBLES.items() for look in looks}


def _fold(char: str, category: str) -> str:
    """The lower-case base of one character; the character itself where that needs more bytes."""
    if char in _PUNCTUATION:
        return _PUNCTUATION[char]
    if category == "Nd":
        return str(unicodedata.decimal(char))
    named = _NAMED.search(unicodedata.name(char, ""))
    if named:
        return named[1].lower()
    lower = unicodedata.normalize("NFKC", char).casefold()
    bare = "".join(c for c in unicodedata.normalize("NFKD", lower) if ord(c) not in _MARKS)
    bare = "".join(_LATIN.get(c, c) for c in bare)
    room = len(char.encode())
    for folded in (bare if bare.isascii() else lower, char.lower()):
        alike = len({c.isalnum() for c in folded}) == 1  # all of one word, or none
        if alike and len(folded.encode()) <= room and not folded.isspace():
            return folded
    return char


def _entry(code: int) -> int:
    """The entry of one code point, as laid out at the top of this file."""
    char = chr(code)
    category = unicodedata.category(char)
    if code in _MARKS:
        return DROP << CLASS_SHIFT | IS_MARK
    if code in _SELECTORS:
        return DROP << CLASS_SHIFT
    if category == "Cf" or code in _BLANK:
        return DROP << CLASS_SHIFT | IS_INVISIBLE
    if category == "Cc" and not char.isspace():
        return DROP << CLASS_SHIFT | IS_INVISIBLE
    if char.isspace() or category == "Zs" or code == _BRAILLE_BLANK:
        return ord(" ") | 1 << SIZE_SHIFT | SPACE << CLASS_SHIFT
    if category == "Cn" or category == "Co":
        return OTHER << CLASS_SHIFT

    form = _fold(char, category)
    first = form[0]
    letter = first.isalpha() or category[0] == "M"  # a vowel sign is part of its word
    kind = LETTER if letter else DIGIT if first in string.digits else OTHER
    entry = kind << CLASS_SHIFT | _RESEMBLING.get(form, 0) << RESEMBLES_SHIFT
    if form != char or code < 128:
        encoded = form.encode()
        entry |= int.from_bytes(encoded, "little") | len(encoded) << SIZE_SHIFT
    if category in ("Mn", "Me"):
        entry |= IS_SIGN
    entry |= {"Lu": IS_UPPER, "Ll": IS_LOWER, "Nd": IS_DIGIT}.get(category, 0)
    if category[0] == "L":
        latin = (first.isascii() and letter) or "LATIN" in unicodedata.name(char, "")
        entry |= IS_LETTER | (IS_LATIN if latin else 0)
    if char in string.punctuation:
        entry |= IS_PUNCTUATION
    if char in "fFhHwW&@$!":
        entry |= IS_SPECIAL
    return entry


def _build() -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]:
    flat = np.zeros(0x110000, np.int64)
    asked = np.ones(0x110000, np.bool_)
    for ranges, entry in ((_NOTHING, OTHER << CLASS_SHIFT), (_PLAIN, LETTER << CLASS_SHIFT)):
        for low, high in ranges:
            flat[low : high + 1] = entry | (IS_LETTER if ranges is _PLAIN else 0)
            asked[low : high + 1] = False
    codes = np.flatnonzero(asked)
    flat[codes] = [_entry(code) for code in codes.tolist()]
    for ranges, flag in ((_UNSPACED, IS_UNSPACED), (EMOJI, IS_EMOJI)):
        for low, high in ranges:
            flat[low : high + 1] |= flag

    index: dict[bytes, int] = {}
    pages = [index.setdefault(page.tobytes(), len(index)) for page in flat.reshape(-1, 256)]
    table = np.array(pages, np.uint16)
    table.flags.writeable = False
    return table, np.frombuffer(b"".join(index), np.int64)


PAGES, ENTRIES = _build()
"""uint16 (4352,) and int64 (pages * 256,), both read-only."""
