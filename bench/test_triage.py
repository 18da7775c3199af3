"""The whole: ``triage`` of a generated dump with the shipped models, from call to report.

make bench ARGS='bench/test_triage.py'; ``edgemod bench`` measures it on a dump of your own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import edgemod
import make_demo

ROWS = 1_500


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The comments and the conversations of the demo, a file each."""
    folder = tmp_path_factory.mktemp("dumps")
    comments, talks, _ = make_demo.make(ROWS, 7)
    tables = {"comments": comments, "conversations": talks}
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    return {name: folder / f"{name}.parquet" for name in tables}


@pytest.mark.parametrize("kind", ["comments", "conversations"])
@pytest.mark.parametrize("workers", [1, 2])
def test_triage(
    benchmark: Any, dumps: dict[str, Path], tmp_path: Path, workers: int, kind: str
) -> None:
    """Seconds to start the workers are in it: a longer dump has a better rate."""
    out = tmp_path / "out"
    report = benchmark.pedantic(
        edgemod.triage,
        args=(dumps[kind], out),
        kwargs={"workers": workers, "chunk_rows": 256, "restart": True},
        rounds=2,
    )
    rows = pq.read_metadata(dumps[kind]).num_rows
    assert report.records == sum(report.verdicts.values()) == rows
    assert ds.dataset(out / "decisions").count_rows() == rows
    assert report.stages["filter"] > 0
    assert report.stages["model"] > 0
    assert report.review["total"] == report.verdicts["review"] > 0
    if benchmark.stats:  # None where benchmarks are switched off
        benchmark.extra_info.update(
            records_per_second=round(rows / benchmark.stats["min"]),
            tokens_per_second_a_core=round(report.rates["model_tokens"]),
            peak_memory_mb=round(report.peak_memory_bytes / 1e6),
        )


def test_batches_in_memory(benchmark: Any, dumps: dict[str, Path]) -> None:
    """``Triager`` without a run: what another program pays for each batch, on one core."""
    batch = pq.read_table(dumps["comments"]).slice(0, 500).to_batches()[0]
    with edgemod.Triager() as triager:

        def fresh() -> tuple[tuple[()], dict[str, object]]:
            triager.model._seen.clear()  # type: ignore[union-attr]  # windows it has read
            return (), {"batch": batch, "id": "id"}

        decisions = benchmark.pedantic(triager.triage_batch, setup=fresh, rounds=2)
    assert decisions["record_id"].to_pylist() == batch["id"].to_pylist()
