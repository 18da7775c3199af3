"""Every row of every input comes out exactly once, whatever its type, layout or damage."""

import bz2
import csv
import datetime
import gzip
import io
import json
import os
import pickle
import random
import subprocess
import sys
import tracemalloc
import uuid
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemod import csv_files
from edgemod.errors import InputError
from edgemod.inspection import inspect
from edgemod.records import (
    RECORDS,
    TEXTS,
    Chunk,
    Columns,
    Source,
    chunk_of,
    discover,
    fingerprint,
    read_chunks,
    resolve_columns,
)
from edgemod.sources import absolute, open_parquet, partitions, passed_over
from edgemod.words import Status

LIMIT = 1000
TEXT = ("text",)


def read(path: str | Path | Sequence[Path], chunk_rows: int = 4096, **named: Any) -> list[Chunk]:
    sources = discover([path] if isinstance(path, str | Path) else path)
    columns = resolve_columns(sources, **named)
    chunks = list(read_chunks(sources, columns, chunk_rows=chunk_rows, max_text_bytes=LIMIT))
    for chunk in chunks:
        assert chunk.records.schema == RECORDS
        assert chunk.texts.schema == TEXTS
        chunk.records.validate(full=True)
        chunk.texts.validate(full=True)
    return chunks


def from_chunk(
    start: int, whole: list[Chunk], sources: list[Source], columns: Columns, **limits: int
) -> list[Chunk]:
    """Read again from a chunk on: after the rows of the chunks before."""
    start = min(start, len(whole))
    row = sum(chunk.records.num_rows for chunk in whole[:start])
    chunks = read_chunks(
        sources, columns, start=start, start_row=row, max_text_bytes=LIMIT, **limits
    )
    return list(chunks)


def column(chunks: list[Chunk], name: str) -> list[Any]:
    side = "records" if name in RECORDS.names else "texts"
    return [value for chunk in chunks for value in getattr(chunk, side).column(name).to_pylist()]


def statuses(chunks: list[Chunk]) -> list[str]:
    return [Status(value).name for value in column(chunks, "status")]


def parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


# -- types and codecs ----------------------------------------------------------------------

VALUES = ["plain", None, "", "h\u00e9llo \U0001f600", " \t\u200b", "x" * (LIMIT + 1)]
EXPECTED = ["ok", "null_text", "empty_text", "ok", "empty_text", "too_long"]


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(),
        pa.binary_view(), pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
    ids=str,
)  # fmt: skip
def test_every_text_type(tmp_path: Path, kind: pa.DataType) -> None:
    if pa.types.is_dictionary(kind):
        values = pa.array(VALUES, kind.value_type).dictionary_encode().cast(kind)
    else:
        values = pa.array(VALUES, pa.string()).cast(kind)
    chunks = read(parquet(tmp_path / "a.parquet", {"text": values}), text=TEXT)
    assert column(chunks, "text") == [*VALUES[:-1], "x" * LIMIT]
    assert statuses(chunks) == EXPECTED
    assert column(chunks, "message") == [-1] * 6
    assert column(chunks, "record_id") == [f"a.parquet#{i}" for i in range(6)]


def test_a_column_of_nulls(tmp_path: Path) -> None:
    chunks = read(parquet(tmp_path / "a.parquet", {"text": pa.nulls(2)}), text=TEXT)
    assert statuses(chunks) == ["null_text"] * 2


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_every_codec(tmp_path: Path, codec: str, version: str) -> None:
    texts = [f"text {i}" for i in range(5000)]
    path = parquet(
        tmp_path / "a.parquet", {"text": texts}, compression=codec, data_page_version=version
    )
    assert column(read(path), "text") == texts


@pytest.mark.parametrize("kind", [pa.binary(), pa.string()], ids=str)
def test_only_the_rows_that_are_not_utf8_are_marked(tmp_path: Path, kind: pa.DataType) -> None:
    raw = pa.array([b"good", b"\xff", None, b"\xed\xa0\x80", "h\u00e9".encode()], pa.binary())
    # A view: Parquet does not check strings, and neither must whoever writes a bad one.
    values = pa.Array.from_buffers(kind, len(raw), raw.buffers())
    chunks = read(parquet(tmp_path / "a.parquet", {"text": values}), text=TEXT)
    assert statuses(chunks) == ["ok", "not_utf8", "null_text", "not_utf8", "ok"]
    assert column(chunks, "text") == ["good", None, None, None, "h\u00e9"]


@pytest.mark.parametrize(
    ("text", "empty"),
    [
        ("\u3000\u2028", True), ("\u200d\ufeff\u2066", True), ("\u3164\u2800", True),
        ("\ufe0f", True), ("\x00\x1b", True), ("\u00ad", True),
        (".", False), ("\u2764\ufe0f", False), ("\u0915", False), ("\U000e0061", True),
    ],
)  # fmt: skip
def test_what_counts_as_empty(tmp_path: Path, text: str, empty: bool) -> None:
    chunks = read(parquet(tmp_path / "a.parquet", {"text": [text]}), text=TEXT)
    assert statuses(chunks) == ["empty_text" if empty else "ok"]


def test_several_text_columns_are_joined(tmp_path: Path) -> None:
    table = {
        "title": pa.array(["t", None, "", None, "", "t"]),
        "body": pa.array([b"b", b"b", b"b", None, b"", b"\xff"], pa.binary()),
    }
    chunks = read(parquet(tmp_path / "a.parquet", table), text=("title", "body"))
    assert column(chunks, "text") == ["t\nb", "b", "b", None, "", None]
    assert statuses(chunks) == ["ok", "ok", "ok", "null_text", "empty_text", "not_utf8"]


# -- ids, threads, times -------------------------------------------------------------------

UUID = uuid.UUID(int=0x1234)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([7, None, -1], pa.int64()), ["7", "a.parquet#1", "-1"]),
        (pa.array([2**64 - 1, 0, 1], pa.uint64()), [str(2**64 - 1), "0", "1"]),
        (pa.array(["x", "", "x"]), ["x", "a.parquet#1", "x"]),
        (pa.array(["x", None, "y"]).dictionary_encode(), ["x", "a.parquet#1", "y"]),
        (pa.array([b"\xff\x00", None, b"a"], pa.binary()), ["ff00", "a.parquet#1", "61"]),
        (pa.array([UUID.bytes] * 3, pa.uuid()), [str(UUID)] * 3),
        (pa.array([7.0, None, 0.5]), ["7", "a.parquet#1", "0.5"]),
        (pa.array([float("nan"), -3.0, 1e17]), ["a.parquet#0", "-3", "1e+17"]),
        (pa.array([7, None, 8]).cast(pa.decimal128(38, 0)), ["7", "a.parquet#1", "8"]),
        (pa.array([7.0, None, 0.5], pa.float16()), ["7", "a.parquet#1", "0.5"]),
        (pa.nulls(3), [f"a.parquet#{i}" for i in range(3)]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_ids(tmp_path: Path, ids: pa.Array, expected: list[str]) -> None:
    path = parquet(tmp_path / "a.parquet", {"key": ids, "text": ["a", "b", "c"]})
    assert column(read(path, id="key"), "record_id") == expected


MOMENT = datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pa.array([MOMENT.replace(tzinfo=None)], pa.timestamp("s")), "2024-05-06T07:08:09.000"),
        (pa.array([MOMENT], pa.timestamp("ms", "Asia/Tokyo")), "2024-05-06T07:08:09.000Z"),
        (pa.array([MOMENT.date()]), "2024-05-06"),
        (pa.array([1714979289]), "2024-05-06T07:08:09.000Z"),
        (pa.array([1714979289123]), "2024-05-06T07:08:09.123Z"),
        (pa.array([1714979289123456]), "2024-05-06T07:08:09.123Z"),
        (pa.array([1714979289123456789]), "2024-05-06T07:08:09.123Z"),
        (pa.array([1714979289.5]), "2024-05-06T07:08:09.000Z"),
        (pa.array([float("nan")]), None),
        (pa.array([2024.0], pa.float16()), "2024"),
        (pa.array([2**60], pa.timestamp("ms")), None),
        (pa.array([2024]), "2024"),
        (pa.array(["yesterday"]), "yesterday"),
        (pa.array([None], pa.int64()), None),
    ],
)
def test_times(tmp_path: Path, times: pa.Array, expected: str | None) -> None:
    path = parquet(tmp_path / "a.parquet", {"when": times, "text": ["a"]})
    assert column(read(path, time="when"), "time") == [expected]


def test_the_context_in_a_thread_is_the_text_before(tmp_path: Path) -> None:
    table = {
        "text": ["a1", "b1", "a2", "no", None, "a3", "no"],
        "thread_id": ["a", "b", "a", None, "a", "a", None],
        "author": [1, 2, 3, None, 1, 1, 1],
    }
    chunks = read(parquet(tmp_path / "a.parquet", table))
    assert column(chunks, "context") == [None, None, "a1", None, "a2", None, None]
    assert column(chunks, "thread_id") == table["thread_id"]
    assert column(chunks, "author_id") == ["1", "2", "3", None, "1", "1", "1"]


def test_a_context_column_is_taken_as_it_is(tmp_path: Path) -> None:
    table = {"text": ["a", "b"], "context": ["before", None], "thread_id": ["t", "t"]}
    path = parquet(tmp_path / "a.parquet", table)
    assert column(read(path, context="context"), "context") == ["before", None]


