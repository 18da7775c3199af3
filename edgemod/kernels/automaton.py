"""Lexicon terms in normalised bytes: a trie, walked from wherever a term may begin.

Most terms are words, which begin where words begin, and most words are given up after two or
three bytes. An Aho-Corasick automaton, which reads every byte once whatever the terms, took
three times as long: each state hangs on the one before, and the ends of short terms ("i", "us")
inside longer words cannot be predicted. A walk is at most as long as the longest term.

States are numbered breadth first, so the children of a state are consecutive, in the order of
their labels. The shallow states have a full row of transitions each; the deep ones search
their few children.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from edgemod.kernels.tables import CLASS_SHIFT, ENTRIES, IS_UNSPACED, LETTER, PAGES
from edgemod.kernels.text import (
    Bytes,
    Ints,
    char_before,
    decode,
    inner,
    is_alnum,
    longest,
    lookup,
)

WORD: Final = 1
"""Flag of a term that matches only where words begin and end."""
ALLOW: Final = 2
"""Flag of a term that is no hit and hides the hits of its lexicon that lie inside it."""

_DENSE: Final = 1 << 19  # transitions kept as full rows: 2 MB
_IS_RUN: Final = np.uint8(1)
_IS_LONG: Final = np.uint8(2)
_IS_ANYWHERE: Final = np.uint8(4)
_LONG: Final = 6
_ANYWHERE: Final = 3
_LONG_MASK: Final = np.uint64((1 << 8 * _LONG) - 1)
_ANYWHERE_MASK: Final = np.uint64((1 << 8 * _ANYWHERE) - 1)
_RUN: Final = re.compile(rb"[A-Za-z0-9]+")
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio, made odd
_ONE: Final = np.uint64(1)
_ALNUM: Final = np.array([chr(b).isalnum() and b < 128 for b in range(256)], np.uint8)

Int32s = npt.NDArray[np.int32]


class Automaton(NamedTuple):
    """The tables; S states, T terms, C byte classes. A tuple, for numba takes it whole."""

    classes: npt.NDArray[np.uint8]  # (256,) class of each byte; 0: in no term
    heads: npt.NDArray[np.uint8]  # (H,) by ``_slot``: whether a term may begin so; see ``_begin``
    dense: Int32s  # (D * C,) next state, for the first D states; 0: no term goes on so
    width: int  # C
    first: Int32s  # (S + 1,) the first child of each state
    label: npt.NDArray[np.uint8]  # (S,) the byte that leads to each state
    ends: Int32s  # (S + 1,) its first term, in state order
    owner: Int32s  # (T,) lexicon of each term
    flags: npt.NDArray[np.uint8]  # (T,) WORD, ALLOW


@inner
def _child(first: Int32s, label: Bytes, state: int, byte: int) -> int:
    """The child of ``state`` along ``byte``, or 0."""
    for child in range(first[state], first[state + 1]):
        if label[child] == byte:
            return child
    return 0


@njit(cache=True, nogil=True)
def _trie(data: Bytes, offsets: Ints) -> tuple[int, Int32s, Bytes, Int32s]:
    """States of the sorted, distinct words: number, first, label, and the word ended or -1."""
    words = len(offsets) - 1
    room = offsets[words] + 2
    first = np.zeros(room, np.int32)
    label = np.zeros(room, np.uint8)
    depth = np.zeros(room, np.int32)
    word = np.full(room, -1, np.int32)
    low = np.zeros(room, np.int32)  # the words that pass through a state: low to high
    high = np.zeros(room, np.int32)
    high[0] = words
    states = 1
    state = 0
    while state < states:
        first[state] = states
        level = depth[state]
        i = low[state]
        if i < high[state] and offsets[i + 1] - offsets[i] == level:
            word[state] = i  # the shortest sorts first
            i += 1
        while i < high[state]:
            byte = data[offsets[i] + level]
            label[states], depth[states] = byte, level + 1
            low[states] = i
            while i < high[state] and data[offsets[i] + level] == byte:
                i += 1
            high[states] = i
            states += 1
        state += 1
    first[states] = states
    return states, first, label, word


@inner
def _slot(head: int, heads: Bytes) -> int:
    """Where ``heads`` says what it knows of terms with these first bytes, the first one lowest."""
    return (head * _ODD >> np.uint64(40)) & np.uint64(len(heads) - 1)


def _heads(terms: Sequence[tuple[bytes, int, int]]) -> Bytes:
    """``Automaton.heads`` of the terms."""
    keys: set[tuple[np.uint8, bytes]] = set()
    everywhere = False
    for word, _, flags in terms:
        if not (flags & WORD and _ALNUM[word[0]]):
            everywhere |= len(word) < _ANYWHERE - 1  # too many heads: begin at every byte
            rest = (bytes([k]) for k in range(256)) if len(word) == _ANYWHERE - 1 else (b"",)
            keys |= {(_IS_ANYWHERE, word[:_ANYWHERE] + more) for more in rest}
        elif len(word) >= _LONG:
            keys.add((_IS_LONG, word[:_LONG]))
        else:
            keys.add((_IS_RUN, _RUN.match(word)[0]))  # type: ignore[index]
    # At most one place in 16 passes by chance.
    heads = np.zeros(1 << max(14, (16 * len(keys)).bit_length()), np.uint8)
    for kind, head in keys:
        heads[_slot(np.uint64(int.from_bytes(head, "little")), heads)] |= kind
    return heads | _IS_ANYWHERE if everywhere else heads


def build(terms: Sequence[tuple[bytes, int, int]]) -> Automaton:
    """Compile (normalised bytes, lexicon, flags), in any order; empty terms are an error."""
    ordered = sorted(set(terms))
    words = sorted({word for word, _, _ in ordered})
    assert not words or words[0], "an empty term"
    offsets = np.zeros(len(words) + 1, np.int64)
    offsets[1:] = np.cumsum([len(word) for word in words])
    data = np.frombuffer(b"".join(words), np.uint8)

    states, first, label, word = _trie(data, offsets)
    used = np.unique(label[1:states])
    classes = np.zeros(256, np.uint8)
    classes[used] = np.arange(1, len(used) + 1)
    width = len(used) + 1
    rows = min(states, _DENSE // width + 1)
    dense = np.zeros((rows, width), np.int32)
    children = np.arange(1, first[rows])
    parents = np.repeat(np.arange(rows), np.diff(first[: rows + 1]))
    dense[parents, classes[label[children]]] = children

    rank = {word: i for i, word in enumerate(words)}
    state_of = np.empty(len(words), np.int64)
    ending = np.flatnonzero(word[:states] >= 0)
    state_of[word[ending]] = ending
    at = np.array([state_of[rank[w]] for w, _, _ in ordered], np.int64)
    order = np.argsort(at, kind="stable")
    return Automaton(
        classes=classes,
        heads=_heads(ordered),
        dense=dense.ravel(),
        width=width,
        first=first[: states + 1].copy(),
        label=label[:states].copy(),
        ends=np.searchsorted(at[order], np.arange(states + 1)).astype(np.int32),
        owner=np.array([ordered[i][1] for i in order], np.int32),
        flags=np.array([ordered[i][2] for i in order], np.uint8),
    )


@inner
def _joins(data: Bytes, i: int, end: int, pages: Bytes, entries: Ints) -> bool:
    """Whether the character at ``i`` is part of a word that its neighbours go on with."""
    if data[i] < 128:
        return is_alnum(data[i])
    code, _ = decode(data, i, end)
    entry = lookup(code, pages, entries)
    return entry >> CLASS_SHIFT & 7 >= LETTER and not entry & IS_UNSPACED


@inner
def _is_word(
    data: Bytes, start: int, low: int, high: int, end: int, pages: Bytes, entries: Ints
) -> bool:
    """Whether no word of ``data[start:end]`` goes on across ``low`` or across ``high``."""
    before = low > start and _joins(data, low, end, pages, entries)
    if before and _joins(data, char_before(data, start, low), end, pages, entries):
        return False
    after = high < end and _joins(data, high, end, pages, entries)
    return not (after and _joins(data, char_before(data, low, high), end, pages, entries))


@inner
def _begin(data: Bytes, start: int, end: int, heads: Bytes, at: Ints) -> int:
    """Write where in ``data[start:end]`` a term may begin to ``at``, the last first; how many.

    A term that begins with an ASCII letter or digit and matches whole words begins where a run of
    these does. Its first six bytes are looked up, or, if it is shorter, the run; of any other term
    the first three bytes are. There is no branch on that: where terms begin cannot be predicted,
    and each wrong guess costs as much as five bytes.
    """
    # Unsigned, for numba asks each signed index whether it is negative.
    count = np.uint64(0)
    run = np.uint64(0)  # the run of ASCII letters and digits that begins at `after`, or its first 8
    head = np.uint64(0)  # the bytes from `after` on
    first, after = np.uint64(start), np.uint64(end)
    while True:
        byte = data[after - _ONE] if after > first else np.uint8(32)
        known = heads[_slot(run, heads)] & _IS_RUN
        known |= heads[_slot(head & _LONG_MASK, heads)] & _IS_LONG
        known &= np.uint8(0) - np.uint8(1 - _ALNUM[byte])
        known |= heads[_slot(head & _ANYWHERE_MASK, heads)] & _IS_ANYWHERE
        at[count] = after
        count += np.uint64(known != 0)
        if after == first:
            return np.int64(count)
        run = ((run << np.uint64(8)) | np.uint64(byte)) * np.uint64(_ALNUM[byte])
        head = (head << np.uint64(8)) | np.uint64(byte)
        after -= _ONE


@inner
def _matches(
    data: Bytes,
    start: int,
    end: int,
    automaton: Automaton,
    pages: Bytes,
    entries: Ints,
    at: Ints,
    found: Ints,
) -> int:
    """All matches in order of their starts, the shorter first: (start, end, lexicon, allow) rows.

    How many there are; ``found`` holds those it has room for. ``at`` is scratch, longer than
    the text.
    """
    classes, heads, dense, width, first, label, ends, owner, flags = automaton
    rows = len(dense) // width
    count = 0
    for k in range(_begin(data, start, end, heads, at) - 1, -1, -1):
        state = 0
        for i in range(at[k], end):
            if state < rows:
                state = np.int64(dense[state * width + classes[data[i]]])
            else:
                state = _child(first, label, state, data[i])
            if state == 0:
                break
            for term in range(ends[state], ends[state + 1]):
                kind = flags[term]
                if not kind & WORD or _is_word(data, start, at[k], i + 1, end, pages, entries):
                    if count < len(found):
                        found[count, 0] = at[k]
                        found[count, 1] = i + 1
                        found[count, 2] = owner[term]
                        found[count, 3] = kind & ALLOW
                    count += 1
    return count


@inner
def _settle(found: Ints, count: int, cover: Ints) -> None:
    """Mark the hits that count with -1 in column 3: those inside no other match of their lexicon.

    From the first start to the last, ``cover`` holds for each lexicon the greatest end of the
    matches that start here or earlier: a hit that ends no later lies inside one of them.
    """
    low = 0
    while low < count:
        high = low + 1
        while high < count and found[high, 0] == found[low, 0]:
            high += 1
        for k in range(high - 1, low - 1, -1):
            owner = found[k, 2]
            if found[k, 3] == ALLOW and found[k, 1] > cover[owner]:
                cover[owner] = found[k, 1]
        for k in range(high - 1, low - 1, -1):
            owner = found[k, 2]
            if found[k, 3] == 0 and found[k, 1] > cover[owner]:
                cover[owner] = found[k, 1]
                found[k, 3] = -1
        low = high
    for k in range(count):
        cover[found[k, 2]] = 0


@inner
def _count(
    data: Bytes,
    offsets: Ints,
    automaton: Automaton,
    pages: Bytes,
    entries: Ints,
    row: int,
    found: Ints,
    cover: Ints,
    at: Ints,
    hits: Int32s,
) -> int:
    """Count the hits of the texts from ``row`` on; the first that ``found`` has no room for."""
    for text in range(row, len(offsets) - 1):
        start, end = offsets[text], offsets[text + 1]
        count = _matches(data, start, end, automaton, pages, entries, at, found)
        if count > len(found):
            return text
        if count:
            _settle(found, count, cover)
            for k in range(count):
                hits[text, found[k, 2]] += found[k, 3] == -1
    return len(offsets) - 1


def count(data: Bytes, offsets: Ints, automaton: Automaton, lexicons: int) -> Int32s:
    """Hits of each lexicon in each normalised text, int32 (n, lexicons).

    A hit lies inside no allowed term, and inside no other hit, of the same lexicon.
    """
    hits = np.zeros((len(offsets) - 1, lexicons), np.int32)
    cover = np.zeros(lexicons, np.int64)
    at = np.empty(longest(offsets) + 2, np.int64)
    tables = (_frozen(data), _frozen(offsets), automaton, PAGES, ENTRIES)
    row, room = 0, 64
    while row < len(hits):
        row = _count(*tables, row, np.empty((room, 4), np.int64), cover, at, hits)
        room *= 4
    return hits


def find(data: Bytes, automaton: Automaton, lexicons: int) -> list[tuple[int, int, int]]:
    """The hits in one normalised text: lexicon, start and end in bytes, in order of the starts."""
    view, at = _frozen(data), np.empty(len(data) + 2, np.int64)
    found = np.empty((64, 4), np.int64)
    total = _matches(view, 0, len(data), automaton, PAGES, ENTRIES, at, found)
    if total > len(found):
        found = np.empty((total, 4), np.int64)
        _matches(view, 0, len(data), automaton, PAGES, ENTRIES, at, found)
    cover = np.zeros(lexicons, np.int64)
    _settle(found, total, cover)
    return [(owner, low, high) for low, high, owner, hit in found[:total].tolist() if hit == -1]


def _frozen(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """A read-only view: one signature, so one compilation, whoever owns the array."""
    view = array.view()
    view.flags.writeable = False
    return view
