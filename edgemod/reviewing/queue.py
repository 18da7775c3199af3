"""The exported queue, or an audit sample, as reviewers get it: rows in memory, texts in pieces."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from edgemod import encryption, features, run_folder
from edgemod.errors import InputError
from edgemod.features import Lexicons, Span
from edgemod.parts import open_part
from edgemod.policy import Policy, load_policy, policy_of_run
from edgemod.review import REVIEW
from edgemod.reviewing import alike
from edgemod.reviewing.answers import Key
from edgemod.words import OUTPUTS, Verdict

MOST: Final = 20_000
"""Records taken from the front of a queue, if nothing else is said."""
KEY: Final = ("source", "source_row")
"""What names a record."""
SEVERITY: Final = ("severity", "verdict")
"""What ``Queue.severities`` reads."""
SEVERE: Final = 4
"""Severities from this on are spaced out."""
UNKNOWN_SEVERITY: Final = 3
"""Of a record that was not scored: nobody knows what is in it."""
HIDDEN: Final = "hidden character"
"""What a piece is that stands for a character without ink."""

Piece = tuple[str, str]
"""A stretch of text and what fired there, "" for nothing."""


@dataclass(frozen=True)
class Queue:
    """Records that wait for people, most urgent first; ``table`` has the columns of ``REVIEW`` that
    were asked for.

    ``total``: how many the whole queue has. ``sample``: an audit sample, whose reviewers must not
    see what the models think. ``about``: what tells this queue from that of another input.
    ``files``: where it is.
    """

    table: pa.Table
    policy: Policy
    total: int
    sample: bool
    about: dict[str, str]
    files: tuple[Path, ...] = ()

    def keys(self) -> list[Key]:
        """The records, in order."""
        of = self.table["source"].combine_chunks().dictionary_encode()
        sources = of.dictionary.to_pylist()  # one string for all records of a file
        rows = self.table["source_row"].to_pylist()
        return [(sources[i], row) for i, row in zip(of.indices.to_pylist(), rows, strict=True)]

    def whole(self, rows: Sequence[int]) -> Iterator[pa.Table]:
        """Records by their place in the queue, ascending, with all columns: read again, and some at
        a time, since a long queue is more text than memory."""
        wanted, start = np.asarray(rows, np.int64), 0
        for table in _first(self.files, int(wanted[-1]) + 1 if len(wanted) else 0):
            stop = start + table.num_rows
            here = wanted[(wanted >= start) & (wanted < stop)]
            if len(here):
                yield table.select(REVIEW.names).cast(REVIEW).take(pa.array(here - start))
            start = stop

    def severities(self) -> list[int]:
        """How severe what each may hold is, 1 to 5.

        What was cleared, which only samples have, is taken for mild: of hundreds of ordinary texts
        those that lean to a severe category would soon use up what a reviewer sees in a session.
        """
        severities, verdicts = (self.table[name].to_pylist() for name in SEVERITY)
        return [
            1
            if verdict == Verdict.clear.name
            else UNKNOWN_SEVERITY
            if severity is None
            else severity
            for severity, verdict in zip(severities, verdicts, strict=True)
        ]

    def row(self, i: int) -> dict[str, Any]:
        """All columns of a record."""
        row: dict[str, Any] = self.table.slice(i, 1).to_pylist()[0]
        return row

    def take(self, rows: list[int]) -> Queue:
        """The queue of some of its records."""
        table = self.table.take(pa.array(rows, pa.int64())).combine_chunks()
        return replace(self, table=table, files=())

    def groups(self, lexicons: Lexicons) -> list[int]:
        """For each record the first one that is alike (``alike.groups``)."""
        forms = []
        for batch in self.table.select(["text"]).to_batches(max_chunksize=1024):
            texts = batch["text"].fill_null("")
            data, offsets = features.extract(texts, lexicons).normalised
            forms += [data[low:high].tobytes() for low, high in pairwise(offsets.tolist())]
        return alike.groups(forms, self.table["context"].to_pylist())


def open_queue(
    out: str | Path,
    policy: str | Path | None = None,
    most: int = MOST,
    columns: Sequence[str] = REVIEW.names,
) -> Queue:
    """The first ``most`` records of the queue of a complete run, or of an audit sample.

    ``policy``: the one that the run was made with, if it is not where it was; for a sample, if it
    is not the shipped one. ``columns``: those in memory, beside the names
    of records; without text a queue of any length will do. Raises RunError if ``out`` is neither,
    InputError if the queue is not there as Parquet, or the policy is gone, changed or another.
    """
    out, named = Path(out), None if policy is None else Path(policy)
    files = sorted(out.glob("review-[0-9]*.parquet"))
    if files and not (out / "run.json").exists():
        sample, used = True, load_policy(named)
        about = {"sample": _digest(files)}
    else:
        sample, state = False, run_folder.finished_state(out)
        encryption.check_run(state["plan"], str(out))
        files = sorted((out / "review").glob("review-[0-9]*.parquet"))
        used = policy_of_run(named, state)
        about = {"input": state["plan"]["input"]}
    if not files:
        raise InputError(
            "has no queue in Parquet",
            where=str(out / "review"),
            fix="Triage with --review-format parquet; 'edgemod review export' makes the others.",
        )
    try:
        total = sum(_rows(file) for file in files)
        names = [name for name in REVIEW.names if name in {*KEY, *columns}]
        asked = pa.schema([REVIEW.field(name) for name in names])
        table = pa.concat_tables([*_first(files, most, names)]).select(names).cast(asked)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(
            "the queue is damaged, or was not written by this edgemod",
            where=str(files[0].parent),
            fix="'edgemod verify OUT' names the file; triage again, or restore it.",
        ) from error
    return Queue(table.combine_chunks(), used, total, sample, about, tuple(files))


def _rows(file: Path) -> int:
    with open_part(file) as opened:
        return int(opened.metadata.num_rows)


def _digest(files: Iterable[Path]) -> str:
    """What tells one sample from another: a hash of its files' footers, which hold statistics."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            stream.seek(max(file.stat().st_size - 65_536, 0))
            digest.update(stream.read())
    return digest.hexdigest()


