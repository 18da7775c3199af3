"""Exports and imports of a queue: nothing in a record does harm, nothing is lost on the way."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from edgemod import audit, triage
from edgemod.cli import cli
from edgemod.errors import InputError, OutputError
from edgemod.labels import read_inclusion, read_labels
from edgemod.policy import load_policy
from edgemod.reviewing import answer_files, export, labelling, stats
from edgemod.reviewing.answers import Answer, Answers, moment, new_id
from edgemod.reviewing.desk import Care
from edgemod.reviewing.queue import Queue, open_queue
from edgemod.sources import discover
from queues import MALICIOUS, rows, write_queue

PLAIN = Care(alike=False)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_queue(tmp_path / "out")


@pytest.fixture
def queue(run: Path) -> Queue:
    return open_queue(run)


def a(queue: Queue, i: int, said: str, reviewer: str = "anna", **more: Any) -> Answer:
    """An answer on row i; ``said`` is an answer or a category."""
    flagged = said not in ("clear", "escalate")
    return Answer(
        new_id(),
        queue.table["record_id"][i].as_py(),
        *queue.keys()[i],
        reviewer,
        "flag" if flagged else said,
        said if flagged else None,
        answered_at=moment(),
        policy=queue.policy.fingerprint,
        **more,
    )


def labels_of(table: pa.Table) -> dict[str, dict[str, Any]]:
    """By record id, the labels that are known."""
    names = (*[c.name for c in load_policy().categories], "any")
    return {
        row["record_id"]: {name: row[name] for name in names if row[name] is not None}
        for row in table.to_pylist()
    }


# ---------------------------------------------------------------- exports


def test_the_exported_page_is_inert(queue: Queue, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert export.export(queue, set(), out, "html", care=PLAIN) == (23, ["page.html"])
    text = out.read_text()
    assert out.stat().st_mode & 0o777 == 0o600
    assert text.count("<script") == 3
    assert text.count("</script>") == 3
    assert "connect-src 'none'" in text
    assert not re.search(r"\b(?:src|href)=", re.sub(r"<script.*?</script>", "", text, flags=re.S))
    inside = re.search(r'id="data">(.*?)</script>', text, re.S)
    assert inside
    data = json.loads(inside[1])
    told = ["".join(piece for piece, _ in unit["texts"]["text"]) for unit in data["units"]]
    for malicious in MALICIOUS:
        seen = "".join(c if c.isprintable() else f"U+{ord(c):04X}" for c in malicious)
        assert seen in told
    assert not {c for c in text if not c.isprintable()} - {"\n"}


def test_exports_leave_out_what_is_answered_and_what_models_think(
    queue: Queue, tmp_path: Path
) -> None:
    out = tmp_path / "open.jsonl"
    count, _ = export.export(queue, {queue.keys()[0]}, out, "jsonl", blind=True)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert count == len(found) == 22
    assert found[0]["record_id"] == "r1"
    told = ("category", "reason", "p_any", "answer", "priority", "inclusion_probability")
    assert {found[0][name] for name in told} == {None}


def test_no_cell_of_an_exported_csv_is_a_formula(queue: Queue, tmp_path: Path) -> None:
    export.export(queue, set(), tmp_path / "open.csv", "csv")
    with (tmp_path / "open.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")]
    assert not any("\x1b" in cell or "\x00" in cell for cell in cells)


# ---------------------------------------------------------------- imports


def filled(path: Path, said: dict[str, str]) -> None:
    """Fill in an export as a person would."""

    def fill(row: dict[str, Any]) -> dict[str, Any]:
        if answer := said.get(row["record_id"]):
            flagged = answer not in ("clear", "escalate")
            row |= {"answer": "flag" if flagged else answer, "reviewer": "anna"}
            row |= {"answer_category": answer if flagged else None, "note": "=1+1"}
        return row

    if path.suffix == ".jsonl":
        found = [fill(json.loads(line)) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in found))
    elif path.suffix == ".parquet":
        table = pq.read_table(path)
        pq.write_table(pa.Table.from_pylist([*map(fill, table.to_pylist())], table.schema), path)
    elif path.suffix == ".csv":
        with path.open(newline="") as file:
            found = [fill(row) for row in csv.DictReader(file)]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*found[0]])
            writer.writeheader()
            writer.writerows(found)
    else:  # as Label Studio exports tasks that were annotated with the configuration beside them
        tasks = json.loads(path.read_text())
        for n, task in enumerate(tasks):
            task["annotations"] = []
            row = fill(dict(task["data"]))
            if "reviewer" in row:
                result = [("verdict", "choices", [row["answer"]]), ("note", "text", [row["note"]])]
                if row["answer"] == "flag":
                    result.append(("answer_category", "choices", [row["answer_category"]]))
                task["annotations"] = [
                    {
                        "id": n,
                        "completed_by": {"id": 7, "email": "who@a.example"},
                        "created_at": "2026-03-01T10:00:00.000000Z",
                        "updated_at": "2026-03-01T11:00:00.000000Z",
                        "lead_time": 4.5,
                        "was_cancelled": False,
                        "result": [
                            {"from_name": name, "to_name": "text", "value": {kind: value}}
                            for name, kind, value in result
                        ],
                    }
                ]
        path.write_text(json.dumps(tasks))


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet", "label-studio"])
def test_a_round_trip_is_idempotent(run: Path, queue: Queue, tmp_path: Path, format: str) -> None:
    file = tmp_path / f"open{export.FORMATS[format]}"
    export.export(queue, set(), file, format)
    said = {"r0": "clear", "r13": "hate", "r14": "toxic", "r2": "escalate"}
    filled(file, said)
    with Answers.open(run / "answers.sqlite", queue.about) as answers:
        done = labelling.import_answers([file], queue, answers, run / "labels.parquet")
        assert (done.read, done.new, done.problems) == (4, 4, ())
        assert (done.labelled, done.escalated, done.waiting) == (3, 1, 19)
        kept = {one.record_id: one for one in answers.standing()}
        assert {name: one.says for name, one in kept.items()} == said
        assert {one.note for one in kept.values()} == {"=1+1"}
        before = (run / "labels.parquet").read_bytes()
        again = labelling.import_answers([file, file], queue, answers, run / "labels.parquet")
        assert again.new == 0
        assert (run / "labels.parquet").read_bytes() == before
    if format == "label-studio":
        assert kept["r0"].reviewer == "ls-7"
        assert kept["r0"].seconds == 4.5
        assert kept["r0"].answered_at == "2026-03-01T11:00:00.000000+00:00"
    table = pq.read_table(run / "labels.parquet")
    assert (run / "labels.parquet").stat().st_mode & 0o777 == 0o600
    clear = dict.fromkeys([c.name for c in queue.policy.categories], 0) | {"any": 0}
    assert labels_of(table) == {
        "r0": clear, "r13": {"hate": 1, "any": 1}, "r14": {"toxic": 1, "any": 1},
    }  # fmt: skip


def test_a_changed_file_changes_what_stands(run: Path, queue: Queue, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    with Answers.open(run / "answers.sqlite") as answers:
        for said in ("clear", "escalate"):
            file.write_text(json.dumps({"record_id": "r1", "reviewer": "anna", "answer": said}))
            labelling.import_answers([file], queue, answers, run / "labels.parquet")
            assert [one.says for one in answers.standing()] == [said]
        assert len([*answers.every()]) == 2


def test_numbers_that_a_data_frame_wrote_are_read(queue: Queue, tmp_path: Path) -> None:
    """Of a column with holes it makes 3.0 of 3, and NaN of nothing."""
    file = tmp_path / "a.csv"
    file.write_text("source,source_row,reviewer,answer,revealed\n"
                    "dump.parquet,3.0,anna,clear,2.0\ndump.parquet,6.5,anna,clear,\n")  # fmt: skip
    known = answer_files.Known.of(queue.keys(), queue.table["record_id"].to_pylist(), ["hate"])
    (one,), (problem,), _ = answer_files.read(file, known)
    assert (one.key, one.revealed) == (("dump.parquet", 3), 2)
    assert (problem.where.rpartition(" ")[2], problem.what) == (
        "3", "no number, or no whole one, where one should be",
    )  # fmt: skip
    lines = [{"record_id": "r1", "reviewer": "anna", "answer": "clear", "revealed": float("nan")},
             {"record_id": "r2", "answer": float("nan")}]  # fmt: skip
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    (one,), problems, _ = answer_files.read(file, known)
    assert (one.record_id, one.revealed, problems) == ("r1", None, [])


def test_rows_that_are_no_answers_are_told_and_cost_no_other(
    run: Path, queue: Queue, tmp_path: Path
) -> None:
    good = {"record_id": "r1", "reviewer": "anna", "answer": "clear"}
    bad: list[Any] = [
        good | {"answer": "delete"},
        good | {"reviewer": "Anna Smith <a@b.example>"},
        good | {"record_id": "no such"},
        good | {"source": "dump.parquet", "source_row": 1},
        good | {"source": "dump.parquet", "source_row": "x"},
        good | {"answer": "flag", "answer_category": "rude"},
        good | {"answered_at": "yesterday"},
        good | {"seconds": "long"},
        good | {"answer": "undo"},
        good | {"record_id": {"x": []}, "settles": [1]},
        good | {"answer": "flag", "answer_category": ["hate"]},
        good | {"revealed": 1 << 70},
        [1, 2],
    ]
    lines = [json.dumps(row) for row in [*bad, good, {"record_id": "r2"}]]
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join([*lines, "{", "[" * 100_000, ""]))
    known = answer_files.Known.of(queue.keys(), queue.table["record_id"].to_pylist(), ["hate"])
    found, problems, _ = answer_files.read(file, known)
    assert [one.record_id for one in found] == ["r1"]
    assert [p.where.rpartition(" ")[2] for p in problems] == [
        *map(str, range(1, len(bad) + 1)), str(len(lines) + 1), str(len(lines) + 2),
    ]  # fmt: skip
    assert not any("Smith" in p.what or "rude" in p.what for p in problems)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", b""), ("a.json", b"{"), ("a.json", b"{}"), ("a.json", b"[" * 100_000),
     ("a.parquet", b"PAR1"), ("a.csv", b'record_id,answer\nr1,"clear\nr2,clear\n'),
     ("a.jsonl", b"\xff\xfe{}"), ("none.csv", None)],
)  # fmt: skip
def test_files_that_are_none_are_refused(
    queue: Queue, tmp_path: Path, name: str, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError):
        answer_files.read(tmp_path / name, answer_files.Known.of([], [], []))


def test_answers_with_lone_surrogates_and_long_cells_are_kept(
    run: Path, queue: Queue, tmp_path: Path
) -> None:
    odd, long = tmp_path / "odd.jsonl", tmp_path / "long.csv"
    odd.write_text(r"""{"record_id": "r1", "reviewer": "a", "answer": "flag", "note": "\ud800"}""")
    long.write_text("record_id,text,reviewer,answer\nr2," + "x" * 200_000 + ",b,clear\n")
    with Answers.open(run / "answers.sqlite") as answers:
        done = labelling.import_answers([odd, long], queue, answers, run / "labels.parquet")
        assert (done.new, done.problems) == (2, ())
        assert {one.record_id: one.note for one in answers.standing()} == {"r1": "?", "r2": None}
    assert csv.field_size_limit() == 1 << 17  # the setting of all of Python is left alone


def test_labels_are_what_the_other_commands_read(run: Path, queue: Queue) -> None:
    with Answers.open(run / "answers.sqlite") as answers:
        answers.add(a(queue, i, "clear") for i in range(22))
        part = labelling.import_answers([], queue, answers, run / "labels.parquet")
        assert part.waiting == 1
        (source,) = discover([str(run / "labels.parquet")])
        assert read_labels(source, None)["any"].tolist() == [0] * 22
        with pytest.raises(InputError, match="inclusion_floor"):  # some had no chance: no proof
            read_inclusion(source)
        answers.add([a(queue, 22, "spam_scam")])
        labelling.import_answers([], queue, answers, run / "labels.parquet")
    (source,) = discover([str(run / "labels.parquet")])
    inclusion = read_inclusion(source)
    assert inclusion is not None
    assert (inclusion.floor, inclusion.chance.tolist()) == (1.0, [1.0] * 23)
    assert read_labels(source, None)["spam_scam"].tolist() == [0] * 22 + [1]


def test_a_row_without_a_name_is_about_no_record(tmp_path: Path) -> None:
    known = answer_files.Known.of([("a.parquet", 0)], ["None"], ["toxic"])
    (tmp_path / "a.jsonl").write_text('{"answer": "clear", "reviewer": "r"}\n')
    answers, problems, _ = answer_files.read(tmp_path / "a.jsonl", known)
    assert not answers
    assert [one.what for one in problems] == ["of no record of this queue"]


def test_labels_of_a_sample_are_what_an_audit_reads(tmp_path: Path) -> None:
    made = [
        row | {"verdict": "clear", "inclusion_probability": 0.5, "inclusion_floor": 0.1}
        for row in rows()
    ]
    out = write_queue(tmp_path / "out", made) / "review"
    queue = open_queue(out)
    assert queue.sample
    assert {*queue.severities()} == {1}  # what was cleared uses up no session
    with Answers.open(tmp_path / "a") as answers:
        answers.add(a(queue, i, "hate" if i == 3 else "clear") for i in range(10))
        labelling.import_answers([], queue, answers, tmp_path / "labels.parquet")
    shares = {(s.what, s.label): s for s in audit.report(tmp_path / "labels.parquet")}
    found = shares["violate", "any"].share
    assert found is not None
    assert found.value == pytest.approx(0.1)
    assert shares["missed", "hate"].n == 1


def test_what_a_sample_was_answered_without_is_told(tmp_path: Path) -> None:
    """Rows of severity 2, 4, 5, 2, and so on; two severe ones are left out of the first ten."""
    out = write_queue(tmp_path / "out", rows()) / "review"
    queue = open_queue(out, columns=labelling.COLUMNS)  # as the command has it
    with Answers.open(tmp_path / "a") as answers:
        answers.add(a(queue, i, "clear") for i in range(10) if i not in (0, 1, 2))
        done = labelling.import_answers([], queue, answers, tmp_path / "labels.parquet")
        assert done.passed_over == (3, 2)
        answers.add(a(queue, i, "clear") for i in (0, 1, 2))
        done = labelling.import_answers([], queue, answers, tmp_path / "labels.parquet")
        assert done.passed_over == (0, 0)  # the first of a random order
    with Answers.open(tmp_path / "b") as none:
        done = labelling.import_answers([], queue, none, tmp_path / "labels.parquet")
        assert done.passed_over == (0, 0)
    whole = open_queue(tmp_path / "out")
    with Answers.open(tmp_path / "c") as answers:
        answers.add([a(whole, 5, "clear")])
        done = labelling.import_answers([], whole, answers, tmp_path / "labels.parquet")
        assert done.passed_over is None  # a queue is no sample


def test_a_long_queue_is_not_held_in_memory(tmp_path: Path) -> None:
    """80 MB of text, of which three records are labelled."""
    some = rows(2)[0]
    made = [
        some | {"source_row": i, "record_id": f"r{i}", "text": "x" * 4000} for i in range(20_000)
    ]
    run = write_queue(tmp_path / "out", made)
    del made
    queue = open_queue(run, most=1 << 62, columns=labelling.COLUMNS)
    assert "text" not in queue.table.column_names
    assert queue.table.nbytes < 4_000_000
    with Answers.open(tmp_path / "a") as answers:
        answers.add(a(queue, i, "clear") for i in (3, 9_000, 19_999))
        done = labelling.import_answers([], queue, answers, tmp_path / "labels.parquet")
        few = open_queue(run, most=1 << 62, columns=stats.COLUMNS)
        assert few.table.nbytes < 8_000_000
        found = stats.stats(few, answers.standing())
    table = pq.read_table(tmp_path / "labels.parquet")
    assert done.labelled == table.num_rows == 3
    assert table["record_id"].to_pylist() == ["r3", "r9000", "r19999"]
    assert table["rank"].to_pylist() == [4, 9_001, 20_000]
    assert {*table["text"].to_pylist()} == {"x" * 4000}
    assert found.answered == 3
    assert sum(one.records for one in found.overturned if one.by == "band") == 3


def test_conflicts_are_listed_and_never_resolved(run: Path, queue: Queue) -> None:
    def done() -> labelling.Imported:
        return labelling.import_answers([], queue, answers, run / "labels.parquet")

    with Answers.open(run / "answers.sqlite") as answers:
        answers.add([a(queue, 0, "clear"), a(queue, 0, "hate", "ben")])
        answers.add([a(queue, 1, "toxic"), a(queue, 1, "hate", "ben")])
        answers.add([a(queue, 2, "hate"), a(queue, 2, "hate", "ben")])
        answers.add([a(queue, 3, "clear"), a(queue, 3, "escalate", "ben")])
        found = done()
        assert [one.about for one in found.conflicts] == ["any", "category"]
        assert found.escalated == 1
        table = pq.read_table(run / "labels.parquet")
        assert labels_of(table) == {"r1": {"any": 1}, "r2": {"hate": 1, "any": 1}}
        assert table["reviewer"].to_pylist() == ["anna+ben"] * 2
        with (run / "labels-conflicts.csv").open(newline="") as file:
            written = [*csv.DictReader(file)]
        assert [(row["record_id"], row["reviewer"], row["answer"]) for row in written] == [
            ("r0", "anna", "clear"), ("r0", "ben", "flag"),
            ("r1", "anna", "flag"), ("r1", "ben", "flag"),
        ]  # fmt: skip
        answers.add(a(queue, i, "hate", "lead", settles=True) for i in (0, 1, 3))
        found = done()
        assert (found.conflicts, found.escalated, found.labelled) == ((), 0, 4)
        only = {
            tuple(one.items()) for one in labels_of(pq.read_table(run / "labels.parquet")).values()
        }
        assert only == {(("hate", 1), ("any", 1))}


def test_answers_by_another_policy_say_what_they_were_asked(run: Path, queue: Queue) -> None:
    """A category that is new, or means something else now, was not judged then."""
    now = queue.policy
    narrow = [replace(c, definition="Other words.") if c.name == "toxic" else c
              for c in now.categories if c.name != "self_harm"]  # fmt: skip
    then = replace(now, fingerprint="f" * 64, categories=tuple(narrow))
    with Answers.open(run / "answers.sqlite") as answers:
        answers.note_policy(now)
        answers.add(
            replace(a(queue, i, said), policy=by)
            for i, (said, by) in enumerate(
                [("clear", "f" * 64), ("hate", "f" * 64), ("toxic", "f" * 64),
                 ("clear", now.fingerprint), ("clear", "0" * 64), ("clear", None)]
            )
        )  # fmt: skip
        labelling.import_answers([], queue, answers, run / "labels.parquet")
        every = {c.name: 0 for c in now.categories} | {"any": 0}
        before = labels_of(pq.read_table(run / "labels.parquet"))
        assert before["r0"] == every  # nothing is known of that policy
        answers.note_policy(then)
        answers.note_policy(then)
        done = labelling.import_answers([], queue, answers, run / "labels.parquet")
    found = labels_of(pq.read_table(run / "labels.parquet"))
    judged = {*every} - {"any", "toxic", "self_harm"}
    assert found["r0"] == dict.fromkeys(judged, 0)
    assert found["r1"] == {"hate": 1, "any": 1}
    assert "r2" not in found
    assert [found[f"r{i}"] == every for i in (3, 4, 5)] == [True] * 3
    assert (done.labelled, done.other_policies) == (5, 4)


def test_any_order_of_answers_gives_the_same_labels(queue: Queue) -> None:
    draw = random.Random(3)
    made = [
        a(queue, draw.randrange(8), draw.choice(["clear", "hate", "toxic", "escalate"]), who)
        for who in ("anna", "ben", "cleo")
        for _ in range(12)
    ]

    def result(some: Sequence[Answer]) -> Any:
        from edgemod.reviewing.answers import standing

        table, conflicts, escalated = labelling.labels(queue, standing(some))
        return labels_of(table), [{*one.answers} for one in conflicts], escalated

    first = result(made)
    for _ in range(5):
        draw.shuffle(made)
        assert result(made) == first


def test_answers_in_a_file_are_not_replaced(run: Path, queue: Queue, tmp_path: Path) -> None:
    file = tmp_path / "open.csv"
    export.export(queue, set(), file, "csv")
    filled(file, {"r0": "clear"})
    before = file.read_bytes()
    with pytest.raises(OutputError, match="may hold answers"):
        export.export(queue, set(), file, "csv")
    with (
        Answers.open(tmp_path / "answers.sqlite", queue.about) as answers,
        pytest.raises(OutputError, match="is the input itself"),
    ):
        labelling.import_answers([file], queue, answers, file)
    assert file.read_bytes() == before
    page = tmp_path / "page.html"  # answers are in the browser
    for _ in range(2):
        export.export(queue, set(), page, "html")


# ---------------------------------------------------------------- commands


def test_the_commands(run: Path, tmp_path: Path) -> None:
    def call(*arguments: str) -> Any:
        return CliRunner().invoke(cli, ["review", *arguments], catch_exceptions=False)

    for format in export.FORMATS:
        told = call("export", str(run), "--format", format)
        assert told.exit_code == 0
        assert "23 records" in told.output
    filled(run / "review-open.csv", {"r0": "clear", "r1": "hate", "r2": "hate"})
    told = call("import", str(run / "review-open.csv"), "--run", str(run))
    assert "3 answers read, 3 of them new" in told.output
    assert "20 waiting" in told.output
    told = call("import", "--run", str(run), "--json")
    assert json.loads(told.output)["labelled"] == 3
    assert "3 of 23 records answered" in call("stats", str(run)).output
    assert json.loads(call("stats", str(run), "--json").output)["answered"] == 3
    for wrong in (["--cap", "6=1"], ["--cap", "5"], ["--without", "rude"], ["--reviewer", "a b"]):
        assert call("export", str(run), "--format", "html", *wrong).exit_code == 2
    assert "record 'r" not in told.output


def test_the_queue_of_a_run_has_its_policy_and_overlay(tmp_path: Path) -> None:
    """Where the run had it, without being told; what has changed is no longer it."""
    policy = tmp_path / "own.toml"
    policy.write_text(
        'name = "own"\nversion = "1"\nstages = ["rule", "filter"]\nlanguages = []\n'
        '[category.toxic]\nseverity = 2\ndefinition = "Rude."\n'
        "filter = { clear_below = 0.0, flag_above = inf }\n"
        '[overlay.attack]\ndescription = "Worse."\n'
        "[overlay.attack.category.toxic]\nseverity = 3\n"
    )
    pq.write_table(pa.table({"text": ["good morning", "see you"]}), tmp_path / "in.parquet")
    triage(tmp_path / "in.parquet", tmp_path / "out", policy=policy, overlay="attack", model=None,
           workers=1)  # fmt: skip
    assert open_queue(tmp_path / "out").policy.name == "own"
    result = CliRunner().invoke(cli, ["review", "stats", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    policy.write_text(policy.read_text().replace("Rude.", "Ruder."))
    with pytest.raises(InputError, match="has changed since"):
        open_queue(tmp_path / "out")
