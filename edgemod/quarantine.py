"""Which records of a chunk are at fault when the process that scores it crashes or hangs.

Group testing by halves: a set of records that can be scored together holds none that is at fault,
and only sets that cannot are looked at further. Nothing here starts a process: crew.py tries sets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from edgemod.records import TEXTS, Chunk
from edgemod.words import Status

TRIALS: Final = 128
"""Most trials for one chunk. One record at fault takes two for each halving at most, and two for
itself: 26 of 4,096 records. So there is room for five, or for more that lie together."""

ALONE: Final = 2
"""Trials that a record must fail alone: one may be chance, a process killed from outside."""


def search(
    count: int, fails: Callable[[Sequence[int]], bool], most: int
) -> tuple[list[int], list[int]]:
    """Which of ``count`` things fail alone, and which are left suspect after ``most`` trials.

    All of them together have just failed. ``fails`` tries some, by their numbers. The greatest sets
    are halved first, so that what is left suspect are the smallest sets. A set is taken to fail
    untried if its other half does not; whether a thing is at fault is never settled that way.
    Where all failed by chance, or only together, both lists may be empty.
    """
    crashed: list[int] = []
    trials = 0

    def tried(some: Sequence[int]) -> bool:
        nonlocal trials
        trials += 1
        return fails(some)

    # Sets that hold something at fault, and how often each has failed as it is.
    suspects = deque([(range(count), 1)]) if count else deque()
    while suspects:
        some, times = suspects[0]
        if trials + max(2, ALONE - times) > most:
            break
        suspects.popleft()
        if len(some) == 1:
            if all(tried(some) for _ in range(times, ALONE)):
                crashed += some
            continue
        first, second = some[: len(some) // 2], some[len(some) // 2 :]
        if not tried(first):
            suspects.append((second, 0))
            continue
        suspects.append((first, 1))
        if tried(second):
            suspects.append((second, 1))
    return sorted(crashed), sorted(i for some, _ in suspects for i in some)


def alike(chunk: Chunk, with_context: bool) -> list[npt.NDArray[np.int64]]:
    """The records of a chunk that have something to score, those with the same texts together.

    ``with_context``: the contexts must be the same, too, since the model reads them.
    """
    texts = chunk.texts
    codes = np.column_stack(
        [
            np.asarray(texts[name].dictionary_encode(null_encoding="encode").indices, np.int64)
            for name in ("text", "context")[: 1 + with_context]
        ]
    )
    owner = texts["record"].to_numpy()
    starts = np.searchsorted(owner, np.arange(chunk.records.num_rows + 1))
    found: dict[bytes, list[int]] = {}
    for row in np.unique(owner[texts["status"].to_numpy() == Status.ok]).tolist():
        found.setdefault(codes[starts[row] : starts[row + 1]].tobytes(), []).append(row)
    return [np.array(rows, np.int64) for rows in found.values()]


def only(chunk: Chunk, rows: npt.NDArray[np.int64]) -> Chunk:
    """A chunk of some of a chunk's records alone, in their order, to be tried."""
    rows = np.sort(rows)
    owner = chunk.texts["record"].to_numpy()
    texts = chunk.texts.filter(pa.array(np.isin(owner, rows)))
    record = np.searchsorted(rows, texts["record"].to_numpy())
    texts = _with(texts, "record", pa.array(record, pa.int32()))
    return replace(chunk, records=chunk.records.take(pa.array(rows)), texts=texts)


def without(
    chunk: Chunk, rows: npt.NDArray[np.int64], status: Status, *, text: bool = True
) -> Chunk:
    """The chunk with some records not to be scored, because of ``status``.

    What others have of them as their context stays. ``text``: keep theirs, for the reviewer.
    """
    here = np.isin(chunk.texts["record"].to_numpy(), rows)
    marked = np.where(here, np.int8(status), chunk.texts["status"].to_numpy())
    texts = _with(chunk.texts, "status", pa.array(marked, pa.int8()))
    if not text:
        for name in ("text", "context"):
            null = pa.scalar(None, TEXTS.field(name).type)
            kept = pc.if_else(pa.array(here), null, texts[name])
            texts = _with(texts, name, kept)
    return replace(chunk, texts=texts)


def _with(texts: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    return texts.set_column(TEXTS.get_field_index(name), TEXTS.field(name), column)
