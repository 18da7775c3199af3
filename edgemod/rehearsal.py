"""Trying a policy before it decides anything.

``run_tests``  its own test cases, with the real models
``backtest``   what each rule, word list and term catches among labelled records
``compare``    which records another policy, or an overlay, would decide otherwise
``drill``      what an overlay would ask of the reviewers there are
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from edgemod import (
    decide,
    features,
    formats,
    kept_scores,
    originals,
    quarantine,
    records,
    review,
    run_folder,
    scoring,
    worker,
)
from edgemod.calibration import FloatMatrix
from edgemod.decide import Evidence
from edgemod.errors import InputError
from edgemod.labels import UNSAFE, read_groups, read_labels
from edgemod.metrics import Estimate, Labels, wilson
from edgemod.parts import open_part
from edgemod.policy import Lexicon, Policy
from edgemod.records import Chunk, Columns
from edgemod.sources import Source
from edgemod.triager import Triager
from edgemod.words import ANY, CATEGORIES, Status

SHOWN: Final = 20
"""Ids told of each kind of change, the first ones."""
_ROWS: Final = 1024

Bools = npt.NDArray[np.bool_]


# -- test cases --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of one test case of a policy.

    ``expected`` and ``got`` are a verdict and, where the case names one, a category. ``fired``
    holds (start, end, what) of each lexicon hit, link and piece of personal data: code points.
    """

    name: str
    why: str
    passed: bool
    expected: tuple[str, ...]
    got: tuple[str, ...]
    stage: str
    reason: str
    fired: tuple[tuple[int, int, str], ...]
    probabilities: dict[str, float | None]


def run_tests(triager: Triager) -> list[Outcome]:
    """Decide every test case of the triager's policy, in order, and compare."""
    cases = triager.policy.tests
    answers = scoring.score([case.text for case in cases], triager=triager)
    outcomes = []
    for case, answer in zip(cases, answers, strict=True):
        expected: tuple[str, ...] = (case.verdict,)
        got: tuple[str, ...] = (answer.verdict,)
        if case.category:
            expected, got = (*expected, case.category), (*got, answer.category or "none")
        outcomes.append(
            Outcome(
                name=case.name,
                why=case.why,
                passed=expected == got,
                expected=expected,
                got=got,
                stage=answer.stage,
                reason=answer.reason,
                fired=answer.fired,
                probabilities=answer.probabilities,
            )
        )
    return outcomes


# -- backtest ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Catch:
    """What one rule, lexicon or term of a policy catches among n labelled records.

    ``hits``: records in which it fires. ``precision``: share of those with a label for ``label``
    that violate it; ``recall``: share of the violating records in which it fires; None where there
    are none. ``unique``: violating records that nothing else of its kind catches. ``overlap``: the
    other one of its kind that fires in most of its hits, with that share.
    """

    kind: str
    name: str
    label: str
    hits: int
    precision: Estimate | None
    recall: Estimate | None
    unique: int
    overlap: tuple[str, float] | None


def backtest(
    policy: Policy,
    inputs: str | Path | Sequence[str | Path],
    *,
    text: str | Sequence[str] = (),
    labels: Sequence[str] | None = None,
) -> list[Catch]:
    """Run the rules, lexicons and terms of a policy over labelled Parquet files; no model runs.

    Each is judged by the label of its category, or where the files have none by ``any``. A rule
    fires where all of its conditions hold, whatever its ``on``. Those that catch most come first in
    each kind, dead ones (no hits) last. Raises InputError as evaluation does.
    """
    sources = records.discover([inputs] if isinstance(inputs, str | Path) else inputs)
    columns = records.resolve_columns(sources, text=(text,) if isinstance(text, str) else text)
    names = [name for name in (*columns.text, columns.conversation) if name]
    terms = [
        replace(
            lexicon, name=f"{lexicon.name}: {term}", terms=(term,), allow=_around(term, lexicon)
        )
        for lexicon in policy.lexicons
        for term in lexicon.terms
    ]
    whole = features.Lexicons.compile(policy.lexicons)
    single = features.Lexicons.compile(terms)
    categories = {lexicon.name: lexicon.category for lexicon in policy.lexicons}
    kinds = {
        "rule": [(rule.name, rule.category) for rule in policy.rules],
        "lexicon": [(lexicon.name, lexicon.category) for lexicon in policy.lexicons],
        "term": [(term.name, categories[term.name.split(": ")[0]]) for term in terms],
    }
    answers = [_answers(source, labels) for source in sources]
    labelled = {name for given in answers for name in given}
    counts = {
        kind: _Counts([(name, of if of in labelled else ANY) for name, of in named])
        for kind, named in kinds.items()
    }
    for source, given in zip(sources, answers, strict=True):
        if ANY not in labelled:  # harmless by each label that it has, as in an evaluation
            given[ANY] = np.max([*given.values()], axis=0)
        start = 0
        for run in formats.rows(source, names):
            chunk = records.chunk_of(run, columns, max_text_bytes=policy.max_text_bytes)
            fired = _fired(chunk, policy, whole, single)
            here = {name: column[start : start + run.count] for name, column in given.items()}
            start += run.count
            first = 0
            for count in counts.values():
                count.add(fired[:, first : first + len(count.named)], here)
                first += len(count.named)
    return [catch for kind, count in counts.items() for catch in count.catches(kind)]