# -- conversations -------------------------------------------------------------------------

TALKS: list[Any] = [
    [{"role": "user", "content": "hi"}, {"role": "bot", "content": "yes?"}],
    None,
    [],
    [{"role": None, "content": None}, {"role": "user", "content": "so"}, None],
    [{"role": "bot", "content": None}, None],
]


def naive_messages(talks: list[Any]) -> list[tuple[Any, ...]]:
    """(record, message, role, text, context) the slow way."""
    rows: list[tuple[Any, ...]] = []
    for record, talk in enumerate(talks):
        before = None
        for number, message in enumerate(talk or []):
            if message and message["content"] is not None:
                rows.append((record, number, message["role"], message["content"], before))
                before = message["content"]
        if before is None:
            rows.append((record, -1, None, None, None))
    return rows


def message_rows(chunks: list[Chunk]) -> list[tuple[Any, ...]]:
    names = ("record", "message", "role", "text", "context")
    return list(zip(*(column(chunks, name) for name in names), strict=True))


@pytest.mark.parametrize("roles", ["role", "from"])
@pytest.mark.parametrize("wrap", [pa.list_, pa.large_list])
def test_conversations(tmp_path: Path, roles: str, wrap: Any) -> None:
    kind = wrap(pa.struct([("content", pa.string()), (roles, pa.string()), ("n", pa.int8())]))
    talks = [
        talk and [m and {roles: m["role"], "content": m["content"]} for m in talk] for talk in TALKS
    ]
    path = parquet(tmp_path / "a.parquet", {"chat_log": pa.array(talks, kind), "id": range(5)})
    chunks = read(path)
    assert message_rows(chunks) == naive_messages(TALKS)
    assert statuses(chunks) == ["ok", "ok", "null_text", "null_text", "ok", "null_text"]


def test_a_message_that_is_not_utf8_is_kept(tmp_path: Path) -> None:
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.binary())]))
    talks = [[{"role": "u", "content": b} for b in (None, b"\xff")]]
    path = parquet(tmp_path / "a.parquet", {"messages": pa.array(talks, kind)})
    chunks = read(path)
    assert message_rows(chunks) == [(0, 1, "u", None, None)]
    assert statuses(chunks) == ["not_utf8"]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.none()
        | st.lists(
            st.none()
            | st.fixed_dictionaries(
                {"role": st.none() | st.just("user"), "content": st.none() | st.text(max_size=3)}
            ),
            max_size=4,
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 5),
)
def test_conversations_equal_the_slow_way(talks: list[Any], at: int) -> None:
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    batch = pa.record_batch({"m": pa.array([None, *talks], kind)}).slice(min(at, len(talks)))
    columns = Columns((), "m", None, None, None, None, None, ())
    chunk = chunk_of(batch, columns, max_text_bytes=LIMIT)
    assert message_rows([chunk]) == naive_messages(talks[min(at, len(talks)) - 1 :])


def test_contents_made_of_parts(tmp_path: Path) -> None:
    part = pa.struct([("type", pa.string()), ("text", pa.string())])
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(part))]))
    words, image = {"type": "text", "text": "one"}, {"type": "image", "text": None}
    talks = [[
        {"role": "u", "content": [words, image, {"type": "text", "text": "two"}]},
        {"role": "u", "content": [image]}, {"role": "u", "content": None},
        {"role": "u", "content": [words]}, {"role": "u", "content": []},
    ]]  # fmt: skip
    path = parquet(tmp_path / "a.parquet", {"messages": pa.array(talks, kind)})
    chunks = read(path)
    assert column(chunks, "text") == ["one\ntwo", None, "one", None]
    assert column(chunks, "message") == [0, 1, 3, 4]
    assert statuses(chunks) == ["ok", "unreadable", "ok", "unreadable"]


HIDDEN = "the second message"


@pytest.mark.parametrize(
    "message",
    [
        HIDDEN, {"from": "u", "value": HIDDEN}, {"content": [[HIDDEN]]},
        {"content": "", "text": HIDDEN}, {"role": "u", "body": HIDDEN},
        {"author": {"role": "u"}, "content": {"content_type": "text", "parts": [HIDDEN]}},
        {"content": [{"type": "text", "text": {"value": HIDDEN}}]},
        {"content": [{"type": "tool_result", "content": HIDDEN}]},
        {"content": 4111111111111111},
        {"content": []}, {"content": {"image": 1}}, {"content": True},
        None, {}, {"role": "u"}, {"content": None}, {"role": "u", "tool_calls": [{"id": "x"}]},
    ],
    ids=lambda message: json.dumps(message)[:40],
)  # fmt: skip
def test_no_json_message_that_says_something_is_passed_over(tmp_path: Path, message: Any) -> None:
    first = {"role": "user", "content": "hi"}
    path = tmp_path / "a.jsonl"
    path.write_text(
        "\n".join(json.dumps({"messages": talk}) for talk in ([first], [first, message]))
    )
    rows = list(zip(*(column(read(path), n) for n in ("message", "text")), strict=True))[2:]
    found = "4111111111111111" if "4111" in str(message) else HIDDEN
    readable = found in str(message) and "body" not in str(message)
    silent = message is None or not {"content", "body"} & {*message} or message == {"content": None}
    assert rows == ([(1, found)] if readable else [] if silent else [(1, None)])
    if not readable and not silent:
        assert statuses(read(path))[-1] == "unreadable"


PART = pa.struct([("type", pa.string()), ("text", pa.string()), ("content", pa.string())])


@pytest.mark.parametrize(
    ("kind", "message", "text"),
    [
        (pa.list_(PART), {"content": [{"type": "x", "content": "a"}, {"text": "b"}]}, "a\nb"),
        (pa.list_(PART), {"content": [{"type": "image"}]}, None),
        (pa.list_(pa.list_(pa.string())), {"content": [["a"], ["b"]]}, "a\nb"),
        (pa.struct([("parts", pa.list_(pa.string()))]), {"content": {"parts": ["a"]}}, "a"),
        (pa.string(), {"value": "a"}, "a"),
        (pa.string(), {"content": "", "value": "a"}, "a"),
        (pa.string(), {"text": 1.5}, "1.5"),
        (pa.string(), {"message": True}, None),
    ],
    ids=str,
)  # fmt: skip
def test_no_parquet_message_that_says_something_is_passed_over(
    tmp_path: Path, kind: pa.DataType, message: Any, text: str | None
) -> None:
    fields = {
        "author": pa.struct([("role", pa.string())]), "from": pa.string(), "content": kind,
        "value": pa.string(), "text": pa.float16(), "message": pa.bool_(),
    }  # fmt: skip
    talk = [None, {"from": "u"}, {"from": "v", **message}]
    talks = pa.array([talk], pa.list_(pa.struct(list(fields.items()))))
    chunks = read(parquet(tmp_path / "a.parquet", {"messages": talks}))
    assert message_rows(chunks) == [(0, 2, "v", text, None)]
    assert statuses(chunks) == ["ok" if text else "unreadable"]


# -- files ---------------------------------------------------------------------------------


def test_layouts_and_files_without_rows(tmp_path: Path) -> None:
    """Empty files, empty row groups, other column orders, other text types: one stream."""
    parquet(tmp_path / "a.parquet", {"id": ["0"], "text": ["t0"]})
    parquet(tmp_path / "b.parquet", {"id": pa.array([], pa.string()), "text": pa.array([], "str")})
    parquet(tmp_path / "c.parquet", {"text": pa.array([b"t1"], pa.binary()), "n": [1], "id": [1]})
    fields = pa.schema([("text", pa.large_string()), ("id", pa.string())])
    with pq.ParquetWriter(tmp_path / "d.parquet", fields) as writer:
        for rows in ([], ["t2"], [], ["t3", "t4"], []):
            writer.write_table(pa.table({"text": rows, "id": rows}, fields))
    chunks = read(tmp_path, chunk_rows=2)
    assert [chunk.index for chunk in chunks] == [0, 1, 2]
    assert column(chunks, "text") == ["t0", "t1", "t2", "t3", "t4"]
    assert column(chunks, "record_id") == ["0", "1", "t2", "t3", "t4"]
    assert column(chunks, "source_row") == [0, 0, 0, 1, 2]


def test_no_rows_give_no_chunks(tmp_path: Path) -> None:
    assert read(parquet(tmp_path / "a.parquet", {"text": pa.array([], pa.string())})) == []


