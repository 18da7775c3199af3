"""Texts to probabilities without a run: for a few texts, a file, or another program."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from edgemod import features, formats, parts, records, store
from edgemod.calibration import FloatMatrix
from edgemod.columns import is_list, is_string
from edgemod.crew import STALL_SECONDS
from edgemod.errors import InputError
from edgemod.filter import Filter
from edgemod.formats import Rows
from edgemod.measuring import Measurers, in_units
from edgemod.policy import load_policy
from edgemod.records import Columns
from edgemod.sources import Source, check_unchanged
from edgemod.triager import PROBABILITIES, Triager
from edgemod.words import OUTPUTS

StageName = Literal["filter", "model", "cascade"]


@dataclass(frozen=True)
class Score:
    """One text's answer. Offsets of ``fired`` are code points of the text, end exclusive.

    ``probabilities``: calibrated, 0 to 1, by output (the nine categories and ``any``), None
    where not scored; they come from the stage that settled the text.
    """

    verdict: str
    category: str | None
    stage: str
    reason: str
    status: str
    probabilities: dict[str, float | None]
    fired: tuple[tuple[int, int, str], ...]


def score(texts: Sequence[str], *, triager: Triager | None = None) -> list[Score]:
    """Triage texts one by one, as records of their own; the answers in the same order.

    Equal texts get the same answer, none of them as a duplicate of another. A text with a lone
    surrogate, which no UTF-8 holds (Python's "surrogateescape" makes one of a broken byte), is not
    scored: its status is not_utf8. Without a ``triager`` the default policy and model are loaded
    once and kept.
    """
    chosen = triager or _default_triager()
    if not texts:
        return []
    distinct = list(dict.fromkeys(texts))
    # As bytes, so that what is not UTF-8 is found as it is in a file.
    encoded = [text.encode("utf-8", "surrogatepass") for text in distinct]
    batch = pa.record_batch({"text": pa.array(encoded, pa.large_binary())})
    decisions = chosen.triage_batch(batch, text="text").to_pylist()
    answers = {
        text: Score(
            verdict=row["verdict"],
            category=row["category"],
            stage=row["stage"],
            reason=row["reason"],
            status=row["status"],
            probabilities={name: row[f"p_{name}"] for name in OUTPUTS},
            fired=tuple(
                (span.start, span.end, span.what)
                for span in features.spans(text if _is_valid(text) else "", chosen.lexicons)
            ),
        )
        for text, row in zip(distinct, decisions, strict=True)
    }
    return [answers[text] for text in texts]


def filter_scores(
    texts: pa.Array | pa.ChunkedArray | Sequence[str | None], *, triager: Triager | None = None
) -> FloatMatrix:
    """The whole filter stage (features, lexicons, n-grams): log-odds, float32 (n, 10).

    Columns are ``edgemod.OUTPUTS``. Uses the filter and lexicons of a ``triager``, such as one with
    the calibration of ``edgemod learn``, else the shipped filter and the default policy's lexicons;
    on the calling thread. Nulls, and texts with lone surrogates, give rows of NaN.
    """
    if isinstance(texts, pa.Array | pa.ChunkedArray):
        column = texts.cast(pa.large_string())
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    else:
        valid = [text if text is None or _is_valid(text) else None for text in texts]
        column = pa.array(valid, pa.large_string())
    weights, lexicons = (triager.filter, triager.lexicons) if triager else _default_filter()
    present = column.drop_null() if column.null_count else column
    scores = weights.scores(features.extract(present, lexicons).normalised)
    if not column.null_count:
        return scores
    result = np.full((len(column), len(OUTPUTS)), np.nan, np.float32)
    result[np.asarray(column.is_valid())] = scores
    return result


def _is_valid(text: str) -> bool:
    """Whether a text can be written as UTF-8: it has no lone surrogate."""
    try:
        return text.encode() is not None
    except UnicodeEncodeError:
        return False


@functools.cache
def _default_triager() -> Triager:
    return Triager()


@functools.cache
def _default_filter() -> tuple[Filter, features.Lexicons]:
    weights = Filter.load(store.quantized_dir() / "filter.safetensors")
    return weights, features.Lexicons.compile(load_policy().lexicons)


@dataclass(frozen=True)
class ScoredFile:
    """What ``score_file`` did."""

    rows: int
    unreadable: int
    """Rows that could not be decoded: null in every column."""
    notices: tuple[str, ...]
    """What was guessed about the text column, and which option says otherwise."""
    quarantined: tuple[str, ...] = ()
    """Records that no worker could score, with their status: null probabilities."""


def score_file(
    path: Path,
    out: Path,
    *,
    text: Sequence[str] = (),
    stage: StageName = "cascade",
    policy: str | None = None,
    model: str | None = "default",
    calibration: str | None = None,
    workers: int = 1,
    stall_seconds: float = STALL_SECONDS,
) -> ScoredFile:
    """Write ``path``'s rows to ``out`` (Parquet) with a float32 column ``p_<output>`` each.

    Rows keep their order, and their columns types, nullability and metadata. Probabilities are
    null where a text could not be scored. Rows that cannot be decoded are null throughout, and
    then no column is marked as never null. In other columns than the text a JSON value that is not
    of its column's type is null. Bytes of texts that are not UTF-8 become U+FFFD.
    ``workers`` processes, each with its own models; a text that ends or hangs them is told in
    ``quarantined``. ``stall_seconds`` as in ``edgemod.triage``.

    Raises InputError as reading does, if two columns have one name, if there are such ``p_``
    columns already, if a value is not of its column's type, and if the file changes meanwhile;
    OutputError if ``out`` is the input, or cannot be written.
    """
    source, *others = records.discover([path])
    if others:
        raise InputError("is a folder of several files", where=str(path), fix="Score them singly.")
    parts.check_target(Path(out), [source.file])
    fields = formats.schema(source)
    _check_names(fields.names, str(path))
    columns = records.resolve_columns([source], text=text)
    layout = _layout(source, fields)
    with_model = model if stage != "filter" else None
    rows = unreadable = 0

    parts.clean_abandoned(out)
    measurers = Measurers(
        str(path), (stage,), policy, with_model, calibration, workers, stall_seconds
    )
    with ExitStack() as stack:
        temporary = stack.enter_context(parts.replacing(out))
        stack.enter_context(parts.hold(temporary))
        writer = stack.enter_context(parts.writer(temporary, layout))
        stack.enter_context(measurers)
        spare = {*fields.names} - {*columns.text, columns.conversation}
        units = formats.rows(source, fields.names, spare=spare)
        if stage != "filter":  # which needs no more than a moment for a whole run
            units = in_units(units)
        held: list[pa.RecordBatch] = []
        for run, measured in measurers.map(units, columns):
            rows += run.count
            unreadable += run.count if run.batch is None else 0
            held.append(_with_probabilities(run, fields, measured[stage], layout))
            # Each write is a row group, which is in memory as a whole.
            if (
                sum(b.num_rows for b in held) >= formats.BATCH_ROWS
                or sum(b.nbytes for b in held) >= formats.BATCH_BYTES
            ):
                writer.write_table(pa.Table.from_batches(held))
                held = []
        if held:
            writer.write_table(pa.Table.from_batches(held))
        check_unchanged(source)
    return ScoredFile(rows, unreadable, text_notices(columns), tuple(measurers.quarantined))


def text_notices(columns: Columns) -> tuple[str, ...]:
    """What was guessed about the text; a score does not read ids and times."""
    about_text = ("text column", "conversation column")
    return tuple(notice for notice in columns.notices if notice.startswith(about_text))


def _check_names(names: Sequence[str], where: str) -> None:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise InputError(
            f"two columns are named '{twice[0]}'", where=where, fix="Rename one of them."
        )
    taken = [name for name in PROBABILITIES if name in names]
    if taken:
        raise InputError(
            f"already has columns {', '.join(taken)}", where=where, fix="Rename or drop them first."
        )


def _layout(source: Source, fields: pa.Schema) -> pa.Schema:
    """The source's schema with the probabilities; nullable throughout if rows will be null.

    Whether they will must be known before the first row is written. Only a column that is never
    null makes it matter, and is worth decoding the file once more.
    """
    if not all(field.nullable for field in fields) and any(
        run.batch is None for run in formats.rows(source, fields.names)
    ):
        fields = pa.schema([field.with_nullable(True) for field in fields], fields.metadata)
    for name in PROBABILITIES:
        fields = fields.append(pa.field(name, pa.float32()))
    return fields


def _with_probabilities(
    run: Rows, fields: pa.Schema, matrix: FloatMatrix, layout: pa.Schema
) -> pa.RecordBatch:
    """A run's rows in ``layout``; ``matrix`` is float32 (n, K), NaN where not scored."""
    if run.batch is None:
        values = [pa.nulls(run.count, field.type) for field in fields]
    else:
        values = [_restored(run.batch[field.name], field, run.source) for field in fields]
    for k in range(len(PROBABILITIES)):
        column = np.ascontiguousarray(matrix[:, k])
        values.append(pa.array(column, pa.float32(), mask=np.isnan(column)))
    return pa.RecordBatch.from_arrays(values, schema=layout)


def _restored(column: pa.Array, field: pa.Field, source: Source) -> pa.Array:
    """A column in its type of the file: reading decodes dictionaries, and odd JSON to texts."""
    column = _decodable(column)
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"column '{field.name}' has values that are not {field.type}",
            where=source.path,
            fix="Make them all of one type, or leave the column out.",
        ) from error


