"""A crew for tests of what is around it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

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
