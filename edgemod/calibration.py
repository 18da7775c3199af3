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

One that ``edgemod calibrate`` made from a user's labels adds to the shipped one it started from:

- *curves*, which turn those probabilities into ones that fit the labels;
- thresholds of its own, and what the shipped ones were (``reading``: they decide which pieces of a
  long text the language model reads, and scores must stay what they were);
- a *certificate*: the risks, how they were proved, and for which policy.

fitting.py says how maps, curves and thresholds are found.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
class Curve:
    """A rising curve from probabilities to probabilities; see ``fitting.fit_curve``.

    ``identity``: no numbers. ``platt``: a, b of sigmoid(a logit(p) + b). ``beta``: a, b, c of
    sigmoid(a ln p - b ln(1 - p) + c). ``isotonic``: the x, then as many y, of points joined by
    straight lines.
    """

    kind: str = "identity"
    numbers: tuple[float, ...] = ()

    def __call__(self, p: FloatMatrix) -> FloatMatrix:
        """Of each probability, float32 of the same shape; NaN stays NaN."""
        if self.kind == "identity":
            return p
        inside = np.asarray(p, np.float64).clip(1e-7, 1 - 1e-7)
        if self.kind == "platt":
            slope, bias = self.numbers
            return sigmoid(slope * (np.log(inside) - np.log1p(-inside)) + bias)
        if self.kind == "beta":
            a, b, c = self.numbers
            return sigmoid(a * np.log(inside) - b * np.log1p(-inside) + c)
        if self.kind == "isotonic":
            x, y = np.split(np.array(self.numbers), 2)
            return np.asarray(np.interp(inside, x, y), np.float32)
        raise ValueError(f"no curve is called {self.kind!r}")