def test_folders_globs_and_files(tmp_path: Path) -> None:
    for name in (
        "b.parquet", "a/x.pq", "a/_tmp/z.parquet", "a/.z.parquet", "_SUCCESS", "notes.md",
        "lang=en/1.parquet", "_day=2/1.parquet",
    ):  # fmt: skip
        parquet(tmp_path / name, {"text": ["x"]})
    (tmp_path / "notes.md").write_text("not data")
    parquet(tmp_path / "000000_0", {"text": ["x"]})  # as Hive names files
    parquet(tmp_path / "b.parquet.bak", {"text": ["x"]})  # a copy
    everything = ["000000_0", "_day=2/1.parquet", "a/x.pq", "b.parquet", "lang=en/1.parquet"]
    assert [s.path for s in discover([tmp_path])] == everything
    assert [s.path for s in discover([f"{tmp_path}/**/*.parquet"])] == [
        "_day=2/1.parquet", "b.parquet", "lang=en/1.parquet",
    ]  # fmt: skip
    assert [s.path for s in discover([tmp_path / "a" / "x.pq"])] == ["x.pq"]
    others = passed_over([tmp_path, tmp_path / "a" / "x.pq"])
    assert others == [f"{tmp_path}/b.parquet.bak", f"{tmp_path}/notes.md"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    parquet(tmp_path / "in" / "a.parquet", {"text": ["x"]})
    for name in ("b.csv", "c"):
        os.mkfifo(tmp_path / "in" / name)
        with pytest.raises(InputError, match="is neither a file nor a folder"):
            discover([tmp_path / "in" / name])
    assert [source.path for source in discover([tmp_path / "in"])] == ["a.parquet"]
    assert passed_over([tmp_path / "in"]) == [f"{tmp_path}/in/b.csv", f"{tmp_path}/in/c"]
    with pytest.raises(InputError, match="no input file matches this pattern"):
        discover([tmp_path / "in" / "*.csv"])


@pytest.mark.parametrize("named", ["", "sub", "sub/deep/x.parquet", "."])
def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    parquet(tmp_path / "a.parquet", {"text": ["x"]})
    parquet(tmp_path / "sub" / "deep" / "x.parquet", {"text": ["x"]})

    def refused(function: Any) -> Any:
        def call(path: Any = ".", *given: Any, **named: Any) -> Any:
            if str(path).startswith(f"{tmp_path}/sub") and (
                function is not os.stat or "deep" in str(path)
            ):
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *given, **named)

        return call

    for name in ("scandir", "stat"):  # the tests may run as root, who may read everything
        monkeypatch.setattr(os, name, refused(getattr(os, name)))
    with pytest.raises(InputError, match=f"{tmp_path}/sub.*: cannot be read: Permission denied"):
        discover([tmp_path / named])


def test_a_file_given_twice_is_read_once(tmp_path: Path) -> None:
    path = parquet(tmp_path / "in" / "a.parquet", {"text": ["x"]})
    (tmp_path / "in" / "link.parquet").symlink_to(path)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    found = discover([tmp_path / "in", path, str(tmp_path / "in" / "*")])
    assert [source.path for source in found] == ["a.parquet"]


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    for folder in ("one/data", "two/data", "three"):
        parquet(tmp_path / folder / "a.parquet", {"text": ["x"]})
    parquet(tmp_path / "three" / "b.parquet", {"text": ["x"]})
    found = discover([tmp_path / "one/data", tmp_path / "two/data", tmp_path / "three"])
    assert [source.path for source in found] == [
        "b.parquet", "one/data/a.parquet", "three/a.parquet", "two/data/a.parquet",
    ]  # fmt: skip


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"text": ["x"]})
    path.rename(tmp_path / os.fsdecode(b"caf\xe9.parquet"))
    (tmp_path / os.fsdecode(b"\xe9.csv")).write_text("text\ny\n")
    assert column(read(tmp_path), "record_id") == ["\\xe9.csv#0", "caf\\xe9.parquet#0"]
    (tmp_path / "\\xe9.csv").write_text("text\nz\n")  # shown like the other
    with pytest.raises(InputError, match="two files have this name"):
        discover([tmp_path])


def test_hive_partitions_are_columns(tmp_path: Path) -> None:
    parquet(tmp_path / "room=a%20b" / "1.parquet", {"text": ["x"]})
    parquet(tmp_path / "room=__HIVE_DEFAULT_PARTITION__" / "1.parquet", {"text": ["y"]})
    chunks = read(tmp_path, thread="room")
    assert column(chunks, "thread_id") == [None, "a b"]
    assert column(chunks, "source")[1] == "room=a%20b/1.parquet"


def test_partitions_begin_below_what_was_named(tmp_path: Path) -> None:
    root = tmp_path / "run=7"
    parquet(root / "room=a" / "1.parquet", {"text": ["x"]})
    names = (tmp_path, root, root / "room=a", root / "room=a/1.parquet", f"{root}/*/*.parquet")
    keys = [partitions(discover([name])[0]) for name in names]
    assert keys == [{"run": "7", "room": "a"}, {"room": "a"}, {}, {}, {"room": "a"}]


@pytest.mark.parametrize("made", ["decisions", "work"])
def test_a_run_inside_the_input_is_not_input(tmp_path: Path, made: str) -> None:
    for name in ("a.parquet", "sub/out/queue.parquet", f"sub/out/{made}/part-000000.parquet"):
        parquet(tmp_path / "in" / name, {"text": ["x"]})
    parquet(tmp_path / "in" / "sub" / "decisions" / "b.parquet", {"text": ["x"]})
    root, run = tmp_path / "in", tmp_path / "in" / "sub" / "out"
    (run / "run.json").write_text("{}")
    expected = ["a.parquet", "sub/decisions/b.parquet"]
    for named in (root, f"{root}/**", f"{root}/**/*.parquet", f"{root}/*"):
        assert [source.path for source in discover([named])] == expected
    assert len(discover([run / "queue.parquet"])) == 1  # what is named is read
    with pytest.raises(InputError) as caught:
        discover([run])
    assert str(caught.value) == (
        f"{run}: holds what an edgemod run wrote\n  name the folder that the run's input is in"
    )


def test_the_fingerprint_covers_names_and_bytes(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"text": ["x"]})
    first = fingerprint(discover([path]))
    assert first == fingerprint(discover([tmp_path]))
    path.rename(tmp_path / "b.parquet")
    second = fingerprint(discover([tmp_path]))
    parquet(tmp_path / "b.parquet", {"text": ["y"]})
    assert len({first, second, fingerprint(discover([tmp_path]))}) == 3
    assert len(first) == 64


def test_chunks_travel_light(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"text": ["x" * 100] * 5000})
    chunk = read(path, chunk_rows=10)[3]
    data = pickle.dumps(chunk)
    assert len(data) < 10_000
    assert pickle.loads(data).texts.equals(chunk.texts)


# -- chunks, resuming, memory --------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(
    layout=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 17)), min_size=1, max_size=4),
    form=st.sampled_from(["parquet", "csv", "jsonl"]),
    chunk_rows=st.integers(1, 23),
    start=st.integers(0, 6),
)
def test_resuming_gives_the_tail(
    tmp_path_factory: pytest.TempPathFactory,
    layout: list[tuple[int, int]],
    form: str,
    chunk_rows: int,
    start: int,
) -> None:
    folder = tmp_path_factory.mktemp("resume")
    texts = []
    for number, (rows, group) in enumerate(layout):
        values = [f"{number}.{row}" for row in range(rows)]
        texts += values
        table = pa.table({"text": pa.array(values, pa.string())})
        path = folder / f"{number}.{form}"
        if form == "parquet":
            pq.write_table(table, path, row_group_size=group)
        elif form == "csv":
            path.write_text("\n".join(["text", *values]))
        else:
            path.write_text("".join(f'{{"text": "{value}"}}\n' for value in values))
    sources = discover([folder])
    columns = resolve_columns(sources, text=TEXT)
    whole = list(read_chunks(sources, columns, chunk_rows=chunk_rows, max_text_bytes=LIMIT))
    assert column(whole, "text") == texts
    assert all(chunk.records.num_rows == chunk_rows for chunk in whole[:-1])
    assert from_chunk(start, whole, sources, columns, chunk_rows=chunk_rows) == whole[start:]


def naive_slices(sizes: list[int], chunk_rows: int, chunk_bytes: int) -> list[int]:
    """Rows of each chunk, the slow way."""
    slices, rows, held = [], 0, 0
    for row, size in enumerate(sizes):
        rows, held = rows + 1, held + size
        if (row + 1) % chunk_rows == 0 or held >= chunk_bytes:
            slices.append(rows)
            rows, held = 0, 0
    return [*slices, rows] if rows else slices


