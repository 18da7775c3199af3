"""Scores to probabilities, and the thresholds that settle a record.

A *calibration* belongs to one filter and one language model (by fingerprint). It holds, for
every output of ``words.OUTPUTS``:

- a map from the filter's log-odds to a probability, ``sigmoid(a * filter + b)``;
- a map from the language model's log-odds, ``sigmoid(a * model + b)``;
- a map from both, ``sigmoid(a * model + c * filter + b)``, used for records the cascade
  sent on to the language model;
- for each stage, the pair ``clear_below`` and ``flag_above``.

Models learn ``any`` without advertising and personal data, which have nothing in common with
abuse. Its probability joins what its map gives with those two, as if they were independent:
``1 - (1 - p) (1 - p_spam_scam) (1 - p_pii)``, and is never less than that of any one category.

The maps are logistic (Platt 1999, "Probabilistic outputs for support vector machines", with
its smoothed targets), fitted by Newton's method. Thresholds are class-conditional quantiles,
so they do not depend on how common harm is in the labels: ``clear_below`` is the largest
threshold whose *miss rate* (share of violating records below it) stays under the target;
``flag_above`` the smallest whose *false-positive rate* (share of non-violating records at or
above it) does. Both targets are written in the file with what was found on other rows.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from edgemod.errors import CalibrationError
from edgemod.policy import Policy
from edgemod.words import ANY, OUTPUTS

FORMAT: Final = 1

APART: Final = ("spam_scam", "pii")
"""Categories that models do not learn as part of ``any``."""

_APART: Final = [OUTPUTS.index(name) for name in APART]

FloatMatrix = npt.NDArray[np.float32]
StageName = Literal["filter", "model"]


@dataclass(frozen=True)
class Maps:
    """Coefficients of one stage, each float32 (K,): p = sigmoid(model*m + filter*f + bias).

    A stage that does not read a score has zeros there.
    """

    model: npt.NDArray[np.float32]
    filter: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    def probabilities(
        self, filter_scores: FloatMatrix | None, model_scores: FloatMatrix | None
    ) -> FloatMatrix:
        """Log-odds (n, K) to probabilities, float32 (n, K) in [0, 1]; NaN where a score is NaN.

        Scores that the stage does not read may be None.
        """
        scores = [s for s in (filter_scores, model_scores) if s is not None]
        odds = np.broadcast_to(self.bias, scores[0].shape).astype(np.float32)
        for values, weights in ((filter_scores, self.filter), (model_scores, self.model)):
            if weights.any():
                if values is None:
                    raise ValueError("this stage needs scores that were not given")
                odds = odds + values * weights
        p = sigmoid(odds)
        each = np.nan_to_num(p[:, :-1])  # a guard may be asked about "any" alone
        joined = 1 - (1 - p[:, -1]) * (1 - each[:, _APART]).prod(axis=1)
        p[:, -1] = np.maximum(joined, each.max(axis=1))
        return p


@dataclass(frozen=True)
class Limits:
    """Thresholds on probabilities, each float32 (K,).

    A record is clear in an output if p < clear_below, and flagged if p >= flag_above. An
    output that must never settle a record has clear_below = 0 and flag_above = inf; one that
    nobody asks about has inf for both.
    """

    clear_below: npt.NDArray[np.float32]
    flag_above: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """Maps and thresholds for one filter and one language model; see the module."""

    filter_fingerprint: str
    model_fingerprint: str
    note: str
    maps: Mapping[str, Maps]  # "filter", "model", "cascade"
    limits: Mapping[str, Limits]  # "filter", "model"
    fingerprint: str
    calibrated: bool = True

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a calibration file.

        Raises CalibrationError if it is missing, not JSON, of another format, or incomplete.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CalibrationError(
                f"cannot be read: {error.strerror}",
                where=str(path),
                fix="Give the path of a calibration that edgemod wrote.",
            ) from error
        try:
            return _parse(json.loads(content), hashlib.sha256(content).hexdigest())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(
                f"is not a calibration of format {FORMAT} ({type(error).__name__}: {error})",
                where=str(path),
                fix="Write it again with this version of edgemod.",
            ) from error

    def for_model(self, fingerprint: str) -> Calibration:
        """This calibration, or for another model one that lets that model settle nothing.

        Thresholds in the policy still apply: a person who sets them takes the decision.
        """
        if fingerprint == self.model_fingerprint:
            return self
        ones, zeros = np.ones(len(OUTPUTS), np.float32), np.zeros(len(OUTPUTS), np.float32)
        plain = Maps(model=ones, filter=zeros, bias=zeros)
        never = Limits(clear_below=zeros, flag_above=np.full(len(OUTPUTS), np.inf, np.float32))
        return Calibration(
            filter_fingerprint=self.filter_fingerprint,
            model_fingerprint=fingerprint,
            note="the language model is not calibrated: what the filter does not settle goes "
            "to review, unless the policy sets its thresholds",
            maps={**self.maps, "model": plain, "cascade": plain},
            limits={**self.limits, "model": never},
            fingerprint=self.fingerprint,
            calibrated=False,
        )

    def check_filter(self, fingerprint: str) -> None:
        """Raise CalibrationError unless this calibration was made for that filter."""
        if fingerprint != self.filter_fingerprint:
            raise CalibrationError(
                f"was made for filter {self.filter_fingerprint[:12]}, not {fingerprint[:12]}",
                where="calibration",
                fix="Use the filter it was made for, or calibrate again.",
            )

    def probabilities(
        self,
        stage: Literal["filter", "model", "cascade"],
        filter_scores: FloatMatrix | None,
        model_scores: FloatMatrix | None = None,
    ) -> FloatMatrix:
        """See ``Maps.probabilities``."""
        return self.maps[stage].probabilities(filter_scores, model_scores)

    def thresholds(
        self, stage: StageName, policy: Policy, answers: Sequence[str] = OUTPUTS
    ) -> Limits:
        """The stage's thresholds with the policy's own in their place, float32 (K,) each.

        ``answers``: the outputs that the stage's model measures, ``any`` among them. Categories
        that it does not, or that the policy leaves out, neither withhold clearing nor flag:
        clear_below = flag_above = inf. ``any`` only ever withholds clearing; its flag_above is
        inf.
        """
        limits = self.limits[stage]
        clear, flag = limits.clear_below.copy(), limits.flag_above.copy()
        enabled = {category.name: category for category in policy.categories}
        for k, name in enumerate(OUTPUTS):
            if name == ANY:
                flag[k] = np.inf
            elif name not in enabled or name not in answers:
                clear[k] = flag[k] = np.inf
            elif own := getattr(enabled[name], stage):
                clear[k], flag[k] = own.clear_below, own.flag_above
        decided = [name in answers and getattr(enabled[name], stage) for name in enabled]
        if not self.calibrated and stage == "model" and all(decided):
            clear[OUTPUTS.index(ANY)] = np.inf  # the policy has set every threshold itself
        return Limits(clear_below=clear, flag_above=flag)


def sigmoid(odds: npt.NDArray[np.floating[Any]]) -> FloatMatrix:
    """Logistic function without overflow, float32, same shape; NaN stays NaN."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * np.asarray(odds, np.float64))), np.float32)