def _answers(source: Source, labels: Sequence[str] | None) -> dict[str, Labels]:
    found: dict[str, Labels] = {}
    for name, column in read_labels(source, labels).items():
        of = ANY if name == UNSAFE else name
        found[of] = np.maximum(found.get(of, np.int8(-1)), column)  # where either knows
    return found


def _around(term: str, lexicon: Lexicon) -> tuple[str, ...]:
    """The allowed phrases that a term is in: the others cannot keep it from counting."""
    return tuple(phrase for phrase in lexicon.allow if term.casefold() in phrase.casefold())


def _fired(
    chunk: Chunk, policy: Policy, whole: features.Lexicons, single: features.Lexicons
) -> Bools:
    """Which rules, lexicons and terms fire in each record, (records, all of them)."""
    width = len(policy.rules) + len(policy.lexicons) + len(single.names)
    result = np.zeros((chunk.records.num_rows, width), bool)
    status = np.array(chunk.texts["status"], np.int8)
    rows = np.flatnonzero(status == Status.ok)
    if not len(rows):
        return result
    texts = chunk.texts["text"].take(rows)
    measured = features.extract(texts, whole)
    evidence = Evidence(status[rows], measured.values, measured.hits, None, None)
    every = np.column_stack(
        [
            *(decide.matches(rule, policy, evidence) for rule in policy.rules),
            measured.hits > 0,
            features.extract(texts, single).hits > 0,
        ]
    )
    owner = np.array(chunk.texts["record"], np.int32)[rows]
    np.logical_or.at(result, owner, every)
    return result


class _Counts:
    """How often each of m rules, lexicons or terms fires, and beside what; adds up over chunks."""

    def __init__(self, named: Sequence[tuple[str, str]]) -> None:
        """``named``: each with the label that it is judged by."""
        self.named = named
        m = len(named)
        self._hits, self._known, self._right, self._violating, self._unique = np.zeros(
            (5, m), np.int64
        )
        self._both = np.zeros((m, m), np.int64)

    def add(self, fired: Bools, labels: dict[str, Labels]) -> None:
        """Count a chunk: ``fired`` (n, m), labels (n,) by name, unknown where it has none."""
        alone = fired.sum(axis=1) == 1
        unknown = np.full(len(fired), -1, np.int8)
        for k, (_, label) in enumerate(self.named):
            answers, mine = labels.get(label, unknown), fired[:, k]
            violating = answers == 1
            self._hits[k] += mine.sum()
            self._known[k] += (mine & (answers >= 0)).sum()
            self._right[k] += (mine & violating).sum()
            self._violating[k] += violating.sum()
            self._unique[k] += (mine & violating & alone).sum()
            if mine.any():
                self._both[k] += fired[mine].sum(axis=0)

    def catches(self, kind: str) -> list[Catch]:
        """What they caught, those that fired most first."""
        found = []
        for k, (name, label) in enumerate(self.named):
            hits, shared = int(self._hits[k]), self._both[k].copy()
            shared[k] = 0
            other = int(shared.argmax())
            found.append(
                Catch(
                    kind=kind,
                    name=name,
                    label=label,
                    hits=hits,
                    precision=wilson(int(self._right[k]), int(self._known[k])),
                    recall=wilson(int(self._right[k]), int(self._violating[k])),
                    unique=int(self._unique[k]),
                    overlap=(self.named[other][0], float(shared[other] / hits))
                    if shared[other]
                    else None,
                )
            )
        return sorted(found, key=lambda one: -one.hits)


