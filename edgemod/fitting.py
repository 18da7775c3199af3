"""Labels and scores to maps and thresholds: what a calibration is made of. Numpy in, numpy out.

Thresholds are quantiles of the records of one class, so they do not depend on how common harm is
in the labels. A stage clears a record only if every output is below its threshold, so the miss
rate that counts is that of all thresholds together (``clear_steps``).

``weights`` are inverse chances of being drawn into the labels; None where all were drawn alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import optimize

from edgemod.calibration import Curve, FloatMatrix
from edgemod.metrics import Labels
from edgemod.words import OUTPUTS

Weights = npt.NDArray[np.floating[Any]]

QUANTILES: Final = np.arange(0.0, 0.605, 0.005)
"""Shares of an output's violating records below its threshold that are tried."""

_FOLDS: Final = 5
_CURVES: Final = ("identity", "platt", "beta", "isotonic")
_LEAST: Final = 30
"""Labels of either kind below which a curve would be fitted to chance."""


# -- maps ------------------------------------------------------------------------------------


def fit_map(
    scores: npt.NDArray[np.floating[Any]],
    labels: Labels,
    weights: Weights | None = None,
    *,
    ridge: float = 1e-3,
) -> npt.NDArray[np.float64]:
    """Logistic map of log-odds (n, d) to labels (n,) of 0 and 1: d slopes, then the bias.

    Targets are smoothed as in Platt 1999, "Probabilistic outputs for support vector machines":
    (n1 + 1)/(n1 + 2) for violating, 1/(n0 + 2) else. Newton's method with a small ridge towards
    zero slopes, until steps are below 1e-8.

    Raises ValueError if there are not both kinds of label.
    """
    ones, zeros = int((labels == 1).sum()), int((labels == 0).sum())
    if not ones or not zeros:
        raise ValueError("needs labels of both kinds")
    target = np.where(labels == 1, (ones + 1) / (ones + 2), 1 / (zeros + 2))
    weight = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    design = np.column_stack(
        [np.asarray(scores, np.float64).reshape(len(labels), -1), np.ones(len(labels))]
    )
    penalty = np.full(design.shape[1], ridge)
    penalty[-1] = 0.0
    beta = np.zeros(design.shape[1])
    for _ in range(100):
        p = 0.5 * (1 + np.tanh(0.5 * (design @ beta)))
        gradient = design.T @ (weight * (p - target)) + penalty * beta
        curvature = (design * (weight * p * (1 - p) + 1e-9)[:, None]).T @ design
        step = np.linalg.solve(curvature + np.diag(penalty + 1e-9), gradient)
        step *= min(1.0, 5.0 / max(1e-12, float(np.abs(step).max())))
        beta -= step
        if float(np.abs(step).max()) < 1e-8:
            break
    return beta


def fit_curve(
    p: npt.NDArray[np.floating[Any]], labels: Labels, weights: Weights | None = None
) -> Curve:
    """The curve from probabilities (n,) to better ones by labels (n,) of 0 and 1.

    Of none, Platt's, beta (Kull et al. 2017, "Beta calibration") and isotonic (Zadrozny and Elkan
    2002, "Transforming classifier scores into accurate multiclass probability estimates") the one
    with the least log loss on folds it was not fitted to. None where there are fewer than 30 labels
    of either kind.
    """
    if min((labels == 0).sum(), (labels == 1).sum()) < _LEAST:
        return Curve()
    weight = np.ones(len(p)) if weights is None else np.asarray(weights, np.float64)
    fold = np.empty(len(p), np.int64)
    for label in (0, 1):  # as many of either kind in each
        rows = np.flatnonzero(labels == label)
        fold[rows] = np.arange(len(rows)) % _FOLDS
    losses = {}
    for kind in _CURVES:
        loss = 0.0
        for k in range(_FOLDS):
            rest, out = fold != k, fold == k
            curve = _curve(kind, p[rest], labels[rest], weight[rest])
            found = curve(p[out].astype(np.float32)).astype(np.float64).clip(1e-4, 1 - 1e-4)
            given = np.where(labels[out] == 1, found, 1 - found)
            loss -= float((weight[out] * np.log(given)).sum())
        losses[kind] = loss
    return _curve(min(losses, key=losses.__getitem__), p, labels, weight)


