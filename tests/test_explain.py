"""Everything that led to one decision, from a finished run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import edgemod
from edgemod import audit, explain, report_page
from edgemod.errors import InputError
from edgemod.triager import Triager, default_calibration
from test_cli import run

TEXTS = {
    "card": "my card is 4111 1111 1111 1111 thanks",
    "rude": "you are a worthless idiot and everyone hates you",
    "kind": "thank you for the lovely evening, see you on Sunday",
    "long": "we walked along the river. " * 60
    + "you are a worthless idiot. "
    + "it was warm. " * 60,
    "none": "",
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explained")
    pq.write_table(pa.table({"id": [*TEXTS, "kind"], "text": [*TEXTS.values(), "another"]}),
                   folder / "in.parquet")  # fmt: skip
    edgemod.triage(folder / "in.parquet", folder / "out", workers=1)
    return folder / "out"


def test_a_rule_is_named_with_what_it_found(out: Path, triager: Triager) -> None:
    found = explain.explain(out, "card", triager)
    assert found.text == TEXTS["card"]
    assert found.decision["verdict"] == "flag"
    assert found.rule is not None
    assert found.rule["when"][0]["feature"] == "cards"
    assert found.features["cards"] == 1
    (start, end, _) = next(one for one in found.fired if one[2] == "cards")
    assert TEXTS["card"][start:end] == "4111 1111 1111 1111"


def test_words_and_windows_add_up_to_the_decision(out: Path, triager: Triager) -> None:
    found = explain.explain(out, "rude", triager)
    assert {found.text[w.start : w.end] for w in found.words[:3]} & {"idiot", "worthless"}
    assert [w.adds for w in found.words] == sorted((w.adds for w in found.words), reverse=True)
    found = explain.explain(out, "long", triager)
    assert found.decision["stage"] == "model"
    # Of ten pieces or more those are read that the filter would not clear by themselves.
    assert 1 <= len(found.windows) < 10
    worst = max(window["any"] for window in found.windows)
    assert found.decision["p_any"] == pytest.approx(worst, abs=0.02)
    assert explain.explain(out, "card", triager).windows == ()  # a rule settled it


def test_ids_that_are_there_twice_or_not_at_all(out: Path, triager: Triager) -> None:
    found = explain.explain(out, "kind", triager)
    assert (found.others, found.text) == (1, TEXTS["kind"])
    with pytest.raises(InputError, match="2 records have this id"):
        explain.notice(found, "us")
    with pytest.raises(InputError, match="no record is called 'nobody'"):
        explain.explain(out, "nobody", triager)
    assert explain.explain(out, "none", triager).words == ()


def test_nobody_in_distress_is_told_that_they_broke_a_rule(out: Path, triager: Triager) -> None:
    found = explain.explain(out, "card", triager)
    for verdict in ("flag", "review"):
        decision = {**found.decision, "verdict": verdict, "category": "self_harm"}
        told = explain.notice(replace(found, decision=decision, category="self_harm"), "us")
        assert "This is no accusation" in told
        assert "you do not have to be alone" in told
        assert "breaking our rules" not in told
        assert "The rule on" not in told
    assert "breaking our rules" in explain.notice(found, "us")
    assert "alone" not in explain.notice(found, "us")


def test_the_statement_quotes_nothing_and_says_how_to_contest(out: Path, triager: Triager) -> None:
    for name, part in (
        ("card", "fixed rule"),
        ("rude", "program"),
        ("none", "could not be judged"),
    ):
        told = explain.notice(explain.explain(out, name, triager), "appeals@example.org")
        assert part in told
        assert "appeals@example.org" in told
        assert "4111" not in told
        assert "idiot" not in told


def test_the_command(out: Path) -> None:
    result = run("explain", out, "rude")
    assert result.returncode == 0, result.stderr
    for part in (TEXTS["rude"], "words that weigh most", "features: ", "settled by"):
        assert part in result.stdout
    told = json.loads(run("explain", out, "card", "--json").stdout)
    assert told["category"] == "pii"
    assert "How to" not in run("explain", out, "card", "--notice", "--contact", "us").stdout
    result = run("explain", out, "rude", "--model", "none")
    assert result.returncode == 1
    assert "--model: is not that of the run" in result.stderr


def test_what_the_run_was_made_with_is_found_again(out: Path, tmp_path: Path) -> None:
    """Own policy, overlay and calibration are told to ``triage`` alone."""
    source = Path(edgemod.__file__).parent / "policies"
    shutil.copytree(source, tmp_path / "mine")
    own, fit = tmp_path / "mine" / "default.toml", tmp_path / "fit.json"
    own.write_text(own.read_text() + '\n[overlay.storm]\ndescription = "words in it"\n')
    fit.write_bytes(default_calibration().read_bytes() + b"\n")
    made = tmp_path / "out"
    edgemod.triage(
        out.parent / "in.parquet", made, workers=1, model=None,
        policy=own, calibration=fit, overlay="storm",
    )  # fmt: skip
    with explain.triager_of(made) as triager:
        assert triager.model is None
        assert triager.policy.overlay == "storm"
        assert explain.explain(made, "card", triager).category == "pii"
    told = json.loads((made / "run.json").read_text())
    assert told["made_with"] == {"policy": str(own), "calibration": str(fit), "model": None}
    assert str(tmp_path) not in json.dumps(told["plan"])
    assert edgemod.verify(made).sound
    audit.sample(made, tmp_path / "sample", n=3)

    # The same elsewhere is the same; another is not.
    shutil.copytree(tmp_path / "mine", tmp_path / "moved")
    whole = own.read_text()
    own.write_text(whole.replace("severity = 4", "severity = 3", 1))
    with pytest.raises(InputError, match="is the policy of the run, and has changed since") as gone:
        explain.triager_of(made)
    assert gone.value.where == str(own)
    explain.triager_of(made, policy=tmp_path / "moved" / "default.toml").close()
    own.unlink()
    with pytest.raises(InputError, match="cannot be read any more"):
        explain.triager_of(made)
    report_page.write(made, tmp_path / "page.html")  # it can do without
    own.write_text(whole)
    for harm in (lambda: fit.write_text(fit.read_text().replace("0.", "0.0", 1)), fit.unlink):
        harm()
        with pytest.raises(InputError, match="is the calibration of the run, and is gone or has"):
            explain.triager_of(made)
    with pytest.raises(InputError, match="was decided with the overlay storm"):
        explain.triager_of(made, overlay="other")


def test_a_run_that_does_not_say_what_it_was_made_with(out: Path, tmp_path: Path) -> None:
    """Then it is what ships."""
    shutil.copytree(out, tmp_path / "out")
    told = json.loads((out / "run.json").read_text())
    del told["made_with"]
    (tmp_path / "out" / "run.json").write_text(json.dumps(told))
    with explain.triager_of(tmp_path / "out") as triager:
        assert explain.explain(tmp_path / "out", "card", triager).category == "pii"