_PLAIN: Final = (Curve(),) * len(OUTPUTS)


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
    curves: Mapping[str, tuple[Curve, ...]] = field(default_factory=dict)  # of a stage, (K,)
    reading: Limits | None = None
    """The filter's limits that pieces of long texts are left unread by; None: those it has."""
    certificate: Mapping[str, Any] | None = None

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
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
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
        curves = {name: of for name, of in self.curves.items() if name == "filter"}
        return replace(
            self,
            model_fingerprint=fingerprint,
            note="the language model is not calibrated: what the filter does not settle goes "
            "to review, unless the policy sets its thresholds",
            maps={**self.maps, "model": plain, "cascade": plain},
            limits={**self.limits, "model": never},
            curves=curves,
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

    def check_certificate(self, policy: str, model: str) -> None:
        """Raise CalibrationError if there is a certificate, for other fingerprints than these.

        ``model`` is "none" where there is no language model.
        """
        for name, given in (("policy", policy), ("model", model)):
            certified = str((self.certificate or {name: given})[name])
            if certified != given:
                raise CalibrationError(
                    f"was certified for {name} {certified[:12]}, not {given[:12]}",
                    where="calibration",
                    fix="Use that one, or run 'edgemod calibrate' again: risks are others now.",
                )

    def probabilities(
        self,
        stage: Literal["filter", "model", "cascade"],
        filter_scores: FloatMatrix | None,
        model_scores: FloatMatrix | None = None,
    ) -> FloatMatrix:
        """See ``Maps.probabilities``; then the curves, if there are any."""
        return self.curved(stage, self.maps[stage].probabilities(filter_scores, model_scores))

    def curved(self, stage: str, p: FloatMatrix) -> FloatMatrix:
        """Probabilities (n, K) of a stage's maps through its curves; ``any`` stays the greatest."""
        curves = self.curves.get(stage, _PLAIN)
        if curves == _PLAIN:
            return p
        columns = [curve(p[:, k]) for k, curve in enumerate(curves)]
        if curves[-1] != Curve():  # one that has no labels of its own stays as it was
            columns[-1] = np.fmax(columns[-1], np.fmax.reduce(columns[:-1]))
        return np.where(np.isnan(p), np.float32(np.nan), np.stack(columns, axis=1))

    def thresholds(
        self, stage: StageName, policy: Policy, answers: Sequence[str] = OUTPUTS
    ) -> Limits:
        """The stage's thresholds with the policy's own in their place, float32 (K,) each.

        ``answers``: the outputs that the stage's model measures, ``any`` among them. Categories
        that it does not, or that the policy leaves out, neither withhold clearing nor flag:
        clear_below = flag_above = inf. ``any`` only ever withholds clearing; its flag_above is
        inf.
        """
        return self._by_policy(self.limits[stage], stage, policy, answers)

    def unread_below(self, policy: Policy) -> Limits:
        """What pieces of long texts are left unread by: the filter's limits, float32 (K,)."""
        return self._by_policy(self.reading or self.limits["filter"], "filter", policy, OUTPUTS)

    def _by_policy(
        self, limits: Limits, stage: StageName, policy: Policy, answers: Sequence[str]
    ) -> Limits:
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


def document_of(calibration: Calibration) -> dict[str, Any]:
    """The JSON object of a calibration file, but for ``made``; ``Calibration.load`` reads it."""

    def pairs(limits: Limits) -> dict[str, dict[str, float | None]]:
        both = zip(limits.clear_below.tolist(), limits.flag_above.tolist(), strict=True)
        return {
            name: {
                "clear_below": None if math.isinf(clear) else clear,
                "flag_above": None if math.isinf(flag) else flag,
            }
            for name, (clear, flag) in zip(OUTPUTS, both, strict=True)
        }

    document: dict[str, Any] = {
        "format": FORMAT,
        "note": calibration.note,
        "filter": calibration.filter_fingerprint,
        "model": calibration.model_fingerprint,
        "maps": {
            stage: {
                name: {part: float(values[k]) for part, values in vars(maps).items()}
                for k, name in enumerate(OUTPUTS)
            }
            for stage, maps in calibration.maps.items()
        },
        "thresholds": {stage: pairs(limits) for stage, limits in calibration.limits.items()},
    }
    if calibration.curves:
        document["curves"] = {
            stage: {
                name: {"kind": curve.kind, "numbers": list(curve.numbers)}
                for name, curve in zip(OUTPUTS, curves, strict=True)
            }
            for stage, curves in calibration.curves.items()
        }
    if calibration.reading:
        document["reading"] = pairs(calibration.reading)
    if calibration.certificate:
        document["certificate"] = {**calibration.certificate, "settings": _settings(document)}
    return document


def _settings(document: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of everything in a calibration file that decides."""
    decides = {key: document.get(key) for key in ("maps", "thresholds", "curves", "reading")}
    canonical = json.dumps(decides, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


_CERTIFIED: Final = ("goal", "holds", "policy", "model", "scores", "settings")
"""What every certificate names."""


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
    limits = {stage: _limits(stage, document["thresholds"][stage]) for stage in ("filter", "model")}
    for stage, m in maps.items():
        if not all(np.isfinite(part).all() for part in (m.model, m.filter, m.bias)):
            raise ValueError(f"maps of {stage} are not finite")
    certificate = document.get("certificate")
    if certificate is not None:
        missing = [key for key in _CERTIFIED if key not in certificate]
        if missing:
            raise ValueError(f"the certificate does not name its {missing[0]}")
        if certificate["settings"] != _settings(document):
            raise ValueError("its thresholds or curves are not those that were certified")
    curves = {
        stage: tuple(_curve(stage, column[k]) for k in OUTPUTS)
        for stage, column in document.get("curves", {}).items()
    }
    return Calibration(
        filter_fingerprint=str(document["filter"]),
        model_fingerprint=str(document["model"]),
        note=str(document["note"]),
        maps=maps,
        limits=limits,
        fingerprint=fingerprint,
        curves=curves,
        reading=_limits("reading", document["reading"]) if "reading" in document else None,
        certificate=certificate,
    )


def _limits(stage: str, rows: Mapping[str, Any]) -> Limits:
    """The thresholds of a stage by output, as they stand in the file."""
    pairs = [rows[k] for k in OUTPUTS]
    columns = (
        [math.inf if pair[key] is None else pair[key] for pair in pairs]
        for key in ("clear_below", "flag_above")
    )
    limit = Limits(*(np.array(column, np.float32) for column in columns))
    if np.isnan(limit.clear_below).any() or np.isnan(limit.flag_above).any():
        raise ValueError(f"thresholds of {stage} are not numbers")
    if (limit.clear_below > limit.flag_above).any():
        raise ValueError(f"thresholds of {stage}: clear_below is above flag_above")
    return limit


def _curve(stage: str, document: Mapping[str, Any]) -> Curve:
    """A curve as it stands in the file: of a known kind, finite and rising."""
    curve = Curve(str(document["kind"]), tuple(map(float, document["numbers"])))
    grid = curve(np.linspace(0, 1, 101, dtype=np.float32))
    if not (np.isfinite(grid).all() and (np.diff(grid) >= 0).all()):
        raise ValueError(f"a curve of {stage} does not rise")
    return curve
