"""The input records behind the decisions of a finished run: decisions hold no text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from edgemod import formats, records
from edgemod.columns import check_columns
from edgemod.errors import InputError, RunError
from edgemod.policy import Policy
from edgemod.records import Chunk, Columns
from edgemod.sources import Source, discover, partitions


def inputs(state: dict[str, Any]) -> dict[str, Source]:
    """The input files of a run (``run_folder.complete_state``) by the path that decisions show.

    Raises InputError if one is gone or has changed since.
    """
    found = {}
    for entry in state["inputs"]:
        (source,) = discover([entry["file"]])
        found[entry["path"]] = replace(source, path=entry["path"], root=Path(entry["root"]))
    if records.fingerprint([*found.values()]) != state["plan"]["input"]:
        raise InputError(
            "has changed since the run",
            where=", ".join(found),
            fix="Restore the input that the run read, or triage this one.",
        )
    return found


def columns(state: dict[str, Any]) -> Columns:
    """The columns that a run read; where it has pseudonyms, without the names that they hide.

    Threads stay: they say what a text answers to.
    """
    named = all_columns(state)
    return replace(named, id=None, author=None) if state["plan"]["pseudonyms"] else named


def all_columns(state: dict[str, Any]) -> Columns:
    """The columns that a run read, all of them: where its chunks end depends on each."""
    named = Columns(**{**state["plan"]["columns"], "notices": ()})
    return replace(named, text=tuple(named.text))


def unnamed(chunk: Chunk) -> Chunk:
    """A chunk whose records are called by file and row, and whose authors are not told."""
    rows = chunk.records
    number = rows["source_row"].cast(pa.string())
    ids = pc.binary_join_element_wise(rows["source"], number, "#")
    for name, column in (("record_id", ids), ("author_id", pa.nulls(len(ids), pa.string()))):
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
    return replace(chunk, records=rows)


def chunks(
    decisions: pa.Table, sources: dict[str, Source], columns: Columns, policy: Policy
) -> Iterator[tuple[Chunk, npt.NDArray[np.int64]]]:
    """The records of decisions as chunks, and which rows of ``decisions`` each holds.

    Named as the decisions name them. What a thread said before is not known here. Raises RunError
    if a file has fewer rows than were decided.
    """
    of = np.array(decisions["source"].to_pylist())
    row = decisions["source_row"].to_numpy()
    names = [name for name in vars(columns).values() if isinstance(name, str)]
    # As a run reads them: a value of a wrong type in another column loses no text.
    spare = {*names} - {columns.conversation, columns.context}
    for path in dict.fromkeys(of.tolist()):
        rows = np.flatnonzero(of == path)
        rows = rows[np.argsort(row[rows], kind="stable")]
        check_columns(sources[path], formats.schema(sources[path]), columns)
        wanted, done = row[rows], 0
        runs = formats.rows(sources[path], [*columns.text, *names], int(wanted[0]), spare)
        for part in formats.only(runs, wanted):
            chunk = records.chunk_of(part, columns, max_text_bytes=policy.max_text_bytes)
            here = rows[done : done + part.count]
            done += part.count
            known = decisions.select(["record_id", "source", "source_row"]).take(pa.array(here))
            named = chunk.records
            for name in known.column_names:
                at = named.schema.get_field_index(name)
                column = known[name].combine_chunks().cast(named.schema.field(name).type)
                named = named.set_column(at, named.schema.field(name), column)
            yield replace(chunk, records=named), here
            if done == len(rows):
                break
        if done < len(rows):
            raise RunError(
                "has fewer rows than the run decided",
                where=path,
                fix="Restore the input that the run read.",
            )


def beside(
    decisions: Iterable[pa.Table], sources: dict[str, Source], columns: Columns
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Decisions in input order, and what the input calls their records (``records.RECORDS``).

    Row for row; of the input only the named columns are read, once, and no text. Raises InputError
    if a file has no such column, RunError if one has fewer rows than were decided.
    """
    names = [name for name in vars(columns).values() if isinstance(name, str)]
    for source in sources.values():
        present = {*formats.schema(source).names, *partitions(source)}
        for name in names:
            if name not in present:
                fix = f"Its columns are {', '.join(sorted(present))}"
                raise InputError(f"no column '{name}'", where=source.path, fix=fix)
    path, run = "", None
    runs: Iterator[formats.Rows] = iter(())
    for table in decisions:
        of, row = np.array(table["source"].to_pylist()), table["source_row"].to_numpy()
        found = [records.RECORDS.empty_table()]
        for rows in np.split(np.arange(len(of)), np.flatnonzero(of[1:] != of[:-1]) + 1):
            wanted, done = row[rows], 0
            if len(rows) and path != of[rows[0]]:
                path, run = str(of[rows[0]]), None
                runs = formats.rows(sources[path], names, int(wanted[0]), names)
            while done < len(wanted):
                run = next(runs, None) if run is None else run
                if run is None:
                    raise RunError(
                        "has fewer rows than the run decided",
                        where=path,
                        fix="Restore the input that the run read.",
                    )
                for part in formats.only([run], wanted[done:]):
                    found.append(pa.Table.from_batches([records.records_of(part, columns)]))
                    done += part.count
                if done < len(wanted):
                    run = None  # what is left of it may be wanted next
        yield table, pa.concat_tables(found)
