"""Which texts are in a language that the policy does not support, where that is certain.

The identifier is that of py3langid 0.4 (BSD-3-Clause, 4.6 MB, its model inside the wheel), whose
own code reads its model: an npz file inside LZMA, without pickle. kernels/langid.py does the rest
for many texts at a time, with the same answers. lingua-language-detector 2.1 was no better where it
matters and 8 times slower, in a wheel of 96 MB: on English that looks least like it, lingua was
wrong as often at its 0.99 (39 of 1,500 against 38), and found 93 % of French, Vietnamese and others
where py3langid found 99 %. Cheaper tests come first, so that one English text in 16 reaches it.

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

import os
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit, types
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from edgemod.errors import OutputError
from edgemod.features import buffers
from edgemod.kernels import langid
from edgemod.kernels.text import DATA, OFFSETS, Bytes, Ints, longest
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
_BITS: Final = np.uint64(10)
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio, made odd
_EIGHT: Final = np.uint64(8)

# A letter in lower case, or any byte of a character outside ASCII; 0 for what ends a word.
_LETTER: Final = np.array(
    [b | 32 if b >= 128 or chr(b).isalpha() else 0 for b in range(256)], np.uint8
)


def _table() -> npt.NDArray[np.uint64]:
    """The English words as integers of their bytes, each at its slot or the next; 0 is empty."""
    table = np.zeros((1 << int(_BITS)) + 1, np.uint64)
    for word in _ENGLISH.split():
        key = int.from_bytes(word.encode(), "big")
        slot = (key * int(_ODD) & (1 << 64) - 1) >> 64 - int(_BITS)
        slot += bool(table[slot])
        assert not table[slot], "choose another multiplier"
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
    keys = np.empty(longest(offsets) // 2 + 2, np.uint64)
    for row in range(len(offsets) - 1):
        # Without a branch on where words end, and unsigned, as in `scan._word_keys`. Of a word
        # of more than eight bytes the last eight are kept, which are no English word: those
        # have seven at most.
        words = np.uint64(0)
        key = np.uint64(0)
        for i in range(np.uint64(offsets[row]), np.uint64(offsets[row + 1])):
            letter = np.uint64(_LETTER[data[i]])
            keys[words] = key
            words += np.uint64((letter == 0) & (key != 0))
            key = key << _EIGHT | letter if letter else np.uint64(0)
        keys[words] = key
        words += np.uint64(key != 0)
        english = np.uint64(0)
        for k in range(words):
            slot = (keys[k] * _ODD) >> (np.uint64(64) - _BITS)
            here, beside = table[slot] == keys[k], table[slot + np.uint64(1)] == keys[k]
            english += np.uint64(here | beside)
        out[row] = english / np.float32(max(words, np.uint64(1)))


def english_share(texts: pa.LargeStringArray) -> npt.NDArray[np.float32]:
    """The share of each text's words that are frequent English ones, float32 (n,), 0 to 1."""
    share = np.empty(len(texts), np.float32)
    _share(*buffers(texts), _WORDS, share)
    return share


class _Identifier(NamedTuple):
    names: npt.NDArray[np.str_]  # of the model's classes
    model: langid.Model
    characters: npt.NDArray[np.int32]


@cache
def _identifier() -> _Identifier:
    """py3langid's tables, as its own code reads them, in the form that the kernels take.

    Raises OutputError where that cannot unpack them, to the temporary folder.
    """
    try:
        loaded = LanguageIdentifier.from_model_file(MODEL_FILE)
    except OSError as error:
        raise OutputError(
            f"the tables that tell languages cannot be unpacked: {error.strerror or error}",
            where=os.environ.get("TMPDIR", "the temporary folder"),
            fix="They take 70 MB there for a moment. Free space, or name another with TMPDIR.",
        ) from error
    names = loaded.nb_classes
    weights = np.empty(loaded.nb_ptc.shape, np.int16)
    unit = np.float32(langid.UNIT)
    np.multiply(loaded.nb_ptc, unit, out=weights, dtype=np.float32, casting="unsafe")
    model = langid.Model(
        moves=np.asarray(loaded.tk_nextmove).astype(np.uint32, copy=False),
        row=np.asarray(loaded.tk_row).astype(np.uint16, copy=False),
        feature=np.array(loaded.tk_output, np.int32),
        weights=weights,
        prior=loaded.nb_pc,
        twins=np.array([(names.index(name), k) for k, name in enumerate(names)]),
    )
    model = model._replace(twins=model.twins[model.twins[:, 0] < model.twins[:, 1]])
    return _Identifier(np.array(names), model, langid.characters())


def tidy(text: str) -> str:
    """What of a text is identified: no links, names and numbers, and no more than the beginning."""
    return unicodedata.normalize("NFC", _NOISE.sub(" ", text[:_ENOUGH]).lower())


def _identify(
    texts: pa.LargeStringArray, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.float32]]:
    """The likeliest language of each of the texts ``rows``, and its probability."""
    names, model, characters = _identifier()
    tidied, odd = langid.tidy(*buffers(texts), rows, _ENOUGH, characters)
    best, probability = langid.judge(*tidied, model)
    if odd.any():  # one in a thousand: its characters hang on their neighbours
        slow = pa.array([tidy(texts[row].as_py()) for row in rows[odd].tolist()], pa.large_string())
        best[odd], probability[odd] = langid.judge(*buffers(slow), model)
    return names[best], probability


def identify(text: str) -> tuple[str, float]:
    """The likeliest language (ISO 639-1) and its probability, links and names left out."""
    name, probability = _identify(pa.array([text], pa.large_string()), np.zeros(1, np.int64))
    return str(name[0]), float(probability[0])


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
    supported = [*languages]
    rows = np.flatnonzero(ask)
    if len(rows) and np.isin(supported, _identifier().names).all():
        found, probability = _identify(texts, rows)
        result[rows] = (probability >= _SURE) & ~np.isin(found, supported)
    return result
