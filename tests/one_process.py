"""A crew for tests of what is around it."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import numpy.typing as npt

from edgemod import encryption, worker
from edgemod.crew import Setup
from edgemod.records import Chunk
from edgemod.tally import Tally
from edgemod.triager import Triager


class OneProcess:
    """A crew of one worker in this process: as the real one, but for its start."""

    triager: Triager

    def __init__(self, setup: Setup, stall_seconds: float) -> None:
        self._setup = asdict(setup)

    def first(self) -> Any:
        calibration = self.triager.calibration
        return SimpleNamespace(
            fingerprints={
                **self.triager.fingerprints(),
                "encryption": encryption.fingerprint(),
            },
            note=calibration.note,
            certificate=calibration.certificate,
            max_text_bytes=self.triager.policy.max_text_bytes,
        )

    def triage(self, chunk: Chunk) -> Tally:
        header = {"keep": True, "lost": {}}
        told = worker._triage(self.triager, chunk, self._setup, header, os.getppid())
        return Tally.from_json(json.loads(json.dumps(told)))

    def peak_bytes(self) -> int:
        return 1000

    def at_work(self) -> int:
        return 1

    def stop(self) -> None:
        pass


class MeasuringHere:
    """A crew that measures in this process, with the models that it is asked for."""

    def __init__(self, setup: Setup, stall_seconds: float) -> None:
        self._measure = setup.measure
        self._triager = Triager(setup.policy, setup.model, calibration=setup.calibration)
        self._turn = threading.Lock()

    def first(self) -> Any:
        return SimpleNamespace(
            max_text_bytes=self._triager.policy.max_text_bytes,
            fingerprints=self._triager.fingerprints(),
        )

    def measure(self, chunk: Chunk) -> tuple[dict[str, npt.NDArray[Any]], Chunk]:
        with self._turn:
            found = worker.measured(self._triager, chunk, self._measure)
        return worker.unpacked(worker.packed(found)), chunk

    def stop(self) -> None:
        with self._turn:
            self._triager.close()
