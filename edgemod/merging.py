"""``merge()``: the folders of all shards of a run to the folder of the whole run.

A shard keeps the tallies and review rows of its chunks, so nothing is decided again: the decisions
get a second name, and queue and report are made from all chunks as an unsharded run makes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemod import encryption, parts, review, run_folder, shards, verifying, worker
from edgemod.errors import InputError, RunError
from edgemod.report import RunReport
from edgemod.tally import Tally
from edgemod.worker import code_version


def merge(folders: Sequence[str | Path], out: str | Path, *, restart: bool = False) -> RunReport:
    """Put the complete shards of one run, in any order, together in ``out``; return the report.

    Decisions and review queue are those of the run without ``--shard``, byte by byte; a review
    budget holds over all. Shards are only read; on the same disk their decisions are shared by
    hard links. The same call goes on after a kill, and returns the report of a complete merge.
    ``restart``: throw an earlier run in ``out`` away.

    Raises RunError where shards are missing, doubled, incomplete or of another plan or version,
    or ``out`` holds another run; InputError where it is one of them, or another key is in use
    than theirs; OutputError where it cannot be written.
    """
    out = Path(out)
    found = _in_order([Path(folder) for folder in folders])
    if out.resolve() in [folder.resolve() for folder in found]:
        raise InputError("is one of the shards", where=str(out), fix="Name another folder with -o.")
    document = _document(found[0])
    encryption.check_run(document["plan"], str(found[0]), plain=False)
    with run_folder.locked(out):
        finished = run_folder.open_run(out, document, restart)
        if finished is not None:
            return finished
        plan = document["plan"]
        for name in ("decisions", *(["scores"] if plan["keep_scores"] else [])):
            run_folder.empty(out / name)
        total, cost, queued, crashed = Tally(), _Cost(), [], []
        count, digests = 0, {}
        for folder in found:
            told = run_folder.read_report(folder)
            cost.add(told)
            crashed += told.quarantined
            for index, tally, theirs in _chunks(folder):
                for path in run_folder.kept(folder, plan, index, tally):
                    placed = out / path.parent.name / worker.part_name(count)
                    parts.place(path, placed)
                    digests[str(placed.relative_to(out))] = theirs[path]
                if tally.reviews:
                    queued.append(worker.files(folder, index)[0])
                total.add(tally)
                count += 1
        queue = review.export(
            queued, out / "review", format=plan["review_format"], budget=plan["review_budget"]
        )
        report = RunReport.of(
            tally=total,
            session_records=total.records,
            queue=queue,
            identity=plan,
            note=document["calibration_note"],
            certificate=document["certificate"],
            workers=cost.sums["workers"],
            files=len(document["inputs"]),
            wall_seconds=cost.greatest["wall_seconds"],
            resumed_chunks=cost.resumed_chunks,
            peak_bytes=cost.greatest["peak_memory_bytes"],
            quarantined=crashed,
            shards=cost.to_json(),
        )
        sealed = verifying.seal(out, plan, digests, queue.files)
        run_folder.finish(out, document, report, count, sealed)
        return report


@dataclass
class _Cost:
    """What the shards cost: sums and maxima of what their reports say."""

    count: int = 0
    resumed_chunks: int = 0
    sums: dict[str, Any] = field(default_factory=dict)
    greatest: dict[str, Any] = field(default_factory=dict)

    def add(self, report: RunReport) -> None:
        self.count += 1
        self.resumed_chunks += report.resumed_chunks
        for name in ("wall_seconds", "workers", "peak_memory_bytes"):
            value = getattr(report, name)
            self.sums[name] = self.sums.get(name, 0) + value
            self.greatest[name] = max(self.greatest.get(name, 0), value)

    def to_json(self) -> dict[str, Any]:
        told = {"count": self.count}
        for name, value in self.sums.items():
            told[f"{name}_sum"], told[f"{name}_max"] = round(value, 3), self.greatest[name]
        return told


def _in_order(folders: Sequence[Path]) -> list[Path]:
    """The folders by the number of their shard, if they are all the shards of one run.

    Raises one RunError that names everything that is wrong. Holds one run.json at a time, and the
    plan of the first.
    """
    if not folders:
        raise InputError("there is no shard", where="merge", fix="Name the OUT of every shard.")
    problems, plan, count = [], None, 0
    placed: dict[int, Path] = {}
    for folder in folders:
        try:
            mine = run_folder.finished_state(folder)["plan"]
        except RunError as error:
            problems.append(f"{folder}: {error.what}")
            continue
        shard = mine.pop("shard", None)
        if shard is None:
            problems.append(f"{folder}: is a whole run, not a shard")
            continue
        number, of = shards.parse(shard)
        if plan is None:
            plan, count = mine, of
            if mine["code"] != code_version():
                problems.append(
                    f"{folder}: was made by edgemod {mine['code']}, this is {code_version()}"
                )
        if changed := run_folder.changes(plan, mine):
            problems.append(f"{folder}: is of another run; differs in: {', '.join(changed)}")
        elif of != count:
            problems.append(f"{folder}: is shard {shard}, where others are of {count}")
        elif number in placed:
            problems.append(f"{folder}: is shard {shard}, as {placed[number]} is")
        else:
            placed[number] = folder
    missing = [shards.name(k, count) for k in range(1, count + 1) if k not in placed]
    if missing:
        problems.append(f"missing: shard {', '.join(missing)}")
    if problems:
        raise RunError(
            "\n  ".join(("these are not all shards of one run, each once:", *problems)),
            fix="Name the OUT of every shard once, each made by the same command but for --shard "
            "and -o, and complete.",
        )
    return [placed[number] for number in sorted(placed)]


def _document(shard: Path) -> dict[str, Any]:
    """What run.json says of the whole run, by that of its first shard."""
    state = run_folder.finished_state(shard)
    kept = ("plan", "inputs", "rows", "made_with", "calibration_note", "certificate")
    whole = {"plan": {**state["plan"], "shard": None}, "rows": [0, None]}
    return {name: {**state, **whole}[name] for name in kept}


def _chunks(folder: Path) -> Iterator[tuple[int, Tally, dict[Path, str]]]:
    """Number and tally of each chunk of a shard, and the digests of its files.

    Raises RunError for the first file that is gone, or not the one that the shard wrote.
    """
    state = run_folder.finished_state(folder)
    recorded, _ = verifying.recorded(folder, state)

    def checked(path: Path) -> str:
        name = str(path.relative_to(folder))
        if not path.is_file() or (found := verifying.digest(path)) != recorded.get(name):
            raise RunError(
                f"is missing, or not the file that shard {state['plan']['shard']} wrote",
                where=str(path),
                fix="Put it back as it was, or run that shard again with --restart.",
            )
        return found

    first = run_folder.first_chunk(state)
    for index in range(first, first + state["chunks"]):
        numbers = worker.files(folder, index)[1]
        checked(numbers)
        tally = Tally.from_json(json.loads(numbers.read_bytes()))
        kept = run_folder.kept(folder, state["plan"], index, tally)
        yield index, tally, {path: checked(path) for path in kept}
