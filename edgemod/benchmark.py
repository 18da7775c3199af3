"""``edgemod bench``: how fast this machine triages a sample of the user's own records.

The sample is written to a temporary folder in the format of the input, and every figure is
measured on that file: whole runs by ``triage`` itself, at several numbers of workers, then each
stage alone (stage_times.py). No result holds text.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from edgemod import checkup, encryption, formats, machine, pipeline, records, worker
from edgemod.errors import InputError
from edgemod.figures import CLOSE, FORMAT, Benchmark, Figure
from edgemod.parts import write_part
from edgemod.records import Columns, Source
from edgemod.report import RunReport
from edgemod.words import counted

SAMPLE_RECORDS: Final = 1000
REPEATS: Final = 2
MEMORY_SHARE: Final = 0.8
"""Share of the machine's memory that a run may take at its peak."""

_CHUNKS_A_WORKER: Final = 8
_LEAST_CHUNK: Final = 32
_LADDER: Final = tuple(sorted(step << k for step in (2, 3) for k in range(9)))
_BUSY: Final = 0.5  # processes that are ready to run, for each core
_POWERCAP: Final = Path("/sys/class/powercap")
_ROLES: Final = ("id", "thread", "author", "time", "context")

Draw = Literal["first", "spread"]


def bench(
    source: str | Path,
    *,
    text: str | Sequence[str] = (),
    conversation: str | None = None,
    policy: str | Path | None = None,
    model: str | None = "default",
    calibration: str | Path | None = None,
    sample: int = SAMPLE_RECORDS,
    draw: Draw = "first",
    workers: Sequence[int] = (),
    repeats: int = REPEATS,
    on_step: Callable[[str], None] | None = None,
) -> Benchmark:
    """Measure this machine on ``sample`` records of ``source``, a file, folder or glob.

    ``draw``: its first records, or records spread evenly over it, which reads all of it. The
    columns and models are chosen as in ``edgemod.triage``. ``workers``: the numbers to try, none
    for several up to the usable cores. ``on_step`` is told what is measured next.

    Every rate is the best of ``repeats``, or of more where a step is short; the numbers of workers
    take turns. What it writes is gone when it returns or raises. Raises InputError where no record
    can be scored, and what ``triage`` raises.
    """
    if min((sample, repeats, *workers)) < 1:
        raise InputError("a number of records, repeats or workers is below 1")
    found = records.discover([source])
    columns = records.resolve_columns(
        found, text=(text,) if isinstance(text, str) else tuple(text), conversation=conversation
    )
    say = on_step or (lambda _: None)
    busy = _busy()
    counts = tuple(sorted({*workers})) or worker_counts(machine.usable_cores())
    models = {"policy": policy, "model": model, "calibration": calibration}
    with tempfile.TemporaryDirectory(prefix="edgemod-bench-") as temporary:
        folder = Path(temporary)
        say("drawing the sample")
        file, names, drawn = _draw(found, columns, sample, draw, folder)
        roles = {role: name for role in _ROLES if (name := getattr(columns, role)) in names}
        named = {"text": columns.text, "conversation": columns.conversation, **roles}
        rows = _chunk_rows(drawn, counts)
        whole = _whole(file, folder, {**named, **models}, counts, rows, repeats, say)
        # Imported only now: this process counts to the memory of a run, and was small until here.
        from edgemod import stage_times

        stages = stage_times.measure(file, folder, named, models, repeats, say)
    advised, why = _advise(whole.rates, whole.peaks, machine.memory_limit())
    notes = (*columns.notices, *busy, *whole.notes, *stages.notes)
    return Benchmark(
        format=FORMAT,
        edgemod=worker.code_version(),
        machine=_machine(),
        packages={name: _version(name) for name in checkup.PACKAGES},
        fingerprints=stages.fingerprints,
        sample={**stages.sample, "draw": draw},
        options={
            "records": sample,
            "repeats": repeats,
            "workers": list(counts),
            "chunk_rows": rows,
        },
        figures=(*stages.figures, *whole.figures),
        energy=whole.energy,
        workers=advised,
        why=why,
        notes=notes,
    )


def worker_counts(cores: int) -> tuple[int, ...]:
    """The numbers of workers to try on so many cores: 1, 2, 3, 4, 6, 8, 12, ..., and all."""
    return tuple(sorted({1, *(n for n in _LADDER if n < cores), cores}))


