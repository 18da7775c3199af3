"""What the decisions of a finished run add up to: by stage, category, group, time, probability.

Parts are read one after the other, so memory holds a part and the sums.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from edgemod import bounds, originals, run_folder
from edgemod.bounds import Drawn
from edgemod.errors import InputError
from edgemod.labels import (
    LABELS,
    MOST_CHARACTERS,
    MOST_GROUPS,
    UNSAFE,
    read_inclusion,
    read_labels,
    read_values,
)
from edgemod.metrics import Estimate
from edgemod.parts import open_part
from edgemod.records import Columns
from edgemod.sources import discover
from edgemod.words import ANY, CATEGORIES, NO_GROUP, Verdict

VERDICTS: Final = ("clear", "review", "flag")
"""In the order in which they are shown."""


@dataclass
class Breakdown:
    """Counts of records.

    ``decided``: by (stage, verdict, category); no category is "". ``groups``: by value of the
    column asked for, then (verdict, category). ``days``: by date (``2024-01-31``), then verdict;
    ``timeless``: records without a readable time, None if no times were asked for.
    """

    decided: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    groups: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)
    days: dict[str, Counter[str]] = field(default_factory=dict)
    timeless: int | None = None

    def of(self, *, stage: str = "", verdict: str = "", category: str | None = None) -> int:
        """Records with this stage, verdict and category; those left out are any."""
        return sum(
            n
            for (s, v, c), n in self.decided.items()
            if stage in ("", s) and verdict in ("", v) and category in (None, c)
        )


def count(
    run: Path, state: dict[str, Any], *, by: str | None = None, times: bool = False
) -> Breakdown:
    """Count the decisions of a complete run (``run_folder.complete_state``).

    ``by``: a column of the input, whose values are told apart; ``times``: count by day, from the
    time column of the run. Either reads the columns named, no text, from the input, which must be
    unchanged. Raises InputError if it is not, if there is no such column, or if it has more than
    ``labels.MOST_GROUPS`` values or one that is longer than ``labels.MOST_CHARACTERS``.
    """
    found = Breakdown(timeless=0 if times else None)
    wanted = ["stage", "verdict", "category"]
    if by is None and not times:
        for table in _parts(run, state, wanted):
            _add(found, table)
        return found
    time = originals.columns(state).time if times else None
    if times and time is None:
        raise InputError(
            "the run has no time column",
            where=str(run),
            fix="Leave --over-time out, or triage with --time-column.",
        )
    columns = Columns((), None, None, None, None, time, None, (), by)
    parts = _parts(run, state, [*wanted, "source", "source_row"])
    for table, named in originals.beside(parts, originals.inputs(state), columns):
        _add(found, table)
        if times:
            day = pc.utf8_slice_codeunits(named["time"], 0, 10)
            for (when, verdict), n in _counted(day, table["verdict"]).items():
                if _is_date(when):
                    found.days.setdefault(when, Counter())[verdict] += n
                else:
                    found.timeless = (found.timeless or 0) + n
        if by is not None:
            group = pc.fill_null(named["stratum"], NO_GROUP)
            counted = _counted(group, table["verdict"], table["category"])
            for (value, *what), n in counted.items():
                found.groups.setdefault(value, Counter())[(what[0], what[1])] += n
            _check(found.groups, by)
    return found


def _check(groups: dict[str, Any], by: str) -> None:
    long = any(len(name) > MOST_CHARACTERS for name in groups)
    if long or len(groups) > MOST_GROUPS:
        what = f"a value of more than {MOST_CHARACTERS} characters"
        raise InputError(
            f"column '{by}' has {what if long else f'more than {MOST_GROUPS} values'}",
            where="--by",
            fix="Name a column of groups: a language, a channel, a kind.",
        )


def _parts(run: Path, state: dict[str, Any], names: list[str]) -> Iterator[pa.Table]:
    for part in run_folder.parts(run, state):
        with open_part(part) as file:
            yield file.read(names)


def _add(found: Breakdown, table: pa.Table) -> None:
    counted = _counted(table["stage"], table["verdict"], table["category"])
    found.decided.update({(key[0], key[1], key[2]): n for key, n in counted.items()})


def _counted(*columns: pa.ChunkedArray) -> dict[tuple[str, ...], int]:
    """How often each combination of values occurs; null is ""."""
    names = [str(k) for k in range(len(columns))]
    words = [pc.fill_null(column.cast(pa.string()), "") for column in columns]
    grouped = pa.table(words, names).group_by(names).aggregate([([], "count_all")])
    *keys, counts = (grouped[name].to_pylist() for name in [*names, "count_all"])
    return dict(zip(zip(*keys, strict=True), counts, strict=True))


@functools.lru_cache(4096)
def _is_date(text: str) -> bool:
    """Whether a text is a date of ISO 8601 with hyphens, and one that there is."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def periods(days: dict[str, Counter[str]], most: int = 100) -> dict[str, Counter[str]]:
    """Days gathered to months or years, whichever are first at most ``most``; in order of time.

    Those without a record are there, too, unless there are more than ``most`` years.
    """
    if not days:
        return {}
    first, last = (date.fromisoformat(day) for day in (min(days), max(days)))
    months = range(first.year * 12 + first.month - 1, last.year * 12 + last.month)
    spans: dict[int, Iterable[str]] = {
        10: (
            date.fromordinal(n).isoformat() for n in range(first.toordinal(), last.toordinal() + 1)
        ),
        7: (f"{n // 12:04d}-{n % 12 + 1:02d}" for n in months),
        4: (f"{n:04d}" for n in range(first.year, last.year + 1)),
    }
    length, gathered = 4, dict[str, Counter[str]]()
    for cut, names in spans.items():
        empty = {name: Counter[str]() for name in itertools.islice(names, most + 1)}
        if len(empty) <= most:
            length, gathered = cut, empty
            break
    for day, counts in sorted(days.items()):
        gathered.setdefault(day[:length], Counter()).update(counts)
    return gathered


