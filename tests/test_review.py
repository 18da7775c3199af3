"""The review queue against slow, obvious twins and real parsers."""

from __future__ import annotations

import csv
import json
import math
import os
import stat
import tempfile
import tracemalloc
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemod import review
from edgemod.errors import InputError, OutputError, RunError
from edgemod.policy import Category, Policy
from edgemod.records import RECORDS, TEXTS, Chunk
from edgemod.review import PENDING, REVIEW, ReviewSummary, export, pending
from edgemod.review_formats import FORMATS
from edgemod.words import CATEGORIES, OUTPUTS, Stage, Status, Verdict

Row = dict[str, Any]

POLICY = Policy(
    name="test",
    version="1",
    languages=(),
    unsupported_language="review",
    empty_text="review",
    max_text_bytes=1 << 20,
    stages=("rule", "filter", "model"),
    lexicons=(),
    rules=(),
    tests=(),
    overlays=(),
    overlay="",
    fingerprint="",
    categories=tuple(
        Category(name, severity, f"What {name} means.", None, None)
        for name, severity in [("hate", 4), ("threat_violence", 5), ("spam_scam", 2), ("toxic", 1)]
    ),
)


# ---------------------------------------------------------------- pending


def decide(rows: Sequence[Row], texts: Sequence[Row] | None = None) -> tuple[Chunk, pa.Table]:
    """Build a chunk and its decisions; each row says only what matters to its test."""
    records = [
        {"record_id": f"r{i}", "source": "a.parquet", "source_row": i}
        | {name: row[name] for name in RECORDS.names if name in row}
        for i, row in enumerate(rows)
    ]
    if texts is None:
        texts = [{"record": i, "message": -1, "text": f"text {i}"} for i in range(len(rows))]
    texts = [{"status": 0} | text for text in texts]
    chunk = Chunk(
        0,
        pa.RecordBatch.from_pylist(records, schema=RECORDS),
        pa.RecordBatch.from_pylist(list(texts), schema=TEXTS),
    )
    decided: Row = {"verdict": "review", "stage": "filter", "reason": "unsure", "status": "ok"}
    word = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema(
        [("message", pa.int32())]
        + [(name, word) for name in ("verdict", "category", "stage", "reason", "status")]
        + [(f"p_{name}", pa.float32()) for name in OUTPUTS]
    )
    return chunk, pa.Table.from_pylist([decided | row for row in rows], schema=schema)


def naive_priority(row: Row, policy: Policy) -> float:
    """Follow the formula word for word, one row at a time."""
    if row.get("status") in ("null_text", "empty_text"):
        return 0.0
    severities = {c.name: c.severity for c in policy.categories}
    category, scored_at_all = row.get("category"), row.get("status", "ok") == "ok"
    if category is None and scored_at_all:
        scored = [c for c in severities if row.get(f"p_{c}") is not None]
        category = max(scored, key=lambda c: severities[c] * row[f"p_{c}"], default=None)
    if category is None:
        severity, p = max(severities.values()) / 2, None
    else:
        severity, p = severities[category], row.get(f"p_{category}")
    if p is None:
        p = row.get("p_any")
    if p is None or not scored_at_all:
        p = 0.5
    if row.get("stage") == "rule":
        p = max(p, 0.5)
    entropy = -sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)
    return severity / 5 * max(p, entropy)


probability = st.none() | st.sampled_from([0.0, 1.0]) | st.floats(0, 1, width=32)
decision_rows = st.fixed_dictionaries(
    {
        "verdict": st.sampled_from([verdict.name for verdict in Verdict]),
        "category": st.none() | st.sampled_from([c.name for c in POLICY.categories]),
        "stage": st.sampled_from([stage.name for stage in Stage]),
        "status": st.sampled_from([status.name for status in Status]),
        **{f"p_{name}": probability for name in OUTPUTS},
    }
)


