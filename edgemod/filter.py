"""The filter: a hashed n-gram linear model that settles the obvious records.

It reads normalised texts (``features.extract(...).normalised``) and gives one log-odds for each
of ``words.OUTPUTS`` in one pass; kernels/ngrams.py says how. The log-odds are uncalibrated:
calibration.py turns them into probabilities.

The file is safetensors: ``weights`` int8 (2**18, 10), ``scale`` and ``bias`` float32 (10,), and
under the metadata key ``edgemod`` a JSON object: ``LAYOUT`` and how the filter was trained.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edgemod.errors import ModelError
from edgemod.kernels import ngrams
from edgemod.words import OUTPUTS

FORMAT: Final = "edgemod-filter-1"

LAYOUT: Final = {
    "format": FORMAT,
    "outputs": ",".join(OUTPUTS),
    "buckets": str(1 << ngrams.BITS),
    "window": str(ngrams.WINDOW),
    "ngrams": ngrams.RECIPE,
}
"""Metadata that a file must carry word for word: what the kernel and the outputs expect."""

_KEY: Final = "edgemod"
_TENSORS: Final = {
    "weights": ((1 << ngrams.BITS, len(OUTPUTS)), np.dtype(np.int8)),
    "scale": ((len(OUTPUTS),), np.dtype(np.float32)),
    "bias": ((len(OUTPUTS),), np.dtype(np.float32)),
}
_FIX: Final = "Use the file that came with this version, or train one: scripts/train_filter.py."


@dataclass(frozen=True)
class Filter:
    """A loaded filter. Holds no state between calls; threads may share it."""

    fingerprint: str
    """SHA-256 of the file, hex."""
    metadata: dict[str, str]
    """What the file says of itself: ``LAYOUT``, and how it was trained."""
    _rows: npt.NDArray[np.uint64]
    _scale: npt.NDArray[np.float64]
    _bias: npt.NDArray[np.float64]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check a filter file. Raises ModelError where it is missing or does not fit."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(
                f"cannot read the filter: {error.strerror}", where=str(path), fix=_FIX
            ) from error
        try:
            tensors = load(content)
            metadata = _metadata(content)
        except (SafetensorError, ValueError, KeyError) as error:
            raise ModelError(
                "the filter is damaged or not a safetensors file", where=str(path), fix=_FIX
            ) from error
        problem = _problem(tensors, metadata)
        if problem:
            raise ModelError(problem, where=str(path), fix=_FIX)
        return cls(
            hashlib.sha256(content).hexdigest(),
            metadata,
            ngrams.pack(tensors["weights"]),
            tensors["scale"].astype(np.float64),
            tensors["bias"].astype(np.float64),
        )

    def scores(
        self, normalised: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
    ) -> npt.NDArray[np.float32]:
        """Log-odds of n normalised texts, float32 (n, 10), columns ``words.OUTPUTS``.

        ``normalised``: UTF-8 bytes uint8, and offsets int64 (n + 1).
        """
        data, offsets = normalised
        out = np.empty((len(offsets) - 1, len(OUTPUTS)), np.float32)
        ngrams.score(data, offsets, self._rows, self._scale, self._bias, out)
        return out


def to_bytes(
    weights: npt.NDArray[np.int8],
    scale: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    training: dict[str, str],
) -> bytes:
    """A filter file. ``training``: metadata besides ``LAYOUT``. Equal inputs give equal bytes."""
    tensors: dict[str, npt.NDArray[Any]] = {"weights": weights, "scale": scale, "bias": bias}
    about = json.dumps({**LAYOUT, **training}, sort_keys=True)
    return bytes(save(tensors, metadata={_KEY: about}))  # several keys would be in random order


def _metadata(content: bytes) -> dict[str, str]:
    # safetensors: 8 bytes of length, then a JSON header; its reader of bytes drops the metadata.
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    return dict(json.loads(header.get("__metadata__", {}).get(_KEY, "{}")))


def _problem(tensors: dict[str, npt.NDArray[np.generic]], metadata: dict[str, str]) -> str:
    """The first thing that makes a file unfit, in words; empty where it fits."""
    for key, expected in LAYOUT.items():
        if metadata.get(key) != expected:
            found = metadata.get(key, "nothing")
            return f"the filter was made for other {key}: {found}, not {expected}"
    for name, (shape, dtype) in _TENSORS.items():
        if name not in tensors:
            return f"the filter has no {name}"
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != dtype:
            return f"the filter's {name} is {tensor.dtype} {tensor.shape}, not {dtype} {shape}"
        if not np.isfinite(tensor.astype(np.float32)).all():
            return f"the filter's {name} holds numbers that are not finite"
    return ""
