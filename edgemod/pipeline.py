"""``triage()``: a dump to decisions, review queue and report; the only owner of run state.

The parent reads the input and hands chunks to worker processes; each worker writes the parts
of its chunk, the decisions last and atomically. A chunk is done exactly if its files are there
and agree on their numbers of records, the result does not depend on the number of workers, and
a run killed at any instant goes on where it was. ``run.json`` says what the run is; a folder
holds one run.

In OUT:

    run.json                      the plan and its fingerprints: running, restarting or complete
    decisions/part-000000.parquet one row a record, in input order
    review/                       the queue, written when every chunk is done
    report.json                   the numbers, written last
    work/                         chunks' tallies and review rows, until the run is complete
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

import edgemod
from edgemod import records, review, sources, worker
from edgemod.crew import Crew, Setup
from edgemod.errors import InputError, OutputError, RunError
from edgemod.parts import clean_parts, unfinished, write_bytes
from edgemod.records import Columns, Source
from edgemod.report import RunReport
from edgemod.tally import Tally

CHUNK_ROWS: Final = 4096
MAX_CHUNK_ROWS: Final = 1 << 20
FORMAT: Final = 1
_FILES: Final = ("run.json", "report.json")
_FOLDERS: Final = ("decisions", "review", "work")
_SHOWN_FILES: Final = 3


@dataclass(frozen=True)
class Progress:
    """A chunk is done: records so far (also in earlier sessions of the run) and in all."""

    chunk: int
    records: int
    total: int | None
    settled: int
    review: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """Everything a run will do, resolved; ``identity`` is what resuming must find unchanged."""

    sources: tuple[Source, ...]
    columns: Columns
    out: Path
    workers: int
    total: int | None
    identity: dict[str, Any]
    note: str

    def to_json(self) -> dict[str, Any]:
        """A JSON object for ``--dry-run``."""
        return {
            "inputs": [source.path for source in self.sources],
            "records": self.total,
            "out": str(self.out),
            "workers": self.workers,
            "notices": list(self.columns.notices),
            "calibration_note": self.note,
            **self.identity,
        }


@dataclass(frozen=True)
class Options:
    """What ``triage`` was asked; names and meanings as there."""

    inputs: tuple[str, ...]
    out: Path
    policy: str | None
    model: str | None
    calibration: str | None
    columns: dict[str, Any]
    workers: int
    chunk_rows: int
    review_format: str
    review_budget: int | None


def triage(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    text: str | Sequence[str] = (),
    conversation: str | None = None,
    id: str | None = None,
    thread: str | None = None,
    author: str | None = None,
    time: str | None = None,
    context: str | None = None,
    policy: str | Path | None = None,
    model: str | None = "default",
    calibration: str | Path | None = None,
    workers: int | None = None,
    chunk_rows: int = CHUNK_ROWS,
    review_format: str = "parquet",
    review_budget: int | None = None,
    restart: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_plan: Callable[[Plan], None] | None = None,
) -> RunReport:
    """Triage dumps of records into ``out`` and return the report.

    ``inputs``: files, folders or globs of Parquet, CSV or JSONL. ``text``: the text column, or
    several to be joined by a line feed; ``conversation``: a list-of-messages column instead;
    the other names are columns too, guessed where not given. ``policy``, ``calibration``:
    files, None for those shipped; ``model``: a name or path known to ``edgemod model list``,
    None for none. ``workers``: processes, None for one per usable core. ``chunk_rows``: records
    a chunk, 1 to 1,048,576; duplicates are found within a chunk. ``review_budget``: the most
    records to export for review. ``restart``: throw an earlier run in ``out`` away.

    The same call continues an interrupted run. Raises InputError, PolicyError, ModelError,
    CalibrationError, OutputError, and RunError where ``out`` holds another run or the plan
    has changed since.
    """
    options = Options(
        inputs=tuple(str(i) for i in ([inputs] if isinstance(inputs, str | Path) else inputs)),
        out=Path(out),
        policy=None if policy is None else str(policy),
        model=model,
        calibration=None if calibration is None else str(calibration),
        columns={
            "text": (text,) if isinstance(text, str) else tuple(text),
            "conversation": conversation,
            "id": id,
            "thread": thread,
            "author": author,
            "time": time,
            "context": context,
        },
        workers=usable_cores() if workers is None else workers,
        chunk_rows=chunk_rows,
        review_format=review_format,
        review_budget=review_budget,
    )
    _check(options)
    crew = _crew(options)
    try:
        plan = make_plan(options, crew)
        if on_plan:
            on_plan(plan)
        return _run(plan, options, crew, restart, on_progress or (lambda _: None))
    finally:
        crew.stop()


def plan(options: Options, *, restart: bool = False) -> Plan:
    """The plan alone, for ``--dry-run``; raises what ``triage`` would before it starts."""
    _check(options)
    crew = _crew(options)
    try:
        made = make_plan(options, crew)
        if options.out.is_dir():
            with _locked(options.out):
                _state(options.out, made, restart)
        return made
    finally:
        crew.stop()


def is_complete(out: Path) -> bool:
    """Whether ``out`` holds a finished run."""
    state = _read_state(out)
    return state is not None and state["status"] == "complete"


def _check(options: Options) -> None:
    """Raise InputError for an option out of its range."""
    budget = options.review_budget
    for wrong, what in (
        (not options.inputs, "there is no input"),
        (not 1 <= options.chunk_rows <= MAX_CHUNK_ROWS, f"chunk_rows is {options.chunk_rows}"),
        (options.workers < 1, f"workers is {options.workers}"),
        (budget is not None and budget < 0, f"review_budget is {budget}"),
        (options.review_format not in review.FORMATS, f"no format {options.review_format!r}"),
    ):
        if wrong:
            raise InputError(what, fix="See the documentation of edgemod.triage for the ranges.")


def _crew(options: Options) -> Crew:
    out = str(options.out.absolute())
    return Crew(Setup(out, options.policy, options.model, options.calibration))


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_plan(options: Options, crew: Crew) -> Plan:
    """Resolve inputs, columns and models; reads footers and hashes every input file."""
    found = tuple(records.discover(options.inputs))
    columns = records.resolve_columns(found, **options.columns)
    if others := sources.passed_over(options.inputs):
        names = ", ".join(others[:_SHOWN_FILES]) + ", ..." * (len(others) > _SHOWN_FILES)
        notice = f"passed over {len(others)} files of no format that edgemod reads: {names}"
        columns = replace(columns, notices=(*columns.notices, notice))
    fingerprints = crew.first().fingerprints
    rows = [source.rows for source in found]
    named = {name: getattr(columns, name) for name in options.columns}
    return Plan(
        sources=found,
        columns=columns,
        out=options.out,
        workers=options.workers,
        total=sum(r for r in rows if r is not None) if None not in rows else None,
        identity={
            "format": FORMAT,
            "code": code_version(),
            "input": records.fingerprint(found),
            "columns": {k: list(v) if isinstance(v, tuple) else v for k, v in named.items()},
            **fingerprints,
            "chunk_rows": options.chunk_rows,
            "review_format": options.review_format,
            "review_budget": options.review_budget,
        },
        note=crew.first().note,
    )


def code_version() -> str:
    """The version and the first 12 hex digits of the SHA-256 of the package's source files."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{edgemod.__version__}+{digest.hexdigest()[:12]}"


