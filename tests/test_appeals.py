"""Appeals: what an outcome says of a record, where it comes from, and what must not rest on it."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import edgemod
from edgemod import audit, breakdown, learning, run_folder
from edgemod.calibrating import calibrate
from edgemod.cli import cli
from edgemod.errors import InputError
from edgemod.labels import read_inclusion
from edgemod.reviewing import labelling
from edgemod.reviewing.answers import Answer, Answers, moment, new_id
from edgemod.reviewing.queue import open_queue
from edgemod.reviewing.stats import stats
from edgemod.sources import discover
from samples import sentences

pytestmark = pytest.mark.usefixtures("one_process")

N = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of 300 records, and the same with pseudonyms; two records have one id."""
    folder = tmp_path_factory.mktemp("appealed")
    texts = [f"{t} 4111 1111 1111 1111" if i % 9 == 4 else t for i, t in enumerate(sentences(N))]
    ids = [f"id {i}" for i in range(N - 1)] + ["id 0"]
    pq.write_table(pa.table({"id": ids, "text": texts}), folder / "in.parquet")
    (folder / "key").write_bytes(b"sixteen bytes, at least")
    (folder / "key").chmod(0o600)
    same: dict[str, Any] = {"model": None, "workers": 1, "chunk_rows": 128}
    edgemod.triage(folder / "in.parquet", folder / "out", **same)
    key = folder / "key"
    edgemod.triage(folder / "in.parquet", folder / "hidden", pseudonymise=key, **same)
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder / "out", tmp_path / "out"))


def ids_of(run: Path, verdict: str) -> list[str]:
    rows = pq.read_table(run / "decisions").to_pylist()
    return [row["record_id"] for row in rows if row["verdict"] == verdict]


def row(record: str, appeal: str, category: str | None = None, **more: Any) -> dict[str, Any]:
    who = {"reviewer": "board", "answered_at": "2026-05-01T10:00:00", "policy": "v7"}
    return {"record_id": record, "appeal": appeal, "answer_category": category, **who, **more}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0]])
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def imported(run: Path, *files: Path, **more: Any) -> labelling.Imported:
    queue = open_queue(run)
    with Answers.open(run / "answers.sqlite", queue.about) as answers:
        return labelling.import_answers(
            files, queue, answers, run / "labels.parquet", run=run, **more
        )


def labels_of(run: Path) -> dict[str, tuple[Any, ...]]:
    table = pq.read_table(run / "labels-appeals.parquet")
    return {
        one["record_id"]: (one["any"], one["pii"], one["toxic"], one["appeal"])
        for one in table.to_pylist()
    }


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_an_outcome_is_a_label_with_its_source(
    folder: Path, run: Path, tmp_path: Path, format: str
) -> None:
    flagged, cleared = ids_of(run, "flag"), ids_of(run, "clear")[1:]
    file = write(
        tmp_path / f"appeals.{format}",
        [
            row(flagged[0], "upheld"),
            row(flagged[1], "overturned"),
            row(flagged[2], "overturned", "toxic"),
            row(cleared[0], "upheld"),
            row(cleared[1], "overturned", "toxic"),
            row(cleared[2], "overturned"),
        ],
    )
    done = imported(run, file)
    assert (done.read, done.new, done.problems) == (6, 6, ())
    assert (done.appeals, done.overturned, done.labelled) == (6, 4, 0)
    assert labels_of(run) == {
        flagged[0]: (1, 1, None, "upheld"),
        flagged[1]: (0, 0, 0, "overturned"),
        flagged[2]: (1, None, 1, "overturned"),
        cleared[0]: (0, 0, 0, "upheld"),
        cleared[1]: (1, None, 1, "overturned"),
        cleared[2]: (1, None, None, "overturned"),
    }
    table = pq.read_table(run / "labels-appeals.parquet")
    assert (run / "labels-appeals.parquet").stat().st_mode & 0o777 == 0o600
    assert {*table["reviewer"].to_pylist()} == {"board"}
    assert {*table["answered_at"].to_pylist()} == {"2026-05-01T10:00:00.000000+00:00"}
    assert {*table["policy"].to_pylist()} == {"v7"}
    texts = pq.read_table(folder / "in.parquet")["text"].to_pylist()
    assert table["text"].to_pylist() == [texts[at] for at in table["source_row"].to_pylist()]
    before = (run / "labels-appeals.parquet").read_bytes()
    assert imported(run, file, file).new == 0
    assert (run / "labels-appeals.parquet").read_bytes() == before


