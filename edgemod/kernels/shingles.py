"""Texts that are nearly the same: MinHash signatures and their clusters.

A text is the set of its runs of five bytes, in the normal form. Of 64 hash functions each gives a
text the least value over its runs; two texts agree in one with the chance that a run of either is
a run of both (their Jaccard similarity; Broder 1997, "On the resemblance and containment of
documents"). Of each value the low 16 bits are kept: others agree in them once in 65,536 (Li and
Koenig 2010, "b-bit minwise hashing").

Four values make a band, which is one 64-bit key. Texts that agree in a whole band are compared
(locality-sensitive hashing; Leskovec, Rajaraman and Ullman 2014, "Mining of massive datasets",
chapter 3): of two texts with similarity 0.8 that are all but one in 4,000, with 0.5 two in three,
with 0.3 one in eight. They are linked if 45 of 64 values agree, which two texts with similarity
0.5 do once in 1,300, with 0.3 once in a hundred thousand million. Links make clusters
(union-find).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from numba import njit

from edgemod.kernels.text import Bytes, Ints

VALUES: Final = 64
"""Hash values of a signature."""
BAND: Final = 4
"""Values of a band."""
SHINGLE: Final = 5
"""Bytes of a run."""
SHORTEST: Final = 32
"""Bytes of a normal form below which two texts are alike by chance: "thank you very much"."""
LEAST: Final = 45
"""Values in which two texts agree that are nearly the same: seven in ten."""

_MASK: Final = np.uint64((1 << 8 * SHINGLE) - 1)
_ODD64: Final = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio, made odd
_ODD: Final = np.uint32(0x85EBCA6B)  # multipliers and shifts of MurmurHash3's last step
_ODD2: Final = np.uint32(0xC2B2AE35)
_SEEDS: Final = np.random.default_rng(7).integers(0, 1 << 32, VALUES, np.uint32)

Signatures = npt.NDArray[np.uint16]
"""(n, VALUES)"""


@njit(cache=True, nogil=True)
def _sign(
    data: Bytes, offsets: Ints, seeds: npt.NDArray[np.uint32], out: npt.NDArray[np.uint16]
) -> None:
    least = np.empty(len(seeds), np.uint32)
    for row in range(len(offsets) - 1):
        least[:] = np.uint32(0xFFFFFFFF)
        run = np.uint64(0)
        for i in range(offsets[row], offsets[row + 1]):
            run = (run << np.uint64(8) | np.uint64(data[i])) & _MASK
            if i - offsets[row] < SHINGLE - 1:
                continue
            x = np.uint32((run * _ODD64) >> np.uint64(32))
            for k in range(len(seeds)):
                # Products of two 32-bit numbers have 64 bits to numba.
                h = np.uint32((x ^ seeds[k]) * _ODD)
                h = np.uint32((h ^ (h >> np.uint32(13))) * _ODD2)
                h = np.uint32(h ^ (h >> np.uint32(16)))
                least[k] = min(least[k], h)
        for k in range(len(seeds)):
            out[row, k] = np.uint16(least[k] & np.uint32(0xFFFF))


def sign(data: Bytes, offsets: Ints) -> Signatures:
    """Signatures of n normalised texts; texts of fewer than ``SHINGLE`` bytes have all the same."""
    out = np.empty((len(offsets) - 1, VALUES), np.uint16)
    _sign(data, offsets, _SEEDS, out)
    return out


@njit(cache=True, nogil=True)
def _root(parent: Ints, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def _link(
    signatures: npt.NDArray[np.uint16],
    keys: npt.NDArray[np.uint64],
    order: Ints,
    least: int,
    parent: Ints,
) -> None:
    """Link the texts of each key to the first of them, and to the one before, where they agree."""
    first = 0
    for at in range(1, len(order)):
        if keys[order[at]] != keys[order[first]]:
            first = at
            continue
        for other in (first, at - 1):
            a, b = _root(parent, order[at]), _root(parent, order[other])
            if a == b:
                continue
            same = 0
            for k in range(signatures.shape[1]):
                same += signatures[order[at], k] == signatures[order[other], k]
            if same >= least:
                parent[max(a, b)] = min(a, b)


def clusters(signatures: Signatures) -> Ints:
    """Of each of n texts the first text of its cluster, int64 (n,): itself where it is alone."""
    parent = np.arange(len(signatures))
    keys = signatures.view(np.uint64)
    for band in range(keys.shape[1]):
        of_band = np.ascontiguousarray(keys[:, band])
        order = np.argsort(of_band, kind="stable")
        _link(signatures, of_band, order, LEAST, parent)
    while (parent != parent[parent]).any():
        parent = parent[parent]
    return parent
