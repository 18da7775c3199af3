"""Words spelled out (h-a-t-e) are joined: the last step of the normal form; see normalise.py."""

from __future__ import annotations

from typing import Final

import numpy as np

from edgemod.kernels.tables import CLASS_SHIFT, LETTER, OTHER
from edgemod.kernels.text import (
    Bytes,
    Ints,
    among,
    char_before,
    decode,
    inner,
    is_alnum,
    lookup,
)

WIDE: Final = 3
"""Stands for two or more white spaces until spelled-out words are joined."""

_SPACERS: Final = b".-_*/,|~+:^=; \x03"
_WORDLIKE: Final = np.array([chr(b).isalnum() and b < 128 for b in range(256)], np.uint8)
_WORDLIKE[39] = 1  # the apostrophe


@inner
def _in_word(data: Bytes, i: int, end: int, pages: Bytes, entries: Ints) -> bool:
    """Whether the character at ``i`` is a letter, a digit or an apostrophe."""
    code, _ = decode(data, i, end)
    return code == 39 or lookup(code, pages, entries) >> CLASS_SHIFT & 7 >= LETTER


@inner
def _single(
    out: Bytes, first: int, before: int, i: int, end: int, pages: Bytes, entries: Ints
) -> int:
    """Bytes of the letter at ``i`` if it is a word of its own, else 0.

    What precedes it ends at ``before``: joining moves the text behind it to the front.
    """
    if (i > first and is_alnum(out[i - 1])) or (i + 1 < end and is_alnum(out[i + 1])):
        return 0  # which most are; a byte beyond ASCII is no alnum
    code, size = decode(out, i, end)
    if lookup(code, pages, entries) >> CLASS_SHIFT & 7 != LETTER:
        return 0
    if before > first and _in_word(out, char_before(out, first, before), end, pages, entries):
        return 0
    if i + size < end and _in_word(out, i + size, end, pages, entries):
        return 0
    return size


@inner
def _spelled(
    out: Bytes, first: int, before: int, i: int, end: int, pages: Bytes, entries: Ints
) -> int:
    """End of the spelled-out word that begins at ``i``, or ``i`` if none does; see ``_single``."""
    size = _single(out, first, before, i, end, pages, entries)
    j = i + size
    if size == 0 or j >= end:
        return i
    spacer, width = decode(out, j, end)
    if spacer < 128:
        if not among(spacer, _SPACERS):
            return i
    elif lookup(spacer, pages, entries) >> CLASS_SHIFT & 7 != OTHER:
        return i
    letters = 1
    spare = spacer == 32 or spacer == WIDE
    spare = spare and among(out[i], b"abciknoruy")
    while j + width < end and decode(out, j, end)[0] == spacer:
        at = j + width
        size = _single(out, first, at, at, end, pages, entries)
        if size == 0:
            break
        spare = spare and among(out[at], b"abciknoruy")
        letters += 1
        j = at + size
    return j if letters > 3 or (letters == 3 and not spare) else i


@inner
def _may_spell(out: Bytes, first: int, i: int, end: int) -> int:
    """Where from ``i`` on a spelled-out word may begin; ``end`` if nowhere.

    At three characters of words with one other between, as in a-b-c, and, for they have more
    bytes, at or just before what is beyond ASCII.
    """
    words = np.int64(i > first and _WORDLIKE[out[i - 1]] != 0)
    beyond = 0  # bits: whether the byte so many places before is of a word, is beyond ASCII
    for k in range(np.uint64(i), np.uint64(end)):  # see `normalise._plain`
        words = words << 1 | np.int64(_WORDLIKE[out[k]])
        beyond = beyond << 1 | out[k] >> 7
        if (words & 0b111111 == 0b010101) | (beyond & 0b11111 != 0):
            return max(i, np.int64(k) - 4)
    return end


@inner
def join(
    out: Bytes, first: int, end: int, pages: Bytes, entries: Ints, origin: Ints, trace: bool
) -> tuple[int, int]:
    """Join the spelled-out words of ``out[first:end]``; its new end, and how many."""
    i = k = _may_spell(out, first, first, end)
    joined = 0
    begin = i  # where a spelled-out word may begin
    high = first  # end of the spelled-out word in hand
    while i < end:
        if i >= high and i >= begin:
            high = _spelled(out, first, k, i, end, pages, entries)
            joined += high > i
            begin = _may_spell(out, first, max(high, i + 1), end)
        _, size = decode(out, i, end)
        for j in range(size):
            out[k + j] = out[i + j]
            if trace:
                origin[k + j] = origin[i + j]
        k += size
        i += size
        if i < high:
            i += decode(out, i, end)[1]  # the spacer
    if trace:
        origin[k] = origin[end]
    return k, joined
