"""What ``trends()`` found, as data: one pattern, all of them, and their two files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from edgemod import patterns
from edgemod.errors import InputError
from edgemod.parts import make_folder, write_bytes, write_part
from edgemod.words import Verdict

KINDS: Final = ("campaign", "burst", "term", "mix", "obfuscation", "near miss")
SHOWN_IDS: Final = 20


@dataclass(frozen=True)
class Finding:
    """One pattern.

    ``what``: a category, or a term or spelling, masked but for its first letter unless shown;
    ``where``: the window, group or verdicts that it is about. ``records`` have it; ``authors`` of
    them, None where not known. ``value`` with its interval ``low`` to ``high``: log-odds ratio of
    a term, difference of shares of a mix; None of others. ``p``: its p-value before multiplicity;
    None of campaigns. ``last_seen``, ``authors`` and ``verdicts`` are not known of terms and
    spellings. ``example``: the beginning of one text, masked. ``ids``: of its records, all
    of a campaign, the last ones read of a term, the first ones of a spelling.
    """

    kind: str
    what: str
    where: str
    records: int
    authors: int | None
    first_seen: str | None
    last_seen: str | None
    value: float | None
    low: float | None
    high: float | None
    p: float | None
    verdicts: dict[str, int]
    example: str
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Trends:
    """What was found, by kind the strongest first; and what was looked at.

    ``windows``: where each begins and the last ends, ISO 8601, or "record n" without times.
    ``looked``: how many terms, spellings, groups and so on were tested. ``notes``: what was not
    looked for, and why. ``input``: the fingerprint of the input of the run.
    """

    findings: tuple[Finding, ...]
    records: int
    total: int
    windows: tuple[str, ...]
    looked: dict[str, int]
    notes: tuple[str, ...]
    input: str

    def to_json(self) -> dict[str, Any]:
        """A JSON object; of each finding at most ``SHOWN_IDS`` ids."""
        found = [{**asdict(f), "ids": f.ids[:SHOWN_IDS]} for f in self.findings]
        return {**asdict(self), "false alarm rate of a kind": patterns.ALPHA, "findings": found}

    @classmethod
    def read(cls, path: str | Path) -> Trends:
        """What ``trends`` wrote to trends.json. Raises InputError for any other file."""
        try:
            told = json.loads(Path(path).read_bytes())
            values = {field.name: told[field.name] for field in fields(cls)}
            values["findings"] = tuple(
                Finding(**{field.name: one[field.name] for field in fields(Finding)})
                for one in told["findings"]
            )
            found = cls(**values)
            numbers = [(one.records, *one.verdicts.values()) for one in found.findings]
            kinds = {one.kind for one in found.findings} <= {*KINDS}
            if not kinds or not all(isinstance(n, int) for of in numbers for n in of):
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                "cannot be read as what 'edgemod trends' found",
                where=str(path),
                fix="Name the trends.json that 'edgemod trends OUT -o FOLDER' writes.",
            ) from error
        return found


_TABLE: Final = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("kind", "what", "where")),
        pa.field("records", pa.int64()),
        pa.field("authors", pa.int64()),
        *(pa.field(name, pa.string()) for name in ("first_seen", "last_seen")),
        *(pa.field(name, pa.float64()) for name in ("value", "low", "high", "p")),
        pa.field("verdicts", pa.struct([(v.name, pa.int64()) for v in Verdict])),
        pa.field("example", pa.string()),
        pa.field("ids", pa.list_(pa.string())),
    ]
)
"""Columns of findings.parquet, one row a ``Finding``."""


def write(made: Trends, out: Path) -> None:
    """Write trends.json and findings.parquet. Raises OutputError where ``out`` is no folder."""
    make_folder(out)
    table = pa.Table.from_pylist([asdict(finding) for finding in made.findings], schema=_TABLE)
    write_part(table, out / "findings.parquet")
    write_bytes(out / "trends.json", (json.dumps(made.to_json(), indent=1) + "\n").encode())
