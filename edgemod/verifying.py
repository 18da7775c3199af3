"""``verify()``: whether the files of a finished run are still those that it wrote.

run.json holds a SHA-256 of every file in decisions/ and review/, of the scores if they are kept
and in a shard of what work/ keeps for the merge, and the head of a hash chain over the decisions in
their order::

    head of no part  = SHA-256(the plan as JSON: keys sorted, no spaces, ASCII)
    head of k parts  = SHA-256(head of k - 1 parts || SHA-256 of part k)

So one head stands for all decisions, their order, their number, and the input, policy and models
that the plan names. A chain inside the folder proves nothing against somebody who rewrites all of
it: that takes a head that was noted elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgemod import run_folder
from edgemod.errors import InputError, RunError

_OTHERS: Final = "(review|scores|work)/[^/]+"


@dataclass(frozen=True)
class Verification:
    """What became of the files of a run; names are relative to its folder.

    ``checked``: the files that run.json names. ``altered`` holds run.json where its chain is not
    that of its digests. ``head``: the chain's, by the digests in run.json, hex. ``noted``: whether
    that is the head that was given; True if none was.
    """

    checked: int
    altered: tuple[str, ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]
    head: str
    noted: bool

    @property
    def sound(self) -> bool:
        """Whether nothing differs."""
        return self.noted and not (self.altered or self.missing or self.added)


def verify(out: str | Path, *, head: str | None = None) -> Verification:
    """Read every file that run.json names again and compare; ``head``: one noted earlier.

    Raises RunError where ``out`` holds no complete run or its run.json is damaged, InputError
    where ``head`` is not a SHA-256 in hex.
    """
    out = Path(out)
    if head is not None and not re.fullmatch("[0-9a-fA-F]{64}", head):
        raise InputError("is not a head", where="--head", fix="Give its 64 hexadecimal digits.")
    state = run_folder.finished_state(out)
    digests, noted = recorded(out, state)
    altered, missing = [], []
    for name, expected in digests.items():
        path = out / name
        if not path.exists():
            missing.append(name)
        elif not path.is_file() or digest(path) != expected:
            altered.append(name)
    there = {
        path.relative_to(out).as_posix()
        for folder in run_folder.FOLDERS
        for path in (out / folder).rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    found = _head(state["plan"], digests)
    if found != noted:
        altered.append("run.json")
    return Verification(
        checked=len(digests),
        altered=tuple(altered),
        missing=tuple(missing),
        added=tuple(sorted(there - digests.keys())),
        head=found,
        noted=head is None or head.lower() == found,
    )


def seal(
    out: Path, plan: dict[str, Any], parts: dict[str, str], queue: Sequence[str]
) -> dict[str, Any]:
    """What run.json is to say of the files of a run: ``digests`` and ``head``.

    ``parts``: names in ``out`` and digests of what its chunks have left there, the decisions in
    order; ``queue``: names in review/. Raises RunError where one cannot be read.
    """
    digests = {name: found for name, found in parts.items() if name.startswith("decisions/")}
    digests |= parts | {f"review/{name}": digest(out / "review" / name) for name in queue}
    return {"digests": digests, "head": _head(plan, digests)}


def digest(path: Path) -> str:
    """The SHA-256 of a file, hex. Raises RunError where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise RunError(
            f"cannot be read: {error.strerror or error}",
            where=str(path),
            fix="Check that it is there and that you may read it, then run the command again.",
        ) from error


def _head(plan: dict[str, Any], digests: dict[str, str]) -> str:
    canonical = json.dumps(plan, sort_keys=True, separators=(",", ":"))
    head = hashlib.sha256(canonical.encode()).digest()
    for name, one in digests.items():
        if name.startswith("decisions/"):
            head = hashlib.sha256(head + bytes.fromhex(one)).digest()
    return head.hex()


def recorded(out: Path, state: dict[str, Any]) -> tuple[dict[str, str], str]:
    """The digests and the head in run.json. Raises RunError if they are not of a run's files."""
    digests, head = state.get("digests"), state.get("head")
    expected = [f"decisions/{part.name}" for part in run_folder.parts(out, state)]
    if (
        isinstance(head, str)
        and isinstance(digests, dict)
        and [*digests][: len(expected)] == expected
        and all(re.fullmatch(_OTHERS, name) for name in [*digests][len(expected) :])
        and all(re.fullmatch("[0-9a-f]{64}", str(found)) for found in digests.values())
    ):
        return digests, head
    raise RunError(
        "holds no digests, or not those of this run's files",
        where=str(out / "run.json"),
        fix="If an earlier edgemod made the run, nothing can be verified; else put run.json back.",
    )
