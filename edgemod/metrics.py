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
from collections.abc import Callable
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
    """AUPRC and AUROC with their bootstrap intervals; arguments as of ``average_precision``."""
    cells, steps = _cells(labels, scores)
    auprc, auroc = _resampled(cells, steps, _areas, resamples, seed)
    return auprc, auroc


def figures(
    labels: Labels,
    p: Scores,
    flag_above: float = math.inf,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Every figure of probabilities ``p`` (n,) for labels (n,) of 0 and 1, with its interval.

    - ``auprc``, ``auroc``: areas, as above.
    - ``f1_at_half``, ``f1_at_flag_threshold``, ``f1_oracle``: F1 where what is at or over 0.5, the
      threshold in use (left out where it is inf: nothing is flagged), or the best in hindsight
      counts as a violation. The last is what no one can know before; it is a limit, not a result.
    - ``recall_at_fpr_1``, ``_10``: the greatest recall with at most 1, 10 % of harmless records at
      or over the threshold.
    - ``precision_at_recall_80``, ``_90``, ``_95``: the greatest precision with such a recall.
    - ``review_at_miss_1``, ``_2``, ``_5``, ``_10``: the share of records that people read if all
      below a threshold are cleared, and that clears 1, 2, 5, 10 % of the violating ones at most.
    - ``augrc``: the area under the generalised risk-coverage curve (Traub et al. 2024, "Overcoming
      common flaws in the evaluation of selective classification systems"): the share of records
      that are both kept and wrong, averaged over how many are kept, the surest first; 0 to 0.5.
    - ``ece``: expected calibration error in 15 bins of equal width (Naeini et al. 2015, "Obtaining
      well calibrated probabilities using Bayesian binning"), 0 to 1.

    Raises ValueError as ``average_precision`` does.
    """
    cells, steps = _cells(labels, p)
    distinct = -np.unique(-np.asarray(p, np.float64))
    sure, groups = np.unique(-np.abs(distinct - 0.5).round(9), return_inverse=True)
    says = distinct >= 0.5
    bin_of = np.minimum((distinct * _BINS).astype(np.int64), _BINS - 1)
    at_half, at_flag = (int((distinct >= t).sum()) for t in (0.5, flag_above))

    def all_of(counts: Counts) -> tuple[float, ...]:
        harmless, violating = counts[:, 0], counts[:, 1]
        found, false = np.cumsum(violating), np.cumsum(harmless)
        positives, negatives = int(found[-1]), int(false[-1])
        n = positives + negatives
        taken = found + false
        f1 = 2 * found / (taken + positives)
        precision = found / np.maximum(taken, 1)
        recall = found / positives
        kept = np.bincount(groups, taken - np.append(0, taken[:-1]), len(sure))
        wrong = np.bincount(groups, np.where(says, harmless, violating), len(sure))
        risk, coverage = np.append(0, np.cumsum(wrong)) / n, np.append(0, np.cumsum(kept)) / n
        gap = np.bincount(bin_of, distinct * (harmless + violating) - violating, _BINS)
        return (
            *_areas(counts),
            float(f1[at_half - 1]) if at_half else 0.0,
            float(f1[at_flag - 1]) if at_flag else 0.0,
            float(f1.max()),
            *(float(recall[false <= x * negatives].max(initial=0.0)) for x in _RATES),
            *(float(precision[recall >= r].max()) for r in _RECALLS),
            *(float(taken[recall >= 1 - m].min() / n) for m in _MISSES),
            float(((risk[1:] + risk[:-1]) / 2 * np.diff(coverage)).sum()),
            float(np.abs(gap).sum() / n),
        )

    found = dict(zip(FIGURES, _resampled(cells, steps, all_of, resamples, seed), strict=True))
    if math.isinf(flag_above):
        del found["f1_at_flag_threshold"]
    return found


_BINS: Final = 15
_RATES: Final = (0.01, 0.10)
_RECALLS: Final = (0.80, 0.90, 0.95)
_MISSES: Final = (0.01, 0.02, 0.05, 0.10)

FIGURES: Final = (
    *("auprc", "auroc", "f1_at_half", "f1_at_flag_threshold", "f1_oracle"),
    *(f"recall_at_fpr_{x:.0%}".rstrip("%") for x in _RATES),
    *(f"precision_at_recall_{r:.0%}".rstrip("%") for r in _RECALLS),
    *(f"review_at_miss_{m:.0%}".rstrip("%") for m in _MISSES),
    *("augrc", "ece"),
)
"""Names that ``figures`` can give, in order."""


def _resampled(
    cells: Counts,
    steps: int,
    function: Callable[[Counts], tuple[float, ...]],
    resamples: int,
    seed: int,
) -> list[Estimate]:
    """Each figure of counts (steps, 2) with its bootstrap interval.

    The same seed and n draw the same records, so figures of one label vary together. A resample
    with one kind of record only has no areas and is drawn again. Records are sorted once: figures
    need only how many records of each kind a resample has at each score, and counting the drawn
    records gives exactly that (the counts are multinomial; Poisson counts would only be near).
    """
    random = np.random.default_rng(seed)
    drawn: list[tuple[float, ...]] = []
    while len(drawn) < resamples:
        counts = _counts(cells[random.integers(0, len(cells), len(cells))], steps)
        if counts.any(axis=0).all():
            drawn.append(function(counts))
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    values = zip(function(_counts(cells, steps)), low, high, strict=True)
    return [Estimate(value, float(a), float(b)) for value, a, b in values]


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
