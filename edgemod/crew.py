"""The parent's side of the worker processes: start them, ask them, replace those that die."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, Final

from edgemod import errors, worker
from edgemod.errors import RunError
from edgemod.records import Chunk
from edgemod.tally import Tally

EFFORTS: Final = ("all", "all", "filter", "nothing")
"""Attempts at one chunk, each in a fresh worker: a death may be chance, or a text's doing. The
last scores nothing, so that the chunk's records reach review and the run goes on."""


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


class Crew:
    """The worker processes of a run: started when first needed, replaced when they die."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        self._all: list[Worker] = []
        self._lock = threading.Lock()
        self._stopped = False
        self._first: Worker | None = None
        self._peaks: dict[Worker, int] = {}

    def first(self) -> Worker:
        """The first worker, which also tells the fingerprints of what it loaded."""
        if self._first is None:
            self._first = self._start()
            self._idle.put(self._first)
        return self._first

    def _start(self) -> Worker:
        with self._lock:
            if self._stopped:
                raise RunError("the run was stopped")
            made = Worker(self._setup)
            self._all.append(made)
        made.wait_ready()
        if self._first is not None and made.fingerprints != self._first.fingerprints:
            raise RunError(
                "the policy or a model changed while the run was going on",
                where=self._setup.out,
                fix="Run the command again; use --restart to begin anew with the new ones.",
            )
        return made

    def _take(self) -> Worker:
        """An idle worker or a new one; never more than there are threads that ask."""
        try:
            return self._idle.get_nowait()
        except Empty:
            return self._start()

    def triage(self, chunk: Chunk) -> Tally:
        """One chunk, with less effort each time its worker dies or fails; see ``EFFORTS``."""
        current = self._take()
        for effort in EFFORTS:
            answer = current.ask(chunk, effort)
            if "tally" in answer:
                self._peaks[current] = answer["peak_bytes"]
                self._idle.put(current)
                return Tally.from_json(answer["tally"])
            if answer["kind"] == "OutputError":  # trying again would not make room
                raise errors.from_json(answer)
            current.stop()
            current = self._start()
        raise RunError(
            f"chunk {chunk.index} cannot be written: {_told(answer)}",
            where=self._setup.out,
            fix="Everything before it is kept. Please report this with the places named above.",
        )

    def peak_bytes(self) -> int:
        """The sum of the workers' greatest resident memory, bytes (shared pages counted twice)."""
        return sum(self._peaks.values())

    def at_work(self) -> int:
        """How many workers have done a chunk, those that died since included."""
        return len(self._peaks)

    def stop(self) -> None:
        """End every worker at once. Parts are atomic, so nothing half-written remains."""
        with self._lock:
            self._stopped = True
            for one in self._all:
                one.stop()


class Worker:
    """One worker process and the conversation with it."""

    def __init__(self, setup: Setup) -> None:
        self._process = subprocess.Popen(
            # -P: a worker must not import what happens to lie in the current folder.
            [sys.executable, "-P", "-m", "edgemod.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": _import_path()},
        )
        self._setup = setup
        self.fingerprints: dict[str, str] = {}
        self.note = ""
        self.certificate: dict[str, Any] | None = None
        self.max_text_bytes = 0

    def wait_ready(self) -> None:
        """Load the models; raises the error the worker met."""
        answer = self._exchange(asdict(self._setup), ())
        if "fingerprints" not in answer:
            raise (
                errors.from_json(answer)
                if "state" in answer
                else RunError(
                    f"a worker process could not start: {_told(answer)}",
                    where="edgemod.worker",
                    fix="Run 'edgemod doctor' to see what is missing.",
                )
            )
        self.fingerprints, self.note = answer["fingerprints"], answer["note"]
        self.max_text_bytes = answer["max_text_bytes"]
        self.certificate = answer["certificate"]

    def ask(self, chunk: Chunk, effort: str) -> dict[str, Any]:
        """Triage one chunk: the worker's answer, or what is known of its death."""
        header = {"chunk": chunk.index, "effort": effort}
        return self._exchange(header, (chunk.records, chunk.texts))

    def _exchange(self, header: dict[str, Any], batches: Sequence[Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            worker.send(self._process.stdin, header, batches)
            return worker.receive(self._process.stdout)[0]
        except (EOFError, ValueError, OSError):
            self._process.kill()  # in case it lives and only its answer makes no sense
            return {"kind": f"the worker process ended with status {self._process.wait()}"}

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
