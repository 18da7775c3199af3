"""A shipped filter or head moved a little towards a user's labels: numbers in, files out.

To the score s of a text a term w x is added, where x are the text's n-grams (the filter) or its
mean vector (the head), and w is the minimiser of the logistic loss with a ridge penalty: with few
labels, or labels that say nothing new, w is about zero and the model stays what it was. How strong
the penalty is, and whether to move at all, is chosen by the loss on folds that were not fitted to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import load_file, save
from scipy import sparse

from edgemod import filter as filters
from edgemod import fitting
from edgemod.features import Buffers
from edgemod.kernels import ngrams
from edgemod.metrics import Labels

Floats = npt.NDArray[np.float64]
Design = Any
"""Features of n texts, (n, d): an array, or a sparse one by rows (scipy.sparse has no types)."""

SHRINKAGE: Final = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Ridge penalties that are tried, in records."""
FOLDS: Final = 5
_LEAST_SLOPE: Final = 0.2
"""Of the old score: one that tells less is taken to tell so much."""


@dataclass(frozen=True)
class Move:
    """What is added to a score: ``weights`` (d,) in log-odds of the old score.

    ``crossed`` (n,): new scores of the fitted texts, each by a fit that did not see it.
    """

    weights: Floats
    crossed: Floats
    shrinkage: float


def fit(
    x: Design, old: Floats, labels: Labels, groups: Floats | None = None, *, seed: int = 0
) -> Move | None:
    """The move for features (n, d), old scores (n,) and labels (n,) of 0 and 1, a fold's worth of
    either at least; None where none is better than not to move.

    ``groups`` (n,): texts with the same number, such as near copies, are in one fold, and where
    these are too few for that there is no move; None where all stand alone.
    """
    # Sparse throughout: the threads of BLAS cost more than such small products.
    x = sparse.csr_array(x)
    there = np.unique(x.indices)  # features that no text has stay where they are
    _, group = np.unique(np.arange(len(old)) if groups is None else groups, return_inverse=True)
    move = _fit(x[:, there], old, labels, group, seed)
    if move is None:
        return None
    weights = np.zeros(x.shape[1])
    weights[there] = move.weights
    return replace(move, weights=weights)


def _fit(
    x: Any, old: Floats, labels: Labels, group: npt.NDArray[np.int64], seed: int
) -> Move | None:
    random, violating = np.random.default_rng(seed), np.bincount(group, labels == 1) > 0
    fold_of = np.empty(len(violating), np.int64)
    for kind in (False, True):
        some = random.permutation(np.flatnonzero(violating == kind))
        fold_of[some] = np.arange(len(some)) % FOLDS
    fold = fold_of[group]
    if any(len({*labels[fold != k].tolist()}) < 2 or not (fold == k).any() for k in range(FOLDS)):
        return None
    losses = dict.fromkeys((np.inf, *SHRINKAGE), 0.0)
    crossed = {penalty: np.empty(len(labels)) for penalty in losses}
    for k in range(FOLDS):
        rest, out = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        slope, bias = _line(old[rest], labels[rest])
        for penalty in losses:
            moved = np.zeros(len(out))
            if np.isfinite(penalty):
                w = _residual(x[rest], labels[rest], slope * old[rest] + bias, penalty)
                moved = x[out] @ w
            odds = slope * old[out] + bias + moved
            losses[penalty] += float(np.logaddexp(0, np.where(labels[out] == 1, -odds, odds)).sum())
            crossed[penalty][out] = old[out] + moved / slope
    best = min(losses, key=losses.__getitem__)
    if not np.isfinite(best):
        return None
    slope, bias = _line(old, labels)
    weights = _residual(x, labels, slope * old + bias, best) / slope
    return Move(weights, crossed[best], best)


def _line(old: Floats, labels: Labels) -> tuple[float, float]:
    """Slope and bias of the log-odds by the old score."""
    slope, bias = fitting.fit_map(old, labels)
    return max(float(slope), _LEAST_SLOPE), float(bias)


def _residual(x: Any, labels: Labels, offset: Floats, penalty: float) -> Floats:
    """Weights (d,) of least logistic loss beside an offset (n,), with a ridge: Newton's method."""
    turned, target = x.T.tocsr(), (labels == 1).astype(np.float64)

    def loss(w: Floats, odds: Floats) -> float:
        fit = np.logaddexp(0, np.where(target == 1, -odds, odds)).sum()
        return float(fit + 0.5 * penalty * np.square(w).sum())

    w, odds = np.zeros(x.shape[1]), offset
    for _ in range(_STEPS):
        p = 0.5 * (1 + np.tanh(0.5 * odds))
        gradient = turned @ (p - target) + penalty * w
        if np.abs(gradient).max(initial=0.0) < _FLAT:
            break
        step = _solved(x, turned, p * (1 - p), penalty, gradient)
        along, now = x @ step, loss(w, odds)
        while loss(w - step, odds - along) > now and np.abs(step).max() > 1e-12:
            step, along = step / 2, along / 2
        w, odds = w - step, odds - along
    return w


_STEPS: Final = 50
_FLAT: Final = 1e-3


