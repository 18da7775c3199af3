"""Which terms are in how many records: words, and pairs of neighbouring words, in a fixed memory.

A word is a run of letters, digits and apostrophes of the normal form, and of bytes outside ASCII;
a pair is two words with one space between. A term counts once a record, whatever a record repeats.

The table has a fixed number of places (open addressing). When three quarters are taken, the terms
in fewest records go until half are free, so any count may be short by as many records as the
dropped terms had (``Table.short``; lossy counting, Manku and Motwani 2002, "Approximate frequency
counts over data streams").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from numba import njit

from edgemod.kernels.text import Bytes, Ints, is_alnum

LONGEST: Final = 32
"""Bytes of a term at most; longer ones are not counted."""
RECENT: Final = 8
"""Records remembered of each term, the last ones read."""

_START: Final = np.uint64(0xCBF29CE484222325)  # FNV-1a, 64 bits
_PRIME: Final = np.uint64(0x100000001B3)

Int32s = npt.NDArray[np.int32]


@dataclass
class Table:
    """Counts of terms; S places. Rows whose ``size`` is 0 are free."""

    spelling: npt.NDArray[np.uint8]
    """(S, LONGEST)"""
    size: npt.NDArray[np.uint8]
    """(S,) bytes of the term"""
    counts: Int32s
    """(S, cells) records that have the term, by cell"""
    first: Int32s
    """(S,) the record of least moment that has it"""
    recent: Int32s
    """(S, RECENT) records that have it, -1 where there are none; the last read is at
    ``(seen - 1) % RECENT``"""
    seen: Int32s
    """(S,) records that have it"""
    short: int = 0
    """Records that any count may lack."""

    @classmethod
    def empty(cls, cells: int, places: int = 1 << 19) -> Table:
        """Without terms; ``places`` is a power of two. At 16 cells, 145 bytes a place."""
        return cls(
            np.zeros((places, LONGEST), np.uint8),
            np.zeros(places, np.uint8),
            np.zeros((places, cells), np.int32),
            np.zeros(places, np.int32),
            np.full((places, RECENT), -1, np.int32),
            np.zeros(places, np.int32),
        )

    def add(
        self,
        data: Bytes,
        offsets: Ints,
        record: Ints,
        cells: npt.NDArray[np.int16],
        moments: npt.NDArray[np.float64],
        *,
        pairs: bool = True,
    ) -> None:
        """Count the terms of n normalised texts.

        ``record`` (n,): whose text each is, those of one record neighbours in one call. ``cells``
        (records, c): the cells that each record counts in; -1 for none. ``moments`` (records,).
        """
        row, room = 0, len(self.size) * 3 // 4
        taken = int((self.size > 0).sum())
        while row < len(offsets) - 1:
            state = (self.spelling, self.size, self.counts, self.first, self.recent, self.seen)
            row, taken = _add(
                data, offsets, record, cells, moments, pairs, row, taken, room, *state
            )
            if taken >= room:
                taken = self._drop()

    def _drop(self) -> int:
        """Free half of the places, those of the rarest terms; how many stay taken."""
        taken = np.flatnonzero(self.size)
        sorted_seen = np.sort(self.seen[taken])
        floor = int(sorted_seen[len(taken) - len(self.size) // 2])
        kept = taken[self.seen[taken] > floor]
        self.short += floor
        parts = ("spelling", "size", "counts", "first", "recent", "seen")
        held = [getattr(self, name)[kept] for name in parts]
        for name in parts:
            getattr(self, name)[:] = -1 if name == "recent" else 0
        places = _places(held[0], held[1], self.size)
        for name, values in zip(parts, held, strict=True):
            getattr(self, name)[places] = values
        return len(kept)

    def found(self, least: int) -> tuple[list[bytes], npt.NDArray[np.int64]]:
        """The terms in at least ``least`` records, ascending, and where each is in the table."""
        at = np.flatnonzero(self.seen >= max(least, 1))
        names = [self.spelling[i, : self.size[i]].tobytes() for i in at]
        order = sorted(range(len(at)), key=names.__getitem__)
        return [names[i] for i in order], at[np.array(order, np.int64)]


@njit(cache=True, nogil=True)
def _is_word(byte: int) -> bool:
    return is_alnum(byte) or byte == 39 or byte >= 128


@njit(cache=True, nogil=True)
def _place(
    data: Bytes, low: int, high: int, spelling: Bytes, size: npt.NDArray[np.uint8]
) -> np.int64:
    """The place of a term in the table, or the free one where it would go."""
    key = _START
    for i in range(low, high):
        key = (key ^ np.uint64(data[i])) * _PRIME
    mask = np.uint64(len(size) - 1)
    at = (key ^ (key >> np.uint64(32))) & mask
    while size[at]:
        if size[at] == high - low:
            same = True
            for i in range(low, high):
                if spelling[at, i - low] != data[i]:
                    same = False
                    break
            if same:
                break
        at = (at + np.uint64(1)) & mask
    return np.int64(at)


@njit(cache=True, nogil=True)
def _places(spelling: Bytes, size: npt.NDArray[np.uint8], table: npt.NDArray[np.uint8]) -> Ints:
    """Where distinct terms go in a table whose ``size`` is all 0; fills it with 1."""
    out = np.empty(len(size), np.int64)
    mask = np.uint64(len(table) - 1)
    for row in range(len(size)):
        key = _START
        for i in range(size[row]):
            key = (key ^ np.uint64(spelling[row, i])) * _PRIME
        at = (key ^ (key >> np.uint64(32))) & mask
        while table[at]:
            at = (at + np.uint64(1)) & mask
        table[at] = 1
        out[row] = at
    return out


@njit(cache=True, nogil=True)
def _add(
    data: Bytes,
    offsets: Ints,
    record: Ints,
    cells: npt.NDArray[np.int16],
    moments: npt.NDArray[np.float64],
    pairs: bool,
    row: int,
    taken: int,
    room: int,
    spelling: Bytes,
    size: npt.NDArray[np.uint8],
    counts: Int32s,
    first: Int32s,
    recent: Int32s,
    seen: Int32s,
) -> tuple[int, int]:
    """Count from text ``row`` on until ``room`` places are taken; the next text, places taken."""
    while row < len(offsets) - 1 and taken < room:
        who = record[row]
        start, end = offsets[row], offsets[row + 1]
        before_low, before_high = start, start  # the word before
        i = start
        while i < end:
            if not _is_word(data[i]):
                i += 1
                continue
            low = i
            while i < end and _is_word(data[i]):
                i += 1
            joined = before_high > before_low and low == before_high + 1 and data[low - 1] == 32
            for words in range(2 if pairs and joined else 1):
                begin = before_low if words else low
                whole = i - begin
                if whole > LONGEST or whole < 2:
                    continue
                at = _place(data, begin, i, spelling, size)
                if size[at] == 0:
                    if taken >= len(size) - 1:
                        continue  # a text of more new terms than there are places
                    taken += 1
                    size[at] = whole
                    for j in range(whole):
                        spelling[at, j] = data[begin + j]
                    first[at] = who
                elif recent[at, (seen[at] - 1) % RECENT] == who:
                    continue
                recent[at, seen[at] % RECENT] = who
                seen[at] += 1
                if moments[who] < moments[first[at]]:
                    first[at] = who
                for c in range(cells.shape[1]):
                    if cells[who, c] >= 0:
                        counts[at, cells[who, c]] += 1
            before_low, before_high = low, i
        row += 1
    return row, taken
