"""How far the stages are from what the machine can do: pytest bench/test_roofline.py -s.

For the filter stage two ceilings, measured in the same process: rows of the weight table that can
be added up a second where the rows are random (what the n-grams ask of the caches), and text that
Arrow can decode from Parquet a second (what there is to read).

For the language model: its operations a second beside those of a float32 matrix product (numpy's
BLAS) on one core, and the cycles of that core a second, which a chain of dependent operations of
known latency tells: what a processor can do in a cycle is in its maker's manual.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit

import edgemod
from edgemod import features, scoring, store
from edgemod.encoder import Encoder
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


@njit(nogil=True)
def _chain(steps: int) -> np.uint64:
    x = np.uint64(steps)
    for k in range(np.uint64(steps)):  # a multiplication (3 cycles) waits for a xor (1 cycle)
        x = (x ^ np.uint64(k)) * np.uint64(0x9E3779B97F4A7C15)
    return x


def test_model_roofline(benchmark: Any) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    encoder = Encoder.open(store.resolve("default"))
    size = encoder.head.window
    llama = encoder._llama
    layers, wide, inner = (
        int(llama.metadata(f"bert.{key}") or 0)
        for key in ("block_count", "embedding_length", "feed_forward_length")
    )
    # Two operations for each weight: attention's four matrices and the two behind it; and two
    # products with the other tokens of the window, [CLS] and [SEP] among them.
    a_token = layers * (2 * (4 * wide * wide + 2 * wide * inner) + 4 * wide * (size + 2))
    window = llama.tokenize(b" ".join(b"garden recipe walked" for _ in range(size)))[:size]
    matrix = np.random.default_rng(0).random((1024, 1024), np.float32)
    seconds = {"model": 1e9, "product": 1e9, "chain": 1e9}
    try:
        _chain(1)
        for _ in range(7):  # by turns, for others use the machine
            for name, call in (
                ("model", lambda: [encoder.vector(window) for _ in range(4)]),
                ("product", lambda: matrix @ matrix),
                ("chain", lambda: _chain(20_000_000)),
            ):
                began = time.process_time()
                call()
                seconds[name] = min(seconds[name], time.process_time() - began)
    finally:
        os.sched_setaffinity(0, before)
    rates = {
        "model": 4 * (size + 2) * a_token / seconds["model"] / 1e9,
        "float32 product": 2 * 1024**3 / seconds["product"] / 1e9,
        "cycles": 4 * 20_000_000 / seconds["chain"] / 1e9,
    }
    rates = {name: round(rate, 1) for name, rate in rates.items()}
    assert len(window) == size
    assert len(benchmark.pedantic(encoder.vector, (window,), rounds=3)) == wide
    encoder.close()
    benchmark.extra_info.update(giga_a_second=rates, megaflop_a_token=round(a_token / 1e6, 1))
    print(rates, f"{a_token / 1e6:.1f} million operations a token, windows of {size}")
