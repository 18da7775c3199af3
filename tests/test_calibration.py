from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemod import calibration
from edgemod.calibration import Calibration
from edgemod.errors import CalibrationError
from edgemod.policy import Policy, Thresholds, load_policy
from edgemod.words import OUTPUTS

K = len(OUTPUTS)


def document(**changes: Any) -> dict[str, Any]:
    stage = {name: {"model": 0.0, "filter": 1.0, "bias": 0.0} for name in OUTPUTS}
    limits = {name: {"clear_below": 0.2, "flag_above": 0.8} for name in OUTPUTS}
    return {
        "format": 1,
        "note": "for tests",
        "filter": "f" * 64,
        "model": "e" * 64,
        "maps": {
            "filter": stage,
            "model": {n: {"model": 1.0, "filter": 0.0, "bias": 0.0} for n in OUTPUTS},
            "cascade": {n: {"model": 1.0, "filter": 0.5, "bias": -1.0} for n in OUTPUTS},
        },
        "thresholds": {"filter": limits, "model": limits},
        **changes,
    }


def plain_policy() -> Policy:
    """The default policy without thresholds of its own."""
    policy = load_policy()
    plain = tuple(replace(c, filter=None, model=None) for c in policy.categories)
    return replace(policy, categories=plain)


def written(folder: Path, content: Any) -> Path:
    path = folder / "calibration.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_probabilities_of_each_stage(tmp_path: Path) -> None:
    made = Calibration.load(written(tmp_path, document()))
    by_filter = np.full((2, K), 2.0, np.float32)
    by_model = np.full((2, K), -1.0, np.float32)
    by_model[1] = np.nan
    assert made.probabilities("filter", by_filter)[0, 0] == pytest.approx(1 / (1 + math.exp(-2)))
    assert made.probabilities("model", None, by_model)[0, 3] == pytest.approx(1 / (1 + math.e))
    cascade = made.probabilities("cascade", by_filter, by_model)
    assert cascade.dtype == np.float32
    assert cascade[0, 0] == pytest.approx(1 / (1 + math.e))  # -1 + 0.5 * 2 - 1
    assert np.isnan(cascade[1]).all()


def test_another_model_may_settle_nothing(tmp_path: Path) -> None:
    made = Calibration.load(written(tmp_path, document()))
    assert made.for_model("e" * 64) is made
    other = made.for_model("0" * 64)
    limits = other.thresholds("model", plain_policy())
    assert (limits.clear_below == 0).all()
    assert np.isinf(limits.flag_above).all()
    assert "not calibrated" in other.note
    assert (other.thresholds("filter", plain_policy()).clear_below[:-1] > 0).all()


def test_the_policy_overrides_thresholds(tmp_path: Path) -> None:
    made = Calibration.load(written(tmp_path, document()))
    policy = load_policy()
    first = replace(policy.categories[0], model=Thresholds(0.01, 0.99))
    changed = replace(policy, categories=(first, *policy.categories[2:]))
    limits = made.thresholds("model", changed)
    assert limits.clear_below[0] == np.float32(0.01)
    assert limits.flag_above[0] == np.float32(0.99)
    assert limits.clear_below[1] == np.inf  # a category left out withholds nothing
    assert limits.flag_above[1] == np.inf
    assert limits.flag_above[-1] == np.inf


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "is not a calibration of format 1"),
        ({}, "KeyError: 'format'"),
        (document(format=2), "format is 2"),
        (document(maps={}), "KeyError"),
        ([], "is not a calibration"),
    ],
)
def test_files_that_are_no_calibration(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(CalibrationError) as caught:
        Calibration.load(written(tmp_path, content))
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("bad", [math.nan, -0.5])
def test_thresholds_out_of_order_or_not_numbers(tmp_path: Path, bad: float) -> None:
    broken = document()
    broken["thresholds"]["filter"]["hate"] = {"clear_below": 0.5, "flag_above": bad}
    with pytest.raises(CalibrationError, match="thresholds of filter"):
        Calibration.load(written(tmp_path, broken))


def test_missing_file_and_wrong_filter(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="cannot be read"):
        Calibration.load(tmp_path / "none.json")
    made = Calibration.load(written(tmp_path, document()))
    made.check_filter("f" * 64)
    with pytest.raises(
        CalibrationError, match="was made for filter ffffffffffff, not 000000000000"
    ):
        made.check_filter("0" * 64)


def test_sigmoid_is_stable() -> None:
    got = calibration.sigmoid(np.array([-1e4, 0.0, 1e4, np.nan], np.float32))
    assert got[:3].tolist() == [0.0, 0.5, 1.0]
    assert np.isnan(got[3])
