"""decide() against a per-text twin that follows the module's six steps literally."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemod import decide
from edgemod.calibration import Limits
from edgemod.decide import Evidence
from edgemod.policy import Comparison, Policy, Rule, load_policy
from edgemod.words import CATEGORIES, FEATURES, OUTPUTS, Stage, Status, Verdict

K = len(OUTPUTS)
RULES = (
    Rule("card", "pii", "flag", "any", (Comparison("cards", ">=", 1.0),), "a card number"),
    Rule("quote", "hate", "review", "flag", (Comparison("quoted", ">=", 0.5),), "a quotation"),
    Rule("odd", "spam_scam", "review", "clear", (Comparison("lexicon.words", ">", 0.0),), "odd"),
)


def policy_with(rules: tuple[Rule, ...] = RULES, **changes: object) -> Policy:
    base = load_policy()
    lexicon = replace(base.lexicons[0], name="words")
    return replace(base, rules=rules, lexicons=(lexicon,), **changes)  # type: ignore[arg-type]


POLICY = policy_with()
LIMITS = Limits(np.full(K, 0.2, np.float32), np.append(np.full(K - 1, 0.8), np.inf).astype("f4"))


def evidence(
    n: int,
    *,
    status: Sequence[int] | None = None,
    by_filter: object = None,
    by_model: object = None,
    **features: float,
) -> Evidence:
    values = np.zeros((n, len(FEATURES)), np.float32)
    for name, value in features.items():
        if name in FEATURES:
            values[:, list(FEATURES).index(name)] = value
    return Evidence(
        status=np.array(status or [0] * n, np.int8),
        features=values,
        hits=np.full((n, 1), features.get("hits", 0), np.int32),
        filter=None if by_filter is None else np.full((n, K), by_filter, np.float32),
        model=None if by_model is None else np.full((n, K), by_model, np.float32),
    )


def answer(given: Evidence, policy: Policy = POLICY) -> tuple[str, str, str, bool]:
    got = decide.decide(given, policy, LIMITS, LIMITS)
    return (
        Verdict(got.verdict[0]).name,
        Stage(got.stage[0]).name,
        decide.reasons(policy)[got.reason[0]],
        bool(got.pending[0]),
    )


def test_each_step_of_the_order() -> None:
    cleared = "every category is below its clear threshold"
    assert answer(evidence(1, status=[Status.null_text], by_filter=0.0)) == (
        "review",
        "status",
        "not scored: the text is null",
        False,
    )
    assert answer(evidence(1, by_filter=0.0)) == ("clear", "filter", f"{cleared} (filter)", False)
    assert answer(evidence(1, by_filter=0.5))[0::3] == ("review", True)
    assert answer(evidence(1, by_filter=0.5, by_model=0.1)) == (
        "clear",
        "model",
        f"{cleared} (language model)",
        False,
    )
    assert answer(evidence(1, by_filter=0.1, by_model=0.9))[1] == "filter"
    by_model = answer(evidence(1, by_filter=0.5, by_model=0.9))
    assert by_model[:2] == ("flag", "model")
    assert by_model[2].endswith("probability at or above the flag threshold (language model)")
    assert answer(evidence(1, by_filter=0.0, cards=1)) == (
        "flag",
        "rule",
        "rule card: a card number",
        False,
    )
    assert answer(evidence(1, by_filter=0.9, quoted=1)) == (
        "review",
        "rule",
        "rule quote: a quotation",
        False,
    )
    assert answer(evidence(1, by_filter=0.0, hits=1)) == ("review", "rule", "rule odd: odd", False)
    assert answer(evidence(1)) == ("review", "status", decide.UNSETTLED, True)


def test_a_doubted_flag_keeps_its_category() -> None:
    given = evidence(1, by_filter=0.0, quoted=1)
    given.filter[0, CATEGORIES.index("spam_scam")] = 1.0  # type: ignore[index]
    got = decide.decide(given, POLICY, LIMITS, LIMITS)
    assert got.verdict[0] == Verdict.review
    assert CATEGORIES[got.category[0]] == "spam_scam"  # the rule's own is hate


def test_unsupported_language_goes_to_review_but_not_past_a_rule() -> None:
    foreign = [Status.unsupported_language]
    assert answer(evidence(1, status=foreign, by_filter=0.0))[:2] == ("review", "status")
    assert answer(evidence(1, status=foreign, by_filter=0.0, cards=2))[:2] == ("flag", "rule")


def test_empty_text_is_cleared_only_where_the_policy_says_so() -> None:
    empty = evidence(1, status=[Status.empty_text])
    assert answer(empty)[0] == "review"
    assert answer(empty, policy_with(empty_text="clear"))[0] == "clear"


def test_any_withholds_clearing_and_never_flags() -> None:
    given = evidence(1, by_filter=0.0)
    given.filter[0, -1] = 1.0  # type: ignore[index]
    assert answer(given) == ("review", "filter", f"{decide.HELD_BY_ANY} (filter)", True)
    assert decide.decide(given, POLICY, LIMITS, LIMITS).category[0] == -1


def test_a_guard_that_answers_only_any_cannot_clear_without_a_threshold_for_it() -> None:
    given = evidence(1, by_model=np.nan)
    given.model[0, -1] = 0.99  # type: ignore[index]
    own = Limits(np.full(K, np.inf, np.float32), np.full(K, np.inf, np.float32))
    own.clear_below[-1] = 0.5
    got = decide.decide(given, POLICY, LIMITS, own)
    assert (got.verdict[0], got.pending[0]) == (Verdict.review, True)
    given.model[0, -1] = 0.49  # type: ignore[index]
    assert decide.decide(given, POLICY, LIMITS, own).verdict[0] == Verdict.clear


@pytest.mark.parametrize("k", range(K))
def test_clearing_needs_an_answer_for_every_output_with_a_threshold(k: int) -> None:
    given = evidence(1, by_filter=0.0)
    given.filter[0, k] = np.nan  # type: ignore[index]
    assert answer(given)[0::3] == ("review", True)
    without = Limits(LIMITS.clear_below.copy(), LIMITS.flag_above)
    without.clear_below[k] = np.inf
    assert decide.decide(given, POLICY, without, LIMITS).verdict[0] == Verdict.clear


def test_the_most_severe_flag_names_the_category() -> None:
    given = evidence(1, by_filter=0.0)
    severity = {c.name: c.severity for c in POLICY.categories}
    mild, severe = CATEGORIES.index("spam_scam"), CATEGORIES.index("threat_violence")
    assert severity["threat_violence"] * 0.85 > severity["spam_scam"]
    given.filter[0, mild], given.filter[0, severe] = 1.0, 0.85  # type: ignore[index]
    got = decide.decide(given, POLICY, LIMITS, LIMITS)
    assert CATEGORIES[got.category[0]] == "threat_violence"


def twin(e: Evidence, policy: Policy, limits: Limits, i: int) -> tuple[int, int, bool]:
    """Verdict, stage and pending of one text, step by step."""
    names = [lexicon.name for lexicon in policy.lexicons]

    def value(feature: str) -> float:
        if feature.startswith("lexicon."):
            return float(e.hits[i, names.index(feature[8:])])
        return float(e.features[i, list(FEATURES).index(feature)])

    def matches(rule: Rule) -> bool:
        return all(decide.OPERATORS[c.op](value(c.feature), np.float32(c.value)) for c in rule.when)

    status = int(e.status[i])
    if status not in (Status.ok, Status.unsupported_language):
        cleared = status == Status.empty_text and policy.empty_text == "clear"
        return (Verdict.clear if cleared else Verdict.review), Stage.status, False
    for rule in policy.rules:
        if rule.on == "any" and matches(rule):
            return Verdict[rule.verdict], Stage.rule, False
    if status == Status.unsupported_language:
        return Verdict.review, Stage.status, False
    last = Stage.status
    for stage, p in ((Stage.filter, e.filter), (Stage.model, e.model)):
        if p is None or np.isnan(p[i]).all():
            continue
        last = stage
        verdict = None
        if any(p[i, k] >= limits.flag_above[k] for k in range(K - 1)):
            verdict = Verdict.flag
        else:
            if all(p[i, k] < limits.clear_below[k] for k in range(K)):
                verdict = Verdict.clear
        if verdict is not None:
            for rule in policy.rules:
                if rule.on == verdict.name and matches(rule):
                    return Verdict.review, Stage.rule, False
            return verdict, stage, False
    return Verdict.review, last, True


probability = st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.79, 0.8, 1.0, float("nan")])


@settings(max_examples=300, deadline=None)
@given(data=st.data(), n=st.integers(0, 6), empty=st.sampled_from(["review", "clear"]))
def test_equals_the_twin(data: st.DataObject, n: int, empty: str) -> None:
    def matrix() -> list[list[float]]:
        row = st.lists(probability, min_size=K, max_size=K)
        return data.draw(st.lists(row, min_size=n, max_size=n))

    features = np.zeros((n, len(FEATURES)), np.float32)
    for name in ("cards", "quoted"):
        column = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=n, max_size=n))
        features[:, list(FEATURES).index(name)] = column
    given = Evidence(
        status=np.array(
            data.draw(st.lists(st.sampled_from([0, 0, 0, 1, 2, 5]), min_size=n, max_size=n)),
            np.int8,
        ),
        features=features,
        hits=np.array(
            data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)), np.int32
        ).reshape(n, 1),
        filter=np.array(matrix(), np.float32).reshape(n, K) if data.draw(st.booleans()) else None,
        model=np.array(matrix(), np.float32).reshape(n, K) if data.draw(st.booleans()) else None,
    )
    policy = policy_with(empty_text=empty)
    got = decide.decide(given, policy, LIMITS, LIMITS)
    expected = [twin(given, policy, LIMITS, i) for i in range(n)]
    assert [
        (int(v), int(s), bool(p))
        for v, s, p in zip(got.verdict, got.stage, got.pending, strict=True)
    ] == [(int(v), int(s), p) for v, s, p in expected]
    assert (got.reason < len(decide.reasons(policy))).all()


def test_failing_rows_go_to_review() -> None:
    got = decide.fail(
        decide.decide(evidence(3, by_filter=0.0), POLICY, LIMITS, LIMITS), np.array([1])
    )
    assert got.verdict.tolist() == [Verdict.clear, Verdict.review, Verdict.clear]
    assert got.status.tolist() == [Status.ok, Status.model_failed, Status.ok]
    assert decide.reasons(POLICY)[got.reason[1]] == (
        "not scored: the language model failed on this text"
    )


@settings(max_examples=200, deadline=None)
@given(st.data(), st.lists(st.integers(1, 4), min_size=0, max_size=5))
def test_fold_takes_the_worst_message(data: st.DataObject, sizes: list[int]) -> None:
    owner = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    n = len(owner)
    p = np.array(
        data.draw(st.lists(st.sampled_from([0.0, 0.3, 0.6, 0.9]), min_size=n, max_size=n)),
        np.float32,
    )
    decided = decide.decide(evidence(n, by_filter=0.0), POLICY, LIMITS, LIMITS)
    decided = replace(
        decided,
        verdict=np.array(
            data.draw(st.lists(st.sampled_from([0, 1, 2]), min_size=n, max_size=n)), np.int8
        ),
        probabilities=np.repeat(p[:, None], K, axis=1),
    )
    chosen, greatest = decide.fold(decided, owner, len(sizes), POLICY)
    for record in range(len(sizes)):
        rows = [i for i in range(n) if owner[i] == record]
        best = max(rows, key=lambda i: (decided.verdict[i], p[i], -i))
        assert chosen[record] == best
        assert greatest[record, 0] == max(p[i] for i in rows)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_its_reason(rule: Rule) -> None:
    assert f"rule {rule.name}: {rule.reason}" in decide.reasons(POLICY)