# -- two policies ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Archive:
    """Records to try policies on: of files, or those that a complete run has read.

    ``run``: the folder of that run and what its run.json says. ``groups``: of every record of each
    file, by the path that decisions show, the group that it counts in; none: its file is its group.
    """

    sources: tuple[Source, ...]
    columns: Columns
    rows: tuple[int, int | None]
    """Of all sources, end to end: the first, and the one after the last; a shard has read some."""
    chunk_rows: int
    run: tuple[Path, dict[str, Any]] | None
    groups: dict[str, npt.NDArray[np.object_]]

    @classmethod
    def open(cls, on: str | Path, *, by: str | None = None, **columns: Any) -> Archive:
        """From a folder, file or glob, with column names as ``edgemod.triage`` takes them.

        ``by``: a column whose groups are told apart. Raises InputError and RunError.
        """
        path, run = Path(on), None
        rows, chunk_rows = (0, None), _ROWS
        if run_folder.is_complete(path):
            run = path, run_folder.complete_state(path)
            rows, chunk_rows = tuple(run[1]["rows"]), run[1]["plan"]["chunk_rows"]
            sources, resolved = [*originals.inputs(run[1]).values()], originals.all_columns(run[1])
        else:
            sources = records.discover([on])
            resolved = records.resolve_columns(sources, **columns)
        groups = {s.path: read_groups(s, by) for s in sources} if by else {}
        return cls(tuple(sources), resolved, rows, chunk_rows, run, groups)

    @property
    def has_scores(self) -> bool:
        """Whether it is a run that was to keep scores."""
        return self.run is not None and bool(self.run[1]["plan"]["keep_scores"])

    def check_calibration(self, triager: Triager) -> None:
        """Raise InputError if the run was decided with another calibration than a triager has."""
        if self.run is None:
            return
        out, state = self.run
        made, given = state["plan"]["calibration"], triager.calibration.fingerprint
        if made != given:
            raise InputError(
                f"was decided with calibration {made[:12]}, not {given[:12]}",
                where=str(out),
                fix="Name the one that is to be used with --calibration.",
            )

    def chunks(self, max_text_bytes: int) -> Iterator[Chunk]:
        """Its records, their texts of at most so many bytes; the same ones whatever the limit.

        Those of a run come in its chunks.
        """
        first, stop = self.rows
        chunks = records.read_chunks(
            self.sources,
            self.columns,
            chunk_rows=self.chunk_rows,
            start=first // self.chunk_rows,
            start_row=first,
            stop_row=sys.maxsize if stop is None else stop,
            max_text_bytes=max_text_bytes,
        )
        if self.run is None:
            return chunks
        chunks = map(self._quarantined, chunks)
        return map(originals.unnamed, chunks) if self.run[1]["plan"]["pseudonyms"] else chunks

    def _quarantined(self, chunk: Chunk) -> Chunk:
        """A chunk without what has killed workers of the run: it is not tried in this process."""
        assert self.run is not None
        with open_part(worker.files(self.run[0], chunk.index)[2]) as part:
            status = np.array(part.read(["status"])["status"].to_pylist())
        for bad in (Status.crashed, Status.failed):
            rows = np.flatnonzero(status == bad.name)
            chunk = quarantine.without(chunk, rows, bad) if len(rows) else chunk
        return chunk

    def known(self, triager: Triager, chunk: Chunk) -> FloatMatrix | None:
        """What the language model said of a chunk's texts in the run, if it kept that and
        ``triager`` would have it read the same; (texts, K)."""
        if self.run is None or self.run[1]["plan"]["code"] != worker.code_version():
            return None
        part = worker.scores_file(self.run[0], chunk.index)
        return kept_scores.of_model(part, chunk, triager.reading())

    def groups_of(self, decisions: pa.RecordBatch) -> list[str]:
        """The group of each decision."""
        sources: list[str] = decisions["source"].to_pylist()
        if not self.groups:
            return sources
        rows = decisions["source_row"].to_pylist()
        return [str(self.groups[s][row]) for s, row in zip(sources, rows, strict=True)]


@dataclass
class Diff:
    """How two policies decide n records.

    ``moved``: records by (verdict before, verdict after), those that stay included. ``why``: of the
    moved ones, by (before, after, reason after). ``ids``: the first of each kind of move.
    ``reviews``, ``flags``: by category ("none" where there is none), before and after. ``groups``:
    of each group of records (the input files, if no column was named), how many moved, and how many
    it has. ``kept``: chunks in which scores of the run stood in for the language model, of how
    many; 0 of 0 where it has kept none.
    """

    records: int = 0
    moved: Counter[tuple[str, str]] = field(default_factory=Counter)
    why: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    ids: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    reviews: tuple[Counter[str], Counter[str]] = field(
        default_factory=lambda: (Counter(), Counter())
    )
    flags: tuple[Counter[str], Counter[str]] = field(default_factory=lambda: (Counter(), Counter()))
    groups: dict[str, tuple[int, int]] = field(default_factory=dict)
    kept: tuple[int, int] = (0, 0)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "records": self.records,
            "moved": [{"from": a, "to": b, "records": n} for (a, b), n in self.moved.items()],
            "why": [
                {"from": a, "to": b, "reason": reason, "records": n}
                for (a, b, reason), n in self.why.most_common()
            ],
            "ids": [{"from": a, "to": b, "ids": ids} for (a, b), ids in self.ids.items()],
            "reviews": [dict(one) for one in self.reviews],
            "flags": [dict(one) for one in self.flags],
            "groups": {name: {"moved": m, "records": n} for name, (m, n) in self.groups.items()},
            "kept scores": dict(zip(("used", "chunks"), self.kept, strict=True)),
        }


