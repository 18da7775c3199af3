"""The default language model's scores of many texts, on several processes, kept in a cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from edgemod import decide
from edgemod.calibration import Limits, Maps
from edgemod.features import Buffers
from edgemod.filter import Filter
from edgemod.model import open_model
from edgemod.policy import load_policy

Floats = npt.NDArray[np.float32]

_SLICE = 500


@dataclass(frozen=True)
class Settled:
    """Which pieces of texts the filter clears by itself, as a run asks (edgemod/model.py)."""

    filter: Filter
    maps: Maps
    limits: Limits

    def __call__(self, pieces: Buffers) -> npt.NDArray[np.bool_]:
        """(n,) of n pieces in their normal form."""
        p = self.maps.probabilities(self.filter.scores(pieces), None)
        return np.asarray(decide.below(p, self.limits).all(axis=1))

    def fingerprint(self) -> bytes:
        """What its answers depend on."""
        arrays = (*vars(self.maps).values(), *vars(self.limits).values())
        return self.filter.fingerprint.encode() + b"".join(array.tobytes() for array in arrays)


def fingerprint() -> str:
    """SHA-256 (hex) of the default language model."""
    model = open_model("default", policy=load_policy())
    model.close()
    return model.fingerprint


def model_scores(
    texts: pa.LargeStringArray, cache: Path | None, workers: int, settled: Settled | None = None
) -> Floats:
    """Log-odds of all texts, float32 (1, n, 10); ``cache`` is a folder that keeps them.

    With ``settled`` (2, n, 10): read in full, and then as a run reads them.
    """
    content = [fingerprint().encode(), settled.fingerprint() if settled else b""]
    path = cache / f"{_digest([*content, *(t.as_buffer() for t in texts)])}.npy" if cache else None
    if path and path.exists():
        kept: Floats = np.load(path, allow_pickle=False)
        return kept
    slices = [texts.slice(i, _SLICE) for i in range(0, len(texts), _SLICE)]
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
        click.progressbar(
            pool.map(partial(_scored, settled), slices), length=len(slices), label="language model"
        ) as answers,
    ):
        scores = np.concatenate(list(answers), axis=1)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, scores)
    return scores


def _scored(settled: Settled | None, texts: pa.LargeStringArray) -> Floats:
    model = open_model("default", policy=load_policy())
    ways = (None, settled) if settled else (None,)
    try:
        return np.stack([model.score(texts, None, way).scores for way in ways])
    finally:
        model.close()


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
