"""The folder of one run: who may write to it, what it says of itself, which chunks are done.

In it:

    run.json                      the plan and its fingerprints: running, restarting or complete
    decisions/part-000000.parquet one row a record, in input order
    scores/part-000000.parquet    one row a text, if the run keeps scores
    review/                       the queue, written when every chunk is done
    report.json                   the numbers
    report.html                   them as a page, if 'edgemod report' was asked for one
    work/                         chunks' tallies and review rows, until the run is complete;
                                  a shard keeps them for the merge
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from edgemod import encryption, worker
from edgemod.errors import OutputError, RunError
from edgemod.parts import clean_parts, make_folder, open_part, remove, unfinished, write_bytes
from edgemod.report import RunReport
from edgemod.tally import Tally
from edgemod.words import Status

FORMAT: Final = 2
"""Version of this layout, and of run.json."""

_FILES: Final = ("run.json", "report.json", "report.html")
FOLDERS: Final = ("decisions", "review", "scores", "work")
_MOST_CHUNKS: Final = 1 << 22  # 17 billion records; readers list the files of all


@contextlib.contextmanager
def locked(out: Path) -> Iterator[list[int]]:
    """Make the folder, owner only, and hold it against a second run; gives ``worker.folder_id``.

    Raises OutputError for whatever the system refuses there, also in the course of the run.
    """
    try:
        make_folder(out)
        handle = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise OutputError(
            f"cannot be used as the output folder: {error.strerror}",
            where=str(out),
            fix="Name a folder that you may write to, with -o.",
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(
                "another edgemod is writing to this folder",
                where=str(out),
                fix="Wait for it, or name another folder with -o.",
            ) from error
        yield worker.folder_id(os.fstat(handle))
    except OSError as error:
        name = os.fsdecode(error.filename) if error.filename is not None else ""
        if not Path(name).is_relative_to(out):
            raise
        raise _refused(name, error) from error
    finally:
        os.close(handle)


def open_run(out: Path, document: dict[str, Any], restart: bool) -> RunReport | None:
    """Begin, continue, or find complete (then its report) the run in ``out``.

    run.json comes first and says what follows, so that a kill between any two of these steps
    leaves a folder that the same command understands.
    """
    state = checked_state(out, document, restart)
    clean_parts(out, *_FILES)
    if state is not None and restart:
        _write_state(out, document, "restarting")
    elif state is not None and state["status"] == "complete":
        return _complete(out, state)
    if restart or (state and state["status"] == "restarting"):
        remove(out / "report.json", out / "report.html", *(out / name for name in FOLDERS))
    _write_state(out, document, "running")
    try:
        for name in _written(document):
            make_folder(out / name)
            clean_parts(out / name)
    except OSError as error:
        raise OutputError(
            f"cannot be written to: {error.strerror}",
            where=str(out),
            fix="Name a folder that you may write to, with -o.",
        ) from error
    return None


def checked_state(out: Path, document: dict[str, Any], restart: bool) -> dict[str, Any] | None:
    """What run.json says, None in an empty folder; with ``restart`` {} where it is damaged.

    Raises RunError if the folder holds something else than this run, or with ``restart`` than
    any run.
    """
    others = {*out.iterdir()} - {*unfinished(out, *_FILES)}
    try:
        state = _read_state(out)
    except RunError:
        if not restart or any(path.name not in (*_FILES, *FOLDERS) for path in others):
            raise
        return {}  # whatever the run was, it is to go
    if state is None and others:
        raise RunError(
            "the folder is not empty and holds no edgemod run",
            where=str(out),
            fix="Name an empty or new folder with -o.",
        )
    if state is not None and not restart:
        _refuse_changes(out, state["plan"], document["plan"])
    return state


def _complete(out: Path, state: dict[str, Any]) -> RunReport:
    """The report of a complete run; raises RunError if something of it is gone."""
    _remove_work(out, state)
    records = 0
    for part in parts(out, state):
        rows = _rows(part)
        if rows is None:
            raise _damaged(part, "--restart begins anew")
        records += rows
    told = read_report(out)
    if records != told.records:
        raise _damaged(out / "decisions", "--restart begins anew")
    for name in told.review["files"]:
        if not (out / "review" / str(name)).is_file():
            raise _damaged(out / "review" / str(name), "--restart begins anew")
    return told


def read_report(out: Path) -> RunReport:
    """The report of a complete run. Raises RunError where it is missing or damaged."""
    document = _read_json(out / "report.json", "--restart begins anew")
    try:
        told = RunReport.from_json(document)
    except (TypeError, KeyError) as error:
        raise _damaged(out / "report.json", "--restart begins anew") from error
    return told


def _remove_work(out: Path, state: dict[str, Any]) -> None:
    """Throw away what a complete run no longer needs. A shard's is for the merge."""
    if state["plan"].get("shard") is None:
        remove(out / "work")