@settings(deadline=None)
@given(st.lists(decision_rows, max_size=20))
def test_pending_keeps_the_reviews_and_their_priority(rows: list[Row]) -> None:
    table = pending(*decide(rows), POLICY)
    expected = [(i, row) for i, row in enumerate(rows) if row["verdict"] == "review"]
    assert table.schema == PENDING
    assert table["record_id"].to_pylist() == [f"r{i}" for i, _ in expected]
    assert table["text"].to_pylist() == [f"text {i}" for i, _ in expected]
    assert table["priority"].to_pylist() == pytest.approx(
        [naive_priority(row, POLICY) for _, row in expected], rel=1e-5, abs=1e-6
    )
    for name in OUTPUTS:
        assert table[f"p_{name}"].to_pylist() == [row[f"p_{name}"] for _, row in expected]


def test_pending_takes_the_text_of_the_message_that_decided() -> None:
    texts: list[Row] = [
        {"record": 0, "message": 0, "role": "user", "text": "hello"},
        {"record": 0, "message": 1, "role": "agent", "text": "go away", "context": "hello"},
        {"record": 1, "message": -1, "text": "flat"},
        {"record": 2, "message": 0},
    ]
    chunk, decisions = decide([{"message": 1}, {}, {"message": 0}, {"message": 7}], texts)
    table = pending(chunk, decisions, POLICY)
    assert table["text"].to_pylist() == ["go away", "flat", None, None]
    assert table["role"].to_pylist() == ["agent", None, None, None]
    assert table["context"].to_pylist() == ["hello", None, None, None]
    assert table["message"].to_pylist() == [1, None, 0, 7]


def test_pending_says_what_the_category_means() -> None:
    rows: list[Row] = [
        {"category": "hate"},
        {"p_toxic": 0.3, "p_hate": 0.1},
        {"status": "not_utf8"},
    ]
    table = pending(*decide(rows), POLICY)
    assert table["category"].to_pylist() == ["hate", "hate", None]
    assert table["severity"].to_pylist() == [4, 4, None]
    assert table["definition"].to_pylist() == ["What hate means."] * 2 + [None]


def test_unscored_records_rank_between_severe_and_mild_ones() -> None:
    rows: list[Row] = [
        {"status": "null_text"},
        {"category": "toxic", "p_toxic": 0.5},
        {"status": "model_failed", "stage": "status"},
        {"category": "threat_violence", "p_threat_violence": 0.5},
    ]
    priority = pending(*decide(rows), POLICY)["priority"].to_pylist()
    assert priority == sorted(priority)
    assert priority[0] == 0


def test_what_a_rule_sends_ranks_as_doubtful_however_sure_the_models_are() -> None:
    rows: list[Row] = [
        {"category": "hate", "p_hate": 0.01},
        {"category": "hate", "p_hate": 0.01, "stage": "rule"},
        {"category": "hate", "p_hate": 0.5},
    ]
    low, by_rule, doubtful = pending(*decide(rows), POLICY)["priority"].to_pylist()
    assert low < by_rule == doubtful


def test_a_score_of_a_language_that_is_not_supported_gives_no_category() -> None:
    rows: list[Row] = [{"status": "unsupported_language", "stage": "status", "p_hate": 0.9}]
    table = pending(*decide(rows), POLICY)
    assert table["category"].to_pylist() == [None]
    assert table["priority"].to_pylist() == pytest.approx([5 / 2 / 5])


def test_pending_mends_what_is_not_utf8() -> None:
    chunk, decisions = decide([{}, {}])
    broken = pa.array([b"ok", b"lone \xed\xa0\x80"], pa.large_binary())
    context = pa.Array.from_buffers(pa.large_string(), 2, broken.buffers())
    texts = chunk.texts.set_column(TEXTS.names.index("context"), "context", context)
    table = pending(replace(chunk, texts=texts), decisions, POLICY)
    table.validate(full=True)
    assert table["context"].to_pylist() == ["ok", "lone \ufffd\ufffd\ufffd"]


