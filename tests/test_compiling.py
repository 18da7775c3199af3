"""That kernels are compiled is told: once, only when it is so, and through a worker too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgemod.crew import Setup, Worker

SHORT = """
import numpy as np
from numba import njit
njit(lambda x: x)(1)  # somebody else's
print("theirs", flush=True)
from edgemod.kernels import text
text.longest(np.arange(3))
text.longest(np.arange(3))
text.longest(np.arange(3.0))
"""
WORKER = """
import logging, os, threading
from edgemod import worker
answers = os.fdopen(1, "wb")
logging.getLogger("edgemod").addHandler(worker._Told(answers, threading.Lock()))
logging.getLogger("edgemod").warning("compiling")
worker.send(answers, {"kind": "done"})
"""


def run(code: str, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
    )


def test_the_first_compilation_is_told_once_and_a_cached_kernel_is_not(tmp_path: Path) -> None:
    told = run(SHORT, tmp_path).stdout.splitlines()
    assert told[0] == "theirs"
    assert [line for line in told if "compiling kernels" in line] == told[1:]
    assert len(told) == 2
    assert run(SHORT, tmp_path).stdout.splitlines() == ["theirs"]


def test_what_a_worker_logs_is_logged_by_the_run(caplog: pytest.LogCaptureFixture) -> None:
    class Quick(Worker):
        def _begin(self) -> None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )

    worker = Quick(Setup("", None, None, None))
    try:
        assert worker.exchange({}, (), 60) == {"kind": "done", "batches": []}
    finally:
        worker.stop()
    assert caplog.messages == ["compiling"]
