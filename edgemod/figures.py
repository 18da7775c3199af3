"""What a benchmark of a machine says, as data; and two of them compared."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from edgemod.errors import InputError

FORMAT: Final = 1
"""Version of the JSON."""
CLOSE: Final = 0.05
"""Two figures that differ by less than this share are as good as each other."""


@dataclass(frozen=True)
class Figure:
    """One measured number.

    ``stage``: reading, filter, model, deciding, writing or whole; ``step``: a part of it, or "".
    ``per``: "core" for one busy core, "machine" for all processes of a run, "record".
    ``statistic`` says which of ``count`` measurements it is: "best", "greatest", or a percentile
    "p50", "p90", "p99"; "share" is one of ``count`` records.
    """

    stage: str
    step: str
    unit: str
    value: float
    per: str
    statistic: str
    count: int

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What it measures: the same in every benchmark."""
        return self.stage, self.step, self.unit, self.statistic

    @property
    def more_is_better(self) -> bool:
        """Whether a greater value is the better one: rates are, times and costs are not."""
        return "/s" in self.unit or self.statistic == "share"


@dataclass(frozen=True)
class Benchmark:
    """What was measured, and on what.

    ``sample``: its digest (SHA-256 over its texts), format, records, texts, characters and bytes.
    ``workers``: the number to give ``--workers``, and ``why``. ``energy``: "" if it was measured,
    else why not.
    """

    format: int
    edgemod: str
    """Its version and a digest of its code."""
    machine: dict[str, Any]
    packages: dict[str, str]
    fingerprints: dict[str, str]
    sample: dict[str, Any]
    options: dict[str, Any]
    figures: tuple[Figure, ...]
    energy: str
    workers: int
    why: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object; ``load`` reads it."""
        return asdict(self)

    @classmethod
    def load(cls, path: Path) -> Benchmark:
        """The benchmark in a file that ``edgemod bench -o`` wrote. Raises InputError."""
        fix = "Name a file that edgemod bench -o wrote, or measure again with this version."
        try:
            document = json.loads(path.read_bytes())
            if document["format"] != FORMAT:
                raise ValueError(f"format {document['format']}")
            document["figures"] = tuple(Figure(**figure) for figure in document["figures"])
            document["notes"] = tuple(document["notes"])
            return cls(**document)
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
            raise InputError(what, where=str(path), fix=fix) from error
        except (ValueError, TypeError, LookupError) as error:
            what = f"is not a benchmark of format {FORMAT}"
            raise InputError(what, where=str(path), fix=fix) from error


@dataclass(frozen=True)
class Ratio:
    """A figure of one benchmark over the same one of another; ``ratio`` is ``new / old``."""

    figure: Figure
    old: float
    ratio: float

    @property
    def verdict(self) -> str:
        """In a word; "" where they differ by less than ``CLOSE``."""
        if abs(self.ratio - 1) < CLOSE:
            return ""
        return "better" if (self.ratio > 1) == self.figure.more_is_better else "worse"


def compare(new: Benchmark, old: Benchmark) -> tuple[list[Ratio], list[str]]:
    """The ratios of the figures that both have, and what else differs between the two, in words."""
    before = {figure.key: figure.value for figure in old.figures}
    ratios = [
        Ratio(figure, before[figure.key], figure.value / before[figure.key])
        for figure in new.figures
        if before.get(figure.key)
    ]
    differences = []
    for name in ("machine", "packages", "fingerprints", "sample", "options"):
        mine, theirs = getattr(new, name), getattr(old, name)
        what = [key for key in {**theirs, **mine} if mine.get(key) != theirs.get(key)]
        for key in what:
            told = (_shown(document.get(key)) for document in (theirs, mine))
            differences.append(f"{name}: {key} was {' and is '.join(told)}")
    if new.edgemod != old.edgemod:
        differences.append(f"edgemod was {old.edgemod} and is {new.edgemod}")
    return ratios, differences


def _shown(value: Any) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else str(value)
