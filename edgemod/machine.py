"""What this process may use of the machine: cores, memory, and how many workers fit into them."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from edgemod import store
from edgemod.errors import InputError
from edgemod.records import CHUNK_BYTES

# Greatest resident memory measured (x86-64, Python 3.11, pyarrow 26), bytes. A worker without a
# language model that has read short texts: 358 MB; with a chunk of 16 MB: 110 MB more. With the
# shipped encoder of 22 MB 40 MB more, with a guard of 103 MB 206 MB more. The parent of one worker
# with chunks of 16 MB: 460 MB; it holds those in flight twice, as columns and as a message.
WORKER_BYTES: Final = 360 * 10**6
"""Interpreter, libraries, kernels, filter and word lists of one worker."""
PARENT_BYTES: Final = 370 * 10**6
"""The parent, while it reads and writes the review queue."""
MODEL_COPIES: Final = 2
"""A model's files as they are, and what llama.cpp makes of them to compute with."""
_CHUNK_COPIES: Final = (7, 2)  # of one in a worker, of one in flight in the parent
_SPARE_CHUNKS: Final = 2  # in flight beside one for each worker

_UNITS: Final = ("", "K", "M", "G", "T")
_NO_LIMIT: Final = 1 << 60  # version 1 has no word for it, but a number near 2**63


def workers(asked: int | None, max_memory: str | int | None, model: str | None) -> int:
    """How many workers a run gets.

    As many as ``asked``, by default one for each usable core, and as many of these as the memory
    limit of this process leaves room for, but one at least. With ``max_memory`` (bytes, or as
    ``size`` reads it) no more than are expected to stay below it: then InputError where not even
    one does. ``model``: as ``triage`` takes it.
    """
    each = model_bytes(model)
    count = asked
    if count is None:
        count = min(usable_cores(), max(_room(memory_limit(), each), 1))
    if max_memory is None:
        return count
    limit = size(max_memory) if isinstance(max_memory, str) else max_memory
    room = _room(limit, each)
    if room < 1:
        raise InputError(
            f"{limit / 1e9:.2f} GB is too little: a run with one worker is expected to take "
            f"{expected_bytes(1, each) / 1e9:.2f} GB",
            where="--max-memory",
            fix="Give it more, or --model none, which takes "
            f"{expected_bytes(1, 0) / 1e9:.2f} GB with one worker.",
        )
    return min(count, room)


def expected_bytes(workers: int, model: int) -> int:
    """The greatest resident memory that a run is expected to take, all processes added up, bytes.

    ``model``: ``model_bytes``. For chunks as large as they get; those of short texts take less.
    """
    worker, parent = _shares(model)
    return worker * workers + parent


def model_bytes(model: str | None) -> int:
    """The bytes of a model's files; 0 for none, and for one that is not there."""
    if model is None:
        return 0
    files = [
        path for entry in store.list_models() if entry.name == model for path, _ in entry.files
    ]
    return sum(path.stat().st_size for path in files or [Path(model)] if path.is_file())


def size(text: str) -> int:
    """Read a size as bytes: 4GB, 1.5G, 800MB (powers of 1000), 4GiB (of 1024), or a plain number.

    Raises InputError for anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)(I?)B?", text.strip().upper())
    if not found or (found[3] and not found[2]):
        raise InputError(
            f'"{text}" is not a size', where="--max-memory", fix="Say it like 4GB or 800MB."
        )
    return int(float(found[1]) * (1024 if found[3] else 1000) ** _UNITS.index(found[2]))


def usable_cores(root: Path = Path("/")) -> int:
    """Cores this process may use: those it may run on, or its quota of time on them if less.

    Of a quota a part of a core counts as one. ``root``: where /proc and /sys are.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quotas = []
    for group in _groups(root, "cpu"):
        if (found := _read(group / "cpu.max")) is not None:
            quota, period = [*(found or "max").split(), "100000"][:2]
        else:
            quota = _read(group / "cpu.cfs_quota_us") or "max"
            period = _read(group / "cpu.cfs_period_us") or "100000"
        if quota.isdecimal() and period.isdecimal() and int(period):
            quotas.append(max(math.ceil(int(quota) / int(period)), 1))
    return min(cores, *quotas) if quotas else cores


def memory_limit(root: Path = Path("/")) -> int:
    """The most memory this process and its workers may take, bytes: its limit, or all there is."""
    limits = []
    for group in _groups(root, "memory"):
        found = _read(group / "memory.max") or _read(group / "memory.limit_in_bytes") or "max"
        if found.isdecimal():
            limits.append(int(found))
    with contextlib.suppress(OSError, ValueError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=_NO_LIMIT)


def _shares(model: int) -> tuple[int, int]:
    """What each worker adds to the expected memory, and what is there without any, bytes."""
    in_worker, in_flight = (copies * CHUNK_BYTES for copies in _CHUNK_COPIES)
    return (
        WORKER_BYTES + MODEL_COPIES * model + in_worker + in_flight,
        PARENT_BYTES + _SPARE_CHUNKS * in_flight,
    )


def _room(limit: int, model: int) -> int:
    """The most workers that are expected to stay within so many bytes; below 1: none does."""
    worker, parent = _shares(model)
    return (limit - parent) // worker


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the control groups that this process is in, the innermost first.

    Version 2 has one tree; in version 1 a controller has a tree of its own. A mount may show only
    a part of a tree, as in a container: then the mount is the innermost group that can be read.
    """
    member = {}
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        number, controllers, path = line.split(":", 2)
        for name in controllers.split(",") if number != "0" else [""]:
            member[name] = PurePosixPath(path)
    for line in (_read(root / "proc/self/mountinfo") or "").splitlines():
        about, _, kind = line.partition(" - ")
        shown, mounted = about.split()[3:5]
        words = kind.split()  # the file system first, its options last
        tree = {"cgroup2": "", "cgroup": controller}.get(words[0])
        if tree is None or tree not in member or (tree and tree not in words[-1].split(",")):
            continue
        group = member[tree]
        inner = PurePosixPath()
        if group.is_relative_to(shown) and ".." not in group.parts:
            inner = group.relative_to(shown)
        for part in (inner, *inner.parents):
            yield root / mounted.lstrip("/") / part


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeError):
        return None
