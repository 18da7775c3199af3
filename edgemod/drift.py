"""Whether an archive's texts score as the labelled ones did that a certificate rests on.

A certificate holds for records that come from where the labelled ones came from. That cannot be
proved from the records alone, but it can be seen to be wrong: if it is right, the filter's
probabilities of ``any`` are spread over the labelled texts as over the archive's. They are counted
in ten bins of equally many labelled texts and compared by Pearson's chi-squared test of two samples
(Pearson 1911, "On the probability that two independent distributions of frequency are really
samples from the same population"). Weighted labels count as many as would say as much if drawn
alike (Kish 1965, "Survey sampling").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

BINS: Final = 10
VOID_BELOW: Final = 0.001
"""p-value under which the certificate is void: one run in a thousand by chance alone."""


def spread(
    p: npt.NDArray[np.floating[Any]],
    weights: npt.NDArray[np.floating[Any]],
    strata: npt.NDArray[np.str_] | None = None,
) -> dict[str, Any]:
    """Edges of bins of about equal weight, the share in each, and how many texts drawn alike (n,)
    weighted ones are worth; the latter two of each stratum as well."""
    order = np.argsort(p, kind="stable")
    below = np.cumsum(weights[order]) / weights.sum()
    edges = np.unique(p[order][np.searchsorted(below, np.arange(1, BINS) / BINS)])
    which = bins(p, edges)

    def of(rows: npt.NDArray[np.bool_]) -> dict[str, Any]:
        weight = weights[rows]
        shares = np.bincount(which[rows], weight, len(edges) + 1) / weight.sum()
        return {
            "shares": shares.tolist(),
            "texts": float(weight.sum() ** 2 / (weight**2).sum()),
        }

    of_each = {} if strata is None else {str(s): strata == s for s in np.unique(strata)}
    return {
        "edges": edges.tolist(),
        **of(np.ones(len(p), bool)),
        "strata": {name: of(rows) for name, rows in of_each.items()},
    }


def bins(
    p: npt.NDArray[np.floating[Any]], edges: npt.NDArray[np.floating[Any]] | Sequence[float]
) -> npt.NDArray[np.int64]:
    """The bin of each probability, (n,)."""
    return np.asarray(np.searchsorted(np.asarray(edges, np.float32), p, side="right"), np.int64)


def test(labelled: Mapping[str, Any], archive: Sequence[int]) -> float:
    """The chance of spreads so unlike each other, were both from one place; 1 without an archive.

    ``labelled`` from ``spread``, or one of its strata; ``archive``: texts of a run in those bins.
    """
    from scipy import stats

    ours, theirs = np.array(labelled["shares"]) * labelled["texts"], np.asarray(archive, float)
    both = ours + theirs
    if not theirs.sum() or len(both) < 2:
        return 1.0
    expected = np.outer((ours.sum(), theirs.sum()), both / both.sum())
    seen = expected.min(axis=0) > 0
    statistic = ((np.stack((ours, theirs)) - expected)[:, seen] ** 2 / expected[:, seen]).sum()
    return float(stats.chi2.sf(statistic, max(int(seen.sum()) - 1, 1)))
