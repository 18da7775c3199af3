"""How far reviewers agree beyond chance; numpy alone.

Cohen's kappa, for two reviewers who answered the same records (Cohen 1960, "A coefficient of
agreement for nominal scales")::

    kappa = (p_o - p_e) / (1 - p_e)      p_o: share answered alike
                                         p_e: sum over answers of the product of both shares of it

Krippendorff's alpha for nominal data, for any number of reviewers and with answers missing
(Krippendorff 2011, "Computing Krippendorff's alpha-reliability", section D)::

    alpha = 1 - (n - 1) * sum_u sum_{c != k} n_uc n_uk / (m_u - 1) / sum_{c != k} n_c n_k

    over records u with m_u >= 2 answers, n_uc of them c; n_c = sum_u n_uc; n = sum_c n_c

Both are 1 for perfect agreement and 0 for that of chance, and below 0 for less. Where all say the
same there is no chance to compare with, and no figure. Intervals are 95 % percentile intervals of
the bootstrap over records (Efron and Tibshirani 1993, chapter 13). Where all agree no resample can
disagree: there the share of records answered alike is at least 0.025^(1/n) (Clopper and Pearson
1934), and the interval begins with that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgemod.metrics import Estimate

Codes = npt.NDArray[np.integer[Any]]
"""Answers as numbers from 0; -1 is missing."""

RESAMPLES: Final = 1000


def kappa(a: Codes, b: Codes) -> float | None:
    """Cohen's kappa of two reviewers, (n,) each, no answer missing; None where p_e is 1 or n 0."""
    if not len(a):
        return None
    kinds = int(max(a.max(), b.max())) + 1
    table = np.bincount(a * kinds + b, minlength=kinds * kinds).reshape(kinds, kinds) / len(a)
    by_chance = float(table.sum(axis=0) @ table.sum(axis=1))
    if by_chance > 1 - 1e-12:
        return None
    return (float(np.trace(table)) - by_chance) / (1 - by_chance)


def alpha(answers: Codes) -> float | None:
    """Krippendorff's alpha, nominal, of (records, reviewers); None where all say the same."""
    return _alpha(_counts(answers))


def _counts(answers: Codes) -> npt.NDArray[np.float64]:
    """How often each answer was given to each record, (records, kinds)."""
    kinds = int(answers.max(initial=-1)) + 1
    counts = (answers[:, :, None] == np.arange(kinds)).sum(axis=1)
    twice: npt.NDArray[np.float64] = counts[counts.sum(axis=1) >= 2].astype(np.float64)
    return twice


def _alpha(counts: npt.NDArray[np.float64]) -> float | None:
    pairs = counts.sum(axis=1)
    of_kind = counts.sum(axis=0)
    total = of_kind.sum()
    expected = total * total - of_kind @ of_kind
    if expected == 0:
        return None
    differing = (pairs * pairs - (counts * counts).sum(axis=1)) / (pairs - 1)
    return float(1 - (total - 1) * differing.sum() / expected)


def kappa_interval(a: Codes, b: Codes, seed: int = 0) -> Estimate | None:
    """Cohen's kappa with its interval."""
    found = _bootstrap(lambda rows: kappa(a[rows], b[rows]), len(a), seed)
    if found is None or (a != b).any():
        return found
    return _perfect(len(a), 1 - float(np.square(np.bincount(a) / len(a)).sum()))


def alpha_interval(answers: Codes, seed: int = 0) -> Estimate | None:
    """Krippendorff's alpha with its interval."""
    counts = _counts(answers)
    found = _bootstrap(lambda rows: _alpha(counts[rows]), len(counts), seed)
    if found is None or ((counts > 0).sum(axis=1) > 1).any():
        return found
    of_kind = counts.sum(axis=0)
    total = of_kind.sum()
    return _perfect(len(counts), float(1 - of_kind @ (of_kind - 1) / (total * (total - 1))))


def _perfect(n: int, differing: float) -> Estimate:
    """That n records were answered alike, where a share ``differing`` were not by chance."""
    return Estimate(1.0, max(1 - (1 - 0.025 ** (1 / n)) / differing, -1.0), 1.0)


def _bootstrap(
    figure: Callable[[npt.NDArray[np.int64]], float | None], n: int, seed: int
) -> Estimate | None:
    """A figure of n records and its interval; resamples without a figure are left out.

    The interval holds the figure itself, which it may miss where the figure is at an end.
    """
    value = figure(np.arange(n))
    if value is None:
        return None
    random = np.random.default_rng(seed)
    drawn = [figure(random.integers(0, n, n)) for _ in range(RESAMPLES)]
    known = [one for one in drawn if one is not None]
    low, high = np.percentile(known, (2.5, 97.5)) if known else (value, value)
    return Estimate(value, min(float(low), value), max(float(high), value))
