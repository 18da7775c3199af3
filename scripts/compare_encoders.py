"""Compare builds and quantizations of the encoder on development sets.

    python scripts/compare_encoders.py DATA BUILD... [--type q8_0] [--gguf FILE] [--rows 400]

Each BUILD is a folder that train_encoder.py wrote. Every build is converted to every --type; a
--gguf is what quantize_encoder.py made of the last BUILD. The encoder alone scores the same sample
of each set. The page printed has, for each of them, the
AUPRC of the label's own output and of "any", and the share of harmless texts above the score that
2 % of them reach with the first. Development sets may choose among finished builds, and nothing
else; docs/models.md says what was compared.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import click
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from edgemod.encoder import Encoder
from edgemod.metrics import average_precision
from edgemod.store import ModelEntry, sha256
from edgemod.words import ANY, OUTPUTS
from make_encoder import QUANTIZED, convert, quantize
from train_encoder import bind
from training_data import load_dev

SETS: Final = {
    "surge_toxicity": "toxic",
    "toxic_chat_dev": "toxic",
    "beavertails_test_response": ANY,
    "harmbench_xstest_response": ANY,
    "xstest": "illicit",
    "olid": "toxic",
    "vicomtech_stormfront": "hate",
    "hatemoji_check": "hate",
    "ethos": "hate",
    "kaggle_insults": "harassment",
    "context_toxicity_dev": "toxic",
    "identity_templates_en": "toxic",
    "unhealthy_conversations": "harassment",
}
"""The sets that are compared, and the label of each."""

HARMLESS: Final = ("benign_sgd", "cyberseceval_frr", "safecity")
"""Sets without a violating text."""

_ANY: Final = OUTPUTS.index(ANY)

Floats = npt.NDArray[np.float32]


def made(build: Path, kind: str, folder: Path) -> ModelEntry:
    """Convert a build and bind its head, in folders of their own."""
    folder.mkdir()
    path = folder / "encoder.gguf"
    if kind in QUANTIZED:
        whole = folder / "whole.gguf"
        convert(build, whole)
        quantize(whole, path, kind)
    else:
        convert(build, path, np.float32 if kind == "f32" else np.float16)
    return bound(build, path, folder / "head")


def bound(build: Path, path: Path, folder: Path) -> ModelEntry:
    """A GGUF that was made of a build, with a head bound to it in a folder of its own."""
    folder.mkdir()
    head = folder / "head.safetensors"
    bind(build, path, head)
    return ModelEntry(path.stem, "encoder", path, sha256(path), head, sha256(head))


def scored(entry: ModelEntry, texts: list[str]) -> Floats:
    """Log-odds (n, 10)."""
    encoder = Encoder.open(entry)
    try:
        return encoder.score(pa.array(texts, pa.large_string())).scores
    finally:
        encoder.close()


@click.command(help=__doc__)
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("builds", type=click.Path(path_type=Path, exists=True), nargs=-1, required=True)
@click.option("--type", "kinds", multiple=True, default=["q8_0"], show_default=True)
@click.option("--gguf", "ggufs", type=click.Path(path_type=Path, exists=True), multiple=True)
@click.option("--rows", default=400, show_default=True, help="Of each set, a sample.")
@click.option("--jobs", default=2, show_default=True, help="Processes.")
def main(
    data: Path,
    builds: tuple[Path, ...],
    kinds: tuple[str, ...],
    ggufs: tuple[Path, ...],
    rows: int,
    jobs: int,
) -> None:
    """Convert, score, print."""
    loaded = load_dev(data)
    asked: dict[str, tuple[list[str], npt.NDArray[np.int8]]] = {}
    for name in (*SETS, *HARMLESS):
        part = loaded[name]
        column = part.labels[:, OUTPUTS.index(SETS[name])] if name in SETS else part.labels[:, _ANY]
        index = np.flatnonzero(column >= 0) if name in SETS else np.arange(len(column))
        index = np.random.default_rng(0).permutation(index)[:rows]
        asked[name] = ([part.texts[i] for i in index], column[index])
    found: dict[str, dict[str, Floats]] = {}
    with (
        tempfile.TemporaryDirectory() as scratch,
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool,
    ):
        entries = {
            f"{build} {kind}": made(build, kind, Path(scratch) / f"{i} {kind}")
            for i, build in enumerate(builds)
            for kind in kinds
        }
        for i, path in enumerate(ggufs):
            entries[str(path)] = bound(builds[-1], path, Path(scratch) / str(i))
        for name, entry in entries.items():
            texts = [texts for texts, _ in asked.values()]
            answers = pool.map(scored, [entry] * len(texts), texts)
            found[name] = dict(zip(asked, answers, strict=True))
    names = list(found)
    click.echo(f"| set | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    totals = np.zeros((len(names), 2))
    for name, label in SETS.items():
        cells = []
        for row, scores in enumerate(found.values()):
            known = np.isfinite(scores[name]).all(axis=1)
            answers = asked[name][1][known] == 1
            both = [
                average_precision(answers, scores[name][known, k])
                for k in (OUTPUTS.index(label), _ANY)
            ]
            totals[row] += both
            cells.append(" / ".join(f"{value:.3f}" for value in both))
        click.echo(f"| {name}, {label} | {' | '.join(cells)} |")
    means = [" / ".join(f"{value:.3f}" for value in row / len(SETS)) for row in totals]
    click.echo(f"| mean | {' | '.join(means)} |")
    for name in HARMLESS:
        limit = np.nanquantile(found[names[0]][name][:, _ANY], 0.98)
        above = [f"{np.mean(scores[name][:, _ANY] > limit):.1%}" for scores in found.values()]
        click.echo(f"| {name}, above the first's 98 % | {' | '.join(above)} |")


if __name__ == "__main__":
    main()
