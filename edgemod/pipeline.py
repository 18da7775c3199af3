"""``triage()``: a dump to decisions, review queue and report.

The parent reads the input and hands chunks to worker processes; each worker writes the parts
of its chunk, the decisions last and atomically. A chunk is done exactly if its files are there
and agree on their numbers of records, the result does not depend on the number of workers, and
a run killed at any instant goes on where it was. run_folder.py knows what is on disk.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgemod import (
    encryption,
    formats,
    machine,
    records,
    review,
    review_formats,
    run_folder,
    shards,
    sources,
    verifying,
    worker,
)
from edgemod.columns import check_columns
from edgemod.crew import STALL_SECONDS, Crew, Setup
from edgemod.errors import InputError, RunError
from edgemod.records import Columns, Source
from edgemod.report import QUARANTINED, RunReport
from edgemod.tally import Tally
from edgemod.words import Status, counted

if TYPE_CHECKING:
    from edgemod.privacy import Pseudonyms

CHUNK_ROWS: Final = 4096
MAX_CHUNK_ROWS: Final = 1 << 20
ENGINES: Final = ("local", "ray")
_SHOWN_FILES: Final = 3


@dataclass(frozen=True)
class Progress:
    """A chunk is done: records so far (also in earlier sessions of the run) and in all.

    ``workers``: processes that have done a chunk in this session; those that start yet have not.
    """

    chunk: int
    records: int
    total: int | None
    settled: int
    review: int
    seconds: float
    workers: int


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
    certificate: dict[str, Any] | None
    rows: tuple[int, int | None]
    """Which rows of the input, end to end: the first, and the one after the last (None: to the
    end). All, or the share of a shard."""
    made_with: dict[str, str | None]
    """Where policy, calibration and model are, for those who read the run; None: the shipped one,
    or no model. No part of what the run is."""
    pseudonyms: Pseudonyms | None = None

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

    def document(self) -> dict[str, Any]:
        """What run.json says of the plan."""
        return {
            "plan": self.identity,
            "inputs": [
                {
                    "path": s.path,
                    "file": str(s.file.absolute()),
                    "root": str(s.root.absolute()),
                    "bytes": s.size,
                    "rows": s.rows,
                }
                for s in self.sources
            ],
            "rows": list(self.rows),
            "made_with": self.made_with,
            "calibration_note": self.note,
            "certificate": self.certificate,
        }


@dataclass(frozen=True)
class Options:
    """What ``triage`` was asked; names and meanings as there."""

    inputs: tuple[str, ...]
    out: Path
    policy: str | None
    model: str | None
    calibration: str | None
    overlay: str | None
    columns: dict[str, Any]
    workers: int | None
    chunk_rows: int
    review_format: str
    review_budget: int | None
    keep_scores: bool = False
    pseudonymise: str | None = None
    redact_pii: bool = False
    shard: str | None = None
    stall_seconds: float = STALL_SECONDS
    max_memory: str | int | None = None
    engine: str = "local"
    ray_address: str | None = None


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
    overlay: str | None = None,
    workers: int | None = None,
    max_memory: str | int | None = None,
    chunk_rows: int = CHUNK_ROWS,
    review_format: str = "parquet",
    review_budget: int | None = None,
    keep_scores: bool = False,
    pseudonymise: str | Path | None = None,
    redact_pii: bool = False,
    shard: str | None = None,
    stall_seconds: float = STALL_SECONDS,
    engine: str = "local",
    ray_address: str | None = None,
    restart: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_plan: Callable[[Plan], None] | None = None,
) -> RunReport:
    """Triage dumps of records into ``out`` and return the report.

    - ``inputs``: files, folders or globs of Parquet, CSV or JSONL.
    - ``text``: the text column, or several to be joined by a line feed; ``conversation``: a
      list-of-messages column instead; ``id``, ``thread``, ``author``, ``time``, ``context``:
      columns too, all but the context guessed where not given.
    - ``policy``, ``calibration``: files, None for those shipped; ``overlay``: one of the policy's,
      to be in force; ``model``: a name or path known to ``edgemod model list``, None for none.
    - ``workers``: processes, None for one per usable core, if the memory limit leaves room;
      ``max_memory``: a size such as "4GB", or bytes, for fewer workers where it takes that to stay
      below it.
    - ``chunk_rows``: records a chunk, 1 to 1,048,576; duplicates are found within a chunk.
    - ``review_format``: one of ``review_formats.FORMATS``; ``review_budget``: the most records to
      export.
    - ``keep_scores``: keep the scores of both stages beside the decisions, so that another policy
      can be tried on the run without the language model.
    - ``pseudonymise``: a key file; ids of records, authors and threads become pseudonyms under it
      in all outputs (privacy.py); ``redact_pii``: placeholders for personal data in the texts of
      the review queue.
    - ``shard``: "i/n" for the share number i (from 1) of n, each in an ``out`` of its own, for
      ``edgemod.merge`` to put together.
    - ``stall_seconds``: for so long (a chunk of 16 MB twice as long) a worker may give no sign of
      progress before it is taken to hang; while it loads, for an hour at least.
    - ``engine``: "local", or "ray" for workers on the nodes of a Ray cluster, which must all see
      ``out``; ``ray_address``: which, see ``edgemod.ray.joined``.
    - ``restart``: throw an earlier run in ``out`` away.

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
        overlay=overlay,
        columns={
            "text": (text,) if isinstance(text, str) else tuple(text),
            "conversation": conversation,
            "id": id,
            "thread": thread,
            "author": author,
            "time": time,
            "context": context,
        },
        workers=workers,
        chunk_rows=chunk_rows,
        review_format=review_format,
        review_budget=review_budget,
        keep_scores=keep_scores,
        pseudonymise=None if pseudonymise is None else str(pseudonymise),
        redact_pii=redact_pii,
        shard=shard,
        stall_seconds=stall_seconds,
        max_memory=max_memory,
        engine=engine,
        ray_address=ray_address,
    )
    _check(options)
    with _crew(options) as crew:
        plan = make_plan(options, crew)
        if on_plan:
            on_plan(plan)
        return _run(plan, options, crew, restart, on_progress or (lambda _: None))


