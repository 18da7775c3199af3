"""Evaluate the shipped models on every development set and write a page of the figures.

    python scripts/scoreboard.py DATA [-o docs/scoreboard.md] [--cache FOLDER] [--peers]

DATA is the folder with train/, dev/ and archive/; only dev/ is read, which nothing is trained or
tuned on. The filter alone, the language model alone and the cascade are measured as `edgemod
evaluate` does, but for the placeholders of publishers, which training_data.py replaces. Each set
is scored once, by one of --jobs processes; all figures come from those scores. The language model
reads every text, about 3.5 million tokens at 3,000 a second a core: 10 to 15 minutes on two idle
cores, by estimate.

--disguised N measures what disguises cost: N violating rows of each set, with half of their words
in leetspeak, in letters that look alike, spelled out or cut by zero-width spaces, among its
harmless rows as they are.

--cache keeps the scores of each set under the fingerprints of policy, filter, model and calibration
and the texts. It does not see changes in edgemod's code: empty it after one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from disguises import disguise, homoglyphs, leet, spaced, zero_width
from edgemod.evaluation import (
    STAGES,
    Evaluation,
    Measured,
    Shares,
    assess,
    join,
    measure,
)
from edgemod.metrics import Estimate, bootstrap
from edgemod.records import Columns, chunk_of
from edgemod.screen.console import area, share
from edgemod.triager import Triager
from edgemod.words import ANY, OUTPUTS
from training_data import TrainingData, load_dev

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "scoreboard.md"

PEER: Final = "alt-profanity-check"

ACCOUNTS: Final = ("safecity",)
"""Sets of victims' accounts, without labels. To tell of abuse violates nothing."""

SEED: Final = 0

_SLICE: Final = 500
_TEXT: Final = Columns(("text",), None, None, None, None, None, None, ())

Opinions = dict[tuple[str, str], Estimate]
"""The peer's AUPRC by set and label."""
Disguised = dict[tuple[str, str, str], tuple[Estimate, Estimate]]
"""By set, label and stage: AUPRC as the texts are, and with the violating ones disguised."""


@click.command(help=__doc__)
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("-o", "--out", type=click.Path(path_type=Path), default=PAGE)
@click.option("--rows", type=click.IntRange(1), help="At most N rows of each set, a sample.")
@click.option("--bootstrap", "resamples", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--set", "sets", multiple=True, help="Only this set; repeat for several.")
@click.option("--peers", is_flag=True, help=f"Measure {PEER}, too, where it is installed.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Processes.")
@click.option("--disguised", "veiled", type=click.IntRange(1), help="Rows of each set to disguise.")
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False))
def main(
    data: Path,
    out: Path,
    rows: int | None,
    resamples: int,
    sets: tuple[str, ...],
    peers: bool,
    jobs: int,
    veiled: int | None,
    cache: Path | None,
) -> None:
    """Score, evaluate and write."""
    loaded = load_dev(data)
    if unknown := {*sets} - {*loaded}:
        raise click.UsageError(f"no such set: {', '.join(sorted(unknown))}")
    chosen = {name: _sample(loaded[name], rows) for name in sets or loaded}
    veiled_rows = {
        name: _violating(part, veiled)
        for name, part in chosen.items()
        if veiled and any(len({0, 1} & {*column}) == 2 for column in labels_of(part).values())
    }
    disguised = [disguised_rows(chosen[name].take(rows)) for name, rows in veiled_rows.items()]
    asked = [*chosen.values(), *disguised]
    with Triager() as triager:
        fingerprints = triager.fingerprints()
    with (
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool,
        click.progressbar(
            pool.map(partial(measured, fingerprints, cache), asked),
            length=len(asked),
            label="sets",
        ) as answers,
    ):
        every = [*answers]
    found = dict(zip(chosen, every, strict=False))
    found_disguised = dict(zip(veiled_rows, every[len(chosen) :], strict=True))
    lines: list[Evaluation] = []
    opinions: Opinions = {}
    costs: Disguised = {}
    for name, part in chosen.items():
        labels, given = labels_of(part), found[name]
        lines += assess(name, labels, given, fingerprints, resamples=resamples, seed=SEED)
        for label, column in labels.items() if name in veiled_rows else ():
            costs |= _cost(name, label, column, given, veiled_rows[name], found_disguised[name])
        if peers and (theirs := peer(part.texts)) is not None:
            scored = ~np.isnan(given.probabilities["filter"][:, -1])
            for label, column in labels.items():
                known = scored & (column >= 0)
                if len(np.unique(column[known])) == 2:
                    auprc, _ = bootstrap(column[known], theirs[known], resamples, SEED)
                    opinions[name, label] = auprc
    options = [f"--{name} {n}" for name, n in (("rows", rows), ("disguised", veiled)) if n]
    again = f' ARGS="{" ".join(options)}"' if options else ""
    shown = opinions if peers else None
    out.write_text(page(lines, shown, costs, fingerprints, rows, resamples, again))
    click.echo(f"{len(chosen)} sets -> {out}")