def test_a_chunk_without_reviews_has_an_empty_part() -> None:
    assert pending(*decide([{"verdict": "clear"}]), POLICY).num_rows == 0
    assert pending(*decide([]), POLICY).schema == PENDING


# ---------------------------------------------------------------- export


def part(rows: Sequence[Row]) -> pa.Table:
    basic: Row = {
        "priority": 0.5,
        "source": "a.parquet",
        "category": "hate",
        "definition": "What hate means.",
        "reason": "unsure",
        "stage": "filter",
        "status": "ok",
        "severity": 4,
        "p_hate": 0.4,
        "inclusion_probability": 1.0,
    }
    rows = [{"record_id": f"r{i}", "source_row": i} | basic | row for i, row in enumerate(rows)]
    sizes = [{"size": 1024 + len((row.get("text") or "").encode())} for row in rows]
    return pa.Table.from_pylist(
        [row | size for row, size in zip(rows, sizes, strict=True)], schema=PENDING
    )


def write_parts(folder: Path, tables: Sequence[pa.Table]) -> list[Path]:
    paths = [folder / f"review-{i:05d}.parquet" for i in range(len(tables))]
    for table, path in zip(tables, paths, strict=True):
        pq.write_table(table, path)
    return paths


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def read_parquet(out: Path, summary: ReviewSummary) -> list[Row]:
    rows: list[Row] = []
    for name in summary.files:
        table = pq.read_table(out / name)
        assert table.schema == REVIEW
        rows += table.to_pylist()
    return rows


@settings(deadline=None, max_examples=40)
@given(
    parts=st.lists(
        st.lists(
            st.fixed_dictionaries(
                {
                    "priority": st.sampled_from([0.0, 0.25, 0.5]) | st.floats(0, 1, width=32),
                    "text": st.none() | st.text(max_size=300),
                    "category": st.none() | st.sampled_from(CATEGORIES),
                }
            ),
            max_size=12,
        ),
        max_size=5,
    ),
    budget=st.none() | st.integers(0, 40),
    rows_per_file=st.integers(1, 9),
    batch_bytes=st.integers(1, 10_000),
)
def test_export_equals_a_naive_sort(
    parts: list[list[Row]], budget: int | None, rows_per_file: int, batch_bytes: int
) -> None:
    tables = [part(rows) for rows in parts]
    every = [row for table in tables for row in table.drop_columns("size").to_pylist()]
    order = sorted(range(len(every)), key=lambda i: (-every[i]["priority"], i))
    total, count = len(order), len(order[:budget])
    by_chance = count // 10 if count < total else 0
    top = count - by_chance
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(review, "BATCH_BYTES", batch_bytes)
        out = Path(name) / "review"
        summary = export(
            write_parts(Path(name), tables), out, budget=budget, rows_per_file=rows_per_file
        )
        exported = read_parquet(out, summary)
        files = [pq.read_metadata(out / file).num_rows for file in summary.files]
    for row in exported:
        row["inclusion_probability"] = pytest.approx(row["inclusion_probability"])
    wanted = [{"rank": rank, **every[i]} for rank, i in enumerate(order[:top], 1)]
    assert exported[:top] == wanted
    # The rest were drawn from what the ranking leaves, and stay in its order.
    chance = by_chance / (total - top) if total > top else 1.0
    rest = [{**every[i], "inclusion_probability": chance} for i in order[top:]]
    drawn = [{k: v for k, v in row.items() if k != "rank"} for row in exported[top:]]
    places = [rest.index(row) for row in drawn]
    assert len(drawn) == by_chance
    assert [row["rank"] for row in exported[top:]] == [*range(top + 1, count + 1)]
    lowest = every[order[top - 1]]["priority"] if top else None
    order = [*order[:top], *(order[top + i] for i in places)]
    assert all(rows == rows_per_file for rows in files[:-1])
    assert files[-1] <= rows_per_file
    assert (summary.total, summary.exported) == (len(every), len(order))
    assert summary.left_behind == len(every) - len(order)
    left = set(range(len(every))) - set(order)
    for counts, rows in (
        (summary.exported_by_category, order),
        (summary.left_behind_by_category, left),
    ):
        names = [every[i]["category"] or "none" for i in rows]
        assert counts == {name: names.count(name) for name in names}
    assert summary.lowest_priority == lowest