def _curve(kind: str, p: npt.NDArray[np.floating[Any]], labels: Labels, weight: Weights) -> Curve:
    """A curve of one kind."""
    inside = np.asarray(p, np.float64).clip(1e-7, 1 - 1e-7)
    if kind == "platt":
        slope, bias = fit_map(np.log(inside / (1 - inside)), labels, weight)
        return Curve(kind, (max(float(slope), 0.0), float(bias)))
    if kind == "beta":
        sides = np.column_stack((np.log(inside), -np.log1p(-inside)))
        a, b, c = fit_map(sides, labels, weight)
        for left_out in (0, 1):  # as its authors do: a curve that falls is no calibration
            if (a, b)[left_out] < 0:
                slope, c = fit_map(sides[:, 1 - left_out], labels, weight)
                a, b = (0.0, slope) if left_out == 0 else (slope, 0.0)
        return Curve(kind, (max(float(a), 0.0), max(float(b), 0.0), float(c)))
    if kind == "isotonic":
        order = np.argsort(inside, kind="stable")
        found = optimize.isotonic_regression(
            labels[order].astype(np.float64), weights=weight[order]
        )
        x, first = np.unique(inside[order], return_index=True)
        y = np.asarray(found.x)[first]
        corner = np.ones(len(x), bool)  # the ends of its steps say it all
        corner[1:-1] = (y[1:-1] != y[:-2]) | (y[1:-1] != y[2:])
        return Curve(kind, (*x[corner].tolist(), *y[corner].tolist()))
    return Curve()


# -- thresholds --------------------------------------------------------------------------------


def flag_threshold(p_harmless: npt.NDArray[np.floating[Any]], false_positives: float) -> float:
    """The smallest threshold t with share(p >= t) <= false_positives among harmless records.

    inf (flag nothing) where there are fewer than 1 / false_positives of them.
    """
    allowed = math.floor(len(p_harmless) * false_positives)
    if allowed < 1:
        return math.inf
    first_too_many = float(np.sort(p_harmless)[len(p_harmless) - allowed - 1])
    return float(np.nextafter(np.float32(first_too_many), np.float32(2)))


def _clear_thresholds(
    p_violating: npt.NDArray[np.floating[Any]],
    shares: npt.NDArray[np.floating[Any]],
    weights: Weights | None,
) -> npt.NDArray[np.float32]:
    """The largest threshold t with share(p < t) <= share, for each share, (len(shares),).

    For shares of less than one record the least of the probabilities; 0 where there are none.
    """
    n = len(p_violating)
    if not n:
        return np.zeros(len(shares), np.float32)
    order = np.argsort(p_violating, kind="stable")
    weight = np.ones(n) if weights is None else np.asarray(weights, np.float64)[order]
    below = np.cumsum(weight) - weight  # weight before each of them
    # Rounding must not turn "just as much as the share" into "more".
    at = np.searchsorted(below, shares * weight.sum() * (1 + 1e-12), side="right") - 1
    return np.asarray(np.asarray(p_violating, np.float32)[order[at]])


