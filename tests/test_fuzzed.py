"""Inputs that scripts/fuzz.py found, or that its shapes are made of: what each must come to."""

from __future__ import annotations

import contextlib
import fcntl
import json
import random
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import edgemod
import fuzz
from edgemod import run_folder
from edgemod.errors import CalibrationError, InputError, PolicyError, RunError
from edgemod.parts import clean_abandoned, hold
from edgemod.records import discover, read_chunks, resolve_columns
from edgemod.words import Status

DEEP = 10_000


def message(blob: bytes) -> bytes:
    return struct.pack("<QQ", 1, len(blob)) + blob


FOUND: list[tuple[str, bytes, type[Exception] | None]] = [
    # Each cost minutes, or memory without end.
    ("policy", b"a" + b".a" * 50_000 + b" = 1", PolicyError),
    ("policy", b"[a" + b".a" * 50_000 + b"]", PolicyError),
    ("policy", b"x = {a" + b".a" * 50_000 + b" = 1}", PolicyError),
    ("policy", b'a = """' + b'""\\"' * 60_000, PolicyError),
    ("policy", b'a = "' + b'\\"' * 100_000, PolicyError),
    ("policy", b"a = " + b"[" * DEEP + b"]" * DEEP, PolicyError),
    ("policy", b"a = " + b"{a=" * DEEP + b"1" + b"}" * DEEP, PolicyError),
    # Each ended in an error of Python's.
    ("calibration", b"[" * DEEP + b"]" * DEEP, CalibrationError),
    ("calibration", b'{"format":1,"maps":' + b"[" * DEEP + b"]" * DEEP + b"}", CalibrationError),
    ("worker", message(b"[" * DEEP + b"]" * DEEP), ValueError),
    ("worker", message(b"null"), ValueError),
    ("worker", struct.pack("<Q", 0), ValueError),
    ("worker", struct.pack("<QQ", 1, 1 << 63), ValueError),
    ("worker", struct.pack("<QQ", 1 << 63, 2) + b"{}", EOFError),
    ("worker", struct.pack("<QQ", 2, 2) + b"{}" + struct.pack("<Q", 0), ValueError),
    # These always were as they should be.
    ("jsonl", b'{"text": ' + b"[" * DEEP + b"]" * DEEP + b'}\n{"text": "x"}\n', None),
    ("jsonl", b'{"text": "a\\ud800"}\n{"text": "\\u0000"}\n', None),
    ("csv", b"id,text\n1,\x00\n2,\xed\xa0\x80\n", None),
    ("kernels", "a\u0301\u200d\U0001f3fd\x00\U0010ffff\ufdd0".encode() * 9, None),
]


@pytest.mark.parametrize(("target", "data", "expected"), FOUND)
def test_found(target: str, data: bytes, expected: type[Exception] | None) -> None:
    if expected is None:
        fuzz.TARGETS[target].check(data)
    else:
        with pytest.raises(expected):
            fuzz.TARGETS[target].check(data)


@pytest.mark.parametrize("target", ["parquet", "csv", "jsonl", "labels", "policy", "calibration"])
def test_what_fuzzing_begins_with_is_sound(target: str) -> None:
    for seed in fuzz.TARGETS[target].seeds():
        with contextlib.suppress(*fuzz.TARGETS[target].raises):
            fuzz.TARGETS[target].check(seed)


@pytest.mark.parametrize(
    "target", ["parquet", "csv", "jsonl", "labels", "policy", "calibration", "worker"]
)
def test_mutated_inputs_raise_nothing_else(target: str) -> None:
    draw, chosen = random.Random(target), fuzz.TARGETS[target]
    seeds = chosen.seeds()
    for _ in range(60):
        with contextlib.suppress(*chosen.raises):
            chosen.check(fuzz.mutated(draw, seeds))


@pytest.mark.usefixtures("one_process")
def test_answers() -> None:
    target = fuzz.TARGETS["answers"]
    seeds, draw = target.seeds(), random.Random(0)
    for seed in seeds:
        target.check(seed)
    source, row = fuzz._queue().keys()[0]
    named = {"source": source, "source_row": row, "answer": "flag", "answer_category": "hate"}
    for odd in (
        {"note": "\ud800"}, {"answer_id": "\udfff"}, {"revealed": 1 << 70},
        {"answer_category": ["hate"]}, {"seconds": float("nan")},
    ):  # fmt: skip
        target.check(b"\0" + json.dumps(named | odd).encode())
    with pytest.raises(InputError):
        target.check(b"\3" + b"[" * DEEP)
    for _ in range(40):
        with contextlib.suppress(InputError):
            target.check(fuzz.mutated(draw, seeds))