@settings(deadline=None, max_examples=40)
@given(
    texts=st.lists(st.none() | st.text(max_size=9), min_size=1, max_size=40),
    form=st.sampled_from(["text", "joined", "named", "talk", "parts", "damaged"]),
    chunk_rows=st.integers(1, 9),
    chunk_bytes=st.integers(1, 40),
    start=st.integers(0, 6),
)
def test_a_chunk_ends_with_the_row_that_fills_it(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str | None],
    form: str,
    chunk_rows: int,
    chunk_bytes: int,
    start: int,
) -> None:
    path = tmp_path_factory.mktemp("full") / "a.parquet"
    sizes = [len((text or "").encode()) for text in texts]
    columns = Columns(("text",), None, None, None, None, None, None, ())
    values: dict[str, Any] = {"text": pa.array(texts, pa.string())}
    if form == "joined":
        values["more"] = values["text"].cast(pa.binary_view())
        columns = replace(columns, text=("text", "more"))
        sizes = [2 * size for size in sizes]
    elif form == "named":
        values |= dict.fromkeys(("id", "thread", "author", "time"), values["text"])
        columns = replace(columns, id="id", thread="thread", author="author", time="time")
        sizes = [5 * size for size in sizes]
    elif form in ("talk", "parts"):
        content = pa.string() if form == "talk" else pa.list_(pa.string())
        kind = pa.list_(pa.struct([("n", pa.int8()), ("content", content)]))
        said = [text if form == "talk" else text and [text] for text in texts]
        talks: list[Any] = [text and [{"content": text}] * 2 for text in said]
        values = {"talk": pa.array(talks, kind)}
        columns = replace(columns, text=(), conversation="talk")
        sizes = [2 * size for size in sizes]
    pq.write_table(
        pa.table(values), path, row_group_size=7, compression="none", use_dictionary=False,
        write_page_checksum=True, write_statistics=False,
    )  # fmt: skip
    sources = discover([path])
    if form == "damaged":
        path.write_bytes(path.read_bytes()[:4] + b"\xff" * 12 + path.read_bytes()[16:])
        sizes[:7] = [0] * len(sizes[:7])
    limits = {"chunk_rows": chunk_rows, "chunk_bytes": chunk_bytes}
    whole = list(read_chunks(sources, columns, **limits, max_text_bytes=LIMIT))
    slices = [chunk.records.num_rows for chunk in whole]
    assert slices == naive_slices(sizes, chunk_rows, chunk_bytes)
    assert from_chunk(start, whole, sources, columns, **limits) == whole[start:]


@pytest.mark.parametrize("place", [(0, 1), (2, 1), (2, 9)])
def test_a_place_where_no_chunk_begins(tmp_path: Path, place: tuple[int, int]) -> None:
    sources = discover([parquet(tmp_path / "a.parquet", {"text": ["x"] * 20})])
    start, row = place
    with pytest.raises(ValueError, match=f"do not end at {row}"):
        list(
            read_chunks(
                sources, resolve_columns(sources), chunk_rows=4, start=start, start_row=row,
                max_text_bytes=LIMIT,
            )
        )  # fmt: skip


@pytest.mark.parametrize("group", [100, 10**9])
@pytest.mark.parametrize("role", ["text", "context"])
def test_memory_does_not_grow_with_the_texts(tmp_path: Path, group: int, role: str) -> None:
    long = pa.array([f"{i} {'x' * 50_000}" for i in range(4000)])
    table = {"text": long} if role == "text" else {"text": ["x"] * 4000, "before": long}
    path = parquet(tmp_path / "a.parquet", table, row_group_size=group, use_dictionary=False)
    del long, table
    sources = discover([path])
    columns = resolve_columns(sources, text=TEXT, context=None if role == "text" else "before")
    before, peak = pa.total_allocated_bytes(), 0
    for _ in read_chunks(sources, columns, max_text_bytes=10**6):
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 100 * 2**20


def test_what_travels_of_long_texts_and_contexts(tmp_path: Path) -> None:
    long = "\U0001f600" * 2000  # 4 bytes each
    table: dict[str, list[str | None]] = {
        "text": ["x" + long, "y", " " * 2000],
        "thread_id": ["t", "t", "t"],
    }
    table["before"] = [None, long + "xyz", "short"]
    path = parquet(tmp_path / "a.parquet", table)
    chunks = read(path)
    assert statuses(chunks) == ["too_long", "ok", "empty_text"]
    cut = "x" + "\U0001f600" * 249  # 997 of the 1,000 bytes that the limit leaves
    assert column(chunks, "text") == [cut, "y", " " * LIMIT]
    assert column(chunks, "context") == [None, cut, "y"]
    ends = ["\U0001f600" * 1023 + "xyz", "short"]  # 4,095 of 4,096 bytes
    assert column(read(path, context="before"), "context") == [None, *ends]
    talk = [{"role": "u", "content": text} for text in ("b" + "a" * 5000, "c")]
    path = parquet(tmp_path / "talk.parquet", {"messages": [talk]})
    sources = discover([path])
    chunks = list(read_chunks(sources, resolve_columns(sources), max_text_bytes=10**6))
    assert column(chunks, "context") == [None, "a" * 4096]


def test_resuming_does_not_read_what_it_skips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet(tmp_path / "a.parquet", {"text": ["x"] * 50_000}, row_group_size=5000)
    sources = discover([path])
    columns = resolve_columns(sources)
    read_groups: list[int] = []
    iter_batches = pq.ParquetFile.iter_batches

    def spy(self: pq.ParquetFile, size: int, groups: list[int], **options: Any) -> Any:
        read_groups.extend(groups)
        return iter_batches(self, size, groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    place = {"start": 5, "start_row": 40_000}
    list(read_chunks(sources, columns, chunk_rows=8000, **place, max_text_bytes=LIMIT))
    assert read_groups == [8, 9]


RESIDENT = """
import os, sys
from edgemod.records import discover, read_chunks, resolve_columns
from edgemod.worker import peak_bytes

sources = discover([sys.argv[1]])
columns = resolve_columns(sources)
before, statuses = peak_bytes(), set()
for chunk in read_chunks(sources, columns, max_text_bytes=1000):
    statuses |= set(chunk.texts.column("status").to_pylist())
    if chunk.index == 5 and "cut" in sys.argv:
        os.truncate(sys.argv[1], sources[0].size // 2)
print(peak_bytes() - before, statuses)
"""


@pytest.mark.parametrize(("then", "expected"), [("go on", "{0}"), ("cut", "{0, 6}")])
def test_a_file_is_not_mapped(tmp_path: Path, then: str, expected: str) -> None:
    """It would count as resident, and one that is cut meanwhile would kill the process."""
    texts = pa.array([f"{i} {'x' * 980}" for i in range(180_000)])
    path = tmp_path / "a.parquet"
    parquet(path, {"text": texts}, use_dictionary=False, compression="none")
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT, path, then],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    grown, found = done.stdout.split(maxsplit=1)
    assert int(grown) < 100 * 2**20
    assert found.strip() == expected


@pytest.mark.parametrize("group", [100, 10**9])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, group: int) -> None:
    peaks = []
    for rows in (20_000, 200_000):
        texts = pa.array([f"{i} of many, padded to a length: {'x' * 100}" for i in range(rows)])
        path = parquet(tmp_path / f"{rows}.parquet", {"text": texts}, row_group_size=group)
        del texts
        before, peak = pa.total_allocated_bytes(), 0
        sources = discover([path])
        columns = resolve_columns(sources)
        for _ in read_chunks(sources, columns, chunk_rows=2000, max_text_bytes=LIMIT):
            peak = max(peak, pa.total_allocated_bytes() - before)
        peaks.append(peak)
    assert peaks[1] < 1.5 * peaks[0] + 2**20
    assert peaks[1] < 8 * 2**20


# -- damage --------------------------------------------------------------------------------


def test_one_bad_page_costs_its_row_group_only(tmp_path: Path) -> None:
    texts = [f"{i} " + "x" * 50 for i in range(30_000)]
    path = parquet(
        tmp_path / "a.parquet", {"id": range(30_000), "text": texts}, row_group_size=10_000,
        use_dictionary=False, compression="none", write_page_checksum=True, data_page_size=4096,
    )  # fmt: skip
    data = bytearray(path.read_bytes())
    data[data.index(b"18000 xxxx") + 8] ^= 4
    path.write_bytes(data)
    chunks = read(path, chunk_rows=7000)
    assert column(chunks, "source_row") == list(range(30_000))
    found = statuses(chunks)
    lost = found.index("unreadable")
    assert 10_000 <= lost <= 18_000
    assert found == ["ok"] * lost + ["unreadable"] * (20_000 - lost) + ["ok"] * 10_000
    assert column(chunks, "record_id")[lost - 1 : lost + 1] == [str(lost - 1), f"a.parquet#{lost}"]
    sources = discover([path])
    columns = resolve_columns(sources)
    assert from_chunk(2, chunks, sources, columns, chunk_rows=7000) == chunks[2:]


def test_one_bad_page_among_small_row_groups(tmp_path: Path) -> None:
    texts = [f"text {i:04}" for i in range(100)]
    path = parquet(
        tmp_path / "a.parquet", {"text": texts}, row_group_size=10, use_dictionary=False,
        compression="none", write_page_checksum=True, write_statistics=False,
    )  # fmt: skip
    path.write_bytes(path.read_bytes().replace(b"text 0042", b"text_0042", 1))
    assert statuses(read(path)) == ["ok"] * 40 + ["unreadable"] * 10 + ["ok"] * 50


FUZZ = """
import json, random, sys
from collections import Counter
from pathlib import Path
from edgemod.errors import InputError
from edgemod.inspection import inspect
from edgemod.records import discover, read_chunks, resolve_columns

folder, rows = Path(sys.argv[1]), int(sys.argv[2])
seen = Counter()
originals = sorted(folder.glob("*.parquet"))
for seed in range(int(sys.argv[3])):
    draw = random.Random(seed)
    data = bytearray(draw.choice(originals).read_bytes())
    for _ in range(draw.choice((1, 1, 2, 8))):
        data[draw.randrange(4, len(data))] ^= 1 << draw.randrange(8)
    if draw.random() < 0.05:
        data = data[: draw.randrange(len(data))]
    path = folder / "damaged" / "x.parquet"
    path.write_bytes(data)
    named = draw.choice(({"text": ("text",)}, {"conversation": "messages"}))
    try:
        inspect(path)
        sources = discover([path])
        columns = resolve_columns(sources, **named)
        chunks = list(read_chunks(sources, columns, chunk_rows=64, max_text_bytes=10_000))
    except InputError as error:
        assert "x.parquet" in str(error) and error.fix, error
        seen["error"] += 1
        continue
    numbers = [n for chunk in chunks for n in chunk.records.column("source_row").to_pylist()]
    assert numbers == list(range(rows)), (seed, len(numbers))
    for chunk in chunks:
        chunk.records.validate(full=True)
        chunk.texts.validate(full=True)
        owners = set(chunk.texts.column("record").to_pylist())
        assert owners == set(range(chunk.records.num_rows)), seed
    lost = any(6 in chunk.texts.column("status").to_pylist() for chunk in chunks)
    seen["lost rows" if lost else "read"] += 1
print(json.dumps(seen))
"""


