"""What it costs to fit a calibration and to search for certified thresholds, on synthetic labels.

The labels are those of tests/test_certificate.py: one category, a fifth of the records violating.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgemod import fitting
from edgemod.certificate import Case, Goal, find
from edgemod.words import ANY
from test_certificate import TOXIC, population

# A team labels hundreds to some ten thousand records.
SIZES = (1_000, 10_000)


@pytest.fixture(params=SIZES, ids="{:,} labels".format)
def case(request: pytest.FixtureRequest) -> Case:
    return population(request.param, seed=1)


def test_fitting_a_map(benchmark: Any, case: Case) -> None:
    """A logistic map of the log-odds of both stages, as scripts/fit_calibration.py fits one."""
    stages = [case.greatest[stage][:, TOXIC] for stage in ("filter", "model")]
    odds = np.column_stack([np.log(p / (1 - p)) for p in stages])
    labels = case.labels[:, TOXIC]
    *slopes, bias = benchmark(fitting.fit_map, odds, labels)
    assert min(slopes) > 0
    # A map with a free bias gives the labels' own share on the whole, but for smoothing.
    share = (1 / (1 + np.exp(-(odds @ slopes + bias)))).mean()
    assert share == pytest.approx(labels.mean(), abs=0.01)


def test_fitting_a_curve(benchmark: Any, case: Case) -> None:
    """Four kinds of curve on five folds, the best of them on all."""
    p, labels = case.greatest["filter"][:, TOXIC], case.labels[:, TOXIC]
    curve = benchmark(fitting.fit_curve, p, labels)
    assert curve(p).mean() == pytest.approx(labels.mean(), abs=0.02)


@pytest.mark.parametrize(
    "goal", [Goal(0.1, 0.1), Goal(None, 0.1, review_budget=0.3)], ids=["miss rate", "budget"]
)
def test_searching_for_a_certificate(benchmark: Any, case: Case, goal: Goal) -> None:
    choosing = np.random.default_rng(0).random(case.examined.records) < 0.5
    found = benchmark.pedantic(find, args=(case, choosing, goal), rounds=1)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert {risk.category for risk in found.risks} == {"toxic", ANY}
    if case.examined.records == max(SIZES):
        assert all(risk.certified for risk in found.risks)
