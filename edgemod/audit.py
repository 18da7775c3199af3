"""What nobody reviewed: a sample of a finished run with known chances, and what its labels say.

``sample`` draws records of every verdict. Half of the sample is drawn alike, so that each record
has a chance. A quarter goes to what was flagged, all of it alike: flags are few and the models are
sure of them, so that else hardly one would be drawn and nothing be known of wrong ones. The rest is
drawn by how much a label would tell, sqrt(p (1 - p)) of the probability of ``any``, which is what
makes estimates of shares most precise (Neyman 1934, "On the two different aspects of the
representative method"). Each record is drawn or not by itself (Poisson sampling), so a sample has
about as many records as asked for.

``report`` turns labels of such a sample into shares of the whole run: each record stands for the
inverse of its chance (Hajek 1971). Intervals are exact for any n (bounds.py), and so wider than
those that trust in a large n.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from edgemod import bounds, encryption, originals, privacy, review, run_folder
from edgemod.bounds import Drawn
from edgemod.errors import InputError, OutputError
from edgemod.labels import (
    INCLUSION,
    UNSAFE,
    read_groups,
    read_inclusion,
    read_labels,
    read_values,
)
from edgemod.metrics import Estimate
from edgemod.parts import open_part, write_part
from edgemod.policy import policy_of_run
from edgemod.review import ReviewSummary
from edgemod.sources import discover
from edgemod.triager import DECISIONS
from edgemod.words import ANY, OUTPUTS, Verdict

FORMATS: Final = ("parquet", "csv", "jsonl")
"""Of samples. Not Label Studio's, whose tasks say what the models think."""
FLOOR: Final = 0.5
"""Share of a sample that is drawn alike from all records."""
FLAGS: Final = 0.25
"""Share of a sample that is drawn from the flagged records, beside those of ``FLOOR``."""

Floats = npt.NDArray[np.float64]


def chances(
    p: npt.NDArray[np.floating[Any]], flagged: npt.NDArray[np.bool_], n: int
) -> tuple[Floats, Floats]:
    """The chance of each record with probabilities ``p`` (N,) to come into a sample of about n, and
    the least chance that any record flagged as it is, or not, has.

    NaN, no probability, counts as one half: nothing is known of it.
    """
    flags, least = int(flagged.sum()), n * FLOOR / max(len(p), 1)
    for_flags = min((FLAGS if flags < len(p) else 1 - FLOOR) * n, flags)
    telling = np.where(flagged, 0, np.sqrt(np.where(np.isnan(p), 0.25, p * (1 - p))))
    total = float(telling.sum())
    by_score = telling / total if total else ~flagged / max(len(p) - flags, 1)
    floors = np.minimum(least + np.where(flagged, for_flags / max(flags, 1), 0), 1.0)
    return np.minimum(floors + (n * (1 - FLOOR) - for_flags) * by_score, 1.0), floors


# -- drawing -----------------------------------------------------------------------------------


def sample(
    run: str | Path,
    out: str | Path,
    *,
    n: int = 500,
    seed: int = 0,
    format: str = "parquet",
    policy: str | Path | None = None,
) -> ReviewSummary:
    """Draw about ``n`` records of a complete run and write them to the new folder ``out``.

    They have the columns of the review queue, their verdict, ``inclusion_probability`` and
    ``inclusion_floor``, in one of ``FORMATS`` and by chance in order. Equal seeds, 0 or more, draw
    equal samples. ``policy``: that of the run, if it is not where it was. The input must be where
    it was, unchanged: decisions hold no text. Memory holds the probabilities of all records and the
    sample.

    Raises RunError if ``run`` is no complete run, InputError if its input is gone or has changed or
    an argument is out of range, OutputError if ``out`` is not empty or cannot be written.
    """
    run, out = Path(run), Path(out)
    for wrong, what in (
        (n < 1, f"a sample of {n} records"),
        (seed < 0, f"the seed is {seed}"),
        (format not in FORMATS, f"no format {format!r} for samples"),
    ):
        if wrong:
            raise InputError(what, where="audit sample", fix=f"Formats: {', '.join(FORMATS)}.")
    encryption.check_format(format, "audit sample")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(
            "is there already",
            where=str(out),
            fix="Name a new folder: labels may be in this one.",
        )
    state = run_folder.complete_state(run)
    of_run = policy_of_run(policy, state)
    sources, columns = originals.inputs(state), originals.columns(state)
    if state["plan"].get("pseudonyms"):
        columns = replace(columns, thread=None)
    parts = run_folder.parts(run, state)
    decided = [_decided(part) for part in parts]
    p = np.concatenate([np.zeros(0, np.float32), *(of_part for of_part, _ in decided)])
    flagged = np.concatenate([np.zeros(0, bool), *(of_part for _, of_part in decided)])
    chance, floors = chances(p, flagged, n)
    drawn = np.flatnonzero(np.random.default_rng(seed).random(len(p)) < chance)
    decisions, inclusion, least = _drawn(parts, drawn), chance[drawn], floors[drawn]
    with tempfile.TemporaryDirectory(prefix="edgemod-") as folder:
        files: list[Path] = []
        for chunk, rows in originals.chunks(decisions, sources, columns, of_run):
            whole = np.arange(len(rows))
            table = review.queued(
                chunk, decisions.take(rows), of_run, whole, inclusion[rows], least[rows]
            )
            if state["plan"].get("redact_pii"):
                table = privacy.redact(table)
            order = np.random.default_rng([seed, len(files)]).random(len(rows))
            at = table.column_names.index("priority")
            table = table.set_column(at, "priority", pa.array(order, pa.float32()))
            files.append(Path(folder) / f"{len(files):06d}.parquet")
            write_part(table, files[-1])
        return review.export(files, out, format=format)


