"""What chunks cost and did: numbers that add up, kept beside each chunk until the report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Tally:
    """What one chunk cost and did; plain numbers that add up over chunks.

    ``seconds`` by stage of work; ``texts`` that each stage saw; ``spread`` of the texts over the
    bins of the calibration's certificate, if it has one; ``offline``: records by what kept their
    worker off the network (offline.py); ``lost`` workers by what ended them; ``counts`` of records
    by verdict, category, stage, reason and status.
    """

    records: int = 0
    texts: int = 0
    characters: int = 0
    unique_texts: int = 0
    tokens: int = 0
    windows: int = 0
    windowed_texts: int = 0
    repeated_ids: int = 0
    duplicates: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    spread: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    offline: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    counts: dict[str, Counter[str]] = field(
        default_factory=lambda: {
            name: Counter() for name in ("verdict", "category", "stage", "reason", "status")
        }
    )

    @property
    def reviews(self) -> int:
        """Records that go to review."""
        return self.counts["verdict"]["review"]

    def add(self, other: Tally) -> None:
        """Add another chunk's numbers to this one's."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if name == "counts":
                for part, counter in value.items():
                    mine[part].update(counter)
            elif isinstance(value, dict):
                for key, more in value.items():
                    mine[key] = mine.get(key, 0) + more
            else:
                setattr(self, name, mine + value)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; ``from_json`` is its inverse."""
        return {**vars(self)}

    @classmethod
    def from_json(cls, document: Any) -> Tally:
        """The tally ``to_json`` wrote. Raises ValueError for anything else."""
        if not _has_shape(document, vars(cls())):
            raise ValueError("not a tally")
        tally = cls(**document)
        for name in ("seen", "spread", "offline", "lost"):
            setattr(tally, name, Counter(document[name]))
        tally.counts = {name: Counter(value) for name, value in document["counts"].items()}
        return tally

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to ``stage``."""
        began = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began


def _has_shape(value: Any, like: Any) -> bool:
    """Whether a value is a number or, like a table, has its names (any if it is empty)."""
    if not isinstance(like, dict):
        return isinstance(value, int | float)
    return (
        isinstance(value, dict)
        and value.keys() == (like or value).keys()
        and all(_has_shape(value[name], like.get(name)) for name in value)
    )