# -- running ---------------------------------------------------------------------------------


def _run(
    plan: Plan, options: Options, crew: Crew, restart: bool, on_progress: Callable[[Progress], None]
) -> RunReport:
    out = options.out
    with _locked(out):
        finished = _open_run(out, plan, restart)
        if finished is not None:
            return finished
        began = time.monotonic()
        total, done = Tally(), {}
        for index, tally in _done(out):
            total.add(tally)
            done[index] = tally.records
        earlier = total.records
        _triage_chunks(plan, options, crew, done, total, began, on_progress)
        for source in plan.sources:
            _check_unchanged(source)
        kept = {index: (tally.records, _reviews(tally)) for index, tally in _done(out)}
        queue = review.export(
            [worker.files(out, index)[0] for index, (_, reviews) in kept.items() if reviews],
            out / "review",
            format=options.review_format,
            budget=options.review_budget,
        )
        if (sum(n for n, _ in kept.values()), queue.total) != (total.records, _reviews(total)):
            raise RunError(
                "files of the run were removed or changed while it was going on",
                where=str(out),
                fix="Run the same command again: it does their records again.",
            )
        report = RunReport.of(
            tally=total,
            session_records=total.records - earlier,
            queue=queue,
            identity=plan.identity,
            note=plan.note,
            workers=options.workers,
            files=len(plan.sources),
            wall_seconds=time.monotonic() - began,
            resumed_chunks=len(done),
            peak_bytes=crew.peak_bytes() + worker.peak_bytes(),
        )
        write_bytes(out / "report.json", _json(report.to_json()))
        _write_state(out, plan, "complete", chunks=len(kept))
        _remove(out / "work")
        return report


