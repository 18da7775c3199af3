"""Answers out of files: JSONL, CSV and Parquet with the columns of ``Answer``, and Label Studio's.

A row without an answer is passed over: exported queues have columns to fill in, and nobody fills in
all of them. A row that cannot be an answer is told of and costs no other row. A row without an
``answer_id`` gets one from its content, so that reading a file again adds nothing.

A row with the column ``appeal`` is the outcome of an appeal. What it says of the record follows
from what had been decided: see ``_outcome``.

Label Studio: the JSON export, tasks with their annotations
(https://labelstud.io/guide/export#Label-Studio-JSON-format-of-annotated-tasks).
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from edgemod.errors import InputError
from edgemod.parts import open_part
from edgemod.policy import MAX_TEXT_BYTES
from edgemod.reviewing.answers import (
    ANSWERS,
    COLUMNS,
    MOST_NOTE,
    OUTCOMES,
    REVIEWER,
    UNDO,
    Answer,
    Key,
    moment,
)
from edgemod.sources import DAMAGE

FORMATS: Final = ("jsonl", "csv", "parquet", "json")

Row = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """A row that is no answer: its file and place in it, and what is wrong, without its content."""

    where: str
    what: str


class _NoAnswerError(Exception):
    """Why a row is no answer."""


@dataclass(frozen=True)
class Known:
    """What answers may be about: records by key and by id (None where several have it).

    ``decided``: of records that an appeal may be about, what had been decided: "clear", a category
    or "flag". ``whole``: what the records are of, in words.
    """

    keys: frozenset[Key]
    by_id: dict[str, Key | None]
    categories: frozenset[str]
    decided: Mapping[Key, str] = field(default_factory=dict)
    whole: str = "queue"

    @classmethod
    def of(
        cls,
        keys: Sequence[Key],
        ids: Sequence[str | None],
        categories: Sequence[str],
        decided: Mapping[Key, str] | None = None,
        whole: str = "queue",
    ) -> Known:
        """Those of some records, called ``ids``."""
        by_id: dict[str, Key | None] = {}
        for key, name in zip(keys, ids, strict=True):
            if name is not None:
                by_id[name] = None if name in by_id else key
        return cls(frozenset(keys), by_id, frozenset(categories), decided or {}, whole)


Rename = Callable[[str], str]
"""What a record is called in the outputs of a run, from its id in the input."""

Appeal = tuple[str, Row]
"""A row that is the outcome of an appeal, and where it is: what it says is not known yet."""


def read(
    path: Path, known: Known, reviewer: str | None = None, rename: Rename | None = None
) -> tuple[list[Answer], list[Problem], list[Appeal]]:
    """The answers of one file, the rows that are none, and those about appeals (see ``outcomes``).

    ``reviewer``: who answered where the file does not say. ``rename``: where records are called as
    in the input. Raises InputError for a file that cannot be read or is in no known format.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _READERS:
        raise InputError(
            "is in no format of answers",
            where=str(path),
            fix=f"Its name must end in one of {', '.join(FORMATS)}.",
        )
    answers, problems, appeals = [], [], []
    try:
        for place, row in _READERS[kind](path):
            try:
                if isinstance(row, _NoAnswerError):
                    raise row
                if rename and _plain(row.get("record_id")) is not None:
                    row["record_id"] = rename(str(row["record_id"]))
                if _plain(row.get("appeal")) is not None:
                    appeals.append((f"{path}, {place}", row))
                elif _plain(row.get("answer")) is not None:
                    answers.append(_answer(row, known, reviewer))
            except _NoAnswerError as error:
                problems.append(Problem(f"{path}, {place}", str(error)))
    except (*DAMAGE, ValueError, OverflowError, RecursionError, csv.Error) as error:
        raise InputError(
            f"cannot be read as {kind}",
            where=str(path),
            fix="Export it again, or see docs/review.md for what it should be.",
        ) from error
    return answers, problems, appeals


def named(appeals: Iterable[Appeal]) -> tuple[set[str], set[Key]]:
    """The records that appeals name: by id, or by key."""
    ids: set[str] = set()
    keys: set[Key] = set()
    for _, row in appeals:
        try:
            keys.add((str(row["source"]), int(row["source_row"])))
        except (KeyError, ValueError, TypeError, OverflowError):
            ids.add(str(row.get("record_id")))
    return ids, keys