def plan(options: Options, *, restart: bool = False) -> Plan:
    """The plan alone, for ``--dry-run``; raises what ``triage`` would before it starts."""
    _check(options)
    with _crew(options) as crew:
        made = make_plan(options, crew)
        if os.path.isdir(options.out):  # False, not an error, where it cannot be told
            with run_folder.locked(options.out):
                run_folder.checked_state(options.out, made.document(), restart)
        return made


def _check(options: Options) -> None:
    """Raise InputError for an option out of its range."""
    if options.shard is not None:
        shards.parse(options.shard)
    budget, on_ray = options.review_budget, options.engine == "ray"
    form = options.review_format
    encryption.check_format(form, "--review-format")
    for wrong, what in (
        (not options.inputs, "there is no input"),
        (not 1 <= options.chunk_rows <= MAX_CHUNK_ROWS, f"chunk_rows is {options.chunk_rows}"),
        (options.workers is not None and options.workers < 1, f"workers is {options.workers}"),
        (budget is not None and budget < 0, f"review_budget is {budget}"),
        (not options.stall_seconds > 0, f"stall_seconds is {options.stall_seconds}"),
        (form not in review_formats.FORMATS, f"no format {form!r}"),
        (options.engine not in ENGINES, f"no engine {options.engine!r}"),
        (options.ray_address and not on_ray, "ray_address goes with the engine ray"),
        (on_ray and options.max_memory is not None, "max_memory is for the engine local"),
    ):
        if wrong:
            raise InputError(what, fix="See the documentation of edgemod.triage for the ranges.")
    if on_ray:
        encryption.check_local()


