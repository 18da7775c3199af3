"""The parent's side of the workers: start them, ask them, replace those that die or hang."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from edgemod import errors, quarantine, worker
from edgemod.errors import RunError
from edgemod.records import CHUNK_BYTES, Chunk
from edgemod.tally import Tally
from edgemod.words import Status

STALL_SECONDS: Final = 600.0
"""Seconds without a sign of progress after which a worker is taken to hang. The slowest step that
gives none is one call of the language model: 1,024 tokens of a guard, which a model of 7 billion
parameters on one old core reads in five minutes."""

_LOADING: Final = 6
"""Times as long a worker may load: it reads and hashes the models, and may compile the kernels.
That depends on no text, so a shorter time that is asked for is not taken for it."""

_STARTS: Final = 3
"""Attempts to start one worker: that a start dies may be chance, or for want of memory just now."""


@dataclass(frozen=True)
class Setup:
    """What every worker loads: paths and names as ``pipeline.triage`` takes them."""

    out: str
    policy: str | None
    model: str | None
    calibration: str | None
    overlay: str | None = None
    keep_scores: bool = False
    threads: int = 1
    redact_pii: bool = False
    measure: tuple[str, ...] = ()
    """Measure this (``worker.measured``) instead of writing files; ``out`` is for errors then."""


class Crew:
    """The worker processes of a run: started when first needed, replaced when they die."""

    def __init__(self, setup: Setup, stall_seconds: float = STALL_SECONDS) -> None:
        self._setup, self._stall_seconds = setup, stall_seconds
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        self._all: list[Worker] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._first: Worker | None = None
        self._peaks: dict[Worker, int] = {}
        self.folder: list[int] | None = None
        """The only folder that workers may write to (``worker.check_folder``)."""

    def first(self) -> Worker:
        """The first worker, which also tells the fingerprints of what it loaded."""
        if self._first is None:
            threading.Thread(target=self._watch, daemon=True).start()
            self._first = self._start(Counter())
            self._idle.put(self._first)
        return self._first

    def _watch(self) -> None:
        """Kill workers that hang.

        Seconds are counted here, not read from a clock: while the machine sleeps, or the run is
        suspended, none pass.
        """
        while not self._stopped.wait(1):
            for one in [*self._all]:
                one.tick()

    def _start(self, lost: Counter[str]) -> Worker:
        """A fresh worker, ready; adds to ``lost`` those that ended while they loaded."""
        for _ in range(_STARTS):
            with self._lock:
                if self._stopped.is_set():
                    raise RunError("the run was stopped")
                made = self._hire()
                self._all.append(made)
            told = made.wait_ready(max(self._stall_seconds, STALL_SECONDS) * _LOADING)
            if told is None:
                break
            made.stop()
            lost[told] += 1
        else:
            raise RunError(
                f"a worker process could not start: {told}",
                where="edgemod.worker",
                fix="Run 'edgemod doctor' to see what is missing; where memory ran out, fewer "
                "--workers help.",
            )
        if self._first is not None and made.fingerprints != self._first.fingerprints:
            raise RunError(
                "the policy, a model or the key changed while the run was going on",
                where=self._setup.out,
                fix="Run the command again; use --restart to begin anew with the new ones.",
            )
        return made

    def _hire(self) -> Worker:
        """A worker that has yet to load its models."""
        return Worker(self._setup)

    def _take(self, lost: Counter[str]) -> Worker:
        """An idle worker or a new one; never more than there are threads that ask."""
        try:
            return self._idle.get_nowait()
        except Empty:
            return self._start(lost)

    def triage(self, chunk: Chunk) -> Tally:
        """One chunk; its tally has the workers it has cost. Raises as ``measure`` does."""
        return Tally.from_json(self._answer(chunk)[0]["tally"])

    def measure(self, chunk: Chunk) -> tuple[dict[str, npt.NDArray[Any]], Chunk]:
        """What ``Setup.measure`` says of a chunk, and the chunk as it could be measured: records
        at fault have a status. Raises RunError where it cannot be, and a worker's edgemod error.
        """
        answer, done = self._answer(chunk)
        return worker.unpacked(answer["batches"][0]), done

    def _answer(self, chunk: Chunk) -> tuple[dict[str, Any], Chunk]:
        """A worker's answer to a chunk, whatever its records do to workers, and what it was to.

        A worker that dies, hangs or meets an unexpected exception may be chance: the chunk is
        tried again in a fresh one. Then the records at fault are found, and the chunk is done
        without them. Raises what says that the set-up is wrong: an edgemod error of a worker.
        """
        lost: Counter[str] = Counter()
        for current in (self._take, self._start):
            answer = self._attempt(current(lost), chunk, lost)
            if answer is not None:
                return answer, chunk
        for rest in self._rests(chunk, lost):
            answer = self._attempt(self._start(lost), rest, lost)
            if answer is not None:
                return answer, rest
        raise RunError(
            f"chunk {chunk.index} cannot be written: {', '.join(lost)}",
            where=self._setup.out,
            fix="Everything before it is kept. Please report this with the places named above.",
        )

    def _rests(self, chunk: Chunk, lost: Counter[str]) -> Iterator[Chunk]:
        """What to try of a chunk that has failed twice, each with less left to fail."""
        units = quarantine.alike(chunk, self.first().reads_context)

        def rows(some: Sequence[int]) -> npt.NDArray[np.int64]:
            return np.concatenate([np.zeros(0, np.int64), *(units[i] for i in some)])

        def fails(some: Sequence[int]) -> bool:
            part = quarantine.only(chunk, rows(some))
            return self._attempt(self._start(lost), part, lost, keep=False) is None

        crashed, suspect = (
            rows(some) for some in quarantine.search(len(units), fails, quarantine.TRIALS)
        )
        for text in (True, True, False):  # the first may fail by chance
            rest = quarantine.without(chunk, suspect, Status.failed, text=text)
            yield quarantine.without(rest, crashed, Status.crashed, text=text)
        yield quarantine.without(chunk, rows(range(len(units))), Status.failed)

    def _attempt(
        self, current: Worker, chunk: Chunk, lost: Counter[str], *, keep: bool = True
    ) -> dict[str, Any] | None:
        """The answer to a chunk, or None and one more in ``lost``; ``keep``: files and worker."""
        limit = self._stall_seconds * (1 + chunk.texts.nbytes / CHUNK_BYTES)
        current.folder = self.folder
        answer = current.ask(chunk, lost, keep, limit)
        done = "peak_bytes" in answer
        if done and keep:
            self._peaks[current] = answer["peak_bytes"]
            self._idle.put(current)
        else:
            current.stop()
        if done:
            return answer
        if "state" in answer:  # trying again would not make room, nor mend a model
            raise errors.from_json(answer)
        lost[_told(answer)] += 1
        return None

    def peak_bytes(self) -> int:
        """The sum of the workers' greatest resident memory, bytes (shared pages counted twice)."""
        return sum(self._peaks.values())

    def at_work(self) -> int:
        """How many workers have done a chunk, those that died since included."""
        return len(self._peaks)

    def stop(self) -> None:
        """End every worker at once. Parts are atomic, so nothing half-written remains."""
        with self._lock:
            self._stopped.set()
            for one in self._all:
                one.stop()


