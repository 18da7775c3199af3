"""What labels say of a policy, for a person to accept: nothing here changes anything.

Rules, lexicons and terms to retire, terms to add, and categories that reviewers do not agree about.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from edgemod import features, patterns
from edgemod.features import Lexicons
from edgemod.kernels import automaton, terms
from edgemod.metrics import Estimate, Labels, wilson
from edgemod.policy import Policy
from edgemod.rehearsal import Catch
from edgemod.words import ANY, OUTPUTS

LEAST: Final = 5
"""Violating records that have a term; pairs of labels of two reviewers."""
MOST_TERMS: Final = 50
RARE: Final = 0.02
"""Share of violating records below which a rule that never fires is called dead."""
DOUBT: Final = 0.2
"""Share of pairs of reviewers' labels that disagree, above which a definition is in doubt."""


@dataclass(frozen=True)
class Retire:
    """A rule, lexicon or term that catches nothing (``hits`` 0), or too much else.

    ``precision``: share of its labelled hits that violate ``label``, with its 95 % interval.
    """

    kind: str
    name: str
    label: str
    hits: int
    precision: Estimate | None


@dataclass(frozen=True)
class Add:
    """A word or pair of words in ``violating`` records that violate ``label``, and ``harmless``
    ones that do not; ``low`` to ``high`` is the interval of its log-odds ratio, that of all terms
    together."""

    term: str
    label: str
    violating: int
    harmless: int
    odds: float
    low: float
    high: float


@dataclass(frozen=True)
class Doubt:
    """How often two reviewers of one record disagree, of ``pairs`` in which one says it violates.

    It may be for the definition, or for one of the reviewers.
    """

    label: str
    pairs: int
    disagree: Estimate | None


def retire(caught: Sequence[Catch], bar: float, policy: Policy, *, show: bool) -> list[Retire]:
    """Of what ``rehearsal.backtest`` found, that which is dead or surely less precise than ``bar``.

    Dead: in none of the records though enough violate its own category, surely in less than
    ``RARE`` of them. Single terms that are dead are left out: of a long list most are. So are rules
    that keep records from being flagged, or clear them: what they catch is meant to be harmless.
    """
    sparing = {rule.name for rule in policy.rules if rule.on == "flag" or rule.verdict == "clear"}
    found = []
    for one in caught:
        if one.kind == "rule" and one.name in sparing:
            continue
        asked = one.label != ANY and one.recall is not None and one.recall.high < RARE
        dead = one.hits == 0 and one.kind != "term" and asked
        poor = one.precision is not None and one.precision.high < bar
        if dead or poor:
            name = one.name if show else masked(one).name
            found.append(Retire(one.kind, name, one.label, one.hits, one.precision))
    return found


def masked(one: Catch) -> Catch:
    """What a rule, lexicon or term catches, with no term in plain: ``slurs: f*****``."""
    if one.kind != "term":
        return one

    def mask(name: str) -> str:
        lexicon, term = name.split(": ", 1)
        return f"{lexicon}: {patterns.masked_term(term)}"

    other = one.overlap and (mask(one.overlap[0]), one.overlap[1])
    return replace(one, name=mask(one.name), overlap=other)


def add(texts: pa.LargeStringArray, labels: Labels, policy: Policy, *, show: bool) -> list[Add]:
    """Terms that tell violating texts (n,) from others, by their labels (n, 10), not in a lexicon.

    Log-odds with an informative prior; see ``patterns.log_odds``. Strongest first.
    """
    data, offsets = features.extract(texts, Lexicons.compile(())).normalised
    known = Lexicons.compile(policy.lexicons)
    asked = [k for k in range(len(OUTPUTS)) if len({*labels[:, k].tolist()} & {0, 1}) == 2]
    cells = np.full((len(texts), len(OUTPUTS)), -1, np.int16)
    for k in asked:
        there = labels[:, k] >= 0
        cells[there, k] = 2 * k + labels[there, k]
    table = terms.Table.empty(2 * len(OUTPUTS), 1 << 17)
    rows = np.arange(len(texts))
    table.add(data, offsets, rows, cells, rows.astype(np.float64))
    names, at = table.found(LEAST)
    counts, sums = table.counts[at], table.counts.sum(axis=0, dtype=np.int64)
    z = patterns.critical(len(names) * len(asked), 0.05)
    best: dict[bytes, Add] = {}
    for k in asked:
        harmless, violating = (
            counts[:, 2 * k].astype(np.int64),
            counts[:, 2 * k + 1].astype(np.int64),
        )
        odds, error = patterns.log_odds(violating, harmless, int(sums[2 * k + 1]), int(sums[2 * k]))
        for i in np.flatnonzero((odds / error > z) & (violating >= LEAST)):
            name, middle, spread = names[i], float(odds[i]), z * float(error[i])
            if (name in best and best[name].odds >= middle) or _fires(name, known):
                continue
            term = name.decode("utf-8", "replace")
            best[name] = Add(
                term if show else patterns.masked_term(term),
                OUTPUTS[k],
                int(violating[i]),
                int(harmless[i]),
                middle,
                middle - spread,
                middle + spread,
            )
    return sorted(best.values(), key=lambda one: -one.low)[:MOST_TERMS]


def _fires(term: bytes, lexicons: Lexicons) -> bool:
    """Whether a lexicon has it."""
    hits = automaton.count(
        np.frombuffer(term, np.uint8),
        np.array([0, len(term)]),
        lexicons.automaton,
        len(lexicons.groups),
    )
    return bool(hits[0, -len(lexicons.names) :].any()) if lexicons.names else False


def doubts(keys: Sequence[str], reviewers: Sequence[str], labels: Labels) -> list[Doubt]:
    """Categories that reviewers disagree about: of pairs of labels of one record, by two of them.

    ``keys`` (n,): which record each row of ``labels`` (n, 10) is about. Those alone whose interval
    lies above ``DOUBT``, most first.
    """
    rows_of: defaultdict[str, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        rows_of[key].append(i)
    pairs = np.array(
        [
            (a, b)
            for rows in rows_of.values()
            for a, b in combinations(rows, 2)
            if reviewers and reviewers[a] != reviewers[b]
        ],
        np.int64,
    ).reshape(-1, 2)
    found = []
    for k, name in enumerate(OUTPUTS):
        a, b = _column(labels, pairs, k)
        either = (a >= 0) & (b >= 0) & ((a == 1) | (b == 1))
        n = int(either.sum())
        share = wilson(int((a != b)[either].sum()), n)
        if share is not None and n >= LEAST and share.low > DOUBT:
            found.append(Doubt(name, n, share))
    return sorted(found, key=lambda one: -(one.disagree.value if one.disagree else 0))


def _column(labels: Labels, pairs: npt.NDArray[np.int64], k: int) -> tuple[Labels, Labels]:
    return labels[pairs[:, 0], k], labels[pairs[:, 1], k]