@pytest.mark.parametrize(("budget", "exported"), [(0, 0), (1, 1), (3, 3), (5, 5), (99, 5)])
@pytest.mark.parametrize("format", FORMATS)
def test_budget(tmp_path: Path, format: str, budget: int, exported: int) -> None:
    paths = write_parts(tmp_path, [part([{"priority": 0.1 * i} for i in range(5)])])
    summary = export(paths, tmp_path / "review", format=format, budget=budget)
    assert (summary.total, summary.exported, summary.left_behind) == (5, exported, 5 - exported)
    assert len(read_back(tmp_path / "review", format)) == exported


def test_equal_priorities_stay_in_input_order(tmp_path: Path) -> None:
    paths = write_parts(tmp_path, [part([{"record_id": f"{p}-{i}"} for i in range(40)])
                                   for p in range(3)])  # fmt: skip
    summary = export(paths, tmp_path / "review", budget=90, rows_per_file=7)
    ids = [row["record_id"] for row in read_parquet(tmp_path / "review", summary)]
    every = [f"{p}-{i}" for p in range(3) for i in range(40)]
    assert ids[:81] == every[:81]
    assert ids[81:] == [name for name in every[81:] if name in ids[81:]]  # the draw, in order too


# ---------------------------------------------------------------- formats

AWKWARD: list[Row] = [
    {"text": 'said "no", then\r\nleft', "context": "line\u2028separator", "priority": 0.9},
    {"text": "=HYPERLINK(1)", "author_id": "@name", "thread_id": "+1", "priority": 0.8},
    {"text": "\t-1", "record_id": "-7", "context": "＝wide", "time": "\rreturn", "priority": 0.7},
    {"text": "nul \x00 bell \x07 kept \t \n", "priority": 0.6},
    {"text": "naïve 日本 🎲 e\u0301", "context": "", "message": 3, "role": "user", "priority": 0.5},
    {"text": None, "category": None, "severity": None, "p_hate": None, "priority": 0.4},
    {"text": "'=already", "p_hate": 0.1, "priority": 0.3},
    {"text": "sure", "p_hate": 0.9, "priority": 0.2},
    {"text": "a rule's", "p_hate": 0.9, "stage": "rule", "priority": 0.1},
]


