"""Streaming rows out of Parquet, CSV and JSONL files, damaged ones included.

Every row of a file comes out exactly once and in order: decoded, or counted as lost. What can be
decoded depends on the file alone, never on where reading starts.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from edgemod import csv_files
from edgemod.errors import InputError
from edgemod.sources import DAMAGE, Source, content, open_parquet, unreadable
from edgemod.words import Status

BATCH_ROWS: Final = 4096
"""Rows decoded at a time, at most. Set by the file alone, so that damage costs the same rows
wherever reading starts."""

BATCH_BYTES: Final = 16 << 20
"""Bytes of Parquet decoded at a time, about: fewer rows where the footer says they are long."""

_SHORT_ROWS: Final = 256
_SHORT_BYTES: Final = 1 << 20
"""Most rows of a run that is put together with others, and most bytes of them all."""

_LOST: Final = b"\0"
"""In place of a line that is too long: no JSON."""

SALVAGE_ROWS: Final = 256
"""Rows of Python objects held at a time."""

SAMPLE_LINES: Final = 1000
"""Lines of JSONL that column types are told from."""

ROLES: Final = ("role", "from", "speaker", "author")
CONTENTS: Final = ("content", "value", "text", "message")
"""Names of the fields of a message, best first, as ``plain_name`` writes them."""

PARTS: Final = ("text", "content", "value", "parts")
"""Names of the fields that hold the text of a content that is an object, and of its parts."""

MESSAGES: Final = pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(pa.string()))]))
"""A conversation of JSONL as rows have it. A content that is there but has no text is an empty
list, so that it can be told from none."""

_SILENT: Final = {*CONTENTS, "tool_calls", "function_call"}

_SALVAGE = (*DAMAGE, ValueError, TypeError, OverflowError, RecursionError)


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
        return csv_files.schema(source) if source.format == "csv" else _jsonl_schema(source)
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
    if source.format == "jsonl":
        return _jsonl(source, names, skip, frozenset(spare))
    return (_parquet if source.format == "parquet" else _csv)(source, names, skip)


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


def _csv(source: Source, names: Sequence[str], skip: int) -> Iterator[Rows]:
    header = schema(source).names
    present = {*header}
    fields = pa.schema([(name, pa.string()) for name in names if name in present])
    if not header:
        return
    position = 0
    for batch in csv_files.batches(source, header, fields):
        if isinstance(batch, int):
            yield Rows(source, position, batch, None, Status.unreadable)
            position += batch
        else:
            yield Rows(source, position, batch.num_rows, batch)
            position += batch.num_rows


def _jsonl_schema(source: Source) -> pa.Schema:
    """Types of a JSONL file's columns, from the first lines that have any; mixed is a string."""
    samples: dict[str, list[Any]] = {}
    sampled = 0
    for block in _blocks(source):
        for line in block:
            try:
                row = json.loads(line)
            except _SALVAGE:
                continue
            if isinstance(row, dict) and row:
                sampled += 1
                for name, value in row.items():
                    samples.setdefault(name, []).append(value)
                if sampled == SAMPLE_LINES:
                    break
        if samples:
            break
    return pa.schema([(name, _type(values)) for name, values in samples.items()])


def _type(values: list[Any]) -> pa.DataType:
    lists = sum(isinstance(value, list) for value in values)
    if any(map(_is_talk, values)) and 2 * lists >= sum(value is not None for value in values):
        return MESSAGES
    try:
        return _common(values)
    except RecursionError:
        return pa.string()


def _common(values: list[Any]) -> pa.DataType:
    """The type of most values: odd ones must not cost the others. Of texts and numbers a string."""
    try:
        kind = pa.array(values).type
        return pa.string() if pa.types.is_null(kind) else kind
    except _SALVAGE:
        pass
    groups: dict[Any, list[Any]] = {None: [], dict: [], list: []}  # the first wins a tie
    for value in values:
        groups[type(value) if isinstance(value, dict | list) else None].append(value)
    most = max(groups, key=lambda kind: sum(value is not None for value in groups[kind]))
    if most is dict:
        fields: dict[str, list[Any]] = {}
        for name, value in chain.from_iterable(map(dict.items, groups[dict])):
            fields.setdefault(name, []).append(value)
        return pa.struct([(name, _common(found)) for name, found in fields.items()])
    if most is list:
        return pa.list_(_common([*chain.from_iterable(groups[list])]))
    return _common(groups[None]) if len(groups[None]) < len(values) else pa.string()


def _jsonl(
    source: Source, names: Sequence[str], skip: int, spare: Collection[str]
) -> Iterator[Rows]:
    types = schema(source)
    present = {*types.names}
    fields = pa.schema([types.field(name) for name in names if name in present])
    position = 0
    try:
        for lines in _blocks(source):
            if position + len(lines) <= skip:
                yield Rows(source, position, len(lines), None)
            else:
                yield from _json_lines(source, position, lines, fields, spare)
            position += len(lines)
    except OSError:  # the compressed stream is cut
        yield Rows(source, position, 1, None, Status.unreadable)