def compare(
    before: Triager,
    after: Triager,
    archive: Archive,
    on_after: Callable[[Chunk, pa.RecordBatch], None] | None = None,
) -> Diff:
    """Decide records by both triagers; the second should be made ``beside`` the first.

    ``on_after`` is given each chunk with the decisions of the second.
    """
    diff = Diff()
    both = [before, after]
    limits = [triager.policy.max_text_bytes for triager in both]
    for of_both in zip(*map(archive.chunks, limits), strict=True):
        known = [archive.known(*pair) for pair in zip(both, of_both, strict=True)]
        if archive.has_scores:
            used, chunks = diff.kept
            diff.kept = used + all(one is not None for one in known), chunks + 1
        pair = [
            triager.triage_chunk(chunk, scores).decisions
            for triager, chunk, scores in zip(both, of_both, known, strict=True)
        ]
        if on_after:
            on_after(of_both[1], pair[1])
        old, new = (one.select(["verdict", "category", "reason"]).to_pylist() for one in pair)
        ids, groups = pair[0]["record_id"].to_pylist(), archive.groups_of(pair[0])
        for a, b, name, group in zip(old, new, ids, groups, strict=True):
            move = (a["verdict"], b["verdict"])
            diff.records += 1
            diff.moved[move] += 1
            for side, row in enumerate((a, b)):
                counters = {"review": diff.reviews, "flag": diff.flags}.get(row["verdict"])
                if counters:
                    counters[side][row["category"] or review.NO_CATEGORY] += 1
            changed = move[0] != move[1]
            m, n = diff.groups.get(group, (0, 0))
            diff.groups[group] = (m + changed, n + 1)
            if changed:
                diff.why[(*move, b["reason"])] += 1
                first = diff.ids.setdefault(move, [])
                if len(first) < SHOWN:
                    first.append(name)
    return diff


@dataclass(frozen=True)
class Drill:
    """What an overlay would ask of people.

    ``reviews``: records for review, before and with it. ``hours``: of the team, to read them all.
    ``unread``: by category, those that the team does not get to in ``shift`` hours, the queue being
    read in its order. ``failing``: test cases that the overlay decides otherwise than they say, and
    that do not fail without it.
    """

    diff: Diff
    reviews: tuple[int, int]
    hours: tuple[float, float]
    shift: float
    unread: dict[str, int]
    failing: tuple[Outcome, ...]


def drill(
    before: Triager,
    after: Triager,
    archive: Archive,
    *,
    reviewers: int,
    per_hour: float,
    shift: float = 8.0,
) -> Drill:
    """Replay records with an overlay in force, for ``reviewers`` who read ``per_hour`` each."""
    if not all(0 < value < 1e9 for value in (reviewers, per_hour, shift)):
        raise InputError(
            "reviewers, records an hour and hours are numbers over 0",
            where="policy drill",
            fix="Give what the team has.",
        )
    waiting: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]] = []

    def queue(chunk: Chunk, decisions: pa.RecordBatch) -> None:
        rows = review.pending(chunk, decisions, after.policy)
        code = pc.index_in(rows["category"], pa.array(CATEGORIES)).fill_null(-1)
        waiting.append((rows["priority"].to_numpy(), code.to_numpy().astype(np.int8)))

    diff = compare(before, after, archive, queue)
    reviews = (sum(diff.reviews[0].values()), sum(diff.reviews[1].values()))
    capacity = reviewers * per_hour
    priority = np.concatenate([np.zeros(0, np.float32), *(p for p, _ in waiting)])
    category = np.concatenate([np.zeros(0, np.int8), *(c for _, c in waiting)])
    last = category[np.argsort(-priority, kind="stable")][int(capacity * shift) :]
    failed = {one.name for one in run_tests(before) if not one.passed}  # not the overlay's doing
    names = (*CATEGORIES, review.NO_CATEGORY)  # -1 is the last
    codes, counts = np.unique(last, return_counts=True)
    unread = Counter(dict(zip((names[k] for k in codes), counts.tolist(), strict=True)))
    return Drill(
        diff=diff,
        reviews=reviews,
        hours=(reviews[0] / capacity, reviews[1] / capacity),
        shift=shift,
        unread=dict(unread.most_common()),
        failing=tuple(one for one in run_tests(after) if not one.passed and one.name not in failed),
    )
