"""CSV files: the header, rows as pyarrow reads them, and rows one by one where it cannot.

pyarrow is fast and gives up at a malformed row; Python's reader goes on after it. Both take the
quotes strictly: a stray one must make its record unreadable, never one text of many.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.csv as pa_csv

from edgemod.errors import InputError
from edgemod.sources import DAMAGE, Source, open_stream

CSV_BLOCK: Final = 16 << 20
"""Bytes of CSV parsed at a time; a row that is longer is left to the slower reader."""

FIELD_CHARACTERS: Final = 1 << 24
"""Longest CSV field, as Python's reader counts, which holds 4 bytes for each character: a quote
that is never closed costs some 100 MB before the rest of the file is given up as one row."""

NAME_CHARACTERS: Final = 64
"""Longest name of a CSV column: what is longer is taken for a record."""

_LINE_CHARACTERS: Final = 1 << 16
"""Characters of a first line in which another separator is looked for."""

_OPEN_FIELD: Final = re.compile(rb'"(?:[^"]++|"")*+')
"""A quoted field without the quote that closes it."""

_AFTER_QUOTE: Final = """expected after '"'"""
"""What csv.Error says of text after a closing quote, in Python 3.11 to 3.14."""

csv.field_size_limit(FIELD_CHARACTERS)


def schema(source: Source) -> pa.Schema:
    """The columns of a CSV, all strings; none of one without a line.

    Raises InputError where the first line cannot be a header, UnicodeError where it is not UTF-8,
    csv.Error where it is malformed, OSError where the file cannot be read.
    """
    with _decoded(source) as lines:
        rows = csv.reader(lines, delimiter=_delimiter(source), strict=True)
        header = next(filter(None, rows), [])
    for name in header:
        name.encode()  # raises if it is not UTF-8
    names = [name for name in header if name.strip()]
    distinct = len(set(names)) == len(names)
    if header and not (names and distinct and max(map(len, names)) <= NAME_CHARACTERS):
        raise no_header(source)
    return pa.schema([(name, pa.string()) for name in header])


def separator(source: Source) -> str | None:
    """What seems to separate the columns of a CSV in which nothing does, or None."""
    try:
        with _decoded(source) as lines:
            line = lines.readline(_LINE_CHARACTERS)
    except DAMAGE:
        return None
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


def batches(source: Source, header: Sequence[str], fields: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the rows in order, the columns ``fields`` of them, as pyarrow reads them.

    ``header``: the names of all columns. Bytes are not checked to be UTF-8. Raises one of DAMAGE at
    the first row that is malformed; the rows before it in its block have not come.
    """
    start = True
    for data in _whole_rows(open_stream(source), _delimiter(source)):
        table = pa_csv.read_csv(
            pa.BufferReader(data),
            read_options=pa_csv.ReadOptions(
                use_threads=False,
                block_size=len(data) + 1,
                column_names=[] if start else header,  # [] reads them from the first row
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=_delimiter(source), newlines_in_values=True
            ),
            convert_options=pa_csv.ConvertOptions(
                check_utf8=False, include_columns=fields.names, column_types=fields
            ),
        )
        start = False
        yield from table.to_batches()


def _whole_rows(stream: pa.NativeFile, delimiter: str) -> Iterator[pa.Buffer]:
    """Yield a CSV's bytes, about a block of whole rows at a time, each after a line end.

    Raises ArrowInvalid at a row that is longer than a block, or has a malformed quoted field.
    pyarrow accepts a quote that is still open at the end of the file, and text after a closing
    quote: what a stray quote opened and the next quoted field closed. Either would make one record
    of many.
    """
    ends = re.escape(delimiter).encode() + rb"\n\r"
    # A quote opens a field only at its start; elsewhere it stands for itself.
    row = rb'(?:[^"\n\r]++|(?<=[^%b])"|(?<=[%b])"(?:[^"]++|"")*+"(?=[%b]))*+' % (ends, ends, ends)
    part, rows = re.compile(row), re.compile(rb"(?:%b[\n\r])*+" % row)
    # A line end before a row is a blank line to pyarrow, and keeps it from taking a row that begins
    # with a byte order mark for the start of a file.
    rest = b"\n"
    block, first = b"", True
    with stream:
        while first or block:
            block = stream.read(CSV_BLOCK)
            data = rest + (block.removeprefix(b"\xef\xbb\xbf") if first else block or b"\n")
            first = False
            if b'"' in data:
                end = _end(rows, data, 1)
                at = _end(part, data, end)  # of what the row has that is sound
                closed = at < len(data) and _end(_OPEN_FIELD, data, at)
                # A quote that is the last byte may be the first of two.
                if at < len(data) and (not block or closed < len(data) - data.endswith(b'"')):
                    raise pa.ArrowInvalid("a quoted field is not closed, or is followed by text")
            else:
                end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
            if len(data) - end > CSV_BLOCK:
                raise pa.ArrowInvalid("a row is longer than a block")
            if data[:end].strip(b"\r\n"):
                yield pa.py_buffer(data).slice(0, end)
            rest = data[end - 1 :]


def _end(pattern: re.Pattern[bytes], data: bytes, start: int) -> int:
    """Where a match of ``pattern`` at ``start`` ends; ``start`` if there is none."""
    found = pattern.match(data, start)
    return found.end() if found else start


def lines(source: Source) -> Iterator[dict[str, str] | None]:
    """Rows by column name, None for malformed ones; bytes that are not UTF-8 as surrogates.

    What follows a row that cannot be told from the next is one malformed row.
    """
    with _decoded(source) as text:
        reader = csv.reader(text, delimiter=_delimiter(source), strict=True)
        header = next(filter(None, reader), [])
        while True:
            try:
                values = next(reader)
            except StopIteration:
                return
            except (csv.Error, *DAMAGE) as error:
                yield None
                # Text after a closing quote: the quotes are even, so the next line is a row.
                if _AFTER_QUOTE in str(error):
                    continue
                # Nothing can follow a cut stream. After a field that is too long the next line
                # may be inside quotes: to go on would take text for records.
                return
            if values:
                whole = len(values) == len(header)
                yield dict(zip(header, values, strict=True)) if whole else None


def _decoded(source: Source) -> io.TextIOWrapper:
    """Open a file as text; bytes that are not UTF-8 become lone surrogates."""
    return io.TextIOWrapper(open_stream(source), "utf-8-sig", "surrogateescape", newline="")


def _delimiter(source: Source) -> str:
    return "\t" if ".tsv" in source.file.name.lower() else ","