def test_an_appeal_against_reviewers_is_against_what_they_said(run: Path, tmp_path: Path) -> None:
    waiting = ids_of(run, "review")
    first = write(tmp_path / "appeals.jsonl", [row(waiting[0], "overturned")])
    (problem,) = imported(run, first).problems
    assert "none of their answers stands" in problem.what
    said = {"record_id": waiting[0], "reviewer": "anna", "answer": "flag"}
    second = write(tmp_path / "answers.jsonl", [{**said, "answer_category": "toxic"}])
    done = imported(run, first, second)  # whatever the order of the files
    assert (done.problems, done.new, done.appeals) == ((), 2, 1)
    assert labels_of(run)[waiting[0]] == (0, 0, 0, "overturned")
    # What reviewers said of the queue stays: correcting what was appealed alone would tilt it.
    (label,) = pq.read_table(run / "labels.parquet").to_pylist()
    assert (label["any"], label["toxic"]) == (1, 1)
    queue = open_queue(run)
    with Answers.open(run / "answers.sqlite", queue.about) as answers:
        assert [one.appeal for one in answers.standing()] == [None]
        found = stats(queue, answers.standing(), answers.appeals(), run)
    assert {(one.by, one.of, one.decision) for one in found.appeals} == {
        ("all", "decisions", "flag"), ("category", "toxic", "flag"), ("stage", "people", "flag"),
        ("reason", "people", "flag"),
    }  # fmt: skip
    assert [one.reviewer for one in found.pace] == ["anna"]


def test_rows_that_make_no_sense_are_told_and_cost_no_other(run: Path, tmp_path: Path) -> None:
    flagged, cleared = ids_of(run, "flag"), ids_of(run, "clear")
    rows = [
        row(flagged[0], "pending"),
        row("no such", "upheld"),
        row("id 0", "upheld"),  # two records have it
        row(flagged[0], "upheld", "hate"),
        row(flagged[0], "overturned", "pii"),
        row(cleared[3], "upheld", "hate"),
        row(cleared[3], "overturned", "rude"),
        row(flagged[0], "upheld", reviewer="Ann Smith <a@b.example>"),
        row(flagged[0], "upheld", answered_at="yesterday"),
    ]
    good = row(flagged[1], "upheld", "pii")
    done = imported(run, write(tmp_path / "a.jsonl", [*rows, good]))
    assert (len(done.problems), done.read, done.appeals) == (len(rows), 1, 1)
    told = " ".join(problem.what for problem in done.problems)
    assert "Smith" not in told
    assert "rude" not in told
    assert "of no record of this run" in told
    by_place = row("", "upheld", source="in.parquet", source_row=0)
    assert imported(run, write(tmp_path / "b.jsonl", [by_place])).appeals == 2


def test_the_last_outcome_of_a_record_counts(run: Path, tmp_path: Path) -> None:
    (flagged, *_) = ids_of(run, "flag")
    rows = [
        row(flagged, "overturned", answered_at="2026-05-02T10:00:00", reviewer="second"),
        row(flagged, "upheld", answered_at="2026-05-01T10:00:00"),
    ]
    done = imported(run, write(tmp_path / "a.jsonl", rows))
    assert (done.read, done.appeals, done.overturned) == (2, 1, 1)
    assert labels_of(run)[flagged][0] == 0


def test_ids_of_the_input_find_pseudonyms(folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(folder / "hidden", tmp_path / "hidden"))
    (flagged, *_) = ids_of(folder / "out", "flag")
    file = write(tmp_path / "a.csv", [row(flagged, "overturned")])
    (problem,) = imported(run, file).problems
    assert "of no record of this run, whose ids are pseudonyms" in problem.what
    done = imported(run, file, pseudonymise=folder / "key")
    assert (done.problems, done.appeals) == ((), 1)
    (label,) = pq.read_table(run / "labels-appeals.parquet").to_pylist()
    assert label["record_id"] in ids_of(run, "flag")
    for path in run.rglob("*"):
        assert path.is_dir() or flagged.encode() + b"\0" not in path.read_bytes()
    kept = sqlite3.connect(run / "answers.sqlite").execute("SELECT record_id FROM answers")
    assert kept.fetchall() == [(label["record_id"],)]
    (folder / "other").write_bytes(b"another key of 16 bytes")
    (folder / "other").chmod(0o600)
    with pytest.raises(InputError, match="is not the key"):
        imported(run, file, pseudonymise=folder / "other")


def test_nothing_is_proved_with_appeals(run: Path, tmp_path: Path) -> None:
    flagged = ids_of(run, "flag")
    imported(run, write(tmp_path / "a.jsonl", [row(name, "overturned") for name in flagged]))
    labels = run / "labels-appeals.parquet"
    table = pq.read_table(labels)
    assert table["inclusion_probability"].null_count == len(flagged)
    state = run_folder.complete_state(run)
    for use in (
        lambda: read_inclusion(discover([labels])[0]),
        lambda: calibrate(labels, tmp_path / "c.json", model=None),
        lambda: audit.report(labels),
        lambda: breakdown.risk(run, state, labels),
        lambda: learning.learn(labels, tmp_path / "learned", model=None),
    ):  # fmt: skip
        check: Callable[[], Any] = use
        with pytest.raises(InputError, match="is no sample"):
            check()
    assert not (tmp_path / "c.json").exists()
    assert not (tmp_path / "learned").exists()


