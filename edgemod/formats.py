"""Streaming rows out of Parquet, CSV and JSONL files, damaged ones included.

Every row of a file comes out exactly once and in order: decoded, or counted as lost. What can be
decoded depends on the file alone, never on where reading starts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from edgemod import csv_files, jsonl_files
from edgemod.errors import InputError
from edgemod.sources import DAMAGE, Lost, Source, open_parquet, unreadable
from edgemod.words import Status

BATCH_ROWS: Final = 4096
"""Rows decoded at a time, at most. Set by the file alone, so that damage costs the same rows
wherever reading starts."""

BATCH_BYTES: Final = 16 << 20
"""Bytes of Parquet decoded at a time, about: fewer rows where the footer says they are long."""

_SHORT_ROWS: Final = 256
_SHORT_BYTES: Final = 1 << 20
"""Most rows of a run that is put together with others, and most bytes of them all."""


@dataclass(frozen=True)
class Rows:
    """A run of rows of one source, ``first`` counted from 0; ``batch`` is None where lost.

    ``status`` says why lost rows are lost: unreadable, or not_utf8. ``lost``, bool (count,): where
    only some are, which; these are null in the batch.
    """

    source: Source
    first: int
    count: int
    batch: pa.RecordBatch | None
    status: Status = Status.ok
    lost: npt.NDArray[np.bool_] | None = None

    def slice(self, start: int, stop: int) -> Rows:
        """Rows ``start`` to ``stop`` of this run, without a copy."""
        batch = None if self.batch is None else self.batch.slice(start, stop - start)
        lost = None if self.lost is None else self.lost[start:stop]
        return replace(self, first=self.first + start, count=stop - start, batch=batch, lost=lost)


def schema(source: Source) -> pa.Schema:
    """Columns and types of a file; no columns for a CSV or JSONL file without a line.

    Raises InputError if the file cannot be opened, or a CSV file's first line is not UTF-8 or
    cannot be a header.
    """
    if source.format == "parquet":
        with open_parquet(source.path, source.file) as parquet:
            return parquet.schema_arrow
    try:
        return csv_files.schema(source) if source.format == "csv" else jsonl_files.schema(source)
    except UnicodeError as error:
        fix = "convert the file to UTF-8, for example with iconv"
        raise InputError("the header is not UTF-8", where=source.path, fix=fix) from error
    except OSError as error:
        raise unreadable(source.path, error) from error


def rows(
    source: Source, names: Sequence[str], skip: int = 0, spare: Collection[str] = ()
) -> Iterator[Rows]:
    """Yield the rows of a file with those of the columns ``names`` that it has.

    The first ``skip`` rows are not wanted: Parquet row groups among them are passed over by their
    metadata, and runs that end among them hold nothing of use. Rows that cannot be decoded come
    out lost. A JSON value that is not of its column's type is null in the columns ``spare``; a row
    with one in another column is lost. Raises InputError if the file cannot be opened.
    """
    if source.format == "parquet":
        return _parquet(source, names, skip)
    if source.format == "csv":
        return _csv(source, names)
    return _jsonl(source, names, skip, frozenset(spare))


def only(runs: Iterable[Rows], chosen: npt.NDArray[np.int64]) -> Iterator[Rows]:
    """Those rows of runs whose numbers are in ``chosen``, ascending."""
    for run in runs:
        low, high = np.searchsorted(chosen, (run.first, run.first + run.count))
        if low < high:
            index = pa.array(chosen[low:high] - run.first)
            batch = None if run.batch is None else run.batch.take(index)
            yield replace(run, count=int(high - low), batch=batch)


def gathered(runs: Iterable[Rows]) -> Iterator[Rows]:
    """The same rows of a file, short runs put together where some are lost.

    Where every second row is lost each is a run of its own, which costs as much as hundreds of
    rows do.
    """
    waiting: list[Rows] = []
    rows = held = 0  # that wait, and their bytes
    for run in runs:
        weight = 0 if run.batch is None else run.batch.nbytes
        long = run.count > _SHORT_ROWS or weight > _SHORT_BYTES
        full = rows + run.count > BATCH_ROWS or held + weight > _SHORT_BYTES
        if long or full or not _is_like(waiting, run):
            yield from _together(waiting)
            waiting, rows, held = [], 0, 0
        if long:
            yield run
            continue
        waiting.append(run)
        rows, held = rows + run.count, held + weight
    yield from _together(waiting)


def _is_like(waiting: Sequence[Rows], run: Rows) -> bool:
    """Whether a run can be put to others: sound ones of its columns, or lost as it is."""
    for other in waiting[-2:]:  # one of each kind, if there are both
        if (other.batch is None) == (run.batch is None):
            if run.batch is None or other.batch is None:
                return run.status == other.status
            return bool(run.batch.schema.equals(other.batch.schema))
    return len(waiting) < 2


def _together(runs: Sequence[Rows]) -> Iterator[Rows]:
    sound = [run.batch for run in runs if run.batch is not None]
    lost = [run for run in runs if run.batch is None]
    if not (sound and lost):
        yield from runs
        return
    of_lost = np.repeat([run.batch is None for run in runs], [run.count for run in runs])
    rows = pa.array(np.cumsum(~of_lost) - 1, mask=of_lost)
    batch = pa.concat_batches(sound).take(rows)
    yield Rows(runs[0].source, runs[0].first, len(of_lost), batch, lost[0].status, of_lost)


def _parquet(source: Source, names: Sequence[str], skip: int) -> Iterator[Rows]:
    with open_parquet(source.path, source.file) as file:
        if file.metadata.num_rows != source.rows:
            fix = "start again once nothing writes to the input"
            raise InputError("changed while it was being read", where=source.path, fix=fix)
        present = {*file.schema_arrow.names}
        names = [name for name in names if name in present]
        first = 0
        for groups, count in _spans(file.metadata):
            if first + count > skip:
                yield from _row_groups(file, source, names, groups, first, count)
            first += count


def _spans(metadata: pq.FileMetaData) -> Iterator[tuple[list[int], int]]:
    """Gather small neighbouring row groups: (row groups, rows), at most a batch if several."""
    groups: list[int] = []
    count, held = 0, 0
    for index in range(metadata.num_row_groups):
        # These two are plain numbers of the footer; ``column(k)`` ends the process if damaged.
        size = metadata.row_group(index).num_rows
        weight = abs(metadata.row_group(index).total_byte_size)
        if groups and (count + size > BATCH_ROWS or held + weight > BATCH_BYTES):
            yield groups, count
            groups, count, held = [], 0, 0
        if size:
            groups.append(index)
            count, held = count + size, held + weight
    if groups:
        yield groups, count


def _row_groups(
    file: pq.ParquetFile,
    source: Source,
    names: Sequence[str],
    groups: list[int],
    first: int,
    count: int,
) -> Iterator[Rows]:
    weight = sum(abs(file.metadata.row_group(group).total_byte_size) for group in groups)
    size = min(max(BATCH_BYTES * count // max(weight, 1), 1), BATCH_ROWS)
    batches = file.iter_batches(size, groups, columns=list(names), use_threads=False)
    if len(groups) > 1:
        # Several row groups stand or fall together only if all is well.
        try:
            whole = [_plain(batch, names) for batch in batches]
        except DAMAGE:
            whole = []
        if sum(batch.num_rows for batch in whole) != count:
            for group in groups:
                size = file.metadata.row_group(group).num_rows
                yield from _row_groups(file, source, names, [group], first, size)
                first += size
            return
        batches = iter(whole)
    end = first + count
    while first < end:
        try:
            batch = _plain(next(batches), names)
        except (StopIteration, *DAMAGE):
            break
        size = min(batch.num_rows, end - first)
        yield Rows(source, first, size, batch.slice(0, size))
        first += size
    if first < end:
        yield Rows(source, first, end - first, None, Status.unreadable)


def _plain(batch: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
    """Check a batch and decode its dictionaries, here where damage is still caught."""
    batch = batch.select(list(names))
    batch.validate()
    columns = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=list(names))


def _csv(source: Source, names: Sequence[str]) -> Iterator[Rows]:
    header = schema(source).names
    present = {*header}
    fields = pa.schema([(name, pa.string()) for name in names if name in present])
    return _placed(source, csv_files.batches(source, header, fields) if header else ())


def _jsonl(
    source: Source, names: Sequence[str], skip: int, spare: Collection[str]
) -> Iterator[Rows]:
    types = schema(source)
    present = {*types.names}
    fields = pa.schema([types.field(name) for name in names if name in present])
    return _placed(source, jsonl_files.batches(source, fields, skip, spare))


def _placed(source: Source, found: Iterable[pa.RecordBatch | Lost]) -> Iterator[Rows]:
    """Runs of what comes out of a file, each with its place in it."""
    first = 0
    for one in found:
        if isinstance(one, Lost):
            run = Rows(source, first, one.rows, None, one.status)
        else:
            run = Rows(source, first, one.num_rows, one)
        yield run
        first += run.count