def statuses(path: Path) -> list[tuple[str, str]]:
    """Id and status of each record of a file."""
    sources = discover([path])
    found: list[tuple[str, str]] = []
    for chunk in read_chunks(sources, resolve_columns(sources), max_text_bytes=100):
        names = [Status(value).name for value in chunk.texts["status"].to_pylist()]
        found += zip(chunk.records["record_id"].to_pylist(), names, strict=True)
    return found


@pytest.mark.parametrize("torn", ['x,"a" b', "x,a,b", "x"])
def test_torn_rows_among_good_ones_keep_their_places(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,text\n" + "".join(f"r{i},good\n{torn}\n" for i in range(3000)))
    assert statuses(path) == [
        row for i in range(3000) for row in ((f"r{i}", "ok"), (f"a.csv#{2 * i + 1}", "unreadable"))
    ]


@pytest.mark.parametrize(
    ("good", "torn"),
    [
        ('{"id": "r", "text": "good"}', '{"id": "r", "te'),
        ('{"id": "r", "messages": [{"role": "a", "content": "b"}]}', '{"id": "r", "messages": 1}'),
    ],
)
def test_torn_lines_among_good_ones_keep_their_places(tmp_path: Path, good: str, torn: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{good}\n{torn}\n" * 500)
    assert statuses(path) == [
        row for i in range(500) for row in (("r", "ok"), (f"a.jsonl#{2 * i + 1}", "unreadable"))
    ]


@pytest.mark.parametrize("blank", [b"\n" * (1 << 21), b"\r\n" * (1 << 20)])
def test_blank_lines_before_a_header_hide_nothing(tmp_path: Path, blank: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(blank + b"id,text\nr1,x\n")
    assert statuses(path) == [("r1", "ok")]


def test_what_a_killed_score_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    left, used, other, longer = (
        tmp_path / name
        for name in (
            ".out.parquet.abcd1234.partial",
            ".out.parquet.efgh5678.partial",
            ".out.abcd1234.partial",
            ".out.parquet.b.abcd1234.partial",
        )
    )
    for path in (left, used, other, longer):
        path.touch()
    with hold(used):
        clean_abandoned(tmp_path / "out.parquet")
    assert {*tmp_path.iterdir()} == {used, other, longer}
    with used.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_message_with_an_empty_stream_is_none() -> None:
    sink = pa.BufferOutputStream()
    pa.ipc.new_stream(sink, pa.schema([("a", pa.int8())])).close()
    blob = bytes(sink.getvalue())
    data = struct.pack("<QQ", 2, 2) + b"{}" + struct.pack("<Q", len(blob)) + blob
    with pytest.raises(ValueError, match="not a message"):
        fuzz.TARGETS["worker"].check(data)


@pytest.mark.usefixtures("one_process")
def test_a_run_that_says_odd_things_of_itself(dump: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    edgemod.triage(dump, out, model=None, workers=1)
    whole = json.loads((out / "run.json").read_text())
    odd: dict[str, Any]
    for odd in (
        {"rows": []},
        {"chunks": 1 << 60},
        {"plan": {"format": run_folder.FORMAT}},
        {"plan": {**whole["plan"], "chunk_rows": 0}},
        {"plan": {**whole["plan"], "columns": None}},
        {"plan": {**whole["plan"], "columns": {**whole["plan"]["columns"], "text": []}}},
        {"inputs": [None]},
    ):
        (out / "run.json").write_text(json.dumps({**whole, **odd}))
        with pytest.raises(RunError, match="is missing or damaged"):
            edgemod.verify(out)
    told = json.loads((out / "report.json").read_text())
    for odd in ({"verdicts": {"clear": "x"}}, {"review": {}}, {"quarantined": [1]}, {"rates": []}):
        (out / "report.json").write_text(json.dumps({**told, **odd}))
        with pytest.raises(RunError, match="is missing or damaged"):
            run_folder.read_report(out)


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("name", ["run.json", "report.json"])
def test_a_file_of_a_run_that_is_nested_without_end(dump: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    edgemod.triage(dump, out, model=None, workers=1)
    (out / name).write_bytes(b"[" * DEEP + b"]" * DEEP)
    for read in (run_folder.complete_state, edgemod.verify)[: 1 if name == "report.json" else 2]:
        with pytest.raises(RunError, match="is missing or damaged"):
            read(out)