# -- the sample ----------------------------------------------------------------------------------


def _draw(
    sources: Sequence[Source], columns: Columns, n: int, draw: Draw, folder: Path
) -> tuple[Path, list[str], int]:
    """Write n records, columns in use alone, in the input's format: the file, columns, rows."""
    names = [*columns.text, columns.conversation, *(getattr(columns, role) for role in _ROLES)]
    wanted = [name for name in dict.fromkeys(names) if name]
    spare = [name for name in wanted if name not in (*columns.text, columns.conversation)]
    chosen = None
    if draw == "spread":
        total = sum(
            sum(run.count for run in formats.rows(source, wanted, 0, spare))
            if source.rows is None
            else source.rows
            for source in sources
        )
        chosen = np.unique(np.linspace(0, max(total - 1, 0), n).astype(np.int64))
    batches = [batch for batch in _batches(sources, wanted, spare, n, chosen) if batch.num_rows]
    if not batches:
        raise InputError("there is no record to measure on", where=sources[0].path)
    try:
        table = pa.concat_tables(map(_table, batches), promote_options="permissive")
    except pa.ArrowException as error:
        fix = "Measure on one of the files."
        raise InputError("a column has different types in the files", fix=fix) from error
    # What was encrypted stays so.
    form = "parquet" if encryption.key_file() else sources[0].format
    file = folder / f"sample.{form}"
    if form == "parquet":
        write_part(table, file)
    elif form == "csv":
        pa_csv.write_csv(table, file)
    else:
        with file.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row, default=str) + "\n" for row in table.to_pylist())
    return file, table.column_names, table.num_rows


def _batches(
    sources: Sequence[Source],
    wanted: Sequence[str],
    spare: Sequence[str],
    n: int,
    chosen: NDArray[np.int64] | None,
) -> Iterator[pa.RecordBatch]:
    """The first n rows of all sources end to end, or those ``chosen``; lost rows left out."""
    before = taken = 0
    for source in sources:
        count = 0
        for run in formats.rows(source, wanted, 0, spare):
            count = run.first + run.count
            if run.batch is None:
                continue
            if chosen is None:
                yield run.batch.slice(0, n - taken)
                taken += min(run.count, n - taken)
                if taken == n:
                    return
            else:
                low, high = np.searchsorted(chosen, (before + run.first, before + count))
                yield run.batch.take(pa.array(chosen[low:high] - before - run.first))
        before += count


def _table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch]).replace_schema_metadata(None)


# -- whole runs ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Whole:
    figures: list[Figure]
    rates: dict[int, float]
    peaks: dict[int, int]
    energy: str
    notes: list[str]


def _whole(
    file: Path,
    folder: Path,
    asked: Mapping[str, Any],
    counts: Sequence[int],
    rows: int,
    repeats: int,
    say: Callable[[str], None],
) -> _Whole:
    """``triage`` of the sample in chunks of so many rows, at each number of workers by turns."""
    rates: dict[int, list[float]] = {n: [] for n in counts}
    peaks: dict[int, int] = dict.fromkeys(counts, 0)
    joules: dict[int, list[float]] = {n: [] for n in counts}
    short: set[int] = set()
    report: RunReport | None = None
    energy = ""
    for turn, n in itertools.product(range(repeats), counts):
        say(f"whole runs: {counted(n, 'worker')}, {turn + 1} of {repeats}")
        events: list[pipeline.Progress] = []
        out = folder / "out"
        before, energy = read_energy()
        report = pipeline.triage(
            file, out, workers=n, chunk_rows=rows, on_progress=events.append, **asked
        )
        after, _ = read_energy()
        shutil.rmtree(out)
        rate = steady(events, n)
        if rate is None:
            short.add(n)
            rate = report.records_per_second
        rates[n].append(rate)
        peaks[n] = max(peaks[n], report.peak_memory_bytes)
        if before and after:
            joules[n].append(used(before, after) / report.records * 1000)
    assert report is not None
    figures = []
    for n in counts:
        step = counted(n, "worker")
        figures += [
            Figure("whole", step, "records/s", max(rates[n]), "machine", "best", repeats),
            Figure("whole", step, "bytes at peak", peaks[n], "machine", "greatest", repeats),
        ]
        if joules[n]:
            value, unit = min(joules[n]), "joules a thousand records"
            figures.append(Figure("whole", step, unit, value, "machine", "best", repeats))
    total = report.records
    for step, value in (
        ("settled by the filter", report.stages.get("filter", 0) / total),
        ("settled without a person", report.coverage),
    ):
        figures.append(Figure("whole", step, "share of records", value, "record", "share", total))
    notes = []
    if short:
        told = ", ".join(map(str, sorted(short)))
        notes.append(
            f"too few records to tell the rate with {told} workers apart from their start: take "
            f"{4 * _CHUNKS_A_WORKER * _LEAST_CHUNK * max(short):,} records for these"
        )
    return _Whole(figures, {n: max(rates[n]) for n in counts}, peaks, energy, notes)


