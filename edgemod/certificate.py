"""Labelled records to thresholds and the risks that they are proved to keep. Pure.

The user states two risks they accept, each a share, and how sure they want to be:

- *miss*: of the records that violate (a category, or any), how many a run clears;
- *false flag*: of the records that a run flags (for a category, or any), how many do not violate.

The labelled records are halved by chance. On one half everything is chosen: curves from
probabilities to better ones, then a sequence of settings for either side, from timid to bold. On
the other half the settings are tested in that order, each with every claim it makes (every category
and stratum at once), and the boldest before the first that fails is taken (bounds.py). Verdicts are
those of the whole run, rules and both stages included.

Either side gets half of delta, so that both hold together with a chance of at least 1 - delta: over
the draw of the labels, for records that come from where the labelled ones came from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from edgemod import bounds, fitting
from edgemod.calibration import Calibration, Curve, FloatMatrix, Limits, StageName
from edgemod.errors import InputError
from edgemod.fitting import Ladder
from edgemod.metrics import Labels
from edgemod.policy import Policy
from edgemod.triager import Examined
from edgemod.words import ANY, CATEGORIES, OUTPUTS, Verdict

Bools = npt.NDArray[np.bool_]
Side = Literal["miss", "false flag"]
Thresholds = dict[StageName, npt.NDArray[np.float32]]
"""Of the outputs (K,), by stage."""

_STAGES: Final[tuple[StageName, StageName]] = ("filter", "model")

LEVELS: Final = 40
"""Settings in the sequence of either side."""
BOLDEST: Final = 1.5
"""The boldest that clears has this much of the accepted risk on the half that it was chosen on."""
FILTER_SHARES: Final = (0.0, 0.25, 0.5, 0.75)
"""Shares of the misses that the filter may make which are tried; the rest are the model's."""
TRIED: Final = 60
"""Flag thresholds that are tried for each category."""
_SURE: Final = 0.4
"""A category is flagged for only if the half that chooses would certify it with this much of the
delta there is: one that is certified by luck alone would hold up all the others."""


@dataclass(frozen=True)
class Goal:
    """What is asked: shares from 0 to 1, both ends excluded.

    ``review_budget``: the share of records that people can read. Where it is given, the timidest
    clear thresholds that keep to it are taken, whatever they miss, and the miss rates are bounded
    instead of tested against ``max_miss_rate``.
    """

    max_miss_rate: float = 0.02
    max_false_flag_rate: float = 0.05
    delta: float = 0.05
    review_budget: float | None = None

    def check(self) -> None:
        """Raise InputError for a share that is out of range."""
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not 0 < value < 1:
                what = f"{name.replace('_', ' ')} is {value}"
                raise InputError(what, where="calibrate", fix="Give a share between 0 and 1.")


@dataclass(frozen=True)
class Risk:
    """One claim: that ``side`` of ``category`` (in ``stratum``, if there is one) is bounded.

    ``n`` records of that kind were drawn for the test and ``bad`` of them settled wrongly;
    ``found`` is their share (weighted, where labels are), ``bound`` what it is at most, alone, with
    a chance of 1 - delta / 2. ``certified``: that it is at most ``target``, with all the others.
    ``needed``: about how many more labelled records, in all, would certify it; None where nothing
    is known that would.
    """

    side: Side
    category: str
    stratum: str | None
    n: int
    bad: int
    found: float | None
    bound: float
    target: float | None
    certified: bool
    needed: int | None


@dataclass(frozen=True)
class Found:
    """What came of one set of labels: thresholds, the risks, and what they mean for a run."""

    limits: dict[str, Limits]
    curves: dict[str, tuple[Curve, ...]]
    risks: tuple[Risk, ...]
    shares: dict[str, float]
    """Verdict to its share of the records that the risks were tested on (weighted)."""


