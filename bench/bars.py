"""What edgemod promises of speed and reliability, measured in one run: one table.

    python bench/bars.py DATA [--posts 2000] [--kills 20] > bars.md

DATA has archive/reddit_top_200k.parquet and the development sets dev/surge_toxicity.parquet and
dev/ethos.parquet. Speed is told as a ratio: processor time of one thread, by turns, or records a
second of two runs, one after the other. Needs the extra ``bench``; what else is missing (strace)
is said. A quarter of an hour on two idle cores.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import click
import llama_cpp
import profanity_check
import pyarrow as pa
import pyarrow.parquet as pq

import edgemod
from edgemod import store
from edgemod.encoder import Encoder
from edgemod.machine import usable_cores
from edgemod.policy import DEFAULT_POLICY

ROUNDS: Final = 3
SHORT: Final = 140  # characters at most
RISKS: Final = {"surge_toxicity": "toxic", "ethos": "hate"}
SCRIPTS: Final = Path(__file__).parents[1] / "scripts"

Row = tuple[str, str, str]
"""What is measured, what is wanted, what was seen."""


def by_turns(*contestants: Callable[[], object]) -> list[float]:
    """The least processor time of each, in seconds."""
    best = [float("inf")] * len(contestants)
    for _ in range(ROUNDS):
        for k, contestant in enumerate(contestants):
            began = time.process_time()
            contestant()
            best[k] = min(best[k], time.process_time() - began)
    return best


def filter_beside_peer(posts: list[str]) -> Iterator[Row]:
    """Records/s of the filter stage and of alt-profanity-check."""
    for size in (100, 650, None):
        texts = [text[:size] for text in posts if len(text) >= (size or 1)]
        column = pa.array(texts, pa.large_string())
        edgemod.filter_scores(column[:10])  # compiles
        ours, theirs = by_turns(
            partial(edgemod.filter_scores, column), partial(profanity_check.predict_prob, texts)
        )
        what = f"{size} characters" if size else "whole posts"
        rates = f"{len(texts) / ours:,.0f} and {len(texts) / theirs:,.0f} records/s a core"
        seen = f"{theirs / ours:.1f} ({rates})"
        yield f"filter stage beside alt-profanity-check, {what}", "3 times the records/s", seen


def encoder_beside_embed(kinds: dict[str, list[str]]) -> Iterator[Row]:
    """Tokens/s of the encoder and of ``Llama.embed``, text by text, with the same GGUF."""
    entry = store.resolve("default")
    encoder = Encoder.open(entry)
    embed = llama_cpp.Llama(
        str(entry.path), embedding=True, n_threads=1, n_threads_batch=1, n_ctx=512, verbose=False
    ).embed
    for kind, texts in kinds.items():
        column = pa.array(texts, pa.large_string())
        counts = [0, 0]

        def ours(column: pa.LargeStringArray = column, counts: list[int] = counts) -> None:
            encoder._seen.clear()
            counts[0] = int(encoder.score(column).tokens.sum())

        def theirs(texts: list[str] = texts, counts: list[int] = counts) -> None:
            # Less [CLS] and [SEP], which edgemod does not count.
            counts[1] = sum(embed(text, return_count=True)[1] - 2 for text in texts)

        seconds = by_turns(ours, theirs)
        mine, others = (count / took for count, took in zip(counts, seconds, strict=True))
        seen = f"{mine / others:.2f} ({mine:,.0f} and {others:,.0f} tokens/s a core)"
        yield f"encoder beside Llama.embed, {kind}", "2 times the tokens/s", seen
    encoder.close()


def without_filter(folder: Path) -> Path:
    """The shipped policy, with the language model reading every record."""
    shutil.copytree(DEFAULT_POLICY.parent, folder)
    path = folder / DEFAULT_POLICY.name
    text = path.read_text()
    path.write_text(text.replace('"rule", "filter", "model"', '"rule", "model"'))
    return path


def cascade_beside_model(dump: Path, data: Path, scratch: Path) -> Iterator[Row]:
    """A run with the filter and one without, and what the filter costs in misses."""
    every = without_filter(scratch / "policies")
    rates = [
        edgemod.triage(
            dump, scratch / f"out-{k}", text=["title", "body"], policy=policy, chunk_rows=256
        ).records_per_second
        for k, policy in enumerate((None, every))
    ]
    seen = f"{rates[0] / rates[1]:.1f} ({rates[0]:,.0f} and {rates[1]:,.0f} records/s)"
    yield "cascade beside the language model on every record", "15 times the records/s", seen
    for name, label in RISKS.items():
        missed = []
        for policy in (None, every):
            found = edgemod.evaluate(
                data / "dev" / f"{name}.parquet", policy=policy, workers=2, resamples=1
            )
            (line,) = (line for line in found if line.label == label)
            assert line.violating is not None
            assert line.violating.clear is not None
            missed.append(line.violating.clear.value)
        seen = f"{missed[0] - missed[1]:.1%} ({missed[0]:.1%} and {missed[1]:.1%})"
        yield f"share of violating records cleared, {name}, {label}", "1 point more", seen


def flat(archive: Path, records: int) -> Iterator[Row]:
    """The last tenth of a long run beside its second."""
    told = _run(
        Path(__file__).parent / "flat.py", records, "--source", archive, "--text-column", "body"
    )
    tenths = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) MB \|$", told, re.MULTILINE)
    (_, fast, small), (_, late, large) = tenths[1], tenths[-1]
    seen = f"{fast} and {late} records/s, {small} and {large} MB"
    yield f"{records:,} posts without the model, second and last tenth", "the same", seen


def killed(dump: Path, kills: int) -> Iterator[Row]:
    """Runs with the language model that are killed again and again."""
    told = _run(SCRIPTS / "kill_test.py", dump, "--kills", kills, "--workers-too")
    yield f"{kills} SIGKILLs, with the model", "byte-identical", told.strip().splitlines()[-1]


def offline(dump: Path, scratch: Path) -> Iterator[Row]:
    """Sockets of a network family that a whole run asks for."""
    if not shutil.which("strace"):
        yield "sockets that a run asks for, by strace", "0", "strace is not installed"
        return
    log = scratch / "strace"
    command = ["strace", "-f", "-e", "trace=%network", "-o", str(log)]
    command += [sys.executable, "-W", "ignore", "-m", "edgemod", "triage", str(dump)]
    command += ["-o", str(scratch / "traced"), "--progress", "none"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    asked = re.findall(r"socket\(AF_(?!UNIX)\w+", log.read_text())
    yield "sockets of a network that a run asks for, by strace", "0", str(len(asked))


def _run(script: Path, *arguments: object) -> str:
    command = [sys.executable, "-W", "ignore", str(script), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@click.command(help=__doc__)
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--posts", default=2_000, show_default=True, help="Of the archive, the first ones.")
@click.option("--kills", default=20, show_default=True)
@click.option("--records", default=1_000_000, show_default=True, help="Of the long run.")
def main(data: Path, posts: int, kills: int, records: int) -> None:
    """Measure, and print each row as it comes."""
    archive = data / "archive" / "reddit_top_200k.parquet"
    table = pq.read_table(archive, columns=["id", "title", "body"]).slice(0, 20_000)
    titles, bodies = (table[name].to_pylist() for name in ("title", "body"))
    whole = [f"{title or ''}\n{body or ''}" for title, body in zip(titles, bodies, strict=True)]
    short = [text for text in titles if text and text.strip() and len(text) < SHORT]
    click.echo("| | wanted | seen |\n|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="edgemod-bars-") as folder:
        scratch = Path(folder)
        dump, few = scratch / "posts.parquet", scratch / "few.parquet"
        pq.write_table(table.slice(0, posts), dump)
        pq.write_table(table.slice(0, max(posts // 5, 1)), few)
        for part in (
            filter_beside_peer(whole),
            encoder_beside_embed({"posts": whole[:300], "titles": short[:500]}),
            cascade_beside_model(dump, data, scratch),
            flat(archive, records),
            killed(few, kills),
            offline(few, scratch),
        ):
            for row in part:
                click.echo(f"| {' | '.join(row)} |")
    python = ".".join(map(str, sys.version_info[:3]))
    click.echo(
        f"\nedgemod {edgemod.__version__}, Python {python}, llama-cpp-python "
        f"{llama_cpp.__version__}, {usable_cores()} cores"
    )


if __name__ == "__main__":
    main()
