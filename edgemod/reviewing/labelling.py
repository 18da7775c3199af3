"""Answers to labels: what reviewers said, in the columns that are calibrated and measured with.

Where reviewers disagree nothing is decided: the label is unknown until somebody settles it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from edgemod.labels import FLOOR
from edgemod.parts import check_target, write_bytes, write_part
from edgemod.review import REVIEW
from edgemod.reviewing import answer_files, appeals
from edgemod.reviewing.answers import Answer, Answers, Key, label_row, meanings
from edgemod.reviewing.answers import standing as standing_of
from edgemod.reviewing.queue import SEVERE, SEVERITY, Queue
from edgemod.words import ANY, OUTPUTS

COLUMNS: Final = ("record_id", *SEVERITY)
"""Of the queue, which an import keeps in memory."""

_CONFLICT: Final = ("record_id", "source", "source_row", "reviewer", "answer", "answer_category",
                    "answered_at", "about")  # fmt: skip


@dataclass(frozen=True)
class Conflict:
    """A record that reviewers answered in different ways, ``about`` whether it violates ("any") or
    which category it does."""

    about: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Imported:
    """What an import did, in records and rows."""

    read: int
    new: int
    problems: tuple[answer_files.Problem, ...]
    labelled: int
    escalated: int
    waiting: int
    """Records of the queue that nobody answered."""
    conflicts: tuple[Conflict, ...]
    other_policies: int
    """Answers that were given under another policy than that of the run."""
    passed_over: tuple[int, int] | None
    """Of a sample, whose order is random: records before the last labelled one that have no label,
    and how many of them are severe: left out for what they are, not by chance. Else None."""
    appeals: int
    """Records with the outcome of an appeal."""
    overturned: int
    files: tuple[str, ...]


def import_answers(
    files: Sequence[Path],
    queue: Queue,
    answers: Answers,
    out: Path,
    reviewer: str | None = None,
    *,
    run: Path | None = None,
    pseudonymise: Path | None = None,
) -> Imported:
    """Add the answers of some files to those of a run and write labels of all of them to ``out``.

    Conflicts are written beside it, as CSV, and labels of appeals, as Parquet. Adding a file again
    changes nothing. ``run``: the folder of the run, for appeals; None for a sample.
    ``pseudonymise``: its key file, if the files call records as its input does.

    Raises InputError for a file that cannot be read at all; then none is added. Also if there are
    appeals and the input of the run is gone; then all but their labels is there. OutputError.
    """
    check_target(out, files)
    policy = queue.policy
    found, problems = _read(files, queue, answers, reviewer, run, pseudonymise)
    answers.note_policy(policy)
    new = answers.add(found)
    stand, outcomes = answers.standing(), answers.appeals()
    table, conflicts, escalated = labels(queue, stand, answers.policies())
    beside = out.with_name(f"{out.stem}-conflicts.csv")
    write_part(table, out)
    write_bytes(beside, _conflict_file(conflicts))
    written = [out.name, beside.name]
    if run is not None and outcomes:
        apart = out.with_name(f"{out.stem}-appeals.parquet")
        write_part(appeals.labels(run, policy, outcomes), apart)
        written.append(apart.name)
    answered = {one.key for one in stand}
    passed_over = None
    if queue.sample:
        labelled = np.asarray(table["rank"]) - 1
        severe = np.array(queue.severities()[: int(labelled.max(initial=-1)) + 1]) >= SEVERE
        without = np.delete(severe, labelled)
        passed_over = len(without), int(without.sum())
    return Imported(
        read=len(found),
        new=new,
        problems=tuple(problems),
        labelled=table.num_rows,
        escalated=escalated,
        waiting=queue.total - len(answered.intersection(queue.keys())),
        conflicts=tuple(conflicts),
        other_policies=sum(one.policy not in (None, policy.fingerprint) for one in stand),
        passed_over=passed_over,
        appeals=len(outcomes),
        overturned=sum(one.appeal == "overturned" for one in outcomes),
        files=tuple(written),
    )


def _read(
    files: Sequence[Path],
    queue: Queue,
    answers: Answers,
    reviewer: str | None,
    run: Path | None,
    pseudonymise: Path | None,
) -> tuple[list[Answer], list[answer_files.Problem]]:
    """The answers of some files, outcomes of appeals among them, and rows that are none."""
    found: list[Answer] = []
    problems: list[answer_files.Problem] = []
    about: list[answer_files.Appeal] = []
    names = [c.name for c in queue.policy.categories]
    ids = queue.table["record_id"].to_pylist() if files else []
    known = answer_files.Known.of(queue.keys() if files else [], ids, names)
    rename = appeals.names_of_input(run, pseudonymise) if run and pseudonymise else None
    for file in files:
        more, wrong, appealed = answer_files.read(file, known, reviewer, rename)
        found += more
        problems += wrong
        about += appealed
    if run is None:
        no = "an appeal, and this is a sample: import it into the run"
        problems += [answer_files.Problem(where, no) for where, _ in about]
    elif about:
        before = standing_of([*answers.every(), *found])
        decided = appeals.known(run, about, before, names)
        more, wrong = answer_files.outcomes(about, decided, reviewer)
        found += more
        problems += wrong
    return found, problems


def labels(
    queue: Queue,
    standing: Iterable[Answer],
    policies: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[pa.Table, list[Conflict], int]:
    """The records that people agree on, with their labels; conflicts; how many stay escalated.

    The columns of the queue, then for each of ``OUTPUTS`` 1 (violates), 0 (does not) or null
    (unknown), as of ``label_row``. Then ``reviewer`` (several joined by "+"),
    ``answered_at`` (the last), ``policy`` and ``decided_alike``: it was not looked at, but decided
    with one that is alike.

    ``policies``: the ``answers.meanings`` of policies by fingerprint. An answer that was given by
    another policy than the run's says nothing of categories that meant something else there, and
    of ``any`` only if none did. A policy that is not among them is taken to mean the same.

    The queue is answered from the top. Until all of it is, ``inclusion_floor`` is 0: some records
    had no chance of being among the labels, so that nothing can be certified for them. An audit
    sample is in random order, and keeps its own.
    """
    by_key: dict[Key, list[Answer]] = {}
    for one in standing:
        by_key.setdefault(one.key, []).append(one)
    now = meanings(queue.policy)
    policy = {*now}
    changed = {
        fingerprint: {c for c in {*then, *now} if then.get(c) != now.get(c)}
        for fingerprint, then in (policies or {}).items()
    }
    rows: list[int] = []
    columns: dict[str, list[Any]] = {name: [] for name in (*OUTPUTS, *_MORE.names)}
    conflicts, escalated = [], 0
    keys = queue.keys()
    for i, key in enumerate(keys):
        given = by_key.get(key, [])
        given = [one for one in given if one.settles] or given
        if not given:
            continue
        if any(one.answer == "escalate" for one in given):
            escalated += 1
            continue
        kinds, says = {one.answer for one in given}, {one.says for one in given}
        if len(says - {"flag"}) > 1 or len(kinds) > 1:
            about = ANY if len(kinds) > 1 else "category"
            conflicts.append(Conflict(about, tuple(given)))
        if len(kinds) > 1:
            continue
        violates = kinds == {"flag"}
        other = set[str]().union(*(changed.get(one.policy or "", ()) for one in given))
        if says & other if violates else policy <= other:
            continue  # by the policy of the run nothing is known
        agreed = says.pop() if len(says) == 1 else None
        rows.append(i)
        row = label_row(violates, agreed, policy - other)
        if policy & other and not violates:
            row[ANY] = None
        for name, label in row.items():
            columns[name].append(label)
        columns["reviewer"].append("+".join(sorted({one.reviewer for one in given})))
        columns["answered_at"].append(max(one.answered_at for one in given))
        columns["policy"].append("+".join(sorted({one.policy or "unknown" for one in given})))
        columns["decided_alike"].append(all(one.decided_with for one in given))
    table = pa.concat_tables([REVIEW.empty_table(), *queue.whole(rows)])
    if not queue.sample and len({*by_key} & {*keys}) < queue.total:
        at = table.column_names.index(FLOOR)
        table = table.set_column(at, FLOOR, pa.array([0.0] * len(rows), pa.float64()))
    for name in OUTPUTS:
        table = table.append_column(name, pa.array(columns[name], pa.int8()))
    for field in _MORE:
        table = table.append_column(field, pa.array(columns[field.name], field.type))
    return table, conflicts, escalated


_MORE: Final = pa.schema(
    [
        ("reviewer", pa.string()),
        ("answered_at", pa.string()),
        ("policy", pa.string()),
        ("decided_alike", pa.bool_()),
    ]
)


def _conflict_file(conflicts: Iterable[Conflict]) -> bytes:
    """A row for each answer of each conflict, CSV (RFC 4180), without notes and texts."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_CONFLICT)
    for one in conflicts:
        for answer in one.answers:
            cells = [getattr(answer, name, one.about) for name in _CONFLICT]
            writer.writerow([_cell(cell) for cell in cells])
    return text.getvalue().encode("utf-8", "replace")


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet runs and no terminal obeys."""
    if not isinstance(value, str):
        return value
    value = "".join(c if c.isprintable() else "\ufffd" for c in value)
    return "'" + value if value[:1] in tuple("=+-@＝＋－＠") else value
