"""Beyond one machine, with Ray: runs whose workers are on many nodes, Ray Data sets of decisions.

``RayCrew`` does the chunks of a run (``edgemod triage --engine ray``): the pipeline, the files
and their bytes are those of local workers. ``triage`` and ``queue`` are for programs that are
made of Ray Data sets; there is no run folder then. Both need the extra ``ray``, and in both each
actor has a worker process of crew.py beside it, which does all the work: an actor needs the network
of the cluster, and must outlive what a text does to native code.
"""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from queue import Empty
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from edgemod import encryption, offline, records, review, sources, worker
from edgemod.crew import STALL_SECONDS, Crew, Setup, Worker
from edgemod.errors import EdgemodError, InputError, OutputError, RunError
from edgemod.policy import load_policy
from edgemod.records import Chunk, Columns

try:
    import ray
    import ray.data
except ImportError as error:
    raise RunError(
        "Ray is not installed",
        where="edgemod.ray",
        fix="Install the extra, here and on every node: pip install 'edgemod[ray]'.",
    ) from error

_MOST: Final = 512
"""Workers of a run where no number is given: one process reads for all of them."""

_PATIENCE: Final = 600
"""Seconds that a run waits for the first free processor; a cluster may have to start a node."""

_LOSSES: Final = 16
"""Nodes that may be lost under one attempt at a chunk before it counts as one."""


# -- a run whose workers are on many nodes ---------------------------------------------------