def _decided(part: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The probabilities of ``any`` of a part, NaN where there is none, and what was flagged."""
    with open_part(part) as file:
        table = file.read([f"p_{ANY}", "verdict"])
    p, verdict = (column.to_numpy(zero_copy_only=False) for column in table.columns)
    return np.asarray(p, np.float32), verdict == Verdict.flag.name


def _drawn(parts: Sequence[Path], drawn: npt.NDArray[np.int64]) -> pa.Table:
    """The drawn decisions, in order."""
    found, start = [DECISIONS.empty_table()], 0
    for part in parts:
        with open_part(part) as file:
            stop = start + file.metadata.num_rows
            rows = drawn[(drawn >= start) & (drawn < stop)]
            if len(rows):
                found.append(file.read().take(pa.array(rows - start)).cast(DECISIONS))
            start = stop
    return pa.concat_tables(found).combine_chunks()


# -- what the labels say -----------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """A share of the run's records, estimated from ``n`` labelled ones; None where n is 0.

    ``what`` is one of:

    - ``violate``: of all records, those that violate (prevalence);
    - ``missed``: of the records that violate, those that were cleared;
    - ``violate among cleared``: of the cleared records, those that violate;
    - ``wrong flags``: of the records flagged (for the category), those that do not violate it.
    """

    what: str
    label: str
    n: int
    share: Estimate | None


def report(inputs: str | Path | Sequence[str | Path]) -> list[Share]:
    """Estimate shares of a run from the labels of its sample, 95 % intervals, label by label.

    ``inputs``: Parquet files that ``sample`` wrote, with label columns added. Raises InputError for
    a file without labels, verdicts or inclusion probabilities.
    """
    sources = discover([inputs] if isinstance(inputs, str | Path) else inputs)
    labels: dict[str, list[npt.NDArray[np.int8]]] = {}
    verdicts, categories, weights, heaviest = [], [], [], []
    places: list[tuple[str, str]] = []
    for source in sources:
        given = read_labels(source, None)
        inclusion = read_inclusion(source)
        if inclusion is None:
            raise InputError(
                f"has no column {INCLUSION}",
                where=source.path,
                fix="Label a file of 'edgemod audit sample' and keep its columns.",
            )
        verdicts.append(read_groups(source, "verdict"))
        categories.append(read_groups(source, "category"))
        places += zip(read_values(source, "source"), read_values(source, "source_row"), strict=True)
        weights.append(1 / inclusion.chance)
        heaviest.append(1 / inclusion.floors)
        for name in OUTPUTS:
            column = given.get(name, given.get(UNSAFE) if name == ANY else None)
            missing = np.full(len(inclusion.chance), -1, np.int8)
            labels.setdefault(name, []).append(missing if column is None else column)
    verdict, category = np.concatenate(verdicts), np.concatenate(categories)
    _check(verdict, places)
    weight, heavy = np.concatenate(weights), np.concatenate(heaviest)
    found = []
    for name in OUTPUTS:
        label = np.concatenate(labels[name])
        if not (label >= 0).any():
            continue
        known, cleared = label >= 0, verdict == Verdict.clear.name
        flagged = (verdict == Verdict.flag.name) & ((category == name) | (name == ANY))
        for what, rows, hits in (
            ("violate", known, label == 1),
            ("missed", label == 1, cleared),
            ("violate among cleared", known & cleared, label == 1),
            ("wrong flags", known & flagged, label == 0),
        ):
            drawn: Drawn | None = Drawn(weight[rows], float(heavy.max(initial=1.0)))
            if what == "wrong flags" and (weight[rows] == heavy[rows]).all():
                drawn = None  # as ``sample`` draws them: all alike
            found.append(Share(what, name, int(rows.sum()), _share(hits[rows], drawn)))
    return found


def _check(verdict: npt.NDArray[np.object_], places: Sequence[tuple[str, str]]) -> None:
    """Raise InputError unless these are records of a sample, each there once."""
    for wrong, what in (
        (not {*verdict.tolist()} <= {v.name for v in Verdict}, "has verdicts that are none"),
        ((verdict == Verdict.review.name).all(), "holds nothing but records for review"),
        (len({*places}) < len(places), "holds a record twice"),
    ):
        if wrong:
            raise InputError(
                f"{what}: it is no sample",
                where="audit report",
                fix="Give files of 'edgemod audit sample', with label columns, each once.",
            )


def _share(hits: npt.NDArray[np.bool_], drawn: Drawn | None) -> Estimate | None:
    """The weighted share of hits and an interval that holds for any n."""
    if not len(hits):
        return None
    value = float(np.average(hits, weights=None if drawn is None else drawn.weights))
    low, high = 1 - bounds.bound(~hits, 0.025, drawn), bounds.bound(hits, 0.025, drawn)
    return Estimate(value, min(low, value), max(high, value))
