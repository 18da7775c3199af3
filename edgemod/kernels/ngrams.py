"""Hashed n-gram scoring: normalised UTF-8 bytes to the log-odds of the filter.

A text is a run of tokens: *words* (letters, digits, apostrophes, and every byte of a character
outside ASCII) and *marks* (runs of other ASCII punctuation, and the signs for a link and for a
mention). White space and controls only separate. Every digit counts as 0. The n-grams of a text are

- for each word, the 3-, 4- and 5-byte runs of the word between two spaces;
- each token, and each pair of neighbouring tokens.

An n-gram's bucket is the top bits of its integer times an odd constant (multiplicative
hashing, Knuth, The Art of Computer Programming 3, 6.4). The last five bytes are one rolling
integer, and the shorter runs are its low bytes, so all orders share the same work.

A long text is cut into equal windows, so that one bad sentence among many good ones still
counts: the score of an output is its greatest over the windows. A window's score is the sum
of the weights of its n-grams divided by the square root of their number.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from numba import njit

from edgemod.kernels.prefetch import prefetch
from edgemod.kernels.text import inner, longest

BITS: Final = 18
"""log2 of the number of buckets."""

LANES: Final = 16
"""Weights a bucket has room for: one 16-byte load. Outputs beyond the tenth are zero."""

WINDOW: Final = 768
"""n-grams in a window at most: about 300 characters."""

GRAMS_PER_BYTE: Final = 5
"""A text has at most this many n-grams a byte: three runs, one token, one pair."""

RECIPE: Final = "word bytes 3 4 5, tokens 1 2, digits folded"
"""Which n-grams are counted, in a word for the metadata of the filter file."""

_SHIFT: Final = np.uint64(64 - BITS)
_ONE: Final = np.uint64(1)
_SPACE: Final = np.uint64(32)
_BYTE: Final = np.uint64(8)
_MASK3: Final = np.uint64(0xFF_FFFF)
_MASK4: Final = np.uint64(0xFFFF_FFFF)
_MASK5: Final = np.uint64(0xFF_FFFF_FFFF)
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio, made odd
_FNV_START: Final = np.uint64(0xCBF29CE484222325)  # FNV-1a, 64 bits
_FNV_PRIME: Final = np.uint64(0x100000001B3)

_EVEN: Final = np.uint64(0x00FF_00FF_00FF_00FF)  # every other byte: four 16-bit lanes
_LANE: Final = np.uint64(0xFFFF)

_SEPARATOR: Final = 0
_WORD: Final = 1
_MARK: Final = 2


def _byte_kinds() -> npt.NDArray[np.uint8]:
    kinds = np.full(256, _WORD, np.uint8)
    kinds[:0x80] = _MARK
    kinds[: 0x20 + 1] = _SEPARATOR
    kinds[0x7F] = _SEPARATOR
    kinds[0x01] = kinds[0x02] = _MARK  # normalise.py: LINK and MENTION
    for byte in b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'":
        kinds[byte] = _WORD
    return kinds


_KINDS: Final = _byte_kinds()
_FOLDED: Final = np.array([48 if 48 <= byte <= 57 else byte for byte in range(256)], np.uint8)


def pack(weights: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
    """Weights, int8 (2**BITS, K <= LANES), as the kernel reads them: uint64 (2**BITS, 2).

    Output k is byte k of its row (the first is the lowest), greater by 128.
    """
    rows = np.full((len(weights), LANES), 128, np.uint8)
    rows[:, : weights.shape[1]] += weights.view(np.uint8)
    return rows.view("<u8").astype(np.uint64)


@inner
def _bucket(gram: np.uint64, rows: npt.NDArray[np.uint64] | None) -> np.uint64:
    """The bucket of an n-gram, its row fetched meanwhile."""
    bucket = (gram * _ODD) >> _SHIFT
    if rows is not None:  # decided when numba compiles
        prefetch(rows, bucket << _ONE)
    return bucket


@inner
def grams(
    data: npt.NDArray[np.uint8],
    start: int,
    stop: int,
    out: npt.NDArray[np.int32],
    rows: npt.NDArray[np.uint64] | None = None,
) -> int:
    """Write the buckets of the n-grams of ``data[start:stop]`` to ``out``; return their number.

    ``rows``: the weights that will be added up, as ``pack`` leaves them. A row is more often than
    not in no near cache, and reading it at once took as long as all the rest.
    ``out``: int32, at least ``GRAMS_PER_BYTE * (stop - start + 1)`` long. Buckets are in
    0 .. 2**BITS - 1, in the order of the text, repeated as often as they occur.
    """
    # Unsigned indices: numba asks each signed one whether it is negative, a quarter of this loop.
    i, end, count = np.uint64(start), np.uint64(stop), np.uint64(0)
    previous = np.uint64(0)
    while i < end:
        kind = _KINDS[data[i]]
        if kind == _SEPARATOR:
            i += _ONE
            continue
        token = _FNV_START
        if kind == _MARK:
            while i < end and _KINDS[data[i]] == _MARK:
                token = (token ^ np.uint64(data[i])) * _FNV_PRIME
                i += _ONE
        else:
            run, length = _SPACE, np.uint64(1)
            inside = True
            while inside:
                inside = i < end and _KINDS[data[i]] == _WORD
                byte = _SPACE
                if inside:
                    byte = np.uint64(_FOLDED[data[i]])
                    token = (token ^ byte) * _FNV_PRIME
                    i += _ONE
                run = run << _BYTE | byte
                length += _ONE
                # Write all three and count those that there are: a branch on the length would
                # be a guess.
                out[count] = _bucket(run & _MASK3, rows)
                count += np.uint64(length >= 3)
                out[count] = _bucket(run & _MASK4, rows)
                count += np.uint64(length >= 4)
                out[count] = _bucket(run & _MASK5, rows)
                count += np.uint64(length >= 5)
        out[count] = _bucket(token, rows)
        count += _ONE
        out[count] = _bucket(previous * _FNV_PRIME ^ token, rows)
        count += np.uint64(previous != 0)
        previous = token
    return np.int64(count)


@inner
def windows(count: int) -> int:
    """How many windows ``count`` n-grams are cut into, at least 1.

    Window k of w holds the n-grams ``count * k // w`` up to ``count * (k + 1) // w``.
    """
    return max(1, -(-count // WINDOW))


@inner
def add_rows(
    rows: npt.NDArray[np.uint64],
    found: npt.NDArray[np.int32],
    first: int,
    last: int,
    total: npt.NDArray[np.int32],
) -> None:
    """Set ``total``, int32 (LANES,), to the sum of the weights of ``found[first:last]``.

    ``rows``: see ``pack``. Eight weights are added at a time as the 16-bit lanes of two
    integers, which hold 257 bytes of 255 before they overflow.
    """
    total[:] = np.int32(-128 * (last - first))
    i, end = np.uint64(first), np.uint64(last)
    while i < end:
        stop = min(end, i + np.uint64(256))
        even0 = odd0 = even1 = odd1 = np.uint64(0)
        for j in range(i, stop):
            row = np.uint32(found[j])
            low, high = rows[row, 0], rows[row, 1]
            even0 += low & _EVEN
            odd0 += (low >> _BYTE) & _EVEN
            even1 += high & _EVEN
            odd1 += (high >> _BYTE) & _EVEN
        for k in range(4):
            shift = np.uint64(16 * k)
            total[2 * k] += np.int32((even0 >> shift) & _LANE)
            total[2 * k + 1] += np.int32((odd0 >> shift) & _LANE)
            total[2 * k + 8] += np.int32((even1 >> shift) & _LANE)
            total[2 * k + 9] += np.int32((odd1 >> shift) & _LANE)
        i = stop


@njit(cache=True, nogil=True)
def score(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    rows: npt.NDArray[np.uint64],
    scale: npt.NDArray[np.float64],
    bias: npt.NDArray[np.float64],
    out: npt.NDArray[np.float32],
) -> None:
    """Fill ``out``, float32 (n, K), with the log-odds of n texts; NaN for one without n-grams.

    ``data`` and ``offsets`` (n + 1) are normalised texts, ``rows`` the weights as ``pack``
    leaves them. ``scale`` and ``bias`` are float64 (K,): what one unit of weight is worth and
    what is added to every score.
    """
    n, outputs = out.shape
    found = np.empty(GRAMS_PER_BYTE * (longest(offsets) + 1), np.int32)
    total = np.empty(LANES, np.int32)
    best = np.empty(outputs, np.float64)
    for i in range(n):
        count = grams(data, offsets[i], offsets[i + 1], found, rows)
        if count == 0:
            out[i] = np.nan
            continue
        best[:] = -np.inf
        parts = windows(count)
        for part in range(parts):
            first, last = count * part // parts, count * (part + 1) // parts
            add_rows(rows, found, first, last, total)
            root = np.sqrt(max(last - first, 1))
            for k in range(outputs):
                best[k] = max(best[k], total[k] / root)
        for k in range(outputs):
            out[i, k] = best[k] * scale[k] + bias[k]
