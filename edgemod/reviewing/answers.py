"""What reviewers answered, kept for good: one SQLite file for one run.

An answer is a row and no row is ever changed or deleted. Taking one back adds a row ``undo`` that
names it; a change of mind adds an answer that stands instead of the earlier one. So the file holds
all that was ever said, and answers of other files may be added in any order, any number of times:
what stands in the end is the same.

The text of a record is not in it: records are named by their file and row. Write-ahead logging
(https://www.sqlite.org/wal.html) with ``synchronous=FULL``: an answer that was acknowledged is on
the disk, and a kill between two writes leaves what was written before.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import time
import uuid
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from edgemod.errors import OutputError, RunError
from edgemod.policy import Policy
from edgemod.words import ANY, CATEGORIES

Key = tuple[str, int]
"""A record: ``source`` and ``source_row``."""

ANSWERS: Final = ("clear", "flag", "escalate")
"""What a reviewer may say: violates no category; violates one; somebody else should decide."""
UNDO: Final = "undo"
OUTCOMES: Final = ("upheld", "overturned")
"""What becomes of an appeal against a decision: it stays, or it was wrong."""
REVIEWER: Final = re.compile(r"[A-Za-z0-9._-]{1,40}")
"""What a reviewer may be called: a pseudonym."""
MOST_NOTE: Final = 2_000
"""Characters of a note."""

NAME: Final = "answers.sqlite"
"""The file in the folder of a run, if no other is named."""
_POLICY: Final = "policy "
"""Begins the names under which the file keeps what it is told of policies."""
_VERSION: Final = 2  # 1 had no appeals
_APPLICATION: Final = 0x65646D61  # "edma", for file(1) and for refusing other databases


@dataclass(frozen=True)
class Answer:
    """What one reviewer said of one record. The fields are the columns of every file of answers.

    ``answer``: one of ``ANSWERS``, or ``UNDO``, which takes back the one in ``supersedes``.
    ``answered_at``: UTC, ISO 8601. ``policy``: fingerprint of the policy of the run.
    ``inclusion_probability``, ``inclusion_floor``: as in the queue. ``seconds``: from the moment
    that the record was shown. ``revealed``: 0 its text stayed hidden, 1 it was shown with the words
    that fired hidden, 2 all of it. ``decided_with``: the answer id of the record that was looked
    at, if this one was only like it. ``settles``: given to settle a conflict or an escalation.
    ``appeal``: one of ``OUTCOMES`` if it is the outcome of an appeal; the answer is then what the
    decision is after it.
    """

    answer_id: str
    record_id: str | None
    source: str
    source_row: int
    reviewer: str
    answer: str
    answer_category: str | None = None
    note: str | None = None
    answered_at: str = ""
    policy: str | None = None
    inclusion_probability: float | None = None
    inclusion_floor: float | None = None
    seconds: float | None = None
    revealed: int | None = None
    decided_with: str | None = None
    settles: bool = False
    supersedes: str | None = None
    appeal: str | None = None

    @property
    def key(self) -> Key:
        """The record."""
        return self.source, self.source_row

    @property
    def says(self) -> str:
        """The category flagged, else the answer: what two reviewers agree on or not."""
        return (self.answer_category or "flag") if self.answer == "flag" else self.answer


COLUMNS: Final = tuple(field.name for field in fields(Answer))
"""Columns of a file of answers."""

_SCHEMA: Final = f"""
CREATE TABLE answers (
  number INTEGER PRIMARY KEY,
  answer_id TEXT NOT NULL UNIQUE,
  record_id TEXT,
  source TEXT NOT NULL,
  source_row INTEGER NOT NULL,
  reviewer TEXT NOT NULL,
  answer TEXT NOT NULL CHECK (answer IN ('clear', 'flag', 'escalate', 'undo')),
  answer_category TEXT,
  note TEXT,
  answered_at TEXT NOT NULL,
  policy TEXT,
  inclusion_probability REAL,
  inclusion_floor REAL,
  seconds REAL,
  revealed INTEGER,
  decided_with TEXT,
  settles INTEGER NOT NULL,
  supersedes TEXT,
  appeal TEXT,
  CHECK ((answer = 'undo') <= (supersedes IS NOT NULL))
) STRICT;
CREATE INDEX of_record ON answers (source, source_row);
CREATE INDEX taken_back ON answers (supersedes);
CREATE TRIGGER never_changed BEFORE UPDATE ON answers
  BEGIN SELECT RAISE(ABORT, 'answers are never changed'); END;