# -- sets and their scores ---------------------------------------------------------------------


def _sample(data: TrainingData, rows: int | None) -> TrainingData:
    """The rows of a set that have a label, or a sample of them; ``ACCOUNTS`` as harmless."""
    if data.sets[0] in ACCOUNTS:
        labels = data.labels.copy()
        labels[:, OUTPUTS.index(ANY)] = 0
        data = replace(data, labels=labels)
    known = np.flatnonzero((data.labels >= 0).any(axis=1))
    if rows is not None and len(known) > rows:
        known = np.sort(np.random.default_rng(SEED).choice(known, rows, replace=False))
    return data.take(known)


def labels_of(data: TrainingData) -> dict[str, npt.NDArray[np.int8]]:
    """The labels to have a line: categories that some row violates, and ``any`` beside them.

    ``any`` is left out where it only repeats what the rows of one category say.
    """
    columns = dict(zip(OUTPUTS, data.labels.T, strict=True))
    anything = columns.pop(ANY)
    violated = {name: column for name, column in columns.items() if (column == 1).any()}
    if not any(((anything == -1) | (anything == c)).all() for c in violated.values()):
        violated[ANY] = anything
    return violated


def measured(fingerprints: Mapping[str, str], cache: Path | None, data: TrainingData) -> Measured:
    """All stages' probabilities of a set's texts, and the verdicts of the cascade."""
    texts = data.arrow()
    content = repr(sorted(fingerprints.items())).encode()
    digests = (hashlib.sha256(text.as_buffer()).digest() for text in texts)
    key = hashlib.sha256(content + b"".join(digests)).hexdigest()[:16]
    path = cache / f"{key}.npz" if cache else None
    if path and path.exists():
        with np.load(path, allow_pickle=False) as kept:
            return Measured({stage: kept[stage] for stage in STAGES}, kept["verdicts"])
    with Triager() as triager:
        found = join(
            [_slice(triager, texts.slice(i, _SLICE)) for i in range(0, len(texts), _SLICE)]
        )
    if path and found.verdicts is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = dict(found.probabilities.items(), verdicts=found.verdicts)
        np.savez(path, **arrays)
    return found


def _slice(triager: Triager, texts: pa.LargeStringArray) -> Measured:
    batch = pa.record_batch({"text": texts})
    chunk = chunk_of(batch, _TEXT, max_text_bytes=triager.policy.max_text_bytes)
    return measure(triager, chunk, STAGES)


def _violating(data: TrainingData, rows: int) -> npt.NDArray[np.int64]:
    """Rows that violate something, a sample of them: what is to be disguised."""
    violating = np.flatnonzero((data.labels == 1).any(axis=1))
    if len(violating) <= rows:
        return violating
    return np.sort(np.random.default_rng(SEED).choice(violating, rows, replace=False))


def disguised_rows(data: TrainingData) -> TrainingData:
    """The texts with half of their words written around a filter, one way for a whole text."""
    random = np.random.default_rng(SEED)
    ways = (leet, homoglyphs, spaced, zero_width)
    return replace(data, texts=[disguise(text, random, 0.5, ways) for text in data.texts])


def _cost(
    name: str,
    label: str,
    column: npt.NDArray[np.int8],
    given: Measured,
    rows: npt.NDArray[np.int64],
    veiled: Measured,
) -> Disguised:
    """AUPRC of a label by each stage, before and after; the same records in both.

    As many harmless rows are left out as violating ones, in proportion: what chance gives stays.
    """
    violating = rows[column[rows] == 1]
    share = len(violating) / max((column == 1).sum(), 1)
    kept = (column == 0) & (np.random.default_rng(SEED).random(len(column)) < share)
    kept[violating] = True
    found: Disguised = {}
    for stage in STAGES:
        k = OUTPUTS.index(label)
        before, after = given.probabilities[stage][:, k], given.probabilities[stage][:, k].copy()
        after[rows] = veiled.probabilities[stage][:, k]
        some = kept & ~np.isnan(before) & ~np.isnan(after)
        if len(np.unique(column[some])) == 2:
            areas = [bootstrap(column[some], p[some], 200, SEED)[0] for p in (before, after)]
            found[name, label, stage] = (areas[0], areas[1])
    return found


