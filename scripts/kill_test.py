"""Kill a run many times and compare what it leaves with an undisturbed run, byte for byte.

    python scripts/kill_test.py dump.parquet [--kills 100] [--workers-too]

Runs ``edgemod triage`` once undisturbed, then over and over with a SIGKILL after a random time
(``--workers-too``: every second time a worker is killed instead, and the run goes on), and at last
to its end. Compares every file of decisions/ and review/ and the parts of report.json that do not
depend on time. Prints a table; exit code 1 if anything differs. Takes as long as the run twice, and
for each kill about as long as edgemod takes to start.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

VARIES = (
    "seconds",
    "rates",
    "wall_seconds",
    "records_per_second",
    "peak_memory_bytes",
    "resumed_chunks",
    "workers_lost",
    "tokens",
    "windows",
)
"""Fields of the report that may differ: times, and what a chunk done twice has cost."""


def main() -> None:
    """Run, kill, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("input", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--chunk-rows", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model", default="default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers-too", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-test-") as folder:
        same = kill_test(options, Path(folder))
    sys.exit(0 if same else 1)


def kill_test(options: argparse.Namespace, folder: Path) -> bool:
    """Whether the killed run came out like the undisturbed one."""
    whole, killed = folder / "whole", folder / "killed"
    command = [sys.executable, "-W", "ignore", "-m", "edgemod", "triage", str(options.input)]
    command += ["--workers", str(options.workers), "--chunk-rows", str(options.chunk_rows)]
    command += ["--model", options.model, "--progress", "none", "-o"]
    began = time.monotonic()
    subprocess.run([*command, str(whole)], check=True, stderr=subprocess.DEVNULL)
    took = time.monotonic() - began
    chunks = len(list((whole / "decisions").iterdir()))
    print(f"undisturbed: {took:.1f} s, {chunks} chunks")
    print(f"{'kill':>4}  {'of':6}  {'after':>8}  {'chunks':>6}  state")
    draw = random.Random(options.seed)
    # A kill may come while edgemod starts; most shall come later, but the run must not end first.
    at_work = took / max(options.kills, 1)
    for number in range(1, options.kills + 1):
        process = subprocess.Popen([*command, str(killed)], stderr=subprocess.DEVNULL)
        first = time.monotonic()
        done = parts(killed)
        early = draw.random() < 0.2
        if not early:
            while parts(killed) == done and process.poll() is None:
                time.sleep(0.005)
        time.sleep(draw.uniform(0, 2 * at_work if not early else 3))
        victim = process.pid
        workers = children(process.pid)
        of_worker = options.workers_too and number % 2 == 0 and bool(workers)
        if of_worker:
            os.kill(draw.choice(workers), signal.SIGKILL)
            time.sleep(draw.uniform(0, 2 * at_work))
        elapsed = time.monotonic() - first
        ended = process.poll()
        if ended is None:
            os.kill(victim, signal.SIGKILL)
        process.wait()
        what = "worker" if of_worker else "run"
        state = "had ended" if ended is not None else status(killed)
        print(f"{number:4}  {what:6}  {elapsed:6.1f} s  {parts(killed):6}  {state}", flush=True)
        if ended == 0:
            print(f"the run was done after {number - 1} kills")
            break
        if ended is not None:
            print(f"the run ended by itself with status {ended}")
            return False
    subprocess.run([*command, str(killed)], check=True, stderr=subprocess.DEVNULL)
    return compare(whole, killed)


def parts(out: Path) -> int:
    """Chunks that are done."""
    return len(list(out.glob("decisions/part-*.parquet")))


def children(pid: int) -> list[int]:
    """The worker processes of a run."""
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def status(out: Path) -> str:
    """What run.json says, and what is half-written."""
    try:
        told = json.loads((out / "run.json").read_text())["status"]
    except OSError:
        told = "no run.json"
    partial = len(list(out.rglob("*.partial")))
    return f"{told}, {partial} unfinished" if partial else told


def compare(whole: Path, killed: Path) -> bool:
    """Print what is the same and what differs; whether all is the same."""
    same = True
    for folder in ("decisions", "review"):
        mine, theirs = digests(whole / folder), digests(killed / folder)
        differ = sorted(n for n in {*mine, *theirs} if mine.get(n) != theirs.get(n))
        print(f"{folder}/: {len(mine)} files, {len(differ)} differ {' '.join(differ[:5])}")
        same &= not differ
    mine, theirs = report(whole), report(killed)
    fields = sorted(n for n in {*mine, *theirs} if mine.get(n) != theirs.get(n))
    print(f"report.json: {len(mine)} fields compared, {len(fields)} differ {' '.join(fields)}")
    left = [str(p.relative_to(killed)) for p in killed.rglob("*.partial")]
    print(f"unfinished files left: {len(left)} {' '.join(left)}")
    same &= not fields and not left
    print("the same" if same else "NOT the same")
    return same


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, by name."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def report(out: Path) -> dict[str, Any]:
    """The fields of a report that two runs must share."""
    told: dict[str, Any] = json.loads((out / "report.json").read_text())
    return {name: value for name, value in told.items() if name not in VARIES}


if __name__ == "__main__":
    main()