def _chunk_rows(drawn: int, counts: Sequence[int]) -> int:
    """Records a chunk, so that each of the most workers has several."""
    rows = drawn // (_CHUNKS_A_WORKER * max(counts))
    return min(max(rows, _LEAST_CHUNK), pipeline.CHUNK_ROWS)


def steady(events: Sequence[pipeline.Progress], workers: int) -> float | None:
    """Records a second while all ``workers`` were at work; None where that was too short to tell.

    From the first chunk by which each had done one, to the last after which each has another: to
    start a worker takes seconds, which a sample feels and a dump does not.
    """
    first = next((i for i, event in enumerate(events) if event.workers >= workers), len(events))
    last = len(events) - workers
    if last - first < workers or events[last].seconds <= events[first].seconds:
        return None
    seconds = events[last].seconds - events[first].seconds
    return (events[last].records - events[first].records) / seconds


def _advise(
    rates: Mapping[int, float], peaks: Mapping[int, int], memory: int | None
) -> tuple[int, str]:
    """The smallest number of workers that is as good as the fastest, of those that fit; and why."""
    fits = [n for n in rates if memory is None or peaks[n] <= MEMORY_SHARE * memory]
    if not fits:
        n = min(rates)
        return n, f"even {n} took more than {MEMORY_SHARE:.0%} of the memory at its peak"
    fastest = max(rates[n] for n in fits)
    n = min(n for n in fits if rates[n] >= (1 - CLOSE) * fastest)
    why = (
        f"the smallest number within {CLOSE:.0%} of the fastest ({rates[n]:,.0f} of "
        f"{fastest:,.0f} records/s), with {peaks[n] / 1e9:.2f} GB at its peak"
    )
    if memory is not None:
        why += f" of {memory / 1e9:.1f}"
    if len(fits) < len(rates):
        why += f"; {min(set(rates) - set(fits))} and more take too much memory"
    return n, why


def read_energy(root: Path = _POWERCAP) -> tuple[dict[str, tuple[int, int]], str]:
    """Energy counters of the processor packages: {zone: (microjoules, where it wraps)}.

    And, where there are none, why not. RAPL counts all that runs on the machine. See
    https://docs.kernel.org/power/powercap/powercap.html.
    """
    zones = {}
    try:
        for zone in sorted(root.glob("intel-rapl:*")):
            if zone.name.count(":") == 1:  # a package; its parts have two
                counter, wrap = (
                    int((zone / name).read_text()) for name in ("energy_uj", "max_energy_range_uj")
                )
                zones[zone.name] = counter, wrap
    except (OSError, ValueError) as error:
        return {}, f"not readable: {getattr(error, 'strerror', None) or 'not a number'}"
    return zones, "" if zones else "not readable: this machine shows no RAPL counters"


def used(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> float:
    """Joules between two readings of ``read_energy``; a counter may have wrapped once."""
    pairs = ((after[zone][0] - start, wrap) for zone, (start, wrap) in before.items())
    return sum(spent + wrap * (spent < 0) for spent, wrap in pairs) / 1e6


# -- the machine ---------------------------------------------------------------------------------


def _machine() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": machine.usable_cores(),
        "memory_bytes": machine.memory_limit(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _busy() -> list[str]:
    """A note where other programs are taking the processor."""
    try:
        load = os.getloadavg()[0]
    except OSError:
        return []
    if load < _BUSY * machine.usable_cores():
        return []
    return [f"the machine was busy (load {load:.1f}): it is faster than these figures when idle"]


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"