def _first(
    files: Iterable[Path], most: int, names: Sequence[str] = REVIEW.names
) -> Iterator[pa.Table]:
    yield REVIEW.empty_table().select(names)
    for file in files:
        with open_part(file) as opened:
            for batch in opened.iter_batches(4096, columns=[*names]):
                if most <= 0:
                    return
                yield pa.Table.from_batches([batch.slice(0, most)])
                most -= batch.num_rows


# -- what is shown ------------------------------------------------------------------------------


def pieces(text: str, lexicons: Lexicons, *, hide: bool) -> list[Piece]:
    """A text in pieces, each with the names of what fired there, such as "slurs" or "links".

    With ``hide`` the terms of word lists are dots. Characters without ink are told by their code
    point, so that none can turn a line round, hide or drive anything (``HIDDEN``).
    """
    try:
        found = features.spans(text, lexicons)
    except UnicodeEncodeError:  # a lone surrogate
        found = []
    out: list[Piece] = []
    for start, end, what in _flat(len(text), found):
        here = text[start:end]
        if hide and any(name.startswith("lexicon.") for name in what):
            here = "".join(c if c.isspace() else "\u2022" for c in here)
        named = ", ".join(sorted({name.removeprefix("lexicon.") for name in what}))
        out += _inked(here, named)
    return out


def _flat(length: int, found: list[Span]) -> Iterator[tuple[int, int, frozenset[str]]]:
    """Spans that may overlap, as stretches that do not and together are the text."""
    changes: dict[int, list[tuple[str, int]]] = {0: [], length: []}
    for span in found:
        changes.setdefault(span.start, []).append((span.what, 1))
        changes.setdefault(span.end, []).append((span.what, -1))
    open_here: Counter[str] = Counter()
    for start, end in pairwise(sorted(changes)):
        for what, change in changes[start]:
            open_here[what] += change
        yield start, end, frozenset(+open_here)


def _inked(text: str, what: str) -> Iterator[Piece]:
    held = ""
    for i, c in enumerate(text):
        kind = unicodedata.category(c)
        joins = c == "\u200d" and i and unicodedata.category(text[i - 1]) in ("So", "Sk", "Mn")
        if c in "\n\t" or joins or kind[0] not in "CZ" or kind == "Zs":
            held += c
            continue
        if held:
            yield held, what
            held = ""
        yield f"U+{ord(c):04X}", HIDDEN
    if held:
        yield held, what


def shown(row: dict[str, Any], *, blind: bool) -> dict[str, Any]:
    """What the page shows of a record before its text; ``blind``: nothing that the models think."""
    text = row["text"]
    told: dict[str, Any] = {
        "record_id": _line(row["record_id"]),
        "rank": None if blind else row["rank"],
        "role": _line(row["role"]),
        "time": _line(row["time"]),
        "shape": [] if text is None else [len(word) for word in text.split()[:120]],
        "characters": None if text is None else len(text),
        "context": row["context"] is not None,
        "blind": blind,
    }
    if blind:
        return told
    return told | {
        "category": row["category"],
        "severity": row["severity"],
        "reason": row["reason"],
        "stage": row["stage"],
        "status": row["status"],
        "definition": row["definition"],
        "p": {name: row[f"p_{name}"] for name in OUTPUTS},
    }


def _line(text: str | None) -> str | None:
    """A name that stays in its line and is what it looks like."""
    if text is None:
        return None
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:200])
