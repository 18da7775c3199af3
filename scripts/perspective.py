"""Measure the attributes of `edgemod score --attributes perspective` and write them into the docs.

    python scripts/perspective.py DATA [--cache FOLDER] [-o docs/reporting.md]

DATA is the folder with dev/, which nothing was trained on. Two things are measured, each with a
95 % bootstrap interval: AUROC against labels by people, of the attribute that fits the label best;
and Spearman's rank correlation with graded answers: those of the Perspective API itself, which
context_toxicity_dev quotes for some of its rows, and degrees that people gave. The language model
reads every text of the sets that have such labels: about as long as scoreboard.py takes with one
job. --cache keeps what it says under the fingerprints of model and calibration and the texts. The
tables are written between two marks in the page.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

from edgemod import features, perspective
from edgemod.calibration import FloatMatrix
from edgemod.metrics import Estimate, bootstrap
from edgemod.records import Columns, chunk_of
from edgemod.screen.console import area
from edgemod.triager import Triager
from edgemod.words import OUTPUTS
from training_data import load_dev

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "reporting.md"
MARKS: Final = ("<!-- scripts/perspective.py writes from here -->", "<!-- to here -->")

LABELS: Final = {
    "toxic": ("TOXICITY", "SEVERE_TOXICITY", "PROFANITY"),
    "hate": ("IDENTITY_ATTACK",),
    "harassment": ("INSULT",),
    "threat_violence": ("THREAT",),
    "sexual": ("SEXUALLY_EXPLICIT",),
}
"""Labels, and the attributes that are compared with them."""

GRADED: Final[dict[tuple[str, str], tuple[str, Callable[[dict[str, Any]], object]]]] = {
    ("context_toxicity_dev", "TOXICITY"): (
        "TOXICITY of the Perspective API",
        lambda told: told.get("perspective_api"),
    ),
    ("ethos", "IDENTITY_ATTACK"): (
        "share of people who called it hate",
        lambda told: told.get("isHate"),
    ),
    ("threatgram_dev", "THREAT"): (
        "degree of threat, 0 to 2, by people",
        lambda told: told.get("threat_level"),
    ),
}
"""By set and attribute: what the graded answers are, and where a row has one."""

_TEXT: Final = Columns(("text",), None, None, None, None, None, None, ())

Floats = npt.NDArray[np.floating[Any]]


@click.command(help=__doc__)
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("-o", "--out", type=click.Path(path_type=Path), default=PAGE)
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False))
def main(data: Path, out: Path, cache: Path | None) -> None:
    """Score, compare, write."""
    ranked, graded = [], []
    with Triager() as triager:
        fingerprints = triager.fingerprints()
        for name, part in load_dev(data).items():
            of = part.labels[:, [OUTPUTS.index(label) for label in LABELS]]
            known = np.flatnonzero((part.labels >= 0).any(axis=1))
            if not any({0, 1} <= {*column} for column in of.T.tolist()):
                continue
            part = part.take(known)
            p = probabilities(triager, part.arrow(), cache)
            hits = features.extract(part.arrow(), triager.lexicons).hits
            values = perspective.attributes(p, hits, triager.lexicons.names)
            columns = dict(zip(perspective.ATTRIBUTES, values.T, strict=True))
            told = pq.read_table(data / "dev" / f"{name}.parquet", columns=["orig_label"])
            answers = [json.loads(x or "{}") for x in told["orig_label"].take(known).to_pylist()]
            for label, attributes in LABELS.items():
                truth = part.labels[:, OUTPUTS.index(label)]
                for attribute in attributes:
                    usable = (truth >= 0) & ~np.isnan(columns[attribute])
                    if len({*truth[usable].tolist()}) == 2:
                        y, x = truth[usable], columns[attribute][usable]
                        ranked.append((attribute, name, label, y, bootstrap(y, x, 500)[1]))
            for (set_name, attribute), (what, get) in GRADED.items():
                if set_name == name:
                    given = np.array([get(told) for told in answers], np.float64)
                    usable = ~np.isnan(given) & ~np.isnan(columns[attribute])
                    found = spearman(columns[attribute][usable], given[usable])
                    graded.append((attribute, name, what, int(usable.sum()), found))
                    if attribute == "TOXICITY":  # the API's own figure, and ours on its rows
                        usable &= (truth := part.labels[:, OUTPUTS.index("toxic")]) >= 0
                        pairs = (("the API's own", given), ("the same rows", columns[attribute]))
                        for whose, x in pairs:
                            own = bootstrap(truth[usable], x[usable], 500)[1]
                            ranked.append(
                                (attribute, f"{name}, {whose}", "toxic", truth[usable], own)
                            )
    head, rest = out.read_text().split(MARKS[0])
    _, tail = rest.split(MARKS[1])
    table = "\n".join(tables(ranked, graded, fingerprints))
    out.write_text(f"{head}{MARKS[0]}\n{table}\n{MARKS[1]}{tail}")


def probabilities(triager: Triager, texts: pa.LargeStringArray, cache: Path | None) -> FloatMatrix:
    """What the language model says of texts, float32 (n, 10); kept in ``cache``."""
    prints = triager.fingerprints()
    digest = hashlib.sha256((prints["model"] + prints["calibration"]).encode())
    for text in texts:
        digest.update(hashlib.sha256(text.as_buffer()).digest())
    path = cache / f"{digest.hexdigest()[:16]}.npy" if cache else None
    if path and path.exists():
        kept: FloatMatrix = np.load(path, allow_pickle=False)
        return kept
    chunk = chunk_of(pa.record_batch({"text": texts}), _TEXT, max_text_bytes=1 << 30)
    found = triager.probabilities(chunk, "model")
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, found)
    return found


def spearman(x: Floats, y: Floats, resamples: int = 500, seed: int = 0) -> Estimate:
    """Spearman's rank correlation (1904) of x and y, (n,), with a bootstrap interval."""
    random, drawn = np.random.default_rng(seed), []
    for _ in range(resamples):
        rows = random.integers(0, len(x), len(x))
        drawn.append(float(stats.spearmanr(x[rows], y[rows]).statistic))
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Estimate(float(stats.spearmanr(x, y).statistic), float(low), float(high))


def tables(ranked: list[Any], graded: list[Any], fingerprints: dict[str, str]) -> Iterator[str]:
    """The lines of the two tables."""
    yield ""
    yield "| attribute | set | compared with | n | rank correlation |"
    yield "|---|---|---|---|---|"
    for attribute, name, what, n, found in sorted(graded, key=_order):
        yield f"| {attribute} | {name} | {what} | {n:,} | {area(found)} |"
    yield ""
    yield "| attribute | set | label | n | violating | AUROC |"
    yield "|---|---|---|---|---|---|"
    for attribute, name, label, y, found in sorted(ranked, key=_order):
        yield f"| {attribute} | {name} | {label} | {len(y):,} | {int(y.sum()):,} | {area(found)} |"
    yield ""
    parts = ", ".join(f"{name} `{digest[:12]}`" for name, digest in fingerprints.items())
    yield f"Measured with {parts}."


def _order(row: Any) -> tuple[int, str]:
    return perspective.ATTRIBUTES.index(row[0]), row[1]


if __name__ == "__main__":
    main()
