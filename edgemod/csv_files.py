"""CSV files: the header, and the rows as pyarrow reads them.

pyarrow gives up at a malformed row, and takes what a stray quote makes of many rows for one. So
edgemod looks for the ends of rows itself, quotes taken strictly, and hands pyarrow whole ones: a
malformed row, or one that is too long, costs itself alone.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, compress, groupby
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.csv as pa_csv

from edgemod.errors import InputError
from edgemod.sources import DAMAGE, Lost, Source, content, format_suffix

ROW_BYTES: Final = 1 << 25
"""Longest row of a CSV. Of a longer one nothing is kept but where it ends."""

NAME_CHARACTERS: Final = 64
"""Longest name of a CSV column: what is longer is taken for a record."""

_LINE_BYTES: Final = 1 << 16
"""Bytes of a first line in which another separator is looked for."""

_TOGETHER_BYTES: Final = 1 << 16
"""Bytes of rows between malformed ones that pyarrow reads at a time, at most."""

_OPEN_FIELD: Final = re.compile(rb'"(?:[^"]++|"")*+')
"""A quoted field without the quote that closes it."""


class _Grammar(NamedTuple):
    """What the bytes of a CSV are made of, each an expression that matches without a choice.

    Wherever one is matched, the byte before is the end of a field or row.
    """

    part: re.Pattern[bytes]
    """A row without its end, as far as it is sound."""
    rows: re.Pattern[bytes]
    """Sound rows, any number."""
    row: re.Pattern[bytes]
    """One sound row."""
    line: re.Pattern[bytes]
    """One row; a torn one, with text after a closing quote, up to the end of that line."""
    field: re.Pattern[bytes]
    """One field of a sound row, and what ends it."""


@functools.cache
def _grammar(delimiter: str) -> _Grammar:
    ends = re.escape(delimiter).encode() + rb"\n\r"
    quoted = rb'"(?:[^"]++|"")*+"'
    # A quote opens a field only at its start; elsewhere it stands for itself.
    part = rb'(?:[^"\n\r]++|(?<=[^%b])"|(?<=[%b])%b(?=[%b]))*+' % (ends, ends, quoted, ends)
    return _Grammar(
        part=re.compile(part),
        rows=re.compile(rb"(?:%b[\n\r])*+" % part),
        row=re.compile(rb"%b[\n\r]" % part),
        line=re.compile(rb"%b(?:%b[^\n\r]++)?+[\n\r]" % (part, quoted)),
        field=re.compile(rb"(?:%b|[^%b]*+)[%b]" % (quoted, ends, ends)),
    )


def schema(source: Source) -> pa.Schema:
    """The columns of a CSV, all strings; none of one without a line.

    Raises InputError where the first line cannot be a header or the file cannot be opened,
    UnicodeError where that line is not UTF-8, OSError where it cannot be read.
    """
    grammar = _grammar(_delimiter(source))
    found = _whole_rows(content(source), grammar)
    rows = next((rows for rows in found if rows is None or not _is_blank(rows)), b"")
    if rows is None:
        raise no_header(source)
    fields = grammar.field.findall(rows, *_first_row(rows, grammar))
    header = [_unquoted(field[:-1]).decode() for field in fields]
    names = [name for name in header if name.strip()]
    distinct = len(set(names)) == len(names)
    if header and not (names and distinct and max(map(len, names)) <= NAME_CHARACTERS):
        raise no_header(source)
    return pa.schema([(name, pa.string()) for name in header])


def _first_row(rows: bytes, grammar: _Grammar) -> tuple[int, int]:
    """Where the first row that is not blank starts and ends."""
    start = len(rows) - len(rows.lstrip(b"\n\r"))
    return start, _end(grammar.row, rows, start)


def _unquoted(field: bytes) -> bytes:
    return field[1:-1].replace(b'""', b'"') if field.startswith(b'"') else field


def separator(source: Source) -> str | None:
    """What seems to separate the columns of a CSV in which nothing does, or None."""
    try:
        start = next(content(source), b"")[:_LINE_BYTES]
    except OSError:
        return None
    line = next(iter(start.splitlines()), b"").decode("latin-1")
    if _delimiter(source) in line:
        return None
    return next((other for other in (";", "\t", "|", ",") if other in line), None)


def no_header(source: Source, fix: str = "") -> InputError:
    """Say that a CSV's first line is no header, without quoting it: it may be a record."""
    if other := separator(source):
        shown = {"\t": "tabs", ",": "commas"}.get(other, f"'{other}'")
        wanted = {"\t": "tabs"}.get(_delimiter(source), "commas")
        return InputError(
            f"seems to be separated by {shown}, not by {wanted}",
            where=source.path,
            fix="convert it to a comma-separated CSV with a header, or to Parquet or JSONL; "
            "edgemod reads .csv with commas and .tsv with tabs",
        )
    return InputError(
        "this CSV seems to have no header",
        where=source.path,
        fix=fix
        or "begin the file with a line of column names, all different, "
        f"each of at most {NAME_CHARACTERS} characters",
    )


