"""The labelled records that ``learn()`` reads, split into parts to fit, to compare and to certify.

Copies, near copies and the records of one thread are in one part. Labels of no sample, such as a
part of a queue or appeals, are in the first alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse
from scipy.sparse import csgraph

from edgemod import calibrating, features, formats, records
from edgemod.errors import InputError
from edgemod.kernels import shingles
from edgemod.labels import (
    FLOOR,
    INCLUSION,
    is_sample,
    read_inclusion,
    read_labels,
    read_values,
)
from edgemod.metrics import Labels
from edgemod.parts import write_part
from edgemod.records import Columns
from edgemod.sources import Source
from edgemod.triager import Triager
from edgemod.words import OUTPUTS, Status

REVIEWER: Final = "reviewer"
"""Column of who labelled a record."""
_MOST: Final = 0.2
"""Share of the records that are kept in one part for their threads."""
PARTS: Final = (0.4, 0.6)
"""Where the part to compare with begins, and the part to certify on."""


@dataclass(frozen=True)
class Labelled:
    """n records with a text and a label."""

    texts: pa.LargeStringArray
    labels: Labels
    share: npt.NDArray[np.float64]
    """From 0 to 1: which part it is in."""
    threads_apart: bool
    """Whether threads are split, which they are where one of them is too much for one part."""
    inclusion: tuple[npt.NDArray[np.float64], float] | None
    reviewers: list[str]
    """(n,), none where no column says."""
    fingerprint: str
    samples: list[Path]
    """The files that are samples."""

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Records to fit, to compare and to certify."""
        ends = (0.0, *PARTS, 1.0)
        fit, compare, certify = (len(self.part(a, b)) for a, b in pairwise(ends))
        return fit, compare, certify

    def part(self, low: float, high: float) -> npt.NDArray[np.int64]:
        """The rows whose share is from ``low`` to below ``high``."""
        return np.flatnonzero((self.share >= low) & (self.share < high))


def read_labelled(
    sources: Sequence[Source],
    columns: Columns,
    wanted: Sequence[str] | None,
    triager: Triager,
    seed: int,
    tell: Callable[[str], None],
) -> Labelled:
    """Read texts, labels and what is known of how they were drawn. Raises InputError.

    ``wanted``: label columns, all that are known if None; ``seed``: of the split; ``tell``: what
    was left out, and why.
    """
    answers = [read_labels(source, wanted) for source in sources]
    names = [category.name for category in triager.policy.categories]
    matrix, _ = calibrating.joined_labels(answers, names)
    samples = [is_sample(source) for source in sources]
    if not any(samples):
        read_inclusion(sources[0])  # says why
    inclusion = [
        read_inclusion(source) if one else None
        for source, one in zip(sources, samples, strict=True)
    ]
    known = [part is not None for part, one in zip(inclusion, samples, strict=True) if one]
    drawn = any(known)
    if drawn and not all(known):
        raise InputError(
            f"some have a column {INCLUSION}, and some not",
            where="labels",
            fix="Learn from files that were drawn in one way.",
        )
    counts = [len(next(iter(of.values()))) for of in answers]
    alone = np.repeat([not one for one in samples], counts)
    chance = np.concatenate(
        [part.chance if part else np.ones(n) for part, n in zip(inclusion, counts, strict=True)]
    )
    floor = min((part.floor for part in inclusion if part), default=1.0)
    reviewers: list[str] = []
    if all(REVIEWER in formats.schema(source).names for source in sources):
        reviewers = [name for source in sources for name in read_values(source, REVIEWER)]
    texts, rows, threads, start = [], [], list[str | None](), 0
    flat = replace(columns, id=None, author=None, time=None)
    for source in sources:
        for run in formats.rows(source, columns.text):
            limit = triager.policy.max_text_bytes
            chunk = records.chunk_of(run, flat, max_text_bytes=limit)
            ok = np.flatnonzero(np.array(chunk.texts["status"], np.int8) == Status.ok)
            texts += chunk.texts["text"].take(pa.array(ok)).to_pylist()
            here = np.array(chunk.texts["record"], np.int64)[ok]
            rows += (start + here).tolist()
            threads += chunk.records["thread_id"].take(pa.array(here)).to_pylist()
            start += run.count
    kept = [i for i, row in enumerate(rows) if (matrix[row] >= 0).any()]
    chosen = np.array([rows[i] for i in kept], np.int64)
    column = pa.array([texts[i] for i in kept], pa.large_string())
    share, apart = _shares(column, seed, [threads[i] for i in kept])
    share = _to_fit(share, alone[chosen], tell)
    return Labelled(
        texts=column,
        labels=matrix[chosen],
        share=share,
        threads_apart=apart,
        inclusion=(chance[chosen], floor) if drawn else None,
        reviewers=[reviewers[row] for row in chosen] if reviewers else [],
        fingerprint=records.fingerprint(sources),
        samples=[source.file for source, one in zip(sources, samples, strict=True) if one],
    )


