"""Whether an archive's texts score as the labelled ones did that a certificate rests on.

A certificate holds for records that come from where the labelled ones came from. That cannot be
proved from the records alone, but it can be seen to be wrong: if it is right, the filter's
probabilities of ``any`` are spread over the labelled records as over the archive's (of a
conversation counts the greatest). They are counted in ten bins of equally many labelled records,
which are pooled until each has enough for the test to hold, and compared by Pearson's chi-squared
test of two samples (Pearson 1911, "On the probability that two independent distributions of
frequency are really samples from the same population"). Weighted labels count as many as would say
as much if drawn alike (Kish 1965, "Survey sampling").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

BINS: Final = 10
VOID_BELOW: Final = 0.001
"""p-value under which the certificate is void: one run in a thousand by chance alone."""


LEAST: Final = 5.0
"""Records that are expected in each bin, of either sample, for the test's distribution to hold
(Cochran 1954, "Some methods for strengthening the common chi-squared tests")."""

OTHERS: Final = "others"
"""Where a tally counts records of strata that the certificate does not know."""


def spread(
    p: npt.NDArray[np.floating[Any]], weights: npt.NDArray[np.floating[Any]]
) -> dict[str, Any]:
    """Edges of bins of about equal weight, the share in each, and how many records drawn alike
    (n,) weighted ones are worth."""
    order = np.argsort(p, kind="stable")
    below = np.cumsum(weights[order]) / weights.sum()
    edges = np.unique(p[order][np.searchsorted(below, np.arange(1, BINS) / BINS)])
    shares = np.bincount(bins(p, edges), weights, len(edges) + 1) / weights.sum()
    worth = float(weights.sum() ** 2 / (weights**2).sum())
    return {"edges": edges.tolist(), "shares": shares.tolist(), "records": worth}


def bins(
    p: npt.NDArray[np.floating[Any]], edges: npt.NDArray[np.floating[Any]] | Sequence[float]
) -> npt.NDArray[np.int64]:
    """The bin of each probability, (n,)."""
    return np.asarray(np.searchsorted(np.asarray(edges, np.float32), p, side="right"), np.int64)


def key(place: int, stratum: str) -> str:
    """Where a tally counts the records of a bin, of all strata ("") or of one."""
    return f"{place} {stratum}"


def counts(labelled: Mapping[str, Any], tally: Mapping[str, int], stratum: str = "") -> list[int]:
    """What a tally has counted in each bin."""
    return [tally.get(key(place, stratum), 0) for place in range(len(labelled["shares"]))]


def test(labelled: Mapping[str, Any], archive: Sequence[int]) -> float:
    """The chance of spreads so unlike each other, were both from one place.

    ``labelled`` from ``spread``; ``archive``: records of a run in the same bins. 1 where there are
    too few of either to tell.
    """
    from scipy import stats

    ours, theirs = np.array(labelled["shares"]) * labelled["records"], np.asarray(archive, float)
    pooled = _pooled(np.stack((ours, theirs)))
    if pooled.shape[1] < 2:
        return 1.0
    expected = np.outer(pooled.sum(axis=1), pooled.sum(axis=0)) / pooled.sum()
    statistic = ((pooled - expected) ** 2 / expected).sum()
    return float(stats.chi2.sf(statistic, pooled.shape[1] - 1))


def _pooled(seen: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Neighbouring bins (2, n) put together until ``LEAST`` are expected in each, of either."""
    needed = LEAST * seen.sum() / max(seen.sum(axis=1).min(), 1e-9)
    found: list[npt.NDArray[np.float64]] = []
    held = np.zeros(2)
    for column in seen.T:
        held = held + column
        if held.sum() >= needed:
            found.append(held)
            held = np.zeros(2)
    if found:
        found[-1] = found[-1] + held
    return np.array(found).T.reshape(2, -1)
