"""The normal form: what a text says, whatever it is dressed up as.

The filter's weights and every lexicon are built on this form, so it does not change. It is
UTF-8, never longer in bytes than the original, and made of:

- characters: each code point becomes its lower-case base. That is NFKC and case folding, which
  settle full-width, mathematical and circled letters; then Latin letters lose their marks
  (é -> e, ø -> o, ß -> ss), digits of any script become ASCII, curly quotes and dashes become
  ' " -. Combining marks, variation selectors, zero-width and bidirectional characters and
  controls go, and so does any mark of another script that stands on an ASCII letter.
  Where a fold would need more bytes than its code point, the code point stays.
- entities left by scraping: &amp; &lt; &gt; &quot; &#39; &nbsp; &#x200b; (also &amp;lt; and so
  on) become what they stand for.
- homoglyphs: in a word (a run of letters and digits) whose every letter is Latin or resembles a
  Latin one, the latter become Latin (Cyrillic "а" -> a), provided that the word has a Latin
  letter or that most letters of the text are Latin. Other Russian or Greek stays as it is.
- leetspeak: ! @ $ between two letters are i a s, but for the @ of an e-mail address; $ before a
  lower-case letter and after a letter before another $ is s; @ss is ass. In words of at most 14
  bytes that begin with a letter, one or two of 0 1 3 4 5 7 between letters are o i e a s t, and
  then so is one more such digit at the end (h4t3 -> hate). Alone they stay: mp3, covid19, b2b,
  2nd, 10am, 5ft10in, and m4f with its single letters.
- stretching: a character that runs three or more times is written twice (soooo -> soo), or once
  where ``keep`` is 1. Digits are exempt.
- spelled-out words: three or more single letters with the same one of . - _ * / , | ~ + : ^ = ;
  or the same symbol outside ASCII or the same width of white space between are joined
  (h-a-t-e -> hate). Three with white space are not if all of them are letters that people write
  for words (u r a).
- links: LINK, the lower-case host without www., and those runs of letters and digits behind it
  that look like words: two or more letters, none of them a capital inside
  (\x01example.com some words). The rest is dropped.
- mentions: MENTION and then the name (\x02name).
- white space and controls: one space between, none at the ends.

Digits are kept, since a lexicon may hold 1488. A reader that wants numbers to generalise folds
the bytes 48 to 57 itself. The bytes 1 and 2 come from nowhere else; no other byte is below 32.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from numba import njit, types

from edgemod.kernels.spelled import WIDE, join
from edgemod.kernels.tables import (
    CLASS_SHIFT,
    DIGIT,
    DROP,
    ENTRIES,
    FORM,
    IS_LATIN,
    IS_LETTER,
    IS_SIGN,
    IS_SPECIAL,
    LETTER,
    OTHER,
    PAGES,
    RESEMBLES_SHIFT,
    SIZE_SHIFT,
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
    is_alnum,
    is_digit,
    is_letter,
    link_end,
    link_host,
    lookup,
    starts,
)

COLUMNS: Final = ("mentions", "homoglyphs", "leet", "spelled_out", "stretched")
"""What ``normalise`` counts on its way, in order."""

LINK: Final = 1
MENTION: Final = 2
"""The marker bytes before a link's host and before a name."""

_LONGEST_LEET: Final = 14
_RESEMBLES: Final = 127 << RESEMBLES_SHIFT
_HAS_DIGIT: Final = DIGIT << CLASS_SHIFT  # a bit that LETTER has not
_DROP_ENTRY: Final = DROP << CLASS_SHIFT
_MENTION_ENTRY: Final = MENTION | 1 << SIZE_SHIFT | OTHER << CLASS_SHIFT


# What is asked of a byte; 0 for one that `_plain` must not copy.
_ONE: Final = np.uint64(1)
_SOLID: Final = np.uint8(1)  # a letter, a digit, or punctuation without a second meaning
_BLANK: Final = np.uint8(2)  # white space
_IN_WORD: Final = np.uint8(4)
_IS_DIGIT: Final = np.uint8(8)
_LINK_FIRST: Final = np.uint8(32)  # http, hxxp, ftp and www begin so ...
_LINK_SECOND: Final = np.uint8(64)  # ... and go on so


