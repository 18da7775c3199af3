"""Texts that are nearly the same, so that one template is read once and not a hundred times.

Two texts are alike if the Jaccard index of their sets of ``SHINGLE`` successive bytes, of the
normal form, is at least ``ALIKE`` (Broder 1997, "On the resemblance and containment of documents").
Pairs worth comparing are found by MinHash in bands (Indyk and Motwani 1998, "Approximate nearest
neighbors"); then the index itself decides. Every text of a group is alike to the first of it, not
to a neighbour of a neighbour: groups do not drift.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

SHINGLE: Final = 5
ALIKE: Final = 0.85
LONG: Final = 40
"""Bytes of normal form from which on a text is known by itself; a shorter one is alike only to the
very same text after the same context: "yes" says nothing without what it answers to."""

_BANDS: Final = 10
_ROWS: Final = 3
# A pair of index 0.85 shares no band with a chance of (1 - 0.85 ** 3) ** 10 = 7e-5.
_SEEDS: Final = np.random.default_rng(1).integers(1, 2**63, (2, _BANDS * _ROWS), np.uint64) | 1

_CROWD: Final = 32
"""Texts of one band that are compared with. Thousands that have half their words in common share
bands without being alike, and each would be compared with all before it."""

Set = npt.NDArray[np.uint64]


def groups(forms: Sequence[bytes], contexts: Sequence[str | None]) -> list[int]:
    """For each text the index of the first of its group, which is its own where it is alone.

    ``forms``: normal forms; one that is empty is alone. ``contexts``: what each answers to.
    """
    first: list[int] = []
    same: dict[tuple[bytes, str | None], int] = {}
    bands: dict[bytes, list[int]] = {}
    sets: dict[int, Set] = {}
    for i, form in enumerate(forms):
        long = len(form) >= LONG
        leader = same.setdefault((form, None if long else contexts[i]), i) if form else i
        if leader == i and long:
            own = shingles(form)
            keys = [*_bands(own)]
            near = dict.fromkeys(j for key in keys for j in bands.get(key, ()))
            leader = next((j for j in sorted(near) if jaccard(own, sets[j]) >= ALIKE), i)
            same[form, None] = leader
            if leader == i:
                sets[i] = own
                for key in keys:
                    if len(band := bands.setdefault(key, [])) < _CROWD:
                        band.append(i)
        first.append(leader)
    return first


def shingles(form: bytes) -> Set:
    """The distinct runs of ``SHINGLE`` bytes of a text of at least so many, each as a number."""
    data = np.frombuffer(form, np.uint8).astype(np.uint64)
    whole = np.zeros(len(data) - SHINGLE + 1, np.uint64)
    for i in range(SHINGLE):
        whole |= data[i : i + len(whole)] << np.uint64(8 * i)
    return np.unique(whole)


def jaccard(a: Set, b: Set) -> float:
    """Share of what is in either set that is in both, 0 to 1."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both)


def _bands(own: Set) -> Iterator[bytes]:
    """Equal for two sets in some band if they are probably alike."""
    least = np.array([(own * a + b).min() for a, b in _SEEDS.T])  # modulo 2 ** 64
    for band in range(_BANDS):
        yield band.to_bytes(1, "big") + least[band * _ROWS : (band + 1) * _ROWS].tobytes()
