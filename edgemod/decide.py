"""Evidence and policy to verdicts: one pure function, nothing measured here.

The order, for every text:

1. A text that could not be read goes to review, with that reason (an empty one is cleared
   where the policy says so).
2. The first rule on ``any`` whose conditions all hold settles it.
3. A text in an unsupported language goes to review.
4. The filter, then the language model: *flag* if some category's probability is at or above
   its ``flag_above``; *clear* if every category's, and the probability of any, is below its
   ``clear_below``; otherwise the next stage decides.
5. A rule on ``flag`` or on ``clear`` turns that verdict of a model into review.
6. What no stage has settled goes to review.

Before the language model has run, what it must see is ``pending``; calling again with its
probabilities settles those. Nothing is ever cleared for want of a score: a comparison with
NaN is false, and clearing needs every comparison with a threshold to be true.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgemod.calibration import FloatMatrix, Limits
from edgemod.policy import Policy, Rule
from edgemod.words import CATEGORIES, FEATURES, OUTPUTS, STATUS_REASONS, Stage, Status, Verdict

OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}

_COLUMN: Final = {name: index for index, name in enumerate(FEATURES)}

CLEARED: Final = "every category is below its clear threshold"
HELD_BY_ANY: Final = "no one category stands out, but that of any is over its clear threshold"
UNSETTLED: Final = "no stage settled it"


@dataclass(frozen=True)
class Evidence:
    """What is known of n texts.

    status int8 (n,) of words.Status; features float32 (n, F) in the order of words.FEATURES;
    hits int32 (n, L), one column a lexicon of the policy; probabilities float32 (n, K), None
    where the stage did not run, NaN where it did not measure.
    """

    status: npt.NDArray[np.int8]
    features: FloatMatrix
    hits: npt.NDArray[np.int32]
    filter: FloatMatrix | None
    model: FloatMatrix | None


@dataclass(frozen=True)
class Decided:
    """One answer a text, arrays of n.

    verdict int8 of words.Verdict; category int8, an index into CATEGORIES or -1; stage int8 of
    words.Stage; reason int32, an index into ``reasons(policy)``; probabilities float32 (n, K), of
    the last stage that measured them; status int8 of words.Status; pending bool: the language
    model has yet to see it.
    """

    verdict: npt.NDArray[np.int8]
    category: npt.NDArray[np.int8]
    stage: npt.NDArray[np.int8]
    reason: npt.NDArray[np.int32]
    probabilities: FloatMatrix
    status: npt.NDArray[np.int8]
    pending: npt.NDArray[np.bool_]


def reasons(policy: Policy) -> tuple[str, ...]:
    """Every reason a decision under this policy can have; ``Decided.reason`` indexes it."""
    by_models = [
        f"{CATEGORIES[k]}: {what} ({stage})"
        for stage in ("filter", "language model")
        for what in (
            "probability at or above the flag threshold",
            "probability between the clear and flag thresholds",
        )
        for k in range(len(CATEGORIES))
    ]
    return (
        *(STATUS_REASONS.get(status, UNSETTLED) for status in Status),
        *(f"{CLEARED} (filter)", f"{CLEARED} (language model)"),
        *(f"{HELD_BY_ANY} (filter)", f"{HELD_BY_ANY} (language model)"),
        *by_models,
        *(f"rule {rule.name}: {rule.reason}" for rule in policy.rules),
    )


_CLEARED_BY: Final = len(Status)
_BY_ANY: Final = _CLEARED_BY + 2
_BY_CATEGORY: Final = _BY_ANY + 2
_BY_RULE: Final = _BY_CATEGORY + 4 * len(CATEGORIES)


def below(p: FloatMatrix, limits: Limits) -> npt.NDArray[np.bool_]:
    """Where probabilities (n, K) do not withhold clearing.

    What has no threshold (left out of the policy, or not asked of a guard) withholds nothing,
    measured or not.
    """
    return np.asarray((p < limits.clear_below) | np.isposinf(limits.clear_below))


def decide(
    evidence: Evidence, policy: Policy, filter_limits: Limits, model_limits: Limits
) -> Decided:
    """Settle n texts; see the module for the order. Pure: equal arguments, equal answer."""
    n = len(evidence.status)
    severity = _severity(policy)
    verdict = np.full(n, Verdict.review, np.int8)
    category = np.full(n, -1, np.int8)
    stage = np.full(n, Stage.status, np.int8)
    reason = np.zeros(n, np.int32)
    probabilities = np.full((n, len(OUTPUTS)), np.nan, np.float32)
    status = evidence.status.copy()
    is_open = np.ones(n, np.bool_)

    def settle(rows: npt.NDArray[np.bool_], to: Verdict, by: Stage, why: Any, what: Any) -> None:
        verdict[rows], stage[rows], reason[rows] = to, by, why
        category[rows] = -1 if to == Verdict.clear else what
        is_open[rows] = False

    if evidence.filter is not None:
        probabilities[:] = evidence.filter

    unread = (status != Status.ok) & (status != Status.unsupported_language)
    settle(unread, Verdict.review, Stage.status, status[unread], -1)
    if policy.empty_text == "clear":
        empty = status == Status.empty_text
        settle(empty, Verdict.clear, Stage.status, Status.empty_text, -1)

    for position, rule in enumerate(policy.rules if "rule" in policy.stages else ()):
        if rule.on == "any":
            rows = is_open & matches(rule, policy, evidence)
            what = CATEGORIES.index(rule.category)
            settle(rows, Verdict[rule.verdict], Stage.rule, _BY_RULE + position, what)
            status[rows] = Status.ok  # a rule reads any language

    foreign = is_open & (status == Status.unsupported_language)
    settle(foreign, Verdict.review, Stage.status, Status.unsupported_language, -1)

    measured = (
        (0, Stage.filter, evidence.filter, filter_limits),
        (1, Stage.model, evidence.model, model_limits),
    )
    for order, by, p, limits in measured:
        if p is None:
            continue
        seen = is_open & ~np.isnan(p).all(axis=1)
        probabilities[seen] = np.where(np.isnan(p), probabilities, p)[seen]
        with np.errstate(invalid="ignore"):
            over = p[:, :-1] >= limits.flag_above[:-1]
            under = below(p, limits)
        flagged, cleared = seen & over.any(axis=1), seen & under.all(axis=1)
        weighted = np.nan_to_num(p[:, :-1]) * severity
        worst_flag = np.where(over, weighted, -1.0).argmax(axis=1).astype(np.int8)
        doubtful = ~under[:, :-1] & ~np.isnan(p[:, :-1]) & (severity > 0)
        unsure = np.where(doubtful, weighted, -1.0)
        by_any = (unsure < 0).all(axis=1)  # no category holds the text back, only "any" does
        worst_unsure = np.where(by_any, -1, unsure.argmax(axis=1)).astype(np.int8)
        base = _BY_CATEGORY + order * 2 * len(CATEGORIES)
        settle(flagged, Verdict.flag, by, base + worst_flag[flagged], worst_flag[flagged])
        settle(cleared & ~flagged, Verdict.clear, by, _CLEARED_BY + order, -1)
        unsettled = seen & is_open
        stage[unsettled] = by
        category[unsettled] = worst_unsure[unsettled]
        why = np.where(by_any, _BY_ANY + order, base + len(CATEGORIES) + worst_unsure)
        reason[unsettled] = why[unsettled]

    by_model = (stage == Stage.filter) | (stage == Stage.model)
    for position, rule in enumerate(policy.rules if "rule" in policy.stages else ()):
        if rule.on != "any":
            rows = ~is_open & by_model & (verdict == Verdict[rule.on])
            rows &= matches(rule, policy, evidence)
            # What was flagged keeps its category: the rule doubts the flag, not the subject.
            what = category[rows] if rule.on == "flag" else CATEGORIES.index(rule.category)
            settle(rows, Verdict.review, Stage.rule, _BY_RULE + position, what)

    return Decided(verdict, category, stage, reason, probabilities, status, is_open)


def fail(decided: Decided, rows: npt.NDArray[np.int64]) -> Decided:
    """The decisions with ``rows`` sent to review because the language model failed on them."""
    status, reason = decided.status.copy(), decided.reason.copy()
    verdict, stage = decided.verdict.copy(), decided.stage.copy()
    status[rows] = reason[rows] = Status.model_failed
    verdict[rows], stage[rows] = Verdict.review, Stage.status
    return replace(decided, status=status, reason=reason, verdict=verdict, stage=stage)


def fold(
    decided: Decided, owner: npt.NDArray[np.int32], records: int, policy: Policy
) -> tuple[npt.NDArray[np.int64], FloatMatrix]:
    """Texts to records: which text decides each record, int64 (records,), and the maxima.

    The text with the greatest verdict decides; among equals the one with the greatest
    severity times probability, then the first. The second result is each output's greatest
    probability over the record's texts, float32 (records, K), NaN where none was measured.
    ``owner`` int32 (n,) is the record of each text, ascending, and every record has a text.
    """
    if len(owner) == records:
        return np.arange(records), decided.probabilities
    weighted = np.nan_to_num(decided.probabilities[:, :-1]) * _severity(policy)
    order = np.lexsort(
        (
            np.arange(len(owner)),
            -weighted.max(axis=1, initial=0.0),
            -decided.verdict.astype(np.int64),
            owner,
        )
    )
    first = np.searchsorted(owner[order], np.arange(records))
    return order[first], greatest(decided.probabilities, owner, records)


def greatest(p: FloatMatrix, owner: npt.NDArray[np.int32], records: int) -> FloatMatrix:
    """The greatest value over the texts of each record, float32 (records, K), NaN where none is.

    ``p`` (n, K); ``owner`` int32 (n,) as in ``fold``.
    """
    if len(owner) == records:
        return p
    return np.fmax.reduceat(p, np.searchsorted(owner, np.arange(records)), axis=0)


def _severity(policy: Policy) -> npt.NDArray[np.float32]:
    """Severity 1 to 5 of every category, float32 (9,); 0 where the policy leaves it out."""
    enabled = {category.name: category.severity for category in policy.categories}
    return np.array([enabled.get(name, 0) for name in CATEGORIES], np.float32)


def matches(rule: Rule, policy: Policy, evidence: Evidence) -> npt.NDArray[np.bool_]:
    """Which texts meet every condition of a rule, bool (n,)."""
    lexicons = [lexicon.name for lexicon in policy.lexicons]
    rows = np.ones(len(evidence.status), np.bool_)
    for condition in rule.when:
        if condition.feature.startswith("lexicon."):
            values: Any = evidence.hits[:, lexicons.index(condition.feature[8:])]
        else:
            values = evidence.features[:, _COLUMN[condition.feature]]
        rows &= OPERATORS[condition.op](values, np.float32(condition.value))
    return rows
