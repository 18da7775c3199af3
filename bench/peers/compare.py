"""edgemod beside other offline moderation packages: same texts, same process, one core.

    pip install -r bench/peers/requirements.txt
    python bench/peers/compare.py LABELLED.parquet... [-o TABLE.md]

A file has a column ``text`` and label columns (1, 0 or null); those of the names in
``edgemod.CATEGORIES`` and ``unsafe`` are read. All are judged by ``toxic`` where the file has it,
else by whether any label is 1: edgemod by its probability of that, a peer by its one number.
Speed is processor time on one core over a sample of all files; each round takes the contestants in
another order, and the best of the rounds counts. A contestant that would need more than
``--seconds`` for a round reads as many of the texts as it can in them, and one that would need more
than twenty times that for the labelled rows is not judged. A peer that is not installed is named.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

import edgemod
from edgemod.encoder import Encoder
from edgemod.metrics import average_precision, roc_auc
from edgemod.records import Chunk, Columns, chunk_of
from edgemod.triager import Triager
from edgemod.words import ANY, CATEGORIES, OUTPUTS

Scores = npt.NDArray[np.floating[Any]]
Contestant = Callable[[list[str]], Scores]
"""Texts to one number each, (n,), the greater the worse; edgemod's own give (n, 10)."""

SEED: Final = 11
_PROBE: Final = 20
_TEXT: Final = Columns(("text",), None, None, None, None, None, None, ())


# -- contestants -----------------------------------------------------------------------------


def each(call: Callable[[str], Any]) -> Contestant:
    """A contestant of a function of one text that answers yes or no."""
    return lambda texts: np.array([bool(call(text)) for text in texts], np.float64)


def alt_profanity_check() -> Contestant:
    """A linear model over words; one probability."""
    module = importlib.import_module("profanity_check")
    return lambda texts: np.asarray(module.predict_prob(texts), np.float64)


def better_profanity() -> Contestant:
    """A word list with its spellings in leet."""
    return each(importlib.import_module("better_profanity").profanity.contains_profanity)


def better_profanity_rs() -> Contestant:
    """The same in Rust."""
    return each(importlib.import_module("better_profanity_rs").profanity.contains_profanity)


def glin_profanity() -> Contestant:
    """A word list, its default settings."""
    return each(importlib.import_module("glin_profanity").Filter().is_profane)


def profanityfilter() -> Contestant:
    """A word list with plurals."""
    return each(importlib.import_module("profanityfilter").ProfanityFilter().is_profane)


def valx() -> Contestant:
    """A decision tree over words; hate or offensive speech against neither."""
    module = importlib.import_module("valx")
    harmless = "No Hate and Offensive Speech"
    return each(lambda text: module.detect_hate_speech(text)[0] != harmless)


PEERS: Final[dict[str, Callable[[], Contestant]]] = {
    "alt-profanity-check": alt_profanity_check,
    "better-profanity": better_profanity,
    "better-profanity-rs": better_profanity_rs,
    "glin-profanity": glin_profanity,
    "profanityfilter": profanityfilter,
    "valx": valx,
}


def chunk(triager: Triager, texts: list[str]) -> Chunk:
    """The texts as records."""
    batch = pa.record_batch({"text": pa.array(texts, pa.large_string())})
    return chunk_of(batch, _TEXT, max_text_bytes=triager.policy.max_text_bytes)


def edgemod_filter(triager: Triager) -> Contestant:
    """The filter stage alone, from strings to calibrated probabilities."""
    return lambda texts: triager.calibration.probabilities("filter", edgemod.filter_scores(texts))


def edgemod_cascade(triager: Triager) -> Contestant:
    """Everything that a worker does with a chunk, but for writing it."""

    def call(texts: list[str]) -> Scores:
        assert isinstance(triager.model, Encoder)
        triager.model._seen.clear()  # what another round has read
        return triager.probabilities(chunk(triager, texts), "cascade")

    return call


# -- measuring -------------------------------------------------------------------------------


@dataclass
class Row:
    """One line of the table."""

    name: str
    version: str
    call: Contestant
    texts: int = 0
    rates: list[float] = field(default_factory=list)
    areas: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Labelled:
    """A labelled file, or a sample of it."""

    name: str
    label: str
    texts: list[str]
    labels: npt.NDArray[np.int8]


def seconds_of(call: Contestant, texts: list[str]) -> float:
    """Processor seconds of one call; short ones are repeated."""
    began, count = time.process_time(), 0
    while (taken := time.process_time() - began) < 0.1 or not count:
        call(texts)
        count += 1
        taken = time.process_time() - began
    return taken / count