@dataclass(frozen=True)
class Ladder:
    """Clear thresholds of one stage that rise together: those of the K outputs, step by step.

    The first step clears nothing. Those after it are quantiles of the output's violating records,
    down to the least of them: too few of them hold a category back in ``clear_steps``.
    """

    rungs: npt.NDArray[np.float32]
    """(steps, K): the thresholds at each step of ``QUANTILES``, rising; none is over one half."""

    @classmethod
    def of(
        cls,
        p: FloatMatrix,
        labels: Labels,
        weights: Weights | None = None,
        fixed: npt.NDArray[np.floating[Any]] | None = None,
    ) -> Ladder:
        """From probabilities (n, K) and labels (n, K). Outputs with a number in ``fixed`` (K,),
        not NaN, have that threshold at every step but the first, which clears nothing.
        """
        rungs = np.zeros((len(QUANTILES), len(OUTPUTS)), np.float32)
        for k in range(len(OUTPUTS)):
            if fixed is not None and not np.isnan(fixed[k]):
                rungs[1:, k] = fixed[k]
                continue
            rows = (labels[:, k] == 1) & np.isfinite(p[:, k])
            weight = None if weights is None else weights[rows]
            # Nothing is cleared that is likelier than not to violate, whatever a quantile says.
            rungs[1:, k] = np.minimum(_clear_thresholds(p[rows, k], QUANTILES[1:], weight), 0.5)
        return cls(rungs)

    def at(self, steps: Sequence[int]) -> npt.NDArray[np.float32]:
        """The thresholds (K,) at a step for each output."""
        return np.asarray(self.rungs[np.asarray(steps), np.arange(self.rungs.shape[1])])

    def needs(self, p: FloatMatrix) -> npt.NDArray[np.int16]:
        """The first step, for each output, at which each of n records is below; (n, K).

        ``len(QUANTILES)`` where it never is, as for NaN.
        """
        needs = np.empty(p.shape, np.int16)
        for k in range(p.shape[1]):
            needs[:, k] = np.searchsorted(self.rungs[:, k], p[:, k], side="right")
            free = np.isposinf(self.rungs[1:, k]).all()  # nobody asks for it
            needs[np.isnan(p[:, k]), k] = 1 if free else len(self.rungs)
        return needs


def clear_steps(
    needs: npt.NDArray[np.int16],
    labels: Labels,
    miss_rate: float,
    *,
    weights: Weights | None = None,
    cleared: npt.NDArray[np.bool_] | None = None,
) -> list[int]:
    """Steps (K,) under which no more than ``miss_rate`` of the violating records is cleared.

    ``labels`` (n, L): a column for each kind of them, of the K outputs and whatever else must hold.
    ``needs`` (n, K) from ``Ladder.needs``; ``cleared`` (n,): records that an earlier stage clears
    in any case. All outputs start at the greatest step that they can share. That is set by the
    category that is hardest to keep, so each is then raised alone, the one first that clears most
    records, until none can be without breaking a miss rate. A miss rate counts one miss more than
    there is, in one record more, so that categories with few records are held to theirs as well
    (Angelopoulos et al. 2022, "Conformal risk control").
    """
    n, outputs = needs.shape
    weight = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    before = np.zeros(n, bool) if cleared is None else cleared
    kinds = [weight * (column == 1) for column in labels.T]
    limits = [miss_rate * (kind.sum() + kind.max()) - kind.max() for kind in kinds if kind.any()]
    kinds = [kind for kind in kinds if kind.any()]
    harmless = weight * ~(labels == 1).any(axis=1)

    def holds(below: npt.NDArray[np.bool_]) -> bool:
        return all(kind[below].sum() <= limit for kind, limit in zip(kinds, limits, strict=True))

    top = len(QUANTILES) - 1
    worst = needs.max(axis=1)
    steps = [max((s for s in range(1, top + 1) if holds(before | (worst <= s))), default=0)]
    steps *= outputs
    if not steps[0]:
        return steps
    while True:
        below = before | (needs <= steps).all(axis=1)
        best, raised = 0.0, steps
        for k in range(outputs):
            others = (needs <= steps).all(axis=1, where=np.arange(outputs) != k)
            held = np.sort(np.unique(needs[others & ~below, k]))  # steps that let records through
            for step in held[held <= top]:
                more = below | (others & (needs[:, k] <= step))
                if not holds(more):
                    break
                gain = float(harmless[more & ~below].sum()) / (step - steps[k])
                if gain > best:
                    best, raised = gain, [*steps[:k], int(step), *steps[k + 1 :]]
        if raised == steps:
            return steps
        steps = raised