def _decodable(column: pa.Array) -> pa.Array:
    """A column with U+FFFD for the bytes of its strings that are not UTF-8.

    Not null, since the column may be one that is never null. Readers do not check UTF-8, and other
    programs refuse a whole file for one such string.
    """
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        raw = column.cast(_plain(column.type, pa.large_binary()))
        plain = _plain(column.type)
        mended = pa.array([_replaced(value, plain) for value in raw.to_pylist()], plain)
        return mended if plain == column.type else mended.cast(column.type)
    return column


def _plain(kind: pa.DataType, text: pa.DataType | None = None) -> pa.DataType:
    """A type without the extensions and dictionaries in it; its strings are ``text``, if given."""

    def inner(field: pa.Field) -> pa.Field:
        return field.with_type(_plain(field.type, text))

    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type, text)
    if types.is_dictionary(kind):
        return _plain(kind.value_type, text)
    if is_string(kind):
        return text or kind
    if types.is_struct(kind):
        return pa.struct([*map(inner, kind)])
    if types.is_map(kind):
        return pa.map_(inner(kind.key_field), inner(kind.item_field))
    if types.is_fixed_size_list(kind):
        return pa.list_(inner(kind.value_field), kind.list_size)
    if types.is_large_list(kind):
        return pa.large_list(inner(kind.value_field))
    if types.is_list_view(kind) and text is None:  # Arrow casts from it, but not to it
        return pa.list_view(inner(kind.value_field))
    if types.is_list(kind) or types.is_list_view(kind):
        return pa.list_(inner(kind.value_field))
    return kind


def _replaced(value: Any, kind: pa.DataType) -> Any:
    """A Python value with its bytes as text where that is what ``kind`` says."""
    types = pa.types
    if value is None:
        return None
    if is_string(kind):
        return value.decode("utf-8", "replace")
    if types.is_struct(kind):
        return {field.name: _replaced(value[field.name], field.type) for field in kind}
    if types.is_map(kind):
        return [(_replaced(k, kind.key_type), _replaced(v, kind.item_type)) for k, v in value]
    if is_list(kind) or types.is_list_view(kind):
        return [_replaced(item, kind.value_type) for item in value]
    return value
