"""How far the filter stage is from what the machine can do: pytest bench/test_roofline.py -s.

Two ceilings, measured in the same process: rows of the weight table that can be added up a second
where the rows are random (what the n-grams ask of the caches), and text that Arrow can decode
from Parquet a second (what there is to read).
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit

import edgemod
from edgemod import features, scoring
from edgemod.kernels import ngrams

Texts = Callable[[int, int], pa.LargeStringArray]


@njit(nogil=True)
def _gather(rows: npt.NDArray[np.uint64], found: npt.NDArray[np.int32]) -> np.uint64:
    low = high = np.uint64(0)
    for j in range(len(found)):
        row = np.uint32(found[j])
        low += rows[row, 0]
        high += rows[row, 1]
    return low ^ high


@njit(nogil=True)
def _grams(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], out: npt.NDArray[np.int32]
) -> int:
    count = 0
    for i in range(len(offsets) - 1):
        count += ngrams.grams(data, offsets[i], offsets[i + 1], out)
    return count


def _best(call: Callable[[], Any], times: int = 7) -> float:
    call()
    took = []
    for _ in range(times):
        began = time.thread_time()
        call()
        took.append(time.thread_time() - began)
    return min(took)


def test_roofline(benchmark: Any, texts: Texts) -> None:
    column = texts(5_000, 650)
    weights, lexicons = scoring._default_filter()
    normalised = features.extract(column, lexicons).normalised
    data, offsets = normalised
    longest = int(np.diff(offsets).max())
    scratch = np.empty(ngrams.GRAMS_PER_BYTE * (longest + 1), np.int32)
    count = _grams(data, offsets, scratch)
    random = np.random.default_rng(0).integers(0, 1 << ngrams.BITS, count, np.int32)
    file = io.BytesIO()
    pq.write_table(pa.table({"text": column}), file, use_dictionary=False)

    def decode() -> pa.Table:
        file.seek(0)
        return pq.read_table(file, use_threads=False)

    nanoseconds = {
        "random row of the table": _best(lambda: _gather(weights._rows, random)) / count,
        "n-gram found": _best(lambda: _grams(data, offsets, scratch)) / count,
        "n-gram found and added": _best(lambda: weights.scores(normalised)) / count,
        "byte decoded from Parquet": _best(decode) / len(data),
        "byte through the filter stage": _best(lambda: edgemod.filter_scores(column)) / len(data),
    }
    nanoseconds = {name: round(value * 1e9, 2) for name, value in nanoseconds.items()}
    assert benchmark.pedantic(edgemod.filter_scores, (column,), rounds=3).shape[0] == len(column)
    benchmark.extra_info.update(nanoseconds=nanoseconds, ngrams_per_byte=count / len(data))
    print(nanoseconds, f"{count / len(data):.2f} n-grams a byte")