def race(rows: Sequence[Row], texts: list[str], rounds: int, seconds: float) -> None:
    """Fill in texts and rates."""
    for row in rows:
        row.call(texts[:1])  # loads and compiles what it needs
        rate = _PROBE / seconds_of(row.call, texts[:_PROBE])
        row.texts = int(np.clip(rate * seconds, _PROBE, len(texts)))
    for turn in range(rounds):
        shift = turn * max(len(rows) // rounds, 1)
        for row in [*rows[shift:], *rows[:shift]]:
            row.rates.append(row.texts / seconds_of(row.call, texts[: row.texts]))


def judge(row: Row, file: Labelled) -> None:
    """Fill in the areas under the curves of one file."""
    scores = row.call(file.texts)
    if scores.ndim == 2:
        scores = scores[:, OUTPUTS.index(file.label)]
    known = ~np.isnan(scores)  # what edgemod does not score goes to people
    pair = file.labels[known], scores[known]
    row.areas[file.name] = average_precision(*pair), roc_auc(*pair)


def read(path: Path, rows: int) -> Labelled:
    """The labelled rows of a file, a sample of ``rows`` of them."""
    table = pq.read_table(path)
    known = {name: table[name].to_pylist() for name in (*CATEGORIES, "unsafe", "any")
             if name in table.column_names}  # fmt: skip
    label = "toxic" if {0, 1} <= {*known.get("toxic", ())} else ANY
    if label == ANY:
        every = list(zip(*known.values(), strict=True))
        values = [1 if 1 in of else 0 if 0 in of else None for of in every]
    else:
        values = known["toxic"]
    if not {0, 1} <= {*values}:
        raise click.UsageError(f"{path} has no labels of both kinds")
    usable = [i for i, text in enumerate(table["text"].to_pylist()) if text and values[i] in (0, 1)]
    chosen = np.random.default_rng(SEED).permutation(usable)[:rows]
    texts = table["text"].take(pa.array(chosen)).to_pylist()
    return Labelled(path.stem, label, texts, np.array([values[i] for i in chosen], np.int8))


def page(rows: Sequence[Row], files: Sequence[Labelled], texts: list[str], rounds: int) -> str:
    """The table, and under it what it is of."""
    base = max(rows[0].rates)
    head = ["", "version", "records/s", "ratio", *(f"{f.name} ({f.label})" for f in files)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        rate = max(row.rates)
        cells = [row.name, row.version, f"{rate:,.0f}", f"{rate / base:.2g}"]
        for file in files:
            areas = row.areas.get(file.name)
            cells.append(f"{areas[0]:.3f}, {areas[1]:.3f}" if areas else "-")
        lines.append("| " + " | ".join(cells) + " |")
    few = [f"{row.name} ({row.texts:,})" for row in rows if row.texts < len(texts)]
    size = sum(map(len, texts)) / len(texts)
    lines += [
        "",
        f"{len(texts):,} texts of {size:,.0f} characters on average, best of {rounds} rounds, "
        f"processor time of one core, Python {platform.python_version()}. Read fewer of them, "
        f"being slow: {', '.join(few) or 'none'}. Under each file: AUPRC, AUROC, and what chance "
        "gives: " + ", ".join(f"{f.name} {f.labels.mean():.3f} of {len(f.labels):,}, .500"
                              for f in files) + ".",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


@click.command(help=__doc__)
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option("--rows", default=300, show_default=True, help="Labelled rows of each file.")
@click.option("--texts", "most", default=2000, show_default=True, help="Texts to time on.")
@click.option("--rounds", default=3, show_default=True, help="Rounds, each in another order.")
@click.option("--seconds", default=3.0, show_default=True, help="Most a round may take.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the table to a file.")
def main(
    files: tuple[Path, ...], rows: int, most: int, rounds: int, seconds: float, out: Path | None
) -> None:
    """Run the command line."""
    warnings.simplefilter("ignore")  # of peers
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    labelled = [read(path, rows) for path in files]
    texts = [text for file in labelled for text in file.texts]
    np.random.default_rng(SEED).shuffle(texts)
    texts = texts[:most]
    missing = []
    with Triager() as triager:
        version = edgemod.__version__
        table = [
            Row("edgemod, filter stage", version, edgemod_filter(triager)),
            Row("edgemod, cascade, 1 worker", version, edgemod_cascade(triager)),
        ]
        for name, load in PEERS.items():
            try:
                table.append(Row(name, importlib.metadata.version(name), load()))
            except (ImportError, importlib.metadata.PackageNotFoundError):
                missing.append(name)
        race(table, texts, rounds, seconds)
        total = sum(len(file.texts) for file in labelled)
        for row in table:
            click.echo(f"{row.name}: {max(row.rates):,.0f} records/s", err=True)
            if total / max(row.rates) > 20 * seconds:
                continue
            for file in labelled:
                judge(row, file)
    found = page(table, labelled, texts, rounds)
    if missing:
        found += f"\nNot installed, so left out: {', '.join(missing)}.\n"
    if out:
        out.write_text(found)
    click.echo(found)


if __name__ == "__main__":
    main()
