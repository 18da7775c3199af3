"""The default language model's scores of many texts, on several processes, kept in a cache."""

from __future__ import annotations

import hashlib
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from edgemod.model import open_model
from edgemod.policy import load_policy
from edgemod.triager import Cleared

Floats = npt.NDArray[np.float32]

_SLICE = 500


def fingerprint() -> str:
    """SHA-256 (hex) of the default language model."""
    model = open_model("default", policy=load_policy())
    model.close()
    return model.fingerprint


def model_scores(
    texts: pa.LargeStringArray, cache: Path | None, workers: int, cleared: Cleared | None = None
) -> Floats:
    """Log-odds of all texts, float32 (1, n, 10); ``cache`` is a folder that keeps them.

    With ``cleared`` (2, n, 10): read in full, and then as a run reads them.
    """
    path = cache / f"{_key(texts, cleared)}.npy" if cache else None
    if path and path.exists():
        kept: Floats = np.load(path, allow_pickle=False)
        return kept
    slices = [texts.slice(i, _SLICE) for i in range(0, len(texts), _SLICE)]
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
        click.progressbar(
            pool.map(partial(_scored, cleared), slices), length=len(slices), label="language model"
        ) as answers,
    ):
        scores = np.concatenate(list(answers), axis=1)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, scores)
    return scores


def _scored(cleared: Cleared | None, texts: pa.LargeStringArray) -> Floats:
    model = open_model("default", policy=load_policy())
    ways = (None, cleared) if cleared else (None,)
    try:
        return np.stack([model.score(texts, None, way).scores for way in ways])
    finally:
        model.close()


def _key(texts: pa.LargeStringArray, cleared: Cleared | None) -> str:
    """What the scores depend on, but for edgemod's code: empty the cache after a change of it."""
    digest = hashlib.sha256(f"{fingerprint()}\n".encode())
    if cleared:
        digest.update(cleared.filter.fingerprint.encode())
        for array in (*vars(cleared.maps).values(), *vars(cleared.limits).values()):
            digest.update(array.tobytes())
    for text in texts.to_pylist():
        digest.update(f"\n{len(text)}\n{text}".encode())
    return digest.hexdigest()[:16]