@contextlib.contextmanager
def joined(address: str | None) -> Iterator[None]:
    """Be part of a cluster: the one this process has joined, and then it stays in it.

    Else the one at ``address`` (``host:6379``; None: the one of the environment variable
    RAY_ADDRESS, else one that this machine is in), left at the end; where there is none, Ray is
    started on this machine. Raises RunError if none can be joined.
    """
    if offline.held() != "none":
        raise RunError(
            "this process is kept off the network, so no Ray cluster can be reached",
            where="edgemod.offline",
            fix="Do not call edgemod.offline.guard() in a program that uses Ray.",
        )
    if ray.is_initialized():
        yield
        return
    # Ray would report its use to its makers, from what it starts here.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="error")
    except (OSError, RuntimeError, ValueError) as error:
        raise RunError(
            f"no Ray cluster can be joined: {type(error).__name__}",
            where=address or os.environ.get("RAY_ADDRESS", "ray"),
            fix="Look with 'ray status --address HOST:PORT' whether it is up. The versions of Ray "
            "and Python must be the same here and there.",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def places() -> int:
    """The workers that the cluster has processors for, 512 at most. Raises RunError for none."""
    count = min(int(ray.cluster_resources().get("CPU", 0)), _MOST)
    if not count:
        raise RunError("the Ray cluster has no processors", where="ray", fix="Add nodes.")
    return count


class _NodeLostError(RunError):
    """The node of an actor is gone: no fault of the chunk that the actor had."""


class _NoRoomError(RunError):
    """There is no free processor for one more actor, but an idle actor."""


class RayCrew(Crew):
    """The workers of a run on the nodes of the Ray cluster that is joined, each on one processor.

    Every node needs the same edgemod, and must see OUT, the policy and the calibration under the
    same paths. What dies is replaced here and not by Ray: an actor that Ray restarts keeps its
    chunk, and would keep it for ever on a cluster that has become smaller.
    """

    def __init__(self, setup: Setup, stall_seconds: float = STALL_SECONDS) -> None:
        # An actor works in another folder.
        policy, model, calibration = map(
            sources.absolute, (setup.policy, setup.model, setup.calibration)
        )
        setup = replace(setup, policy=policy, model=model, calibration=calibration)
        super().__init__(setup, stall_seconds)
        self._marker: Path | None = None

    def _hire(self) -> Worker:
        return ActorWorker(self._setup, self)

    def _start(self, lost: Counter[str]) -> Worker:
        """A new worker where there is room for one, else one that has become idle."""
        while True:
            try:
                return super()._start(lost)
            except _NoRoomError:
                with contextlib.suppress(Empty):
                    return self._idle.get_nowait()

    def may_give_up(self, seconds: int) -> None:
        """Raise if an actor that was not placed for so many seconds need not be waited for."""
        if not self._idle.empty():
            raise _NoRoomError("no processor is free")
        if self._first is None and seconds >= _PATIENCE:
            raise RunError(
                f"no processor of the Ray cluster was free for {seconds} seconds",
                fix="Wait until other jobs have ended, or add nodes.",
            )

    def _attempt(
        self, current: Worker, chunk: Chunk, lost: Counter[str], *, keep: bool = True
    ) -> dict[str, Any] | None:
        """As of a crew, but a node that is lost is told and does not count as an attempt."""
        for _ in range(_LOSSES):
            try:
                return super()._attempt(current, chunk, lost, keep=keep)
            except _NodeLostError as gone:
                lost[gone.what] += 1
                current = self._start(lost)
        return super()._attempt(current, chunk, lost, keep=keep)

    def marker(self) -> str:
        """A file of this run in OUT: who does not see it has another OUT, or comes too late."""
        with self._lock:
            if self._marker is None:
                self._marker = Path(self._setup.out, "work", f"cluster-{uuid.uuid4().hex}")
                try:
                    self._marker.touch(0o600)
                except OSError as error:
                    raise OutputError(
                        f"cannot be written: {error.strerror}", where=str(self._marker)
                    ) from error
        return str(self._marker)

    def stop(self) -> None:
        """End every worker at once, and let none write any more."""
        if self._marker is not None:
            with contextlib.suppress(OSError):
                self._marker.unlink()
        super().stop()


class ActorWorker(Worker):
    """A worker whose process is beside a Ray actor, which carries the conversation."""

    def __init__(self, setup: Setup, crew: RayCrew) -> None:
        self._crew = crew
        self._node = ""
        super().__init__(setup)

    def _begin(self) -> None:
        self._actor = ray.remote(num_cpus=1, max_restarts=0)(_Actor).remote()

    def tick(self) -> None:
        """Nothing: the actor counts the seconds of its worker process."""

    def wait_ready(self, limit: float) -> str | None:
        """Wait for a place, then as of a worker."""
        placed, seconds = self._actor.__ray_ready__.remote(), 0
        while not ray.wait([placed], timeout=1)[0]:
            seconds += 1
            try:
                self._crew.may_give_up(seconds)
            except RunError:
                self.stop()
                raise
        try:
            return super().wait_ready(limit)
        except _NodeLostError as gone:
            return gone.what

    def exchange(
        self, header: dict[str, Any], batches: Sequence[Any], limit: float
    ) -> dict[str, Any]:
        """As of a worker; raises _NodeLostError, and RunError where the actor cannot start."""
        try:
            if batches:
                # Nodes may see different inodes: the marker stands for the folder.
                header = {**header, "marker": self._crew.marker(), "folder": None}
                return dict(ray.get(self._actor.triage.remote(header, limit, *batches)))
            self._node = ray.get(self._actor.node.remote())
            code = worker.code_version()
            return dict(ray.get(self._actor.load.remote(self._setup, limit, code)))
        except ray.exceptions.RayError as error:
            if self._is_lost(error):
                self.stop()
                raise _NodeLostError("its node of the cluster was lost") from error
            if self._node:
                return {"kind": f"its Ray actor ended: {type(error).__name__}"}
            raise RunError(
                f"an actor could not start: {type(error).__name__}",
                where="Ray",
                fix="Install the same edgemod[ray] on every node: pip install 'edgemod[ray]'.",
            ) from None

    def _is_lost(self, error: Exception) -> bool:
        """Whether the actor is out of reach because of its node and not of what it did."""
        if isinstance(error, ray.exceptions.ActorUnavailableError):
            return True
        if not isinstance(error, ray.exceptions.RayActorError) or not ray.is_initialized():
            return False
        gone = {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
        return bool(error.preempted or self._node in gone)

    def stop(self) -> None:
        """End the actor now; its worker process then ends by itself, and writes no more."""
        with contextlib.suppress(ray.exceptions.RayError):  # where Ray is gone, so is the actor
            ray.kill(self._actor)


class _Actor:
    """What runs in an actor: a worker process, started, asked and watched from beside it.

    Errors are answers here too: what an actor raises Ray would log, with its message.
    """

    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())

    def load(self, setup: Setup, limit: float, code: str) -> dict[str, Any]:
        try:
            if worker.code_version() != code:
                raise RunError(
                    f"a node has another edgemod ({worker.code_version()}) than this one ({code})",
                    where=platform.node(),
                    fix="Install the same on every node.",
                )
            self._worker = Worker(setup)
            threading.Thread(target=self._watch, daemon=True).start()
            return self._worker.exchange(asdict(setup), (), limit)
        except Exception as error:
            return worker.describe(error)

    def _watch(self) -> None:
        while True:
            time.sleep(1)
            self._worker.tick()

    def triage(self, header: dict[str, Any], limit: float, *batches: Any) -> dict[str, Any]:
        try:
            _check_seen(Path(header["marker"]))
            answer = self._worker.exchange(header, batches, limit)
            if "tally" in answer:
                answer["peak_bytes"] += worker.peak_bytes()
            return answer
        except Exception as error:
            return worker.describe(error)


def _check_seen(marker: Path) -> None:
    try:
        marker.stat()
    except OSError as error:
        raise OutputError(
            f"the node {platform.node()} does not see this folder of the run, or only an old one",
            where=str(marker.parents[1]),
            fix="Name an OUT with -o that every node sees under the same path (as on NFS) and "
            "that your user may write to on each.",
        ) from error


# -- Ray Data --------------------------------------------------------------------------------


def triage(
    dataset: ray.data.Dataset,
    *,
    id: str,
    text: str | Sequence[str] = "text",
    conversation: str | None = None,
    thread: str | None = None,
    author: str | None = None,
    time: str | None = None,
    context: str | None = None,
    policy: str | Path | None = None,
    model: str | None = "default",
    calibration: str | Path | None = None,
    overlay: str | None = None,
    chunk_rows: int = 4096,
    concurrency: int | tuple[int, int] | None = None,
    with_review: bool = False,
) -> ray.data.Dataset:
    """A Ray Data set of decisions for one of records: columns as ``edgemod.triager.DECISIONS``.

    The arguments are those of ``edgemod.triage``; the columns are not guessed. The paths of
    policy, calibration and model must be good on every node. ``concurrency``: the most actors, or
    the least and the most, each on one processor and with the models loaded once; None leaves it to
    Ray. Reading and writing need a processor, too.
    ``with_review`` adds the column ``review``, the only one with text: a struct of what the review
    queue shows, null unless the verdict is review; see ``queue``.

    Ray passes records on in batches of at most ``chunk_rows``, and each is a chunk. Where they end
    is up to Ray, and only ``duplicate_of``, and the stage ``duplicate`` in place of the one that
    decided the earlier record, depend on it (with a guard also its scores, in their last digits).
    ``source`` and ``source_row`` are null. A null id becomes ``batch#<row>``.

    Nothing is done before the result is used, and it is done again at each use. Raises InputError
    if a column is missing, PolicyError for the policy, and at use what ``Triager`` does.
    """
    if chunk_rows < 1:
        raise InputError(f"chunk_rows is {chunk_rows}", fix="Give 1 or more.")
    names = (text,) if isinstance(text, str) else tuple(text)
    texts = () if conversation else names
    columns = Columns(texts, conversation, id, thread, author, time, context, ())
    wanted = [*texts, *filter(None, (conversation, id, thread, author, time, context))]
    known = dataset.schema(fetch_if_missing=False)
    if missing := [name for name in wanted if name not in (known.names if known else wanted)]:
        raise InputError(
            f"there is no column {missing[0]!r}",
            where="the Ray Data set",
            fix=f"It has: {', '.join(known.names)}.",
        )
    policy, calibration = (
        None if path is None else str(Path(path).absolute()) for path in (policy, calibration)
    )
    load_policy(None if policy is None else Path(policy), overlay)  # its mistakes are told here
    encryption.check_local()
    # Not a fixed number: it could take every processor and leave none to read and write with.
    least, most = concurrency if isinstance(concurrency, tuple) else (1, concurrency)
    return dataset.select_columns(list(dict.fromkeys(wanted))).map_batches(
        Decider,
        fn_constructor_kwargs={
            "setup": Setup("", policy, sources.absolute(model), calibration, overlay),
            "columns": columns,
            "with_review": with_review,
        },
        batch_size=chunk_rows,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most),
        num_cpus=1,
        udf_modifying_row_count=False,
    )


