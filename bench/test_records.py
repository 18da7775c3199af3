"""How fast records come in and results go out, on one core. Reading: MB/s of text delivered."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgemod import review, review_formats, worker
from edgemod.parts import write_part
from edgemod.records import Chunk, discover, read_chunks, resolve_columns
from edgemod.triager import Triager
from edgemod.words import Status

ROWS = 100_000
TEXTS = [f"number {i}: " + "some ordinary words of a comment " * (i % 9) for i in range(ROWS)]
BYTES = sum(map(len, TEXTS))


def write(path: Path, form: str) -> Path:
    if form == "conversations":
        talks = [[{"role": "user", "content": text} for text in TEXTS[i : i + 4]]
                 for i in range(0, ROWS, 4)]  # fmt: skip
        pq.write_table(pa.table({"messages": talks}), path / "a.parquet", compression="zstd")
    elif form == "csv":
        lines = [f"{i},{text}\n" for i, text in enumerate(TEXTS)]
        (path / "a.csv").write_text("".join(["id,text\n", *lines]))
    elif form == "jsonl":
        lines = [json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS)]
        (path / "a.jsonl").write_text("".join(lines))
    else:
        table = pa.table({"id": range(ROWS), "text": TEXTS})
        size = 10 if form == "tiny row groups" else 1_000_000
        pq.write_table(table, path / "a.parquet", row_group_size=size, compression="zstd")
    return path


@pytest.mark.parametrize(
    "form", ["one row group", "tiny row groups", "conversations", "csv", "jsonl"]
)
def test_reading(benchmark: Any, tmp_path: Path, form: str) -> None:
    sources = discover([write(tmp_path, form)])
    columns = resolve_columns(sources)

    def read() -> int:
        chunks = read_chunks(sources, columns, max_text_bytes=10_000)
        return sum(chunk.texts.num_rows for chunk in chunks)

    assert benchmark.pedantic(read, rounds=3, warmup_rounds=1) == ROWS
    benchmark.extra_info["MB/s"] = round(BYTES / 1e6 / benchmark.stats["min"])


def test_writing_a_part(benchmark: Any, tmp_path: Path) -> None:
    table = pa.table({"id": [str(i) for i in range(8192)], "p": pa.array([0.5] * 8192)})
    benchmark(write_part, table, tmp_path / "part.parquet")
    assert pq.read_table(tmp_path / "part.parquet").equals(table)


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> tuple[Chunk, pa.RecordBatch, pa.Table]:
    """A chunk of a run, its decisions and its rows for review: without a model, all it can be."""
    sources = discover([write(tmp_path_factory.mktemp("decided"), "one row group")])
    columns = resolve_columns(sources)
    chunk = next(read_chunks(sources, columns, max_text_bytes=10_000))
    unread = pa.array([int(Status.failed)] * chunk.texts.num_rows, pa.int8())
    at = chunk.texts.schema.get_field_index("status")
    texts = chunk.texts.set_column(at, chunk.texts.schema.field(at), unread)
    chunk = replace(chunk, texts=texts)
    with Triager(model=None) as triager:
        decisions = triager.triage_chunk(chunk).decisions
        return chunk, decisions, review.pending(chunk, decisions, triager.policy)


def test_writing_a_chunk(
    benchmark: Any, tmp_path: Path, decided: tuple[Chunk, pa.RecordBatch, pa.Table]
) -> None:
    """Decisions, review rows and tally, synced to the disk, of a chunk that nothing settled."""
    chunk, decisions, pending = decided
    for folder in ("decisions", "work"):
        (tmp_path / folder).mkdir()

    def write() -> None:
        made = worker.encoded_chunk(tmp_path, 0, decisions, pending, {"records": 1})
        worker.write_chunk(made)

    benchmark(write)
    queue, _, part = worker.files(tmp_path, 0)
    assert pq.read_metadata(queue).num_rows == pending.num_rows == chunk.records.num_rows
    assert pq.read_metadata(part).num_rows == chunk.records.num_rows


@pytest.mark.parametrize("form", review_formats.FORMATS)
def test_exporting_the_queue(
    benchmark: Any, tmp_path: Path, decided: tuple[Chunk, pa.RecordBatch, pa.Table], form: str
) -> None:
    """Ten chunks ranked and written, half of them within the budget."""
    pending = decided[2]
    write_part(pending, tmp_path / "part.parquet")
    parts = [tmp_path / "part.parquet"] * 10
    half = 5 * pending.num_rows
    summary = benchmark.pedantic(
        review.export,
        args=(parts, tmp_path / "review"),
        kwargs={"format": form, "budget": half},
        rounds=3,
    )
    assert (summary.exported, summary.left_behind) == (half, half)
