"""Files through worker processes that measure and write nothing: ``score -o``, ``evaluate``,
``calibrate``.

The crew is that of a run, so what a text does to native code ends as there: the records at fault
are found (quarantine.py), the others are measured without them, and those are named.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from edgemod import records
from edgemod.crew import STALL_SECONDS, Crew, Setup
from edgemod.errors import RunError
from edgemod.formats import Rows
from edgemod.records import Chunk, Columns
from edgemod.words import Status

Arrays = dict[str, npt.NDArray[Any]]
"""What ``worker.measured`` gives, by name."""

UNIT_ROWS: Final = 256
UNIT_BYTES: Final = 1 << 16
"""Rows, and bytes of all their columns about, that are measured at a time: seconds of work, since
little shall be done again for a record at fault. Set by the file alone."""

QUARANTINED: Final = 1000
"""How many are named."""


class Measurers:
    """``workers`` processes with models of their own; a context.

    ``measure``: what, as ``worker.measured`` takes it. ``where``: what is measured, for errors.
    ``quarantined``: what the records are called that no worker could measure, with their status:
    the first 1,000.
    """

    def __init__(
        self,
        where: str,
        measure: tuple[str, ...],
        policy: str | Path | None,
        model: str | None,
        calibration: str | Path | None,
        workers: int,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        paths = (None if path is None else str(path) for path in (policy, calibration))
        policy, calibration = paths
        self._crew = Crew(Setup(where, policy, model, calibration, measure=measure), stall_seconds)
        self._pool = ThreadPoolExecutor(workers)
        self._workers, self._where = workers, where
        self.quarantined: list[str] = []

    def check(self, fingerprints: Mapping[str, str | None]) -> None:
        """Raise RunError unless the workers have loaded what has these fingerprints."""
        loaded = self._crew.first().fingerprints
        if changed := [name for name, value in fingerprints.items() if loaded.get(name) != value]:
            raise RunError(
                f"changed while it was read: {', '.join(changed)}",
                where=self._where,
                fix="Run the command again.",
            )

    def map(self, runs: Iterable[Rows], columns: Columns) -> Iterator[tuple[Rows, Arrays]]:
        """Runs and what was measured of them, in order; ``workers`` + 1 of them in memory."""
        limit = self._crew.first().max_text_bytes
        waiting: deque[tuple[Rows, Chunk, Future[tuple[Arrays, Chunk]]]] = deque()
        for run in runs:
            chunk = records.chunk_of(run, columns, max_text_bytes=limit)
            waiting.append((run, chunk, self._pool.submit(self._crew.measure, chunk)))
            if len(waiting) > self._workers:
                yield self._next(*waiting.popleft())
        while waiting:
            yield self._next(*waiting.popleft())

    def _next(
        self, run: Rows, chunk: Chunk, future: Future[tuple[Arrays, Chunk]]
    ) -> tuple[Rows, Arrays]:
        arrays, done = future.result()
        status = done.texts["status"].to_numpy()
        texts = np.flatnonzero(status != chunk.texts["status"].to_numpy())
        if len(texts):
            owner = chunk.texts["record"].to_numpy()[texts]
            rows, first = np.unique(owner, return_index=True)
            names = chunk.records["record_id"].take(pa.array(rows)).to_pylist()
            told = [
                f"{name} ({Status(status[text]).name})"
                for name, text in zip(names, texts[first], strict=True)
            ]
            self.quarantined += told[: QUARANTINED - len(self.quarantined)]
        return run, arrays

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._crew.stop()  # so that threads that wait for workers end
        self._pool.shutdown(cancel_futures=True)


def told(quarantined: list[str]) -> str:
    """Which records could not be measured, in words, for a notice."""
    shown, more = quarantined[:20], len(quarantined) - 20
    rest = f" and {more} more" if more > 0 else ""
    return f"ended or hung every process that read them, so not scored: {', '.join(shown)}{rest}"


def in_units(runs: Iterable[Rows]) -> Iterator[Rows]:
    """Cut runs into what a language model scores at a time."""
    for run in runs:
        size = UNIT_ROWS
        if run.batch is not None and run.batch.nbytes:
            size = min(size, max(UNIT_BYTES * run.count // run.batch.nbytes, 1))
        for start in range(0, run.count, size):
            yield run.slice(start, min(start + size, run.count))
