"""How fast records come in. Rates are bytes of text delivered, in MB/s of one core."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgemod.parts import write_part
from edgemod.records import discover, read_chunks, resolve_columns

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
