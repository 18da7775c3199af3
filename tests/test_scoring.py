"""Scoring a file changes nothing in it but for the probabilities it adds."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgemod import measuring, records
from edgemod.errors import InputError, OutputError
from edgemod.scoring import ScoredFile, filter_scores, score, score_file
from edgemod.triager import PROBABILITIES, Triager
from edgemod.words import OUTPUTS, Status
from samples import write_dump

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("measured_here")


def scored(path: Path, **options: Any) -> tuple[ScoredFile, pa.Table]:
    out = path.with_name("out.parquet")
    done = score_file(path, out, stage="filter", **options)
    return done, pq.read_table(out)


def dictionary(values: Sequence[Any], index: pa.DataType, ordered: bool = False) -> pa.Array:
    plain = pa.array(values).dictionary_encode()
    return pa.DictionaryArray.from_arrays(
        plain.indices.cast(index), plain.dictionary, ordered=ordered
    )


def test_columns_keep_types_nullability_and_metadata(tmp_path: Path) -> None:
    moment = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    columns = {
        "text": dictionary(["hello", "you idiot", "hello"], pa.int8()),
        "lang": dictionary(["en", None, "fr"], pa.int16(), ordered=True),
        "bytes": dictionary([b"a", b"b", b"a"], pa.int32()),
        "when": pa.array([moment, None, moment], pa.timestamp("ms", "UTC")),
        "tags": pa.array([["a"], [], None], pa.list_(pa.string())),
        "n": pa.array([1, 2, 3], pa.uint8()),
    }
    fields = [
        pa.field(name, column.type, nullable=name != "n", metadata={"about": name})
        for name, column in columns.items()
    ]
    schema = pa.schema(fields, metadata={"made by": "a test"})
    path = tmp_path / "in.parquet"
    table = pa.Table.from_arrays(list(columns.values()), schema=schema)
    pq.write_table(table, path, row_group_size=2)
    source = pq.read_table(path)
    done, got = scored(path, text=["text"], workers=2)
    assert done == ScoredFile(rows=3, unreadable=0, notices=())
    assert got.select(source.column_names).to_pylist() == source.to_pylist()
    assert got.select(source.column_names).schema.equals(source.schema, check_metadata=True)
    added = got.schema.names[len(source.column_names) :]
    assert added == [f"p_{name}" for name in OUTPUTS]
    assert {(got.schema.field(p).type, got.schema.field(p).nullable) for p in added} == {
        (pa.float32(), True)
    }
    first, second, third = got["p_any"].to_pylist()
    assert first == third < second


def test_rows_that_cannot_be_read_are_null_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    schema = pa.schema(
        [
            pa.field("text", pa.string(), nullable=False, metadata={"about": "text"}),
            pa.field("n", pa.dictionary(pa.int32(), pa.string())),
        ],
        metadata={"made by": "a test"},
    )
    texts = pa.array([f"hello number {i}" for i in range(9000)])
    table = pa.Table.from_arrays([texts, texts.dictionary_encode()], schema=schema)
    pq.write_table(table, path, row_group_size=4500, use_dictionary=["n"], compression="zstd")
    damaged = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    damaged[start : start + 64] = bytes(64)
    path.write_bytes(damaged)
    done, got = scored(path, text=["text"])
    assert (done.rows, done.unreadable) == (9000, 4500)
    assert got["text"][:4500].to_pylist() == texts[:4500].to_pylist()
    assert {got[name][4500:].null_count for name in got.column_names} == {4500}
    assert got.schema.field("text").nullable
    assert got.schema.field("text").metadata == {b"about": b"text"}
    assert got.schema.metadata[b"made by"] == b"a test"
    assert got.schema.field("n").type == schema.field("n").type


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    table = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["text", "n", "n"])
    pq.write_table(table, path)
    with pytest.raises(InputError, match="two columns are named 'n'"):
        scored(path)
    assert list(tmp_path.iterdir()) == [path]


BROKEN = pa.array([b"\xff", b"ok", None]).cast(pa.string(), safe=False)
KEYS = pa.array(["a", "b", "c"])
EACH = pa.array([0, 1, 2, 3], pa.int32())
ONES = pa.array([1, 1, 1], pa.int32())


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.MapArray.from_arrays(EACH, KEYS, BROKEN), [[("a", "\ufffd")], [("b", "ok")]]),
        (pa.MapArray.from_arrays(EACH, BROKEN.fill_null("x"), KEYS), [[("\ufffd", "a")]]),
        (pa.FixedSizeListArray.from_arrays(BROKEN, 1), [["\ufffd"], ["ok"], [None]]),
        (pa.ListViewArray.from_arrays(EACH[:3], ONES, BROKEN), [["\ufffd"], ["ok"], [None]]),
        (pa.LargeListArray.from_arrays(EACH, BROKEN), [["\ufffd"], ["ok"], [None]]),
        (pa.ListArray.from_arrays(EACH, BROKEN.dictionary_encode()), [["\ufffd"], ["ok"]]),
        (pa.ExtensionArray.from_storage(pa.json_(), BROKEN), ["\ufffd", "ok", None]),
        (
            pa.StructArray.from_arrays([BROKEN, pa.array([b"\xff"] * 3)], ["text", "bytes"]),
            [{"text": "\ufffd", "bytes": b"\xff"}, {"text": "ok", "bytes": b"\xff"}],
        ),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)  # fmt: skip
def test_strings_that_are_not_utf8_inside_other_values(
    tmp_path: Path, column: pa.Array, expected: list[Any]
) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["x"] * 3, "other": column}), path)
    _, table = scored(path, text=["text"])
    table.validate(full=True)
    assert table["other"].type == pq.read_schema(path).field("other").type
    assert table["other"].to_pylist()[: len(expected)] == expected


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_texts_that_are_not_utf8_are_written_as_valid_text(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"in.{form}"
    if form == "csv":
        path.write_bytes(b"text,tags\nhello,a\n\xff\xfe,b\xff\n")
        tags: list[Any] = ["a", "b\ufffd"]
    else:
        bad = pa.array([b"hello", b"\xff\xfe"]).cast(pa.string(), safe=False)
        # The layout of each kind of string, lists of structs included.
        inner = pa.StructArray.from_arrays([bad], fields=[pa.field("s", pa.string())])
        nested = pa.ListArray.from_arrays([0, 1, 2], inner)
        fields = [pa.field("text", pa.string(), nullable=False), pa.field("tags", nested.type)]
        pq.write_table(pa.Table.from_arrays([bad, nested], schema=pa.schema(fields)), path)
        tags = [[{"s": "hello"}], [{"s": "\ufffd\ufffd"}]]
    done, got = scored(path, text=["text"])
    got.validate(full=True)
    assert (done.rows, done.unreadable) == (2, 0)
    assert got["text"].to_pylist() == ["hello", "\ufffd\ufffd"]
    assert got["tags"].to_pylist() == tags
    assert got["p_any"].is_valid().to_pylist() == [True, False]


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_the_input_is_not_replaced(tmp_path: Path, link: Any) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["hello"]}), path)
    before, out = path.read_bytes(), path
    if link is not None:
        out = tmp_path / "same.parquet"
        link(path, out)
    with pytest.raises(OutputError, match="is the input itself"):
        score_file(path, out, stage="filter")
    assert path.read_bytes() == before


def test_a_file_that_changes_while_it_is_scored_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text\nhello\n")
    resolve = records.resolve_columns

    def change(*given: Any, **named: Any) -> Any:
        path.write_text("text\nworld\n")
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # a clock may be coarse
        return resolve(*given, **named)

    monkeypatch.setattr(records, "resolve_columns", change)
    with pytest.raises(InputError, match="changed while it was being read"):
        scored(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_of_files_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pq.write_table(pa.table({"text": ["a"]}), tmp_path / f"{name}.parquet")
    with pytest.raises(InputError, match="folder of several files"):
        score_file(tmp_path, tmp_path / "out.parquet", stage="filter")


def test_json_values_of_another_type_are_an_error_of_the_input(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    first = '{"text": "a", "n": 1}\n' * 1000
    path.write_text(first + '{"text": "b", "n": "many"}\n')
    with pytest.raises(InputError, match="'n' has values that are not int64"):
        scored(path)


def test_an_odd_json_value_in_another_column_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    lines = ['{"text": "a", "user": {"id": 1, "tags": ["x"]}}'] * 5
    lines[2] = '{"text": "b", "user": "gone"}'
    lines[3] = '{"text": "c", "user": {"id": {}, "tags": [5, null, {}]}}'
    path.write_text("\n".join(lines))
    done, table = scored(path)
    assert (done.rows, done.unreadable) == (5, 0)
    assert table["text"].to_pylist() == ["a", "a", "b", "c", "a"]
    usual = {"id": 1, "tags": ["x"]}
    odd = {"id": None, "tags": ["5", None, None]}
    assert table["user"].to_pylist() == [usual, usual, None, odd, usual]
    assert table["p_any"].null_count == 0


def test_a_guessed_text_column_is_a_notice(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"id": ["1"], "body": ["hello"]}), path)
    (notice,) = scored(path)[0].notices
    assert "text column: using 'body'" in notice
    assert scored(path, text=["body"])[0].notices == ()


def test_an_interrupt_ends_soon_and_leaves_nothing(tmp_path: Path) -> None:
    path = write_dump(tmp_path / "in.parquet", 50_000)  # minutes
    process = subprocess.Popen(
        [sys.executable, "-m", "edgemod", "score", path, "-o", tmp_path / "out.parquet",
         "--stage", "model", "--workers", "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while not list(tmp_path.glob(".out*")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.strip()) == (130, b"edgemod: interrupted")
    assert list(tmp_path.iterdir()) == [path]


def test_units_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = write_dump(tmp_path / "in.parquet", 300), tmp_path / "out.parquet"
    tables = []
    for rows in (7, 256):
        monkeypatch.setattr(measuring, "UNIT_ROWS", rows)
        score_file(path, out, text=["text"], stage="cascade")
        tables.append(pq.read_table(out))
        assert pq.ParquetFile(out).num_row_groups == 1
    assert tables[0].equals(tables[1])


def test_row_groups_of_long_rows_are_small(tmp_path: Path) -> None:
    """80 MB of 20 rows, none of which is scored, must not be in memory at once."""
    texts = [f"{i} " * (1 << 21) for i in range(20)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet", row_group_size=1)
    score_file(tmp_path / "in.parquet", tmp_path / "out.parquet", stage="filter")
    made = pq.ParquetFile(tmp_path / "out.parquet")
    assert made.metadata.num_rows == 20
    assert made.metadata.num_row_groups >= 4


def test_equal_texts_have_equal_scores(triager: Triager) -> None:
    texts = ["see you at eight", "", "see you at eight", "you idiot", ""]
    answers = score(texts, triager=triager)
    assert answers[0] == answers[2] == score(texts[:1], triager=triager)[0]
    assert answers[1] == answers[4]
    assert answers[1].status == Status.empty_text.name
    assert answers[0].verdict == "clear"
    assert answers[3] != answers[0]


def test_what_is_not_utf8_is_not_scored(triager: Triager) -> None:
    answers = score(["see you at eight", "\udcff\udcfe", "a \ud800"], triager=triager)
    assert [a.status for a in answers] == ["ok", "not_utf8", "not_utf8"]
    assert [a.verdict for a in answers] == ["clear", "review", "review"]
    assert answers[1].probabilities["any"] is None


def test_digits_alone_are_not_flagged_as_personal_data(triager: Triager) -> None:
    texts = ["meet at 12:30", "14 88", "2019", "he lives at 12 Elm Street"]
    answers = score([*texts, "my card is 4111 1111 1111 1111"], triager=triager)
    assert [a.verdict == "flag" for a in answers] == [False, False, False, False, True]
    fitted = tuple(replace(c, filter=None, model=None) for c in triager.policy.categories)
    with Triager(replace(triager.policy, categories=fitted), model=None) as other:
        assert score(texts[1:2], triager=other)[0].category == "pii"  # what this is here for


def run(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "edgemod", *map(str, arguments)],
        capture_output=True,
        input=stdin,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
    )


def test_command_says_what_it_guessed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["hello"]}), tmp_path / "in.parquet")
    told = run(
        "score", tmp_path / "in.parquet", "-o", tmp_path / "o.parquet", "--stage", "filter",
        "--workers", 1,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert b"text column: using 'body'" in told.stderr
    assert b"1 row written to " in told.stderr
    assert b"processes" in run("score", "--help").stdout


def test_lines_are_scored_as_they_come() -> None:
    """The first batch is answered while the writer of the lines still holds the pipe open."""
    command = [sys.executable, "-m", "edgemod", "score", "--model", "none"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        watchdog = threading.Timer(120, process.kill)  # a command that waits for the end fails
        watchdog.start()
        assert process.stdin is not None
        assert process.stdout is not None
        # Readers of text decode ahead by up to 8 KiB, so a little more than a batch is needed.
        process.stdin.write(b"see you at eight\n" * 3000)
        process.stdin.flush()
        first = [process.stdout.readline() for _ in range(1024)]
        rest, _ = process.communicate(b"good night\n")
        watchdog.cancel()
    assert first[-1].startswith(b'{"text": 1023,')
    lines = rest.splitlines()
    assert len(lines) == 3001 - 1024
    assert lines[-1].startswith(b'{"text": 3000,')
    assert all(b'"stage": "filter"' in line for line in first)


def test_texts_of_python_and_arrow_are_scored_alike() -> None:
    texts = ["good morning", "a lone \ud800 surrogate", None, ""]
    plain = filter_scores(texts)
    valid = [text if text is None or text.isascii() else None for text in texts]
    for column in (pa.array(valid), pa.chunked_array([valid[:1], valid[1:]])):
        np.testing.assert_array_equal(filter_scores(column), plain)
    assert np.isnan(plain).all(axis=1).tolist() == [False, True, True, True]


def test_command_sends_what_is_not_utf8_to_review(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_bytes(b"\xff\xfe\n")
    for arguments, stdin in (
        ([os.fsdecode(b"\xff\xfe")], b""),
        (["--file", lines], b""),
        ([], b"\xff\xfe\n"),
    ):
        told = run("score", "--model", "none", *arguments, stdin=stdin)
        assert told.returncode == 0, told.stderr
        answer = json.loads(told.stdout)
        assert (answer["verdict"], answer["status"]) == ("review", "not_utf8")


def test_policy_show_has_thresholds() -> None:
    shown = run("policy", "show").stdout.decode()
    assert "filter clears" in shown
    assert "calibration's" in shown
    assert "never" in shown
    assert set(PROBABILITIES) == {f"p_{name}" for name in OUTPUTS}