def _blocks(source: Source) -> Iterator[list[bytes]]:
    """Yield the lines of a file that are not blank, about a block at a time; a long one whole.

    Of a line over ``ROW_BYTES`` nothing is kept but ``_LOST``. Raises OSError as ``content`` does,
    after the whole lines before.
    """
    rest: list[bytes] = []  # of a line that has not ended; joined once
    held = 0  # bytes of it
    for block in content(source):
        head, newline, tail = block.rpartition(b"\n")
        if newline:
            lines = b"".join((*rest, head)).split(b"\n")
            rest, held = [], 0
            yield [line for line in lines if line.strip()]
        if rest or tail.strip():  # blanks before a line are no part of it
            held += len(tail)
            rest = [_LOST] if held > csv_files.ROW_BYTES else [*rest, tail]
    if last := b"".join(rest).strip():
        yield [last]


def _json_lines(
    source: Source, first: int, lines: list[bytes], fields: pa.Schema, spare: Collection[str]
) -> Iterator[Rows]:
    items = (_json_row(line, fields) for line in lines)
    if MESSAGES in fields.types or b"".join(lines[:1]).lstrip().startswith(b"null"):
        # pyarrow would pass over every field of a message that the first lines did not have; and
        # a block that begins with a null instead of an object ends the process (pyarrow 26).
        yield from _rows(source, first, items, fields, spare)
        return
    data = b"\n".join(lines)
    try:
        table = pa_json.read_json(
            pa.BufferReader(data),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pa_json.ParseOptions(
                explicit_schema=fields, unexpected_field_behavior="ignore"
            ),
        )
    except DAMAGE:
        table = None
    if table is not None and table.num_rows == len(lines):
        for batch in table.to_batches():
            yield Rows(source, first, batch.num_rows, batch)
            first += batch.num_rows
        return
    yield from _rows(source, first, items, fields, spare)


def _json_row(line: bytes, fields: pa.Schema) -> dict[str, Any] | None:
    """Read one line of a block that pyarrow refused, or None if it cannot be read."""
    try:
        row = json.loads(line.decode("utf-8", "surrogateescape"), object_pairs_hook=_Object)
        if not isinstance(row, _Object) or not row.repeated.isdisjoint(fields.names):
            return None
        if any(_repeats(row.get(field.name)) for field in fields if field.type == MESSAGES):
            return None
        return {
            field.name: _talk(row.get(field.name))
            if field.type == MESSAGES
            else row.get(field.name)
            for field in fields
        }
    except _SALVAGE:
        return None


class _Object(dict[str, Any]):
    """A JSON object and the keys that it repeats: either value may be the text.

    pyarrow refuses a block of lines in which a column that is read is repeated. What is not read
    may be.
    """

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        few = len(self) == len(pairs)
        counts = Counter(() if few else (key for key, _ in pairs))
        self.repeated = frozenset(key for key, count in counts.items() if count > 1)


def _repeats(value: Any) -> bool:
    """Whether a message, or what a message consists of, repeats a key."""
    if isinstance(value, _Object):
        return bool(value.repeated) or any(map(_repeats, value.values()))
    return isinstance(value, list) and any(map(_repeats, value))


def _rows(
    source: Source,
    first: int,
    items: Iterable[dict[str, Any] | None],
    fields: pa.Schema,
    spare: Collection[str],
) -> Iterator[Rows]:
    """Turn rows of Python objects, a block at a time, into runs."""
    items = iter(items)
    while block := list(islice(items, SALVAGE_ROWS)):
        for lost, group in groupby(block, lambda item: item is None):
            values = [item or {} for item in group]
            if lost:
                yield Rows(source, first, len(values), None, Status.unreadable)
            else:
                yield from _built(source, first, values, fields, spare)
            first += len(values)


def _built(
    source: Source,
    first: int,
    values: list[dict[str, Any]],
    fields: pa.Schema,
    spare: Collection[str],
) -> Iterator[Rows]:
    """Build a batch; where that fails build halves, down to the single rows that do not fit."""
    try:
        batch = _batch(values, fields)
    except _SALVAGE:
        pass
    else:
        yield Rows(source, first, len(values), batch)
        return
    fitted = [{f.name: _fitted(row[f.name], f, spare) for f in fields} for row in values]
    half = len(values) // 2
    if fitted != values:
        yield from _built(source, first, fitted, fields, spare)
    elif half:
        yield from _built(source, first, values[:half], fields, spare)
        yield from _built(source, first + half, values[half:], fields, spare)
    else:
        yield _single(source, first, values[0], fields, spare)


