"""The review queue: rank the records with verdict review and export them for a person to read.

``pending`` turns each chunk into rows that carry all a reviewer needs; the pipeline keeps them as
parts. ``export`` ranks every part together and writes the queue. Only a key of each row is ever in
memory (about 40 bytes: 5 million rows take 200 MB); the rows themselves pass through one spill
file, cut into buckets of consecutive ranks that fit in memory one at a time::

    parts --(keys)--> ranks, bucket edges
    parts --(rows)--> runs, each sorted --> spill file, one piece per run and bucket
    bucket by bucket: its pieces, sorted --> review-00000.parquet ... or one csv, jsonl or json
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from edgemod.errors import InputError, OutputError, RunError
from edgemod.parts import decoded, encoded, make_folder, open_part
from edgemod.policy import Policy
from edgemod.records import Chunk
from edgemod.review_formats import FORMATS, WRITERS, create
from edgemod.words import ANY, CATEGORIES, OUTPUTS, Stage, Status, Verdict

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
FloatMatrix = npt.NDArray[np.float32]

REVIEW: Final = pa.schema(
    [
        ("rank", pa.int64()),  # 1 is the first to read
        ("priority", pa.float32()),
        ("record_id", pa.string()),
        ("source", pa.string()),
        ("source_row", pa.int64()),
        ("message", pa.int32()),  # the message that decided; null for one flat text
        ("role", pa.string()),
        ("text", pa.large_string()),
        ("context", pa.large_string()),
        ("thread_id", pa.string()),
        ("author_id", pa.string()),
        ("time", pa.string()),
        ("category", pa.string()),  # the decision's, or else the leading one; null if unscored
        ("severity", pa.int8()),  # 1 to 5
        ("definition", pa.string()),
        ("reason", pa.string()),
        ("verdict", pa.string()),
        ("stage", pa.string()),
        ("status", pa.string()),
        *((f"p_{name}", pa.float32()) for name in OUTPUTS),
        ("inclusion_probability", pa.float64()),  # the chance it had of being exported, over 0
        ("inclusion_floor", pa.float64()),  # the least that any record had; 0: some had none
    ]
)
"""Columns of the exported queue."""

PENDING: Final = pa.schema([*list(REVIEW)[1:], ("size", pa.int64())])
"""Columns of one part: the queue without its ranks, and the bytes of each row (estimated)."""

FLOOR: Final = 10
"""One in so many records of a review budget is drawn by chance from all that the ranking leaves."""

_SEED: Final = 0

BATCH_BYTES: int = 64 * 2**20
"""Rows held in memory at once, in bytes; a few copies of it are the memory ``export`` takes."""

ROW_BYTES: Final = 1024  # what a row takes beside the strings below, generously
_STRINGS: Final = ("record_id", "thread_id", "author_id", "time", "role", "text", "context")

_KEYS: Final = pa.schema([PENDING.field(name) for name in ("priority", "size")])
_NOTHING_TO_READ: Final = pa.array([Status.null_text.name, Status.empty_text.name])

NO_CATEGORY: Final = "none"
"""Stands in the summary for records that were not scored and so have no category."""

_PARTIAL: Final = ".partial"  # folder of an export that is not complete


@dataclass(frozen=True)
class _Chance:
    """The first ``top`` ranks are exported for sure, others with the chance ``others``."""

    top: int
    others: float


@dataclass(frozen=True)
class ReviewSummary:
    """What was exported and what stayed behind, in records.

    ``files`` are names inside the review folder. The counts by category hold the categories
    that occur, in the order of ``words.CATEGORIES``, then ``NO_CATEGORY``.
    """

    total: int
    exported: int
    left_behind: int
    exported_by_category: dict[str, int]
    left_behind_by_category: dict[str, int]
    files: tuple[str, ...]
    lowest_priority: float | None  # of those exported for their priority; None if none were


def pending(chunk: Chunk, decisions: pa.RecordBatch | pa.Table, policy: Policy) -> pa.Table:
    """Return the rows of ``chunk`` that go to review, in input order, with schema ``PENDING``.

    ``decisions`` is aligned with ``chunk.records``. A text that is null stays null. The priority
    is a pure function of the row and the policy, 0 to 1::

        severity / 5 * max(p, H2(p))     p: calibrated probability of the leading category
                                         H2: binary entropy, bits (Shannon 1948)

    so a record ranks high for being severe and either likely or uncertain. The leading category
    is the decision's; where that is null, the one with the greatest severity * p. Where it has
    no probability p is that of "any", or else 0.5. A rule that sends a record here says that the
    models may be wrong about it: its p is at least 0.5. Where the status is not ok there is no
    score, or one that means nothing: p is 0.5, and without a category in the decision the record
    has none. It then takes half the severity of the policy's most severe category, so such records
    neither drown the queue nor vanish in it. A null or empty text has nothing to read and takes 0:
    the end of the queue.
    """
    chosen = np.flatnonzero(_mask(pc.equal(_strings(decisions["verdict"]), Verdict.review.name)))
    return queued(chunk, decisions, policy, chosen, np.ones(len(chosen)))


def queued(
    chunk: Chunk,
    decisions: pa.RecordBatch | pa.Table,
    policy: Policy,
    chosen: Integers,
    inclusion: Floats,
    floor: float | Floats = 1.0,
) -> pa.Table:
    """Return rows ``chosen`` of a chunk as ``pending`` does; ``inclusion``: the chance of each,
    ``floor``: the least that any record had, or any that was flagged, or not, as each is.
    """
    decisions, records = decisions.take(chosen), chunk.records.take(chosen)
    texts = chunk.texts.take(_text_rows(chunk.texts, chosen, decisions["message"]))
    probabilities = np.column_stack([_floats(decisions[f"p_{name}"]) for name in OUTPUTS])
    leading, priority = _priority(decisions, probabilities, policy)
    category = pa.array(leading, mask=leading < 0)
    columns = {
        "priority": pa.array(priority),
        "message": decisions["message"],
        "category": pa.array([c.name for c in policy.categories]).take(category),
        "severity": pa.array([c.severity for c in policy.categories]).take(category),
        "definition": pa.array([c.definition for c in policy.categories]).take(category),
        **{name: decisions[name] for name in ("reason", "verdict", "stage", "status")},
        **{name: _valid(records[name]) for name in ("record_id", "thread_id", "author_id", "time")},
        **{name: _valid(texts[name]) for name in ("role", "text", "context")},
        **{name: records[name] for name in ("source", "source_row")},
    }
    for name, column in zip(OUTPUTS, probabilities.T, strict=True):
        columns[f"p_{name}"] = pa.array(column, mask=np.isnan(column))
    columns["inclusion_probability"] = pa.array(inclusion, pa.float64())
    columns["inclusion_floor"] = pa.array(np.full(len(chosen), floor))
    columns["size"] = pa.array(np.full(len(chosen), ROW_BYTES))
    for name in _STRINGS:
        columns["size"] = pc.add(columns["size"], pc.binary_length(columns[name]).fill_null(0))
    return pa.table([_one(columns[field.name]).cast(field.type) for field in PENDING], PENDING)


def export(
    parts: Sequence[Path],
    out: Path,
    *,
    format: str = "parquet",
    budget: int | None = None,
    rows_per_file: int = 50_000,
) -> ReviewSummary:
    """Rank the rows of all ``parts`` and write the first ``budget`` of them to the folder ``out``.

    Highest priority first; equal priorities in input order, which is the order of ``parts`` and
    of the rows in each. Where the budget leaves some behind, one in ``FLOOR`` of it goes to records
    drawn from those by chance, at the end of the queue, so that what is not ranked high is known
    of, too; ``inclusion_probability`` says with which chance a record came in. The same parts give
    the same bytes. Files take their names only when they are complete; those of an earlier export
    are replaced, other files in ``out`` are left alone. Files have mode
    0600, a new folder 0700.

    ``parquet`` keeps every text as it is, in files of ``rows_per_file`` rows; ``jsonl`` too, in
    ASCII with escapes. ``csv`` is RFC 4180 in UTF-8: a cell that a spreadsheet would run as a
    formula gets a leading apostrophe. ``label-studio`` is one JSON array of tasks with a
    labelling configuration beside it. In the last two, control characters become U+FFFD.

    Raises InputError for an unknown format or a negative budget, OutputError if ``out`` cannot
    be written, RunError if a part is missing or damaged.
    """
    if format not in WRITERS:
        raise InputError(
            f"unknown review format {format!r}", fix=f"choose one of {', '.join(FORMATS)}"
        )
    if budget is not None and budget < 0:
        raise InputError(f"review budget {budget} is negative", fix="give 0 or more")
    try:
        return _export(parts, out, format, budget, rows_per_file)
    except OSError as error:
        raise OutputError(
            f"the review queue cannot be written: {error.strerror or type(error).__name__}",
            where=str(out),
            fix="free space or choose another folder, then run the same command again",
        ) from error


def _export(
    parts: Sequence[Path], out: Path, format: str, budget: int | None, rows_per_file: int
) -> ReviewSummary:
    keys = [_KEYS.empty_table(), *(_read(part, _KEYS.names) for part in parts)]
    priority, size = (_one(column).to_numpy() for column in pa.concat_tables(keys).columns)
    total = len(priority)
    exported = total if budget is None else min(budget, total)
    order = np.argsort(-priority, kind="stable")
    by_chance = exported // FLOOR if exported < total else 0
    top = exported - by_chance
    drawn = np.random.default_rng(_SEED).permutation(total - top)[:by_chance]
    picked = top + np.sort(drawn)
    order = np.concatenate((order[:top], order[picked], np.delete(order[top:], drawn)))
    rank = np.empty(total, np.int64)
    rank[order] = np.arange(total)
    chance = _Chance(top, by_chance / (total - top) if exported < total else 1.0)
    edges = _bucket_edges(size[order[:exported]], rows_per_file)
    lowest = float(priority[order[top - 1]]) if top else None
    del keys, priority, size, order

    counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    with _workshop(out) as partial:
        spill = partial / "spill"
        with create(spill) as file:
            pieces = _spill(parts, rank, edges, file, counts, chance)
        del rank
        files = WRITERS[format](partial, _sorted_buckets(spill, pieces), rows_per_file)
        _publish(partial, out, files)
    exported_by, left_by = (_in_category_order(counter) for counter in counts)
    return ReviewSummary(
        total, exported, total - exported, exported_by, left_by, tuple(files), lowest
    )


def _priority(
    decisions: pa.RecordBatch | pa.Table, probabilities: FloatMatrix, policy: Policy
) -> tuple[Integers, Floats]:
    """Return each row's leading category (index into the policy's, -1 for none) and priority."""
    category, stage, status = (
        _strings(decisions[name]) for name in ("category", "stage", "status")
    )
    scored = _mask(pc.equal(status, Status.ok.name))
    names = pa.array([c.name for c in policy.categories], pa.string())
    severity = np.array([c.severity for c in policy.categories], np.float64)
    table = probabilities[:, [OUTPUTS.index(c.name) for c in policy.categories]]
    leading = pc.fill_null(pc.index_in(category, names), -1).to_numpy().astype(np.int64)
    unnamed = (leading < 0) & scored & ~np.isnan(table).all(axis=1)
    leading[unnamed] = np.argmax(np.nan_to_num(table[unnamed], nan=-1.0) * severity, axis=1)
    known = leading >= 0
    p = np.where(known, table[np.arange(len(table)), leading], np.nan)
    for fallback in (probabilities[:, OUTPUTS.index(ANY)], 0.5):
        p = np.where(np.isnan(p), fallback, p)
    p = np.where(_mask(pc.equal(stage, Stage.rule.name)), np.maximum(p, 0.5), p)
    p = np.where(scored, p, 0.5)
    weight = np.where(known, severity[leading], severity.max() / 2)
    priority = weight / 5 * np.maximum(p, _binary_entropy(p))
    priority[_mask(pc.is_in(status, _NOTHING_TO_READ))] = 0.0
    return leading, priority.astype(np.float32)


def _binary_entropy(p: Floats) -> Floats:
    """H2(p) in bits, 0 to 1; 0 at both ends."""
    p = np.clip(p.astype(np.float64), 1e-12, 1 - 1e-12)
    entropy: Floats = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    return entropy


def _text_rows(texts: pa.RecordBatch, records: Integers, messages: pa.Array) -> pa.Int64Array:
    """Return the row of ``texts`` for each (record, message), null where there is none."""
    keys = texts["record"].to_numpy().astype(np.int64) * 2**32 + texts["message"].to_numpy()
    order = np.argsort(keys, kind="stable")
    wanted = records * 2**32 + pc.fill_null(_one(messages), -1).to_numpy()
    at = np.searchsorted(keys[order], wanted)
    inside = at < len(keys)
    rows = np.zeros(len(wanted), np.int64)
    rows[inside] = order[at[inside]]
    found = inside & (keys[rows] == wanted) if len(keys) else inside
    return pa.array(rows, mask=~found)


def _bucket_edges(size: Integers, rows_per_file: int) -> Integers:
    """Cut ranks 0 .. n into buckets of at most BATCH_BYTES (and one row), none across files."""
    full = np.flatnonzero(np.diff(np.cumsum(size) // BATCH_BYTES)) + 1
    files = np.arange(0, len(size), rows_per_file)
    return np.unique(np.concatenate([[0], full, files, [len(size)]]))


def _spill(
    parts: Sequence[Path],
    rank: Integers,
    edges: Integers,
    file: BinaryIO,
    counts: tuple[Counter[str], Counter[str]],
    chance: _Chance,
) -> list[list[tuple[int, int]]]:
    """Write the exported rows in sorted runs to ``file``; return offset and bytes of the pieces of
    each bucket. A piece is as parts are, so that it is encrypted where they are.
    """
    pieces: list[list[tuple[int, int]]] = [[] for _ in edges[1:]]
    for run in _runs(parts, rank, int(edges[-1]), counts, chance):
        cuts = np.searchsorted(_one(run["rank"]).to_numpy() - 1, edges)
        for bucket in np.flatnonzero(np.diff(cuts)):
            start, stop = cuts[bucket], cuts[bucket + 1]
            piece = encoded(run.slice(start, stop - start))
            pieces[bucket].append((file.tell(), file.write(piece)))
    return pieces


def _runs(
    parts: Sequence[Path],
    rank: Integers,
    exported: int,
    counts: tuple[Counter[str], Counter[str]],
    chance: _Chance,
) -> Iterator[pa.Table]:
    """Yield the exported rows of the parts in runs of BATCH_BYTES, each sorted by rank."""
    held: list[pa.Table] = []
    position = 0
    for part in parts:
        category = _one(_read(part, ["category"])["category"]).fill_null(NO_CATEGORY)
        ranks = rank[position : position + len(category)]
        position += len(category)
        kept = ranks < exported
        for counter, mask in zip(counts, (kept, ~kept), strict=True):
            for pair in pc.value_counts(category.filter(pa.array(mask))).to_pylist():
                counter[pair["values"]] += pair["counts"]
        if kept.any():
            rows = _read(part, PENDING.names).drop_columns("size")
            ranked = rows.add_column(0, "rank", pa.array(ranks + 1))
            of_export = pa.array(np.where(ranks < chance.top, 1.0, chance.others))
            for name, factor in (("probability", of_export), ("floor", pa.scalar(chance.others))):
                at = ranked.column_names.index(f"inclusion_{name}")
                both = pc.multiply(ranked[f"inclusion_{name}"], factor)
                ranked = ranked.set_column(at, f"inclusion_{name}", both)
            held.append(ranked.filter(pa.array(kept)))
        if sum(table.nbytes for table in held) >= BATCH_BYTES:
            yield _by_rank(held)
            held = []
    if held:
        yield _by_rank(held)


def _sorted_buckets(spill: Path, pieces: list[list[tuple[int, int]]]) -> Iterator[pa.Table]:
    """Yield the buckets in rank order, each sorted: the whole queue. At least one table."""
    if not pieces:
        yield REVIEW.empty_table()
    with spill.open("rb") as file:
        for places in pieces:
            yield _by_rank([_piece(file, *place) for place in places])


def _piece(file: BinaryIO, offset: int, size: int) -> pa.Table:
    file.seek(offset)
    return decoded(file.read(size))


def _by_rank(tables: list[pa.Table]) -> pa.Table:
    table = pa.concat_tables(tables).combine_chunks()
    return table.take(np.argsort(_one(table["rank"]).to_numpy())).combine_chunks()


def _valid(array: pa.Array) -> pa.Array:
    """Return ``array`` with whatever is not UTF-8 (a lone surrogate, say) as U+FFFD."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        values = array.cast(pa.large_binary()).to_pylist()
        return pa.array(
            [None if value is None else value.decode("utf-8", "replace") for value in values],
            array.type,
        )
    return array