def batches(
    source: Source, header: Sequence[str], fields: pa.Schema
) -> Iterator[pa.RecordBatch | Lost]:
    """Yield the rows in order, the columns ``fields`` of them; for malformed ones how many.

    ``header``: the names of all columns. Bytes are not checked to be UTF-8. What follows a quote
    that is never closed, or the place where a file can no longer be read, is one malformed row.
    """
    grammar = _grammar(_delimiter(source))
    below_header = damaged = False
    waiting: list[bytes | None] = []
    held = 0
    try:
        for rows in _whole_rows(content(source), grammar):
            if rows is not None and not below_header:
                if _is_blank(rows):
                    continue
                _, end = _first_row(rows, grammar)
                rows, below_header = rows[end - 1 :], True
            size = len(rows or b"x")
            if waiting and held + size > _TOGETHER_BYTES:
                yield from _parsed(waiting, source, header, fields)
                waiting, held = [], 0
            waiting.append(rows)
            held += size
    except OSError:
        damaged = True
    yield from _parsed(waiting, source, header, fields)
    if damaged:
        yield Lost(1)


def _is_blank(rows: bytes) -> bool:
    return not rows.strip(b"\n\r")


def _parsed(
    stretches: Sequence[bytes | None], source: Source, header: Sequence[str], fields: pa.Schema
) -> Iterator[pa.RecordBatch | Lost]:
    """Yield stretches of whole rows, None for a malformed row between them, as ``batches`` does."""
    found = [rows for rows in stretches if rows is None or not _is_blank(rows)]
    if len(found) == 1 and found[0] is not None:
        try:
            yield from _table(found[0], source, header, fields).to_batches()
            return
        except DAMAGE:
            pass
    # A row is torn, or has more or fewer fields than the header: pyarrow gets the others.
    grammar = _grammar(_delimiter(source))
    each: list[bytes] = []  # b"" for a malformed one
    for rows in found:
        each += [b""] if rows is None else filter(_is_row, grammar.row.findall(rows))
    whole = [bool(row) and len(grammar.field.findall(row)) == len(header) for row in each]
    table = None
    if any(whole):
        with suppress(*DAMAGE):
            table = _table(b"\n" + b"".join(compress(each, whole)), source, header, fields)
    if table is None or table.num_rows != sum(whole):
        if each:
            yield Lost(len(each))
        return
    batch = table.combine_chunks().to_batches()[0]
    start = 0
    for sound, group in groupby(whole):
        count = len(list(group))
        if sound:
            yield batch.slice(start, count)
            start += count
        else:
            yield Lost(count)


def _is_row(row: bytes) -> bool:
    return len(row) > 1  # else it is blank


def _table(rows: bytes, source: Source, header: Sequence[str], fields: pa.Schema) -> pa.Table:
    """Read whole rows after a line end; raises one of DAMAGE if any is malformed.

    To pyarrow that line end is a blank line, and keeps it from taking a row that begins with a byte
    order mark for the start of a file.
    """
    return pa_csv.read_csv(
        pa.BufferReader(rows),
        read_options=pa_csv.ReadOptions(
            use_threads=False, block_size=len(rows) + 1, column_names=header
        ),
        parse_options=pa_csv.ParseOptions(delimiter=_delimiter(source), newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            check_utf8=False, include_columns=fields.names, column_types=fields
        ),
    )


def _whole_rows(blocks: Iterable[bytes], grammar: _Grammar) -> Iterator[bytes | None]:
    """Yield a CSV's bytes, some whole rows at a time, each stretch after a line end.

    None for each row that has text after a closing quote, is longer than ``ROW_BYTES``, or has a
    quote that is never closed.
    """
    rest = b"\n"  # what is not yet yielded, after the byte before it
    at = 1  # how far it is known to be sound
    lost = False  # whether the row at hand is too long, and ``rest`` only stands for it
    for block in chain(blocks, (b"\n",)):
        data, start = rest + block, 1
        while True:
            end = at if lost else _end(grammar.rows, data, at)
            if end > at:
                yield data[start - 1 : end]
                start = at = end
            line = grammar.line.match(data, at)
            if line is None:
                break
            yield None
            lost, start = False, line.end()
            at = start
        rest = data[start - 1 :]
        at = _end(grammar.part, data, at) - start + 1
        if lost or len(rest) > ROW_BYTES:
            rest, at, lost = b"\n" + _short(rest, at), 1, True
    if len(rest) > 1:
        yield None


def _short(data: bytes, at: int) -> bytes:
    """A short row that goes on as the unfinished row in ``data`` does, which is sound up to at."""
    if at == len(data):
        return b"x" + data[-1:]
    # In a quoted field; after one, if a quote and some text follow.
    closed = _end(_OPEN_FIELD, data, at)
    return b'"' + data[closed : closed + 2]


def _end(pattern: re.Pattern[bytes], data: bytes, start: int) -> int:
    """Where a match of ``pattern`` at ``start`` ends; ``start`` if there is none."""
    found = pattern.match(data, start)
    return found.end() if found else start


def _delimiter(source: Source) -> str:
    return "\t" if format_suffix(source.file) == ".tsv" else ","