def _triage_chunks(
    plan: Plan,
    options: Options,
    crew: Crew,
    done: dict[int, int],
    total: Tally,
    began: float,
    on_progress: Callable[[Progress], None],
) -> None:
    """Every chunk not in ``done`` (number: records) through the crew, added to ``total``."""
    policy_limit = crew.first().max_text_bytes
    start = next(i for i in range(len(done) + 1) if i not in done)
    chunks = records.read_chunks(
        plan.sources,
        plan.columns,
        chunk_rows=options.chunk_rows,
        start=start,
        start_row=sum(done[index] for index in range(start)),
        max_text_bytes=policy_limit,
    )
    in_flight: dict[Future[Tally], int] = {}

    def collect() -> None:
        finished, _ = wait(in_flight, return_when=FIRST_COMPLETED)
        for future in finished:
            index = in_flight.pop(future)
            total.add(future.result())
            reviews = _reviews(total)
            on_progress(
                Progress(
                    index,
                    total.records,
                    plan.total,
                    total.records - reviews,
                    reviews,
                    time.monotonic() - began,
                )
            )

    with ThreadPoolExecutor(options.workers) as pool:
        try:
            for chunk in chunks:
                if chunk.index not in done:
                    in_flight[pool.submit(crew.triage, chunk)] = chunk.index
                    while len(in_flight) > options.workers:
                        collect()
            while in_flight:
                collect()
        except BaseException:
            crew.stop()  # so that the threads waiting for workers end
            raise


# -- the folder ------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Make the folder, owner only, and hold it against a second run."""
    try:
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
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
        yield
    finally:
        os.close(handle)


def _open_run(out: Path, plan: Plan, restart: bool) -> RunReport | None:
    """Begin, continue, or find complete (then its report) the run in ``out``.

    run.json comes first and says what follows, so that a kill between any two of these steps
    leaves a folder that the same command understands.
    """
    state = _state(out, plan, restart)
    clean_parts(out, *_FILES)
    if state is not None and restart:
        _write_state(out, plan, "restarting")
    elif state is not None and state["status"] == "complete":
        return _complete(out, state)
    if restart or (state and state["status"] == "restarting"):
        _remove(out / "report.json", *(out / name for name in _FOLDERS))
    _write_state(out, plan, "running")
    try:
        for name in ("decisions", "work"):
            (out / name).mkdir(exist_ok=True, mode=0o700)
            clean_parts(out / name)
    except OSError as error:
        raise OutputError(
            f"cannot be written to: {error.strerror}",
            where=str(out),
            fix="Name a folder that you may write to, with -o.",
        ) from error
    return None


def _state(out: Path, plan: Plan, restart: bool) -> dict[str, Any] | None:
    """What run.json says, None in an empty folder; with ``restart`` {} where it is damaged.

    Raises RunError if the folder holds something else than this run, or with ``restart`` than
    any run.
    """
    others = {*out.iterdir()} - {*unfinished(out, *_FILES)}
    try:
        state = _read_state(out)
    except RunError:
        if not restart or any(path.name not in (*_FILES, *_FOLDERS) for path in others):
            raise
        return {}  # whatever the run was, it is to go
    if state is None and others:
        raise RunError(
            "the folder is not empty and holds no edgemod run",
            where=str(out),
            fix="Name an empty or new folder with -o.",
        )
    if state is not None and not restart:
        _refuse_changes(out, state["plan"], plan.identity)
    return state


