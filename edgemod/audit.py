"""What nobody reviewed: a sample of a finished run with known chances, and what its labels say.

``sample`` draws records of every verdict. Half of the sample is drawn alike, so that each record
has a chance; the other half by how much a label would tell, sqrt(p (1 - p)) of the probability of
``any``, which is what makes estimates of shares most precise (Neyman 1934, "On the two different
aspects of the representative method"). Each record is drawn or not by itself (Poisson sampling), so
a sample has about as many records as asked for.

``report`` turns labels of such a sample into shares of the whole run: each record stands for the
inverse of its chance (Hajek 1971). Intervals are exact for any n (bounds.py), and so wider than
those that trust in a large n.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from edgemod import bounds, originals, review, run_folder
from edgemod.errors import InputError
from edgemod.labels import INCLUSION, UNSAFE, read_groups, read_inclusion, read_labels
from edgemod.metrics import Estimate
from edgemod.parts import write_part
from edgemod.policy import Policy, load_policy
from edgemod.review import ReviewSummary
from edgemod.sources import discover
from edgemod.words import ANY, OUTPUTS, Verdict

FLOOR: Final = 0.5
"""Share of a sample that is drawn alike from all records."""

Floats = npt.NDArray[np.float64]


def chances(p: npt.NDArray[np.floating[Any]], n: int) -> Floats:
    """The chance of each record with probabilities ``p`` (N,) to come into a sample of about n.

    NaN, no probability, counts as one half: nothing is known of it.
    """
    telling = np.sqrt(np.where(np.isnan(p), 0.25, p * (1 - p)))
    total = float(telling.sum())
    by_score = telling / total if total else np.full(len(p), 1 / max(len(p), 1))
    return np.minimum(n * (FLOOR / max(len(p), 1) + (1 - FLOOR) * by_score), 1.0)


# -- drawing -----------------------------------------------------------------------------------


def sample(
    run: str | Path,
    out: str | Path,
    *,
    n: int = 500,
    seed: int = 0,
    format: str = "parquet",
    policy: Policy | str | Path | None = None,
) -> ReviewSummary:
    """Draw about ``n`` records of a complete run and write them to the folder ``out``.

    They have the columns of the review queue, their verdict and ``inclusion_probability``, in one
    of its formats and by chance in order. Equal seeds draw equal samples. ``policy``: the one that
    the run was made with. The input must be where it was, unchanged: decisions hold no text.

    Raises RunError if ``run`` is no complete run, InputError if its input is gone or has changed or
    ``n`` is less than 1, OutputError if ``out`` cannot be written.
    """
    run = Path(run)
    if not isinstance(policy, Policy):
        policy = load_policy(None if policy is None else Path(policy))
    if n < 1:
        raise InputError(f"a sample of {n} records", where="-n", fix="Draw one or more.")
    state = run_folder.complete_state(run)
    if policy.fingerprint != state["plan"]["policy"]:
        raise InputError(
            "is another policy than that of the run",
            where="--policy",
            fix="Name the one that the run was made with.",
        )
    sources = originals.inputs(state)
    parts = sorted((run / "decisions").glob("part-*.parquet"))
    p = np.concatenate([np.zeros(0, np.float32), *(_column(part) for part in parts)])
    chance = chances(p, n)
    drawn = np.flatnonzero(np.random.default_rng(seed).random(len(p)) < chance)
    columns = originals.columns(state)
    with tempfile.TemporaryDirectory(prefix="edgemod-") as folder:
        files: list[Path] = []
        for decisions, inclusion in _drawn(parts, drawn, chance):
            for number, piece in enumerate(originals.chunks(decisions, sources, columns, policy)):
                chunk, rows = piece
                table = review.queued(
                    chunk, decisions.take(rows), policy, np.arange(len(rows)),
                    inclusion[rows],
                )  # fmt: skip
                order = np.random.default_rng([seed, len(files), number]).random(len(rows))
                at = table.column_names.index("priority")
                table = table.set_column(at, "priority", pa.array(order, pa.float32()))
                files.append(Path(folder) / f"{len(files):06d}.parquet")
                write_part(table, files[-1])
        return review.export(files, Path(out), format=format)


def _column(part: Path) -> npt.NDArray[np.float32]:
    """The probabilities of ``any`` of a part, NaN where there is none."""
    with pq.ParquetFile(part) as file:
        column = file.read([f"p_{ANY}"])[0]
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float32)


def _drawn(
    parts: Sequence[Path], drawn: npt.NDArray[np.int64], chance: Floats
) -> Iterator[tuple[pa.Table, Floats]]:
    """The drawn decisions of each part, and their chances."""
    start = 0
    for part in parts:
        with pq.ParquetFile(part) as file:
            stop = start + file.metadata.num_rows
            rows = drawn[(drawn >= start) & (drawn < stop)]
            if len(rows):
                yield file.read().take(pa.array(rows - start)), chance[rows]
            start = stop


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
    verdicts, categories, weights = [], [], []
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
        weights.append(1 / inclusion)
        for name in OUTPUTS:
            column = given.get(name, given.get(UNSAFE) if name == ANY else None)
            missing = np.full(len(inclusion), -1, np.int8)
            labels.setdefault(name, []).append(missing if column is None else column)
    verdict, category = np.concatenate(verdicts), np.concatenate(categories)
    weight = np.concatenate(weights)
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
            found.append(Share(what, name, int(rows.sum()), _share(hits[rows], weight[rows])))
    return found


def _share(hits: npt.NDArray[np.bool_], weights: Floats) -> Estimate | None:
    """The weighted share of hits and an interval that holds for any n."""
    if not len(hits):
        return None
    of = None if (weights == weights[0]).all() else weights
    value = float(np.average(hits, weights=weights))
    low, high = 1 - bounds.bound(~hits, 0.025, of), bounds.bound(hits, 0.025, of)
    return Estimate(value, min(low, value), max(high, value))
