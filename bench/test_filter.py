"""How fast the filter's kernel scores: pytest bench/test_filter.py (one core)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from edgemod import features, store
from edgemod.filter import Filter

RECORDS = 20_000
SENTENCE = (
    "we took the early train to the coast, had tea by the harbour and talked about the "
    "garden; next week my sister visits, so I am cleaning the flat and baking bread. "
)


def posts(length: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """RECORDS different normalised texts of about ``length`` characters."""
    random = np.random.default_rng(1)
    words = np.array([*SENTENCE.split(), *(f"word{i}" for i in range(5000))])
    rows = [" ".join(random.choice(words, length // 7 + 1))[:length] for _ in range(RECORDS)]
    arrow = pa.array(rows, type=pa.large_string())
    return features.extract(arrow, features.Lexicons.compile(())).normalised


@pytest.mark.parametrize("length", [100, 650])
def test_filter(benchmark: BenchmarkFixture, length: int) -> None:
    loaded = Filter.load(store.quantized_dir() / "filter.safetensors")
    data, offsets = posts(length)
    scores = benchmark(loaded.scores, (data, offsets))
    if benchmark.stats:  # None where benchmarks are switched off
        benchmark.extra_info["records_per_second"] = RECORDS / benchmark.stats["mean"]
    assert scores.shape == (RECORDS, 10)
    first = loaded.scores((data, offsets[:11]))
    np.testing.assert_array_equal(scores[:10], first)