def _plain_bytes() -> npt.NDArray[np.uint8]:
    table = np.zeros(256, np.uint8)
    for byte in range(128):
        kind = ENTRIES[byte] >> CLASS_SHIFT & 7
        if kind == SPACE:
            table[byte] = _BLANK
        elif kind >= LETTER:
            table[byte] = _SOLID | _IN_WORD | (_IS_DIGIT if kind == DIGIT else 0)
        elif kind == OTHER and not ENTRIES[byte] & IS_SPECIAL:
            table[byte] = _SOLID
    table[list(b"fFhHwW")] |= _LINK_FIRST
    table[list(b"tTxXwW")] |= _LINK_SECOND
    return table


_PLAIN: Final = _plain_bytes()
_FORMS: Final = (ENTRIES[:256] & 255).astype(np.uint8)


@inner
def _entity(data: Bytes, i: int, end: int, entries: Ints) -> tuple[int, int]:
    """Entry and length of the HTML entity at ``i``, which may be an ampersand alone."""
    j = i + 1
    if starts(data, j, end, b"amp;"):
        j += 4
    if starts(data, j, end, b"lt;"):
        return entries[60], j + 3 - i
    if starts(data, j, end, b"gt;"):
        return entries[62], j + 3 - i
    if starts(data, j, end, b"quot;"):
        return entries[34], j + 5 - i
    if starts(data, j, end, b"#39;"):
        return entries[39], j + 4 - i
    if starts(data, j, end, b"nbsp;"):
        return entries[32], j + 5 - i
    if starts(data, j, end, b"#x200b;"):
        return _DROP_ENTRY, j + 7 - i
    return entries[38], j - i


@inner
def _is_email(data: Bytes, i: int, end: int) -> bool:
    """Whether a dotted host name begins at ``i``."""
    j = i
    while j < end and (is_alnum(data[j]) or data[j] == 45):
        j += 1
    return j + 1 < end and data[j] == 46 and is_alnum(data[j + 1])


@inner
def _symbol(data: Bytes, i: int, end: int, after_letter: bool, in_word: bool, entries: Ints) -> int:
    """Entry of what ! @ or $ at ``i`` stands for: a lower-case letter, MENTION, or itself."""
    byte = np.int64(data[i])
    follower = np.int64(data[i + 1]) if i + 1 < end else np.int64(0)
    letter = is_letter(follower)
    if byte == 33 and after_letter and letter:
        return entries[105]
    if byte == 36 and after_letter and (letter or follower == 36 or data[i - 1] == 36):
        return entries[115]
    if byte == 36 and not in_word and 97 <= follower <= 122:
        return entries[115]
    if byte == 64 and after_letter and letter and not _is_email(data, i + 1, end):
        return entries[97]
    if byte == 64 and not in_word and (is_alnum(follower) or follower == 95):
        return entries[97] if starts(data, i + 1, end, b"ss") else _MENTION_ENTRY
    return entries[byte]


@inner
def _mostly_latin(data: Bytes, start: int, end: int, pages: Bytes, entries: Ints) -> bool:
    """Whether more than half of the letters are Latin."""
    balance = 0
    i = start
    while i < end:
        code, size = decode(data, i, end)
        entry = lookup(code, pages, entries)
        if entry & IS_LETTER:
            balance += 1 if entry & IS_LATIN else -1
        i += size
    return balance > 0


@inner
def _disguise(out: Bytes, word: int, pos: int, pages: Bytes, entries: Ints) -> int:
    """Whether the word is Latin with look-alikes (2), look-alikes alone (1), or neither (0)."""
    disguise = 1
    i = word
    while i < pos:
        code, size = decode(out, i, pos)
        if size > 1 and not lookup(code, pages, entries) & _RESEMBLES:
            return 0
        if size == 1 and is_letter(code):
            disguise = 2
        i += size
    return disguise


@inner
def _unmask(
    out: Bytes, origin: Ints, trace: bool, word: int, pos: int, pages: Bytes, entries: Ints
) -> tuple[int, int]:
    """Write Latin letters for the look-alikes in ``out[word:pos]``; its new end, how many."""
    i = k = word
    unmasked = 0
    while i < pos:
        code, size = decode(out, i, pos)
        letter = lookup(code, pages, entries) >> RESEMBLES_SHIFT & 127
        out[k] = letter if letter else out[i]  # else it is ASCII
        if trace:
            origin[k] = origin[i]
        unmasked += letter != 0
        k += 1
        i += size
    return k, unmasked