# -- fitting -------------------------------------------------------------------------------


def fit_map(
    scores: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.int8],
    weights: npt.NDArray[np.floating[Any]] | None = None,
    *,
    ridge: float = 1e-3,
) -> npt.NDArray[np.float64]:
    """Logistic map of log-odds (n, d) to labels (n,) of 0 and 1: d slopes, then the bias.

    Targets are smoothed as in Platt 1999: (n1 + 1)/(n1 + 2) for violating, 1/(n0 + 2) else.
    Newton's method with a small ridge towards zero slopes, until steps are below 1e-8.

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


def clear_threshold(p_violating: npt.NDArray[np.floating[Any]], miss_rate: float) -> float:
    """The largest threshold t with share(p < t) <= miss_rate among violating records.

    0 (clear nothing) where there are fewer than 1 / miss_rate of them: too few to tell.
    """
    if len(p_violating) * miss_rate < 1:
        return 0.0
    return float(np.sort(p_violating)[math.floor(len(p_violating) * miss_rate)])


def flag_threshold(p_harmless: npt.NDArray[np.floating[Any]], false_positives: float) -> float:
    """The smallest threshold t with share(p >= t) <= false_positives among harmless records.

    inf (flag nothing) where there are fewer than 1 / false_positives of them.
    """
    allowed = math.floor(len(p_harmless) * false_positives)
    if allowed < 1:
        return math.inf
    first_too_many = float(np.sort(p_harmless)[len(p_harmless) - allowed - 1])
    return float(np.nextafter(np.float32(first_too_many), np.float32(2)))


# -- the file --------------------------------------------------------------------------------


def _parse(document: dict[str, Any], fingerprint: str) -> Calibration:
    if document["format"] != FORMAT:
        raise ValueError(f"format is {document['format']!r}")
    maps = {
        stage: Maps(
            **{
                part: np.array([document["maps"][stage][k][part] for k in OUTPUTS], np.float32)
                for part in ("model", "filter", "bias")
            }
        )
        for stage in ("filter", "model", "cascade")
    }
    limits = {}
    for stage in ("filter", "model"):
        rows = [document["thresholds"][stage][k] for k in OUTPUTS]
        limits[stage] = Limits(
            clear_below=np.array([r["clear_below"] for r in rows], np.float32),
            flag_above=np.array(
                [math.inf if r["flag_above"] is None else r["flag_above"] for r in rows],
                np.float32,
            ),
        )
    for stage, m in maps.items():
        if not all(np.isfinite(part).all() for part in (m.model, m.filter, m.bias)):
            raise ValueError(f"maps of {stage} are not finite")
    for stage, limit in limits.items():
        if np.isnan(limit.clear_below).any() or np.isnan(limit.flag_above).any():
            raise ValueError(f"thresholds of {stage} are not numbers")
        if (limit.clear_below > limit.flag_above).any():
            raise ValueError(f"thresholds of {stage}: clear_below is above flag_above")
    return Calibration(
        filter_fingerprint=str(document["filter"]),
        model_fingerprint=str(document["model"]),
        note=str(document["note"]),
        maps=maps,
        limits=limits,
        fingerprint=fingerprint,
    )
