"""Trying a policy before it decides anything.

``run_tests``  its own test cases, with the real models
``backtest``   what each rule, word list and term catches among labelled records
``compare``    which records another policy, or an overlay, would decide otherwise
``drill``      what an overlay would ask of the reviewers there are
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from edgemod import decide, features, formats, originals, records, review, run_folder, scoring
from edgemod.decide import Evidence
from edgemod.errors import InputError
from edgemod.labels import UNSAFE, read_labels
from edgemod.metrics import Estimate, Labels, wilson
from edgemod.policy import Lexicon, Policy
from edgemod.records import Chunk
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
    fired: list[Bools] = []
    answers: dict[str, list[Labels]] = {}
    for source in sources:
        given = read_labels(source, labels)
        rows = 0
        for run in formats.rows(source, names):
            chunk = records.chunk_of(run, columns, max_text_bytes=policy.max_text_bytes)
            fired.append(_fired(chunk, policy, whole, single))
            rows += run.count
        wanted = {ANY if name == UNSAFE else name: column for name, column in given.items()}
        for name in {*answers, *wanted}:
            before = sum(map(len, fired)) - rows
            parts = answers.setdefault(name, [np.full(before, -1, np.int8)] if before else [])
            parts.append(wanted.get(name, np.full(rows, -1, np.int8)))
    hits = np.concatenate(fired)
    labelled = {name: np.concatenate(parts) for name, parts in answers.items()}
    if ANY not in labelled:  # harmless by each label that it has, as in an evaluation
        labelled[ANY] = np.max([*labelled.values()], axis=0)
    categories = {lexicon.name: lexicon.category for lexicon in policy.lexicons}
    kinds = [
        *(("rule", rule.name, rule.category) for rule in policy.rules),
        *(("lexicon", lexicon.name, lexicon.category) for lexicon in policy.lexicons),
        *(("term", term.name, categories[term.name.split(": ")[0]]) for term in terms),
    ]
    found: list[Catch] = []
    start = 0
    for kind in ("rule", "lexicon", "term"):
        some = [(name, category) for k, name, category in kinds if k == kind]
        found += _catches(kind, some, hits[:, start : start + len(some)], labelled)
        start += len(some)
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


def _catches(
    kind: str, named: Sequence[tuple[str, str]], hits: Bools, labelled: dict[str, Labels]
) -> list[Catch]:
    found = []
    times = hits.sum(axis=1)
    for k, (name, category) in enumerate(named):
        label = category if category in labelled else ANY
        answers, mine = labelled[label], hits[:, k]
        known, violating = mine & (answers >= 0), answers == 1
        shared = hits[mine].sum(axis=0)
        shared[k] = 0
        count = int(mine.sum())
        other = int(shared.argmax()) if len(shared) > 1 else k
        found.append(
            Catch(
                kind=kind,
                name=name,
                label=label,
                hits=count,
                precision=wilson(int((known & violating).sum()), int(known.sum())),
                recall=wilson(int((mine & violating).sum()), int(violating.sum())),
                unique=int((mine & violating & (times == 1)).sum()),
                overlap=(named[other][0], float(shared[other] / count))
                if count and shared[other]
                else None,
            )
        )
    return sorted(found, key=lambda one: -one.hits)


# -- two policies ------------------------------------------------------------------------------


@dataclass
class Diff:
    """How two policies decide n records.

    ``moved``: records by (verdict before, verdict after), those that stay included. ``why``: of the
    moved ones, by (before, after, reason after). ``ids``: the first of each kind of move.
    ``reviews``, ``flags``: by category ("none" where there is none), before and after. ``sources``:
    input files by the share of their records that moved, with the number of their records.
    """

    records: int = 0
    moved: Counter[tuple[str, str]] = field(default_factory=Counter)
    why: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    ids: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    reviews: tuple[Counter[str], Counter[str]] = field(
        default_factory=lambda: (Counter(), Counter())
    )
    flags: tuple[Counter[str], Counter[str]] = field(default_factory=lambda: (Counter(), Counter()))
    sources: dict[str, tuple[int, int]] = field(default_factory=dict)

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
            "sources": {name: {"moved": m, "records": n} for name, (m, n) in self.sources.items()},
        }


def chunks_of(on: str | Path, **columns: Any) -> Callable[[int], Iterator[Chunk]]:
    """Gives the records of a file, folder or glob, or those that a complete run has read.

    Whatever the limit of bytes it is called with, the chunks hold the same records.
    """
    path = Path(on)
    if run_folder.is_complete(path):
        state = run_folder.complete_state(path)
        sources, resolved = [*originals.inputs(state).values()], originals.columns(state)
    else:
        sources = records.discover([on])
        resolved = records.resolve_columns(sources, **columns)

    def chunks(max_text_bytes: int) -> Iterator[Chunk]:
        return records.read_chunks(
            sources,
            resolved,
            chunk_rows=_ROWS,
            start=0,
            start_row=0,
            max_text_bytes=max_text_bytes,
        )

    return chunks


def compare(
    before: Triager,
    after: Triager,
    chunks: Callable[[int], Iterable[Chunk]],
    on_after: Callable[[Chunk, pa.RecordBatch], None] | None = None,
) -> Diff:
    """Decide records by both triagers; the second should be made ``beside`` the first.

    ``chunks`` gives the records, their texts of at most so many bytes: ``chunks_of``. ``on_after``
    is given each chunk with the decisions of the second.
    """
    diff = Diff()
    both = [before, after]
    limits = [triager.policy.max_text_bytes for triager in both]
    for of_both in zip(*map(chunks, limits), strict=True):
        pair = [t.triage_chunk(chunk)[0] for t, chunk in zip(both, of_both, strict=True)]
        if on_after:
            on_after(of_both[1], pair[1])
        old, new = (one.select(["verdict", "category", "reason"]).to_pylist() for one in pair)
        ids, sources = pair[0]["record_id"].to_pylist(), pair[0]["source"].to_pylist()
        for a, b, name, source in zip(old, new, ids, sources, strict=True):
            move = (a["verdict"], b["verdict"])
            diff.records += 1
            diff.moved[move] += 1
            for side, row in enumerate((a, b)):
                counters = {"review": diff.reviews, "flag": diff.flags}.get(row["verdict"])
                if counters:
                    counters[side][row["category"] or review.NO_CATEGORY] += 1
            changed = move[0] != move[1]
            m, n = diff.sources.get(source, (0, 0))
            diff.sources[source] = (m + changed, n + 1)
            if changed:
                diff.why[(*move, b["reason"])] += 1
                known = diff.ids.setdefault(move, [])
                if len(known) < SHOWN:
                    known.append(name)
    return diff


@dataclass(frozen=True)
class Drill:
    """What an overlay would ask of people.

    ``reviews``: records for review, before and with it. ``hours``: of the team, to read them all.
    ``unread``: by category, those that the team does not get to in ``shift`` hours, the queue being
    read in its order. ``failing``: test cases of the policy that the overlay decides otherwise than
    they say.
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
    chunks: Callable[[int], Iterable[Chunk]],
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

    diff = compare(before, after, chunks, queue)
    reviews = (sum(diff.reviews[0].values()), sum(diff.reviews[1].values()))
    capacity = reviewers * per_hour
    priority = np.concatenate([np.zeros(0, np.float32), *(p for p, _ in waiting)])
    category = np.concatenate([np.zeros(0, np.int8), *(c for _, c in waiting)])
    last = category[np.argsort(-priority, kind="stable")][int(capacity * shift) :]
    names = (*CATEGORIES, review.NO_CATEGORY)  # -1 is the last
    codes, counts = np.unique(last, return_counts=True)
    unread = Counter(dict(zip((names[k] for k in codes), counts.tolist(), strict=True)))
    return Drill(
        diff=diff,
        reviews=reviews,
        hours=(reviews[0] / capacity, reviews[1] / capacity),
        shift=shift,
        unread=dict(unread.most_common()),
        failing=tuple(one for one in run_tests(after) if not one.passed),
    )