@contextmanager
def _crew(options: Options) -> Iterator[Crew]:
    """The crew of a run, which is stopped at the end."""
    out = str(options.out.absolute())
    setup = Setup(
        out,
        options.policy,
        options.model,
        options.calibration,
        options.overlay,
        keep_scores=options.keep_scores,
        redact_pii=options.redact_pii,
    )
    with ExitStack() as stack:
        kind = Crew
        if options.engine == "ray":
            from edgemod import ray  # an extra

            stack.enter_context(ray.joined(options.ray_address))
            kind = ray.RayCrew
        crew = kind(setup, options.stall_seconds)
        stack.callback(crew.stop)
        yield crew


def _workers(options: Options) -> int:
    if options.engine == "ray":
        from edgemod import ray

        return options.workers or ray.places()
    return machine.workers(options.workers, options.max_memory, options.model)


def make_plan(options: Options, crew: Crew) -> Plan:
    """Resolve inputs, columns and models; reads footers and hashes every input file."""
    workers = _workers(options)
    key = options.pseudonymise
    pseudonyms = None
    if key is not None:
        # Only now: it brings the kernels, of which the workers alone have need else.
        from edgemod import privacy

        pseudonyms = privacy.Pseudonyms.open(key)
    found = tuple(records.discover(options.inputs))
    columns = records.resolve_columns(found, **options.columns)
    if others := sources.passed_over(options.inputs):
        names = ", ".join(others[:_SHOWN_FILES]) + ", ..." * (len(others) > _SHOWN_FILES)
        notice = (
            f"passed over {counted(len(others), 'file')} of no format that edgemod reads: {names}"
        )
        columns = replace(columns, notices=(*columns.notices, notice))
    columns = _with_stratum(found, columns, crew.first().certificate)
    if pseudonyms:
        pseudonyms.check_shown(found, columns)
    fingerprints = crew.first().fingerprints
    counts = [source.rows for source in found]
    total = sum(n for n in counts if n is not None) if None not in counts else None
    rows: tuple[int, int | None] = (0, None)
    if options.shard is not None:
        whole = records.count_rows(found, columns) if total is None else total
        first, stop = shards.share(options.shard, whole, options.chunk_rows)
        rows, total = (first, stop), stop - first
    named = {name: getattr(columns, name) for name in (*options.columns, "stratum")}
    return Plan(
        sources=found,
        columns=columns,
        out=options.out,
        workers=workers,
        total=total,
        identity={
            "format": run_folder.FORMAT,
            "code": worker.code_version(),
            "input": records.fingerprint(found),
            "columns": {k: list(v) if isinstance(v, tuple) else v for k, v in named.items()},
            **fingerprints,
            "overlay": options.overlay,
            "chunk_rows": options.chunk_rows,
            "review_format": options.review_format,
            "review_budget": options.review_budget,
            "keep_scores": options.keep_scores,
            "pseudonyms": pseudonyms.fingerprint if pseudonyms else None,
            "redact_pii": options.redact_pii,
            "shard": options.shard and shards.name(*shards.parse(options.shard)),
        },
        note=crew.first().note,
        certificate=crew.first().certificate,
        rows=rows,
        made_with={
            name: sources.absolute(getattr(options, name))
            for name in ("policy", "calibration", "model")
        },
        pseudonyms=pseudonyms,
    )


def _with_stratum(
    found: Sequence[Source], columns: Columns, certificate: dict[str, Any] | None
) -> Columns:
    """The columns with the one whose groups a certificate tells apart, if the inputs have it."""
    name = (certificate or {"labels": {"strata": None}})["labels"]["strata"]
    if name is None:
        return columns
    told = replace(columns, stratum=name)
    try:
        for source in found:
            check_columns(source, formats.schema(source), told)
    except InputError:
        notice = (
            f"the certificate holds for each '{name}', which the input does not tell: whether "
            "the records of each are like the labelled ones is not tested"
        )
        return replace(columns, notices=(*columns.notices, notice))
    return told


