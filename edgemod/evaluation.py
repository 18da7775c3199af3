"""How good the decisions are on records that people labelled.

A label is 1 (violates), 0 (does not) or unknown, written -1 here and null in files; a record
counts for the labels that it has. Two questions are asked of each label:

- Does a probability rank violating records above harmless ones, and what would come of it at some
  thresholds? Figures of the label's own probability and of ``p_any``, for each stage asked for.
- What becomes of violating and of harmless records? The shares cleared, flagged and sent to review
  by the whole cascade, rules included.

metrics.py defines the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgemod import formats, measuring, records, scoring, worker
from edgemod.calibration import FloatMatrix
from edgemod.crew import STALL_SECONDS
from edgemod.labels import UNSAFE, read_groups, read_labels
from edgemod.metrics import Estimate, Labels, Scores, figures, wilson
from edgemod.records import Chunk
from edgemod.scoring import StageName
from edgemod.sources import check_unchanged
from edgemod.triager import Triager
from edgemod.words import ANY, OUTPUTS, Verdict

STAGES: Final[tuple[StageName, ...]] = ("filter", "model", "cascade")


@dataclass(frozen=True)
class Ranking:
    """How well one probability of one stage ranks the records of a label.

    ``unscored`` records have no such probability and count in nothing else here. ``figures`` are
    those of ``metrics.figures``, none where violating or harmless records are missing.
    """

    stage: StageName
    probability: str
    n: int
    positives: int
    unscored: int
    figures: dict[str, Estimate]


@dataclass(frozen=True)
class Shares:
    """What the cascade did with n records: shares, None where there are no records."""

    n: int
    clear: Estimate | None
    flag: Estimate | None
    review: Estimate | None


@dataclass(frozen=True)
class Evaluation:
    """One label of one file: ``n`` records that have it, ``positives`` of them violating.

    ``group``: the value that these records have in the column asked for, None for all records.
    ``violating`` and ``harmless`` are None unless the cascade was asked for. ``fingerprints`` are
    those of policy, filter, model and calibration. ``quarantined``: the records of the file, with
    their status, that no worker could measure: unscored, and for review.
    """

    file: str
    label: str
    group: str | None
    n: int
    positives: int
    rankings: tuple[Ranking, ...]
    violating: Shares | None
    harmless: Shares | None
    fingerprints: dict[str, str]
    quarantined: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """What n records were given: float32 (n, 10) by stage, NaN where not scored, and verdicts.

    ``verdicts``: int8 (n,) of words.Verdict, None unless the cascade ran.
    """

    probabilities: dict[StageName, FloatMatrix]
    verdicts: npt.NDArray[np.int8] | None

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Measured:
        """What ``worker.measured`` gave."""
        probabilities = {stage: arrays[stage] for stage in STAGES if stage in arrays}
        return cls(probabilities, arrays.get("verdicts"))

    def take(self, rows: npt.NDArray[np.bool_]) -> Measured:
        """The records of a mask."""
        verdicts = None if self.verdicts is None else self.verdicts[rows]
        return Measured({stage: p[rows] for stage, p in self.probabilities.items()}, verdicts)


# -- one file ----------------------------------------------------------------------------------


def assess(
    file: str,
    labels: Mapping[str, Labels],
    measured: Measured,
    fingerprints: dict[str, str],
    *,
    flag_above: Mapping[str, npt.NDArray[np.float32]] | None = None,
    groups: npt.NDArray[np.object_] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Evaluation]:
    """Evaluate every label, int8 (n,) of 1, 0 and -1, that some of the n records have.

    ``flag_above``: thresholds (10,) by stage. ``groups`` (n,): each is evaluated by itself as well.
    Where nothing violates in the whole file, ``any`` is evaluated too: a record is harmless if it
    is so by each label that it has.
    """
    columns = {name: column for name, column in labels.items() if (column >= 0).any()}
    if columns and not {ANY, UNSAFE} & {*columns} and all((c <= 0).all() for c in columns.values()):
        columns[ANY] = np.max([*columns.values()], axis=0)
    never = np.full(len(OUTPUTS), np.inf, np.float32)
    flags = {stage: (flag_above or {}).get(stage, never) for stage in measured.probabilities}
    evaluation = partial(
        _evaluation, file, fingerprints=fingerprints, flags=flags, resamples=resamples, seed=seed
    )
    found = []
    for name, column in columns.items():
        found.append(evaluation(name, None, column, measured))
        for group in [] if groups is None else np.unique(groups):
            rows = (groups == group) & (column >= 0)
            if rows.any():
                found.append(evaluation(name, str(group), column[rows], measured.take(rows)))
    return found


def _evaluation(
    file: str,
    name: str,
    group: str | None,
    column: Labels,
    measured: Measured,
    *,
    fingerprints: dict[str, str],
    flags: Mapping[StageName, npt.NDArray[np.float32]],
    resamples: int,
    seed: int,
) -> Evaluation:
    own = ANY if name == UNSAFE else name
    return Evaluation(
        file=file,
        label=name,
        group=group,
        n=int((column >= 0).sum()),
        positives=int((column == 1).sum()),
        rankings=tuple(
            _ranking(stage, output, column, p[:, k], float(flags[stage][k]), resamples, seed)
            for stage, p in measured.probabilities.items()
            for output in dict.fromkeys((own, ANY))
            for k in [OUTPUTS.index(output)]
        ),
        violating=_shares(measured, column == 1),
        harmless=_shares(measured, column == 0),
        fingerprints=fingerprints,
    )


def _ranking(
    stage: StageName,
    output: str,
    column: Labels,
    p: Scores,
    flag_above: float,
    resamples: int,
    seed: int,
) -> Ranking:
    known = column >= 0
    scored = known & ~np.isnan(p)
    n, positives = int(scored.sum()), int((column[scored] == 1).sum())
    found: dict[str, Estimate] = {}
    if 0 < positives < n:
        found = figures(column[scored], p[scored], flag_above, resamples, seed)
    return Ranking(stage, f"p_{output}", n, positives, int(known.sum()) - n, found)


def _shares(measured: Measured, rows: npt.NDArray[np.bool_]) -> Shares | None:
    if measured.verdicts is None:
        return None
    n, count = int(rows.sum()), np.bincount(measured.verdicts[rows], minlength=len(Verdict))
    return Shares(n, **{v.name: wilson(int(count[v]), n) for v in Verdict})


# -- running the models ------------------------------------------------------------------------


def measure(triager: Triager, chunk: Chunk, stages: Sequence[StageName]) -> Measured:
    """Score a chunk of flat records or conversations by each stage; the cascade decides them too.

    Raises ModelError if ``model`` is asked of a triager without one.
    """
    return Measured.of(worker.measured(triager, chunk, stages))


def join(parts: Sequence[Measured]) -> Measured:
    """Parts end to end; there is at least one."""
    first = parts[0]
    return Measured(
        {s: np.concatenate([part.probabilities[s] for part in parts]) for s in first.probabilities},
        None
        if first.verdicts is None
        else np.concatenate([part.verdicts for part in parts if part.verdicts is not None]),
    )


def evaluate(
    inputs: str | Path | Sequence[str | Path],
    *,
    text: str | Sequence[str] = (),
    labels: Sequence[str] | None = None,
    by: str | None = None,
    stages: Sequence[StageName] = ("cascade",),
    rows: int | None = None,
    seed: int = 0,
    resamples: int = 1000,
    policy: str | Path | None = None,
    model: str | None = "default",
    calibration: str | Path | None = None,
    workers: int = 1,
    stall_seconds: float = STALL_SECONDS,
    on_notice: Callable[[str], None] | None = None,
    on_measured: Callable[[str, str, Labels, dict[str, Scores]], object] | None = None,
) -> list[Evaluation]:
    """Evaluate the stages on labelled Parquet files, file by file and label by label.

    ``inputs``: files, folders or globs. ``text``: the text column or several, guessed where not
    given. ``labels``: columns named after categories, ``any`` or ``unsafe``, by default those that
    a file has. ``by``: a column whose groups are evaluated by themselves as well. ``rows``: at most
    so many labelled records of each file, a sample by ``seed``. ``resamples`` of the bootstrap, at
    least 1. ``workers``: processes, each with its own models; a record that ends or hangs them is
    named in ``Evaluation.quarantined``. ``stall_seconds`` as in ``edgemod.triage``. ``on_notice``
    is told what was guessed, ``on_measured`` the file, label, answers and own probabilities by
    stage of each label that has both answers.
    Labels of all files are checked before anything is scored. Memory holds the labels of all files,
    and of one file probabilities and verdicts; texts are read a few hundred records at a time.

    Raises InputError for a file that is not Parquet, a text or label column that is missing, a
    value that is not a label, a file without a labelled record or one that changes; ModelError if
    there is no language model for the stage ``model``; PolicyError and CalibrationError as Triager
    does.
    """
    sources = records.discover([inputs] if isinstance(inputs, str | Path) else inputs)
    columns = records.resolve_columns(sources, text=(text,) if isinstance(text, str) else text)
    answers = {source: read_labels(source, labels) for source in sources}
    groups = {source: read_groups(source, by) for source in sources} if by else {}
    if on_notice:
        for notice in scoring.text_notices(columns):
            on_notice(notice)

    chosen_model = None if {*stages} == {"filter"} else model
    names = [name for name in (*columns.text, columns.conversation) if name]
    with Triager(policy, chosen_model, calibration=calibration) as triager:
        fingerprints = triager.fingerprints()
        flag_above = {str(stage): triager.limits(stage).flag_above for stage in stages}
    found: list[Evaluation] = []
    with measuring.Measurers(
        "evaluate", tuple(stages), policy, chosen_model, calibration, workers, stall_seconds
    ) as measurers:
        measurers.check(fingerprints)
        for source, given in answers.items():
            chosen = _chosen(given, rows, seed)
            earlier = len(measurers.quarantined)
            units = measuring.in_units(formats.only(formats.rows(source, names), chosen))
            whole = join([Measured.of(arrays) for _, arrays in measurers.map(units, columns)])
            check_unchanged(source)
            quarantined = measurers.quarantined[earlier:]
            if quarantined and on_notice:
                on_notice(measuring.told(quarantined))
            for name, column in given.items():
                k = OUTPUTS.index(ANY if name == UNSAFE else name)
                own: dict[str, Scores] = {s: p[:, k] for s, p in whole.probabilities.items()}
                if on_measured and {0, 1} <= {*column[chosen].tolist()}:
                    on_measured(source.path, name, column[chosen], own)
            lines = assess(
                source.path,
                {name: column[chosen] for name, column in given.items()},
                whole,
                fingerprints,
                flag_above=flag_above,
                groups=groups[source][chosen] if by else None,
                resamples=resamples,
                seed=seed,
            )
            found += [replace(line, quarantined=tuple(quarantined)) for line in lines]
    return found


def _chosen(labels: Mapping[str, Labels], most: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Rows that have a label, or a sample of them, ascending."""
    rows = np.flatnonzero(np.max([*labels.values()], axis=0) >= 0)
    if most is None or len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