@dataclass(frozen=True)
class Case:
    """n labelled records and everything a run may come to know of them."""

    examined: Examined
    labels: Labels
    """(n, 10): 1, 0 or -1 for unknown; the last column is ``any``."""
    asked: tuple[str, ...]
    """Outputs that have labels and are to be certified."""
    policy: Policy
    calibration: Calibration
    answers: tuple[str, ...]
    has_model: bool
    weights: npt.NDArray[np.float64] | None = None
    strata: npt.NDArray[np.str_] | None = None

    @property
    def last(self) -> StageName:
        """The stage that decides what no other does."""
        return "model" if self.has_model else "filter"

    def thresholds(self, limits: Mapping[str, Limits]) -> tuple[Limits, Limits]:
        """Of both stages as a run has them: with the policy's own in their place."""
        of = replace(self.calibration, limits=limits)
        answers = self.answers if self.has_model else OUTPUTS
        return of.thresholds("filter", self.policy), of.thresholds("model", self.policy, answers)

    @property
    def groups(self) -> list[str]:
        """The strata, in order; none where there are none."""
        return [] if self.strata is None else [str(name) for name in np.unique(self.strata)]

    def weights_of(self, rows: Bools) -> npt.NDArray[np.float64] | None:
        """The weights of the records of a mask."""
        return None if self.weights is None else self.weights[rows]

    def mean(self, values: Bools, rows: Bools) -> float:
        """The weighted share of ``values`` among the records of a mask."""
        return float(np.average(values[rows], weights=self.weights_of(rows)))

    @property
    def held_by(self) -> set[str]:
        """Outputs that can keep a record from being cleared."""
        answers = self.answers if self.has_model else OUTPUTS
        return {ANY} | {c.name for c in self.policy.categories if c.name in answers}

    @cached_property
    def greatest(self) -> dict[StageName, FloatMatrix]:
        """The greatest probability of a record's texts by stage, (n, 10); NaN where none is."""
        starts = np.searchsorted(self.examined.owner, np.arange(self.examined.records))
        stages: dict[StageName, FloatMatrix | None] = {
            "filter": self.examined.evidence.filter,
            "model": self.examined.evidence.model,
        }
        return {
            stage: np.fmax.reduceat(p, starts, axis=0)
            for stage, p in stages.items()
            if p is not None
        }


# -- one set of labels -----------------------------------------------------------------------


@dataclass(frozen=True)
class Level:
    """One setting: thresholds (K,) of both stages, which may clear or flag nothing."""

    case: Case
    clear: Thresholds
    flag: Thresholds

    def limits(self) -> dict[str, Limits]:
        """As a calibration has them."""
        return {
            stage: Limits(clear, np.maximum(self.flag[stage], clear))
            for stage, clear in self.clear.items()
        }

    @cached_property
    def verdicts(self) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
        """Verdict and category that a run would give every record, (n,) each."""
        case = self.case
        return case.examined.verdicts(case.policy, *case.thresholds(self.limits()))

    def share(self, verdict: Verdict, rows: Bools) -> float:
        """The (weighted) share of the records of a mask that it gives a verdict."""
        return self.case.mean(self.verdicts[0] == verdict, rows)


@dataclass(frozen=True)
class Claim:
    """One risk: of a side, an output and, if it is not None, of one stratum alone."""

    side: Side
    output: str
    stratum: str | None = None

    def kind_and_bad(self, level: Level) -> tuple[Bools, Bools]:
        """The records that it is a share of, and those settled wrongly, (n,) each."""
        verdict, category = level.verdicts
        k = OUTPUTS.index(self.output)
        label = level.case.labels[:, k]
        if self.side == "miss":
            kind, bad = label == 1, verdict == Verdict.clear
        else:
            kind, bad = (verdict == Verdict.flag) & (label >= 0), label == 0
            if self.output != ANY:
                kind &= category == k
        if self.stratum is not None:
            assert level.case.strata is not None
            kind &= level.case.strata == self.stratum
        return kind, kind & bad

    def p_value(self, level: Level, rows: Bools, target: float) -> float:
        """How well the records of a mask go with its being wrong; see bounds.py."""
        kind, bad = self.kind_and_bad(level)
        kind &= rows
        return bounds.p_value(bad[kind], target, level.case.weights_of(kind))