def test_flipped_bits_never_lose_or_double_a_row(tmp_path: Path) -> None:
    """In a child, since what a flipped bit may crash is native code."""
    rows = 300
    talks = [
        [{"role": "user", "content": f"hi {i} {j}"} for j in range(i % 4)] for i in range(rows)
    ]
    table = {
        "id": pa.array([f"r{i}" for i in range(rows)]).dictionary_encode(),
        "text": [f"text number {i} " * (i % 7 + 1) for i in range(rows)],
        "created_at": pa.array(range(rows), pa.timestamp("ms", "Asia/Tokyo")),
        "messages": talks,
    }
    for codec in ("none", "snappy", "gzip", "brotli", "zstd", "lz4"):
        for checksum in (False, True):
            parquet(
                tmp_path / f"{codec}-{checksum}.parquet", table, compression=codec,
                row_group_size=37 if checksum else 130, write_page_checksum=checksum,
                data_page_size=512, data_page_version="2.0" if codec == "zstd" else "1.0",
            )  # fmt: skip
    (tmp_path / "damaged").mkdir()
    done = subprocess.run(
        [sys.executable, "-B", "-c", FUZZ, str(tmp_path), str(rows), "200"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert set(json.loads(done.stdout)) == {"error", "lost rows", "read"}


def test_every_bad_file_is_named_before_anything_starts(tmp_path: Path) -> None:
    good = parquet(tmp_path / "good.parquet", {"text": ["x"]})
    data = good.read_bytes()
    (tmp_path / "cut.parquet").write_bytes(data[:-20])
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "other.parquet").write_bytes(b"<html>not here</html>")
    (tmp_path / "footer.parquet").write_bytes(data[:-60] + bytes(52) + data[-8:])
    (tmp_path / "secret.parquet").write_bytes(data[:-4] + b"PARE")
    with pytest.raises(InputError) as caught:
        discover([tmp_path])
    assert str(caught.value) == (
        "5 input files cannot be read\n"
        "  cut.parquet: is truncated: the Parquet footer is missing\n"
        "  empty.parquet: is empty (0 bytes)\n"
        "  footer.parquet: the Parquet footer is damaged\n"
        "  other.parquet: is not a Parquet file\n"
        "  secret.parquet: is an encrypted Parquet file, and no key is given\n"
        "  copy these files again from where they were made, or leave them out"
    )


def test_a_file_that_changed_is_not_read(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"text": ["x"]})
    sources = discover([path])
    columns = resolve_columns(sources)
    parquet(path, {"text": ["x", "y"]})
    with pytest.raises(InputError, match="changed while it was being read"):
        list(read_chunks(sources, columns, max_text_bytes=LIMIT))
    path.unlink()
    with pytest.raises(InputError, match="cannot be read: No such file"):
        list(read_chunks(sources, columns, max_text_bytes=LIMIT))


# -- CSV and JSONL -------------------------------------------------------------------------

MESSY = (
    b'id,text\n1,one\n2,too,many\n3,"two\nlines, ""quoted"""\n4\n\n5,\xff\n'
    b'6,5" pipe\n7,\n8,a\x00b\n'
)
MESSY_STATUS = ["ok", "unreadable", "ok", "unreadable", "not_utf8", "ok", "empty_text", "ok"]
MESSY_TEXT = ["one", None, 'two\nlines, "quoted"', None, None, '5" pipe', "", "a\0b"]


def test_malformed_csv_rows_have_records(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf" + MESSY)
    chunks = read(path)
    assert statuses(chunks) == MESSY_STATUS
    assert column(chunks, "text") == MESSY_TEXT
    assert column(chunks, "record_id") == ["1", "a.csv#1", "3", "a.csv#3", *"5678"]
    assert column(chunks, "source_row") == list(range(8))


@pytest.mark.parametrize(
    ("trouble", "status"),
    [(b"9,a,\xff\n", "unreadable"), (b'9,"' + b"x" * 300_000 + b'"\n', "too_long")],
    ids=["bytes", "long"],
)
def test_csv_goes_on_where_pyarrow_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: bytes, status: str
) -> None:
    """At a malformed row; or at one longer than a block."""
    monkeypatch.setattr("edgemod.sources.BLOCK_BYTES", 100_000)
    path = tmp_path / "a.csv"
    path.write_bytes(MESSY + trouble + b"10,after\n")
    chunks = read(path, chunk_rows=3)
    assert statuses(chunks) == [*MESSY_STATUS, status, "ok"]
    assert column(chunks, "text")[:8] == MESSY_TEXT
    assert column(chunks, "text")[-1] == "after"


def test_a_long_csv_field_does_not_cost_the_rows_after(tmp_path: Path) -> None:
    """Inside quotes, a text that looks like rows stays one text."""
    long = "not,a,row\nnor,this\n" * 10_000
    path = tmp_path / "a.csv"
    path.write_text(f'id,text\n1,two,many\n2,"{long}"\n3,after\n')
    sources = discover([path])
    chunks = list(read_chunks(sources, resolve_columns(sources), max_text_bytes=10**6))
    assert statuses(chunks) == ["unreadable", "ok", "ok"]
    assert column(chunks, "text") == [None, long, "after"]


LONG = "not,a,row\n" * 200


@pytest.mark.parametrize(
    "long",
    [
        f'2,"{LONG}"\n', "2," + "x" * 2000 + "\n", '2,x""x,' + 'y "" z,' * 300 + '"a\nb"\r\n',
        f'2,"{LONG}" stray, "quotes"\n', '2,"' + '""' * 1000 + '"\n',
        "2," + "x," * 1000 + '"a"\n',
    ],
    ids=["quoted", "plain", "literal", "torn", "pairs", "fields"],
)  # fmt: skip
@pytest.mark.parametrize("block", [1, 7, 64])
def test_a_row_that_is_too_long_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: str, block: int
) -> None:
    monkeypatch.setattr("edgemod.sources.BLOCK_BYTES", block)
    monkeypatch.setattr(csv_files, "ROW_BYTES", 1000)
    path = tmp_path / "a.csv"
    path.write_text(f'id,text\n0,first\n{long}3,"after"\n4,too,many\n{long}5,last\n', newline="")
    chunks = read(path)
    assert statuses(chunks) == ["ok", "unreadable", "ok", "unreadable", "unreadable", "ok"]
    assert [text for text in column(chunks, "text") if text] == ["first", "after", "last"]


@pytest.mark.parametrize("block", [1, 7, 64])
@pytest.mark.parametrize("long", ['{"text": "' + "x" * 2000 + '"}', "[" * 2000, " " * 2000 + "7"])
def test_a_line_that_is_too_long_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: str, block: int
) -> None:
    monkeypatch.setattr("edgemod.sources.BLOCK_BYTES", block)
    monkeypatch.setattr(csv_files, "ROW_BYTES", 1000)
    path = tmp_path / "a.jsonl"
    lines = ['{"text": "first"}', long, " " * 3000, '{"text": "after"}', long, '{"text": "last"}']
    path.write_text("\n".join([*lines, long]))
    chunks = read(path)
    assert statuses(chunks) == ["ok", "unreadable", "ok", "unreadable", "ok", "unreadable"]
    assert [text for text in column(chunks, "text") if text] == ["first", "after", "last"]


def test_a_line_without_end_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(b'{"text": "first"}\n{"text": "')
        for _ in range(200):
            stream.write(b"x" * (1 << 20))
        stream.write(b'"}\n{"text": "last"}\n')
    tracemalloc.start()
    try:
        assert statuses(read(path)) == ["ok", "unreadable", "ok"]
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("quote", ["", '"'])
def test_no_row_is_lost_after_a_long_one(tmp_path: Path, quote: str) -> None:
    """At the sizes that a run has, of a file that pyarrow refuses somewhere."""
    path = tmp_path / "a.csv"
    with path.open("w") as stream:
        stream.write(f"id,text\n0,{quote}{'x' * 17_000_000}{quote}\n")
        stream.write(f"1,{quote}{'x' * 40_000_000}{quote}\n")
        stream.writelines(f"{i},word\n" for i in range(2, 100_000))
        stream.write("too,many,fields\n" + "1,last\n" * 1000)
    found = statuses(read(path))
    assert Counter(found) == {"ok": 99_998 + 1000, "too_long": 1, "unreadable": 2}
    assert csv.field_size_limit() == 1 << 17  # the setting of all of Python is left alone
    assert (found[:3], found[100_000]) == (["too_long", "unreadable", "ok"], "unreadable")