def _solved(x: Any, turned: Any, curve: Floats, penalty: float, right: Floats) -> Floats:
    """v where (x' diag(curve) x + penalty) v is about ``right``, by conjugate gradients (Hestenes
    and Stiefel 1952, "Methods of conjugate gradients for solving linear systems")."""
    v, rest = np.zeros(len(right)), right.copy()
    way, size = rest, float(np.square(rest).sum())
    small = 1e-4 * size  # an inexact step is a step
    for _ in range(_STEPS):
        if size <= small:
            break
        pushed = turned @ (curve * (x @ way)) + penalty * way
        length = size / float((way * pushed).sum())
        v, rest = v + length * way, rest - length * pushed
        size, before = float(np.square(rest).sum()), size
        way = rest + size / before * way
    return v


def difference(
    labels: Labels,
    old: Floats,
    new: Floats,
    weights: Floats | None = None,
    *,
    alpha: float = 0.05,
    resamples: int = 4000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """AUPRC of new scores less that of old ones, and the interval of the paired bootstrap that
    misses it with a chance of ``alpha``.

    ``weights`` (n,), over 0: the records that each stands for, the inverse of its chance of being
    drawn; None where all had the same.
    """
    random, n = np.random.default_rng(seed), len(labels)
    each = np.ones(n) if weights is None else weights
    before, after = _Area(labels, old), _Area(labels, new)
    drawn: list[float] = []
    while len(drawn) < resamples:
        times = np.bincount(random.integers(0, n, n), minlength=n)
        if times[labels == 1].any() and times[labels == 0].any():
            drawn.append(after.under(times * each) - before.under(times * each))
    low, high = np.percentile(drawn, (50 * alpha, 100 - 50 * alpha))
    return after.under(each) - before.under(each), float(low), float(high)


class _Area:
    """AUPRC as ``metrics.average_precision`` has it, of records that weigh something."""

    def __init__(self, labels: Labels, scores: Floats) -> None:
        self._order = np.argsort(-scores, kind="stable")
        self._hit = labels[self._order] == 1
        ranked = scores[self._order]
        self._ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # equal: one step

    def under(self, weights: Floats) -> float:
        """Of weights (n,), some of them over 0 in records of either kind."""
        each = weights[self._order]
        taken = np.cumsum(each)[self._ends]
        found = np.cumsum(each * self._hit)[self._ends]
        precision = found / np.maximum(taken, 1e-12)  # nothing may be taken yet
        return float(np.diff(found, prepend=0.0) @ precision / found[-1])


# -- the filter --------------------------------------------------------------------------------


def grams(forms: Buffers, path: Path, output: int) -> sparse.csr_array:
    """n-grams of n normal forms, (n, buckets): counts over the root of their number, of the window
    that gives the filter at ``path`` its score of an output; what ``kernels/ngrams.py`` sums."""
    data, offsets = forms
    weights = load_file(path)["weights"][:, output].astype(np.int32)
    found = np.empty(ngrams.GRAMS_PER_BYTE * (int(np.diff(offsets).max(initial=0)) + 1), np.int32)
    columns, values, ends = [], [], [0]
    for low, high in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        count = ngrams.grams(data, low, high, found)
        parts = ngrams.windows(count)
        cut = [count * part // parts for part in range(parts + 1)]
        some = [found[a:b].copy() for a, b in pairwise(cut)]
        best = max(some, key=lambda one: weights[one].sum() / np.sqrt(max(len(one), 1)))
        buckets, times = np.unique(best, return_counts=True)
        columns.append(buckets)
        values.append(times / np.sqrt(max(len(best), 1)))
        ends.append(ends[-1] + len(buckets))
    shape = (len(offsets) - 1, 1 << ngrams.BITS)
    parts_of = (np.concatenate([*values, []]), np.concatenate([*columns, []]).astype(np.int32))
    return sparse.csr_array((*parts_of, np.array(ends)), shape=shape)


def moved_filter(path: Path, moves: Mapping[int, Move], training: dict[str, str]) -> bytes:
    """The file of the filter at ``path`` with some outputs moved; all others stay as they are.

    A moved output is rounded to int8 anew, its greatest weight 127 units.
    """
    tensors = load_file(path)
    weights, scale, bias = (tensors[name].copy() for name in ("weights", "scale", "bias"))
    for k, move in moves.items():
        exact = weights[:, k] * np.float64(scale[k]) + move.weights
        scale[k] = np.abs(exact).max() / 127 or 1.0
        weights[:, k] = np.rint(exact / scale[k])
    return filters.to_bytes(weights, scale, bias, training)


# -- the head ----------------------------------------------------------------------------------


def moved_head(path: Path, moves: Mapping[int, Move]) -> bytes:
    """The file of the head at ``path`` with some outputs moved.

    A linear term is two rectified units: w x = relu(w x) - relu(-w x).
    """
    tensors = load_file(path)
    with safe_open(path, "numpy") as file:
        about = json.loads((file.metadata() or {})["head"])
    hidden, bias = tensors["hidden.weight"], tensors["hidden.bias"]
    output = tensors["output.weight"]
    for k, move in moves.items():
        w = move.weights.astype(hidden.dtype)
        hidden = np.concatenate([hidden, w[None], -w[None]])
        bias = np.append(bias, np.zeros(2, bias.dtype))
        more = np.zeros((len(output), 2), output.dtype)
        more[k] = 1, -1
        output = np.concatenate([output, more], axis=1)
    about["training"] = "moved by edgemod learn"
    made = {
        "hidden.weight": np.ascontiguousarray(hidden),
        "hidden.bias": bias,
        "output.weight": np.ascontiguousarray(output),
        "output.bias": tensors["output.bias"],
    }
    return bytes(save(made, metadata={"head": json.dumps(about)}))
