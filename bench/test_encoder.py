"""The encoder against what a first attempt with llama-cpp-python's high-level API would do."""

from __future__ import annotations

import time
from typing import Any

import llama_cpp
import numpy as np
import pyarrow as pa
import pytest

from edgemod import store
from edgemod.encoder import Encoder

WORDS = ("garden", "printer", "walked", "slowly", "under", "bright", "recipe", "while", "nobody")


def texts(words: int, count: int) -> list[str]:
    rng = np.random.default_rng(words)
    return [" ".join(rng.choice(WORDS, words)) for _ in range(count)]


@pytest.mark.benchmark(timer=time.process_time)  # one thread: processor seconds are what it costs
@pytest.mark.parametrize(("words", "count"), [(12, 200), (50, 60), (110, 30), (1000, 4)])
def test_encoder_against_high_level_embed(benchmark: Any, words: int, count: int) -> None:
    entry = store.resolve("default")
    encoder = Encoder.open(entry)
    naive = llama_cpp.Llama(
        str(entry.path), embedding=True, n_threads=1, n_threads_batch=1, n_ctx=512, verbose=False
    )
    batch = texts(words, count)
    column = pa.array(batch, pa.large_string())
    answer = benchmark.pedantic(encoder.score, args=(column,), rounds=3, warmup_rounds=1)
    started = time.process_time()
    for text in batch:
        naive.embed(text)  # cuts what is longer than its context
    naive_seconds = time.process_time() - started
    assert np.isfinite(answer.scores).all()
    tokens = int(answer.tokens.sum())
    seconds = benchmark.stats.stats.min
    benchmark.extra_info["tokens_per_second"] = round(tokens / seconds)
    benchmark.extra_info["times_as_fast_as_embed"] = round(naive_seconds / seconds, 2)
    benchmark.extra_info["tokens_that_embed_cuts"] = max(0, tokens - 512 * count)
    encoder.close()
    naive.close()


@pytest.mark.benchmark(timer=time.process_time)
def test_texts_as_they_are_beside_embed(benchmark: Any, source: list[str]) -> None:
    """500 whole texts, by turns: ``make bench ARGS='bench/test_encoder.py --texts FILE'``.

    edgemod also normalises, reads all of a long text and applies the head; ``embed`` cuts texts at
    512 tokens.
    """
    batch = [text for text in source if text.strip()][:500]
    column = pa.array(batch, pa.large_string())
    entry = store.resolve("default")
    encoder = Encoder.open(entry)
    naive = llama_cpp.Llama(
        str(entry.path), embedding=True, n_threads=1, n_threads_batch=1, n_ctx=512, verbose=False
    )
    ours: list[float] = []
    theirs: list[float] = []

    def embed() -> int:
        # Less [CLS] and [SEP], which edgemod does not count.
        return sum(naive.embed(text, return_count=True)[1] - 2 for text in batch)

    encoder.score(column[:5])
    naive.embed(batch[0])

    def pair() -> tuple[Any, int]:
        encoder._seen.clear()
        began = time.process_time()
        answer = encoder.score(column)
        between = time.process_time()
        tokens = embed()
        theirs.append(time.process_time() - between)
        ours.append(between - began)
        return answer, tokens

    answer, tokens = benchmark.pedantic(pair, rounds=3)
    assert np.isfinite(answer.scores).all()
    assert int(answer.tokens.sum()) > 0 < tokens
    rates = int(answer.tokens.sum()) / min(ours), tokens / min(theirs)
    benchmark.extra_info.update(
        texts=len(batch),
        characters_a_text=round(sum(map(len, batch)) / len(batch)),
        tokens_per_second=round(rates[0]),
        embed_tokens_per_second=round(rates[1]),
        ratio_of_tokens_per_second=round(rates[0] / rates[1], 2),
        ratio_of_texts_per_second=round(min(theirs) / min(ours), 2),
    )
    print(benchmark.extra_info)
    encoder.close()
    naive.close()