@inner
def _leet_digit(byte: int) -> int:
    """The letter that a digit may stand for, or 0."""
    return np.int64(b"oi\0eas\0t\0\0"[byte - 48])


@inner
def _undo_leet(out: Bytes, word: int, pos: int) -> int:
    """Undo the leet digits of the word ``out[word:pos]`` in place; how many."""
    if pos - word > _LONGEST_LEET or is_digit(out[word]):
        return 0
    if pos - word == 3 and out[word + 1] == 52:
        return 0
    undone = 0
    i = word
    while i < pos:
        j = i
        while j < pos and is_digit(out[j]):
            j += 1
        run = j - i
        if 1 <= run <= 2 and is_letter(out[i - 1]):
            inside = j < pos and is_letter(out[j])
            last = j == pos and run == 1 and undone > 0
            if (inside or last) and _leet_digit(out[i]) and _leet_digit(out[j - 1]):
                for k in range(i, j):
                    out[k] = _leet_digit(out[k])
                undone += run
        i = j + 1
    return undone


@inner
def _is_path_word(data: Bytes, low: int, high: int) -> bool:
    """Whether the run of letters and digits ``data[low:high]`` is written as a word is."""
    if high - low < 2:
        return False
    for k in range(low, high):
        if is_digit(data[k]):
            return False
        # word, Word and WORD, but not woRd: identifiers mix the cases.
        if k > low + 1 and (data[k] ^ data[low + 1]) & 32:
            return False
    return data[low] <= 90 or data[low + 1] > 90  # not wORD


@inner
def _write_lower(
    data: Bytes, low: int, high: int, out: Bytes, pos: int, origin: Ints, trace: bool
) -> int:
    """Write the ASCII ``data[low:high]`` in lower case; where that ends."""
    for k in range(low, high):
        byte = data[k]
        out[pos] = byte | 32 if 65 <= byte <= 90 else byte
        if trace:
            origin[pos] = k
        pos += 1
    return pos


@inner
def _write_link(
    data: Bytes, i: int, end: int, out: Bytes, pos: int, origin: Ints, trace: bool
) -> int:
    """Write LINK, the host of the link ``data[i:end]`` and the words behind it; where that ends."""
    low, high = link_host(data, i, end)
    out[pos] = LINK
    if trace:
        origin[pos] = i
    pos = _write_lower(data, low, high, out, pos + 1, origin, trace)
    while high < end:
        low = high
        while high < end and is_alnum(data[high]):
            high += 1
        if _is_path_word(data, low, high):
            out[pos] = 32
            if trace:
                origin[pos] = low - 1  # what separates it from the host
            pos = _write_lower(data, low, high, out, pos + 1, origin, trace)
        high += 1
    return pos


@inner
def _plain(
    data: Bytes,
    i: int,
    end: int,
    out: Bytes,
    pos: int,
    origin: Ints,
    trace: bool,
    last: int,
    doubled: bool,
    touched: bool,
) -> tuple[int, int, bool, bool]:
    """Copy ASCII words, and what is ordinary between them, from ``data[i]`` on: most of any text.

    It ends before whatever needs a second look: a third equal character, more than one white space,
    what may be a link, an entity or leet, and the end of a word that has digits. ``last`` is the
    form before and ``doubled`` whether the one before that was the same; ``touched`` is whether
    the word in hand has a digit or a look-alike. Returns where it ended, in both, and these two.
    """
    before = last & 255 if last >> SIZE_SHIFT == 1 else np.int64(-1)
    was_in_word = _PLAIN[data[i - 1]] & _IN_WORD != 0
    follower = _PLAIN[data[i]] if i < end else np.uint8(0)
    # Unsigned, for numba asks each signed index whether it is negative: a quarter of this loop.
    k, stop, at = np.uint64(i), np.uint64(end), np.uint64(pos)
    while k < stop:
        flags = follower
        follower = _PLAIN[data[k + _ONE]] if k + _ONE < stop else np.uint8(0)
        form = np.int64(_FORMS[data[k]])
        same = (form == before) & (flags & _IS_DIGIT == 0)
        in_word = flags & _IN_WORD != 0
        # One branch, for `and` and `or` would be several, and words are not predictable.
        if (
            (flags & (_SOLID | _BLANK) == 0)
            | ((flags & _BLANK != 0) & (follower & _SOLID == 0))
            | (same & doubled)
            | (touched & (not in_word))
            | ((flags & _LINK_FIRST != 0) & (follower & _LINK_SECOND != 0) & (not was_in_word))
        ):
            break
        touched |= flags & _IS_DIGIT != 0
        out[at] = form
        if trace:
            origin[at] = k
        before, doubled, was_in_word = form, same, in_word
        at += _ONE
        k += _ONE
    low, high = np.int64(k), np.int64(at)
    if low > i and _PLAIN[data[low - 1]] & _BLANK:  # what follows writes its own
        return low - 1, high - 1, doubled, touched
    return low, high, doubled, touched


