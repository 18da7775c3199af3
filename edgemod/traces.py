"""What ``trends`` keeps of the records of a finished run: numbers, and no text.

Two passes over the input. ``read`` takes of every record its verdict, moment, author and group, a
signature of its text and the spellings of lexicon terms that only the normal form shows;
``count_terms`` then counts terms by windows of time. Memory: about 180 bytes a record, 100 MB for
the terms, and a chunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from edgemod import features, run_folder
from edgemod.errors import InputError
from edgemod.features import Lexicons
from edgemod.kernels import shingles, terms
from edgemod.parts import open_part
from edgemod.policy import Policy
from edgemod.records import Chunk
from edgemod.rehearsal import Archive
from edgemod.words import CATEGORIES, NO_GROUP, Status, Verdict

MOST_GROUPS: Final = 1 << 16
MOST_SPELLINGS: Final = 100_000
"""Of lexicon terms, distinct; later ones are not kept."""

Int64s = npt.NDArray[np.int64]


@dataclass
class Spelling:
    """How a lexicon term was written in records where only its normal form fires."""

    records: int = 0
    timed: int = 0
    """Those of them whose moment is known."""
    first: int = 0
    """The record of least moment."""
    ids: list[int] = field(default_factory=list)
    """The first 50 records that were read."""


@dataclass
class Traces:
    """Of n records of a run, in its order; arrays (n,) unless said otherwise."""

    total: int
    """Records of the run; n is less if a random share was taken."""
    position: Int64s
    """Which record of the run each is."""
    verdict: npt.NDArray[np.int8]
    category: npt.NDArray[np.int8]
    """Index into ``CATEGORIES``; -1 for none."""
    moment: npt.NDArray[np.float64]
    """Seconds since 1970, NaN where not known; without any times the order of the run."""
    timed: bool
    author: Int64s
    """A hash; 0 where not known."""
    group: npt.NDArray[np.int32]
    groups: list[str]
    signatures: npt.NDArray[np.uint16]
    """(s, 64) of the records ``signed``: those with a text that is long enough."""
    signed: Int64s
    spellings: dict[tuple[str, str], Spelling]
    """By lexicon and spelling, white space and case aside."""

    def moment_text(self, record: int) -> str | None:
        """The moment of a record, ISO 8601 in UTC; None where not known."""
        if not self.timed or np.isnan(self.moment[record]):
            return None
        return datetime.fromtimestamp(self.moment[record], UTC).isoformat(timespec="seconds")


def read(
    run: Path, archive: Archive, policy: Policy, lexicons: Lexicons, most_records: int
) -> Traces:
    """The first pass. ``archive.columns.stratum`` is the column of groups, if any."""
    verdict, category = _decided(run, archive)
    total = len(verdict)
    position = np.arange(total)
    if total > most_records:
        position = np.flatnonzero(np.random.default_rng(0).random(total) < most_records / total)
    n = len(position)
    traces = Traces(
        total=total,
        position=position,
        verdict=verdict[position],
        category=category[position],
        moment=np.full(n, np.nan),
        timed=False,
        author=np.zeros(n, np.int64),
        group=np.zeros(n, np.int32),
        groups=[],
        signatures=np.empty((n, shingles.VALUES), np.uint16),
        signed=np.zeros(n, np.int64),
        spellings={},
    )
    codes: dict[str, int] = {}
    plain = {" ".join(t.split()).casefold() for lex in policy.lexicons for t in lex.terms}
    signed = 0
    for chunk, rows in chunks(archive, policy, position):
        here = slice(int(rows[0]), int(rows[-1]) + 1)
        traces.moment[here] = _moments(chunk.records["time"])
        traces.author[here] = _hashes(chunk.records["author_id"])
        if archive.columns.stratum is not None:
            traces.group[here] = _codes(chunk.records["stratum"], codes)
        texts, owner = _texts(chunk)
        measured = features.extract(texts, lexicons)
        for i in np.flatnonzero(measured.hits.any(axis=1)):
            _spellings(texts[int(i)].as_py(), lexicons, plain, int(rows[owner[i]]), traces)
        data, offsets = measured.normalised
        long = _longest(np.diff(offsets), owner)
        done = slice(signed, signed + len(long))
        traces.signed[done] = rows[owner[long]]
        traces.signatures[done] = shingles.sign(data, offsets)[long]
        signed += len(long)
    traces.groups = [*codes]
    traces.signatures, traces.signed = traces.signatures[:signed], traces.signed[:signed]
    traces.timed = bool(np.isfinite(traces.moment).any())
    if not traces.timed:
        traces.moment = np.arange(n, dtype=np.float64)
    return traces


def count_terms(
    archive: Archive, policy: Policy, traces: Traces, cells: npt.NDArray[np.int16], width: int
) -> terms.Table:
    """The second pass: records that have each term, by ``cells`` (n, c) below ``width``."""
    table = terms.Table.empty(width)
    none = Lexicons.compile(())
    moments = np.nan_to_num(traces.moment, nan=np.inf)
    for chunk, rows in chunks(archive, policy, traces.position):
        texts, owner = _texts(chunk)
        data, offsets = features.extract(texts, none).normalised
        table.add(data, offsets, rows[owner], cells, moments)
    return table


def chunks(archive: Archive, policy: Policy, position: Int64s) -> Iterator[tuple[Chunk, Int64s]]:
    """The chosen records of an archive as chunks, and which of the chosen ones each holds."""
    start = 0
    for chunk in archive.chunks(policy.max_text_bytes):
        stop = start + chunk.records.num_rows
        low, high = np.searchsorted(position, (start, stop))
        rows = position[low:high] - start
        start = stop
        if len(rows) == chunk.records.num_rows:
            yield chunk, np.arange(low, high)
        elif len(rows):
            of = np.array(chunk.texts["record"], np.int32)
            new = np.full(chunk.records.num_rows, -1, np.int32)
            new[rows] = np.arange(len(rows))
            texts = chunk.texts.take(pa.array(np.flatnonzero(new[of] >= 0)))
            owner = pa.array(new[np.array(texts["record"], np.int32)])
            texts = texts.set_column(0, texts.schema.field(0), owner)
            yield (
                Chunk(chunk.index, chunk.records.take(pa.array(rows)), texts),
                np.arange(low, high),
            )


def _decided(run: Path, archive: Archive) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Verdict and category of every record of a run, as numbers."""
    assert archive.run is not None
    both: list[tuple[Any, Any]] = []
    for part in run_folder.parts(run, archive.run[1]):
        with open_part(part) as file:
            table = file.read(["verdict", "category"])
        columns = (table[name].cast(pa.string()) for name in ("verdict", "category"))
        both.append(
            tuple(
                pc.index_in(column, pa.array(names)).fill_null(-1).to_numpy().astype(np.int8)
                for column, names in zip(columns, ([*Verdict.__members__], CATEGORIES), strict=True)
            )
        )
    nothing = np.zeros(0, np.int8)
    verdicts, categories = zip(*both, strict=True) if both else ((nothing,), (nothing,))
    return np.concatenate(verdicts), np.concatenate(categories)


