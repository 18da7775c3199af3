"""What is open of a queue as files: a page that needs no server, or rows for other tools."""

from __future__ import annotations

import tempfile
from itertools import chain
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from edgemod import review_formats
from edgemod.errors import OutputError
from edgemod.parts import place, remove, write_bytes
from edgemod.review import REVIEW
from edgemod.reviewing.answers import Answers, Key
from edgemod.reviewing.desk import Care, Desk, Serving, beginning
from edgemod.reviewing.page import page
from edgemod.reviewing.queue import Queue, shown
from edgemod.words import OUTPUTS

FORMATS: Final = {
    "html": ".html",
    "label-studio": ".json",
    "csv": ".csv",
    "jsonl": ".jsonl",
    "parquet": ".parquet",
}
"""Formats and how their files end."""

TO_FILL: Final = ("answer", "answer_category", "note", "reviewer")
"""Columns that rows get for people to fill in; ``answer_files.read`` knows them."""
_FILLED: Final = ("csv", "jsonl", "parquet")
_OF_MODELS: Final = ("priority", "category", "severity", "definition", "reason", "verdict", "stage",
                     "status", "inclusion_probability", "inclusion_floor",
                     *(f"p_{name}" for name in OUTPUTS))  # fmt: skip
"""What tells of a record what the models think of it; how likely it was drawn does, too."""


def export(
    queue: Queue,
    answered: set[Key],
    out: Path,
    format: str,
    *,
    care: Care | None = None,
    blind: bool = False,
    reviewer: str = "",
) -> tuple[int, list[str]]:
    """Write the records that are not among ``answered`` to the file ``out``, in one of ``FORMATS``.

    ``care`` goes with the page, ``blind`` leaves out what the models think; so does any sample.
    Returns how many records there are and the names of the files: Label Studio's has its labelling
    configuration beside it. Raises OutputError, also where ``out`` is there already and might hold
    answers that people have filled in.
    """
    if format in _FILLED and out.exists():
        raise OutputError(
            "is there already, and may hold answers",
            where=str(out),
            fix="Import it ('edgemod review import') and remove it, or name another file with -o.",
        )
    left = [i for i, key in enumerate(queue.keys()) if key not in answered]
    if format == "html":
        document = _page(queue.take(left), care or Care(), blind, reviewer)
        write_bytes(out, document.encode())
        return len(left), [out.name]

    def to_fill(rows: pa.Table) -> pa.Table:
        if blind or queue.sample:
            for name in _OF_MODELS:
                at, kind = rows.column_names.index(name), rows.schema.field(name).type
                rows = rows.set_column(at, name, pa.nulls(len(rows), kind))
        if format in _FILLED:
            for name in TO_FILL:
                rows = rows.append_column(name, pa.nulls(len(rows), pa.string()))
        return rows

    names = []
    with tempfile.TemporaryDirectory(prefix="edgemod-") as folder:
        tables = map(to_fill, chain([REVIEW.empty_table()], queue.whole(left)))
        for made in review_formats.write(tables, Path(folder), format):
            target = out.with_suffix(".xml") if made.endswith(".xml") else out
            remove(target)
            place(Path(folder) / made, target)
            names.append(target.name)
    return len(left), names


def _page(queue: Queue, care: Care, blind: bool, reviewer: str) -> str:
    """The page with all that it shows inside."""
    with tempfile.TemporaryDirectory() as folder, Answers.open(Path(folder) / "none") as none:
        desk = Desk(queue, none, care, Serving(double=0, blind=blind))
        shared_out = desk.units
    keys = queue.keys()
    table = queue.table.select(
        ["record_id", "inclusion_probability", "inclusion_floor"]
    ).to_pylist()
    units = []
    for unit in shared_out:
        i = unit.rows[0]
        whole, hidden = (desk.texts(unit.rows, hide=hide) for hide in (False, True))
        units.append(
            {
                "shown": shown(queue.row(i), blind=desk.blind),
                "weight": unit.severity,
                "category": queue.table["category"][i].as_py(),
                "texts": _texts(whole),
                "hidden": None if _texts(hidden) == _texts(whole) else _texts(hidden),
                "records": [
                    {**table[j], "source": keys[j][0], "source_row": keys[j][1]} for j in unit.rows
                ],
            }
        )
    document, _ = page(
        "exported",
        beginning(desk, reviewer)
        | {
            "units": units,
            "policy": queue.policy.fingerprint,
            "about": "".join(queue.about.values()),
            "level": desk.level,
            "caps": care.caps,
            "gaps": desk.gaps,
            "without": sorted(care.without),
            "records": len(keys),
        },
    )
    return document


def _texts(told: dict[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in ("text", "context", "alike")}


def suggested(out: Path, format: str) -> Path:
    """Where an export goes if nobody says: beside the queue."""
    return out / f"review-open{FORMATS[format]}"
