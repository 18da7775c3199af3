"""Aho-Corasick over normalised bytes (Aho and Corasick, CACM 18(6), 1975), for any number of terms.

States are numbered breadth first, so the children of a state are consecutive, in the order of
their labels. The shallow states, which a scan spends nearly all its time in, have a full row of
transitions each; the deep ones search their few children and fall back along failure links.
"""

from __future__ import annotations

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
    is_alnum,
    lookup,
)

WORD: Final = 1
"""Flag of a term that matches only where words begin and end."""
ALLOW: Final = 2
"""Flag of a term that is no hit and hides the hits of its lexicon that lie inside it."""

_DENSE: Final = 1 << 19  # transitions kept as full rows: 2 MB

Int32s = npt.NDArray[np.int32]


class Automaton(NamedTuple):
    """The tables; S states, T terms, C byte classes. A tuple, for numba takes it whole."""

    classes: npt.NDArray[np.uint8]  # (256,) class of each byte; 0: in no term
    dense: Int32s  # (D * C,) next state, for the first D states
    width: int  # C
    first: Int32s  # (S + 1,) the first child of each state
    label: npt.NDArray[np.uint8]  # (S,) the byte that leads to each state
    fail: Int32s  # (S,) the state of its longest proper suffix
    depth: Int32s  # (S,) bytes read to reach it
    report: Int32s  # (S,) it, or its longest suffix, with a term that ends there; 0: none
    ends: Int32s  # (S + 1,) its first term, in state order
    owner: Int32s  # (T,) lexicon of each term
    flags: npt.NDArray[np.uint8]  # (T,) WORD, ALLOW


@njit(cache=True, nogil=True)
def _child(first: Int32s, label: Bytes, state: int, byte: int) -> int:
    """The child of ``state`` along ``byte``, or 0."""
    for child in range(first[state], first[state + 1]):
        if label[child] == byte:
            return child
    return 0


@njit(cache=True, nogil=True)
def _trie(data: Bytes, offsets: Ints) -> tuple[int, Int32s, Bytes, Int32s, Int32s, Int32s]:
    """States of the sorted, distinct words: number, first, label, parent, depth, word ended."""
    words = len(offsets) - 1
    room = offsets[words] + 2
    first = np.zeros(room, np.int32)
    label = np.zeros(room, np.uint8)
    parent = np.zeros(room, np.int32)
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
            label[states], parent[states], depth[states] = byte, state, level + 1
            low[states] = i
            while i < high[state] and data[offsets[i] + level] == byte:
                i += 1
            high[states] = i
            states += 1
        state += 1
    first[states] = states
    return states, first, label, parent, depth, word


@njit(cache=True, nogil=True)
def _link(
    states: int, first: Int32s, label: Bytes, parent: Int32s, word: Int32s
) -> tuple[Int32s, Int32s]:
    """Failure and report links, breadth first."""
    fail = np.zeros(states, np.int32)
    report = np.zeros(states, np.int32)
    for state in range(1, states):
        if parent[state] > 0:
            suffix = fail[parent[state]]
            target = _child(first, label, suffix, label[state])
            while target == 0 and suffix != 0:
                suffix = fail[suffix]
                target = _child(first, label, suffix, label[state])
            fail[state] = target
        report[state] = state if word[state] >= 0 else report[fail[state]]
    return fail, report


@njit(cache=True, nogil=True)
def _rows(
    rows: int, width: int, classes: Bytes, first: Int32s, label: Bytes, fail: Int32s
) -> Int32s:
    """Full transitions of the first ``rows`` states: those of their failure, then their own."""
    dense = np.zeros(rows * width, np.int32)
    for state in range(rows):
        if state:
            for k in range(width):
                dense[state * width + k] = dense[fail[state] * width + k]
        for child in range(first[state], first[state + 1]):
            dense[state * width + classes[label[child]]] = child
    return dense