def outcomes(
    appeals: Iterable[Appeal], known: Known, reviewer: str | None = None
) -> tuple[list[Answer], list[Problem]]:
    """What appeals say of their records, now that it is known what had been decided."""
    answers, problems = [], []
    for where, row in appeals:
        try:
            answers.append(_answer(row, known, reviewer))
        except _NoAnswerError as error:
            problems.append(Problem(where, str(error)))
    return answers, problems


def _answer(row: Row, known: Known, reviewer: str | None) -> Answer:
    """The answer in a row. Raises _NoAnswerError."""
    given = {name: _plain(row.get(name)) for name in COLUMNS}
    key = _key(given, known)
    in_file = given["appeal"] or given["answer"], given["answer_category"]
    if given["appeal"] is not None:
        given |= _outcome(given, known.decided.get(key))
    said, who = given["answer"], given["reviewer"] or reviewer
    category = given["answer_category"] if said == "flag" else None
    for wrong, what in (
        (said not in (*ANSWERS, UNDO), f"'answer' is none of {', '.join(ANSWERS)}"),
        (not isinstance(who, str) or not REVIEWER.fullmatch(who), "no reviewer, or no pseudonym"),
        (
            category is not None and str(category) not in known.categories,
            "no category of the policy",
        ),
        (said == UNDO and not given["supersedes"], "an undo that does not say of what"),
    ):
        if wrong:
            raise _NoAnswerError(what)
    note = None if given["note"] is None else str(given["note"])[:MOST_NOTE]
    at = _time(given["answered_at"])
    told = in_file if given["appeal"] else (said, category)
    content = json.dumps([*key, who, *told, note, at])
    return Answer(
        answer_id=str(given["answer_id"] or hashlib.sha256(content.encode()).hexdigest()[:32]),
        record_id=None if given["record_id"] is None else str(given["record_id"]),
        source=key[0],
        source_row=key[1],
        reviewer=str(who),
        answer=str(said),
        answer_category=category,
        note=note,
        answered_at=at or moment(),
        policy=None if given["policy"] is None else str(given["policy"]),
        inclusion_probability=_number(given["inclusion_probability"], float),
        inclusion_floor=_number(given["inclusion_floor"], float),
        seconds=_number(given["seconds"], float),
        revealed=_number(given["revealed"], _whole),
        decided_with=None if given["decided_with"] is None else str(given["decided_with"]),
        settles=str(given["settles"]).lower() in ("true", "1", "1.0"),
        supersedes=None if given["supersedes"] is None else str(given["supersedes"]),
        appeal=given["appeal"],
    )


def _outcome(given: Row, decided: str | None) -> Row:
    """What a record is after an appeal, as an answer.

    Upheld is what was decided. Overturned is the contrary: a clear is a flag, as
    ``answer_category`` or, without one, as no category that is known; a flag is a clear, or with
    ``answer_category`` a flag as that instead.
    """
    outcome, category = given["appeal"], given["answer_category"]
    if outcome not in OUTCOMES:
        raise _NoAnswerError(f"'appeal' is none of {', '.join(OUTCOMES)}")
    if decided is None:
        raise _NoAnswerError(
            "people were to decide, and none of their answers stands: import first"
        )
    contrary = "flag" if decided == "clear" else "clear"
    after = decided if outcome == "upheld" else category or contrary
    if decided == after == "flag":
        after = category or after
    if category not in (None, after) or (outcome == "overturned" and after == decided):
        raise _NoAnswerError("its category is not what the outcome makes of the decision")
    flagged = after != "clear"
    return {
        "answer": "flag" if flagged else "clear",
        "answer_category": after if flagged and after != "flag" else None,
    }


def _key(given: Row, known: Known) -> Key:
    source, row = given["source"], _number(given["source_row"], _whole)
    if source is not None and row is not None:
        if (str(source), row) in known.keys:
            return str(source), row
        raise _NoAnswerError(f"of no record of this {known.whole}")
    name = given["record_id"]
    key = () if name is None else known.by_id.get(str(name), ())
    if key is None:
        raise _NoAnswerError("several records have this id: give source and source_row")
    if not key:
        raise _NoAnswerError(f"of no record of this {known.whole}")
    return key


