"""Looking at a dump before a run: its columns, its lengths, and the command to start with."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from edgemod import encryption, formats
from edgemod.columns import Columns, is_header, is_text, message_fields, resolve_columns
from edgemod.errors import InputError
from edgemod.records import read_chunks
from edgemod.sources import DAMAGE, Source, discover, open_parquet
from edgemod.words import counted

SAMPLE_ROWS: Final = 20_000
SAMPLE_ROW_GROUPS: Final = 20
EDGES: Final = (0, 1, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000)
"""Lower ends of the histogram's buckets, in characters (code points)."""


@dataclass(frozen=True)
class Column:
    """A column of the file; ``role`` is what a run would read it as, or "" if it would not."""

    name: str
    type: str
    role: str


@dataclass(frozen=True)
class Inspection:
    """What ``inspect`` found.

    ``rows``, ``row_groups`` and ``codecs`` are None, None and () for CSV and JSONL; ``codecs`` is
    read from the first row groups. ``columns`` are those of the first of ``files``. ``histogram``
    counts the texts of the first ``sampled`` records by length: (characters, count). ``unscored``
    is how many texts of these cannot be scored. ``command`` is ready for a shell.
    """

    file: str
    files: int
    format: str
    size: int
    rows: int | None
    row_groups: int | None
    codecs: tuple[str, ...]
    columns: tuple[Column, ...]
    histogram: tuple[tuple[str, int], ...]
    sampled: int
    unscored: int
    notices: tuple[str, ...]
    command: str

    @property
    def headline(self) -> str:
        """The file in one line."""
        rows = "rows not counted" if self.rows is None else counted(self.rows, "row")
        files = f"{self.files:,} files, " if self.files > 1 else ""
        line = f"{self.file}: {files}{self.format}, {counted(self.size, 'byte')}, {rows}"
        if self.row_groups is not None:
            codecs = " and ".join(self.codecs) or "no"
            line += f" in {counted(self.row_groups, 'row group')}, {codecs} compression"
        return line


def inspect(path: str | Path) -> Inspection:
    """Describe a file, or those of a folder or glob as one dump, and suggest how to triage it.

    Reads about SAMPLE_ROWS rows and the footer of every Parquet file. Where the text column cannot
    be told, a notice says so and the command has a blank to fill in. Raises InputError if a file
    cannot be read.
    """
    sources = discover([path])
    first, rows = sources[0], [source.rows for source in sources]
    row_groups, codecs = 0, set[str]()
    for source in sources:
        if source.format == "parquet":
            with open_parquet(source.path, source.file) as file:
                row_groups += file.num_row_groups
                codecs |= _codecs(file) if source is first else set()
    fields = formats.schema(first)
    columns: Columns | None = None
    try:
        columns = resolve_columns(sources)
        notices = columns.notices
    except InputError as error:
        where = f"{error.where}: " if len(sources) > 1 and error.where else ""
        notices = (f"{where}{error.what}; {error.fix}",)
    histogram, sampled, unscored = _lengths(sources, columns) if columns and fields else ((), 0, 0)
    kinds = sorted({source.format for source in sources})
    return Inspection(
        file=str(path),
        files=len(sources),
        format=" and ".join(kinds),
        size=sum(source.size for source in sources),
        rows=None if None in rows else sum(n or 0 for n in rows),
        row_groups=row_groups if kinds == ["parquet"] else None,
        codecs=tuple(sorted(codecs)),
        columns=tuple(
            # Of a CSV whose text is not known the first line may be a record.
            Column(
                f.name if columns or is_header(first, fields) else f"(column {number})",
                str(f.type),
                _role(f, columns),
            )
            for number, f in enumerate(fields, 1)
        ),
        histogram=histogram,
        sampled=sampled,
        unscored=unscored,
        notices=notices,
        command=_command(path, columns),
    )


def _codecs(file: pq.ParquetFile) -> set[str]:
    """Name the compressions of the first row groups that can be read."""
    codecs = set()
    for index in range(min(file.num_row_groups, SAMPLE_ROW_GROUPS)):
        try:
            # Damaged metadata raises here; asking for it directly would end the process.
            found = next(file.iter_batches(1, [index], use_threads=False), None)
        except DAMAGE:
            continue
        if found is not None:
            group = file.metadata.row_group(index)
            codecs |= {group.column(k).compression for k in range(group.num_columns)}
    return codecs


def _role(field: pa.Field, columns: Columns | None) -> str:
    if columns is None:
        # Nothing is settled: show what could be the text.
        if message_fields(field.type) is not None:
            return "conversation?"
        return "text?" if is_text(field.type) else ""
    if field.name in columns.text:
        return "text"
    roles = ("conversation", "id", "thread", "author", "time")
    return next((role for role in roles if getattr(columns, role) == field.name), "")


def _lengths(
    sources: list[Source], columns: Columns
) -> tuple[tuple[tuple[str, int], ...], int, int]:
    counts, sampled, unscored = np.zeros(len(EDGES), np.int64), 0, 0
    for chunk in read_chunks(sources, columns, chunk_rows=2000, max_text_bytes=2**62):
        lengths = pc.utf8_length(chunk.texts.column("text")).drop_null().to_numpy()
        buckets = np.searchsorted(EDGES, lengths, side="right") - 1
        counts += np.bincount(buckets, minlength=len(EDGES))
        unscored += int(np.count_nonzero(chunk.texts.column("status").to_numpy()))
        sampled += chunk.records.num_rows
        if sampled >= SAMPLE_ROWS:
            break
    ends = [*(f"to {end - 1:,}" for end in EDGES[1:]), "and more"]
    labels = [f"{start:,} {end}" for start, end in zip(EDGES, ends, strict=True)]
    labels[0] = "0"
    return tuple(zip(labels, counts.tolist(), strict=True)), sampled, unscored


def _command(path: str | Path, columns: Columns | None) -> str:
    file = str(path)
    out = Path(path).name.lstrip(".-").split(".")[0] or "dump"
    # A name that begins with "-" would be an option.
    words = ["edgemod", "triage", "./" * file.startswith("-") + file, "-o", f"{out}-triage"]
    key = encryption.key_file()
    if key is not None:
        words += ["--key-file", key]
    if columns is None:
        return shlex.join(words) + " --text-column COLUMN"
    for name in columns.text:
        words += ["--text-column", name]
    for role in ("conversation", "id", "thread", "author", "time"):
        name = getattr(columns, role)
        if name is not None:
            words += [f"--{role}-column", name]
    return shlex.join(words)
