"""Kill a run many times and compare what it leaves with an undisturbed run, byte for byte.

    python scripts/kill_test.py dump.parquet [--kills 100] [--workers-too]

Runs ``edgemod triage`` once undisturbed, then over and over with a SIGKILL at a random instant,
until there were so many. ``--workers-too``: every second one hits a worker, and the run goes on to
meet the next. A run that comes to its end before is compared, and another begins; the last is let
to its end and compared as well. Compared is every file of OUT byte for byte, but of report.json the
fields that do not depend on time. Prints a line a kill; exit code 1 if anything differs. Takes as
long as two or three runs, and for each kill about as long as edgemod takes to start.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
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
    """Whether the killed runs came out like the undisturbed one."""
    whole, killed = folder / "whole", folder / "killed"
    command = [sys.executable, "-W", "ignore", "-m", "edgemod", "triage", str(options.input)]
    command += ["--workers", str(options.workers), "--chunk-rows", str(options.chunk_rows)]
    command += ["--model", options.model, "--keep-scores", "--progress", "none", "-o"]
    began = time.monotonic()
    undisturbed = subprocess.Popen([*command, str(whole)], stderr=subprocess.DEVNULL)
    while not parts(whole) and undisturbed.poll() is None:
        time.sleep(0.05)
    loaded = time.monotonic()  # the first run on a machine compiles the kernels before
    if undisturbed.wait():
        sys.exit("the undisturbed run failed")
    took, at_work = time.monotonic() - began, time.monotonic() - loaded
    print(f"undisturbed: {took:.1f} s, {parts(whole)} chunks")
    print(f"{'kill':>4}  {'of':6}  {'after':>8}  {'chunks':>6}  state")
    draw = random.Random(options.seed)
    process, same, done = None, True, 0
    while done < options.kills:
        of_worker = options.workers_too and done % 2 == 1
        if process is None:
            process = subprocess.Popen([*command, str(killed)], stderr=subprocess.DEVNULL)
            first = time.monotonic()
        # Some kills shall come while edgemod starts; most once it is at work.
        before = parts(killed)
        if draw.random() < 0.8:
            while parts(killed) <= before and process.poll() is None:
                time.sleep(0.005)
        time.sleep(draw.uniform(0, at_work / options.kills))
        while of_worker and not children(process.pid) and process.poll() is None:
            time.sleep(0.005)
        if process.poll() is not None:
            print(f"a run came to its end after {done} kills", flush=True)
            same &= process.returncode == 0 and compare(whole, killed)
            shutil.rmtree(killed)
            process = None
            continue
        elapsed = time.monotonic() - first
        victim = draw.choice(children(process.pid)) if of_worker else process.pid
        os.kill(victim, signal.SIGKILL)
        done += 1
        if not of_worker:
            process.wait()
            process = None
        what = "worker" if of_worker else "run"
        print(
            f"{done:4}  {what:6}  {elapsed:6.1f} s  {parts(killed):6}  {status(killed)}", flush=True
        )
    if process is not None:
        process.wait()
    subprocess.run([*command, str(killed)], check=True, stderr=subprocess.DEVNULL)
    return compare(whole, killed) and same


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
    mine, theirs = digests(whole), digests(killed)
    differ = sorted(n for n in {*mine, *theirs} if mine.get(n) != theirs.get(n))
    size = sum(p.stat().st_size for p in files(whole))
    print(f"{len(mine)} files of {size:,} bytes, {len(differ)} differ {' '.join(differ[:5])}")
    told, again = report(whole), report(killed)
    fields = sorted(n for n in {*told, *again} if told.get(n) != again.get(n))
    print(f"report.json: {len(told)} fields compared, {len(fields)} differ {' '.join(fields)}")
    same = not differ and not fields
    print("the same" if same else "NOT the same", flush=True)
    return same


def files(out: Path) -> list[Path]:
    """Every file of a run but its report, unfinished ones included."""
    return sorted(p for p in out.rglob("*") if p.is_file() and p.name != "report.json")


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of every file but the report, by its name in the folder."""
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files(out)}


def report(out: Path) -> dict[str, Any]:
    """The fields of a report that two runs must share."""
    told: dict[str, Any] = json.loads((out / "report.json").read_text())
    return {name: value for name, value in told.items() if name not in VARIES}


if __name__ == "__main__":
    main()
