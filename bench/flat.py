"""Whether a run is as fast, and as small, at its end as at its beginning.

    python bench/flat.py 1000000 --source posts.parquet --text-column body
    python bench/flat.py 20000000

Triages so many records, those of a Parquet file again and again with an edit each, so that none is
a duplicate, or without a file comments made of common words; without the language model unless
--model says otherwise. The table has, for each tenth of the run, records a second and the resident
memory of all its processes at the end of that tenth. At 20 million records the input takes 1 GB of
disk in the temporary folder, the decisions 2 GB; both are removed.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import edgemod
from edgemod.pipeline import Progress

TENTHS = 10
BATCH = 100_000
WORDS = [
    "the", "a", "this", "that", "we", "you", "they", "it", "is", "was", "are", "were", "will",
    "can", "go", "went", "see", "saw", "make", "made", "game", "team", "film", "song", "day",
    "night", "week", "good", "bad", "new", "old", "great", "long", "short", "well", "really",
    "never", "always", "maybe", "why", "how", "what", "when", "people", "friend", "house", "city",
    "work", "money", "time", "thing", "idea", "plan", "love",
    "thanks", "please", "sorry", "agree", "wrong", "right", "left", "first", "last", "next",
    "more", "less",
]  # fmt: skip


def repeated(source: Path, text: str) -> Iterator[list[str]]:
    """The texts of a file for ever, in batches, each with the number of its round."""
    for turn in itertools.count():
        for batch in pq.ParquetFile(source).iter_batches(batch_size=BATCH, columns=[text]):
            yield [f"{value or ''} ({turn})" for value in batch.column(0).to_pylist()]


def made() -> Iterator[list[str]]:
    """Comments of 4 to 20 common words, in batches, for ever the same ones."""
    random = np.random.default_rng(0)
    for first in itertools.count(0, BATCH):
        sizes = random.integers(4, 21, BATCH)
        words = np.array(WORDS)[random.integers(0, len(WORDS), sizes.sum())].tolist()
        ends = np.cumsum(sizes)
        yield [
            f"{' '.join(words[end - size : end])} {first + i}"
            for i, (size, end) in enumerate(zip(sizes.tolist(), ends.tolist(), strict=True))
        ]


def write(path: Path, batches: Iterator[list[str]], count: int) -> None:
    """So many records of the batches as one Parquet file."""
    schema = pa.schema([("id", pa.string()), ("text", pa.large_string())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        done = 0
        while done < count:
            texts = next(batches)[: count - done]
            ids = [str(done + i) for i in range(len(texts))]
            writer.write_table(pa.table({"id": ids, "text": texts}, schema))
            done += len(texts)


def resident() -> int:
    """Bytes in memory of this process and those it has started."""
    pids = [Path("/proc/self")]
    for task in Path("/proc/self/task").iterdir():
        pids += [Path("/proc") / pid for pid in (task / "children").read_text().split()]
    found = 0
    for pid in pids:
        for line in (pid / "status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                found += int(line.split()[1]) * 1024
    return found


@click.command(help=__doc__)
@click.argument("count", type=click.IntRange(TENTHS))
@click.option("--source", type=click.Path(path_type=Path, exists=True), help="A Parquet file.")
@click.option("--text-column", "text", default="text", show_default=True, help="Its texts.")
@click.option("--model", default="none", show_default=True, help="As for 'edgemod triage'.")
@click.option("--workers", type=int, help="As for 'edgemod triage'.")
def main(count: int, source: Path | None, text: str, model: str, workers: int | None) -> None:
    """Write the input, triage it, print the table."""
    rows: list[tuple[int, float, int]] = []

    def note(progress: Progress) -> None:
        if progress.records * TENTHS >= count * (len(rows) + 1):
            rows.append((progress.records, progress.seconds, resident()))

    with tempfile.TemporaryDirectory(prefix="edgemod-flat-") as folder:
        dump = Path(folder) / "dump.parquet"
        write(dump, repeated(source, text) if source else made(), count)
        report = edgemod.triage(
            dump,
            Path(folder) / "out",
            text="text",
            id="id",
            model=None if model == "none" else model,
            workers=workers,
            on_progress=note,
        )
    click.echo("| records | records/s in this tenth | memory of all processes |\n|---|---|---|")
    before = (0, 0.0)
    for records, seconds, memory in rows:
        rate = (records - before[0]) / (seconds - before[1])
        before = records, seconds
        click.echo(f"| {records:,} | {rate:,.0f} | {memory / 1e6:,.0f} MB |")
    click.echo(
        f"\n{report.records:,} records, {report.wall_seconds:,.0f} s, {report.workers} workers, "
        f"peak {report.peak_memory_bytes / 1e6:,.0f} MB, {report.review_rate:.1%} for review"
    )


if __name__ == "__main__":
    main()
