"""The default language model's scores of many texts, on several processes, kept in a cache."""

from __future__ import annotations

import hashlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from edgemod.model import open_model
from edgemod.policy import load_policy

Floats = npt.NDArray[np.float32]

_SLICE = 500


def fingerprint() -> str:
    """SHA-256 (hex) of the default language model."""
    model = open_model("default", policy=load_policy())
    model.close()
    return model.fingerprint


def model_scores(texts: pa.LargeStringArray, cache: Path | None, workers: int) -> Floats:
    """Log-odds of all texts, float32 (n, 10); ``cache`` is a folder that keeps them."""
    content = fingerprint().encode() + b"".join(text.as_buffer() for text in texts)
    path = cache / f"{hashlib.sha256(content).hexdigest()[:16]}.npy" if cache else None
    if path and path.exists():
        kept: Floats = np.load(path, allow_pickle=False)
        return kept
    slices = [texts.slice(i, _SLICE) for i in range(0, len(texts), _SLICE)]
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
        click.progressbar(
            pool.map(_scored, slices), length=len(slices), label="language model"
        ) as answers,
    ):
        scores = np.concatenate(list(answers))
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, scores)
    return scores


def _scored(texts: pa.LargeStringArray) -> Floats:
    model = open_model("default", policy=load_policy())
    try:
        return model.score(texts, None).scores
    finally:
        model.close()