@inner
def _one(
    data: Bytes,
    start: int,
    end: int,
    pages: Bytes,
    entries: Ints,
    keep: int,
    out: Bytes,
    first: int,
    origin: Ints,
    counts: Floats,
) -> int:
    """Write the normal form of ``data[start:end]`` from ``out[first]`` on; where it ends."""
    trace = len(origin) > 0
    pos = first
    word = -1  # where in `out` the word in hand began; -1 between words
    seen = np.int64(0)  # the entries of the word in hand, ORed
    last, run = np.int64(0), 0  # the form written last, and how many times running
    last_kind = SPACE
    gap = gap_at = 0  # characters of white space not yet written, and where they began
    wide = False
    stretched = -1  # the last word counted as stretched
    latin = -1  # whether the text is mostly Latin; -1 until asked

    i = start
    while i <= end:
        size = 1
        entry = np.int64(SPACE << CLASS_SHIFT)  # past the end: closes the last word
        stop = i
        if i < end:
            byte = np.int64(data[i])
            entry = entries[byte]
            if byte >= 128:
                code, size = decode(data, i, end)
                entry = lookup(code, pages, entries) if size > 1 else entries[63]
            elif entry & IS_SPECIAL:
                if byte > 64:
                    stop = link_end(data, start, i, end)
                elif byte == 38:
                    entry, size = _entity(data, i, end, entries)
                else:
                    after_letter = last_kind == LETTER
                    entry = _symbol(data, i, end, after_letter, word >= 0, entries)
                    counts[0] += entry == _MENTION_ENTRY
                    counts[2] += entry >> CLASS_SHIFT & 7 == LETTER

        kind = entry >> CLASS_SHIFT & 7
        if kind == DROP or (entry & IS_SIGN and last_kind == LETTER and last >> SIZE_SHIFT == 1):
            i += size
            continue
        if word >= 0 and (kind < LETTER or stop > i):
            if seen & _RESEMBLES:
                disguise = _disguise(out, word, pos, pages, entries)
                if disguise == 1 and latin < 0:
                    latin = 1 if _mostly_latin(data, start, end, pages, entries) else 0
                if disguise == 2 or (disguise == 1 and latin == 1):
                    pos, unmasked = _unmask(out, origin, trace, word, pos, pages, entries)
                    counts[1] += unmasked
            if seen & _HAS_DIGIT:
                counts[2] += _undo_leet(out, word, pos)
            word = -1
        if kind == SPACE:
            if gap == 0:
                gap_at = i
            gap += 1
            last, last_kind = np.int64(0), SPACE
            i += size
            continue

        form = entry & FORM
        if form == 0:  # it folds to itself
            form = np.int64(size) << SIZE_SHIFT
            for j in range(size):
                form |= np.int64(data[i + j]) << 8 * j
        run = run + 1 if form == last and kind != DIGIT else 1
        last, last_kind = form, kind
        if run < 3 or stop > i:
            if gap:
                if pos > first:
                    out[pos] = 32 if gap == 1 else WIDE
                    wide |= gap > 1
                    if trace:
                        origin[pos] = gap_at
                    pos += 1
                gap = 0
            if stop > i:
                pos = _write_link(data, i, stop, out, pos, origin, trace)
                last, last_kind = np.int64(0), OTHER
                i = stop
                continue
            if kind >= LETTER and word < 0:
                word, seen = pos, np.int64(0)
            for j in range(form >> SIZE_SHIFT):
                out[pos] = form >> 8 * j & 255
                if trace:
                    origin[pos] = i
                pos += 1
        elif run == 3:
            if keep == 1:
                pos -= form >> SIZE_SHIFT
            if kind == LETTER and stretched != word:
                counts[4] += 1
                stretched = word
        seen |= entry
        i += size

        if word < 0 or is_alnum(data[i - 1]):
            begun = pos
            touched = word >= 0 and seen & (_RESEMBLES | _HAS_DIGIT) != 0
            doubled = run > 1
            i, pos, doubled, touched = _plain(
                data, i, end, out, pos, origin, trace, last, doubled, touched
            )
            if pos > begun:
                low = pos
                while low > begun and is_alnum(out[low - 1]):
                    low -= 1
                if low > begun or word < 0:
                    word, seen = low if low < pos else -1, np.int64(0)
                seen |= _HAS_DIGIT if touched else 0
                entry = entries[out[pos - 1]]
                last, last_kind, run = entry & FORM, entry >> CLASS_SHIFT & 7, 1 + doubled

    if trace:
        origin[pos] = gap_at
    pos, joined = join(out, first, pos, pages, entries, origin, trace)
    counts[3] += joined
    if wide:
        for k in range(first, pos):
            if out[k] == WIDE:
                out[k] = 32
    return pos


