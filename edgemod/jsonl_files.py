"""JSONL files: types told from the first lines, and the rows as pyarrow reads them.

pyarrow gives up a whole block at a line that is damaged or not of the types. Such a block is read
line by line, so that a line costs itself alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, groupby, islice
from typing import Any, Final

import pyarrow as pa
import pyarrow.json as pa_json

from edgemod import csv_files
from edgemod.messages import MESSAGES, is_talk, talk
from edgemod.sources import DAMAGE, Lost, Source, content
from edgemod.words import Status

_LOST: Final = b"\0"
"""In place of a line that is too long: no JSON."""

SALVAGE_ROWS: Final = 256
"""Rows of Python objects held at a time."""

SAMPLE_LINES: Final = 1000
"""Lines of JSONL that column types are told from."""

_SALVAGE = (*DAMAGE, ValueError, TypeError, OverflowError, RecursionError)


def schema(source: Source) -> pa.Schema:
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
    if any(map(is_talk, values)) and 2 * lists >= sum(value is not None for value in values):
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


def batches(
    source: Source, fields: pa.Schema, skip: int = 0, spare: Collection[str] = ()
) -> Iterator[pa.RecordBatch | Lost]:
    """Yield the rows of a file with those ``fields``, in order; lines that are blank are none.

    Lines among the first ``skip`` may come out as ``Lost`` without being read. A value that is not
    of its field's type is null in the fields ``spare``; a row with one in another field is lost.
    """
    position = 0
    try:
        for lines in _blocks(source):
            if position + len(lines) <= skip:
                yield Lost(len(lines), Status.ok)
            else:
                yield from _read(lines, fields, spare)
            position += len(lines)
    except OSError:  # the compressed stream is cut
        yield Lost(1)


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


def _read(
    lines: list[bytes], fields: pa.Schema, spare: Collection[str]
) -> Iterator[pa.RecordBatch | Lost]:
    items = (_json_row(line, fields) for line in lines)
    if MESSAGES in fields.types or b"".join(lines[:1]).lstrip().startswith(b"null"):
        # pyarrow would pass over every field of a message that the first lines did not have; and
        # a block that begins with a null instead of an object ends the process (pyarrow 26).
        yield from _rows(items, fields, spare)
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
        yield from table.to_batches()
        return
    yield from _rows(items, fields, spare)


def _json_row(line: bytes, fields: pa.Schema) -> dict[str, Any] | None:
    """Read one line of a block that pyarrow refused, or None if it cannot be read."""
    try:
        row = json.loads(line.decode("utf-8", "surrogateescape"), object_pairs_hook=_Object)
        if not isinstance(row, _Object) or not row.repeated.isdisjoint(fields.names):
            return None
        if any(_repeats(row.get(field.name)) for field in fields if field.type == MESSAGES):
            return None
        return {
            field.name: talk(row.get(field.name)) if field.type == MESSAGES else row.get(field.name)
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
    items: Iterable[dict[str, Any] | None], fields: pa.Schema, spare: Collection[str]
) -> Iterator[pa.RecordBatch | Lost]:
    """Turn rows of Python objects, a block at a time, into batches."""
    items = iter(items)
    while block := list(islice(items, SALVAGE_ROWS)):
        for lost, group in groupby(block, lambda item: item is None):
            values = [item or {} for item in group]
            if lost:
                yield Lost(len(values))
            else:
                yield from _built(values, fields, spare)


def _built(
    values: list[dict[str, Any]], fields: pa.Schema, spare: Collection[str]
) -> Iterator[pa.RecordBatch | Lost]:
    """Build a batch; where that fails build halves, down to the single rows that do not fit."""
    try:
        batch = _batch(values, fields)
    except _SALVAGE:
        pass
    else:
        yield batch
        return
    fitted = [{f.name: _fitted(row[f.name], f, spare) for f in fields} for row in values]
    half = len(values) // 2
    if fitted != values:
        yield from _built(fitted, fields, spare)
    elif half:
        yield from _built(values[:half], fields, spare)
        yield from _built(values[half:], fields, spare)
    else:
        yield _single(values[0], fields, spare)


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
    row: dict[str, Any], fields: pa.Schema, spare: Collection[str]
) -> pa.RecordBatch | Lost:
    """One row of which a value is not of its column's type: as a text, if that fits; else null."""
    cells = []
    for field in fields:
        try:
            cells.append(_cell(row[field.name], field))
        except _SALVAGE as error:
            if field.name not in spare:
                bad_text = isinstance(error, UnicodeError)  # a lone surrogate in a conversation
                status = Status.not_utf8 if bad_text else Status.unreadable
                return Lost(1, status)
            cells.append(pa.nulls(1, field.type))
    return pa.RecordBatch.from_arrays(cells, fields.names)


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