def test_a_quote_that_is_never_closed_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_files, "ROW_BYTES", 1 << 20)
    path = tmp_path / "a.csv"
    path.write_text('id,text\n0,first\n1,"' + "2,row\n" * 500_000)
    assert statuses(read(path)) == ["ok", "unreadable"]


@pytest.mark.parametrize(
    "line", ["1,secret " + "x" * 60, "secret,secret,1", ",,", '"sec\nret' + "x" * 60 + '",1'],
    ids=["long", "twice", "empty", "lines"],
)  # fmt: skip
def test_a_csv_without_a_header(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{line}\n2,b\n")
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value) == (
        "a.csv: this CSV seems to have no header\n  begin the file with a line of column names, "
        "all different, each of at most 64 characters"
    )


@pytest.mark.parametrize(
    ("body", "status", "texts"),
    [
        ('1,a\n2,"b\n3,c\n4,d\n', ["ok", "unreadable"], ["a", None]),
        ('1,a\n2,"b\n3,c\n4,d""\n', ["ok", "unreadable"], ["a", None]),
        ('1,a\n2,"b\n3,c\n4,"d"\n5,e\n', ["ok", "unreadable", "ok"], ["a", None, "e"]),
        ('1,a\n2,"b\n3,c\n4,"d ""e"""\n5,"f"', ["ok", "unreadable", "ok"], ["a", None, "f"]),
        ('1,"a\n2,b"\n3,"c"" d"\n4,"e"', ["ok"] * 3, ["a\n2,b", 'c" d', "e"]),
        ('1,"a"\n2,5" b"\n\n3, "c"\n4,"e"\n', ["ok"] * 4, ["a", '5" b"', ' "c"', "e"]),
        ('1,"', ["unreadable"], [None]),
    ],
    ids=["end", "pair", "closed", "pairs", "lines", "literal", "last"],
)  # fmt: skip
@pytest.mark.parametrize("block", [7, 16, 1 << 20])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_stray_quote_never_makes_one_text_of_several_records(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    status: list[str],
    texts: list[str | None],
    block: int,
    name: str,
) -> None:
    monkeypatch.setattr("edgemod.sources.BLOCK_BYTES", block)
    data = b"\xef\xbb\xbf" + f"id,text\n{body}".encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    chunks = read(tmp_path / name)
    assert statuses(chunks) == status
    assert column(chunks, "text") == texts


def strict_rows(text: str) -> list[list[str] | None]:
    """Rows as Python's reader has them, None for malformed ones."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str] | None] = []
    while True:
        try:
            if row := next(reader):
                rows.append(row)
        except StopIteration:
            return rows
        except csv.Error:
            rows.append(None)


@settings(max_examples=500, deadline=None)
@given(
    body=st.lists(st.sampled_from(['"', '""', "a", ",", "\n", "\r\n", "\r"]), max_size=30),
    sizes=st.lists(st.integers(1, 9), min_size=30),
    limit=st.integers(1, 40),
)
def test_rows_end_where_python_reads_them_to_end(
    body: list[str], sizes: list[int], limit: int
) -> None:
    text = "".join(body)
    starts = np.cumsum([0, *sizes]).tolist()
    blocks = [text.encode()[start:stop] for start, stop in pairwise([*starts, len(text) * 9])]
    for row_bytes in (csv_files.ROW_BYTES, limit):
        found: list[list[str] | None] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_files, "ROW_BYTES", row_bytes)
            for data in csv_files._whole_rows(blocks, csv_files._grammar(",")):
                found += [None] if data is None else strict_rows(data.decode())
        expected = strict_rows(text)
        if row_bytes == limit:  # some rows are too long
            assert len(found) == len(expected)
            expected = [new and old for new, old in zip(found, expected, strict=True)]
        assert found == expected


def test_a_byte_order_mark_inside_a_file_is_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgemod.sources.BLOCK_BYTES", 16)
    (tmp_path / "a.csv").write_text("text,n\n" + "\ufeffabc,2\n" * 20)
    assert column(read(tmp_path / "a.csv", text=TEXT), "text") == ["\ufeffabc"] * 20


def test_reading_of_a_csv_may_be_given_up(tmp_path: Path) -> None:
    """No thread of Arrow's may be left that runs Python: it would end the process at exit."""
    path = tmp_path / "a.csv"
    path.write_text("id,text\n" + '"1","a ""quoted"" word"\n' * 2_000_000)
    code = (
        "import sys; from edgemod import formats; from edgemod.sources import discover\n"
        "print(next(formats.rows(discover(sys.argv[1:])[0], ['text'])).count > 0)"
    )
    for _ in range(3):
        told = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
        assert (told.returncode, told.stdout) == (0, "True\n"), told.stderr


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("a.csv", "id;text", "separated by ';', not by commas"),
        ("a.csv", '"id";"text"', "separated by ';', not by commas"),
        ("a.csv", "id\ttext", "separated by tabs, not by commas"),
        ("a.tsv", "id,text", "separated by commas, not by tabs"),
        ("a.tsv.csv", "id\ttext", "separated by tabs, not by commas"),
        ("a.csv.TSV.gz", "id,text", "separated by commas, not by tabs"),
    ],
)
@pytest.mark.parametrize("named", [{}, {"text": TEXT}])
def test_a_csv_with_other_separators(
    tmp_path: Path, name: str, line: str, said: str, named: dict[str, Any]
) -> None:
    data = f"{line}\n".encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    with pytest.raises(InputError, match=said) as caught:
        read(tmp_path / name, **named)
    assert "convert it" in caught.value.fix


@pytest.mark.parametrize(
    "line", ["1,secret", "it is secret!", "id,what you said is secret", "a (secret),b"]
)
def test_a_csv_whose_first_line_does_not_look_like_names(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{line}\n2,b\n")
    cases: list[dict[str, Any]] = [{}, {"text": ("secrets",)}, {"text": ("bdy",)}]
    for named in cases:
        with pytest.raises(InputError) as caught:
            read(path, **named)
        said = "its first line has" if named else "seems to have no header"
        assert said in str(caught.value)
        assert "'secret'" not in str(caught.value)
        assert "said" not in str(caught.value)
    assert "secret" not in str(inspect(path)).replace(str(path), "")


@pytest.mark.parametrize(
    ("line", "named"),
    [("Review Text,n (of 5)?", {}), ("u,what is it? (free text)", {"text": ("u",)})],
)
def test_a_csv_header_with_a_known_name(tmp_path: Path, line: str, named: dict[str, Any]) -> None:
    (tmp_path / "a.csv").write_text(f"{line}\na,b\n")
    assert column(read(tmp_path / "a.csv", **named), "text") == ["a"]


def test_a_csv_header_may_have_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(",text,,\n0,a,,\n1,b\n")
    assert column(read(path), "text") == ["a", None]


def test_csv_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgemod.sources.BLOCK_BYTES", 200)
    draw = random.Random(1)
    rows = [draw.choice(["a,b", "a", "a,b,c"]) for _ in range(500)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["text,n", *rows]))
    found = statuses(read(path, text=TEXT, chunk_rows=70))
    assert found == ["ok" if row.count(",") == 1 else "unreadable" for row in rows]