def test_learning_fits_with_appeals_and_certifies_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEMOD_HOME", str(tmp_path / "home"))
    draw = np.random.default_rng(1)
    texts = [f"{text} {draw.integers(1 << 60)}" for text in sentences(160, seed=3)]
    labels = pa.array((draw.random(160) < 0.4).astype(np.int8))
    sample = pa.table({"text": texts, "any": labels})
    appealed = [texts[0], texts[1], *(f"an appeal about {draw.integers(1 << 60)}" for _ in "abcd")]
    columns = {"inclusion_probability": pa.nulls(6, pa.float64()), "inclusion_floor": [0.0] * 6}
    pq.write_table(sample, tmp_path / "sample.parquet")
    pq.write_table(pa.table({"text": appealed, "any": pa.array([0] * 6, pa.int8()), **columns}),
                   tmp_path / "appeals.parquet")  # fmt: skip
    files = [tmp_path / "appeals.parquet", tmp_path / "sample.parquet"]
    notices: list[str] = []
    alone = learning.learn(files[1], tmp_path / "a", model=None)
    both = learning.learn(files, tmp_path / "b", model=None, on_notice=notices.append)
    assert both.before.found.risks == alone.before.found.risks
    assert both.before.found.shares == alone.before.found.shares
    assert both.sizes[1:] == alone.sizes[1:]
    assert alone.sizes[0] + 4 <= both.sizes[0] <= alone.sizes[0] + 6
    assert "6 labels are of no sample" in notices[0]


def test_a_sample_takes_no_appeals(run: Path, tmp_path: Path) -> None:
    audit.sample(run, tmp_path / "sample", n=50)
    queue = open_queue(tmp_path / "sample")
    file = write(tmp_path / "a.jsonl", [row(ids_of(run, "flag")[0], "upheld")])
    with Answers.open(tmp_path / "answers", queue.about) as answers:
        done = labelling.import_answers([file], queue, answers, tmp_path / "labels.parquet")
    assert (done.read, done.appeals, len(done.problems)) == (0, 0, 1)


def test_without_the_input_the_outcomes_are_kept(run: Path, tmp_path: Path) -> None:
    state = json.loads((run / "run.json").read_text())
    state["plan"]["input"] = "0" * 64
    (run / "run.json").write_text(json.dumps(state))
    file = write(tmp_path / "a.jsonl", [row(ids_of(run, "flag")[0], "upheld")])
    with pytest.raises(InputError, match="has changed since the run"):
        imported(run, file)
    assert (run / "labels.parquet").exists()
    with Answers.open(run / "answers.sqlite") as answers:
        assert len(answers.appeals()) == 1


def test_answers_of_before_there_were_appeals_are_read(tmp_path: Path) -> None:
    one = Answer(new_id(), "r", "dump", 0, "anna", "clear", answered_at=moment())
    with Answers.open(tmp_path / "a.sqlite") as answers:
        answers.add([one])
    old = sqlite3.connect(tmp_path / "a.sqlite")
    old.execute("ALTER TABLE answers DROP COLUMN appeal")
    old.execute("PRAGMA user_version = 1")
    old.close()
    for _ in range(2):
        with Answers.open(tmp_path / "a.sqlite") as answers:
            assert answers.standing() == [one]
            answers.add([Answer(new_id(), "r", "dump", 1, "b", "clear", "", appeal="upheld")])
            assert len(answers.appeals()) == 1


def test_the_commands(run: Path, tmp_path: Path) -> None:
    flagged = ids_of(run, "flag")
    rows = [row(name, ("upheld", "overturned")[i % 2]) for i, name in enumerate(flagged[:6])]
    file = write(tmp_path / "a.csv", rows)

    def call(*arguments: Any) -> Any:
        return CliRunner().invoke(cli, ["review", *map(str, arguments)], catch_exceptions=False)

    told = call("import", file, "--run", run)
    assert told.exit_code == 0
    assert "6 outcomes of appeals, 3 overturned" in told.output
    assert "labels-appeals.parquet" in told.output
    told = call("stats", run, "--json")
    found = {(one["by"], one["of"]): one for one in json.loads(told.output)["appeals"]}
    assert found["all", "decisions"]["appeals"] == 6
    assert found["all", "decisions"]["share"]["value"] == 0.5
    assert found["category", "pii"]["decision"] == "flag"
    assert {of for by, of in found if by == "stage"} <= {"rule", "duplicate"}
    told = call("stats", run)
    assert "who appeals is no chance" in told.output
