"""The language of a text by naive Bayes over byte sequences, as py3langid 0.4 does it.

``tidy`` makes of a text what is identified: links, names and numbers left out, in lower case, NFC.
``judge`` reads it with py3langid's tables: a finite-state machine over bytes, whose states stand
for the byte sequences (features) that end there, and the log-probability of each feature in each
class. A class's score is its prior plus, for each feature seen c times, log(1 + c) times that;
divided by the square root of the bytes, the scores are those of a softmax.
"""

from __future__ import annotations

import unicodedata
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from edgemod.kernels.prefetch import prefetch
from edgemod.kernels.text import Bytes, Floats, Ints, decode, inner, longest

UNIT: Final = 512
"""Log-probabilities of the model are whole multiples of 1 / UNIT."""

_SIDE_BY_SIDE: Final = 16
_LINE: Final = 32  # weights in a line of the cache

_LOWER: Final = np.int32((1 << 21) - 1)
_WORD: Final = np.int32(1 << 21)  # \w of Python's re
_DECIMAL: Final = np.int32(1 << 22)  # \d
_SPACE: Final = np.int32(1 << 23)  # \s
_KNOWN: Final = np.int32(1 << 24)

_ASKED: Final = ((0, 0x3130), (0xFE00, 0x10000), (0x1F000, 0x20000))
_PLAIN: Final = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xAC00, 0xD7A4))  # letters without case

Int32s = npt.NDArray[np.int32]


class Model(NamedTuple):
    """The tables; S states, R different rows of transitions, F features, C classes."""

    moves: npt.NDArray[np.uint32]  # (R * 256,) next state
    row: npt.NDArray[np.uint16]  # (S,) the row of each state
    feature: Int32s  # (S,) the feature that ends at each state; -1 if none
    weights: npt.NDArray[np.int16]  # (F, C) log-probabilities, in units of 1 / UNIT
    prior: Floats  # (C,)
    twins: Ints  # (T, 2) classes of the same language: the first takes the other's probability


def characters() -> Int32s:
    """What ``tidy`` knows of code points, int32 (0x20000,): the lower case, and flags.

    0 for those it leaves alone: their lower case or their NFC hangs on what stands beside them, or
    they are rare.
    """
    table = np.zeros(0x20000, np.int32)
    asked = [code for low, high in _ASKED for code in range(low, high)]
    hanging = {0x3A3, *range(0x1100, 0x1200)}  # sigma has two lower cases; Hangul letters compose
    for code in asked:
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and parts[0][0] != "<":
            hanging.add(int(parts[1], 16))
    for code in asked:
        char = chr(code)
        lower = char.lower()
        if len(lower) > 1 or code in hanging or ord(lower) in hanging:
            continue
        if unicodedata.combining(lower) or not unicodedata.is_normalized("NFC", lower):
            continue
        entry = ord(lower) | _KNOWN
        entry |= _WORD if char.isalnum() or char == "_" else 0
        entry |= _DECIMAL if char.isdecimal() else 0
        entry |= _SPACE if char.isspace() else 0
        table[code] = entry
    for low, high in _PLAIN:
        table[low:high] = np.arange(low, high) | _KNOWN | _WORD
    return table


@inner
def _entry(data: Bytes, i: int, end: int, table: Int32s) -> tuple[int, int]:
    """The entry of the character at ``i``, and its bytes."""
    code, size = decode(data, i, end)
    return (np.int64(table[code]) if code < len(table) else np.int64(0)), size


@inner
def _is_at(data: Bytes, i: int, end: int, word: bytes) -> bool:
    """Whether ``word`` stands at ``i``."""
    if i + len(word) > end:
        return False
    for k in range(len(word)):  # noqa: SIM110 - numba has no all()
        if data[i + k] != word[k]:
            return False
    return True


@inner
def _noise(data: Bytes, i: int, end: int, table: Int32s) -> int:
    """End of the link, name or number that begins at ``i``, or ``i``; see ``language._NOISE``."""
    byte = data[i]
    head, wanted, unwanted = i, np.int64(0), np.int64(0)
    if byte == 104:
        if _is_at(data, i, end, b"http://"):
            head, unwanted = i + 7, np.int64(_SPACE)
        elif _is_at(data, i, end, b"https://"):
            head, unwanted = i + 8, np.int64(_SPACE)
    elif byte == 119:
        if _is_at(data, i, end, b"www."):
            head, unwanted = i + 4, np.int64(_SPACE)
    elif byte == 64 or byte == 35:
        head, wanted = i + 1, np.int64(_WORD)
    else:
        wanted = np.int64(_DECIMAL)
    if wanted == unwanted:
        return i
    j = head
    while j < end:
        entry, size = _entry(data, j, end, table)
        if entry & unwanted or (wanted and not entry & wanted):
            break
        j += size
    return j if j > head else i


@inner
def _tidy(
    data: Bytes, start: int, end: int, most: int, table: Int32s, out: Bytes, first: int
) -> int:
    """Write ``data[start:end]``, tidied, from ``out[first]`` on; where it ends, -1 if unknown."""
    stop, count = start, 0
    while stop < end and count < most:
        entry, size = _entry(data, stop, end, table)
        if entry == 0:
            return -1
        stop += size
        count += 1
    i, pos = start, first
    while i < stop:
        entry, size = _entry(data, i, stop, table)
        if entry & _DECIMAL or data[i] == 104 or data[i] == 119 or data[i] == 64 or data[i] == 35:
            after = _noise(data, i, stop, table)
            if after > i:
                out[pos] = 32
                pos += 1
                i = after
                continue
        code = entry & _LOWER
        if code < 0x80:
            out[pos] = code
            pos += 1
        elif code < 0x800:
            out[pos] = 0xC0 | code >> 6
            out[pos + 1] = 0x80 | code & 63
            pos += 2
        elif code < 0x10000:
            out[pos] = 0xE0 | code >> 12
            out[pos + 1] = 0x80 | code >> 6 & 63
            out[pos + 2] = 0x80 | code & 63
            pos += 3
        else:
            out[pos] = 0xF0 | code >> 18
            out[pos + 1] = 0x80 | code >> 12 & 63
            out[pos + 2] = 0x80 | code >> 6 & 63
            out[pos + 3] = 0x80 | code & 63
            pos += 4
        i += size
    return pos