def find(case: Case, choosing: Bools, goal: Goal, *, uncertified: str = "review") -> Found:
    """Choose on one half (``choosing``, (n,)) and certify on the other. Pure.

    ``uncertified``: what becomes of a category whose labels cannot certify the miss rate that is
    asked for: ``review``, nothing is cleared, since anything might violate it, or ``default``, it
    keeps the thresholds of the calibration that this one starts from, and the claim is not made.
    """
    testing, half = ~choosing, goal.delta / 2
    case, curves = _curved(case, choosing)
    claims = [
        Claim(side, output, stratum)
        for side in ("miss", "false flag")
        for output in case.asked
        for stratum in (None, *case.groups)
        # A stratum has few flags for each category; they are counted together.
        if stratum is None or side == "miss" or output == ANY
    ]
    missing = [c for c in claims if c.side == "miss"]
    nothing, *_ = clears = _clear_levels(case, choosing, goal, set())
    tested = [c for c in missing if c.p_value(nothing, testing, goal.max_miss_rate) <= half]
    left_out = {c.output for c in missing if c.stratum is None} - {c.output for c in tested}
    kept = left_out if uncertified == "default" and goal.review_budget is None else set()
    if kept:
        clears = _clear_levels(case, choosing, goal, kept)
    if goal.review_budget is not None:
        reviews = [level.share(Verdict.review, choosing) for level in clears]
        within = [i for i, rate in enumerate(reviews) if rate <= goal.review_budget]
        at = within[0] if within else len(clears) - 1
    elif left_out - kept:
        at = 0
    else:
        tests = (
            [c.p_value(level, testing, goal.max_miss_rate) for c in tested] for level in clears[1:]
        )
        at = bounds.fixed_sequence(tests, half) if tested else 0
    chosen, flags_hold, tried = _flags(clears[at], claims, choosing, goal)
    # What cannot be certified is shown at the setting that was tested first.
    miss_at = clears[max(at, 1)] if tested and not left_out - kept else clears[at]
    risks = tuple(
        _risk(c, miss_at if c.side == "miss" else tried, choosing, goal, holds=holds)
        for c in claims
        for holds in [at > 0 and c in tested if c.side == "miss" else c in flags_hold]
    )
    shares = {v.name: chosen.share(v, testing) for v in Verdict}
    return Found(chosen.limits(), curves, risks, shares)


def _curved(case: Case, choosing: Bools) -> tuple[Case, dict[str, tuple[Curve, ...]]]:
    """The case with probabilities that fit the labels of the half that chooses."""
    curves: dict[str, tuple[Curve, ...]] = {}
    for stage, p in case.greatest.items():
        fitted = []
        for k, name in enumerate(OUTPUTS):
            rows = choosing & (case.labels[:, k] >= 0) & np.isfinite(p[:, k])
            weight = None if case.weights is None else case.weights[rows]
            asked = name in case.asked
            fitted.append(
                fitting.fit_curve(p[rows, k], case.labels[rows, k], weight) if asked else Curve()
            )
        curves["cascade" if stage == "model" else stage] = tuple(fitted)
    return _through(case, curves), curves


def _through(case: Case, curves: dict[str, tuple[Curve, ...]]) -> Case:
    """The case with its probabilities through curves."""
    of, given = replace(case.calibration, curves=curves), case.examined.evidence
    evidence = replace(
        given,
        filter=None if given.filter is None else of.curved("filter", given.filter),
        model=None if given.model is None else of.curved("cascade", given.model),
    )
    return replace(case, examined=replace(case.examined, evidence=evidence))


