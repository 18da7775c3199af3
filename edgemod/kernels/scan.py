"""Counts and shares that need nothing but one pass over the characters of the original text."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from numba import njit, types

from edgemod.kernels.tables import (
    CLASS_SHIFT,
    DROP,
    ENTRIES,
    IS_DIGIT,
    IS_EMOJI,
    IS_INVISIBLE,
    IS_LATIN,
    IS_LETTER,
    IS_LOWER,
    IS_MARK,
    IS_PUNCTUATION,
    IS_SIGN,
    IS_UPPER,
    PAGES,
    SPACE,
)
from edgemod.kernels.text import (
    DATA,
    OFFSETS,
    PAGE_TABLE,
    UNCOUNTED,
    Bytes,
    Floats,
    Ints,
    decode,
    inner,
    is_letter,
    longest,
    lookup,
    starts,
)

COLUMNS: Final = (
    *("bytes", "chars", "words", "upper", "digits", "punctuation", "non_ascii", "latin"),
    *("letters", "emoji", "entropy", "longest_run", "exclamations", "questions", "hashtags"),
    *("quoted", "invisible", "combining"),
)
"""What ``scan`` measures, in order."""

_JOINER: Final = 0x200D
_COUNTS: Final = 1 << 12
_UNIT: Final = 1 << 40
_TERMS: Final = np.arange(_COUNTS + 1) * np.log2(np.maximum(np.arange(_COUNTS + 1), 1))
_STEPS: Final = np.rint(np.diff(_TERMS) * _UNIT).astype(np.int64)
"""(c + 1) log2(c + 1) - c log2(c), what one more occurrence adds to the entropy's sum, in units
of 2**-40: integers add up faster, and to the same sum in any order."""

# What an ordinary ASCII character adds to six counters of 8 bits, the first lowest: letters and
# digits, letters, capitals, punctuation, exclamation and question marks. -1: not ordinary.
_LANE: Final = 8
_FEW: Final = 255  # characters that the counters hold


def _ordinary() -> npt.NDArray[np.int64]:
    table = np.full(256, -1, np.int64)
    for byte in range(32, 127):
        entry = int(ENTRIES[byte])
        counted = (
            entry & (IS_LETTER | IS_DIGIT),
            entry & IS_LETTER,
            entry & IS_UPPER,
            entry & IS_PUNCTUATION,
            byte == 33,
            byte == 63,
        )
        table[byte] = sum(bool(one) << _LANE * k for k, one in enumerate(counted))
    table[list(b'#"')] = -1  # they change what comes after
    return table


_ORDINARY: Final = _ordinary()

_ONE: Final = np.uint64(1)
_BITS: Final = np.uint64(64)
_TURN: Final = np.uint64(5)
_IN_WORD: Final = np.array([b >= 128 or chr(b).isalnum() for b in range(256)], np.bool_)
# What each byte of a word adds to its hash, an odd number by chance; 0 for what ends a word.
_PARTS: Final = np.random.default_rng(7).integers(1 << 63, size=256, dtype=np.uint64) * 2 + 1
_PARTS[~_IN_WORD] = 0


@inner
def _is_quote(code: int) -> bool:
    """A double quotation mark of any shape."""
    return code == 34 or 0x201C <= code <= 0x201F or code == 0xAB or code == 0xBB


@inner
def _entropy(data: Bytes, start: int, end: int, seen: Ints, steps: Ints) -> float:
    """Shannon entropy of the bytes, in bits: log2(n) - sum(c log2(c)) / n."""
    if start == end:
        return 0.0
    seen[:] = 0
    total = 0
    for i in range(np.uint64(start), np.uint64(end)):  # see `_word_keys`
        count = seen[data[i]]
        seen[data[i]] = count + 1
        if count < len(steps):
            total += steps[count]
        else:
            step = (count + 1) * np.log2(count + 1) - count * np.log2(count)
            total += np.int64(np.rint(step * _UNIT))
    size = np.float64(end - start)
    bits = np.log2(size) - total / _UNIT / size
    return bits if bits * _UNIT > 1 else 0.0  # less is the rounding of the steps


@inner
def _run(
    data: Bytes, i: int, end: int, in_word: bool, run: int, longest: int
) -> tuple[int, int, int, bool, int, int]:
    """Measure the ordinary ASCII that begins at ``i``, at most _FEW bytes of it.

    Where it ends, the sum of its ``_ORDINARY``, the words that begin in it; and the last three
    arguments, brought up to date. There is no branch on what a byte is.
    """
    sums = words = 0
    inside = np.int64(in_word)
    previous = data[i - 1]
    k, stop = np.uint64(i), np.uint64(min(end, i + _FEW))  # see `_word_keys`
    while k < stop:
        counted = _ORDINARY[data[k]]
        if counted < 0:
            break
        sums += counted
        solid = counted & 1
        words += solid & (inside ^ 1)
        inside = solid
        run = run * (data[k] == previous) + 1
        longest = max(longest, run)
        previous = data[k]
        k += _ONE
    return np.int64(k), sums, words, inside != 0, run, longest


@inner
def _one(data: Bytes, start: int, end: int, pages: Bytes, entries: Ints, row: Floats) -> None:
    chars = words = upper = lower = digits = punctuation = ascii_chars = latin = letters = 0
    emoji = longest = exclamations = questions = hashtags = quoted = invisible = combining = 0
    in_word = half_flag = opened = tag = on_ascii = False
    line = 0  # 0: nothing but white space so far, 1: an ordinary line, 2: a quoted one
    pending = 0  # characters since the quotation mark that is still open
    previous, run = -1, 0
    before = np.int64(0)  # the entry of the previous character
    i = start
    while i < end:
        code, size = decode(data, i, end)
        entry = lookup(code, pages, entries)
        kind = entry >> CLASS_SHIFT & 7
        chars += 1
        ascii_chars += code < 128
        letters += entry & IS_LETTER != 0
        latin += entry & IS_LATIN != 0
        upper += entry & IS_UPPER != 0
        lower += entry & IS_LOWER != 0
        digits += entry & IS_DIGIT != 0
        punctuation += entry & IS_PUNCTUATION != 0
        combining += entry & IS_MARK != 0 or (entry & IS_SIGN != 0 and on_ascii)
        if not entry & (IS_MARK | IS_SIGN):
            on_ascii = is_letter(code)
        exclamations += code == 33
        questions += code == 63
        if entry & (IS_LETTER | IS_DIGIT):
            words += not in_word
            in_word = True
            hashtags += tag and entry & IS_LETTER != 0
        elif kind != DROP:
            in_word = False
        tag = code == 35 and not (
            before & (IS_LETTER | IS_DIGIT) or previous == 38 or previous == 47
        )

        run = run + 1 if code == previous else 1
        longest = max(longest, run)

        if code >= 0x200B:
            part = previous == 0xFE0F or 0x1F3FB <= previous <= 0x1F3FF or before & IS_EMOJI
            if entry & IS_INVISIBLE and not (code == _JOINER and part):
                invisible += 1
            if entry & IS_EMOJI and previous != _JOINER and not half_flag:
                emoji += 1
            half_flag = 0x1F1E6 <= code <= 0x1F1FF and not half_flag
        else:
            invisible += entry & IS_INVISIBLE != 0
            half_flag = False

        if code == 10 or code == 13:
            line, opened, pending = 0, False, 0
        else:
            if line == 0 and kind != SPACE:
                line = 2 if code == 62 or starts(data, i, end, b"&gt;") else 1
            if line == 2:
                quoted += 1
            elif _is_quote(code):
                quoted += pending
                pending = 0
                opened = not opened
            else:
                pending += opened

        previous, before = code, entry
        i += size

        # A run of ordinary ASCII within a line, which is most of any text.
        if line and code < 128 and not tag:
            begun = i
            i, sums, begins, in_word, run, longest = _run(data, i, end, in_word, run, longest)
            if i > begun:
                chars += i - begun
                ascii_chars += i - begun
                solid, alpha, capitals = sums & 255, sums >> 8 & 255, sums >> 16 & 255
                letters += alpha
                latin += alpha
                upper += capitals
                lower += alpha - capitals
                digits += solid - alpha
                punctuation += sums >> 24 & 255
                exclamations += sums >> 32 & 255
                questions += sums >> 40 & 255
                words += begins
                if line == 2:
                    quoted += i - begun
                elif opened:
                    pending += i - begun
                half_flag = False
                previous = np.int64(data[i - 1])
                before = entries[previous]
                on_ascii = is_letter(previous)

    size_of = np.float32(max(chars, 1))
    row[0] = end - start
    row[1] = chars
    row[2] = words
    row[3] = upper / np.float32(max(upper + lower, 1))
    row[4] = digits / size_of
    row[5] = punctuation / size_of
    row[6] = (chars - ascii_chars) / size_of
    row[7] = latin / np.float32(letters) if letters else np.float32(1)
    row[8] = letters
    row[9] = emoji
    row[11] = longest
    row[12] = exclamations
    row[13] = questions
    row[14] = hashtags
    row[15] = quoted / size_of
    row[16] = invisible
    row[17] = combining


@njit(
    types.void(
        *(DATA, OFFSETS, PAGE_TABLE, OFFSETS),
        *(OFFSETS, types.int64[::1], types.float32[:, ::1]),
    ),
    **UNCOUNTED,
)
def _scan(
    data: Bytes, offsets: Ints, pages: Bytes, entries: Ints, steps: Ints, seen: Ints, out: Floats
) -> None:
    for row in range(len(offsets) - 1):
        start, end = offsets[row], offsets[row + 1]
        _one(data, start, end, pages, entries, out[row])
        out[row, 10] = _entropy(data, start, end, seen, steps)


@inner
def _word_keys(data: Bytes, start: int, end: int, keys: npt.NDArray[np.uint64]) -> int:
    """Write the hash of each word of ``data[start:end]``; how many.

    A byte is added and the sum rotated: two cycles, where a multiplication takes three more, and
    each byte waits for the one before. Two words agree by chance once in 2**64. There is no branch
    on where words end, and indices are unsigned, for numba asks each signed one whether it is
    negative.
    """
    count = np.uint64(0)
    key = np.uint64(0)  # of the word in hand; 0 between words
    for i in range(np.uint64(start), np.uint64(end)):
        part = _PARTS[data[i]]
        keys[count] = key
        count += np.uint64((part == 0) & (key != 0))
        added = key + part
        key = added << _TURN | added >> (_BITS - _TURN) if part else np.uint64(0)
    keys[count] = key
    return np.int64(count + np.uint64(key != 0))


@njit(types.void(DATA, OFFSETS, types.float32[::1]), cache=True, nogil=True)
def _repeats(data: Bytes, offsets: Ints, out: Floats) -> None:
    most = longest(offsets) // 2 + 1
    found = np.empty(most + 1, np.uint64)
    slots = 16
    while slots < 2 * most:
        slots *= 2
    keys = np.empty(slots, np.uint64)
    owners = np.full(slots, -1, np.int64)  # the text that a slot's key belongs to

    for row in range(len(offsets) - 1):
        words = _word_keys(data, offsets[row], offsets[row + 1], found)
        mask = np.uint64(15)  # the table stays half empty, and as small as the text
        while mask < np.uint64(2 * words):
            mask = mask << _ONE | _ONE
        repeats = 0
        for k in range(words):
            key = found[k]
            slot = (key ^ key >> np.uint64(32)) & mask
            while owners[slot] == row and keys[slot] != key:
                slot = slot + _ONE & mask
            repeats += owners[slot] == row
            owners[slot] = row
            keys[slot] = key
        out[row] = repeats / np.float32(max(words, 1))


def scan(data: Bytes, offsets: Ints) -> Floats:
    """Measure all texts: float32 (n, len(COLUMNS)), meanings in ``words.FEATURES``."""
    out = np.empty((len(offsets) - 1, len(COLUMNS)), np.float32)
    _scan(data, offsets, PAGES, ENTRIES, _STEPS, np.empty(256, np.int64), out)
    return out


def repeated_words(data: Bytes, offsets: Ints) -> Floats:
    """The share of each text's words that it had before, float32 (n,), of normalised texts."""
    out = np.empty(len(offsets) - 1, np.float32)
    _repeats(data, offsets, out)
    return out