CREATE TRIGGER never_deleted BEFORE DELETE ON answers
  BEGIN SELECT RAISE(ABORT, 'answers are never deleted'); END;
CREATE TABLE claims (
  source TEXT NOT NULL,
  source_row INTEGER NOT NULL,
  reviewer TEXT NOT NULL,
  until REAL NOT NULL,
  PRIMARY KEY (source, source_row)
) STRICT;
CREATE TABLE exposures (reviewer TEXT NOT NULL, severity INTEGER NOT NULL, at REAL NOT NULL) STRICT;
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
"""


class Answers:
    """The answers of one run, open. Several processes may have the same file open.

    Not for several threads at once: hold a lock around it.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self.path = connection, path

    @classmethod
    def open(cls, path: str | Path, about: dict[str, str] | None = None) -> Self:
        """Open the file, or make it, readable by its owner alone.

        ``about``: what it is about, such as the fingerprint of the input; kept in a new file and
        compared with in one that is there. Raises OutputError if it cannot be read or written,
        RunError if it is no file of answers or is about something else.
        """
        path = Path(path)
        try:
            with suppress(FileExistsError):  # SQLite gives -wal and -shm the mode of the file
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=30
            )
        except (OSError, sqlite3.Error) as error:
            raise _refused(path, error) from error
        self = cls(connection, path)
        try:
            self._prepare(about or {})
        except sqlite3.DatabaseError as error:
            connection.close()
            if "not a database" in str(error):
                raise _stranger(path) from error
            raise _refused(path, error) from error
        except BaseException:
            connection.close()
            raise
        return self

    def _prepare(self, about: dict[str, str]) -> None:
        if self._one("SELECT count(*) FROM sqlite_master"):
            kind = self._one("PRAGMA application_id"), self._one("PRAGMA user_version")
            if kind not in ((_APPLICATION, 1), (_APPLICATION, _VERSION)):
                raise _stranger(self.path)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            if not self._one("SELECT count(*) FROM sqlite_master"):  # another may have made it now
                for statement in _statements(_SCHEMA):
                    self._connection.execute(statement)
            if self._one("PRAGMA user_version") == 1:
                self._connection.execute("ALTER TABLE answers ADD COLUMN appeal TEXT")
                self._connection.execute(f"PRAGMA user_version = {_VERSION}")
            for name, value in about.items():
                self._connection.execute("INSERT OR IGNORE INTO about VALUES (?, ?)", (name, value))
            kept = dict(self._connection.execute("SELECT name, value FROM about"))
        if changed := [name for name, value in about.items() if kept[name] != value]:
            raise RunError(
                f"holds answers about another {', '.join(changed)}",
                where=str(self.path),
                fix="Name another file with --answers; this one belongs to another run.",
            )

    def own_pseudonym(self) -> str:
        """A reviewer id for the account that runs this, the same each time with this file.

        A hash with a salt that is in the file alone: no name, though who has the file can test one.
        """
        with self._transaction():
            self._connection.execute(
                "INSERT OR IGNORE INTO about VALUES ('salt', ?)", (uuid.uuid4().hex,)
            )
        salt = self._one("SELECT value FROM about WHERE name = 'salt'")
        return "r-" + hashlib.sha256(f"{salt}\0{os.getuid()}".encode()).hexdigest()[:8]

    def note_policy(self, policy: Policy) -> None:
        """Keep what the categories of a policy mean, a digest each, that answers are given by."""
        with self._transaction():
            self._connection.execute(
                "INSERT OR IGNORE INTO about VALUES (?, ?)",
                (_POLICY + policy.fingerprint, json.dumps(meanings(policy))),
            )

    def policies(self) -> dict[str, dict[str, str]]:
        """The ``meanings`` of all policies that were noted, by fingerprint."""
        rows = self._connection.execute("SELECT name, value FROM about").fetchall()
        return {n.removeprefix(_POLICY): json.loads(v) for n, v in rows if n.startswith(_POLICY)}

    def close(self) -> None:
        """Close it; what was written is on the disk already."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- answers -------------------------------------------------------------------------------

    def add(self, answers: Iterable[Answer]) -> int:
        """Add answers, all of them or none; return how many are new. Known ids are passed over."""
        rows = [astuple(one) for one in answers]
        holes = ", ".join("?" * len(COLUMNS))
        before = self._connection.total_changes
        with self._transaction():
            self._connection.executemany(
                f"INSERT INTO answers ({', '.join(COLUMNS)}) VALUES ({holes}) "
                "ON CONFLICT (answer_id) DO NOTHING",
                rows,
            )
            new = self._connection.total_changes - before
            self._connection.executemany(
                "DELETE FROM claims WHERE source = ? AND source_row = ? AND reviewer = ?",
                [(row[2], row[3], row[4]) for row in rows],
            )
        return new

    def undo(self, reviewer: str) -> list[Answer]:
        """Take back what a reviewer last answered that still stands, with all decided with it.

        Returns it, that of the record that was looked at first; nothing if there is none.
        """
        standing = [one for one in self.standing() if one.reviewer == reviewer]
        if not standing:
            return []
        last = max(standing, key=lambda one: (one.answered_at, one.decided_with is None))
        lead = last.decided_with or last.answer_id
        taken = [one for one in standing if lead in (one.answer_id, one.decided_with)]
        taken.sort(key=lambda one: one.decided_with is not None)
        now = moment()
        self.add(
            replace(one, answer_id=new_id(), answer=UNDO, answered_at=now, supersedes=one.answer_id)
            for one in taken
        )
        return taken

    def every(self) -> Iterator[Answer]:
        """All rows, undone ones and undos too, as they were added."""
        rows = self._connection.execute(f"SELECT {', '.join(COLUMNS)} FROM answers ORDER BY number")
        for row in rows.fetchall():
            yield _answer(row)

    def standing(self) -> list[Answer]:
        """The answers that stand: one a record and reviewer, in order of time; no appeals."""
        return standing(self.every())

    def appeals(self) -> list[Answer]:
        """The outcomes of appeals that stand: the last of each record, in order of time."""
        return appeals(self.every())

    def last(self) -> int:
        """The number of the last row, 0 for none: it grows with every answer of any process."""
        return self._one("SELECT max(number) FROM answers") or 0

    # -- claims --------------------------------------------------------------------------------

    def claim(self, reviewer: str, keys: Sequence[Key], seconds: float) -> bool:
        """Keep records from all others for some seconds; all of them, or none and False.

        What the reviewer claimed before is given back.
        """
        now = time.time()
        with self._transaction():
            self._connection.execute(
                "DELETE FROM claims WHERE reviewer = ? OR until <= ?", (reviewer, now)
            )
            taken = any(
                self._one("SELECT 1 FROM claims WHERE source = ? AND source_row = ?", key)
                for key in keys
            )
            if not taken:
                self._connection.executemany(
                    "INSERT INTO claims VALUES (?, ?, ?, ?)",
                    [(*key, reviewer, now + seconds) for key in keys],
                )
        return not taken

    def release(self, reviewer: str) -> None:
        """Give back what a reviewer claimed."""
        with self._transaction():
            self._connection.execute("DELETE FROM claims WHERE reviewer = ?", (reviewer,))

    def claimed(self) -> dict[Key, str]:
        """The records that are claimed now, and by whom."""
        rows = self._connection.execute(
            "SELECT source, source_row, reviewer FROM claims WHERE until > ?", (time.time(),)
        )
        return {(source, row): reviewer for source, row, reviewer in rows}

    # -- exposures -----------------------------------------------------------------------------

    def expose(self, reviewer: str, severity: int) -> None:
        """Note that a reviewer saw a text of some severity."""
        with self._transaction():
            self._connection.execute(
                "INSERT INTO exposures VALUES (?, ?, ?)", (reviewer, severity, time.time())
            )

    def exposures(self, reviewer: str) -> list[tuple[float, int]]:
        """When (seconds since 1970) a reviewer saw a text, and its severity, in order of time."""
        return self._connection.execute(
            "SELECT at, severity FROM exposures WHERE reviewer = ? ORDER BY at", (reviewer,)
        ).fetchall()

    # ------------------------------------------------------------------------------------------

    def _one(self, query: str, values: Sequence[Any] = ()) -> Any:
        row = self._connection.execute(query, values).fetchone()
        return row and row[0]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:  # a full disk, a lock that is not given back
            raise _refused(self.path, error) from error


def meanings(policy: Policy) -> dict[str, str]:
    """A digest of each category's definition."""
    return {
        c.name: hashlib.sha256(c.definition.encode()).hexdigest()[:16] for c in policy.categories
    }