def _one(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one contiguous array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _strings(column: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    return _one(column).cast(pa.string())


def _mask(column: pa.BooleanArray) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = column.to_numpy(zero_copy_only=False)
    return mask


def _floats(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.float32] = _one(column).cast(pa.float32()).to_numpy(zero_copy_only=False)
    return values  # NaN where null


def _in_category_order(counter: Counter[str]) -> dict[str, int]:
    return {name: counter[name] for name in (*CATEGORIES, NO_CATEGORY) if counter[name]}


def _read(part: Path, columns: list[str]) -> pa.Table:
    try:
        with open_part(part) as file:
            return file.read(columns)
    except (pa.ArrowException, OSError) as error:
        raise RunError(
            "this part of the review queue is missing or damaged",
            where=str(part),
            fix="run the same command again; if that does not help, with --restart",
        ) from error


@contextmanager
def _workshop(out: Path) -> Iterator[Path]:
    """Make the folder ``out`` and, inside it, an empty one for files that are not complete."""
    make_folder(out)
    partial = out / _PARTIAL
    shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
    partial.mkdir(mode=0o700)
    try:
        yield partial
    finally:
        shutil.rmtree(partial)


def _publish(partial: Path, out: Path, files: list[str]) -> None:
    """Move complete files into place, after those of any earlier export are gone."""
    earlier = ["review.csv", "review.jsonl", "label-studio.json", "label-studio.xml"]
    for old in [*out.glob("review-[0-9]*.parquet"), *(out / name for name in earlier)]:
        old.unlink(missing_ok=True)
    for name in files:
        (partial / name).rename(out / name)
    folder = os.open(out, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
