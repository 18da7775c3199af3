"""The whole filter stage beside alt-profanity-check: same process, same texts, one core.

alt-profanity-check (MIT, https://pypi.org/project/alt-profanity-check/) gives one probability
a text; the filter stage gives 36 features, lexicon counts and ten scores.

    make bench ARGS='bench/test_peers.py'
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import profanity_check
import pyarrow as pa
import pytest

import edgemod

Texts = Callable[[int, int], pa.LargeStringArray]


@pytest.fixture(autouse=True)
def one_core() -> Any:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.parametrize("size", [100, 650])
def test_filter_stage_beside_alt_profanity_check(benchmark: Any, texts: Texts, size: int) -> None:
    column = texts(20_000 if size == 100 else 5_000, size)
    plain = column.to_pylist()
    ours, theirs = [], []
    edgemod.filter_scores(column)  # compiles the kernels

    def pair() -> np.ndarray[Any, Any]:
        began = time.perf_counter()
        answer = profanity_check.predict_prob(plain)
        between = time.perf_counter()
        scores = edgemod.filter_scores(column)
        ours.append(time.perf_counter() - between)
        theirs.append(between - began)
        assert len(answer) == len(scores)
        return scores

    scores = benchmark.pedantic(pair, rounds=5)
    assert scores.shape == (len(column), len(edgemod.OUTPUTS))
    assert np.isfinite(scores).all()
    benchmark.extra_info.update(
        characters=size,
        records_per_second=round(len(column) / statistics.median(ours)),
        peer_records_per_second=round(len(column) / statistics.median(theirs)),
        ratio=round(statistics.median(t / o for t, o in zip(theirs, ours, strict=True)), 2),
    )
    print(benchmark.extra_info)
