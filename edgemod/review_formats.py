"""The formats of an exported review queue: rows in rank order to files, safe to open.

Parquet and JSONL hold texts as they are. A cell of a CSV is no formula, and neither a CSV nor a
Label Studio task holds control characters. Files are readable by their owner alone.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, groupby
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc

from edgemod.parts import writer
from edgemod.words import CATEGORIES, Stage, Verdict

# A spreadsheet takes a cell that begins with one of these for a formula. Source: OWASP, "CSV
# Injection"; the wide forms because East Asian locales read them as the narrow ones.
_FORMULA: Final = r"\A([=+\-@\t\r\n＝＋－＠])"
# Control characters with no meaning in a cell; PostgreSQL, behind Label Studio, refuses NUL.
_CONTROLS: Final = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"

_LABELLING_CONFIG: Final = """\
<View>
  <Style>.htx-text { white-space: pre-wrap; }</Style>
  <Header value="Context"/>
  <Text name="context" value="$context" valueType="text"/>
  <Header value="Text"/>
  <Text name="text" value="$text" valueType="text"/>
  <Header value="Does the text violate this policy?"/>
  <Text name="definition" value="$definition" valueType="text"/>
  <Choices name="verdict" toName="text" choice="single" showInline="true" required="true">
    <Choice value="clear"/>
    <Choice value="flag"/>
    <Choice value="escalate"/>
  </Choices>
  <Choices name="answer_category" toName="text" choice="single" showInline="true"
    required="true" visibleWhen="choice-selected" whenTagName="verdict" whenChoiceValue="flag">
CATEGORIES
  </Choices>
  <TextArea name="note" toName="text" placeholder="Note" maxSubmissions="1"/>
  <Header value="Why it is here"/>
  <Text name="reason" value="$reason" valueType="text"/>
</View>
""".replace("CATEGORIES", "\n".join(f'    <Choice value="{name}"/>' for name in CATEGORIES))


def write(rows: Iterator[pa.Table], folder: Path, format: str) -> list[str]:
    """Write rows of a queue, in their order, to an empty folder as ``review.export`` does, in one
    file whatever their ranks.

    They may have more columns than ``review.REVIEW``. Returns the files' names. Raises OSError.
    """
    return WRITERS[format](folder, rows, 1 << 62)


def _write_parquet(folder: Path, tables: Iterator[pa.Table], rows_per_file: int) -> list[str]:
    def number(table: pa.Table) -> int:
        return (table["rank"][0].as_py() - 1) // rows_per_file if table.num_rows else 0

    files = []
    for file_number, group in groupby(tables, number):
        files.append(f"review-{file_number:05d}.parquet")
        with (
            create(folder / files[-1]) as file,
            writer(file, (first := next(group)).schema) as target,
        ):
            for table in chain([first], group):
                target.write_table(table)
    return files


def _write_csv(folder: Path, tables: Iterator[pa.Table], rows_per_file: int) -> list[str]:
    with create(folder / "review.csv") as file:
        text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        writer = csv.writer(text)  # quotes where needed, doubles quotes, ends lines with CR LF
        for number, table in enumerate(tables):
            if not number:
                writer.writerow(table.column_names)
            writer.writerows(zip(*_columns(_guard_formulas(_printable(table))), strict=True))
        text.detach()
    return ["review.csv"]


def _write_jsonl(folder: Path, tables: Iterator[pa.Table], rows_per_file: int) -> list[str]:
    with create(folder / "review.jsonl") as file:
        for table in tables:
            file.writelines(_json(row) + b"\n" for row in _rows(table))
    return ["review.jsonl"]


def _write_label_studio(folder: Path, tables: Iterator[pa.Table], rows_per_file: int) -> list[str]:
    with create(folder / "label-studio.xml") as file:
        file.write(_LABELLING_CONFIG.encode())
    with create(folder / "label-studio.json") as file:
        separator = b"[\n"
        for table in tables:
            for row in _rows(_printable(table)):
                file.write(separator + _json(_task(row)))
                separator = b",\n"
        file.write(b"\n]\n" if separator == b",\n" else b"[]\n")
    return ["label-studio.json", "label-studio.xml"]


_Writer = Callable[[Path, Iterator[pa.Table], int], list[str]]
WRITERS: Final[dict[str, _Writer]] = {
    "parquet": _write_parquet,
    "csv": _write_csv,
    "jsonl": _write_jsonl,
    "label-studio": _write_label_studio,
}
"""By format: what writes tables in rank order to an empty folder, and names its files."""

FORMATS: Final = tuple(WRITERS)
"""Formats of the exported queue; the first is the default."""


def _task(row: dict[str, Any]) -> dict[str, Any]:
    """Return one Label Studio task; see "Label Studio JSON format" in its documentation.

    Its Text tags take strings only. A prediction, which fills in an answer, is made where a model
    holds a violation for more likely than not, and nowhere else: what is here shall not be cleared
    because edgemod suggested it.
    """
    data = row | {name: row[name] or "" for name in ("text", "context", "definition", "reason")}
    p = None if row["category"] is None else row[f"p_{row['category']}"]
    if p is None or p < 0.5 or row["stage"] not in (Stage.filter.name, Stage.model.name):
        return {"data": data, "predictions": []}
    result = {
        "from_name": "verdict",
        "to_name": "text",
        "type": "choices",
        "value": {"choices": [Verdict.flag.name]},
    }
    prediction = {
        "model_version": f"edgemod {row['stage']}",
        "score": p,
        "result": [result],
    }
    return {"data": data, "predictions": [prediction]}


def _json(value: object) -> bytes:
    # ASCII: some readers of JSONL split lines at U+2028 and U+0085 too.
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def _columns(table: pa.Table) -> list[list[Any]]:
    """Return Python columns; a float32 becomes the shortest decimal that reads back as it."""
    return [
        (c.cast(pa.string()).cast(pa.float64()) if pa.types.is_float32(c.type) else c).to_pylist()
        for c in table.columns
    ]


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for row in zip(*_columns(table), strict=True):
        yield dict(zip(table.column_names, row, strict=True))


def _printable(table: pa.Table) -> pa.Table:
    return _map_strings(table, lambda c: pc.replace_substring_regex(c, _CONTROLS, "\ufffd"))


def _guard_formulas(table: pa.Table) -> pa.Table:
    return _map_strings(table, lambda c: pc.replace_substring_regex(c, _FORMULA, r"'\1"))


def _map_strings(table: pa.Table, change: Callable[[pa.ChunkedArray], pa.ChunkedArray]) -> pa.Table:
    columns = [
        change(c) if pa.types.is_string(c.type) or pa.types.is_large_string(c.type) else c
        for c in table.columns
    ]
    return pa.table(columns, schema=table.schema)


@contextmanager
def create(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that only its owner can read; on leaving, its bytes are on the disk."""
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        os.fchmod(file.fileno(), 0o600)
        yield file
        file.flush()
        os.fsync(file.fileno())