# -- beside labels -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Risk:
    """What labels of some of its records say of a run.

    ``n``: records with a label of whether they violate any category; ``unknown``: rows of labels
    whose record the run does not have, or has several of. ``risk``: of the records settled without
    a person, the share settled wrongly (a violating record cleared, a harmless one flagged).
    ``missed``: of the cleared, the share that violates; ``false_flags``: of the flagged, the share
    that does not. 95 % intervals that hold for any n (bounds.py); None where there is no such
    record. ``curve``: (coverage, risk) were the surest records settled by the probability of any
    category alone, at or over one half or not.
    """

    n: int
    unknown: int
    risk: Estimate | None
    missed: Estimate | None
    false_flags: Estimate | None
    curve: list[tuple[float, float]]


def risk(run: Path, state: dict[str, Any], labels: str | Path) -> Risk:
    """Compare the decisions of a complete run with labels of some of its records.

    ``labels``: a Parquet file with the ids of the records, in a column ``record_id`` or named as
    the run's id column, and a label column ``any`` or ``unsafe``, or one of each category; also
    ``inclusion_probability`` if the records were not drawn alike, as ``edgemod audit sample``
    writes. Raises InputError for any other file, or if no label is one of the run's records.
    """
    (source,) = discover([labels])
    given = read_labels(source, None)
    truth = given.get(ANY, given.get(UNSAFE))
    if truth is None and {*CATEGORIES} <= {*given}:
        each = np.stack([given[name] for name in CATEGORIES])
        truth = np.where((each == 1).any(axis=0), 1, np.where((each == 0).all(axis=0), 0, -1))
    if truth is None:
        raise InputError(
            f"has labels of {', '.join(name for name in LABELS if name in given)} alone",
            where=source.path,
            fix="A record was settled rightly only by all categories: add a column 'any'.",
        )
    key = state["plan"]["columns"]["id"]
    try:
        ids = [*read_values(source, "record_id")]
    except InputError:
        if key is None:
            raise
        ids = [*read_values(source, key)]
    inclusion = read_inclusion(source)
    chance = np.ones(len(ids)) if inclusion is None else inclusion.chance
    at = {name: i for i, name in enumerate(ids) if truth[i] >= 0}
    seen: Counter[str] = Counter()
    rows: list[tuple[int, str, float]] = []
    wanted = pa.array([*at], pa.string())
    for table in _parts(run, state, ["record_id", "verdict", f"p_{ANY}"]):
        hit = table.filter(pc.is_in(table["record_id"], wanted))
        for row in hit.to_pylist():
            seen[row["record_id"]] += 1
            p = row[f"p_{ANY}"]
            rows.append((at[row["record_id"]], row["verdict"], np.nan if p is None else p))
    rows = [row for row in rows if seen[ids[row[0]]] == 1]
    if not rows:
        raise InputError(
            "none of its labels is of a record of the run",
            where=source.path,
            fix="Give the records' ids in a column record_id, each once in the run.",
        )
    index = np.array([row[0] for row in rows])
    verdict, p = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
    weights = 1 / chance[index]
    drawn = of_flags = None
    if inclusion is not None:
        drawn = Drawn(weights, max(1 / inclusion.floor, float(weights.max())))
    violates = truth[index] == 1
    cleared, flagged = verdict == Verdict.clear.name, verdict == Verdict.flag.name
    settled = cleared | flagged
    if inclusion is not None and (chance > inclusion.floors)[index][flagged].any():
        of_flags = drawn  # else they were drawn alike, as ``audit.sample`` does
    wrong = (cleared & violates) | (flagged & ~violates)
    return Risk(
        n=len(rows),
        unknown=int((truth >= 0).sum()) - len(rows),
        risk=share(wrong, settled, drawn),
        missed=share(violates, cleared, drawn),
        false_flags=share(~violates, flagged, of_flags),
        curve=_curve(violates, p, weights),
    )


def share(
    hits: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_], drawn: Drawn | None
) -> Estimate | None:
    """The share of hits among the records of a mask, with an interval that holds for any n."""
    if not among.any():
        return None
    bad, of = hits[among], None if drawn is None else drawn[among]
    value = float(np.average(bad, weights=None if of is None else of.weights))
    low, high = 1 - bounds.bound(~bad, 0.025, of), bounds.bound(bad, 0.025, of)
    return Estimate(value, min(low, value), max(high, value))


def _curve(
    violates: npt.NDArray[np.bool_],
    p: npt.NDArray[np.floating[Any]],
    weights: npt.NDArray[np.floating[Any]],
) -> list[tuple[float, float]]:
    sure = np.where(np.isnan(p), -1.0, np.abs(p - 0.5))
    order = np.argsort(-sure, kind="stable")
    last = np.append(sure[order][1:] != sure[order][:-1], True) & (sure[order] >= 0)
    kept = np.cumsum(weights[order])
    wrong = np.cumsum(weights[order] * ((p[order] >= 0.5) != violates[order]))
    return [
        (float(k / weights.sum()), float(w / k))
        for k, w in zip(kept[last], wrong[last], strict=True)
    ]