def _to_fit(
    share: npt.NDArray[np.float64], alone: npt.NDArray[np.bool_], tell: Callable[[str], None]
) -> npt.NDArray[np.float64]:
    """Shares (n,) by which records of no sample are among those to fit, NaN for those left out:
    near copies of records that compare or certify, and what is of one thread with them."""
    if not alone.any():
        return share
    later = share >= PARTS[0]
    copies = alone & later & np.isin(share, share[~alone])  # or of one thread: see _shares
    tell(
        f"{alone.sum():,} labels are of no sample: they are fitted with, and prove nothing"
        + (
            f"; {copies.sum():,} of them are left out, near copies of a sample's or of its threads"
            if copies.any()
            else ""
        )
    )
    share = np.where(alone & later, 0.0, share)
    share[copies] = np.nan
    return share


def _shares(
    texts: pa.LargeStringArray, seed: int, threads: Sequence[str | None]
) -> tuple[npt.NDArray[np.float64], bool]:
    """A number from 0 to 1 for each text (n,), the same for those that are nearly the same or of
    one thread; and whether threads were left out, since such a group is over ``_MOST`` of all."""
    data, offsets = features.extract(texts, features.Lexicons.compile(())).normalised
    forms = [data[low:high].tobytes() for low, high in pairwise(offsets.tolist())]
    first = np.arange(len(forms))
    long = np.flatnonzero(np.diff(offsets) >= shingles.SHORTEST)
    first[long] = long[shingles.clusters(shingles.sign(data, offsets)[long])]
    apart = False
    if any(threads):
        whole = _joined(first, threads)
        apart = bool(np.bincount(whole).max() > max(_MOST * len(forms), 1))
        first = first if apart else whole
    digests = (hashlib.blake2b(b"%d " % seed + forms[i], digest_size=8).digest() for i in first)
    shares = [int.from_bytes(digest, "big") / 2**64 for digest in digests]
    return np.array(shares, np.float64), apart


def _joined(first: npt.NDArray[np.int64], threads: Sequence[str | None]) -> npt.NDArray[np.int64]:
    """The first text (n,) of each group of clusters, given by their first, that threads join."""
    seen: dict[str, int] = {}
    of_thread = [seen.setdefault(name, i) if name else i for i, name in enumerate(threads)]
    rows, ones = np.tile(np.arange(len(first)), 2), np.ones(2 * len(first), bool)
    links = sparse.coo_array((ones, (rows, np.append(first, of_thread))), (len(first),) * 2)
    _, group = csgraph.connected_components(links, directed=False)
    _, firsts, back = np.unique(group, return_index=True, return_inverse=True)
    return np.asarray(firsts[back], np.int64)


def write_labelled(given: Labelled, rows: npt.NDArray[np.int64], path: Path) -> Path:
    """Some of the labelled records as a file that ``calibrate`` reads."""
    columns: dict[str, Any] = {"text": given.texts.take(pa.array(rows))}
    for k, name in enumerate(OUTPUTS):
        values = given.labels[rows, k]
        if (values >= 0).any():
            columns[name] = pa.array(values, pa.int8(), mask=values < 0)
    if given.inclusion is not None:
        columns[INCLUSION] = given.inclusion[0][rows]
        columns[FLOOR] = np.full(len(rows), given.inclusion[1])
    if len(columns) == 1 or not len(rows):
        raise InputError(
            "are too few to certify anything",
            where="labels",
            fix="Label some hundreds of records: edgemod audit sample draws them.",
        )
    write_part(pa.table(columns), path)
    return path