def _fitted(value: Any, field: pa.Field, spare: Collection[str]) -> Any:
    """What can be said of a value without a look at others: a number is a text, if that is wanted.

    Of an object or a list in a column that is ``spare``, as much as is of its type.
    """
    if pa.types.is_string(field.type) and isinstance(value, int | float):
        return str(value)
    if field.name in spare and pa.types.is_nested(field.type):
        return _pruned(value, field.type)
    return value


def _pruned(value: Any, kind: pa.DataType) -> Any:
    """As much of a value as is of its type, the rest null; numbers as texts."""
    if pa.types.is_struct(kind):
        known = isinstance(value, dict)
        return {f.name: _pruned(value.get(f.name), f.type) for f in kind} if known else None
    if pa.types.is_list(kind):
        known = isinstance(value, list)
        return [_pruned(item, kind.value_type) for item in value] if known else None
    if pa.types.is_string(kind) and isinstance(value, int | float):
        return str(value)
    try:
        pa.scalar(value, kind)
    except _SALVAGE:
        return None
    return value


def _single(
    source: Source, first: int, row: dict[str, Any], fields: pa.Schema, spare: Collection[str]
) -> Rows:
    """One row of which a value is not of its column's type: as a text, if that fits; else null."""
    cells = []
    for field in fields:
        try:
            cells.append(_cell(row[field.name], field))
        except _SALVAGE as error:
            if field.name not in spare:
                bad_text = isinstance(error, UnicodeError)  # a lone surrogate in a conversation
                status = Status.not_utf8 if bad_text else Status.unreadable
                return Rows(source, first, 1, None, status)
            cells.append(pa.nulls(1, field.type))
    return Rows(source, first, 1, pa.RecordBatch.from_arrays(cells, fields.names))


def _cell(value: Any, field: pa.Field) -> pa.Array:
    """An array of one value, as a text if it is not of the field's type; raises if that fails."""
    try:
        return _batch([{field.name: value}], pa.schema([field])).column(0)
    except _SALVAGE:
        if pa.types.is_nested(field.type):
            raise
    text = str(value) if isinstance(value, int | float) else value
    return _batch([{field.name: text}], pa.schema([(field.name, pa.string())])).column(0)


def _batch(values: list[dict[str, Any]], fields: pa.Schema) -> pa.RecordBatch:
    """Build a batch whose strings need not be UTF-8; raises for values of other types."""
    rows = [
        {
            name: value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
            for name, value in row.items()
        }
        for row in values
    ]
    text = [pa.types.is_string(field.type) for field in fields]
    raw = pa.schema(
        [(f.name, pa.binary() if t else f.type) for f, t in zip(fields, text, strict=True)]
    )
    # By way of structs, which have a length even without a field.
    built = pa.RecordBatch.from_struct_array(pa.array(rows, pa.struct(raw)))
    if not any(text):
        return built
    columns = [
        column.cast(pa.string(), safe=False) if t else column  # not safe: not checked
        for column, t in zip(built.columns, text, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=fields)


@functools.lru_cache(4096)
def plain_name(name: str) -> str:
    """Write createdAt, "Created At" and CREATED_AT alike: created_at."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")


def _is_talk(value: Any) -> bool:
    """Whether a JSON value is a list with a message in it: an object that may have a text."""
    return isinstance(value, list) and any(
        plain_name(name) in CONTENTS and (content is None or isinstance(content, str | list | dict))
        for item in value
        if isinstance(item, dict)
        for name, content in item.items()
    )


def _talk(value: Any) -> Any:
    """Bring a conversation to the type ``MESSAGES``; what is not a list is left to fail there."""
    return [_message(item) for item in value] if isinstance(value, list) else value


def _message(item: Any) -> dict[str, Any] | None:
    """Reduce a message to its role and the strings of its content; a bare one has no role."""
    if item is None:
        return None
    if not isinstance(item, dict):
        return {"role": None, "content": _strings(item)}
    pairs = sorted(item.items(), key=lambda pair: pair[1] is not None)  # of two names the said one
    named = {plain_name(name): value for name, value in pairs}
    role = next((named[name] for name in ROLES if isinstance(named.get(name), str)), None)
    contents = [named[name] for name in CONTENTS if named.get(name) is not None]
    # Silent only if it says so: its text may have a name that is not known here.
    if not contents and (named.keys() & _SILENT or named.keys() <= {*ROLES}):
        return {"role": role, "content": None}
    return {"role": role, "content": max(map(_strings, contents), key=any, default=[])}


def _strings(content: Any) -> list[str]:
    """Collect the strings of a content and of its parts, however deep; numbers as text."""
    if isinstance(content, str):
        return [content]
    if isinstance(content, int | float) and not isinstance(content, bool):
        return [str(content)]
    if isinstance(content, dict):
        content = [part for name, part in content.items() if plain_name(name) in PARTS]
    return [s for part in content for s in _strings(part)] if isinstance(content, list) else []
