"""``edgemod doctor``: is everything here that edgemod needs, undamaged, and offline?"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from edgemod import __version__
from edgemod.errors import EdgemodError
from edgemod.words import counted

PACKAGES: Final = (
    "llama-cpp-python",
    "numpy",
    "numba",
    "pyarrow",
    "click",
    "rich",
    "safetensors",
    "py3langid",
)


@dataclass(frozen=True)
class Finding:
    """One check: ``ok`` false where something edgemod needs is missing or damaged."""

    name: str
    ok: bool
    detail: str


def run() -> list[Finding]:
    """Every check, in order. What a check cannot do, for want of a part, is its finding."""
    return [
        Finding("edgemod", True, f"{__version__} on Python {platform.python_version()}"),
        *map(_package, PACKAGES),
        *_found("processor", _processor),
        *_found("memory", _memory),
        *_found("models", _models),
        *_found("offline", _offline),
        *_found("network guard", _guard),
    ]


def _found(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    # A library that is there but cannot be loaded raises OSError or RuntimeError.
    try:
        return check()
    except (EdgemodError, ImportError, OSError, RuntimeError) as error:
        return [Finding(name, False, str(error))]


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, f"not installed: pip install {name}")


def _processor() -> list[Finding]:
    from edgemod.machine import usable_cores

    known = ("avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "neon", "sve")
    try:
        flags = (
            Path("/proc/cpuinfo").read_text().split("flags\t\t:", 1)[1].split("\n", 1)[0].split()
        )
    except (OSError, IndexError):
        flags = []
    found = " ".join(flag for flag in known if flag in flags) or "features unknown"
    return [
        Finding(
            "processor",
            True,
            f"{platform.machine()}, {counted(usable_cores(), 'usable core')}, {found}",
        )
    ]


def _memory() -> list[Finding]:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return [Finding("memory", True, "unknown")]
    return [
        Finding(
            "memory",
            total > 2e9,
            f"{total / 1e9:.1f} GB; a run with two workers needs about 1.5 GB",
        )
    ]


def _models() -> list[Finding]:
    from edgemod import store

    def model(entry: store.ModelEntry) -> list[Finding]:
        name = f"model {entry.name}"
        if not entry.present:
            return [Finding(name, entry.name != "default", "not installed")]
        store.verify(entry)
        digests = ", ".join(digest[:12] for _, digest in entry.files)
        return [Finding(name, True, f"SHA-256 {digests}, as recorded")]

    return [
        finding
        for entry in store.list_models()
        for finding in _found(f"model {entry.name}", partial(model, entry))
    ]


def _offline() -> list[Finding]:
    """Score one sentence with the default models and count attempts to reach a network."""
    attempts = []

    def watch(event: str, _: object) -> None:
        if event in {"socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request"}:
            attempts.append(event)

    sys.addaudithook(watch)
    from edgemod.scoring import score

    verdict = score(["a short harmless sentence about the weather"])[0].verdict
    told = counted(len(attempts), "attempt")
    detail = f"scored a sentence ({verdict}) with {told} to reach a network"
    return [Finding("offline", not attempts, detail)]


def _guard() -> list[Finding]:
    """Ask for a socket of the internet, in native code, in a process kept as workers are."""
    child = "from edgemod import offline\nprint(offline.guard(), offline.answer(), sep='\\n')\n"
    told = subprocess.run(
        [sys.executable, "-P", "-c", child],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    guard, answer = told.stdout.splitlines() or ("none", "no answer")
    if guard == "seccomp":
        told_of = f"in a worker process the kernel answers {answer} to an internet socket"
        return [Finding("network guard", answer == "EACCES", f"{told_of} (seccomp)")]
    here = "no kernel filter here: Python alone keeps worker processes off the network"
    return [Finding("network guard", guard == "audit hook", here)]
