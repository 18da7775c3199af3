"""Reading records: any supported input in, fixed slices of rows out, none lost and none twice.

Each chunk holds what the record is called (``RECORDS``) and what there is to score (``TEXTS``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from edgemod import formats
from edgemod.columns import (
    Columns,
    as_group,
    as_text,
    check_columns,
    fields_named,
    is_binary,
    is_list,
    is_number,
    is_text,
    message_fields,
    resolve_columns,
    text_bytes,
)
from edgemod.formats import Rows
from edgemod.messages import PARTS
from edgemod.sources import Source, discover, fingerprint, partitions
from edgemod.words import Status

__all__ = [
    "RECORDS",
    "TEXTS",
    "Chunk",
    "Columns",
    "Source",
    "chunk_of",
    "count_rows",
    "discover",
    "fingerprint",
    "read_chunks",
    "resolve_columns",
]

RECORDS: Final = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_row", pa.int64(), nullable=False),
        pa.field("thread_id", pa.string()),
        pa.field("author_id", pa.string()),
        pa.field("time", pa.string()),
        pa.field("stratum", pa.string()),
    ]
)
"""One row per record. ``source_row`` counts from 0 in its file; ``time`` is ISO 8601 if known;
``stratum`` is null unless the calibration in use was certified by strata."""

TEXTS: Final = pa.schema(
    [
        pa.field("record", pa.int32(), nullable=False),
        pa.field("message", pa.int32(), nullable=False),
        pa.field("role", pa.string()),
        pa.field("text", pa.large_string()),
        pa.field("context", pa.large_string()),
        pa.field("status", pa.int8(), nullable=False),
    ]
)
"""One row per text. ``record`` is a row of the chunk's records; ``message`` counts from 0.

``message`` is -1 for a record that is one flat text, or a conversation in which no message has a
content. Messages without a content (null, as tool calls have) are left out where another has one;
the others keep their numbers. A content that is there but has no text that can be read, such as an
image alone, is a row of status unreadable. ``text`` is null unless the status is ok, empty_text or
too_long. It is cut to ``max_text_bytes``, and ``context`` to its last ``CONTEXT_BYTES``, between
characters.
"""

CONTEXT_BYTES: Final = 4096
"""Bytes of context kept, the last ones. A guard reads 128 tokens of it, some 500 bytes."""

CHUNK_BYTES: Final = 16 << 20
"""Bytes of strings after which a chunk ends, whatever its rows."""

_INK: Final = (
    r"[^\pZ\p{Cc}\p{Cf}\x{34F}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180B}-\x{180F}"
    r"\x{2800}\x{3164}\x{FE00}-\x{FE0F}\x{FFA0}\x{E0100}-\x{E01EF}]"
)
"""A character one can see. The code points are fillers, blanks and variation selectors that
Unicode counts as letters, marks or symbols (Default_Ignorable_Code_Point, and blank Braille)."""

_EPOCHS: Final = ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3), (10**8, 1))
"""(from, ticks a second): numbers this large are nano-, micro-, milli- or seconds since 1970.