def read_back(out: Path, format: str) -> list[Row]:
    """Read a queue with the parser its reader would use."""
    if format == "parquet":
        return [row for file in sorted(out.glob("*.parquet")) for row in rows_of(file)]
    if format == "csv":
        with (out / "review.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, strict=True))
    if format == "jsonl":
        return [json.loads(line) for line in (out / "review.jsonl").read_text("utf-8").splitlines()]
    tasks: list[Row] = json.loads((out / "label-studio.json").read_text("utf-8"))
    return tasks


def rows_of(file: Path) -> list[Row]:
    rows: list[Row] = pq.read_table(file).to_pylist()
    return rows


@pytest.fixture
def awkward(tmp_path: Path) -> tuple[list[Path], list[Row]]:
    table = part(AWKWARD)
    rows = [{"rank": i, **row} for i, row in enumerate(table.to_pylist(), 1)]
    return write_parts(tmp_path, [table]), [{n: row[n] for n in REVIEW.names} for row in rows]


def short(value: Any) -> Any:
    """Floats as the exports that are text write them: the shortest that reads back as float32."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_parquet_and_jsonl_keep_every_value(
    tmp_path: Path, awkward: tuple[list[Path], list[Row]], format: str
) -> None:
    paths, rows = awkward
    export(paths, tmp_path / "review", format=format)
    found = read_back(tmp_path / "review", format)
    if format == "jsonl":
        rows = [{name: short(value) for name, value in row.items()} for row in rows]
    assert found == rows


def test_csv_keeps_every_value_but_formulas_and_controls(
    tmp_path: Path, awkward: tuple[list[Path], list[Row]]
) -> None:
    paths, rows = awkward
    export(paths, tmp_path / "review", format="csv")
    found = read_back(tmp_path / "review", "csv")
    for row, cells in zip(rows, found, strict=True):
        for name, value in row.items():
            if isinstance(value, str):
                value = value.replace("\x00", "\ufffd").replace("\x07", "\ufffd")
                if value.startswith(tuple("=+-@\t\r\n＝＋－＠")):
                    value = "'" + value
            assert cells[name] == ("" if value is None else str(short(value)))
    data = (tmp_path / "review" / "review.csv").read_bytes()
    assert data.startswith(b"rank,priority,record_id,")
    assert data.endswith(b"\r\n")


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=60))
def test_no_csv_cell_begins_like_a_formula(text: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        row = dict.fromkeys(("record_id", "author_id", "text", "context"), text)
        paths = write_parts(Path(name), [part([row])])
        export(paths, Path(name) / "review", format="csv")
        (cells,) = read_back(Path(name) / "review", "csv")
    for value in cells.values():
        assert not value.startswith(tuple("=+-@\t\r\n＝＋－＠\x00"))


def test_label_studio_tasks_fit_their_configuration(
    tmp_path: Path, awkward: tuple[list[Path], list[Row]]
) -> None:
    paths, rows = awkward
    summary = export(paths, tmp_path / "review", format="label-studio")
    assert summary.files == ("label-studio.json", "label-studio.xml")
    tasks = read_back(tmp_path / "review", "label-studio")
    config = ET.parse(tmp_path / "review" / "label-studio.xml").getroot()
    shown = {tag.attrib["name"]: tag.attrib["value"] for tag in config.iter("Text")}
    choices, categories = config.iter("Choices")
    assert [tag.attrib["value"] for tag in categories] == [*CATEGORIES]
    allowed = {tag.attrib["value"] for tag in choices.iter("Choice")}
    assert choices.attrib["toName"] in shown
    for row, task in zip(rows, tasks, strict=True):
        assert set(task) == {"data", "predictions"}
        assert all(isinstance(task["data"][value.removeprefix("$")], str)
                   for value in shown.values())  # fmt: skip
        assert "\x00" not in json.dumps(task, ensure_ascii=False)
        assert task["data"]["record_id"] == row["record_id"]
        for prediction in task["predictions"]:
            (result,) = prediction["result"]
            assert result["from_name"] == choices.attrib["name"]
            assert result["to_name"] == choices.attrib["toName"]
            assert result["type"] == "choices"
            assert result["value"]["choices"] == ["flag"]
            assert "flag" in allowed
            assert 0.5 <= prediction["score"] <= 1
    assert [row["text"] for row, task in zip(rows, tasks, strict=True) if task["predictions"]] == [
        "sure"
    ]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("parts", [0, 2])
def test_an_empty_queue_is_a_file_a_reader_can_open(
    tmp_path: Path, format: str, parts: int
) -> None:
    paths = write_parts(tmp_path, [PENDING.empty_table()] * parts)
    summary = export(paths, tmp_path / "review", format=format)
    assert (summary.total, summary.exported, summary.lowest_priority) == (0, 0, None)
    assert {path.name for path in (tmp_path / "review").iterdir()} == set(summary.files)
    assert read_back(tmp_path / "review", format) == []


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_parts_give_the_same_bytes(tmp_path: Path, format: str) -> None:
    rows = [{"priority": (i * 37 % 100) / 100, "text": "x" * i} for i in range(200)]
    paths = write_parts(tmp_path, [part(rows[:90]), part(rows[90:])])
    out = tmp_path / "review"
    first = export(paths, out, format=format, rows_per_file=30)
    before = contents(out)
    assert export(paths, out, format=format, rows_per_file=30) == first
    assert contents(out) == before
    assert set(before) == set(first.files)


@pytest.mark.parametrize("format", FORMATS)
def test_killed_anywhere_it_leaves_whole_files_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    class Killed(BaseException):
        pass

    def export_until(fatal: float, out: Path) -> None:
        """Export, but die at the given step to the disk (a sync or a rename)."""
        steps = count()

        def dying(original: Callable[..., Any]) -> Callable[..., Any]:
            def step(*args: Any) -> Any:
                if next(steps) == fatal:
                    raise Killed
                return original(*args)

            return step

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", dying(os.fsync))
            patch.setattr(Path, "rename", dying(Path.rename))
            export(paths, out, format=format, rows_per_file=16)

    paths = write_parts(tmp_path, [part([{"priority": i / 64} for i in range(64)])])
    export_until(math.inf, tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    for fatal in range(2 + 2 * len(whole)):  # the spill and the folder; each file twice
        out = tmp_path / f"killed-{fatal}"
        with pytest.raises(Killed):
            export_until(fatal, out)
        assert contents(out).items() <= whole.items()
        (out / ".partial").mkdir()  # a real kill leaves it behind
        (out / ".partial" / "spill").write_bytes(b"half")
        export(paths, out, format=format, rows_per_file=16)
        assert {path.name for path in out.iterdir()} == set(whole)
        assert contents(out) == whole


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    paths = write_parts(tmp_path, [part([{}] * 5)])
    for format in FORMATS:
        out = tmp_path / format
        before = os.umask(0)
        try:
            export(paths, out, format=format, rows_per_file=2)
        finally:
            os.umask(before)
        assert stat.S_IMODE(out.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}


def test_an_earlier_export_is_replaced_and_other_files_are_not(tmp_path: Path) -> None:
    paths = write_parts(tmp_path, [part([{}] * 5)])
    out = tmp_path / "review"
    export(paths, out, format="parquet", rows_per_file=1)
    (out / "notes.txt").write_text("mine")
    for format in FORMATS:
        summary = export(paths, out, format=format, budget=2)
        assert {path.name for path in out.iterdir()} == {*summary.files, "notes.txt"}


# ---------------------------------------------------------------- memory


def peak_bytes(paths: Sequence[Path], out: Path, format: str) -> tuple[int, int]:
    """Greatest Arrow and Python memory, bytes, of one export."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        export(paths, out, format=format)
        return pool.max_memory(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)


@pytest.mark.parametrize(("format", "few", "many"), [("parquet", 10, 100), ("csv", 6, 24)])
def test_memory_does_not_grow_with_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, few: int, many: int
) -> None:
    monkeypatch.setattr(review, "BATCH_BYTES", 2**21)
    table = part([{"priority": (i * 7919 % 1000) / 1000, "text": "words " * 20}
                  for i in range(2_000)])  # fmt: skip
    path = write_parts(tmp_path, [table])[0]
    small = peak_bytes([path] * few, tmp_path / "small", format)
    large = peak_bytes([path] * many, tmp_path / "large", format)
    keys = (many - few) * 2_000 * 48  # the rows more, at the bytes of a key
    assert large[0] < 1.3 * small[0] + keys
    assert large[1] < 1.3 * small[1] + keys


# ---------------------------------------------------------------- errors


def test_errors_say_what_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown review format 'xml'") as unknown:
        export([], tmp_path / "review", format="xml")
    assert "parquet, csv, jsonl, label-studio" in str(unknown.value)
    with pytest.raises(InputError, match="budget -1 is negative"):
        export([], tmp_path / "review", budget=-1)
    with pytest.raises(RunError, match="missing or damaged"):
        export([tmp_path / "gone.parquet"], tmp_path / "review")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(RunError, match="--restart"):
        export([tmp_path / "bad.parquet"], tmp_path / "review")
    with pytest.raises(OutputError, match="cannot be used as the output folder: Not a directory"):
        export([], tmp_path / "bad.parquet")