def _texts(chunk: Chunk) -> tuple[pa.LargeStringArray, npt.NDArray[np.int32]]:
    """The readable texts of a chunk, and whose each is."""
    rows = np.flatnonzero(np.array(chunk.texts["status"], np.int8) == Status.ok)
    return chunk.texts["text"].take(pa.array(rows)), np.array(chunk.texts["record"], np.int32)[rows]


def _longest(sizes: Int64s, owner: npt.NDArray[np.int32]) -> Int64s:
    """Of each record the longest of its texts, if it is long enough; ascending."""
    order = np.lexsort((-sizes, owner))
    first = np.append(True, np.diff(owner[order]) != 0)[: len(order)]
    found = order[first]
    return np.sort(found[sizes[found] >= shingles.SHORTEST])


def _spellings(text: str, lexicons: Lexicons, plain: set[str], record: int, traces: Traces) -> None:
    """Note how the lexicon terms of a text are spelled where that is not how the lexicon does."""
    seen = set()
    for span in features.spans(text, lexicons):
        spelling = " ".join(text[span.start : span.end].split()).casefold()
        if span.what.startswith("lexicon.") and spelling not in plain:
            seen.add((span.what.removeprefix("lexicon."), spelling))
    for key in seen:
        if key not in traces.spellings and len(traces.spellings) >= MOST_SPELLINGS:
            continue
        found = traces.spellings.setdefault(key, Spelling(first=record))
        here, before = traces.moment[record], traces.moment[found.first]
        if here < before or (np.isnan(before) and not np.isnan(here)):
            found.first = record
        found.records += 1
        found.timed += bool(np.isfinite(here))
        if len(found.ids) < 50:
            found.ids.append(record)


def _moments(times: pa.StringArray) -> npt.NDArray[np.float64]:
    """Seconds since 1970 of ISO 8601 times, UTC where no zone is said; NaN for all else."""
    found: dict[str | None, float] = {None: np.nan}
    for value in times.to_pylist():
        if value not in found:
            try:
                moment = datetime.fromisoformat(value)
                moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
                found[value] = moment.timestamp()
            except (ValueError, OverflowError):
                found[value] = np.nan
    return np.array([found[value] for value in times.to_pylist()], np.float64)


def _hashes(names: pa.StringArray) -> Int64s:
    """64 bits of each name, 0 for null."""
    encoded = names.dictionary_encode()
    known = [
        int.from_bytes(
            hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True
        )
        for name in encoded.dictionary.to_pylist()
    ]
    codes = encoded.indices.fill_null(len(known)).to_numpy()
    return np.asarray(np.array([*known, 0], np.int64)[codes], np.int64)


def _codes(names: pa.StringArray, codes: dict[str, int]) -> list[int]:
    """Numbers of groups, new ones added to ``codes``."""
    found = [codes.setdefault(name or NO_GROUP, len(codes)) for name in names.to_pylist()]
    if len(codes) > MOST_GROUPS:
        raise InputError(
            f"has more than {MOST_GROUPS:,} different values",
            where="--by",
            fix="Name a column of channels, communities or kinds.",
        )
    return found


def normal_forms(words: list[str]) -> list[str]:
    """The normal form of each word."""
    (data, offsets) = features.extract(
        pa.array(words, pa.large_string()), Lexicons.compile(())
    ).normalised
    return [data[a:b].tobytes().decode("utf-8", "replace") for a, b in pairwise(offsets.tolist())]
