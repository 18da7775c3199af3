"""Who is shown which record, when, and how: the queue shared out with care for those who read it.

What spares reviewers is meant to be on unless somebody turns it off (``Care``). That seeing less
harmful content, in smaller doses, is better for people is well supported; for hiding texts until
they are asked for the evidence is mixed. docs/review.md says what rests on what.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from edgemod.errors import InputError
from edgemod.features import Lexicons
from edgemod.reviewing.answers import (
    ANSWERS,
    MOST_NOTE,
    Answer,
    Answers,
    Key,
    is_double,
    moment,
    new_id,
)
from edgemod.reviewing.queue import SEVERE, Queue, pieces, shown

MOST_ALIKE: Final = 20
"""Texts that are alike and can be looked at."""


@dataclass(frozen=True)
class Care:
    """What spares reviewers.

    ``mask``: what is hidden until asked for: the ``text``, its ``words`` that fired, or ``none``.
    ``caps``: by severity, how many texts a reviewer sees in one session. A session ends with a
    pause of ``pause_minutes``. ``gaps``: by severity, how many milder records lie between two
    severe ones, as long as there are some. ``break_minutes``: when a break is proposed; 0: never.
    ``without``: categories that are not shown. ``alike``: near-duplicates are decided once.
    """

    mask: Literal["text", "words", "none"] = "text"
    caps: Mapping[int, int] = field(default_factory=lambda: {5: 20, 4: 60})
    gaps: Mapping[int, int] = field(default_factory=lambda: {5: 3, 4: 2})
    pause_minutes: float = 60
    break_minutes: float = 25
    without: frozenset[str] = frozenset()
    alike: bool = True


@dataclass(frozen=True)
class Serving:
    """What is shared out: ``only`` what is open, or what needs settling; ``double``: the share that
    two reviewers answer; ``lease``: seconds that a record is kept for who has it; ``blind``:
    without what the models think."""

    only: Literal["open", "escalated", "conflicts"] = "open"
    double: float = 0.1
    lease: float = 900
    blind: bool = False


@dataclass(frozen=True)
class _Unit:
    """Records that are decided together: rows of the queue, the one that is shown first."""

    rows: tuple[int, ...]
    severity: int
    double: bool


@dataclass
class _Seat:
    """What is remembered of a reviewer while the process runs."""

    unit: _Unit | None = None
    revealed: int = 0
    skipped: set[int] = field(default_factory=set)
    mild: int = 99  # milder records since the last severe one


class Desk:
    """One queue and its answers, shared by any number of reviewers. For one thread at a time."""

    def __init__(
        self,
        queue: Queue,
        answers: Answers,
        care: Care | None = None,
        serving: Serving | None = None,
    ) -> None:
        self.queue, self.answers = queue, answers
        self.care, self.serving = care or Care(), serving or Serving()
        answers.note_policy(queue.policy)
        self.blind = self.serving.blind or queue.sample
        # A sample is in random order, and what is answered first shall be a sample, too.
        self.gaps = {} if queue.sample else self.care.gaps
        self.level = {"text": 0, "words": 1, "none": 2}[self.care.mask]
        self.lexicons = Lexicons.compile(queue.policy.lexicons)
        self._keys, self._category = queue.keys(), queue.table["category"].to_pylist()
        self._at = {key: i for i, key in enumerate(self._keys)}
        self._seats: defaultdict[str, _Seat] = defaultdict(_Seat)
        alike = self.care.alike and self.serving.only == "open"
        self._first = queue.groups(self.lexicons) if alike else [*range(len(self._keys))]
        self._severity = queue.severities()
        self._last = -1
        self._by_key: dict[Key, dict[str, Answer]] = {}
        self._units: list[_Unit] = []

    def _look(self) -> None:
        """Read the answers again if anybody has given some, and group the records anew.

        Records that are alike are together as long as the same reviewers have answered them: one
        that was decided alone, here or elsewhere, leaves the others behind.
        """
        last = self.answers.last()
        if last == self._last:
            return
        self._last, self._by_key = last, {}
        for one in self.answers.standing():
            self._by_key.setdefault(one.key, {})[one.reviewer] = one
        together: dict[tuple[int, frozenset[str]], list[int]] = {}
        for i, first in enumerate(self._first):
            by = frozenset(self._by_key.get(self._keys[i], ()))
            together.setdefault((first, by), []).append(i)
        self._units = [
            _Unit(
                tuple(rows),
                max(self._severity[i] for i in rows),
                is_double(self._keys[first], self.serving.double),
            )
            for (first, _), rows in together.items()
        ]

    @property
    def units(self) -> list[_Unit]:
        """What is decided together, most urgent first."""
        self._look()
        return self._units

    # -- what the page asks for ------------------------------------------------------------------

    def next(self, reviewer: str) -> dict[str, Any]:
        """The record that a reviewer has, or gets now; without ``row`` there is none, and ``why``.

        The text is not in it: ``reveal`` gives it.
        """
        seat = self._seats[reviewer]
        if seat.unit is None:
            why = self._find(reviewer, seat)
            if seat.unit is None:
                return {"why": why, "progress": self.progress(reviewer)}
        unit = seat.unit
        i = unit.rows[0]
        told = shown(self.queue.row(i), blind=self.blind)
        told |= {
            "row": i,
            "alike": len(unit.rows) - 1,
            "progress": self.progress(reviewer),
            "earlier": self._earlier(i) if self.serving.only != "open" else [],
            "level": self.level,
        }
        return told

    def reveal(self, reviewer: str, row: int, level: int) -> dict[str, Any]:
        """The text of the record that a reviewer has: 1 with the words that fired hidden, 2 all.

        With its context, and those that are alike.
        """
        seat, unit = self._seat(reviewer, row)
        if not seat.revealed:
            self.answers.expose(reviewer, unit.severity)
        seat.revealed = max(seat.revealed, min(max(level, 1), 2))
        self.answers.claim(reviewer, self._names(unit), self.serving.lease)
        return self.texts(unit.rows, hide=seat.revealed < 2)

    def answer(
        self,
        reviewer: str,
        row: int,
        answer: str,
        *,
        category: str | None = None,
        note: str | None = None,
        seconds: float | None = None,
        alone: bool = False,
    ) -> None:
        """Keep what a reviewer says of the record it has, and of all that are alike.

        ``alone``: of this one only. Raises InputError for an answer that is none, a flag without a
        category of the policy, and a clear by somebody who did not look.
        """
        seat, unit = self._seat(reviewer, row)
        categories = [c.name for c in self.queue.policy.categories]
        for wrong, what, fix in (
            (answer not in ANSWERS, "is no answer", f"One of {', '.join(ANSWERS)}."),
            (
                answer == "flag" and category not in categories,
                "a flag needs a category of the policy",
                f"One of {', '.join(categories)}.",
            ),
            (
                answer == "clear" and not seat.revealed and self._has_text(row),
                "was not looked at",
                "Reveal the text before you clear it.",
            ),
        ):
            if wrong:
                raise InputError(what, where="answer", fix=fix)
        lead, now = new_id(), moment()
        standing = self._standing()
        made = []
        for n, i in enumerate(unit.rows[:1] if alone else unit.rows):
            if n and reviewer in standing.get(self._keys[i], {}):
                continue  # answered by itself before
            before = standing.get(self._keys[i], {}).get(reviewer)
            record = self.queue.row(i)
            made.append(
                Answer(
                    answer_id=lead if n == 0 else new_id(),
                    record_id=record["record_id"],
                    source=record["source"],
                    source_row=record["source_row"],
                    reviewer=reviewer,
                    answer=answer,
                    answer_category=category if answer == "flag" else None,
                    note=(note or "").strip()[:MOST_NOTE] or None if n == 0 else None,
                    answered_at=now,
                    policy=self.queue.policy.fingerprint,
                    inclusion_probability=record["inclusion_probability"],
                    inclusion_floor=record["inclusion_floor"],
                    seconds=seconds if n == 0 else None,
                    revealed=seat.revealed if n == 0 else None,
                    decided_with=None if n == 0 else lead,
                    settles=self.serving.only != "open",
                    supersedes=before.answer_id if before else None,
                )
            )
        self.answers.add(made)
        self.answers.release(reviewer)
        self._leave(seat, unit)

    def skip(self, reviewer: str, row: int) -> None:
        """Leave the record to others; this reviewer sees it again after the next start."""
        seat, unit = self._seat(reviewer, row)
        seat.skipped.update(unit.rows)
        self.answers.release(reviewer)
        self._leave(seat, unit)

    def undo(self, reviewer: str) -> bool:
        """Take back the last answer and show its record again; False if there is none."""
        taken = self.answers.undo(reviewer)
        if not taken:
            return False
        seat = self._seats[reviewer]
        seat.unit, seat.revealed = None, 0
        self.answers.release(reviewer)
        at = self._at.get(taken[0].key)
        unit = next((u for u in self.units if at in u.rows), None)
        if unit and self.answers.claim(reviewer, self._names(unit), self.serving.lease):
            seat.unit = unit
        return True

    def progress(self, reviewer: str) -> dict[str, int]:
        """How far the queue is, in records."""
        standing = self._standing()
        mine = sum(reviewer in by for by in standing.values())
        done = sum(len(u.rows) for u in self.units if self._settled(u, standing))
        return {"records": len(self._keys), "done": done, "mine": mine, "queue": self.queue.total}

    def texts(self, rows: tuple[int, ...], *, hide: bool) -> dict[str, Any]:
        """Text and context of the first of some rows, and the texts of some others, in pieces."""
        row = self.queue.row(rows[0])

        def cut(text: str | None) -> list[tuple[str, str]] | None:
            return None if text is None else pieces(text, self.lexicons, hide=hide)

        others = [self.queue.table["text"][i].as_py() for i in rows[1 : MOST_ALIKE + 1]]
        return {
            "text": cut(row["text"]),
            "context": cut(row["context"]),
            "alike": [cut(text) for text in others],
            "revealed": 1 if hide else 2,
        }

    # -- what is behind it -----------------------------------------------------------------------

    def _find(self, reviewer: str, seat: _Seat) -> str:
        """Seat a reviewer before the next record; else say why there is none."""
        capped = self._capped(reviewer)
        held = {key for key, who in self.answers.claimed().items() if who != reviewer}
        waiting = [*self._waiting(reviewer, seat)]
        possible = [u for u in waiting if u.severity not in capped]
        due = [u for u in possible if self._spaced(u, seat)]
        busy = False
        for unit in (*due, *possible):
            names = self._names(unit)
            if held.isdisjoint(names) and self.answers.claim(reviewer, names, self.serving.lease):
                seat.unit, seat.revealed = unit, 0
                if self.care.mask == "none":
                    self.answers.expose(reviewer, unit.severity)
                    seat.revealed = 2
                return ""
            busy = True
        if busy:
            return "claimed"
        if waiting:
            return "capped"
        return "skipped" if seat.skipped else "done"

    def _waiting(self, reviewer: str, seat: _Seat) -> Iterator[_Unit]:
        standing = self._standing()
        for unit in self.units:
            by = standing.get(self._keys[unit.rows[0]], {})
            if (
                reviewer not in by
                and not self._settled(unit, standing)
                and seat.skipped.isdisjoint(unit.rows)
                and self._category[unit.rows[0]] not in self.care.without
            ):
                yield unit

    def _settled(self, unit: _Unit, standing: Mapping[Key, Mapping[str, Answer]]) -> bool:
        """Whether nobody else needs to answer."""
        by = standing.get(self._keys[unit.rows[0]], {})
        said = {one.says for one in by.values()}
        if self.serving.only == "open":
            return "escalate" in said or len(by) > unit.double
        unsettled = not any(one.settles for one in by.values())
        if self.serving.only == "escalated":
            return not ("escalate" in said and unsettled)
        return not (len(said - {"escalate"}) > 1 and unsettled)

    def _spaced(self, unit: _Unit, seat: _Seat) -> bool:
        return seat.mild >= self.gaps.get(unit.severity, 0)

    def _leave(self, seat: _Seat, unit: _Unit) -> None:
        seat.mild = 0 if unit.severity >= SEVERE else seat.mild + 1
        seat.unit, seat.revealed = None, 0

    def _capped(self, reviewer: str) -> set[int]:
        """Severities of which a reviewer has seen enough in this session."""
        seen, later = Counter[int](), time.time()
        for at, severity in reversed(self.answers.exposures(reviewer)):
            if later - at >= 60 * self.care.pause_minutes:
                break
            seen[severity] += 1
            later = at
        return {severity for severity, most in self.care.caps.items() if seen[severity] >= most}

    def _standing(self) -> dict[Key, dict[str, Answer]]:
        """What stands, by record and reviewer."""
        self._look()
        return self._by_key

    def _earlier(self, i: int) -> list[dict[str, Any]]:
        by = self._standing().get(self._keys[i], {})
        return [
            {"answer": one.answer, "category": one.answer_category, "note": one.note}
            for one in by.values()
        ]

    def _names(self, unit: _Unit) -> list[Key]:
        return [self._keys[i] for i in unit.rows]

    def _has_text(self, row: int) -> bool:
        return bool(self.queue.table["text"][row].is_valid)

    def _seat(self, reviewer: str, row: int) -> tuple[_Seat, _Unit]:
        seat = self._seats[reviewer]
        if seat.unit is None or seat.unit.rows[0] != row:
            raise InputError(
                "another record is on this desk now", where="answer", fix="Load the page again."
            )
        return seat, seat.unit


def beginning(desk: Desk, reviewer: str) -> dict[str, Any]:
    """What the page knows before it asks for a record."""
    return {
        "reviewer": reviewer,
        "categories": [
            {"name": c.name, "severity": c.severity, "definition": c.definition}
            for c in desk.queue.policy.categories
        ],
        "breakMinutes": desk.care.break_minutes,
        "pauseMinutes": desk.care.pause_minutes,
    }