def applied(case: Case, found: Found) -> Level:
    """What was found on some labels, on the records of ``case``: it shows what risks they have."""
    clear, flag = (
        {s: getattr(found.limits[s], name) for s in _STAGES}
        for name in ("clear_below", "flag_above")
    )
    return Level(_through(case, found.curves), clear, flag)


def _clear_levels(case: Case, choosing: Bools, goal: Goal, kept: set[str]) -> list[Level]:
    """Settings that clear more and more and flag nothing, the first of which clears nothing."""
    nothing, never = np.zeros(len(OUTPUTS), np.float32), np.full(len(OUTPUTS), np.inf, np.float32)
    stages = [stage for stage in _STAGES if stage in case.greatest]
    told = np.array([name in case.asked and name not in kept for name in OUTPUTS])
    labels = np.where(told, case.labels, np.int8(-1))[choosing]
    weights = None if case.weights is None else case.weights[choosing]
    top = BOLDEST * goal.max_miss_rate if goal.review_budget is None else 0.5
    ladders, needs = {}, {}
    for stage in stages:
        fixed = case.calibration.limits[stage].clear_below.copy()
        fixed[told] = np.nan
        fixed[[name not in case.held_by for name in OUTPUTS]] = np.inf
        p = case.greatest[stage][choosing]
        ladders[stage] = Ladder.of(p, labels, weights, fixed)
        needs[stage] = ladders[stage].needs(p)
    found: list[tuple[float, list[Level]]] = []
    for share in FILTER_SHARES if len(stages) == 2 else (1.0,):
        steps: dict[StageName, list[int]] = {}
        cleared = np.zeros(choosing.sum(), bool)
        for stage in stages:
            most = top if stage == stages[-1] else share * top
            steps[stage] = fitting.clear_steps(
                needs[stage], labels, most, weights=weights, cleared=cleared
            )
            cleared |= (needs[stage] <= steps[stage]).all(axis=1) & (min(steps[stage]) > 0)
        levels = []
        for level in range(LEVELS + 1):
            clear: Thresholds = {"filter": nothing, "model": nothing}
            for stage in stages:
                clear[stage] = ladders[stage].at([s * level // LEVELS for s in steps[stage]])
            levels.append(Level(case, clear, {"filter": never, "model": never}))
        # As many settled with fewer calls of the language model is better.
        found.append((levels[-1].share(Verdict.review, choosing) - 1e-6 * share, levels))
    return min(found, key=lambda pair: pair[0])[1]


def _flags(
    clear: Level, claims: Sequence[Claim], choosing: Bools, goal: Goal
) -> tuple[Level, set[Claim], Level]:
    """The setting that also flags, so that fewest go to review, the claims that it proves, and, if
    there are none, the setting that came nearest to it.
    """
    target, half = goal.max_false_flag_rate, goal.delta / 2
    flagging = [claim for claim in claims if claim.side == "false flag"]
    levels = []
    for level in _flag_levels(clear, choosing, goal):
        made = [c for c in flagging if _says(c, level, choosing, target, half)]
        if made:
            levels.append((level, made))
    # The order of the tests may depend on this half. The likeliest to hold comes first.
    promise = [max(c.p_value(level, choosing, target) for c in made) for level, made in levels]
    levels = [levels[i] for i in np.argsort(promise, kind="stable")]
    tests = ([c.p_value(level, ~choosing, target) for c in made] for level, made in levels)
    held = levels[: bounds.fixed_sequence(tests, half)]
    if not held:
        return clear, set(), levels[0][0] if levels else clear
    best, made = min(held, key=lambda pair: pair[0].share(Verdict.review, choosing))
    return best, {*made}, best


def _says(claim: Claim, level: Level, choosing: Bools, target: float, delta: float) -> bool:
    """Whether a setting makes a claim: it flags such records.

    Of strata it is made for those where this half has enough flags to tell.
    """
    kind, _ = claim.kind_and_bad(level)
    if claim.stratum is None:
        return bool(kind.any())
    kind &= choosing
    weights = level.case.weights_of(kind)
    return bounds.p_value(np.zeros(int(kind.sum()), bool), target, weights) <= delta


def _flag_levels(clear: Level, choosing: Bools, goal: Goal) -> list[Level]:
    """Settings that flag more and more, by the last stage.

    A category without labels of its own is judged by those of ``any``, or stays as it was.
    """
    case, target = clear.case, goal.max_false_flag_rate
    unasked = np.array([not {name, ANY} & {*case.asked} for name in OUTPUTS])
    rest: Thresholds = {
        stage: np.where(unasked, case.calibration.limits[stage].flag_above, np.inf).astype(
            np.float32
        )
        for stage in _STAGES
    }
    columns = np.tile(rest[case.last], (LEVELS, 1))
    open_rows = choosing & (clear.verdicts[0] != Verdict.clear)
    for k, name in enumerate(CATEGORIES):
        if name in case.held_by and not unasked[k]:
            label = case.labels[:, k if name in case.asked else -1]
            rows = open_rows & (label >= 0)
            p, wrong = case.greatest[case.last][rows, k], label[rows] == 0
            columns[:, k] = _bolder(p, wrong, case.weights_of(rows), target, goal.delta / 2)
    return [Level(case, clear.clear, {**rest, case.last: column}) for column in columns]


def _bolder(
    p: npt.NDArray[np.float32],
    wrong: Bools,
    weights: npt.NDArray[np.float64] | None,
    target: float,
    delta: float,
) -> npt.NDArray[np.float32]:
    """Flag thresholds of one category, (LEVELS,), from the surest to the boldest.

    The surest is the one that records like these would certify best, the boldest the lowest that
    they would certify at all; none is under one half. inf where even the surest is in doubt.
    """
    over = np.unique(p[p >= 0.5])[::-1]  # distinct, the greatest first
    tried = over[np.unique(np.linspace(0, len(over) - 1, TRIED).astype(int))] if len(over) else over
    chances = []
    for threshold in tried:
        rows = p >= threshold
        weight = None if weights is None else weights[rows]
        chances.append(bounds.p_value(wrong[rows], target, weight))
    if not chances or min(chances) > _SURE * delta:
        return np.full(LEVELS, np.inf, np.float32)
    surest = int(np.argmin(chances))
    boldest = max(i for i, chance in enumerate(chances) if chance <= delta)
    return np.asarray(tried[np.linspace(surest, boldest, LEVELS).round().astype(int)])


def _risk(claim: Claim, level: Level, choosing: Bools, goal: Goal, *, holds: bool) -> Risk:
    """A claim with what was counted for it."""
    case = level.case
    kind, bad = claim.kind_and_bad(level)
    rows = kind & ~choosing
    target: float | None = goal.max_false_flag_rate
    delta = goal.delta / 2
    if claim.side == "miss":
        target = goal.max_miss_rate
        if goal.review_budget is not None:  # bounds of all of them at once, for nothing is tested
            target = None
            delta /= len(case.asked) * (1 + len(case.groups))
    needed = None
    if target is not None and not holds:
        seen = case.mean(bad, kind) if kind.any() else 0.0
        total = bounds.needed(target, goal.delta / 2, seen)
        needed = None if total is None else max(2 * total - int(kind.sum()), 1)
    return Risk(
        side=claim.side,
        category=claim.output,
        stratum=claim.stratum,
        n=int(rows.sum()),
        bad=int(bad[rows].sum()),
        found=case.mean(bad, rows) if rows.any() else None,
        bound=bounds.bound(bad[rows], delta, case.weights_of(rows)),
        target=target,
        certified=holds or (target is None and bool(rows.any())),
        needed=needed,
    )