def test_tabs_and_compression(tmp_path: Path) -> None:
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b"id\ttext\n1\ta, b\n"))
    with pa.output_stream(str(tmp_path / "b.csv.zst"), compression="zstd") as stream:
        stream.write(b"text,id\nc,2\n")
    with pa.output_stream(str(tmp_path / "c.jsonl.gz"), compression="gzip") as stream:
        stream.write(b'{"text": "d", "id": 3}\n')
    (tmp_path / "d.csv.bz2").write_bytes(bz2.compress(b"id,text\n4,e\n"))
    (tmp_path / "d.jsonl").write_bytes(b"")
    (tmp_path / "e.csv").write_bytes(b"")
    chunks = read(tmp_path)
    assert column(chunks, "text") == ["a, b", "c", "d", "e"]
    assert column(chunks, "record_id") == ["1", "2", "3", "4"]


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
def test_a_cut_compressed_file_says_so(tmp_path: Path, name: str) -> None:
    draw = random.Random(0)
    texts = [str(draw.random()) for _ in range(60_000)]
    if "csv" in name:
        data = "\n".join(["id,text", *(f"{i},{text}" for i, text in enumerate(texts))])
    else:
        data = "\n".join(json.dumps({"id": i, "text": text}) for i, text in enumerate(texts))
    packed = gzip.compress(data.encode(), 1)
    (tmp_path / name).write_bytes(packed[: len(packed) // 2])
    chunks = read(tmp_path / name)
    found = statuses(chunks)
    assert Counter(found) == {"ok": len(found) - 1, "unreadable": 1}
    assert found[-1] == "unreadable"
    assert column(chunks, "text")[:-1] == texts[: len(found) - 1]


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
def test_what_was_decoded_before_the_damage_is_kept(
    tmp_path: Path, name: str, share: float
) -> None:
    """A cut; or, after the whole of it, bytes that are not gzip."""
    draw = random.Random(0)
    texts = [str(draw.random()) for _ in range(60_000)]
    if "csv" in name:
        head, lines = ["id,text"], [f"{i},{text}" for i, text in enumerate(texts)]
    else:
        head, lines = [], [json.dumps({"id": i, "text": text}) for i, text in enumerate(texts)]
    packed = gzip.compress("\n".join([*head, *lines, ""]).encode(), 1)
    packed = packed[: int(len(packed) * share)] + b"rubbish" * (share == 1)
    (tmp_path / name).write_bytes(packed)
    whole = zlib.decompressobj(31).decompress(packed).count(b"\n") - len(head)
    chunks = read(tmp_path / name)
    assert column(chunks, "text") == [*texts[:whole], None]
    assert statuses(chunks)[-1] == "unreadable"


def test_nothing_is_made_up_of_a_damaged_bz2_block(tmp_path: Path) -> None:
    draw = random.Random(0)
    texts = [str(draw.random()) for _ in range(100_000)]
    data = bytearray(bz2.compress("\n".join(json.dumps({"text": t}) for t in texts).encode()))
    data[len(data) // 2] ^= 1
    (tmp_path / "a.jsonl.bz2").write_bytes(data)
    *found, last = column(read(tmp_path / "a.jsonl.bz2"), "text")
    assert found
    assert found == texts[: len(found)]
    assert last is None


@pytest.mark.parametrize("rows", [1, 60_000])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_every_member_of_a_bz2_file_is_read(tmp_path: Path, rows: int, form: str) -> None:
    draw = random.Random(0)
    texts = [str(draw.random()) for _ in range(rows)]
    lines = [text if form == "csv" else json.dumps({"text": text}) for text in texts]
    part = bz2.compress(("\n".join(lines) + "\n").encode(), 1)
    head = bz2.compress(b"text\n" if form == "csv" else b"")
    path = tmp_path / f"a.{form}.bz2"
    path.write_bytes(head + bz2.compress(b"") + part + bz2.compress(b"") * 3 + part)
    assert column(read(path), "text") == texts * 2
    for damage in (b"rubbish" + part, part[:20]):
        path.write_bytes(head + part + damage)
        chunks = read(path)
        assert column(chunks, "text") == [*texts, None]
        assert statuses(chunks)[-1] == "unreadable"


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.bz2", "a.jsonl.zst", "a.jsonl.bz2"])
def test_a_damaged_compressed_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not compressed")
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    assert str(caught.value) == (
        f"{name}: cannot be read: its bytes cannot be decompressed\n"
        "  check that it is whole, still there, and that you may read it"
    )


def test_malformed_json_lines_have_records(tmp_path: Path) -> None:
    lines = [
        b'{"id": 1, "text": "one", "n": {"x": 1}}', b'{"id": 2, "text": "cut', b"",
        b'{"id": 3, "text": "\\ud83d\\ude00"}', b'{"id": 4, "text": "\\ud800"}',
        b'{"id": 5, "text": "\xff"}', b'{"id": "six", "text": 6}', b"[1]", b'{"text": null}',
        b'{"id": 9, "text": ["no"]}', b'{"id": 10, "text": "a"}{"id": 11, "text": "b"}',
        b"[" * 100_000, b'{"id": 12, "text": "last"}',
    ]  # fmt: skip
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    chunks = read(path)
    assert statuses(chunks) == [
        "ok", "unreadable", "ok", "not_utf8", "not_utf8", "ok", "unreadable", "null_text",
        "unreadable", "unreadable", "unreadable", "ok",
    ]  # fmt: skip
    ids = column(chunks, "record_id")
    assert (ids[0], *ids[2:6], ids[11]) == ("1", "3", "4", "5", "six", "12")
    assert [t for t in column(chunks, "text") if t] == ["one", "\U0001f600", "6", "last"]


@pytest.mark.parametrize(
    ("usual", "odd", "author"),
    [
        ({"id": 7, "tags": [1]}, "deleted", None),
        ({"id": 7}, {"id": "seven", "more": {}}, None),
        ([1], {"a": 1}, None),
        ("ann", {"name": "bob"}, "ann"),
        (7, [1], "7"),
    ],
    ids=["object", "inside", "list", "text", "number"],
)
@pytest.mark.parametrize("at", [5, 1500])
@pytest.mark.parametrize("form", ["text", "messages"])
def test_an_odd_json_value_beside_the_text_costs_itself_alone(
    tmp_path: Path, usual: Any, odd: Any, author: str | None, at: int, form: str
) -> None:
    rows = [{"id": i, "text": f"word {i}", "user": usual} for i in range(2000)]
    rows[at]["user"] = odd
    rows[at + 1]["id"] = {"odd": 1}
    if form == "messages":
        rows = [{"messages": [{"role": "u", "content": r.pop("text")}], **r} for r in rows]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    chunks = read(path)
    assert column(chunks, "text") == [f"word {i}" for i in range(2000)]
    assert column(chunks, "record_id")[at : at + 3] == [f"{at}", f"a.jsonl#{at + 1}", f"{at + 2}"]
    expected = [author] * 2000
    expected[at] = None
    assert column(chunks, "author_id") == expected


@pytest.mark.parametrize(
    ("first", "key"),
    [
        ('"text": "a"', "text"),
        ('"text": "a"', "\\u0074ext"),
        ('"messages": [{"role": "u", "content": "a"}]', "messages"),
    ],
)
@pytest.mark.parametrize("other", ['"b"', "null", '[{"content": "b"}]'])
def test_no_json_text_hides_behind_another_of_its_name(
    tmp_path: Path, first: str, key: str, other: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{{first}}}\n{{{first}, "{key}": {other}}}\n{{{first}}}\n')
    assert statuses(read(path)) == ["ok", "unreadable", "ok"]


@pytest.mark.parametrize(
    "message",
    ['"content": "a", "content": "b"', '"content": [{"text": "a", "text": "b"}, {"text": "c"}]'],
)
def test_no_part_of_a_json_message_hides_behind_another(tmp_path: Path, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"messages": [{{"content": "x"}}]}}\n{{"messages": [{{{message}}}]}}\n')
    assert statuses(read(path)) == ["ok", "unreadable"]


def test_a_key_that_is_not_read_may_be_repeated_whatever_is_beside_it(tmp_path: Path) -> None:
    lines = ['{"text": "a", "more": {"x": 1, "x": 2}, "more": 3}'] * 3
    for last, status in (('{"text": "b"}', "ok"), ('{"text": "cut', "unreadable")):
        (tmp_path / "a.jsonl").write_text("\n".join([*lines, last]))
        assert statuses(read(tmp_path / "a.jsonl")) == ["ok"] * 3 + [status]


def test_a_text_repeated_in_every_line_is_unreadable_not_absent(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "text": "b"}\n' * 4)
    assert statuses(read(tmp_path / "a.jsonl")) == ["unreadable"] * 4


def test_a_conversation_among_json_texts_costs_itself_alone(tmp_path: Path) -> None:
    texts: list[Any] = ["a", [{"content": "b"}], "c", "d"]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    assert statuses(read(tmp_path)) == ["ok", "unreadable", "ok", "ok"]


def test_json_blocks_and_long_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgemod.sources.BLOCK_BYTES", 64)
    texts = [str(i) * (i % 50) for i in range(300)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    assert column(read(path, chunk_rows=17), "text") == texts


def test_empty_json_objects_have_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\nno\n{}\n")
    expected = ["null_text", "unreadable", "null_text"]
    assert statuses(read(tmp_path, chunk_rows=2)) == expected
    for line in ({"text": "x"}, {"messages": [{"role": "u", "content": "x"}]}):
        (tmp_path / "b.jsonl").write_text("{}\n" * 1500 + json.dumps(line))
        chunks = read(tmp_path)
        assert statuses(chunks) == [*expected, *["null_text"] * 1500, "ok"]
        assert column(chunks, "text")[-1] == "x"


def test_json_conversations(tmp_path: Path) -> None:
    talks = [
        [{"role": "user", "content": "hi", "extra": [1]}],
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}, "b"]}],
        None,
        [{"role": "bot", "content": None}, {"content": "x"}],
        [{"role": "bot", "content": "\ud800"}],
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"messages": talk}) for talk in talks))
    chunks = read(path)
    assert statuses(chunks)[-1] == "not_utf8"
    assert message_rows(chunks) == [
        (0, 0, "user", "hi", None), (1, 0, "user", "a\nb", None), (2, -1, None, None, None),
        (3, 1, None, "x", None),
        (4, -1, None, None, None),
    ]  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(
    body=st.lists(
        st.sampled_from([b"1,a", b'2,"b"', b'"', b",", b"\n", b"\r", b"\xff", b"x", b"{", b"}",
                         b'{"text": "a"}', b'"text"', b":", b"[", b"\x00", b"\\ud800"]),
        max_size=40,
    ).map(b"".join),
    form=st.sampled_from(["csv", "jsonl"]),
    start=st.integers(0, 4),
)  # fmt: skip
def test_any_bytes_give_records_and_the_same_on_resuming(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, form: str, start: int
) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"a.{form}"
    head = b"id,text\n" if form == "csv" else b'{"text": "first"}\n'
    path.write_bytes(head + body)
    sources = discover([path])
    columns = resolve_columns(sources, text=TEXT)
    limits = {"chunk_rows": 3, "chunk_bytes": 4}
    whole = list(read_chunks(sources, columns, **limits, max_text_bytes=LIMIT))
    if form == "jsonl":
        lines = [line for line in (head + body).split(b"\n") if line.strip()]
        assert len(column(whole, "source_row")) == len(lines)
    assert column(whole, "source_row") == list(range(len(column(whole, "source_row"))))
    assert from_chunk(start, whole, sources, columns, **limits) == whole[start:]


