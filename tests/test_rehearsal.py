"""Trying policies: what rules catch, what another policy moves, what a crisis asks of people."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import edgemod
from edgemod import rehearsal
from edgemod.errors import InputError
from edgemod.policy import load_policy
from edgemod.rehearsal import Archive
from edgemod.screen import policies as screen
from edgemod.triager import Triager, default_calibration
from samples import sentences
from test_cli import run
from test_policy import CRISIS, SMALL, write

WORDS = (
    SMALL.replace('terms = ["grue"]', 'terms = ["grue", "snark", "boojum"]')
    + """
[[rule]]
name = "loud"
category = "hate"
verdict = "review"
on = "clear"
when = ["exclamations >= 2"]
reason = "It is loud."
[[rule]]
name = "never"
category = "hate"
verdict = "review"
when = ["exclamations >= 99"]
reason = "It is very loud."
"""
)
TEXTS = ["a grue", "a grue!!", "no!!", "the snark", "nothing", "Grue and snark", None]
HATE = [1, 1, 0, 0, 0, None, 1]


def test_what_rules_lexicons_and_terms_catch(tmp_path: Path) -> None:
    policy = load_policy(write(tmp_path, WORDS))
    path = tmp_path / "labels.parquet"
    pq.write_table(pa.table({"text": TEXTS, "hate": pa.array(HATE, pa.int8())}), path)
    found = {(one.kind, one.name): one for one in rehearsal.backtest(policy, path)}
    assert [one.hits for one in found.values()] == [4, 2, 0, 4, 3, 2, 0]
    bad = found["rule", "bad_words"]
    assert bad.precision is not None
    assert bad.recall is not None
    assert (bad.precision.value, bad.recall.value) == (2 / 3, 2 / 3)  # of three with a label
    assert (bad.unique, bad.overlap) == (1, ("loud", 0.25))
    assert found["rule", "never"].precision is None
    grue, snark = found["term", "bad: grue"], found["term", "bad: snark"]
    assert grue.overlap is not None
    assert (grue.overlap[0], 3 * grue.overlap[1]) == ("bad: snark", 1)
    assert snark.precision is not None
    assert snark.precision.value == 0
    assert found["term", "bad: boojum"].hits == 0
    # Several files, one of them with another label: its records count where they have one.
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"text": ["grue"], "toxic": [1]}), other)
    both = {(o.kind, o.name): o for o in rehearsal.backtest(policy, [path, other])}
    assert both["term", "bad: grue"].hits == 4
    assert both["term", "bad: grue"].precision == grue.precision


def test_backtest_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    pq.write_table(pa.table({"text": TEXTS, "hate": pa.array(HATE, pa.int8())}), path)
    policy = write(tmp_path, WORDS)
    result = run("policy", "backtest", policy, path)
    assert result.returncode == 0, result.stderr
    assert "dead, 1 of 3 terms: bad: b*****" in result.stdout
    assert "grue" not in result.stdout
    catches = json.loads(run("policy", "backtest", policy, path, "--json").stdout)["catches"]
    assert catches[0]["name"] == "bad_words"
    assert {one["name"] for one in catches if one["kind"] == "term"} == {
        "bad: g***", "bad: s****", "bad: b*****",
    }  # fmt: skip
    assert "dead, 1 of 3 terms: bad: boojum" in run(
        "policy", "backtest", policy, path, "--show"
    ).stdout  # fmt: skip


def test_many_dead_terms_are_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    dead = [rehearsal.Catch("term", f"t{i}", "hate", 0, None, None, 0, None) for i in range(1030)]
    screen.catches(dead)
    told = capsys.readouterr().out
    assert "dead, 1,030 of 1,030 terms: t0, t1," in told
    assert "t19, and 1,010 more: --json has all" in told
    assert "t20" not in told


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [f"{text} the wumpus" if i % 10 == 0 else text for i, text in enumerate(sentences(200))]
    path = tmp_path_factory.mktemp("rehearsed") / "dump.parquet"
    pq.write_table(pa.table({"id": [*map(str, range(200))], "text": texts}), path)
    return path


def test_a_diff_equals_two_runs(dump: Path, tmp_path: Path) -> None:
    path = write(tmp_path, CRISIS)
    verdicts = []
    for overlay in (None, "crisis"):
        out = tmp_path / f"{overlay}"
        edgemod.triage(dump, out, policy=path, overlay=overlay, workers=1)
        verdicts.append(pq.read_table(out / "decisions")["verdict"].to_pylist())
    with (
        Triager(path) as before,
        Triager(path, overlay="crisis", beside=before) as after,
    ):
        assert before.model is after.model
        found = rehearsal.compare(before, after, Archive.open(dump))
        again = rehearsal.compare(before, after, Archive.open(tmp_path / "None"))
    pairs = list(zip(*verdicts, strict=True))
    assert found.records == 200
    assert {**found.moved} == {pair: pairs.count(pair) for pair in pairs}
    moved = sum(a != b for a, b in pairs)
    assert moved >= 20
    assert sum(found.why.values()) == moved
    assert found.groups == {"dump.parquet": (moved, 200)}
    assert sum(found.reviews[1].values()) == verdicts[1].count("review")
    assert again.to_json() == found.to_json()


def test_a_drill_counts_hours_and_what_is_left(dump: Path, tmp_path: Path) -> None:
    path = write(tmp_path, CRISIS.replace('verdict = "flag"\nwhen', 'verdict = "review"\nwhen'))
    with (
        Triager(path, None) as before,
        Triager(path, None, overlay="crisis", beside=before) as after,
    ):
        found = rehearsal.drill(before, after, Archive.open(dump), reviewers=2, per_hour=5, shift=1)
    assert found.reviews[1] >= max(found.reviews[0], 20)
    assert found.hours == (found.reviews[0] / 10, found.reviews[1] / 10)
    assert sum(found.unread.values()) == found.reviews[1] - 10
    assert [one.name for one in found.failing] == ["named"]


def test_diff_and_drill_from_the_command_line(dump: Path, tmp_path: Path) -> None:
    path, small = write(tmp_path, CRISIS), write(tmp_path, SMALL, "small.toml")
    result = run("policy", "diff", small, path, "--on", dump, "--model", "none")
    assert result.returncode == 0, result.stderr
    assert "decided otherwise: 0 of 200 records" in result.stdout
    more = ["--on", dump, "--model", "none", "--overlay", "crisis"]
    result = run("policy", "diff", small, path, *more)
    assert "rule wumpus_named" in result.stdout
    told = json.loads(run("policy", "diff", small, path, *more, "--json").stdout)
    assert sum(one["records"] for one in told["moved"]) == 200
    result = run("policy", "drill", path, *more, "--reviewers", 3)
    assert result.returncode == 0, result.stderr
    assert "h of the team" in result.stdout
    drilled = json.loads(run("policy", "drill", path, *more, "--reviewers", 3, "--json").stdout)
    assert drilled["hours"][0] == pytest.approx(drilled["reviews"][0] / 180)
    with pytest.raises(InputError):
        Archive.open(tmp_path / "nothing")
    assert np.isfinite(drilled["hours"]).all()


# -- a run that kept its scores ----------------------------------------------------------------


def test_kept_scores_stand_in_for_the_language_model(
    dump: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = write(tmp_path, CRISIS), tmp_path / "kept"
    edgemod.triage(dump, out, policy=path, workers=1, chunk_rows=64, keep_scores=True)
    kept = pq.read_table(out / "scores")
    assert kept.num_rows == 200
    read = int(pc.sum(pc.is_valid(kept["model_any"])).as_py())
    assert 0 < read < 200
    assert kept["filter_any"].null_count == 0
    archive = Archive.open(out)
    with (
        Triager(path) as before,
        Triager(path, overlay="crisis", beside=before) as after,
    ):
        slow = rehearsal.compare(before, after, Archive.open(dump))
        asked: list[int] = []
        assert before.model is not None
        score = type(before.model).score

        def counting(self: Any, texts: Any, *rest: Any) -> Any:
            asked.append(len(texts))
            return score(self, texts, *rest)

        monkeypatch.setattr(type(before.model), "score", counting)
        quick = rehearsal.compare(before, after, archive)
        assert quick.kept == (4, 4)
        assert replace(quick, kept=(0, 0)) == slow
        # What the overlay opens and the run did not read is read; nothing that it did.
        again = sum(asked)
        asked.clear()
        rehearsal.compare(before, before, archive)
        assert sum(asked) == 0
        rehearsal.compare(before, after, Archive.open(dump))
        assert again < sum(asked)


def test_kept_scores_of_other_readings_are_not_taken(dump: Path, tmp_path: Path) -> None:
    path, out = write(tmp_path, CRISIS), tmp_path / "kept"
    edgemod.triage(dump, out, policy=path, workers=1, keep_scores=True)
    archive = Archive.open(out)
    (chunk,) = archive.chunks(1 << 16)
    with Triager(path) as same, Triager(path, None) as without:
        found = archive.known(same, chunk)
        assert found is not None
        assert found.shape == (200, 10)
        assert archive.known(without, chunk) is None
        assert Archive.open(dump).known(same, chunk) is None
        (out / "scores" / "part-000000.parquet").write_bytes(b"PAR1")
        assert archive.known(same, chunk) is None


def test_scores_that_go_missing_are_made_again(dump: Path, tmp_path: Path) -> None:
    def stop(progress: Any) -> None:
        if progress.chunk == 2:
            raise KeyboardInterrupt

    outs = tmp_path / "whole", tmp_path / "stopped"
    for out in outs:
        command = partial(
            edgemod.triage, dump, out, chunk_rows=50, workers=1, model=None, keep_scores=True
        )
        if out == outs[1]:
            with pytest.raises(KeyboardInterrupt):
                command(on_progress=stop)
            (out / "scores" / "part-000001.parquet").unlink()
        command()
    whole, stopped = (
        {file.name: file.read_bytes() for file in (out / "scores").iterdir()} for out in outs
    )
    assert whole == stopped
    assert len(whole) == 4


def test_groups_of_a_diff_can_be_those_of_a_column(dump: Path, tmp_path: Path) -> None:
    path = write(tmp_path, CRISIS)
    table = pq.read_table(dump)
    lang = pa.array(["en", "de", None, "de"] * 50)
    pq.write_table(table.append_column("lang", lang), tmp_path / "told.parquet")
    with (
        Triager(path, None) as before,
        Triager(path, None, overlay="crisis", beside=before) as after,
    ):
        archive = Archive.open(tmp_path / "told.parquet", by="lang")
        found = rehearsal.compare(before, after, archive)
        plain = rehearsal.compare(before, after, Archive.open(dump))
    assert {name: n for name, (_, n) in found.groups.items()} == {"en": 50, "de": 100, "(none)": 50}
    assert sum(m for m, _ in found.groups.values()) == plain.groups["dump.parquet"][0] > 0


def test_a_run_is_tried_with_its_own_calibration(dump: Path, tmp_path: Path) -> None:
    path, out = write(tmp_path, SMALL), tmp_path / "out"
    shipped = json.loads(default_calibration().read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**shipped, "note": "another"}))
    edgemod.triage(dump, out, policy=path, model=None, calibration=other, workers=1)
    wanted = ["policy", "diff", path, path, "--on", out]
    assert run(*wanted).returncode == 0  # where the run had it, and without a model as there
    moved = tmp_path / "moved.json"
    moved.write_bytes(other.read_bytes())
    other.write_text(json.dumps({**shipped, "note": "a third"}))
    result = run(*wanted)
    assert result.returncode == 1
    assert "was decided with calibration" in result.stderr
    assert run(*wanted, "--calibration", moved).returncode == 0


def test_kept_scores_of_a_run_with_pseudonyms(tmp_path: Path) -> None:
    """Where its chunks end depends on the lengths of names that are not told any more."""
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    texts = [f"{text} {i}" for i, text in enumerate(sentences(60))]
    long = [f"{i:03}" + "x" * ((i * 7919) % 13) * 120_000 for i in range(60)]
    pq.write_table(pa.table({"id": long, "author": long, "text": texts}), tmp_path / "in.parquet")
    out = tmp_path / "out"
    edgemod.triage(
        tmp_path / "in.parquet", out, model=None, workers=1, chunk_rows=16, keep_scores=True,
        pseudonymise=key,
    )  # fmt: skip
    archive = Archive.open(out)
    decided = pq.read_table(out / "decisions")
    with Triager(model=None) as triager:
        chunks = [*archive.chunks(triager.policy.max_text_bytes)]
        assert len(chunks) > 4  # some end for their bytes
        assert all(archive.known(triager, chunk) is not None for chunk in chunks)
        found = rehearsal.compare(triager, triager, archive)
    assert found.kept == (len(chunks), len(chunks))
    assert sum(found.reviews[0].values()) == decided["verdict"].to_pylist().count("review")
    # A part of other records is not taken for this one's.
    parts = sorted((out / "scores").iterdir())
    parts[0].write_bytes(parts[1].read_bytes())
    with Triager(model=None) as triager:
        assert archive.known(triager, chunks[0]) is None


def test_what_a_reading_depends_on(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    shipped = json.loads(default_calibration().read_text())
    for line in shipped["maps"]["filter"].values():
        line["bias"] -= 3
    other = tmp_path / "other.json"
    other.write_text(json.dumps(shipped))
    with Triager(path, None) as one, Triager(path, None, calibration=other) as two:
        assert one.reading() == Triager(path, None).reading()
        assert one.reading() != two.reading()  # other pieces of long texts are cleared


def test_any_is_known_where_either_column_knows(tmp_path: Path) -> None:
    policy = load_policy(write(tmp_path, WORDS))
    known = pa.array([1, 1, 0, 0, 0, 1, 0], pa.int8())
    columns = {"text": TEXTS, "any": known, "unsafe": pa.array([None] * 7, pa.int8())}
    path = tmp_path / "both.parquet"
    pq.write_table(pa.table(columns), path)
    found = {one.name: one for one in rehearsal.backtest(policy, path)}
    assert found["bad_words"].precision is not None
    assert found["bad_words"].precision.value == 0.75


def test_a_run_of_another_version_is_refused(dump: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    edgemod.triage(dump, out, model=None, workers=1)
    state = json.loads((out / "run.json").read_text())
    state["plan"] = {"format": 1}
    (out / "run.json").write_text(json.dumps(state))
    for command in (("policy", "diff", "a", "b", "--on"), ("verify",), ("audit", "sample")):
        result = run(*command, out, *(("-o", tmp_path / "s") if command[0] == "audit" else ()))
        assert result.returncode == 1, command
        assert "another version of edgemod" in result.stderr


def test_what_killed_workers_of_a_run_is_not_tried_again(dump: Path, tmp_path: Path) -> None:
    path, out = write(tmp_path, CRISIS), tmp_path / "out"
    edgemod.triage(dump, out, policy=path, model=None, workers=1)
    part = out / "decisions" / "part-000000.parquet"
    decided = pq.read_table(part)
    status = [*decided["status"].to_pylist()]
    status[7] = "crashed"
    at = decided.schema.get_field_index("status")
    column = pa.array(status).dictionary_encode().cast(decided.schema.field(at).type)
    pq.write_table(decided.set_column(at, decided.schema.field(at), column), part)
    with Triager(path, None) as triager:
        (chunk,) = Archive.open(out).chunks(triager.policy.max_text_bytes)
        again = triager.triage_chunk(chunk).decisions
    assert again["status"].to_pylist()[7] == "crashed"
    assert again["verdict"].to_pylist()[7] == "review"
    assert set(again["status"].to_pylist()) == {"ok", "crashed"}