def queue(decided: ray.data.Dataset) -> ray.data.Dataset:
    """The review queue of what ``triage`` made with ``with_review``: most urgent first, with text.

    Columns as ``edgemod.review.REVIEW`` but for ``rank``, which is the order. Use it on a set that
    is written or materialized, or every record is decided once more.
    """
    rows = decided.select_columns(["review"]).map_batches(_flatten, batch_format="pyarrow")
    return rows.sort(["priority", "record_id"], descending=[True, False])


class Decider:
    """The callable class of ``triage``: one in each actor, with a crew of one worker.

    So what a text does to native code is found and quarantined as in a run (crew.py). The crew
    writes a chunk's files to a folder of this node, from where they are read and removed.
    """

    def __init__(self, setup: Setup, columns: Columns, with_review: bool) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="edgemod-")
        for name in ("decisions", "work"):
            Path(self._folder.name, name).mkdir(0o700)
        self._crew = Crew(replace(setup, out=self._folder.name))
        self._crew.first()
        self._columns, self._with_review = columns, with_review

    def __call__(self, table: pa.Table) -> pa.Table:
        """Decisions for a batch of records, row for row."""
        try:
            return self._decide(table)
        except EdgemodError:
            raise
        except Exception as error:  # its message may quote a record, and Ray logs it
            told = worker.describe(error)
            raise RunError(
                " ".join(["a batch failed:", told["kind"], *told["places"]]), where="edgemod.ray"
            ) from None

    def _decide(self, table: pa.Table) -> pa.Table:
        batch = pa.RecordBatch.from_arrays(
            [_whole(column) for column in table.columns], table.schema.names
        )
        limit = self._crew.first().max_text_bytes
        chunk = records.chunk_of(batch, self._columns, max_text_bytes=limit)
        self._crew.triage(chunk)
        queue, numbers, part = worker.files(Path(self._folder.name), chunk.index)
        pending = pq.read_table(queue) if queue.exists() else review.PENDING.empty_table()
        decisions = pq.read_table(part)
        for path in (queue, numbers, part):
            path.unlink(missing_ok=True)
        made = _without_source(decisions)
        if not self._with_review:
            return made
        rows = _without_source(pending).drop_columns(["size"])
        waiting = np.flatnonzero(np.asarray(pc.equal(decisions["verdict"], "review")))
        position = np.full(decisions.num_rows, -1)
        position[waiting] = np.arange(len(waiting))
        struct = pa.StructArray.from_arrays(
            [_whole(column) for column in rows.columns], fields=list(rows.schema)
        )
        return made.append_column(
            "review", struct.take(pa.array(position, pa.int64(), mask=position < 0))
        )


def _without_source(table: pa.Table) -> pa.Table:
    """The same without where a record lies: in a batch that is nowhere."""
    for name in ("source", "source_row"):
        at = table.schema.get_field_index(name)
        kind = table.schema.field(at)
        table = table.set_column(at, kind, pa.nulls(table.num_rows, kind.type))
    return table


def _flatten(table: pa.Table) -> pa.Table:
    rows = table["review"].drop_null()
    fields = list(rows.type)
    columns = [pc.struct_field(rows, field.name) for field in fields]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """A column of a table in one piece."""
    joined = column.combine_chunks()
    return joined if isinstance(joined, pa.Array) else pa.concat_arrays(joined.chunks)
