"""What a language model is to the rest of edgemod: texts in, scores out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from edgemod import store
from edgemod.errors import ModelError

if TYPE_CHECKING:
    from edgemod.policy import Policy


Cleared = Callable[[tuple[NDArray[np.uint8], NDArray[np.int64]]], NDArray[np.bool_]]
"""Which of n pieces of text, in their normal form (bytes and offsets), the filter clears, (n,)."""


@dataclass(frozen=True)
class ModelScores:
    """What a model says about n texts."""

    scores: NDArray[np.float32]
    """(n, 10) uncalibrated log-odds, columns ``words.OUTPUTS``; NaN: failed or not measured."""
    windows: NDArray[np.int32]
    """(n,) windows that each text was scored in; 0 where it has no tokens."""
    tokens: NDArray[np.int64]
    """(n,) tokens that each text was scored by."""


class Model(Protocol):
    """A loaded language model. It belongs to one thread; ``close`` frees it."""

    name: str
    fingerprint: str
    """SHA-256 (hex) of everything its scores depend on."""

    @property
    def answers(self) -> Sequence[str]:
        """The outputs it measures, ``any`` among them; the columns of others are NaN."""
        ...

    @property
    def kind(self) -> Literal["encoder", "guard"]:
        """What it is: only a guard reads contexts."""
        ...

    @property
    def calls(self) -> int:
        """Calls of its network that have returned: while it grows, ``score`` gets on."""
        ...

    def score(
        self,
        texts: pa.LargeStringArray,
        contexts: pa.LargeStringArray | None,
        cleared: Cleared | None = None,
    ) -> ModelScores:
        """Score every text; a text that cannot be scored gives a row of NaN, never an error.

        ``cleared``: of a text of several pieces, a model may leave those unread that the filter
        clears by themselves. Where it clears all of them, all are read.
        """
        ...

    def close(self) -> None:
        """Free the model. Calling it again does nothing."""
        ...


def open_model(name_or_path: str, *, policy: Policy, threads: int = 1) -> Model:
    """Load a model by the name or the path under which it was recorded; "default" is shipped.

    Raises ``ModelError`` where it is unknown, missing, changed, damaged or not for this policy.
    """
    entry = store.resolve(name_or_path)
    store.check(entry)
    # Each kind is imported only when it is asked for.
    if entry.kind == "encoder":
        from edgemod.encoder import Encoder

        return Encoder.open(entry, threads=threads)
    if entry.kind == "guard":
        from edgemod.guard import Guard

        return Guard.open(entry, policy=policy, threads=threads)
    raise ModelError(f'"{entry.kind}" is not a kind of model', where=entry.name)