def _plain(value: Any) -> Any:
    """Text that a file can hold, without lone surrogates; None for what tools write for nothing."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() or None
    return None if isinstance(value, float) and math.isnan(value) else value


def _number(value: Any, kind: Callable[[Any], Any]) -> Any:
    try:
        number = None if value is None else kind(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise _NoAnswerError("no number, or no whole one, where one should be") from error
    if isinstance(number, int) and not -(1 << 63) <= number < 1 << 63:  # what SQLite holds
        raise _NoAnswerError("a number that is too large")
    return number


def _whole(value: Any) -> int:
    """A whole number; tools that know no null in whole numbers write 2.0."""
    if isinstance(value, str) and "." not in value:
        return int(value)
    if not float(value).is_integer():
        raise ValueError
    return int(float(value)) if isinstance(value, str) else int(value)  # large ones lose no digit


def _time(value: Any) -> str | None:
    """UTC with microseconds: as text these sort by time. A time without a zone is taken for UTC."""
    if value is None:
        return None
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
        return at.astimezone(UTC).isoformat(timespec="microseconds")
    except (ValueError, OverflowError) as error:
        raise _NoAnswerError("'answered_at' is no time in ISO 8601") from error


# -- formats -------------------------------------------------------------------------------------

Rows = Iterator[tuple[str, Row | _NoAnswerError]]


def _jsonl(path: Path) -> Rows:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            no = _NoAnswerError("is no JSON object")
            yield f"line {number}", row if isinstance(row, dict) else no


def _csv(path: Path) -> Rows:
    before = csv.field_size_limit(MAX_TEXT_BYTES)  # the queue that was exported has texts in it
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # Strict: a quote that is never closed would take all rows after it for one.
            for row in (reader := csv.DictReader(file, strict=True)):
                # The apostrophe that keeps a spreadsheet from running a cell is not part of it.
                cells = {
                    name: value[1:] if re.match(r"'[=+\-@\t\r＝＋－＠]", value or "") else value
                    for name, value in row.items()
                    if isinstance(name, str)
                }
                yield f"line {reader.line_num}", cells
    finally:
        csv.field_size_limit(before)


def _parquet(path: Path) -> Rows:
    with open_part(path) as file:
        names = [name for name in COLUMNS if name in file.schema_arrow.names]
        number = 0
        for batch in file.iter_batches(4096, columns=names):
            for row in batch.to_pylist():
                yield f"row {number}", row
                number += 1


def _label_studio(path: Path) -> Rows:
    tasks = json.loads(path.read_bytes())
    if not isinstance(tasks, list):
        raise ValueError
    for number, task in enumerate(tasks):
        place = f"task {number}"
        try:
            data = {name: task["data"].get(name) for name in ("record_id", "source", "source_row")}
            shares = {n: task["data"].get(n) for n in ("inclusion_probability", "inclusion_floor")}
            for one in task["annotations"]:
                if not one.get("was_cancelled"):
                    yield place, {**data, **shares, **_annotation(one)}
        except (KeyError, TypeError, AttributeError, IndexError):
            yield place, _NoAnswerError("is no task of Label Studio with annotations")


def _annotation(one: Row) -> Row:
    """One annotation as a row. Accounts there are numbers and addresses; the number stays."""
    who = one["completed_by"]
    said = {
        r["from_name"]: r["value"].get("choices") or r["value"].get("text") for r in one["result"]
    }
    row = {
        "reviewer": f"ls-{who['id'] if isinstance(who, dict) else who}",
        "answer": (said.get("verdict") or [None])[0],
        "answer_category": (said.get("answer_category") or [None])[0],
        "note": "\n".join(said.get("note") or []) or None,
        "answered_at": one.get("updated_at") or one.get("created_at"),
        "seconds": one.get("lead_time"),
    }
    # An annotation that was changed has a later time, and is another answer.
    own = json.dumps([one.get("unique_id") or one.get("id"), row], sort_keys=True)
    return row | {"answer_id": "ls-" + hashlib.sha256(own.encode()).hexdigest()[:29]}


_READERS: Final[dict[str, Callable[[Path], Rows]]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
    "json": _label_studio,
}