def _complete(out: Path, state: dict[str, Any]) -> RunReport:
    """The report of a complete run; raises RunError if something of it is gone."""
    _remove(out / "work")
    records = 0
    for index in range(state["chunks"]):
        part = worker.files(out, index)[2]
        rows = _rows(part)
        if rows is None:
            raise _damaged(part, "--restart begins anew")
        records += rows
    report = _read_json(out / "report.json", "--restart begins anew")
    try:
        told = RunReport.from_json(report)
        queue = [str(name) for name in told.review["files"]]
    except (TypeError, KeyError) as error:
        raise _damaged(out / "report.json", "--restart begins anew") from error
    if records != told.records:
        raise _damaged(out / "decisions", "--restart begins anew")
    for name in queue:
        if not (out / "review" / name).is_file():
            raise _damaged(out / "review" / name, "--restart begins anew")
    return told


def _remove(*paths: Path) -> None:
    """Remove files and folders, where they are. Raises OutputError."""
    for path in paths:
        try:
            if path.is_dir():
                shutil.rmtree(path)
            elif os.path.lexists(path):  # a read-only file system refuses before it looks
                path.unlink()
        except OSError as error:
            raise OutputError(
                f"cannot be removed: {error.strerror}",
                where=str(path),
                fix="Make it writable for you, or name another folder with -o.",
            ) from error


def _read_json(path: Path, fix: str) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path, fix) from error


def _damaged(path: Path, fix: str) -> RunError:
    return RunError("is missing or damaged", where=str(path), fix=f"Put it back; {fix}.")


def _read_state(out: Path) -> dict[str, Any] | None:
    path, fix = out / "run.json", "--restart begins anew, another folder with -o avoids it"
    if not path.exists():
        return None
    state = _read_json(path, fix)
    try:
        kinds = type(state["status"]), type(state["plan"]), type(state["chunks"])
    except (TypeError, KeyError):
        kinds = None
    if kinds != (str, dict, int):
        raise _damaged(path, fix)
    return dict(state)


def _refuse_changes(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    before, now = _flat(before), _flat(now)
    changed = [
        f"{name} ({_short(before.get(name))} -> {_short(now.get(name))})"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
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


def _write_state(out: Path, plan: Plan, status: str, chunks: int = 0) -> None:
    document = {
        "status": status,
        "chunks": chunks,
        "plan": plan.identity,
        "inputs": [
            {"path": s.path, "file": str(s.file), "bytes": s.size, "rows": s.rows}
            for s in plan.sources
        ],
        "calibration_note": plan.note,
    }
    write_bytes(out / "run.json", _json(document))


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()


def _done(out: Path) -> Iterator[tuple[int, Tally]]:
    """The chunks that are done, ascending, with their tallies; all others are to be done (again).

    A part may have its name and not its content: what a file system lost, or somebody removed.
    """
    names = (path.stem.removeprefix("part-") for path in (out / "decisions").glob("part-*.parquet"))
    for index in sorted({int(name) for name in names if name.isdecimal()}):
        tally = _tally(out, index)
        if tally is not None:
            yield index, tally


def _tally(out: Path, index: int) -> Tally | None:
    """The tally of a chunk if its decisions and review rows are as many as it says."""
    queue, numbers, part = worker.files(out, index)
    try:
        tally = Tally.from_json(json.loads(numbers.read_bytes()))
    except (OSError, ValueError):
        return None
    records, reviews = sum(tally.counts["verdict"].values()), _reviews(tally)
    whole = tally.records == records == _rows(part) and (not reviews or reviews == _rows(queue))
    return tally if whole else None


def _reviews(tally: Tally) -> int:
    return tally.counts["verdict"]["review"]


def _rows(part: Path) -> int | None:
    """The rows of a Parquet file by its footer; None if it is missing or damaged."""
    try:
        with part.open("rb") as stream:  # not by name: it need not be UTF-8
            rows: int = pq.read_metadata(stream).num_rows
    except (OSError, pa.ArrowException):
        return None
    return rows


def _check_unchanged(source: Source) -> None:
    if sources.has_changed(source):
        # The same command hashes the content: it completes what was only touched, refuses the rest.
        raise RunError(
            "the input changed while it was being read",
            where=source.path,
            fix="Run the same command again if only its time changed; else with --restart, on an "
            "input that stays as it is.",
        )
