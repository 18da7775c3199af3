"""Texts for the benchmarks: made up, or the user's own with --texts FILE --text-column NAME."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SENTENCE = (
    "I had been meaning to ask whether anyone here has tried the new schedule, because mine "
    "came with two pages missing and nobody at the desk could say who printed it, so we went "
    "for coffee instead and talked about the garden until it got dark. "
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--texts", type=Path, help="Parquet file whose texts the benchmarks use")
    parser.addoption("--text-column", action="append", help="its text columns, joined")


@pytest.fixture(scope="session")
def source(request: pytest.FixtureRequest) -> list[str]:
    """Every text as it is."""
    path = request.config.getoption("--texts")
    if path is None:
        return [f"{i} {SENTENCE[i % 97 :]}{SENTENCE * 3}" for i in range(20_000)]
    table = pq.read_table(path, columns=request.config.getoption("--text-column"))
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return ["\n".join(filter(None, row)) for row in rows]


@pytest.fixture(scope="session")
def texts(source: list[str]) -> Callable[[int, int], pa.LargeStringArray]:
    """``texts(n, size)``: n texts of exactly ``size`` characters."""

    def cut(n: int, size: int) -> pa.LargeStringArray:
        long = [text[:size] for text in source if len(text) >= size][:n]
        assert long, f"no text has {size} characters"
        return pa.array((long * (n // len(long) + 1))[:n], pa.large_string())

    return cut
