"""Whether a pattern in an archive is more than chance: tests with stated nulls. Numpy in and out.

Each test is a family of its own: all its claims hold together with a chance of at least
1 - ``ALPHA``, by Holm's procedure or Bonferroni's (Holm 1979, "A simple sequentially rejective
multiple test procedure").
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import stats

Counts = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]

ALPHA: Final = 0.01
"""Chance that a kind of pattern is found where its null holds for the whole archive."""
PRIOR: Final = 0.1
"""Weight of the prior of a term, in records for each that has it."""
WIDTHS: Final = tuple(2.0**-k for k in range(5, 17))
"""Widths of the windows that are scanned for bursts: shares of the archive's records. What takes
longer than the widest may be a habit, a weekly thread, and is no burst."""


def holm(p: Floats, alpha: float = ALPHA) -> npt.NDArray[np.bool_]:
    """Which of the hypotheses with p-values ``p`` (m,) are rejected, all errors together."""
    order = np.argsort(p, kind="stable")
    failed = p[order] > alpha / np.arange(len(p), 0, -1)
    rejected = np.zeros(len(p), bool)
    rejected[order[: int(failed.argmax()) if failed.any() else len(p)]] = True
    return rejected


def log_odds(here: Counts, there: Counts, all_here: int, all_there: int) -> tuple[Floats, Floats]:
    """Log-odds ratio of each term (m,) here against there, and its standard error.

    With an informative Dirichlet prior: what both groups say together, weighing ``PRIOR`` as much
    (Monroe, Colaresi and Quinn 2008, "Fightin' words", equations 15, 16 and 20). ``here``,
    ``there``: records that have each term; ``all_here``, ``all_there``: sums over all terms.
    """
    prior = PRIOR * np.maximum(here + there, 1).astype(np.float64)
    whole = PRIOR * (all_here + all_there)
    a, b = here + prior, there + prior
    odds = np.log(a) - np.log(all_here + whole - a) - np.log(b) + np.log(all_there + whole - b)
    return odds, np.sqrt(1 / a + 1 / b)


def critical(tests: int, alpha: float = ALPHA) -> float:
    """The z-score that one of ``tests`` null terms exceeds with a chance of ``alpha`` at most."""
    return float(stats.norm.isf(alpha / max(tests, 1)))


def p_of(z: float) -> float:
    """The chance that a null term has a greater z-score."""
    return float(stats.norm.sf(z))


def scan(low: Floats, high: Floats) -> tuple[float, int, int]:
    """The densest window of n positions: p-value, and its first and last position, inclusive.

    Null: positions are drawn independently and uniformly from 0 to 1. With the moments of an
    archive's records as ranks, that is: a copy may come whenever any record may. ``low``, ``high``
    (n,), both ascending: the share of records before each, and that of those not after it; what
    has the same moment takes up room. For each of ``WIDTHS`` the chance that some window of this
    width holds as many by the approximation of Wallenstein and Neff (1987, "An approximation for
    the distribution of the scan statistic"), times the number of widths (Bonferroni).
    """
    n = len(low)
    best = (1.0, 0, n - 1)
    for width in WIDTHS:
        last = np.searchsorted(high, low + width, side="right") - 1
        held = last - np.arange(n) + 1
        i = int(held.argmax())
        k = int(held[i])
        if k < 3:
            continue
        tail = float(stats.binom.sf(k - 1, n, width))
        p = (k / width - n - 1) * float(stats.binom.pmf(k, n, width)) + 2 * tail
        p = min(1.0, max(p, tail) * len(WIDTHS))
        if p < best[0]:
            best = (p, i, int(last[i]))
    return best


def shares(hits: Counts, totals: Counts, z: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Of each group (g,) against all others: the difference of shares, its interval, and a p-value.

    The interval is Newcombe's (1998, "Interval estimation for the difference between independent
    proportions", method 10) at ``z``, the p-value Fisher's, two-sided.
    """
    out = np.zeros((4, len(hits)))
    all_hits, all_totals = int(hits.sum()), int(totals.sum())
    for g, (k, n) in enumerate(zip(hits.tolist(), totals.tolist(), strict=True)):
        rest, m = all_hits - k, all_totals - n
        if not n or not m:
            out[:, g] = 0.0, -1.0, 1.0, 1.0
            continue
        (p1, low1, high1), (p2, low2, high2) = _wilson(k, n, z), _wilson(rest, m, z)
        d = p1 - p2
        out[:, g] = (
            d,
            d - math.hypot(p1 - low1, high2 - p2),
            d + math.hypot(high1 - p1, p2 - low2),
            float(stats.fisher_exact([[k, n - k], [rest, m - rest]]).pvalue),
        )
    return out[0], out[1], out[2], out[3]


def _wilson(k: int, n: int, z: float) -> tuple[float, float, float]:
    """A share with its interval at ``z`` (see ``metrics.wilson``)."""
    p, spread = k / n, z * z / n
    middle = (p + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(p * (1 - p) / n + spread / (4 * n))
    return p, max(min(middle - half, p), 0.0), min(max(middle + half, p), 1.0)


def novelty(before: Counts, records: Counts, total: int) -> Floats:
    """How surprising it is that something was not seen earlier, a p-value each (m,).

    ``before``: of the archive's ``total`` records those earlier than the first of the ``records``
    that have it. Null: these could be any of the archive's.
    """
    return np.asarray((1 - before / max(total, 1)) ** records, np.float64)


def near(words: Sequence[str], terms: Sequence[str], least: int = 5) -> dict[str, str]:
    """Words that are one edit from a term, with that term: a letter more, less or another.

    Terms of fewer than ``least`` characters, and words that are terms, have none.
    """
    known = {*terms}
    around: dict[str, list[str]] = {}
    for term in sorted(known):
        if len(term) >= least:
            for form in {term, *_shorter(term)}:
                around.setdefault(form, []).append(term)
    found = {}
    for word in words:
        if word not in known and len(word) >= least - 1:
            forms = (word, *_shorter(word))
            close = {t for form in forms for t in around.get(form, ()) if one_edit(word, t)}
            if close:
                found[word] = min(close)
    return found


def _shorter(word: str) -> list[str]:
    """The word without each of its characters."""
    return [word[:i] + word[i + 1 :] for i in range(len(word))]


def one_edit(a: str, b: str) -> bool:
    """Whether one letter more, less or another makes ``a`` of ``b``."""
    if a == b or abs(len(a) - len(b)) > 1:
        return False
    pairs = zip(a, b, strict=False)
    i = next((k for k, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))
    return a[i + (len(a) >= len(b)) :] == b[i + (len(b) >= len(a)) :]


_SEPARATORS: Final = frozenset(" .-_")


def masked_term(term: str) -> str:
    """A term with its first character, and asterisks for the others but for separators."""
    return term[:1] + "".join(c if c in _SEPARATORS else "*" for c in term[1:])


def masked_text(text: str, most: int = 60) -> str:
    """The beginning of a text, of each word the first character; of single characters none."""
    words = text[: 4 * most].split()
    short = " ".join(word[0] + "*" * (len(word) - 1) if len(word) > 1 else "*" for word in words)
    return re.sub(r"\*{8,}", "*******", short)[:most]
