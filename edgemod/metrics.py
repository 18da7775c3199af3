"""Figures of scores against labels, with intervals: numpy in, numbers out.

AUPRC is average precision, the sum over distinct scores of (recall gained) x (precision there),
without interpolation (Davis and Goadrich 2006, "The relationship between precision-recall and ROC
curves", say why not). AUROC is the Mann-Whitney statistic: the chance that a violating record
scores above a harmless one, where equal scores count half (Hanley and McNeil 1982, "The meaning
and use of the area under a ROC curve"). Intervals of areas are percentile intervals of the
bootstrap over records (Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 13),
those of shares Wilson's (1927, "Probable inference, the law of succession, and statistical
inference"). All are 95 % intervals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgemod.words import OUTPUTS

Labels = npt.NDArray[np.int8]
"""1 violates, 0 does not, -1 is unknown."""
Scores = npt.NDArray[np.floating[Any]]
Counts = npt.NDArray[np.int64]

_Z: Final = 1.959963984540054
"""97.5 % of a standard normal distribution lies below."""


@dataclass(frozen=True)
class Estimate:
    """A figure between 0 and 1 and its 95 % interval."""

    value: float
    low: float
    high: float


def average_precision(labels: Labels, scores: Scores) -> float:
    """Area under the precision-recall curve, 0 to 1; equal scores are one step of the curve.

    ``labels`` (n,) of 0 and 1, ``scores`` (n,) without NaN. Raises ValueError unless there are
    labels of both kinds.
    """
    return _areas(_counts(*_cells(labels, scores)))[0]


def roc_auc(labels: Labels, scores: Scores) -> float:
    """Chance that a violating record scores above a harmless one, equal scores counting half.

    Arguments and errors as of ``average_precision``.
    """
    return _areas(_counts(*_cells(labels, scores)))[1]


def bootstrap(
    labels: Labels, scores: Scores, resamples: int = 1000, seed: int = 0
) -> tuple[Estimate, Estimate]:
    """AUPRC and AUROC with their bootstrap intervals; arguments as of ``average_precision``.

    The same seed and n draw the same records, so figures of one label vary together. A resample
    with one kind of record only has no areas and is drawn again. Records are sorted once: areas
    need only how many records of each kind a resample has at each score, and counting the drawn
    records gives exactly that (the counts are multinomial; Poisson counts would only be near).
    """
    cells, steps = _cells(labels, scores)
    random = np.random.default_rng(seed)
    drawn: list[tuple[float, float]] = []
    while len(drawn) < resamples:
        counts = _counts(cells[random.integers(0, len(cells), len(cells))], steps)
        if counts.any(axis=0).all():
            drawn.append(_areas(counts))
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    values = zip(_areas(_counts(cells, steps)), low, high, strict=True)
    auprc, auroc = (Estimate(value, float(a), float(b)) for value, a, b in values)
    return auprc, auroc


def wilson(hits: int, n: int) -> Estimate | None:
    """A share with its 95 % interval (Wilson 1927); None where n is 0."""
    if n == 0:
        return None
    share, spread = hits / n, _Z * _Z / n
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    # Rounding must not put the share itself outside.
    return Estimate(share, max(min(middle - half, share), 0.0), min(max(middle + half, share), 1.0))


def by_output(labels: Labels, scores: Scores) -> dict[str, float]:
    """AUPRC of each output that has labels of both kinds; (n, 10) both, -1 and NaN left out."""
    found = {}
    for k, name in enumerate(OUTPUTS):
        known = (labels[:, k] >= 0) & ~np.isnan(scores[:, k])
        if len(np.unique(labels[known, k])) == 2:
            found[name] = average_precision(labels[known, k], scores[known, k])
    return found


def _cells(labels: Labels, scores: Scores) -> tuple[Counts, int]:
    """Which count each record adds to, (n,): 2 x step + label; and the number of steps.

    A step is a distinct score, the greatest first.
    """
    if {*np.unique(labels).tolist()} != {0, 1}:
        raise ValueError("needs labels of both kinds, 0 and 1")
    if np.isnan(scores).any():
        raise ValueError("needs scores that are numbers")
    distinct, step = np.unique(-scores, return_inverse=True)
    return np.asarray(2 * step + labels, np.int64), len(distinct)


def _counts(cells: Counts, steps: int) -> Counts:
    """Records at each step, (steps, 2): harmless and violating ones."""
    return np.bincount(cells, minlength=2 * steps).reshape(steps, 2)


def _areas(counts: Counts) -> tuple[float, float]:
    """(AUPRC, AUROC) of records counted by step; there are some of both kinds."""
    harmless, violating = counts[:, 0], counts[:, 1]
    found = np.cumsum(violating)
    taken = found + np.cumsum(harmless)
    positives = found[-1]
    # A resample may have no record at the first steps.
    auprc = violating @ (found / np.maximum(taken, 1)) / positives
    above = harmless @ (found - violating / 2)
    return float(auprc), float(above / (positives * (taken[-1] - positives)))
