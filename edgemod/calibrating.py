"""``calibrate()``: a user's labels to a calibration with a certificate, or a plain "not certified".

Reads the labels, runs the models as a triage would, and writes what certificate.py finds.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from edgemod import calibration as calibrations
from edgemod import drift, formats, measuring, records, scoring
from edgemod.bounds import Drawn
from edgemod.certificate import Case, Found, Goal, find
from edgemod.crew import STALL_SECONDS
from edgemod.decide import Evidence
from edgemod.errors import InputError
from edgemod.labels import UNSAFE, Inclusion, read_groups, read_inclusion, read_labels
from edgemod.metrics import Labels
from edgemod.parts import check_target, write_bytes
from edgemod.records import Columns
from edgemod.sources import Source, check_unchanged
from edgemod.triager import Examined, Triager
from edgemod.words import ANY, OUTPUTS, counted

UNCERTIFIED: Final = ("review", "default")
MOST_STRATA: Final = 50


@dataclass(frozen=True)
class Calibrated:
    """What ``calibrate`` found and wrote."""

    found: Found
    labels: dict[str, tuple[int, int]]
    """Records that violate and that do not, by label."""
    note: str
    certificate: dict[str, Any]
    quarantined: tuple[str, ...] = ()
    """Records that no worker could measure, with their status; they go to review."""


def calibrate(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    text: str | Sequence[str] = (),
    conversation: str | None = None,
    context: str | None = None,
    labels: Sequence[str] | None = None,
    by: str | None = None,
    max_miss_rate: float | None = None,
    max_false_flag_rate: float = 0.05,
    delta: float = 0.05,
    review_budget: float | None = None,
    uncertified: str = "review",
    seed: int = 0,
    policy: str | Path | None = None,
    model: str | None = "default",
    calibration: str | Path | None = None,
    workers: int = 1,
    stall_seconds: float = STALL_SECONDS,
    on_notice: Callable[[str], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Calibrated:
    """Fit a calibration to labelled Parquet files, certify what it can, and write it to ``out``.

    ``labels``: columns of 1, 0 and null named after categories, ``any`` or ``unsafe``; by default
    those that the files have. Where no column says ``any``, a record with labels of all categories
    of the policy violates it if it violates one of them; with fewer labels nothing is claimed of
    ``any``. Columns ``inclusion_probability`` and ``inclusion_floor`` are the chance that each
    record had of being drawn and the least that any had; without them all are taken to be drawn
    alike. ``by``: a column of at most ``MOST_STRATA`` strata, for each of which the miss rates
    shall hold. ``max_miss_rate``: 0.02 where neither it nor a budget is given. The other names as
    in ``certificate.Goal`` and ``edgemod.triage``; ``uncertified`` as in ``certificate.find``.
    A record that ends or hangs the processes that read it counts as it would in a run: it goes to
    review. ``on_progress`` is told how many records of how many the models have read. ``seed`` of
    the halving: choose it once, since the best of several tries proves nothing.

    Raises InputError for a file, column, label or share that will not do; PolicyError, ModelError
    and CalibrationError as Triager does; OutputError if ``out`` cannot be written.
    """
    if max_miss_rate is None and review_budget is None:
        max_miss_rate = 0.02
    goal = Goal(max_miss_rate, max_false_flag_rate, delta, review_budget)
    goal.check()
    if uncertified not in UNCERTIFIED:
        raise InputError(f"uncertified is {uncertified!r}", fix=f"Choose of {UNCERTIFIED}.")
    if uncertified != "review" and review_budget is not None:
        raise InputError(
            "does nothing with a review budget: the budget alone says how much is cleared",
            where="--uncertified default",
            fix="Leave it out, or give --max-miss-rate instead of --review-budget.",
        )
    sources = records.discover([inputs] if isinstance(inputs, str | Path) else inputs)
    check_target(Path(out), [source.file for source in sources])
    columns = records.resolve_columns(
        sources,
        text=(text,) if isinstance(text, str) else text,
        conversation=conversation,
        context=context,
    )
    answers = [read_labels(source, labels) for source in sources]
    inclusion = [read_inclusion(source) for source in sources]
    strata = _strata(sources, by, columns) if by else None
    if any(part is None for part in inclusion) and not all(part is None for part in inclusion):
        without = next(s.path for s, part in zip(sources, inclusion, strict=True) if part is None)
        raise InputError(
            "has no column inclusion_probability, which other files have",
            where=without,
            fix="Calibrate on files that were drawn in one way.",
        )
    if on_notice:
        for notice in scoring.text_notices(columns):
            on_notice(notice)
    with Triager(policy, model, calibration=calibration) as first:
        matrix, names = joined_labels(answers, [c.name for c in first.policy.categories])
        kept = np.asarray((matrix >= 0).any(axis=1))
        if not {"filter", "model"} & {*first.policy.stages}:
            raise InputError(
                "runs neither filter nor model",
                where="policy",
                fix="There is nothing to calibrate: name one of them in its stages.",
            )
        if first.calibration.certificate is not None:
            raise InputError(
                "was itself made by 'edgemod calibrate'",
                where=str(calibration),
                fix="Start from the shipped one: leave --calibration out.",
            )
        measurers = measuring.Measurers(
            "calibrate", ("examine",), policy, model, calibration, workers, stall_seconds
        )
        with measurers:
            measurers.check(first.fingerprints())
            examined, dates = _examined(
                measurers, sources, columns, kept, on_progress or (lambda *_: None)
            )
        if measurers.quarantined and on_notice:
            on_notice(measuring.told(measurers.quarantined))
        case = Case(
            examined=examined,
            labels=matrix[kept],
            asked=_asked(first, names, matrix[kept], on_notice),
            policy=first.policy,
            calibration=first.calibration,
            answers=tuple(OUTPUTS if first.model is None else first.model.answers),
            has_model=first.model is not None,
            drawn=_drawn(inclusion, kept),
            strata=None if strata is None else strata[kept],
        )
        choosing = np.random.default_rng(seed).permutation(len(case.labels)) % 2 == 0
        found = find(case, choosing, goal, uncertified=uncertified)
        counts = {
            name: (int((column == 1).sum()), int((column == 0).sum()))
            for name, column in zip(OUTPUTS, case.labels.T, strict=True)
            if name in case.asked
        }
        within = goal.review_budget is None or found.shares["review"] <= goal.review_budget
        note = _note(found, goal, len(case.labels))
        certificate = {
            "method": "half of the labels to choose, half to test: intersection-union tests of "
            "every claim in a fixed sequence of settings, "
            + ("exact binomial" if case.drawn is None else "bets on weighted records"),
            "means": {
                "miss": "share of the records that violate which the run clears",
                "false flag": "share of the records that the run flags which do not violate",
            },
            "goal": dataclasses.asdict(goal),
            "holds": all(risk.certified for risk in found.risks) and within,
            "review budget kept": within,
            "risks": [dataclasses.asdict(risk) for risk in found.risks],
            "verdicts": found.shares,
            "policy": first.policy.fingerprint,
            "model": first.model.fingerprint if first.model else "none",
            "labels": {
                "files": records.fingerprint(sources),
                "records": len(case.labels),
                "from, to": dates,
                "violate, do not": counts,
                "drawn by known chances": case.drawn is not None,
                "columns": [*columns.text, *filter(None, (columns.conversation, context))],
                "strata": by,
                "seed": seed,
            },
            "not asked": sorted(case.held_by(case.last) - {*case.asked}),
            "scores": _histogram(case),
        }
        base = first.calibration
        document = calibrations.document_of(
            replace(
                base,
                note=note,
                limits=found.limits,
                curves=found.curves,
                reading=base.reading or base.limits["filter"],
                certificate=certificate,
            )
        )
    document["made"] = datetime.now(UTC).date().isoformat()
    write_bytes(Path(out), (json.dumps(document, indent=1) + "\n").encode())
    calibrations.Calibration.load(Path(out))
    return Calibrated(found, counts, note, certificate, tuple(measurers.quarantined))


def _strata(sources: Sequence[Source], by: str, columns: Columns) -> npt.NDArray[np.object_]:
    """The stratum of each record, (n,)."""
    named = (columns.conversation, columns.id, columns.thread, columns.author, columns.context)
    if by in (*columns.text, *named):
        raise InputError(
            f"'{by}' is no column of groups",
            where="--by",
            fix="Name a language, a channel, a kind: what is in it goes into the file.",
        )
    found = np.concatenate([read_groups(source, by) for source in sources])
    if len(np.unique(found)) > MOST_STRATA:
        raise InputError(
            f"'{by}' has {len(np.unique(found)):,} groups, more than {MOST_STRATA}",
            where="--by",
            fix="Each needs labels enough of its own: join them into fewer.",
        )
    return found


def joined_labels(
    answers: Sequence[dict[str, Labels]], categories: Sequence[str]
) -> tuple[Labels, set[str]]:
    """The labels of all files as one matrix (n, 10), and the outputs that have some.

    What violates ``any`` is what a column says or, where none does, what is known of all
    ``categories``: of half of them a violation is known and harmlessness is not.
    """
    parts, names = [], set()
    for given in answers:
        rows = len(next(iter(given.values())))
        matrix = np.full((rows, len(OUTPUTS)), -1, np.int8)
        for name, column in given.items():
            k = OUTPUTS.index(ANY if name == UNSAFE else name)
            matrix[:, k] = np.maximum(matrix[:, k], column)
            if (column >= 0).any():
                names.add(OUTPUTS[k])
        parts.append(matrix)
    labels = np.concatenate(parts)
    if ANY not in names and {*categories} <= names:
        each = labels[:, [OUTPUTS.index(name) for name in categories]]
        known = (each >= 0).all(axis=1)
        labels[known, -1] = (each[known] == 1).any(axis=1)
        names.add(ANY)
    return labels, names


def _asked(
    triager: Triager, names: set[str], labels: Labels, on_notice: Callable[[str], None] | None
) -> tuple[str, ...]:
    """Outputs to certify: with labels of either kind, and known to the policy and the model."""
    tell = on_notice or (lambda _: None)
    enabled = {ANY} | {category.name for category in triager.policy.categories}
    if triager.model is not None:
        enabled &= {ANY, *triager.model.answers}
    asked, none = [], []
    for name, column in zip(OUTPUTS, labels.T, strict=True):
        if name not in names:
            continue
        if name not in enabled:
            tell(f"labels of {name} are left out: neither policy nor model asks about it")
        elif not (column == 1).any():
            none.append(name)
        elif not (column == 0).any():
            tell(f"no labelled record is known not to violate {name}: it is left out")
        else:
            asked.append(name)
    if none:
        tell(f"no labelled record violates {', '.join(none)}: nothing is claimed of these")
    if not asked:
        raise InputError(
            "no category has labelled records of either kind, violating and not",
            where="calibrate",
            fix="Label more records; null is unknown, so write 0 for those that do not violate.",
        )
    return tuple(asked)


def _drawn(inclusion: Sequence[Inclusion | None], kept: npt.NDArray[np.bool_]) -> Drawn | None:
    """How the kept records were drawn; None where no file says."""
    parts = [part for part in inclusion if part is not None]
    if not parts:
        return None
    chance = np.concatenate([part.chance for part in parts])
    return Drawn(1 / chance[kept], 1 / min(part.floor for part in parts))


def _examined(
    measurers: measuring.Measurers,
    sources: Sequence[Source],
    columns: Columns,
    kept: npt.NDArray[np.bool_],
    on_progress: Callable[[int, int], None],
) -> tuple[Examined, list[str]]:
    """Everything the models say of the kept records, in order, and their first and last time."""
    names = [name for name in (*columns.text, columns.conversation, columns.time) if name]
    columns = replace(columns, id=None, thread=None, author=None)
    times: list[str] = []

    parts: list[measuring.Arrays] = []
    start = read = 0
    for source in sources:
        count = source.rows or 0
        rows = np.flatnonzero(kept[start : start + count])
        start += count
        units = measuring.in_units(formats.only(formats.rows(source, names), rows))
        for run, arrays in measurers.map(units, columns):
            found = pc.min_max(records.records_of(run, columns)["time"]).as_py()
            times.extend(time for time in found.values() if time is not None)
            parts.append({**arrays, "owner": arrays["owner"] + np.int32(read)})
            read += run.count
            on_progress(read, int(kept.sum()))
        check_unchanged(source)
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    owner, failed = whole.pop("owner"), whole.pop("failed")
    named: dict[str, Any] = {"filter": None, "model": None, **whole}
    evidence = Evidence(**named)
    return Examined(evidence, owner, failed, read), [min(times), max(times)] if times else []


def _histogram(case: Case) -> dict[str, Any] | None:
    """How the filter's probabilities of ``any`` are spread over the labelled records, all and by
    stratum."""
    if "filter" not in case.greatest:
        return None
    p = case.greatest["filter"][:, -1]
    weights = np.ones(len(p)) if case.drawn is None else case.drawn.weights
    rows = np.isfinite(p)
    if not rows.any():
        return None
    strata = {}
    for name in case.groups:
        of = rows & (case.strata == name)
        if of.any():
            strata[name] = drift.spread(p[of], weights[of])
    return {**drift.spread(p[rows], weights[rows]), "strata": strata}


def _note(found: Found, goal: Goal, n: int) -> str:
    sure = f"{100 * (1 - goal.delta):.4g} % sure"
    if goal.max_miss_rate is None:
        worst = max((r.bound for r in found.risks if r.side == "miss" and r.n), default=1.0)
        percent = math.ceil(1000 * worst) / 10  # a bound is not rounded down
        return (
            f"from {counted(n, 'label')}, {sure}: at most {percent} % of violating records "
            f"cleared, {found.shares['review']:.1%} for review"
        )
    sides = []
    for side, most, what in (
        ("miss", goal.max_miss_rate, "of violating records cleared"),
        ("false flag", goal.max_false_flag_rate, "of flags wrong"),
    ):
        risks = [r for r in found.risks if r.side == side]
        if all(r.certified for r in risks):
            sides.append(f"at most {100 * most:.4g} % {what}")
        else:
            left = ", ".join(dict.fromkeys(r.category for r in risks if not r.certified))
            sides.append(f"not certified: {side} rates of {left}")
    return f"from {counted(n, 'label')}, {sure}: {'; '.join(sides)}"