def standing(answers: Iterable[Answer]) -> list[Answer]:
    """Of all answers those that stand: not superseded, the last of each reviewer on a record.

    Outcomes of appeals are not among them: nobody gave them at the queue.
    """
    return _last((one for one in _kept(answers) if not one.appeal), lambda a: (a.key, a.reviewer))


def appeals(answers: Iterable[Answer]) -> list[Answer]:
    """Of all answers the outcomes of appeals that stand: the last of each record."""
    return _last((one for one in _kept(answers) if one.appeal), lambda a: a.key)


def label_row(
    violates: bool, category: str | None, of_policy: Collection[str]
) -> dict[str, int | None]:
    """An answer as labels of ``OUTPUTS``: 1 violates, 0 does not, None is unknown.

    A clear says 0 of every category of the policy; a flag says 1 of its category and of ``any``,
    and nothing of other categories.
    """
    row: dict[str, int | None] = {ANY: int(violates)}
    for name in CATEGORIES:
        no = 0 if name in of_policy and not violates else None
        row[name] = 1 if violates and name == category else no
    return row


def _kept(answers: Iterable[Answer]) -> list[Answer]:
    """Those that are not superseded."""
    known = {one.answer_id: one for one in answers}
    gone = {one.supersedes for one in known.values()}
    return [one for one in known.values() if one.answer != UNDO and one.answer_id not in gone]