# -- running ---------------------------------------------------------------------------------


def _run(
    plan: Plan, options: Options, crew: Crew, restart: bool, on_progress: Callable[[Progress], None]
) -> RunReport:
    out = options.out
    with run_folder.locked(out) as crew.folder:
        finished = run_folder.open_run(out, plan.document(), restart)
        if finished is not None:
            return finished
        began = time.monotonic()
        total, done = Tally(), {}
        done_chunks = partial(run_folder.done, out, keep_scores=options.keep_scores)
        for index, tally in done_chunks():
            total.add(tally)
            done[index] = tally.records
        earlier = total.records
        _triage_chunks(plan, options, crew, done, total, began, on_progress)
        for source in plan.sources:
            _check_unchanged(source)
        worker.check_folder(out, crew.folder)
        kept: dict[int, Tally] = {}
        crashed: list[dict[str, Any]] = []
        for index, tally in done_chunks():
            kept[index] = tally
            if tally.counts["status"][Status.crashed.name] and len(crashed) < QUARANTINED:
                crashed += run_folder.with_status(out, index, Status.crashed)
        queue = review.export(
            [worker.files(out, index)[0] for index, tally in kept.items() if tally.reviews],
            out / "review",
            format=options.review_format,
            budget=options.review_budget,
        )
        if (sum(t.records for t in kept.values()), queue.total) != (total.records, total.reviews):
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
            certificate=plan.certificate,
            workers=plan.workers,
            files=len(plan.sources),
            wall_seconds=time.monotonic() - began,
            resumed_chunks=len(done),
            peak_bytes=crew.peak_bytes() + worker.peak_bytes(),
            quarantined=crashed,
        )
        digests = {
            str(path.relative_to(out)): verifying.digest(path)
            for index, tally in kept.items()
            for path in run_folder.kept(out, plan.identity, index, tally)
        }
        sealed = verifying.seal(out, plan.identity, digests, queue.files)
        worker.check_folder(out, crew.folder)
        run_folder.finish(out, plan.document(), report, len(kept), sealed)
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
    first, (first_row, stop_row) = run_folder.first_chunk(plan.document()), plan.rows
    start = next(i for i in range(first, first + len(done) + 1) if i not in done)
    chunks = records.read_chunks(
        plan.sources,
        plan.columns,
        chunk_rows=options.chunk_rows,
        start=start,
        start_row=first_row + sum(done[index] for index in range(first, start)),
        stop_row=sys.maxsize if stop_row is None else stop_row,
        max_text_bytes=policy_limit,
    )
    in_flight: dict[Future[Tally], int] = {}

    def collect() -> None:
        finished, _ = wait(in_flight, return_when=FIRST_COMPLETED)
        for future in finished:
            index = in_flight.pop(future)
            total.add(future.result())
            on_progress(
                Progress(
                    index,
                    total.records,
                    plan.total,
                    total.records - total.reviews,
                    total.reviews,
                    time.monotonic() - began,
                    crew.at_work(),
                )
            )

    with ThreadPoolExecutor(plan.workers) as pool:
        try:
            for chunk in chunks:
                if chunk.index not in done:
                    if plan.pseudonyms:
                        chunk = plan.pseudonyms.rename(chunk)
                    in_flight[pool.submit(crew.triage, chunk)] = chunk.index
                    while len(in_flight) > plan.workers:
                        collect()
            while in_flight:
                collect()
        except BaseException:
            crew.stop()  # so that the threads waiting for workers end
            raise


def _check_unchanged(source: Source) -> None:
    if sources.has_changed(source):
        # The same command hashes the content: it completes what was only touched, refuses the rest.
        raise RunError(
            "the input changed while it was being read",
            where=source.path,
            fix="Run the same command again if only its time changed; else with --restart, on an "
            "input that stays as it is.",
        )