def test_utf16_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("id,text\n1,a\n".encode("utf-16"))
    with pytest.raises(InputError) as caught:
        read(tmp_path / "a.csv")
    assert str(caught.value) == (
        "a.csv: the header is not UTF-8\n  convert the file to UTF-8, for example with iconv"
    )


# -- which columns -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "notice"),
    [
        (
            {"title": ["x"], "Body": ["y"]},
            "text columns: joining 'title' and 'Body' (guessed by name)",
        ),
        ({"title": ["x"], "n": ["y"]}, "text column: using 'title' (guessed by name)"),
        ({"title": [1], "text": ["y"]}, "text column: using 'text' (guessed by name)"),
        ({"messageText": ["x"], "n": ["y"]}, "text column: using 'messageText' (guessed by name)"),
        ({"utt": ["x"], "userId": ["y"]}, "text column: using 'utt' (guessed as the only text)"),
        ({"p": ["x"], "q": ["y" * 9]}, "text column: using 'q' (guessed by length)"),
        ({"text": [1], "body": ["y"]}, "text column: using 'body' (guessed by name)"),
        (
            {"log": [[{"from": "a", "value": "b"}]], "p": ["x"]},
            "conversation column: using 'log' (guessed by type)",
        ),
        (
            {"messages": [[{"from": "a", "value": "b"}]], "text": ["x"]},
            "conversation column: using 'messages' (guessed by name)",
        ),
    ],
)
def test_guesses(tmp_path: Path, table: dict[str, Any], notice: str) -> None:
    sources = discover([parquet(tmp_path / "a.parquet", table)])
    role = notice.split()[0]
    assert resolve_columns(sources).notices[0] == f"{notice}; say --{role}-column to choose"


def test_the_longest_of_many_columns_is_told_in_one_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {f"c{i}": [f"{i}", None] for i in range(200)} | {"words": ["x" * 99, "y"]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    opened: list[Path] = []

    def counting(path: str, file: Path) -> pq.ParquetFile:
        opened.append(file)
        return open_parquet(path, file)

    monkeypatch.setattr("edgemod.formats.open_parquet", counting)
    sources = discover([tmp_path / "a.parquet"])
    assert resolve_columns(sources).text == ("words",)
    assert len(opened) == 2  # for the schema, for the lengths
    with pytest.raises(InputError, match=r"c39 \(string\) and 161 more$"):
        resolve_columns(sources, text=["wordz"])


@pytest.mark.parametrize("names", [["p", "p"], ["p", "q", "q"]])
def test_two_columns_of_one_name_are_told_before_their_lengths(
    tmp_path: Path, names: list[str]
) -> None:
    columns = [pa.array(["some words" * len(name)]) for name in names]
    pq.write_table(pa.table(columns, names=names), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="two columns are named"):
        resolve_columns(discover([tmp_path / "a.parquet"]))


def test_the_other_columns_are_guessed_too(tmp_path: Path) -> None:
    names = {"text": "x", "id": "1", "createdAt": "2020", "user": "u", "Thread ID": "t"}
    path = parquet(tmp_path / "a.parquet", {name: [value] for name, value in names.items()})
    columns = resolve_columns(discover([path]))
    assert (columns.id, columns.time, columns.author, columns.thread, columns.context) == (
        "id", "createdAt", "user", "Thread ID", None,
    )  # fmt: skip
    assert len(columns.notices) == 5
    named = resolve_columns(discover([path]), text=TEXT, id="user")
    assert (named.id, named.author) == ("user", None)


def test_a_guess_must_hold_for_every_file(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", {"text": ["x"], "id": ["1"], "user": ["u"]})
    parquet(tmp_path / "b.parquet", {"text": ["x"], "id": ["1"]})
    columns = resolve_columns(discover([tmp_path]))
    assert (columns.id, columns.author) == ("id", None)


def test_no_id_is_said(tmp_path: Path) -> None:
    columns = resolve_columns(discover([parquet(tmp_path / "a.parquet", {"text": ["x"]})]))
    assert columns.notices[1] == (
        "id column: none found, records are named <file>#<row>; say --id-column to choose"
    )


@pytest.mark.parametrize(
    ("table", "named", "message"),
    [
        (
            {"body": ["x"], "n": [1]}, {"text": ("bdy",)},
            "a.parquet: no column 'bdy'\n"
            "  did you mean 'body'? its columns are: body (string), n (int64)",
        ),
        (
            {"body": ["x"], "score": [1]}, {"text": ("score",)},
            "a.parquet: column 'score' is int64, not text\n  columns that can be the text: body",
        ),
        (
            {"body": ["x"]}, {"conversation": "body"},
            "a.parquet: column 'body' is string, not a list of messages with a role and a content\n"
            "  columns that can be the conversation: none",
        ),
        (
            {"body": ["x"], "n": [[1]]}, {"id": "n"},
            "a.parquet: column 'n' is list<element: int64>, not a text or a number\n"
            "  columns that can be the id: body",
        ),
        (
            {"p": ["xx"], "q": ["yy"]}, {},
            "a.parquet: cannot tell which column is the text\n"
            "  say --text-column or --conversation-column; candidates: p, q",
        ),
        (
            {"n": [1]}, {},
            "a.parquet: no column holds text\n  write the texts to a column of strings and name "
            "it with --text-column; its columns are: n (int64)",
        ),
        (
            {"p": ["x"]}, {"text": ("p",), "conversation": "p"},
            "a record is one text or one conversation, not both\n"
            "  say either --text-column or --conversation-column",
        ),
        (
            {"p": ["x"]}, {"context": "p", "conversation": "p"},
            "the context of a message is the message before it\n  leave out --context-column",
        ),
    ],
)  # fmt: skip
def test_messages_about_columns(
    tmp_path: Path, table: dict[str, Any], named: dict[str, Any], message: str
) -> None:
    sources = discover([parquet(tmp_path / "a.parquet", table)])
    with pytest.raises(InputError) as caught:
        resolve_columns(sources, **named)
    assert str(caught.value) == message


def test_long_names_are_clipped_in_messages(tmp_path: Path) -> None:
    name = "n" * 50
    shown = "n" * 37 + "..."
    sources = discover([parquet(tmp_path / "a.parquet", {name: ["x"], name + "2": [1]})])
    assert f"'{shown}'" in resolve_columns(sources).notices[0]
    for text in ("nnn", name + "2", name + "3"):
        with pytest.raises(InputError) as caught:
            resolve_columns(sources, text=(text,))
        assert shown in str(caught.value)
        assert name not in str(caught.value)


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], ["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="two columns are named 'text'"):
        read(tmp_path)


def test_a_file_without_the_column_is_named(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", {"text": ["x"]})
    parquet(tmp_path / "b.parquet", {"body": ["x"]})
    with pytest.raises(InputError, match=r"b\.parquet: no column 'text'"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dmp.parquet", "no such file or folder\n  did you mean '{}/dump.parquet'?"),
        ("nothing-like-it", "no such file or folder\n  check the path"),
        ("*.pq", "no input file matches this pattern\n  quote the pattern"),
        ("empty", "no input file in this folder\n  edgemod reads .parquet"),
    ],
)
def test_messages_about_paths(tmp_path: Path, name: str, message: str) -> None:
    parquet(tmp_path / "dump.parquet", {"text": ["x"]})
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        discover([str(tmp_path / name)])
    assert str(caught.value).startswith(f"{tmp_path / name}: {message.format(tmp_path)}")


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"a\.xlsx: is in no format edgemod reads"):
        discover([tmp_path / "a.xlsx"])


def test_a_batch_in_memory() -> None:
    batch = pa.record_batch({"text": ["a", None], "key": ["k", None]})
    columns = Columns(("text",), None, "key", None, None, None, None, ())
    chunk = chunk_of(batch, columns, max_text_bytes=LIMIT)
    assert column([chunk], "record_id") == ["k", "batch#1"]
    assert statuses([chunk]) == ["ok", "null_text"]
    with pytest.raises(InputError, match="batch: no column 'txt'"):
        chunk_of(batch, replace(columns, text=("txt",)), max_text_bytes=LIMIT)


@pytest.mark.parametrize("first", ["null", "  null", 'null, "c", {', "nullx"])
def test_a_line_that_would_end_the_process_is_one_lost_row(tmp_path: Path, first: str) -> None:
    """pyarrow ends the process where lines begin with a null (found by fuzzing)."""
    (tmp_path / "a.jsonl").write_text(f'{first}\n{{"text": "b"}}\n')
    chunks = read(tmp_path / "a.jsonl")
    assert statuses(chunks) == ["unreadable", "ok"]
    assert column(chunks, "text") == [None, "b"]


def test_a_folder_that_is_called_as_a_model_is_no_path_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default").mkdir()
    (tmp_path / "own.gguf").touch()
    assert absolute("default") == "default"
    assert absolute("own.gguf") == str(tmp_path / "own.gguf")
    assert absolute(None) is None