@inner
def _tidy_all(
    data: Bytes, offsets: Ints, rows: Ints, most: int, table: Int32s, out: Bytes, ends: Ints
) -> None:
    pos = 0
    for k in range(len(rows)):
        row = rows[k]
        after = _tidy(data, offsets[row], offsets[row + 1], most, table, out, pos)
        pos = max(pos, after)
        ends[k + 1] = pos if after >= 0 else -1


def tidy(
    data: Bytes, offsets: Ints, rows: Ints, most: int, table: Int32s
) -> tuple[tuple[Bytes, Ints], npt.NDArray[np.bool_]]:
    """The first ``most`` characters of some texts, tidied, and which of them could not be.

    ``rows`` int64 (k,): the texts. ``table``: ``characters()``. Returns uint8 (m,) and offsets
    int64 (k + 1,), and bool (k,); a text that could not be is empty.
    """
    sizes = offsets[rows + 1] - offsets[rows]
    # Ⱥ grows by half, and a byte that begins no character to the three of U+FFFD.
    out = np.empty(3 * int(np.minimum(sizes, 4 * most).sum()), np.uint8)
    ends = np.zeros(len(rows) + 1, np.int64)
    _tidy_all(data, offsets, rows, most, table, out, ends)
    odd = ends[1:] < 0
    np.maximum.accumulate(ends, out=ends)
    return (out[: ends[-1]], ends), odd


@njit(cache=True, nogil=True)
def _walk(data: Bytes, offsets: Ints, first: int, last: int, model: Model, at: Int32s) -> None:
    """Write the feature that ends at each byte of the texts ``first`` to ``last`` to ``at``.

    ``at`` (_SIDE_BY_SIDE, longest text), -1 where none ends. The tables are larger than the
    caches and each step waits for the one before, so as many texts as fit take steps by turns.
    """
    moves, row, feature = model.moves, model.row, model.feature
    state = np.zeros(_SIDE_BY_SIDE, np.uint32)
    for step in range(longest(offsets[first : last + 1])):
        for k in range(last - first):
            i = offsets[first + k] + step
            if i < offsets[first + k + 1]:
                moved = moves[np.uint32(row[state[k]]) << np.uint32(8) | np.uint32(data[i])]
                state[k] = moved
                at[k, step] = feature[moved]


@njit(cache=True, nogil=True)
def _judge(
    data: Bytes, offsets: Ints, model: Model, logs: Floats, best: Ints, probability: Floats
) -> None:
    features, classes = model.weights.shape
    seen = np.zeros(features, np.uint16)
    most = longest(offsets)
    at = np.empty((_SIDE_BY_SIDE, most), np.int32)
    found = np.empty(most + 1, np.uint32)
    scores = np.empty(classes, np.float32)
    for text in range(len(offsets) - 1):
        k = text % _SIDE_BY_SIDE
        if k == 0:
            _walk(data, offsets, text, min(text + _SIDE_BY_SIDE, len(offsets) - 1), model, at)
        size = offsets[text + 1] - offsets[text]
        count = 0
        for i in range(size):
            if at[k, i] >= 0:
                which = np.uint32(at[k, i])
                found[count] = which
                count += seen[which] == 0
                seen[which] += np.uint16(1)
                for line in range(0, classes, _LINE):
                    prefetch(model.weights, which * classes + line)

        for c in range(classes):
            scores[c] = model.prior[c] if count else np.float32(0)
        for j in range(count):
            which = found[j]
            weight = logs[seen[which]]
            seen[which] = 0
            for c in range(classes):
                scores[c] += weight * np.float32(model.weights[which, c])

        scale = np.float32(1 / np.sqrt(np.float64(max(size, 1))))
        top = np.float32(-np.inf)
        for c in range(classes):
            scores[c] *= scale
            top = max(top, scores[c])
        total = np.float32(0)
        for c in range(classes):
            scores[c] = np.exp(scores[c] - top)
            total += scores[c]
        for pair in range(len(model.twins)):
            scores[model.twins[pair, 0]] += scores[model.twins[pair, 1]]
            scores[model.twins[pair, 1]] = 0
        best[text] = np.argmax(scores)
        probability[text] = scores[best[text]] / total


def judge(data: Bytes, offsets: Ints, model: Model) -> tuple[Ints, Floats]:
    """The likeliest class of each tidied text and its probability: int64 and float32 (n,)."""
    n = len(offsets) - 1
    best, probability = np.empty(n, np.int64), np.empty(n, np.float32)
    sizes = np.diff(offsets)
    logs = np.log1p(np.arange(sizes.max(initial=0) + 1, dtype=np.float32)) / np.float32(UNIT)
    data, offsets = data.view(), offsets.view()
    data.flags.writeable = offsets.flags.writeable = False  # one signature, so one compilation
    _judge(data, offsets, model, logs, best, probability)
    return best, probability
