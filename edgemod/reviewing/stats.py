"""What answers say of reviewers, of the policy and of edgemod: agreement, categories in dispute,
drift, overturned proposals, pace; and what became of appeals."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations, pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from edgemod.metrics import Estimate, wilson
from edgemod.reviewing.agreement import Codes, alpha_interval, kappa_interval
from edgemod.reviewing.answers import Answer, Key
from edgemod.reviewing.appeals import PEOPLE, by_people, decisions
from edgemod.reviewing.queue import Queue
from edgemod.words import ANY, CATEGORIES, OUTPUTS, Stage, Verdict

COLUMNS: Final = ("verdict", "category", "reason", "stage", *(f"p_{name}" for name in OUTPUTS))
"""Of the queue, which statistics keep in memory."""
BLOCK: Final = 50
"""Successive answers of a reviewer that are compared with the next so many."""
BANDS: Final = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
"""Where bands of the probability begin; the last ends at 1."""
LEAST: Final = 0.2
"""Seconds between two answers that a person can need; rows of a file have less."""
IDLE: Final = 600.0
"""Seconds between two answers from which on the reviewer was away."""


@dataclass(frozen=True)
class Agreement:
    """How far reviewers agree: Cohen's ``kappa`` of a pair, or Krippendorff's ``alpha`` of all.

    ``scale``: ``violates`` (clear or flag) or ``category`` (clear, or the category flagged).
    ``records``: answered by both, or by two at least. None: too few, or all said the same.
    """

    figure: str
    scale: str
    reviewers: tuple[str, ...]
    records: int
    value: Estimate | None


@dataclass(frozen=True)
class Dispute:
    """A category: of the ``pairs`` of answers to one record of which one at least flags it as this,
    the share in which the other says otherwise, and what it says most often ("" where it never
    does). It may be for the definition, or for a reviewer."""

    category: str
    pairs: int
    otherwise: Estimate | None
    mostly: str


@dataclass(frozen=True)
class Block:
    """``BLOCK`` successive answers of a reviewer: what share was flagged, and the mean probability
    of ``any`` of the same records (None: not scored). The first alone means little: the most urgent
    records come first. ``seconds``: the median spent on one."""

    reviewer: str
    number: int
    answers: int
    flagged: Estimate | None
    expected: float | None
    seconds: float | None


@dataclass(frozen=True)
class Overturned:
    """Of the records for which edgemod proposed ``proposal``, the share decided against by people.

    ``by``: ``category``, ``reason`` or ``band`` (of the probability of the category, else of any),
    ``of``: which. In a sample the proposal is the verdict; in a queue, where edgemod decided
    nothing, what it leaned to: flag from a rule or a probability of 0.5 on, else clear.
    """

    by: str
    of: str
    proposal: str
    records: int
    share: Estimate | None


@dataclass(frozen=True)
class Pace:
    """One reviewer. ``seconds``: median spent on a record; ``an_hour``: records an hour while at
    work; ``unseen``: share answered without the text; ``alike``: decided with another."""

    reviewer: str
    answers: int
    alike: int
    clear: int
    flag: int
    escalate: int
    seconds: float | None
    an_hour: float | None
    unseen: float | None


@dataclass(frozen=True)
class Appealed:
    """Of the appeals against a kind of decision, the share that overturned it.

    ``by``: ``all``, ``category``, ``stage`` or ``reason`` (a threshold or a rule), ``of``: which;
    ``decision``: clear or flag. Where people decided, stage and reason are ``people``. Who appeals
    is no chance: the share says nothing of decisions that nobody objected to.
    """

    by: str
    of: str
    decision: str
    appeals: int
    share: Estimate | None


@dataclass(frozen=True)
class Stats:
    """All of it. ``records``: of the queue; ``answered``: those with an answer."""

    records: int
    answered: int
    agreement: tuple[Agreement, ...]
    disputes: tuple[Dispute, ...]
    drift: tuple[Block, ...]
    overturned: tuple[Overturned, ...]
    pace: tuple[Pace, ...]
    appeals: tuple[Appealed, ...] = ()


def stats(
    queue: Queue,
    standing: Sequence[Answer],
    appeals: Sequence[Answer] = (),
    run: Path | None = None,
) -> Stats:
    """What the answers that stand say; ``appeals``: outcomes against decisions of ``run``.

    Answers that settle a conflict are left out of agreement, since they were given knowing others.
    What was decided with another one is one answer, not many, and left out but for ``Pace.alike``.
    """
    own = [one for one in standing if one.decided_with is None]
    first = [one for one in own if not one.settles]
    answered = {one.key for one in standing}
    at = {key: i for i, key in enumerate(queue.keys()) if key in answered}
    return Stats(
        records=queue.total,
        answered=len(at),
        agreement=tuple(_agreement(first)),
        disputes=tuple(_disputes(first)),
        drift=tuple(_drift(first, _column(queue, f"p_{ANY}"), at)),
        overturned=tuple(_overturned(queue, own, at)),
        pace=tuple(_pace(standing)),
        appeals=tuple(_appealed(run, standing, appeals)) if run and appeals else (),
    )


def _agreement(answers: Sequence[Answer]) -> Iterable[Agreement]:
    reviewers = sorted({one.reviewer for one in answers})
    for scale in ("violates", "category"):
        table = _table(answers, reviewers, scale)
        both = (table >= 0).sum(axis=1) >= 2
        yield Agreement(
            "alpha", scale, tuple(reviewers), int(both.sum()), alpha_interval(table[both])
        )
        for i, j in combinations(range(len(reviewers)), 2):
            pair = table[(table[:, i] >= 0) & (table[:, j] >= 0)]
            if len(pair):
                yield Agreement(
                    "kappa",
                    scale,
                    (reviewers[i], reviewers[j]),
                    len(pair),
                    kappa_interval(pair[:, i], pair[:, j]),
                )


def _table(answers: Sequence[Answer], reviewers: Sequence[str], scale: str) -> Codes:
    """Answers as codes, (records, reviewers), -1 where there is none; escalations are none."""
    records: dict[Key, int] = {}
    codes: dict[str, int] = {}
    for one in answers:
        records.setdefault(one.key, len(records))
    table = np.full((len(records), len(reviewers)), -1, np.int64)
    for one in answers:
        if one.answer != "escalate":
            said = one.answer if scale == "violates" else one.says
            column = reviewers.index(one.reviewer)
            table[records[one.key], column] = codes.setdefault(said, len(codes))
    return table


def _disputes(answers: Sequence[Answer]) -> Iterable[Dispute]:
    """By category, the most disputed first."""
    others: dict[str, list[str]] = defaultdict(list)
    for given in _by(answers, "key").values():
        for a, b in combinations((one.says for one in given if one.answer != "escalate"), 2):
            for mine, other in {(a, b), (b, a)}:
                if mine != "clear":
                    others[mine].append(other)
    found = []
    for name, said in others.items():
        against = Counter(other for other in said if other != name)
        mostly = against.most_common(1)[0][0] if against else ""
        found.append(Dispute(name, len(said), wilson(against.total(), len(said)), mostly))
    return sorted(found, key=lambda one: (-(one.otherwise or _NONE).value, one.category))


_NONE: Final = Estimate(0.0, 0.0, 0.0)


def _drift(
    answers: Sequence[Answer], p: npt.NDArray[np.float64], at: dict[Key, int]
) -> Iterable[Block]:
    for reviewer, given in _by(answers, "reviewer").items():
        decided = [one for one in given if one.answer != "escalate"]
        for number, start in enumerate(range(0, len(decided), BLOCK), 1):
            block = decided[start : start + BLOCK]
            known = [p[at[one.key]] for one in block if one.key in at]
            known = [value for value in known if not np.isnan(value)]
            yield Block(
                reviewer=str(reviewer),
                number=number,
                answers=len(block),
                flagged=wilson(sum(one.answer == "flag" for one in block), len(block)),
                expected=float(np.mean(known)) if known else None,
                seconds=_median(one.seconds for one in block),
            )


def _overturned(
    queue: Queue, answers: Sequence[Answer], at: dict[Key, int]
) -> Iterable[Overturned]:
    """By record: where people disagree, or somebody escalated, nothing was decided."""
    asked = queue.table.take(pa.array([*at.values()], pa.int64()))  # of a long queue only these
    rows = dict(zip(at, asked.to_pylist(), strict=True))
    counts: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
    for key, given in _by(answers, "key").items():
        final = {one.answer for one in given if one.settles} or {one.answer for one in given}
        row = rows.get(key)  # type: ignore[call-overload]
        if row is None or len(final) > 1 or final == {"escalate"}:
            continue
        category = row["category"]
        known = row[f"p_{category or ANY}"]
        p = float(np.nan if known is None else known)
        verdict = row["verdict"]
        if verdict == Verdict.review.name:
            leans = row["stage"] == Stage.rule.name or p >= 0.5
            verdict = Verdict.flag.name if leans else Verdict.clear.name
        against = final != {verdict}
        start = "not scored" if np.isnan(p) else _band(p)
        for by, of in (("category", category or "none"), ("reason", row["reason"]),
                       ("band", start)):  # fmt: skip
            counts[by, of, verdict].append(against)
    for (by, of, proposal), hits in sorted(counts.items()):
        yield Overturned(by, of, proposal, len(hits), wilson(sum(hits), len(hits)))


def _appealed(
    run: Path, standing: Sequence[Answer], appeals: Sequence[Answer]
) -> Iterable[Appealed]:
    outcome = {one.key: one.appeal for one in appeals}
    said = by_people(standing)
    counts: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
    for row in decisions(run, (), outcome).to_pylist():
        key = row["source"], row["source_row"]
        verdict, stage, reason = row["verdict"], row["stage"], row["reason"]
        category = row["category"] or "none"
        if verdict == Verdict.review.name:
            told = said.get(key, "unknown")
            stage = reason = PEOPLE
            if told in CATEGORIES:
                category = told
            cleared = told in ("clear", "unknown")
            verdict = told if cleared else Verdict.flag.name
        for by, of in (("all", "decisions"), ("category", category), ("stage", stage),
                       ("reason", reason)):  # fmt: skip
            counts[by, of, verdict].append(outcome[key] == "overturned")
    for (by, of, decision), hits in sorted(counts.items()):
        yield Appealed(by, of, decision, len(hits), wilson(sum(hits), len(hits)))


def _band(p: float) -> str:
    i = bisect_right(BANDS, p) - 1
    return f"{BANDS[i]:g} to {(*BANDS, 1.0)[i + 1]:g}"


def _pace(answers: Sequence[Answer]) -> Iterable[Pace]:
    for reviewer, given in _by(answers, "reviewer").items():
        own = [one for one in given if one.decided_with is None]
        times = [datetime.fromisoformat(one.answered_at).timestamp() for one in own]
        # Answers from a file may have no times of their own: those of one import tell no pace.
        steps = [b - a for a, b in pairwise(times) if LEAST < b - a < IDLE]
        seen = [one.revealed for one in own if one.revealed is not None]
        yield Pace(
            reviewer=str(reviewer),
            answers=len(own),
            alike=len(given) - len(own),
            **{said: sum(o.answer == said for o in own) for said in ("clear", "flag", "escalate")},
            seconds=_median(one.seconds for one in own),
            an_hour=3600 * len(steps) / sum(steps) if steps else None,
            unseen=sum(level == 0 for level in seen) / len(seen) if seen else None,
        )


def _by(answers: Iterable[Answer], name: str) -> dict[Hashable, list[Answer]]:
    """Answers by an attribute, in order of time."""
    found: dict[Any, list[Answer]] = defaultdict(list)
    for one in answers:
        found[getattr(one, name)].append(one)
    return dict(sorted(found.items()))


def _column(queue: Queue, name: str) -> npt.NDArray[np.float64]:
    """Probabilities, NaN where there is none."""
    return np.asarray(queue.table[name].to_numpy(), np.float64)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
