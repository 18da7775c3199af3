"""Certificates on records whose true risks are known: they hold as often as they say."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import edgemod
from edgemod import certificate, drift
from edgemod.bounds import Drawn
from edgemod.calibrating import calibrate, joined_labels
from edgemod.calibration import Calibration, sigmoid
from edgemod.certificate import Case, Claim, Goal, applied, find
from edgemod.decide import Evidence
from edgemod.errors import CalibrationError, InputError
from edgemod.policy import load_policy
from edgemod.report import RunReport
from edgemod.triager import Examined, Triager, default_calibration
from edgemod.words import ANY, FEATURES, OUTPUTS, Status, Verdict
from samples import sentences
from test_cli import run
from test_evaluation import harsh

K = len(OUTPUTS)
TOXIC = OUTPUTS.index("toxic")
POLICY = load_policy()
pytestmark = pytest.mark.usefixtures("measured_here")


def population(n: int, seed: int = 0, *, quality: float = 3.0) -> Case:
    """n records of one text, a fifth of them toxic; both stages know something of it."""
    random = np.random.default_rng(seed)
    toxic = random.random(n) < 0.2
    labels = np.full((n, K), -1, np.int8)
    labels[:, TOXIC] = labels[:, -1] = toxic
    stages = []
    for noise in (2.0, 1.0):
        odds = np.full((n, K), -9.0)
        odds[:, TOXIC] = quality * (2 * toxic - 1) - 1 + noise * random.normal(size=n)
        odds[:, -1] = odds[:, TOXIC]
        stages.append(sigmoid(odds))
    nothing = np.zeros((n, 0), np.int32)
    evidence = Evidence(
        np.full(n, Status.ok, np.int8), np.zeros((n, len(FEATURES)), np.float32), nothing, *stages
    )
    evidence = replace(evidence, hits=np.zeros((n, len(POLICY.lexicons)), np.int32))
    return Case(
        examined=Examined(evidence, np.arange(n, dtype=np.int32), np.zeros(n, bool), n),
        labels=labels,
        asked=("toxic", ANY),
        policy=POLICY,
        calibration=Calibration.load(default_calibration()),
        answers=OUTPUTS,
        has_model=True,
        strata=np.where(random.random(n) < 0.5, "a", "b"),
    )


def taken(case: Case, rows: Any, drawn: Drawn | None, *, by_stratum: bool = False) -> Case:
    given = case.examined.evidence
    of: dict[str, Any] = {name: values[rows] for name, values in vars(given).items()}
    return replace(
        case,
        examined=Examined(
            Evidence(**of), np.arange(len(rows), dtype=np.int32), np.zeros(len(rows), bool),
            len(rows),
        ),
        labels=case.labels[rows],
        drawn=drawn,
        strata=case.strata[rows] if by_stratum and case.strata is not None else None,
    )  # fmt: skip


def test_what_the_filter_may_clear_is_compared_at_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case, choosing = replace(population(1500, quality=1.5), strata=None), np.arange(1500) % 2 == 0
    violating = choosing & (case.labels[:, -1] == 1)

    def missed() -> float:
        found = find(case, choosing, Goal(None, 0.1, 0.1, 0.15))
        assert found.shares["review"] < 0.2
        return applied(case, found).share(Verdict.clear, violating)

    chosen, alone = missed(), []
    for share in certificate.FILTER_SHARES:
        monkeypatch.setattr(certificate, "FILTER_SHARES", (share,))
        alone.append(missed())
    assert max(alone) > min(alone) + 0.05
    assert chosen <= min(alone) + 0.02


@pytest.mark.parametrize("way", ["alike", "weighted", "budget", "strata"])
def test_what_is_certified_is_true_as_often_as_it_says(way: str) -> None:
    everyone, draws = population(6_000), 25
    goal = Goal(None, 0.1, 0.1, 0.3) if way == "budget" else Goal(0.05, 0.1, 0.1)
    wrong = claims = 0
    for seed in range(draws):
        random = np.random.default_rng(seed)
        drawn = None
        if way == "weighted":
            p = everyone.greatest["model"][:, -1]
            chance = np.minimum(2000 * (0.5 / len(p) + 0.5 * p / p.sum()), 1)
            rows = np.flatnonzero(random.random(len(p)) < chance)
            drawn = Drawn(1 / chance[rows], 1 / float(chance.min()))
        else:
            rows = random.integers(0, 6_000, 1500)
        sample = taken(everyone, rows, drawn, by_stratum=way == "strata")
        found = find(sample, random.permutation(len(rows)) % 2 == 0, goal)
        whole = everyone if way == "strata" else replace(everyone, strata=None)
        level = applied(whole, found)
        false = False
        for risk in found.risks:
            kind, bad = Claim(risk.side, risk.category, risk.stratum).kind_and_bad(level)
            if risk.certified:
                claims += 1
                most = risk.bound if risk.target is None else risk.target
                false |= bool(kind.any()) and bad[kind].mean() > most
        wrong += false
    assert claims > draws  # it does certify
    # A tenth may be wrong, and two standard deviations of chance on top.
    assert wrong <= draws * 0.1 + 2 * math.sqrt(draws * 0.09)


def test_more_labels_settle_more_and_hopeless_scores_settle_nothing() -> None:
    rates = []
    for n in (400, 4000):
        case = replace(population(n, 3), strata=None)
        found = find(case, np.arange(n) % 2 == 0, Goal(0.05, 0.1, 0.05))
        rates.append(found.shares["review"])
    assert rates[1] < rates[0]
    blind = replace(population(4000, 4, quality=0.0), strata=None)
    found = find(blind, np.arange(4000) % 2 == 0, Goal(0.05, 0.1, 0.05))
    assert found.shares["review"] > 0.8
    assert found.shares["flag"] == 0


def test_too_few_labels_clear_nothing_and_say_how_many_are_missing() -> None:
    case = replace(population(100, 5), strata=None)
    choosing = np.arange(100) % 2 == 0
    found = find(case, choosing, Goal())
    assert found.shares == {"clear": 0.0, "review": 1.0, "flag": 0.0}
    assert not any(risk.certified for risk in found.risks)
    for risk in found.risks:
        if risk.side == "miss":
            assert risk.needed is not None
            assert 250 < risk.needed < 400  # 2 * 183 less those there are
    kept = find(case, choosing, Goal(), uncertified="default")
    assert not any(risk.certified for risk in kept.risks)
    for stage, before in case.calibration.limits.items():  # what was cleared before is cleared
        np.testing.assert_array_almost_equal(kept.limits[stage].clear_below, before.clear_below)
    assert kept.shares["clear"] > 0
    assert kept.shares["flag"] == 0


def test_a_category_with_few_labels_may_keep_its_thresholds() -> None:
    case = replace(population(3000, 6), strata=None)
    labels = case.labels.copy()
    labels[:, 0] = 0
    labels[:5, 0] = 1
    case = replace(case, labels=labels, asked=("hate", "toxic", ANY))
    choosing = np.arange(3000) % 2 == 0
    goal = Goal(0.05, 0.1, 0.05)
    held = find(case, choosing, goal)
    assert held.shares["clear"] == 0
    kept = find(case, choosing, goal, uncertified="default")
    assert kept.shares["clear"] > 0.3
    assert kept.limits["model"].clear_below[0] == case.calibration.limits["model"].clear_below[0]
    by_name = {(risk.side, risk.category): risk for risk in kept.risks}
    assert by_name["miss", "toxic"].certified
    assert not by_name["miss", "hate"].certified


@pytest.mark.parametrize("stage", ["filter", "model"])
def test_one_stage_alone_can_be_certified(stage: str) -> None:
    case = replace(population(4000, 9), strata=None)
    given = case.examined.evidence
    alone = replace(given, filter=None) if stage == "model" else replace(given, model=None)
    examined = replace(case.examined, evidence=alone)
    case = replace(case, examined=examined, has_model=stage == "model")
    found = find(case, np.arange(4000) % 2 == 0, Goal(0.05, 0.1, 0.05))
    assert found.shares["clear"] > 0.2
    assert all(risk.certified for risk in found.risks if risk.side == "miss")
    verdict, _ = applied(case, found).verdicts
    assert (verdict == 0).mean() > 0.2


def test_what_no_model_scored_is_never_cleared() -> None:
    case = replace(population(2000, 7), strata=None)
    given = case.examined.evidence
    assert given.filter is not None
    assert given.model is not None
    lost = np.arange(2000) % 10 == 0
    nan = np.where(lost[:, None], np.float32(np.nan), given.model)
    evidence = replace(
        given, model=nan, filter=np.where(lost[:, None], np.float32(np.nan), given.filter)
    )
    case = replace(case, examined=replace(case.examined, evidence=evidence, failed=lost))
    found = find(case, np.arange(2000) % 2 == 0, Goal(0.05, 0.1, 0.05))
    verdict, _ = applied(case, found).verdicts
    assert (verdict[lost] == 1).all()
    assert (verdict[~lost] == 0).any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_miss_rate": 0.0},
        {"delta": 1.0},
        {"max_miss_rate": None, "review_budget": 2.0},
        {"review_budget": 0.2},
        {"max_miss_rate": None},
    ],
)
def test_goals_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Goal(**wrong).check()


def test_a_budget_leaves_nothing_to_say_of_the_uncertified(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does nothing with a review budget"):
        calibrate(tmp_path, tmp_path / "c.json", review_budget=0.2, uncertified="default")


def test_labels_of_files_are_joined() -> None:
    a = {"toxic": np.array([1, 0, 1, -1], np.int8), "hate": np.array([0, 0, -1, -1], np.int8)}
    labels, names = joined_labels([a], ["toxic", "hate"])
    assert names == {"toxic", "hate", ANY}
    assert labels[:, -1].tolist() == [1, 0, -1, -1]  # known where all categories are
    labels, names = joined_labels([a], ["toxic", "hate", "pii"])
    assert names == {"toxic", "hate"}  # of records that may violate pii nothing is known
    b = {"unsafe": np.array([0, 1], np.int8), "pii": np.array([-1, -1], np.int8)}
    labels, names = joined_labels([a, b], ["toxic", "hate"])
    assert names == {"toxic", "hate", ANY}
    assert labels[:, -1].tolist() == [-1, -1, -1, -1, 0, 1]  # a column says what any is


# -- whole, with the real models ---------------------------------------------------------------


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = sentences(1200)
    path = tmp_path_factory.mktemp("labels") / "labels.parquet"
    columns = {
        "text": [*texts, None],
        "toxic": [*harsh(texts), None],
        "where": [*("a" if i % 2 else "b" for i in range(1200)), None],
        "created_at": [*(f"2024-03-{1 + i % 28:02}T00:00:00Z" for i in range(1200)), None],
    }
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="module")
def certified(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("calibration") / "own.json"
    goal = ["--max-miss-rate", "0.2", "--max-false-flag-rate", "0.2"]
    result = run("calibrate", labelled, "-o", out, *goal, "--model", "none")
    assert result.returncode == 0, result.stderr
    assert "certified" in result.stdout
    return out


def test_a_run_takes_the_calibration_and_reports_its_certificate(
    certified: Path, labelled: Path, tmp_path: Path
) -> None:
    report = edgemod.triage(
        labelled, tmp_path / "out", model=None, calibration=certified, workers=1
    )
    assert report.certificate["holds"] == json.loads(certified.read_text())["certificate"]["holds"]
    assert report.certificate["drift"] > 0.5  # these are the very texts
    assert not report.certificate["void"]
    other = tmp_path / "other.parquet"
    pq.write_table(
        pa.table({"text": ["you are a worthless idiot " + str(i) for i in range(300)]}), other
    )
    report = edgemod.triage(other, tmp_path / "other", model=None, calibration=certified, workers=1)
    assert report.certificate["void"]
    result = run(
        "triage", other, "-o", tmp_path / "other", "--model", "none", "--calibration", certified,
        "--workers", "1",
    )  # fmt: skip
    assert "certificate void" in result.stderr


def test_drift_within_one_stratum_voids_the_certificate(labelled: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    calibrate(labelled, own, max_miss_rate=0.2, by="where", model=None)
    table = pq.read_table(labelled)

    def report(table: pa.Table, name: str) -> RunReport:
        pq.write_table(table, tmp_path / f"{name}.parquet")
        return edgemod.triage(
            tmp_path / f"{name}.parquet", tmp_path / name, model=None, calibration=own, workers=1
        )

    same = report(table, "same")
    assert {*same.certificate["drift of strata"]} == {"a", "b"}
    assert not same.certificate["void"]
    # As many of each score in all, but the likely ones are in one stratum.
    likely = pq.read_table(tmp_path / "same" / "decisions")["p_any"]
    sides = pa.array(["a"] * (table.num_rows // 2) + ["b"] * (table.num_rows - table.num_rows // 2))
    moved = table.take(pc.sort_indices(likely)).drop_columns("where").append_column("where", sides)
    apart = report(moved, "apart")
    assert apart.certificate["drift"] == same.certificate["drift"]
    assert max(apart.certificate["drift of strata"].values()) < drift.VOID_BELOW
    assert apart.certificate["void"]
    told = screen_of("triage", tmp_path / "apart.parquet", "-o", tmp_path / "apart", own)
    assert "above all in a, b" in told
    # A stratum that had no labels.
    renamed = report(moved.set_column(3, "where", pa.array(["c"] * table.num_rows)), "new")
    assert renamed.certificate["records of other strata"] == table.num_rows - 1  # one is null
    assert renamed.certificate["void"]
    assert "of strata that it does not know" in screen_of(
        "triage", tmp_path / "new.parquet", "-o", tmp_path / "new", own
    )
    # No such column: what can be tested is.
    blind = report(table.drop_columns("where"), "blind")
    assert blind.certificate["drift of strata"] is None
    assert not blind.certificate["void"]
    result = run(
        "triage", tmp_path / "blind.parquet", "-o", tmp_path / "again", "--model", "none",
        "--calibration", own, "--workers", "1",
    )  # fmt: skip
    assert "the certificate holds for each 'where'" in result.stderr


def test_strata_are_spelled_alike_in_labels_and_runs(tmp_path: Path) -> None:
    texts = sentences(1200)
    odd = [(b"a", b"b", None, b"")[i % 4] for i in range(1200)]
    table = pa.table(
        {
            "text": texts,
            "toxic": harsh(texts),
            "raw": pa.array(odd, pa.binary()),
            "number": pa.array([(1.0, 2.5, None, float("nan"))[i % 4] for i in range(1200)]),
        }
    )
    path = tmp_path / "labels.parquet"
    pq.write_table(table, path)
    for by in ("raw", "number"):
        own = tmp_path / f"{by}.json"
        calibrate(path, own, max_miss_rate=0.2, by=by, model=None)
        report = edgemod.triage(path, tmp_path / by, model=None, calibration=own, workers=1)
        assert report.certificate["records of other strata"] == 0
        assert not report.certificate["void"]


def screen_of(command: str, *arguments: Any) -> str:
    *rest, own = arguments
    given = ("--calibration", own, "--model", "none", "--workers", "1")
    return " ".join(run(command, *rest, *given).stderr.split())


def test_a_certified_calibration_can_be_tried_with_another_policy(
    certified: Path, labelled: Path, tmp_path: Path
) -> None:
    shipped = Path(edgemod.__file__).parent / "policies"
    shutil.copytree(shipped, tmp_path / "policies")
    policy = tmp_path / "policies" / "default.toml"
    changed = tmp_path / "policies" / "changed.toml"
    changed.write_text(policy.read_text().replace("severity = 4", "severity = 3", 1))
    given = ("--model", "none", "--calibration", certified)
    result = run("policy", "diff", policy, changed, "--on", labelled, *given)
    assert result.returncode == 0, result.stderr
    assert "not for the policy that is tried" in result.stderr
    same = run("policy", "diff", policy, policy, "--on", labelled, *given)
    assert "not for the policy" not in same.stderr
    assert "tests passed" in run("policy", "test", changed, *given).stdout


def test_the_same_labels_give_the_same_file(
    certified: Path, labelled: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again.json"
    made = calibrate(
        labelled, again, max_miss_rate=0.2, max_false_flag_rate=0.2, model=None, workers=2
    )
    first, second = (json.loads(path.read_text()) for path in (certified, again))
    assert first == second
    assert {*made.labels} == {"toxic"}  # of any nothing can be claimed


def test_another_policy_or_model_is_refused(
    certified: Path, labelled: Path, tmp_path: Path
) -> None:
    with pytest.raises(CalibrationError, match="was certified for model none"):
        Triager(calibration=certified)
    shipped = Path(edgemod.__file__).parent / "policies"
    shutil.copytree(shipped, tmp_path / "policies")
    policy = tmp_path / "policies" / "default.toml"
    Triager(policy, None, calibration=certified).close()  # elsewhere, but the same
    changed = policy.read_text().replace("severity = 4", "severity = 3", 1)
    assert changed != policy.read_text()
    policy.write_text(changed)
    with pytest.raises(CalibrationError, match="was certified for policy"):
        Triager(policy, None, calibration=certified)
    with pytest.raises(InputError, match="itself made by"):
        calibrate(labelled, tmp_path / "c.json", model=None, calibration=certified)


def test_budget_strata_and_weights_from_the_command_line(labelled: Path, tmp_path: Path) -> None:
    table = pq.read_table(labelled)
    chance = np.where(np.arange(table.num_rows) % 3 == 0, 0.9, 0.3)
    weighted = tmp_path / "weighted.parquet"
    drawn = table.append_column("inclusion_probability", pa.array(chance))
    floor = pa.array(np.full(len(chance), 0.3))
    pq.write_table(drawn.append_column("inclusion_floor", floor), weighted)
    out = tmp_path / "c.json"
    for path, more in (
        (labelled, ["--review-budget", "0.5"]),
        (labelled, ["--by", "where", "--max-miss-rate", "0.2"]),
        (weighted, ["--max-miss-rate", "0.3"]),
    ):
        result = run("calibrate", path, "-o", out, "--model", "none", "--json", *more)
        assert result.returncode == 0, result.stderr
        made = json.loads(result.stdout)
        assert made["labels"]["drawn by known chances"] == (path == weighted)
        assert made["labels"]["from, to"] == ["2024-03-01T00:00:00Z", "2024-03-28T00:00:00Z"]
        assert {r["stratum"] for r in made["risks"]} == (
            {None, "a", "b"} if more[0] == "--by" else {None}
        )
    zero = table.append_column("inclusion_probability", pa.array(chance * 0))
    for wrong, what in (
        (drawn, "and none inclusion_floor"),
        (drawn.append_column("inclusion_floor", pa.array(chance)), "is not one number"),
        (zero.append_column("inclusion_floor", floor), "over 0 and at most 1 in row 0"),
    ):
        pq.write_table(wrong, weighted)
        result = run("calibrate", weighted, "-o", out, "--model", "none")
        assert result.returncode == 1
        assert what in result.stderr
    for more, what in (
        (["--by", "text"], "is no column of groups"),
        (["--by", "toxic", "--review-budget", "0.1", "--max-miss-rate", "0.1"], "wants either"),
    ):
        assert what in run("calibrate", labelled, "-o", out, "--model", "none", *more).stderr


def test_a_calibration_that_was_changed_by_hand_is_refused(certified: Path, tmp_path: Path) -> None:
    document = json.loads(certified.read_text())
    document["thresholds"]["filter"]["toxic"]["clear_below"] = 0.49
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(document))
    with pytest.raises(CalibrationError, match="not those that were certified"):
        Calibration.load(path)
    del document["certificate"]["goal"]
    path.write_text(json.dumps(document))
    with pytest.raises(CalibrationError, match="does not name its goal"):
        Calibration.load(path)


def test_with_the_language_model(labelled: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.parquet"
    pq.write_table(pq.read_table(labelled).slice(0, 160), few)
    out = tmp_path / "c.json"
    made = calibrate(few, out, max_miss_rate=0.3, max_false_flag_rate=0.4, delta=0.2)
    with Triager(calibration=out) as triager:
        decided = triager.triage_batch(pa.record_batch({"text": sentences(160)}))
    verdicts = decided["verdict"].to_pylist()
    # Both halves together are what find() saw, so their shares are near its test half's.
    for verdict, share in made.found.shares.items():
        assert abs(verdicts.count(verdict) / 160 - share) < 0.2


def test_labels_of_one_kind_or_none(tmp_path: Path) -> None:
    path = tmp_path / "one.parquet"
    texts = sentences(40)
    for labels, what in (([1] * 40, "of either kind"), ([None] * 40, "no record has a label")):
        pq.write_table(pa.table({"text": texts, "toxic": pa.array(labels, pa.int8())}), path)
        with pytest.raises(InputError, match=what):
            calibrate(path, tmp_path / "c.json", model=None)


# -- drift -------------------------------------------------------------------------------------


def test_drift_is_found_and_not_invented() -> None:
    random = np.random.default_rng(0)
    labelled = drift.spread(random.beta(1, 8, 2000), np.ones(2000))
    assert len(labelled["shares"]) == drift.BINS
    low = []
    for seed in range(200):
        same = np.random.default_rng(seed).beta(1, 8, 1000)
        counts = np.bincount(drift.bins(same, labelled["edges"]), minlength=drift.BINS)
        low.append(drift.test(labelled, counts.tolist()))
    # The same 2,000 labels each time, so that these are not independent: a loose limit.
    assert 0.15 < np.mean(np.array(low) < 0.5) < 0.9
    assert np.mean(np.array(low) < drift.VOID_BELOW) < 0.03
    other = np.bincount(drift.bins(random.beta(2, 8, 1000), labelled["edges"]), minlength=10)
    assert drift.test(labelled, other.tolist()) < drift.VOID_BELOW
    assert drift.test(labelled, [0] * 10) == 1


def test_a_small_stratum_is_no_reason_for_alarm() -> None:
    """Few labelled records spread over ten bins would look unlike anything."""
    random = np.random.default_rng(0)
    void = 0
    for _ in range(300):
        labelled = drift.spread(random.beta(1, 8, 12), np.ones(12))
        archive = random.beta(1, 8, 2000)
        counts = np.bincount(drift.bins(archive, labelled["edges"]), minlength=12)
        void += drift.test(labelled, counts[: len(labelled["shares"])].tolist()) < drift.VOID_BELOW
    assert void <= 3


def test_one_probability_alone_has_one_bin() -> None:
    spread = drift.spread(np.full(50, 0.25), np.ones(50))
    assert sum(spread["shares"]) == pytest.approx(1)
    assert drift.test(spread, [0, 80]) == 1