Read so, each range starts in 1973; smaller numbers are left as they are."""


@dataclass(frozen=True)
class Chunk:
    """Neighbouring rows of all sources, end to end; number ``index`` of these slices, from 0."""

    index: int
    records: pa.RecordBatch
    texts: pa.RecordBatch


def read_chunks(
    sources: Sequence[Source],
    columns: Columns,
    *,
    chunk_rows: int = 4096,
    chunk_bytes: int = CHUNK_BYTES,
    start: int = 0,
    start_row: int = 0,
    stop_row: int = sys.maxsize,
    max_text_bytes: int,
) -> Iterator[Chunk]:
    """Yield the chunks of the sources from number ``start`` on, which begins at ``start_row``.

    ``start_row`` counts the rows of all sources end to end: the rows of the chunks before.
    ``stop_row``, counted so too, is the first that is not read. A chunk ends where the next row is
    a multiple of ``chunk_rows``, or with the row whose strings, ids and names included, bring it
    to ``chunk_bytes``, whichever comes first; the last may be shorter. So memory holds about one
    chunk, whatever the size of files, row groups and strings, a chunk begins at every multiple of
    ``chunk_rows``, and it depends on its own rows alone: it is the same whether reading started
    before it or at it. Rows that cannot be decoded have the status unreadable and an id made of
    file and row. Raises InputError if a file is gone or has changed, ValueError if ``start``
    chunks cannot end at ``start_row``.
    """
    if not start <= start_row <= start * chunk_rows:
        raise ValueError(f"{start} chunks of at most {chunk_rows} rows do not end at {start_row}")
    index, row = start, start_row
    pending: list[Rows] = []
    held = 0
    for found in _rows(sources, columns, start_row) if start_row < stop_row else ():
        run = found.slice(0, min(found.count, stop_row - row))
        ends = np.append(0, np.cumsum(_sizes(run, columns)))  # bytes before each row, and in all
        done = 0
        while done < run.count:
            # The first row that reaches the budget is the chunk's last.
            full = int(np.searchsorted(ends[1:], ends[done] + chunk_bytes - held)) + 1
            stop = min(done + chunk_rows - row % chunk_rows, full, run.count)
            pending.append(run.slice(done, stop))
            row, held = row + stop - done, held + int(ends[stop] - ends[done])
            done = stop
            if row % chunk_rows == 0 or held >= chunk_bytes:
                yield _chunk(index, pending, columns, max_text_bytes)
                index, pending, held = index + 1, [], 0
        if row == stop_row:
            break
    if pending:
        yield _chunk(index, pending, columns, max_text_bytes)


def count_rows(sources: Sequence[Source], columns: Columns) -> int:
    """The rows of all sources. CSV and JSONL are read for it; Parquet footers tell.

    Raises InputError if a file cannot be opened.
    """
    wanted = _names(columns)
    return sum(
        sum(run.count for run in formats.rows(source, wanted, sys.maxsize))
        if source.rows is None
        else source.rows
        for source in sources
    )


def chunk_of(rows: pa.RecordBatch | Rows, columns: Columns, *, max_text_bytes: int) -> Chunk:
    """Make one chunk, number 0, of rows in hand: a batch in memory, or a run of a file.

    Records of a batch without an id are named batch#<row>. Raises InputError if a batch lacks a
    column, or has it in a type that cannot be read.
    """
    if isinstance(rows, pa.RecordBatch):
        source = Source("batch", Path(), "parquet", rows.nbytes, rows.num_rows, Path())
        check_columns(source, rows.schema, columns)
        rows = Rows(source, 0, rows.num_rows, rows)
    return _chunk(0, [rows], columns, max_text_bytes)


def _rows(sources: Sequence[Source], columns: Columns, skip: int) -> Iterator[Rows]:
    """Yield the rows of all sources end to end, from row ``skip`` on."""
    wanted = _names(columns)
    scored = (*columns.text, columns.conversation, columns.context)
    spare = [name for name in wanted if name not in scored]
    for source in sources:
        end = source.rows or 0
        if source.rows is None or skip < end:
            runs = formats.rows(source, wanted, skip, spare)
            # It looks a run ahead: of Parquet that is a row group, and lost ones are not short.
            for run in runs if source.format == "parquet" else formats.gathered(runs):
                end = run.first + run.count
                if end > skip:
                    yield run.slice(max(skip - run.first, 0), run.count)
        skip = max(skip - end, 0)


def _names(columns: Columns) -> list[str]:
    """The columns in use, each once."""
    names = [
        *columns.text, columns.conversation, columns.id, columns.thread, columns.author,
        columns.time, columns.context, columns.stratum,
    ]  # fmt: skip
    return [name for name in dict.fromkeys(names) if name is not None]


def _sizes(run: Rows, columns: Columns) -> npt.NDArray[np.int64]:
    """Bytes of strings in each row of a run, int64 (rows,)."""
    sizes = np.zeros(run.count, np.int64)
    if run.batch is not None:
        for name in _names(columns):
            sizes += text_bytes(_column(run, name))
    return sizes


def _chunk(index: int, runs: Sequence[Rows], columns: Columns, max_text_bytes: int) -> Chunk:
    texts, offset = [], 0
    for run in runs:
        batch = _texts(run, columns, max_text_bytes)
        record = pc.add(batch.column(0), pa.scalar(offset, pa.int32()))
        texts.append([record, *batch.columns[1:]])
        offset += run.count
    records = _join([records_of(run, columns).columns for run in runs], RECORDS)
    joined = _join(texts, TEXTS)
    if columns.text and columns.thread and not columns.context:
        context = _earlier(joined.column("text"), _codes(records.column("thread_id")))
        joined = joined.set_column(4, TEXTS.field("context"), context)
    return Chunk(index, records, joined)


def _join(parts: Sequence[Sequence[pa.Array]], schema: pa.Schema) -> pa.RecordBatch:
    # Always a copy: a slice would drag the buffers of its whole batch to the workers.
    columns = [pa.concat_arrays(arrays) for arrays in zip(*parts, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def records_of(run: Rows, columns: Columns) -> pa.RecordBatch:
    """What the records of a run are called: ``RECORDS``; columns of text are not needed."""
    numbers = pa.array(np.arange(run.first, run.first + run.count))
    path = pa.array([run.source.path]).take(pa.nulls(run.count, pa.int32()).fill_null(0))
    ids = _keys(_column(run, columns.id))
    if ids.null_count:
        ids = pc.coalesce(ids, pc.binary_join_element_wise(path, numbers.cast(pa.string()), "#"))
    return pa.RecordBatch.from_arrays(
        [
            ids,
            path,
            numbers,
            _keys(_column(run, columns.thread)),
            _keys(_column(run, columns.author)),
            _times(_column(run, columns.time)),
            as_group(_column(run, columns.stratum)),
        ],
        schema=RECORDS,
    )


def _column(run: Rows, name: str | None) -> pa.Array:
    """A column of a run: from the file, else from its folder names, else nulls."""
    if name is None:
        return pa.nulls(run.count, pa.string())
    if run.batch is not None and (position := run.batch.schema.get_field_index(name)) >= 0:
        return run.batch.column(position)
    value = partitions(run.source).get(name)
    return pa.repeat(pa.scalar(value, pa.string()), run.count)


def _keys(column: pa.Array) -> pa.StringArray:
    """Read ids of any type as strings, bytes as hexadecimal; empty and broken ones as null."""
    if isinstance(column.type, pa.UuidType):
        return pa.array([value and str(value) for value in column.to_pylist()], pa.string())
    if is_binary(column.type):
        return pa.array([value and value.hex() for value in column.to_pylist()], pa.string())
    if pa.types.is_floating(column.type):
        column = _wide(column)
        # pandas turns whole numbers into floats where one is missing: 7.0 is written 7.
        whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), 2.0**53))
        null = pa.scalar(None, column.type)
        digits = pc.if_else(whole, column, null).cast(pa.int64()).cast(pa.string())
        column = pc.coalesce(digits, pc.if_else(pc.is_nan(column), null, column).cast(pa.string()))
    texts, _ = as_text(column if is_text(column.type) else column.cast(pa.string()))
    empty = pc.equal(pc.binary_length(texts), 0)
    return pc.if_else(empty, pa.scalar(None, texts.type), texts).cast(pa.string())


def _times(column: pa.Array) -> pa.StringArray:
    """Read times as ISO 8601 (UTC where the zone is known), numbers as epochs, text as it is."""
    kind = column.type
    if pa.types.is_floating(kind):
        column = _wide(column)
        finite = pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
        column = pc.floor(finite).cast(pa.int64(), safe=False)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _epochs(column.cast(pa.int64(), safe=False))
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit, "UTC"))
    if pa.types.is_temporal(kind):
        texts = pc.replace_substring(column.cast(pa.string()), " ", "T", max_replacements=1)
        # Arrow writes "<value out of range: ...>" for a year that its calendar does not reach.
        return pc.if_else(pc.starts_with(texts, "<"), pa.scalar(None, pa.string()), texts)
    return _keys(column)


def _wide(column: pa.Array) -> pa.Array:
    """Floats that Arrow can compute with, which it cannot with float16."""
    return column.cast(pa.float32()) if pa.types.is_float16(column.type) else column


def _epochs(numbers: pa.Int64Array) -> pa.StringArray:
    values = numbers.fill_null(0).to_numpy()
    millis = np.zeros(len(values), np.int64)
    known = np.zeros(len(values), np.bool_)
    for least, ticks in _EPOCHS:
        hit = ~known & (values >= least)
        millis[hit] = values[hit] // ticks * 1000 + values[hit] % ticks * 1000 // ticks
        known |= hit
    times = pa.array(millis).cast(pa.timestamp("ms", "UTC")).cast(pa.string())
    times = pc.replace_substring(times, " ", "T", max_replacements=1)
    return pc.if_else(pa.array(known), times, numbers.cast(pa.string()))


def _texts(run: Rows, columns: Columns, max_text_bytes: int) -> pa.RecordBatch:
    """Texts of a run; ``record`` counts from the first row of the run."""
    context = None
    wanted = columns.text or (columns.conversation,)
    if run.batch is None or not {*wanted} <= {*run.batch.schema.names}:
        # A JSONL file of empty objects has no columns: its texts are null.
        status = np.full(run.count, Status.null_text, np.int8)
        if run.status:
            status[slice(None) if run.lost is None else run.lost] = run.status
        texts = pa.nulls(run.count, pa.large_string())
        return _batch(np.arange(run.count), None, None, texts, None, status)
    if columns.conversation is None:
        texts, bad = _flat(run.batch, columns.text)
        status = _status(texts, bad, max_text_bytes)
        if run.lost is not None:
            status[run.lost] = run.status
        texts = _cut(texts, slice(max_text_bytes))
        if columns.context is not None:
            context, _ = as_text(_column(run, columns.context))
            context = _cut(context, slice(-CONTEXT_BYTES, None))
        return _batch(np.arange(run.count), None, None, texts, context, status)
    talks = _column(run, columns.conversation)
    record, message, roles, texts, bad, lost = _messages(talks)
    status = _status(texts, bad, max_text_bytes)
    status[lost] = Status.unreadable
    if run.lost is not None:
        status[run.lost[record]] = run.status
    texts = _cut(texts, slice(max_text_bytes))
    return _batch(record, message, roles, texts, _earlier(texts, record), status)


def _batch(
    record: npt.NDArray[np.integer],
    message: npt.NDArray[np.integer] | None,
    roles: pa.Array | None,
    texts: pa.LargeStringArray,
    context: pa.LargeStringArray | None,
    status: npt.NDArray[np.int8],
) -> pa.RecordBatch:
    n = len(record)
    return pa.RecordBatch.from_arrays(
        [
            pa.array(record, pa.int32()),
            pa.array(np.full(n, -1) if message is None else message, pa.int32()),
            pa.nulls(n, pa.string()) if roles is None else roles,
            texts,
            pa.nulls(n, pa.large_string()) if context is None else context,
            pa.array(status, pa.int8()),
        ],
        schema=TEXTS,
    )


def _status(
    texts: pa.LargeStringArray, bad: npt.NDArray[np.bool_], max_text_bytes: int
) -> npt.NDArray[np.int8]:
    """Status of each text, int8 (n,): whether there is something to score."""
    status = np.zeros(len(texts), np.int8)
    long = pc.greater(pc.binary_length(texts), max_text_bytes)
    status[long.fill_null(False).to_numpy(zero_copy_only=False)] = Status.too_long
    ink = pc.match_substring_regex(texts, _INK)
    status[~ink.fill_null(True).to_numpy(zero_copy_only=False)] = Status.empty_text
    status[texts.is_null().to_numpy(zero_copy_only=False)] = Status.null_text
    status[bad] = Status.not_utf8
    return status


def _cut(texts: pa.LargeStringArray, kept: slice) -> pa.LargeStringArray:
    """Keep a slice of the bytes of each text, less what it would leave of a cut character."""
    limit = abs(kept.stop or kept.start)
    long = pc.greater(pc.binary_length(texts), limit).fill_null(False)
    if not pc.any(long).as_py():
        return texts
    whole = texts.filter(long).cast(pa.large_binary())
    parts = [value.as_buffer()[kept].to_pybytes().decode(errors="ignore") for value in whole]
    return pc.replace_with_mask(texts, long, pa.array(parts, pa.large_string()))


def _flat(
    batch: pa.RecordBatch, names: Sequence[str]
) -> tuple[pa.LargeStringArray, npt.NDArray[np.bool_]]:
    """Join the text columns with newlines, passing over null and empty ones."""
    return _joined([as_text(batch.column(name)) for name in names])


def _joined(
    read: Sequence[tuple[pa.LargeStringArray, npt.NDArray[np.bool_]]],
) -> tuple[pa.LargeStringArray, npt.NDArray[np.bool_]]:
    """Join texts that ``as_text`` read, at least one, row by row, as ``_flat`` says."""
    if len(read) == 1:
        return read[0]
    columns = [texts for texts, _ in read]
    bad = np.logical_or.reduce([broken for _, broken in read])
    null = pa.scalar(None, pa.large_string())
    filled = [_filled(texts) for texts in columns]
    newline = pa.scalar("\n", pa.large_string())
    joined = filled[0]
    for other in filled[1:]:
        # Pairwise, since joining with null_handling="skip" drops rows where all are null
        # (seen in pyarrow 26).
        both = pc.binary_join_element_wise(joined, other, newline)
        joined = pc.coalesce(both, joined, other)
    joined = joined.fill_null("")
    absent = np.logical_and.reduce([c.is_null().to_numpy(zero_copy_only=False) for c in columns])
    return pc.if_else(pa.array(absent | bad), null, joined), bad


def _messages(
    column: pa.Array,
) -> tuple[
    npt.NDArray[np.integer],
    npt.NDArray[np.integer],
    pa.StringArray,
    pa.LargeStringArray,
    npt.NDArray[np.bool_],
    npt.NDArray[np.bool_],
]:
    """Unfold conversations: (record, message, role, text, not UTF-8, no text in its content).

    A row for each message with a content; one, with message -1, for a conversation without any.
    """
    fields = message_fields(column.type)
    if fields is None:
        raise TypeError(f"not a conversation: {column.type}")
    roles_at, contents_at = fields
    lengths = column.value_lengths().fill_null(0).to_numpy().astype(np.int64)
    children = column.flatten().flatten()  # the first passes over null lists, the second masks
    contents = [_contents(children[at]) for at in contents_at]
    bad = np.logical_or.reduce([broken for _, broken in contents])
    # The first content that says something, else an empty one.
    texts = pc.coalesce(*(_filled(c) for c, _ in contents), *(c for c, _ in contents))
    texts = pc.if_else(pa.array(bad), pa.scalar(None, pa.large_string()), texts)
    there = [children[at].is_valid().to_numpy(zero_copy_only=False) for at in contents_at]
    has_text = texts.is_valid().to_numpy(zero_copy_only=False)
    lost = np.logical_or.reduce(there) & ~has_text & ~bad
    roles = pa.nulls(len(texts), pa.string())
    if roles_at:
        roles = pc.coalesce(*(as_text(children[at])[0] for at in roles_at)).cast(pa.string())

    owner = np.repeat(np.arange(len(lengths)), lengths)
    message = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    said = np.flatnonzero(has_text | bad | lost)
    silent = np.flatnonzero(np.bincount(owner[said], minlength=len(lengths)) == 0)
    record = np.concatenate((owner[said], silent))
    order = np.argsort(record, kind="stable")
    rows = np.append(said, np.full(len(silent), -1))[order]
    position = pa.array(rows, mask=rows < 0)
    # The row after the last, which is also the one before the first, stands for no message.
    message, bad, lost = (
        np.append(column, blank)[rows]
        for column, blank in ((message, -1), (bad, False), (lost, False))
    )
    return record[order], message, roles.take(position), texts.take(position), bad, lost


def _contents(column: pa.Array) -> tuple[pa.LargeStringArray, npt.NDArray[np.bool_]]:
    """Texts of messages, (n,), null where there is none; the texts of lists and structs joined."""
    if is_text(column.type):
        return as_text(column)
    if is_number(column.type):
        return as_text(_keys(column))
    if pa.types.is_struct(column.type):
        children = column.flatten()
        read = [_contents(children[at]) for at in fields_named(PARTS, column.type)]
        if read:
            return _joined(read)
    if not is_list(column.type):
        return pa.nulls(len(column), pa.large_string()), np.zeros(len(column), np.bool_)
    lengths = column.value_lengths().fill_null(0).to_numpy()
    texts, broken = _contents(column.flatten())
    owner = np.repeat(np.arange(len(lengths)), lengths)
    kept = texts.is_valid().to_numpy(zero_copy_only=False)
    counts = np.bincount(owner[kept], minlength=len(lengths))
    bad = np.bincount(owner[broken], minlength=len(lengths)) > 0
    offsets = pa.array(np.append(0, np.cumsum(counts)))
    lists = pa.LargeListArray.from_arrays(offsets, texts.filter(pa.array(kept)))
    joined = pc.binary_join(lists, pa.scalar("\n", pa.large_string()))
    null = pa.scalar(None, pa.large_string())
    return pc.if_else(pa.array((counts == 0) | bad), null, joined), bad


def _filled(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    """Texts with null for the empty ones."""
    null = pa.scalar(None, pa.large_string())
    return pc.if_else(pc.equal(pc.binary_length(texts), 0), null, texts)


def _codes(threads: pa.StringArray) -> npt.NDArray[np.integer]:
    """Number the threads of records; a record without a thread gets one of its own, below 0."""
    indices = threads.dictionary_encode().indices.fill_null(-1)
    codes: npt.NDArray[np.integer] = indices.to_numpy().astype(np.int64)
    alone = codes < 0
    codes[alone] = -1 - np.arange(np.count_nonzero(alone))
    return codes


def _earlier(texts: pa.LargeStringArray, groups: npt.NDArray[np.integer]) -> pa.LargeStringArray:
    """End of the text before each text in its group (a conversation, a thread), or null."""
    order = np.argsort(groups, kind="stable")
    previous = np.full(len(order), -1)
    same = groups[order[1:]] == groups[order[:-1]]
    previous[order[1:][same]] = order[:-1][same]
    ends = _cut(texts, slice(-CONTEXT_BYTES, None))
    return ends.take(pa.array(previous, mask=previous < 0))