def empty(folder: Path) -> None:
    """Remove every file in a folder. Raises OutputError."""
    remove(*folder.iterdir())


def _read_json(path: Path, fix: str) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, fix) from error


def _refused(path: str, error: OSError) -> OutputError:
    return OutputError(
        f"cannot be used: {error.strerror}",
        where=path,
        fix="Make it readable and writable for you, then run the same command again.",
    )


def _damaged(path: Path, fix: str) -> RunError:
    return RunError("is missing or damaged", where=str(path), fix=f"Put it back; {fix}.")


def _read_state(out: Path) -> dict[str, Any] | None:
    path, fix = out / "run.json", "--restart begins anew, another folder with -o avoids it"
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _refused(str(path), error) from error
    state = _read_json(path, fix)
    try:
        kinds = [type(state[name]) for name in ("status", "plan", "chunks", "rows")]
    except (TypeError, KeyError):
        kinds = []
    if kinds != [str, dict, int, list] or not _is_range(state["rows"]):
        raise _damaged(path, fix)
    return dict(state)


def _is_range(rows: list[Any]) -> bool:
    return (
        len(rows) == 2
        and isinstance(rows[0], int)
        and isinstance(rows[1], int | None)
        and rows[0] >= 0
    )


def _is_readable(state: dict[str, Any]) -> bool:
    """Whether what a complete run says of its input and chunks has the form that readers rely on.

    What it means is not checked here: fingerprints and files are compared where they are used.
    """
    plan, inputs, made = state["plan"], state.get("inputs"), state.get("made_with", {})
    columns = plan.get("columns")
    if not (isinstance(columns, dict) and isinstance(inputs, list) and isinstance(made, dict)):
        return False
    text, others = columns.get("text"), {k: v for k, v in columns.items() if k != "text"}
    return (
        isinstance(plan.get("chunk_rows"), int)
        and plan["chunk_rows"] > 0
        and 0 <= state["chunks"] <= _MOST_CHUNKS
        and {"keep_scores", "code", "overlay", "shard"} <= plan.keys()
        and all(isinstance(plan.get(name), str) for name in ("input", "policy", "code"))
        and all(isinstance(plan[name], str | None) for name in ("overlay", "shard"))
        and isinstance(text, list)
        and all(isinstance(name, str) for name in text)
        and {"policy", "calibration", "model"} >= {*made}
        and all(isinstance(name, str | None) for name in made.values())
        and {"conversation", "id", "thread", "author", "time", "context", "stratum"} == {*others}
        and all(isinstance(name, str | None) for name in others.values())
        and (not text) == bool(others["conversation"])
        and all(
            isinstance(entry, dict)
            and all(isinstance(entry.get(name), str) for name in ("file", "path", "root"))
            for entry in inputs
        )
    )


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two plans, in words."""
    before, now = _flat(before), _flat(now)
    return [
        f"{name} ({_short(before.get(name))} -> {_short(now.get(name))})"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]


def _refuse_changes(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = changes(before, now)
    if changed:
        raise RunError(
            "holds a run that was started differently; changed: " + ", ".join(changed),
            where=str(out),
            fix="Give the same options to continue it, --restart to begin anew, or another -o.",
        )


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    """The identity with each column by itself, so that a message names the one that changed."""
    columns = identity.get("columns")
    if not isinstance(columns, dict):
        return identity
    apart = {f"{name} column": value for name, value in columns.items()}
    return {name: value for name, value in identity.items() if name != "columns"} | apart


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:12] if len(text) == 64 else text


def finish(
    out: Path, document: dict[str, Any], report: RunReport, chunks: int, sealed: dict[str, Any]
) -> None:
    """Write the report, then that the run is complete, then throw away what it no longer needs.

    ``sealed``: what verifying.py is to find again.
    """
    write_bytes(out / "report.json", _json(report.to_json()))
    _write_state(out, {**document, **sealed}, "complete", chunks)
    _remove_work(out, document)


def _write_state(out: Path, document: dict[str, Any], status: str, chunks: int = 0) -> None:
    write_bytes(out / "run.json", _json({"status": status, "chunks": chunks, **document}))


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()


def _written(document: dict[str, Any]) -> list[str]:
    """The folders that workers write to."""
    return ["decisions", "work", *(["scores"] if document["plan"]["keep_scores"] else [])]


def done(out: Path, *, keep_scores: bool) -> Iterator[tuple[int, Tally]]:
    """The chunks that are done, ascending, with their tallies; all others are to be done (again).

    A part may have its name and not its content: what a file system lost, or somebody removed.
    """
    names = (path.stem.removeprefix("part-") for path in (out / "decisions").glob("part-*.parquet"))
    for index in sorted({int(name) for name in names if name.isdecimal()}):
        tally = _tally(out, index)
        kept = not keep_scores or (tally and tally.texts == _rows(worker.scores_file(out, index)))
        if tally is not None and kept:
            yield index, tally


def _tally(out: Path, index: int) -> Tally | None:
    """The tally of a chunk if its decisions and review rows are as many as it says."""
    queue, numbers, part = worker.files(out, index)
    try:
        tally = Tally.from_json(json.loads(numbers.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None
    records, reviews = sum(tally.counts["verdict"].values()), tally.reviews
    whole = tally.records == records == _rows(part) and (not reviews or reviews == _rows(queue))
    return tally if whole else None


def _rows(part: Path) -> int | None:
    """The rows of a Parquet file by its footer; None if it is missing or damaged."""
    try:
        with open_part(part) as file:
            rows: int = file.metadata.num_rows
    except (OSError, pa.ArrowException):
        return None
    return rows


def with_status(out: Path, index: int, status: Status) -> list[dict[str, Any]]:
    """The records of a chunk that is done with a status: record_id, source and source_row each.

    Where a key is in use the id is None.
    """
    part = worker.files(out, index)[2]
    try:
        with open_part(part) as file:
            rows = file.read(["record_id", "source", "source_row", "status"])
    except (OSError, pa.ArrowException) as error:
        raise _damaged(part, "run the same command again") from error
    found = rows.filter(pc.equal(rows["status"].cast(pa.string()), status.name))
    named = found.drop_columns("status").to_pylist()
    # They go into the report, which is not encrypted.
    return [row | {"record_id": None} for row in named] if encryption.key_file() else list(named)


def complete_state(out: Path) -> dict[str, Any]:
    """What run.json says of a complete run.

    Raises RunError where there is none, or where a part of its decisions is gone or damaged;
    InputError where it is encrypted under another key than the one in use.
    """
    state = finished_state(out)
    encryption.check_run(state["plan"], str(out))
    rows = [_rows(part) for part in parts(out, state)]
    report = _read_json(out / "report.json", "--restart begins anew")
    told = report.get("records") if isinstance(report, dict) else None
    if None in rows or sum(n or 0 for n in rows) != told:
        raise _damaged(out / "decisions", "--restart begins anew")
    return state


def finished_state(out: Path) -> dict[str, Any]:
    """What run.json says of a complete run, whatever became of its files.

    Raises RunError where there is none.
    """
    state = _read_state(out)
    if state is None or state["status"] != "complete":
        if state is not None:
            fix = "Finish it: the same 'edgemod triage' goes on with it."
        else:
            fix = "Name the OUT of 'edgemod triage'."
        raise RunError(
            "is not the folder of a complete run",
            where=str(out),
            fix=fix if out.exists() else "There is nothing of this name.",
        )
    if state["plan"].get("format") != FORMAT:
        raise RunError(
            "was made by another version of edgemod",
            where=str(out),
            fix="Read it with that version, or triage its input again.",
        )
    if not _is_readable(state):
        raise _damaged(out / "run.json", "--restart begins anew")
    return state


def parts(out: Path, state: dict[str, Any]) -> list[Path]:
    """The files of a complete run's decisions, in input order."""
    first = first_chunk(state)
    return [worker.files(out, index)[2] for index in range(first, first + state["chunks"])]


def kept(out: Path, plan: dict[str, Any], index: int, tally: Tally) -> list[Path]:
    """The files of a chunk that a complete run keeps: decisions, scores, what a merge needs."""
    queue, numbers, part = worker.files(out, index)
    scores = [worker.scores_file(out, index)] if plan["keep_scores"] else []
    needed = [] if plan["shard"] is None else [numbers, *([queue] if tally.reviews else [])]
    return [part, *scores, *needed]


def first_chunk(state: dict[str, Any]) -> int:
    """The number of a run's first chunk: a shard begins where its rows do."""
    return int(state["rows"][0] // state["plan"]["chunk_rows"])


def is_complete(out: Path) -> bool:
    """Whether ``out`` holds a finished run."""
    state = _read_state(out)
    return state is not None and state["status"] == "complete"