def _last(answers: Iterable[Answer], of: Callable[[Answer], Hashable]) -> list[Answer]:
    """The last of each kind, in order of time, whatever order they come in.

    Equal times, which machines may give, are told apart by ids.
    """
    last: dict[Hashable, Answer] = {}
    for one in answers:
        before = last.setdefault(of(one), one)
        if _when(before) < _when(one):
            last[of(one)] = one
    return sorted(last.values(), key=_when)


def _when(one: Answer) -> tuple[str, str]:
    return one.answered_at, one.answer_id


def new_id() -> str:
    """A new answer id."""
    return uuid.uuid4().hex


def moment() -> str:
    """Now, UTC, ISO 8601 with microseconds: as text these sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def is_double(key: Key, share: float) -> bool:
    """Whether a record is among the ``share`` (0 to 1) that two reviewers answer.

    By a hash of its name: every process draws the same.
    """
    digest = hashlib.sha256(f"double review\0{key[0]}\0{key[1]}".encode("utf-8", "replace"))
    return int.from_bytes(digest.digest()[:8], "big") < share * 2**64


def _answer(row: Sequence[Any]) -> Answer:
    one = Answer(*row)
    return replace(one, settles=bool(one.settles))


def _statements(script: str) -> Iterator[str]:
    """The statements of a script: ``executescript`` would end the transaction."""
    held = ""
    for line in script.splitlines():
        held += line + "\n"
        if sqlite3.complete_statement(held):
            yield held
            held = ""


def _refused(path: Path, error: Exception) -> OutputError:
    return OutputError(
        f"the file of answers cannot be used: {error}",
        where=str(path),
        fix="Name a file on a local disk, in a folder that you may write to, with --answers.",
    )


def _stranger(path: Path) -> RunError:
    return RunError(
        "is no file of answers, or of another edgemod",
        where=str(path),
        fix="Name another file with --answers.",
    )