@njit(
    types.void(
        *(DATA, OFFSETS, PAGE_TABLE, OFFSETS, types.int64),
        *(types.uint8[::1], types.int64[::1], types.int64[::1], types.float32[:, ::1]),
    ),
    **UNCOUNTED,
)
def _normalise(
    data: Bytes,
    offsets: Ints,
    pages: Bytes,
    entries: Ints,
    keep: int,
    out: Bytes,
    out_offsets: Ints,
    origin: Ints,
    counts: Floats,
) -> None:
    pos = 0
    out_offsets[0] = 0
    for row in range(len(offsets) - 1):
        start, end = offsets[row], offsets[row + 1]
        pos = _one(data, start, end, pages, entries, keep, out, pos, origin, counts[row])
        out_offsets[row + 1] = pos


def normalise(data: Bytes, offsets: Ints, *, keep: int = 2) -> tuple[tuple[Bytes, Ints], Floats]:
    """The normal forms of all texts, and the disguises seen.

    ``data`` uint8, ``offsets`` int64 (n + 1,). ``keep``: what remains of a character that runs
    three or more times, 2 (the normal form) or 1 (for a second look at stretched words).
    Returns buffers of the same kind, and float32 (n, len(COLUMNS)).
    """
    texts = len(offsets) - 1
    out = np.empty(offsets[-1] - offsets[0], np.uint8)
    out_offsets = np.empty(texts + 1, np.int64)
    counts = np.zeros((texts, len(COLUMNS)), np.float32)
    origin = np.empty(0, np.int64)
    _normalise(data, offsets, PAGES, ENTRIES, keep, out, out_offsets, origin, counts)
    return (out[: out_offsets[-1]], out_offsets), counts


def trace(data: Bytes, *, keep: int = 2) -> tuple[Bytes, Ints]:
    """The normal form of one text, and where each of its bytes comes from.

    ``origin``, int64 (m + 1,), holds for each of the m bytes the offset in ``data`` of the
    character it was made of, and then where the last one's ends: what stands at ``out[a:b]`` in
    the normal form stands at ``data[origin[a]:origin[b]]``.
    """
    out = np.empty(len(data), np.uint8)
    offsets = np.array([0, len(data)])
    out_offsets = np.empty(2, np.int64)
    origin = np.empty(len(data) + 1, np.int64)
    counts = np.zeros((1, len(COLUMNS)), np.float32)
    _normalise(data, offsets, PAGES, ENTRIES, keep, out, out_offsets, origin, counts)
    return out[: out_offsets[1]], origin[: out_offsets[1] + 1]
