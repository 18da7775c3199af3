"""Which texts are in a language that the policy does not support, where that is certain.

The identifier is py3langid 0.4 (BSD-3-Clause, pure Python and numpy, 4.6 MB, its model inside the
wheel). lingua-language-detector 2.1 was no better where it matters and 8 times slower, in a wheel
of 96 MB: on English that looks least like it, lingua was wrong as often at its 0.99 (39 of 1,500
against 38), and found 93 % of French, Vietnamese and others where py3langid found 99 %. Cheaper
tests come first, so that one English text in 16 reaches it, for 0.1 to 0.6 ms each.

Measured on 72,000 English texts (comments, prompts and 20,000 posts of an archive): 0.17 % are
declared foreign, some of which are. Of 2,972 foreign texts in Latin script of 20 letters or more,
84 % are found; of 2,702 in other scripts, 98 %, Japanese or Russian alike by script alone.

A text in another script needs no length. To judge those under five letters too made 3 more of the
20,000 titles of an archive unsupported (one foreign, two faces made of letters), and none of
118,106 English texts of 28 labelled sets. Emoji and symbols are no letters, and a text without a
letter is never unsupported. A limit: in Latin script a text of fewer than 20 letters is not
judged, so a short French threat goes to models that know English.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit, types
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from edgemod.features import buffers
from edgemod.kernels.text import DATA, OFFSETS, Bytes, Ints, is_letter
from edgemod.words import FEATURES

_ENGLISH: Final = (
    "the and to of is it in that this for on you your was with are be have not but they what so "
    "if at my me he she we his her them do just like can from all or will would there who how "
    "dont im its an by about no up out as when get one has been were their because know people "
    "don isn ve ll re did does why u should go now more than any some i"
)
"""Frequent English words of at most eight letters, but for a: too common elsewhere."""

_ENGLISH_SHARE: Final = 0.15
_FEW_LETTERS: Final = 20  # a Latin text with fewer is not judged
_FEW_FOREIGN: Final = 5  # nor is one with fewer of another script, where that may be supported
_SURE: Final = 0.99
_ENOUGH: Final = 2000  # characters of a long text that the identifier reads
_LETTERS: Final = list(FEATURES).index("letters")
_LATIN: Final = list(FEATURES).index("latin")

_OTHER_SCRIPTS: Final = (
    "am ar as be bg bn dv dz el fa gu he hi hy ja ka kk km kn ko ky lo mk ml mn mr my ne or pa ps "
    "ru sa sd si sr ta te tg th ti ug uk ur yi zh"
)
"""ISO 639-1 codes of languages usually written in another script than Latin."""

_NOISE: Final = re.compile(r"https?://\S+|www\.\S+|[@#]\w+|\d+")
_SLOTS: Final = 1024


def _table() -> npt.NDArray[np.uint64]:
    """The English words as integers of their bytes, in an open hash table; 0 is empty."""
    table = np.zeros(_SLOTS, np.uint64)
    for word in _ENGLISH.split():
        key = int.from_bytes(word.encode(), "big")
        slot = key % (_SLOTS - 1)
        while table[slot]:
            slot = (slot + 1) % _SLOTS
        table[slot] = key
    return table


_WORDS: Final = _table()


@njit(
    types.void(DATA, OFFSETS, types.Array(types.uint64, 1, "C", readonly=True), types.float32[::1]),
    cache=True,
    nogil=True,
)
def _share(
    data: Bytes, offsets: Ints, table: npt.NDArray[np.uint64], out: npt.NDArray[np.float32]
) -> None:
    for row in range(len(offsets) - 1):
        words = english = 0
        i, end = offsets[row], offsets[row + 1]
        while i < end:
            key = np.uint64(0)
            first = i
            while i < end and (data[i] >= 128 or is_letter(data[i])):
                key = key << np.uint64(8) | np.uint64(data[i] | 32)
                i += 1
            if i > first:
                words += 1
                if i - first <= 8:
                    slot = np.int64(key % np.uint64(len(table) - 1))
                    while table[slot] != 0 and table[slot] != key:
                        slot = (slot + 1) % len(table)
                    english += table[slot] == key
            i += 1
        out[row] = english / np.float32(max(words, 1))


def english_share(texts: pa.LargeStringArray) -> npt.NDArray[np.float32]:
    """The share of each text's words that are frequent English ones, float32 (n,), 0 to 1."""
    share = np.empty(len(texts), np.float32)
    _share(*buffers(texts), _WORDS, share)
    return share


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def identify(text: str) -> tuple[str, float]:
    """The likeliest language (ISO 639-1) and its probability, links and names left out."""
    language, probability = _identifier().classify(_NOISE.sub(" ", text[:_ENOUGH]).lower())
    return str(language), float(probability)


def unsupported(
    texts: pa.LargeStringArray, values: npt.NDArray[np.float32], languages: Sequence[str]
) -> npt.NDArray[np.bool_]:
    """Whether each text is, beyond doubt, in a language outside ``languages``: bool (n,).

    ``values`` are those of ``features.extract``; ``languages`` ISO 639-1 codes, none for all.
    Where all of them are written in Latin letters, a text whose letters are mostly others is,
    however short: "死ね" is as foreign as a page. A short text in Latin letters, and one that may
    be several languages, is not: False means "not sure", too.
    """
    if not languages:
        return np.zeros(len(texts), np.bool_)
    letters, latin = values[:, _LETTERS], values[:, _LATIN]
    foreign = latin < 0.5
    ask = (latin >= 0.5) & (letters >= _FEW_LETTERS)
    if "en" in languages:
        ask &= english_share(texts) < _ENGLISH_SHARE
    if set(languages).isdisjoint(_OTHER_SCRIPTS.split()):
        result = foreign
    else:
        result = np.zeros(len(texts), np.bool_)
        ask |= foreign & (letters * (1 - latin) >= _FEW_FOREIGN)
    if ask.any() and set(languages) <= set(_identifier().labels):
        for row in np.flatnonzero(ask).tolist():
            language, probability = identify(texts[row].as_py())
            result[row] = probability >= _SURE and language not in languages
    return result