def build(terms: Sequence[tuple[bytes, int, int]]) -> Automaton:
    """Compile (normalised bytes, lexicon, flags), in any order; empty terms are an error."""
    ordered = sorted(set(terms))
    words = sorted({word for word, _, _ in ordered})
    assert not words or words[0], "an empty term"
    offsets = np.zeros(len(words) + 1, np.int64)
    offsets[1:] = np.cumsum([len(word) for word in words])
    data = np.frombuffer(b"".join(words), np.uint8)

    states, first, label, parent, depth, word = _trie(data, offsets)
    fail, report = _link(states, first, label, parent, word)
    used = np.unique(label[1:states])
    classes = np.zeros(256, np.uint8)
    classes[used] = np.arange(1, len(used) + 1)
    width = len(used) + 1
    dense = _rows(min(states, _DENSE // width + 1), width, classes, first, label, fail)

    rank = {word: i for i, word in enumerate(words)}
    state_of = np.empty(len(words), np.int64)
    ending = np.flatnonzero(word[:states] >= 0)
    state_of[word[ending]] = ending
    at = np.array([state_of[rank[w]] for w, _, _ in ordered], np.int64)
    order = np.argsort(at, kind="stable")
    return Automaton(
        classes=classes,
        dense=dense,
        width=width,
        first=first[: states + 1].copy(),
        label=label[:states].copy(),
        fail=fail,
        depth=depth[:states].copy(),
        report=report,
        ends=np.searchsorted(at[order], np.arange(states + 1)).astype(np.int32),
        owner=np.array([ordered[i][1] for i in order], np.int32),
        flags=np.array([ordered[i][2] for i in order], np.uint8),
    )


@njit(cache=True, nogil=True)
def _joins(data: Bytes, i: int, end: int, pages: Bytes, entries: Ints) -> bool:
    """Whether the character at ``i`` is part of a word that its neighbours go on with."""
    if data[i] < 128:
        return is_alnum(data[i])
    code, _ = decode(data, i, end)
    entry = lookup(code, pages, entries)
    return entry >> CLASS_SHIFT & 7 >= LETTER and not entry & IS_UNSPACED


@njit(cache=True, nogil=True)
def _is_word(
    data: Bytes, start: int, low: int, high: int, end: int, pages: Bytes, entries: Ints
) -> bool:
    """Whether no word of ``data[start:end]`` goes on across ``low`` or across ``high``."""
    before = low > start and _joins(data, low, end, pages, entries)
    if before and _joins(data, char_before(data, start, low), end, pages, entries):
        return False
    after = high < end and _joins(data, high, end, pages, entries)
    return not (after and _joins(data, char_before(data, low, high), end, pages, entries))


@njit(cache=True, nogil=True)
def _matches(
    data: Bytes,
    start: int,
    end: int,
    automaton: Automaton,
    pages: Bytes,
    entries: Ints,
    found: Ints,
) -> tuple[Ints, int]:
    """All matches in order of their ends, the longer first: (start, end, lexicon, allow) rows.

    ``found`` is scratch, replaced by a larger one when it is full.
    """
    classes, dense, width = automaton.classes, automaton.dense, automaton.width
    rows = len(dense) // width
    state = count = 0
    for i in range(start, end):
        byte = data[i]
        while state >= rows:
            child = _child(automaton.first, automaton.label, state, byte)
            if child:
                state = child
                break
            state = automaton.fail[state]
        else:
            state = np.int64(dense[state * width + classes[byte]])
        at = automaton.report[state]
        while at:
            low = i + 1 - automaton.depth[at]
            for term in range(automaton.ends[at], automaton.ends[at + 1]):
                flags = automaton.flags[term]
                if not flags & WORD or _is_word(data, start, low, i + 1, end, pages, entries):
                    if count == len(found):
                        larger = np.empty((2 * count, 4), np.int64)
                        larger[:count] = found
                        found = larger
                    found[count, 0] = low
                    found[count, 1] = i + 1
                    found[count, 2] = automaton.owner[term]
                    found[count, 3] = flags & ALLOW
                    count += 1
            at = automaton.report[automaton.fail[at]]
    return found, count


@njit(cache=True, nogil=True)
def _settle(found: Ints, count: int, cover: Ints) -> None:
    """Mark the hits that count with -1 in column 3: those inside no other match of their lexicon.

    From the last end to the first, ``cover`` holds for each lexicon the least start of the
    matches that end here or later: a hit that starts no earlier lies inside one of them.
    """
    high = count
    while high > 0:
        low = high - 1
        while low > 0 and found[low - 1, 1] == found[high - 1, 1]:
            low -= 1
        for k in range(low, high):
            owner = found[k, 2]
            if found[k, 3] == ALLOW and found[k, 0] < cover[owner]:
                cover[owner] = found[k, 0]
        for k in range(low, high):
            owner = found[k, 2]
            if found[k, 3] == 0 and found[k, 0] < cover[owner]:
                cover[owner] = found[k, 0]
                found[k, 3] = -1
        high = low
    for k in range(count):
        cover[found[k, 2]] = np.iinfo(np.int64).max


@njit(cache=True, nogil=True)
def _count(
    data: Bytes, offsets: Ints, automaton: Automaton, pages: Bytes, entries: Ints, hits: Int32s
) -> None:
    found = np.empty((64, 4), np.int64)
    cover = np.full(hits.shape[1], np.iinfo(np.int64).max, np.int64)
    for row in range(len(offsets) - 1):
        found, count = _matches(
            data, offsets[row], offsets[row + 1], automaton, pages, entries, found
        )
        if count:
            _settle(found, count, cover)
            for k in range(count):
                hits[row, found[k, 2]] += found[k, 3] == -1


def count(data: Bytes, offsets: Ints, automaton: Automaton, lexicons: int) -> Int32s:
    """Hits of each lexicon in each normalised text, int32 (n, lexicons).

    A hit lies inside no allowed term, and inside no other hit, of the same lexicon.
    """
    hits = np.zeros((len(offsets) - 1, lexicons), np.int32)
    _count(_frozen(data), _frozen(offsets), automaton, PAGES, ENTRIES, hits)
    return hits


def find(data: Bytes, automaton: Automaton, lexicons: int) -> list[tuple[int, int, int]]:
    """The hits in one normalised text: lexicon, start and end in bytes, in order of the ends."""
    found = np.empty((64, 4), np.int64)
    cover = np.full(lexicons, np.iinfo(np.int64).max)
    found, total = _matches(_frozen(data), 0, len(data), automaton, PAGES, ENTRIES, found)
    _settle(found, total, cover)
    return [(owner, low, high) for low, high, owner, hit in found[:total].tolist() if hit == -1]


def _frozen(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """A read-only view: one signature, so one compilation, whoever owns the array."""
    view = array.view()
    view.flags.writeable = False
    return view