class Worker:
    """One worker process and the conversation with it."""

    def __init__(self, setup: Setup) -> None:
        self._begin()
        self._setup = setup
        self.fingerprints: dict[str, str | None] = {}
        self.note = ""
        self.certificate: dict[str, Any] | None = None
        self.max_text_bytes = 0
        self.reads_context = False
        self.folder: list[int] | None = None
        # Only tick() counts, and only exchange() says from when and up to where.
        self._now, self._since, self._limit = 0, 0, math.inf
        self._hung = False

    def _begin(self) -> None:
        self._process = subprocess.Popen(
            # -P: a worker must not import what happens to lie in the current folder.
            [sys.executable, "-P", "-m", "edgemod.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": _import_path()},
        )

    def tick(self) -> None:
        """A second has passed: if the worker owes a sign of progress for too long, kill it."""
        self._now += 1
        if self._now - self._since > self._limit:
            self._hung = True
            self._process.kill()

    def wait_ready(self, limit: float) -> str | None:
        """Load the models: None, or what ended the worker; raises the edgemod error it met."""
        answer = self.exchange(asdict(self._setup), (), limit)
        if "state" in answer:
            raise errors.from_json(answer)
        if "fingerprints" not in answer:
            return _told(answer)
        self.fingerprints, self.note = answer["fingerprints"], answer["note"]
        self.max_text_bytes = answer["max_text_bytes"]
        self.certificate = answer["certificate"]
        self.reads_context = answer["reads_context"]
        return None

    def ask(self, chunk: Chunk, lost: Counter[str], keep: bool, limit: float) -> dict[str, Any]:
        """Triage one chunk: the worker's answer, or what is known of its end.

        ``lost``: the workers the chunk has cost, for its tally; ``keep``: write its files;
        ``limit``: seconds without a sign of progress.
        """
        header = {"chunk": chunk.index, "lost": lost, "keep": keep, "folder": self.folder}
        return self.exchange(header, (chunk.records, chunk.texts), limit)

    def exchange(
        self, header: dict[str, Any], batches: Sequence[Any], limit: float
    ) -> dict[str, Any]:
        """Send a message (``worker.send``): the answer, or in ``kind`` what ended the worker."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._since, self._limit = self._now, limit
        try:
            worker.send(self._process.stdin, header, batches)
            while "alive" in (answer := worker.receive(self._process.stdout))[0]:
                self._since = self._now
                if told := answer[0].get("told"):
                    logging.getLogger("edgemod").warning(told)
            return {**answer[0], "batches": answer[1]}
        except (EOFError, ValueError, OSError):
            self._process.kill()  # in case it lives and only its answer makes no sense
            return {"kind": self._end(self._process.wait())}
        finally:
            self._limit = math.inf

    def _end(self, status: int) -> str:
        if self._hung:
            return "killed because it hung"
        return f"ended by signal {-status}" if status < 0 else f"ended with status {status}"

    def stop(self) -> None:
        """End the process now and reap it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                _close(stream)


def _close(stream: IO[bytes] | None) -> None:
    if stream is not None:
        stream.close()


def _import_path() -> str:
    """PYTHONPATH for workers: what this process imports from, but for the current folder."""
    entries = sys.path if sys.flags.safe_path else sys.path[1:]
    return os.pathsep.join(path for path in (str(Path(__file__).parents[1]), *entries) if path)


def _told(answer: dict[str, Any]) -> str:
    return " ".join([str(answer["kind"]), *answer.get("places", ())])