def peer(texts: list[str]) -> npt.NDArray[np.float64] | None:
    """The peer's probability of each text, (n,); None where it is not installed."""
    if find_spec("profanity_check") is None:
        return None
    from profanity_check import predict_prob

    return np.asarray(predict_prob(texts), np.float64)


# -- the page ----------------------------------------------------------------------------------


def page(
    lines: list[Evaluation],
    opinions: Opinions | None,
    costs: Disguised,
    fingerprints: Mapping[str, str],
    rows: int | None,
    resamples: int,
    again: str,
) -> str:
    """The whole page in Markdown; without ``opinions`` there is no column for the peer."""
    used = f"at most {rows:,} labelled rows of each" if rows else "all labelled rows of each"
    text = [
        "# Scoreboard",
        "",
        "Written by `make scoreboard`; do not edit. Sets that nothing was trained on, "
        f"{used}. [Evaluation](evaluation.md) says what the figures mean. These sets "
        "chose among finished candidates ([models](models.md), [calibration](calibration.md)); "
        "those named `_dev` are other parts of sets that training used; what was written for "
        "training follows the topics of `xstest`. In brackets: 95 % "
        f"intervals, those of areas from {resamples:,} bootstrap resamples.",
        "",
        "## AUPRC",
        "",
        "How well probabilities rank violating records above harmless ones: 1 is perfect, and the "
        "share of violating records is what chance gives. *own* is the probability of the label's "
        "category.",
        "",
        *_areas(lines, opinions),
        "",
        *_left_out(lines),
        "## Verdicts",
        "",
        "What the cascade does at the shipped thresholds, rules included. A record that is "
        "harmless by one label may violate another category, and be flagged for it. Accounts of "
        f"victims ({', '.join(ACCOUNTS)}) have no labels and count as harmless.",
        "",
        *_verdicts(lines),
        "",
        *_disguises(costs),
        "## What was measured",
        "",
        *_table(("part", "fingerprint"), ((k, f"`{v}`") for k, v in fingerprints.items())),
        "",
        f"To repeat it: `make scoreboard DATA=FOLDER{again}`, where FOLDER has the sets in `dev/`.",
        "",
    ]
    return "\n".join(text)


def _areas(lines: list[Evaluation], opinions: Opinions | None) -> Iterator[str]:
    header = ["set", "label", "n", "violating"]
    header += [f"{stage}, {what}" for stage in STAGES for what in ("own", "p_any")]
    header += [PEER] if opinions is not None else []
    rows = []
    for line in lines:
        if not 0 < line.positives < line.n:
            continue
        row = [line.file, line.label, f"{line.n:,}", f"{line.positives:,}"]
        areas = {
            (rank.stage, rank.probability): rank.figures.get("auprc") for rank in line.rankings
        }
        for stage in STAGES:
            own = None if line.label == ANY else areas[stage, f"p_{line.label}"]
            row += [area(own), area(areas[stage, f"p_{ANY}"])]
        if opinions is not None:
            row.append(area(opinions.get((line.file, line.label))))
        rows.append(row)
    return _table(header, rows)


def _left_out(lines: list[Evaluation]) -> list[str]:
    unscored = {line.file: max(rank.unscored for rank in line.rankings) for line in lines}
    told = [f"{count:,} of {name}" for name, count in unscored.items() if count]
    return [f"Not scored, and not in these figures: {', '.join(told)}.", ""] if told else []


def _verdicts(lines: list[Evaluation]) -> Iterator[str]:
    header = ["set", "label", "violating", "cleared", "flagged", "review"]
    header += ["harmless", "cleared", "flagged", "review"]
    rows = [
        [line.file, line.label, *_decided(line.violating), *_decided(line.harmless)]
        for line in lines
    ]
    return _table(header, rows)


def _disguises(costs: Disguised) -> list[str]:
    if not costs:
        return []
    rows = [
        [name, label, *(f"{area(a)} to {area(b)}, {b.value - a.value:+.3f}" for a, b in by_stage)]
        for name, label in dict.fromkeys((name, label) for name, label, _ in costs)
        if (by_stage := [costs[name, label, stage] for stage in STAGES])
    ]
    return [
        "## Disguised",
        "",
        "AUPRC of the label's own probability before and after violating texts were disguised: "
        "half of their words in leetspeak, in letters that look alike, spelled out, or cut by "
        "zero-width spaces. Harmless texts are as they were. A sample of both. Training saw other "
        "texts disguised in these ways.",
        "",
        *_table(("set", "label", *STAGES), rows),
        "",
    ]


def _decided(part: Shares | None) -> list[str]:
    assert part is not None
    return [f"{part.n:,}", *map(share, (part.clear, part.flag, part.review))]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield "|---" * len(header) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    main()
