"""What a sample of labels proves of a risk: exact tests and bounds. Numpy in, numbers out.

A *risk* is a share of one kind of records: of those that violate, how many are cleared; of those
that are flagged, how many do not violate. ``bad`` marks the records of that kind that a policy
settled wrongly. A claim, "the risk is at most so much", is *certified* at confidence 1 - delta if
a sample like this one would be seen with a chance of at most delta were the claim wrong.

- Records drawn alike: the binomial distribution, exact for every n. The bound is that of Clopper
  and Pearson (1934, "The use of confidence or fiducial limits illustrated in the case of the
  binomial").
- Records drawn by a known chance each: a bet against the claim, whose stake grows only in
  expectation if the claim is true (Waudby-Smith and Ramdas 2024, "Estimating means of bounded
  random variables by betting"); a stake of 1 / delta is as good as a p-value of delta. Valid for
  every n too, and less sharp. It must know the least chance that any record had (``Drawn``).
- Several claims that shall hold together (categories, strata): all must be certified, and then no
  share of delta is lost (Berger 1982, "Multiparameter hypothesis testing and acceptance sampling":
  intersection-union).
- Several settings, each bolder than the one before: they are tested in that order and the last one
  before the first failure is taken (Angelopoulos et al. 2021, "Learn then test", fixed sequence).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import stats

Bools = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.floating[Any]]

_STAKES: Final = np.linspace(0.02, 0.98, 25)
"""Shares of the greatest stake that the bets are spread over."""

_STEPS: Final = 40
"""Halvings in the search for a bound: to 1e-12."""


@dataclass(frozen=True)
class Drawn:
    """How n records were drawn into a sample, each with a chance of its own.

    ``weights`` (n,): inverse chances. ``heaviest``: the greatest weight that any record of the
    whole could have had. What the sample holds does not tell it: records that are hardly ever drawn
    are mostly absent, and a bet that does not reckon with them proves what is false.
    """

    weights: Weights
    heaviest: float

    def __getitem__(self, rows: Bools) -> Drawn:
        """Of the records of a mask."""
        return Drawn(self.weights[rows], self.heaviest)


def p_value(bad: Bools, target: float, drawn: Drawn | None = None) -> float:
    """The chance, at most, of so few bad records if the risk were ``target`` or greater.

    ``bad`` (n,): the records of the kind in question. ``drawn``: their chances; None where all
    records had the same. 1 where n is 0.
    """
    if drawn is None:
        return float(stats.binom.cdf(int(bad.sum()), len(bad), target)) if len(bad) else 1.0
    return float(np.exp(-max(_stake(bad, target, drawn), 0.0)))


def _stake(bad: Bools, target: float, drawn: Drawn) -> float:
    """Logarithm of what bets on "the risk is less than ``target``" have made of a stake of 1.

    A record pays w (target - bad): less than nothing on average if the risk is the target or more.
    A bet of a fixed share on each record, so small that it cannot lose all, makes the stake grow by
    at most 1 in expectation then; a mixture of such bets does so too, and needs no order.
    """
    if not len(bad):
        return 0.0
    pays = drawn.weights * (target - bad.astype(np.float64))
    bets = _STAKES / (drawn.heaviest * (1 - target))  # nothing that could be drawn loses all
    growth = np.log1p(bets[:, None] * pays[None, :]).sum(axis=1)
    most = float(growth.max())
    return most + float(np.log(np.exp(growth - most).mean()))


def bound(bad: Bools, delta: float, drawn: Drawn | None = None) -> float:
    """The greatest risk, 0 to 1, that the sample does not rule out at confidence 1 - ``delta``."""
    n, k = len(bad), int(bad.sum())
    if n == 0 or k == n:
        return 1.0
    if drawn is None:
        return float(stats.beta.ppf(1 - delta, k + 1, n - k))
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if p_value(bad, middle, drawn) <= delta:
            high = middle
        else:
            low = middle
    return high


def needed(target: float, delta: float, risk: float = 0.0) -> int | None:
    """About how many records certify ``target`` if their risk is ``risk``; None if none would do.

    For records drawn alike, with as many bad ones among them as ``risk`` says, rounded up.
    """
    if risk >= target:
        return None
    n = int(np.ceil(np.log(delta) / np.log1p(-target)))
    while stats.binom.cdf(np.ceil(risk * n), n, target) > delta:
        n += max(n // 200, 1)
    return n


def fixed_sequence(levels: Iterable[Iterable[float]], delta: float) -> int:
    """How many levels, from the first, have no p-value over ``delta``; later ones are not asked."""
    held = 0
    for level in levels:
        if any(p > delta for p in level):
            break
        held += 1
    return held
