"""Trying a policy before it decides anything: its own test cases, with the real models."""

from __future__ import annotations

from dataclasses import dataclass

from edgemod import scoring
from edgemod.triager import Triager


@dataclass(frozen=True)
class Outcome:
    """What became of one test case of a policy.

    ``expected`` and ``got`` are a verdict and, where the case names one, a category. ``fired``
    holds (start, end, what) of each lexicon hit, link and piece of personal data: code points.
    """

    name: str
    why: str
    passed: bool
    expected: tuple[str, ...]
    got: tuple[str, ...]
    stage: str
    reason: str
    fired: tuple[tuple[int, int, str], ...]
    probabilities: dict[str, float | None]


def run_tests(triager: Triager) -> list[Outcome]:
    """Decide every test case of the triager's policy, in order, and compare."""
    cases = triager.policy.tests
    answers = scoring.score([case.text for case in cases], triager=triager)
    outcomes = []
    for case, answer in zip(cases, answers, strict=True):
        expected: tuple[str, ...] = (case.verdict,)
        got: tuple[str, ...] = (answer.verdict,)
        if case.category:
            expected, got = (*expected, case.category), (*got, answer.category or "none")
        outcomes.append(
            Outcome(
                name=case.name,
                why=case.why,
                passed=expected == got,
                expected=expected,
                got=got,
                stage=answer.stage,
                reason=answer.reason,
                fired=answer.fired,
                probabilities=answer.probabilities,
            )
        )
    return outcomes
