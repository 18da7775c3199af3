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
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from edgemod import bounds, fitting
from edgemod.bounds import Drawn
from edgemod.calibration import Calibration, Curve, FloatMatrix, Limits, StageName
from edgemod.decide import greatest
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

LEVELS: Final = 60
"""Settings in the sequence of either side, at most."""
BOLDEST: Final = 1.5
"""The boldest that clears has this much of the accepted risk on the half that it was chosen on."""
BOLDEST_IN_BUDGET: Final = 0.5
"""And so much of all violating records where a review budget is given, whatever it misses."""
FILTER_SHARES: Final = (0.0, 0.25, 0.5, 0.75)
"""Shares of the accepted misses that the filter may make which are tried."""
WORTH: Final = 0.01
"""So much more of all records for review, or of violating ones missed within a review budget, is
worth fewer calls of the language model."""
FILTER_RISES: Final = 4
"""So often its thresholds rise along the sequence; flags are tested with each of them."""
TRIED: Final = 60
"""Flag thresholds that are tried for each category."""
_SURE: Final = 0.4
"""A claim is made only if the half that chooses would certify it with this much of the delta there
is: one that holds by luck alone would hold up all the others."""


@dataclass(frozen=True)
class Goal:
    """What is asked: shares from 0 to 1, both ends excluded.

    Either ``max_miss_rate`` or ``review_budget``, the share of records that people can read. With a
    budget the timidest clear thresholds that keep to it are taken, whatever they miss, and the miss
    rates are bounded.
    """

    max_miss_rate: float | None = 0.02
    max_false_flag_rate: float = 0.05
    delta: float = 0.05
    review_budget: float | None = None

    def check(self) -> None:
        """Raise InputError for a share that is out of range, or for both or neither of the two."""
        if (self.max_miss_rate is None) == (self.review_budget is None):
            raise InputError(
                "wants either a miss rate or a review budget",
                where="calibrate",
                fix="Give --max-miss-rate or --review-budget.",
            )
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not 0 < value < 1:
                what = f"{name.replace('_', ' ')} is {value}"
                raise InputError(what, where="calibrate", fix="Give a share between 0 and 1.")


@dataclass(frozen=True)
class Risk:
    """One claim: that ``side`` of ``category`` (in ``stratum``, if there is one) is bounded.

    ``n`` records of that kind were drawn for the test and ``bad`` of them settled wrongly;
    ``found`` is their share (weighted, where labels are). ``certified``: that the risk is at most
    ``bound``, together with all other certified ones, with a chance of 1 - delta. With a ``target``
    that is the bound; without (a review budget) the bound is what the sample does not rule out.
    Where it is not certified, ``bound`` is what it would be of the setting shown alone, and
    ``needed`` about how many more labelled records of that kind, in all, would certify it: 0 if it
    would hold by itself and others hold it up, None where nothing is known that would.
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
    drawn: Drawn | None = None
    strata: npt.NDArray[np.object_] | None = None

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

    def drawn_of(self, rows: Bools) -> Drawn | None:
        """How the records of a mask were drawn; None where all were drawn alike."""
        return None if self.drawn is None else self.drawn[rows]

    def weights_of(self, rows: Bools) -> npt.NDArray[np.floating[Any]] | None:
        """Their weights."""
        return None if self.drawn is None else self.drawn.weights[rows]

    def mean(self, values: Bools, rows: Bools) -> float:
        """The weighted share of ``values`` among the records of a mask."""
        return float(np.average(values[rows], weights=self.weights_of(rows)))

    def held_by(self, stage: StageName) -> set[str]:
        """Outputs that can keep a record from being cleared by a stage."""
        answers = self.answers if stage == "model" else OUTPUTS
        return {ANY} | {c.name for c in self.policy.categories if c.name in answers}

    def settled(self, stage: StageName) -> set[str]:
        """Categories for which the policy has thresholds of its own, which no label moves."""
        return {c.name for c in self.policy.categories if getattr(c, stage) is not None}

    @cached_property
    def greatest(self) -> dict[StageName, FloatMatrix]:
        """The greatest probability of a record's texts by stage, (n, 10); NaN where none is."""
        stages: dict[StageName, FloatMatrix | None] = {
            "filter": self.examined.evidence.filter,
            "model": self.examined.evidence.model,
        }
        return {
            stage: greatest(p, self.examined.owner, self.examined.records)
            for stage, p in stages.items()
            if p is not None
        }


# -- settings and claims ---------------------------------------------------------------------


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

    def flagging(self, flag: Thresholds) -> Level:
        """The same clear thresholds with others that flag."""
        return Level(self.case, self.clear, flag)

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
        kind = kind & rows
        return bounds.p_value(bad[kind], target, level.case.drawn_of(kind))


# -- one set of labels -----------------------------------------------------------------------


def find(case: Case, choosing: Bools, goal: Goal, *, uncertified: str = "review") -> Found:
    """Choose on one half (``choosing``, (n,)) and certify on the other. Pure.

    ``uncertified``: what becomes of a category whose labels cannot certify the miss rate that is
    asked for: ``review``, nothing is cleared, since anything might violate it, or ``default``, it
    keeps the clear thresholds of the calibration that this one starts from, and the claim is not
    made. Which categories those are, the half that chooses says.
    """
    testing, half = ~choosing, goal.delta / 2
    claims = [
        Claim(side, output, stratum)
        for side in ("miss", "false flag")
        for output in case.asked
        for stratum in (None, *case.groups)
        # A stratum has few flags for each category; they are counted together.
        if stratum is None or side == "miss" or output == ANY
    ]
    missing = [claim for claim in claims if claim.side == "miss"]
    tested, left_out = missing, set[str]()
    if goal.max_miss_rate is not None:
        still = Level(case, *_nothing())
        sure = _SURE * half
        tested = [c for c in missing if c.p_value(still, choosing, goal.max_miss_rate) <= sure]
        left_out = {c.output for c in missing if c.stratum is None and c not in tested}
    kept = left_out if uncertified == "default" else set()
    told = {*case.asked} - kept
    case, curves = _curved(case, told, choosing)
    clears = _clear_levels(case, told, tested, claims, choosing, goal)
    flag, proved, nearest, expected = _flags(clears, claims, choosing, goal)
    if goal.max_miss_rate is None:
        assert goal.review_budget is not None
        # By the flags that this half expects: the other half bounds what is chosen here.
        reviews = [level.flagging(expected).share(Verdict.review, choosing) for level in clears]
        within = [i for i, rate in enumerate(reviews) if rate <= goal.review_budget]
        at = within[0] if within else len(clears) - 1
        cleared = shown = clears[at]
    else:
        at = 0
        if not left_out - kept:  # without a claim all keep what they had, the last of the sequence
            most = goal.max_miss_rate
            tests = ([c.p_value(one, testing, most) for c in tested] for one in clears[1:])
            at = bounds.fixed_sequence(tests, half)
        # What cannot be certified is shown at the setting that was tested first.
        cleared, shown = clears[at], clears[0 if left_out - kept else max(at, 1)]
    chosen, tried = cleared.flagging(flag), cleared.flagging(nearest)
    risks = tuple(
        _risk(c, shown if c.side == "miss" else tried, choosing, goal, holds=holds)
        for c in claims
        for holds in [at > 0 and c in tested if c.side == "miss" else c in proved]
    )
    shares = {v.name: chosen.share(v, testing) for v in Verdict}
    return Found(chosen.limits(), curves, risks, shares)


def _nothing() -> tuple[Thresholds, Thresholds]:
    """Thresholds that clear nothing and flag nothing."""
    zeros, never = np.zeros(len(OUTPUTS), np.float32), np.full(len(OUTPUTS), np.inf, np.float32)
    return {"filter": zeros, "model": zeros}, {"filter": never, "model": never}


def _curved(
    case: Case, told: set[str], choosing: Bools
) -> tuple[Case, dict[str, tuple[Curve, ...]]]:
    """The case with probabilities that fit the labels of the half that chooses."""
    curves: dict[str, tuple[Curve, ...]] = {}
    for stage, p in case.greatest.items():
        fitted = []
        for k, name in enumerate(OUTPUTS):
            rows = choosing & (case.labels[:, k] >= 0) & np.isfinite(p[:, k])
            answers, weights = case.labels[rows, k], case.weights_of(rows)
            tuned = name in told and name not in case.settled(stage)
            fitted.append(fitting.fit_curve(p[rows, k], answers, weights) if tuned else Curve())
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


def _clear_levels(
    case: Case,
    told: set[str],
    tested: Sequence[Claim],
    claims: Sequence[Claim],
    choosing: Bools,
    goal: Goal,
) -> list[Level]:
    """A sequence of settings that clear more and more and flag nothing, to be tested in turn.

    The first clears nothing. The thresholds of both stages rise along it, those of the filter in
    ``FILTER_RISES`` steps. How far either rises says the half that chooses: to where it would end
    at the lowest price (see ``_price``), or nearly so with more that the filter clears.
    """
    nothing, never = _nothing()
    stages = [stage for stage in _STAGES if stage in case.greatest]
    weights = case.weights_of(choosing)
    accepted = goal.max_miss_rate or BOLDEST_IN_BUDGET
    top = accepted if goal.max_miss_rate is None else BOLDEST * accepted
    ladders, needs, labels = {}, {}, {}
    present = case.thresholds(case.calibration.limits)
    for stage in stages:
        tuned = np.array([name in told - case.settled(stage) for name in OUTPUTS])
        fixed = present[stage == "model"].clear_below.copy()
        fixed[tuned] = np.nan
        fixed[[name not in case.held_by(stage) for name in OUTPUTS]] = np.inf
        p = case.greatest[stage][choosing]
        labels[stage] = np.where(tuned, case.labels, np.int8(-1))[choosing]
        ladders[stage] = Ladder.of(p, labels[stage], weights, fixed)
        needs[stage] = ladders[stage].needs(p)
    found: list[tuple[float, list[Level]]] = []
    for share in FILTER_SHARES if len(stages) == 2 else (0.0,):
        steps: dict[StageName, list[int]] = {}
        cleared = np.zeros(choosing.sum(), bool)
        for stage in stages:
            most = top if stage == stages[-1] else share * accepted
            steps[stage] = fitting.clear_steps(
                needs[stage], labels[stage], most, weights=weights, cleared=cleared
            )
            cleared |= (needs[stage] <= steps[stage]).all(axis=1) & (min(steps[stage]) > 0)
        levels = [Level(case, nothing, never)]
        for level in range(1, LEVELS + 1):
            clear = dict(nothing)
            for stage in stages:
                rise = level / LEVELS
                if stage != stages[-1]:
                    rise = int(rise * FILTER_RISES) / FILTER_RISES
                clear[stage] = ladders[stage].at([int(s * rise) for s in steps[stage]])
            if any((clear[stage] != levels[-1].clear[stage]).any() for stage in stages):
                levels.append(Level(case, clear, never))
        found.append((_price(levels, tested, claims, choosing, goal), levels))
    most = min(price for price, _ in found) + WORTH
    return [levels for price, levels in found if price <= most][-1]


def _price(
    levels: Sequence[Level],
    tested: Sequence[Claim],
    claims: Sequence[Claim],
    choosing: Bools,
    goal: Goal,
) -> float:
    """What a sequence of settings costs at the one that would be taken of it, on this half.

    The share for review; with a review budget, which all keep to alike, the share of violating
    records that are missed. A sequence that never keeps to it is dearer than any that does.
    """
    if goal.review_budget is None:
        assert goal.max_miss_rate is not None
        most, half = goal.max_miss_rate, goal.delta / 2
        tests = ([c.p_value(one, choosing, most) for c in tested] for one in levels[1:])
        return levels[bounds.fixed_sequence(tests, _SURE * half)].share(Verdict.review, choosing)
    *_, expected = _flags(levels, claims, choosing, goal)
    for one in (level.flagging(expected) for level in levels):
        review = one.share(Verdict.review, choosing)
        if review <= goal.review_budget:
            violating = choosing & (one.case.labels == 1).any(axis=1)
            return one.share(Verdict.clear, violating) if violating.any() else 0.0
    return 1 + review


def _flags(
    clears: Sequence[Level], claims: Sequence[Claim], choosing: Bools, goal: Goal
) -> tuple[Thresholds, set[Claim], Thresholds, Thresholds]:
    """Flag thresholds that leave fewest to review, the claims that they prove, if there are none
    those that came nearest to it, and those that the half that chooses expects.

    Which clear thresholds will be taken is not known yet, and must not be: what is flagged depends
    on those of the filter alone, so that each claim is tested with all that it may have.
    """
    target, half = goal.max_false_flag_rate, goal.delta / 2
    flagging = [claim for claim in claims if claim.side == "false flag"]
    case = clears[0].case
    apart = {_flags_alike(case, one): one for one in clears}
    settings = []

    def reviewed(setting: tuple[float, Thresholds, list[Level], list[Claim]]) -> float:
        return setting[2][-1].share(Verdict.review, choosing)

    for flag in _flag_thresholds(clears[-1], choosing, goal):
        each = [clear.flagging(flag) for clear in apart.values()]
        made = [c for c in flagging if _says(c, each[0], choosing, target, half)]
        if made:
            promise = max(c.p_value(one, choosing, target) for c in made for one in each)
            settings.append((promise, flag, each, made))
    # The order of the tests may depend on this half. The likeliest to hold comes first.
    settings.sort(key=lambda setting: setting[0])
    tests = (
        [c.p_value(one, ~choosing, target) for c in made for one in each]
        for _, _, each, made in settings
    )
    held = settings[: bounds.fixed_sequence(tests, half)]
    rest = _rest(case)
    hoped = [setting for setting in settings if setting[0] <= _SURE * half]
    expected = min(hoped, key=reviewed)[1] if hoped else rest
    if not held:
        return rest, set(), settings[0][1] if settings else rest, expected
    _, flag, _, made = min(held, key=reviewed)
    return flag, {*made}, flag, expected


def _flags_alike(case: Case, level: Level) -> bytes:
    """What the flags of a setting can depend on, of its clear thresholds: those of the filter, and
    any over one half, which lift the flag thresholds."""
    lifted = np.maximum(level.clear[case.last], np.float32(0.5)).tobytes()
    return lifted + (level.clear["filter"].tobytes() if case.has_model else b"")


def _says(claim: Claim, level: Level, choosing: Bools, target: float, delta: float) -> bool:
    """Whether a setting makes a claim: it flags such records on the half that chooses.

    Of strata it is made for those that have enough flags to tell.
    """
    kind, _ = claim.kind_and_bad(level)
    kind = kind & choosing
    if claim.stratum is None:
        return bool(kind.any())
    none_bad = np.zeros(int(kind.sum()), bool)
    return bounds.p_value(none_bad, target, level.case.drawn_of(kind)) <= delta


def _rest(case: Case) -> Thresholds:
    """The flag thresholds of categories that no label tells of; the others flag nothing."""
    untold = np.array([not {name, ANY} & {*case.asked} for name in OUTPUTS])
    limits = case.calibration.limits
    return {
        stage: np.where(untold, limits[stage].flag_above, np.inf).astype(np.float32)
        for stage in _STAGES
    }


def _flag_thresholds(clear: Level, choosing: Bools, goal: Goal) -> list[Thresholds]:
    """Flag thresholds from the surest to the boldest, of the last stage.

    A category without labels of its own is judged by those of ``any``, or stays as it was.
    """
    case, rest = clear.case, _rest(clear.case)
    columns = np.tile(rest[case.last], (LEVELS, 1))
    open_rows = choosing & (clear.verdicts[0] != Verdict.clear)
    for k, name in enumerate(CATEGORIES):
        if name in case.held_by(case.last) and {name, ANY} & {*case.asked}:
            label = case.labels[:, k if name in case.asked else -1]
            rows = open_rows & (label >= 0)
            p = case.greatest[case.last][rows, k]
            columns[:, k] = _bolder(p, label[rows] == 0, case.drawn_of(rows), goal)
    # Neighbours may be the same: thresholds have few steps where there are few labels.
    new = [i == 0 or (columns[i] != columns[i - 1]).any() for i in range(LEVELS)]
    return [{**rest, case.last: column} for column in columns[new]]


def _bolder(
    p: npt.NDArray[np.float32], wrong: Bools, drawn: Drawn | None, goal: Goal
) -> npt.NDArray[np.float32]:
    """Flag thresholds of one category, (LEVELS,), from the surest to the boldest.

    The surest is the one that records like these would certify best, the boldest the lowest that
    they would certify at all; none is under one half. inf where even the surest is in doubt.
    """
    target, half = goal.max_false_flag_rate, goal.delta / 2
    over = np.unique(p[p >= 0.5])[::-1]  # distinct, the greatest first
    tried = over[np.unique(np.linspace(0, len(over) - 1, TRIED).astype(int))] if len(over) else over
    chances = []
    for threshold in tried:
        rows = p >= threshold
        chances.append(bounds.p_value(wrong[rows], target, None if drawn is None else drawn[rows]))
    if not chances or min(chances) > _SURE * half:
        return np.full(LEVELS, np.inf, np.float32)
    surest = int(np.argmin(chances))
    boldest = max(i for i, chance in enumerate(chances) if chance <= half)
    return np.asarray(tried[np.linspace(surest, boldest, LEVELS).round().astype(int)])


def _risk(claim: Claim, level: Level, choosing: Bools, goal: Goal, *, holds: bool) -> Risk:
    """A claim with what was counted for it."""
    case, half = level.case, goal.delta / 2
    kind, bad = claim.kind_and_bad(level)
    rows = kind & ~choosing
    target = goal.max_miss_rate if claim.side == "miss" else goal.max_false_flag_rate
    # Without a target nothing is tested, and all are bounded at once.
    delta = half if target is not None else half / (len(case.asked) * (1 + len(case.groups)))
    bound = bounds.bound(bad[rows], delta, case.drawn_of(rows))
    needed = None
    if target is not None and not holds:
        if rows.any() and bound <= target:
            needed = 0
        elif case.drawn is None and (kind.any() or claim.side == "miss"):
            seen = case.mean(bad, kind) if kind.any() else 0.0
            total = bounds.needed(target, half, seen)
            needed = None if total is None else max(2 * total - int(kind.sum()), 1)
    return Risk(
        side=claim.side,
        category=claim.output,
        stratum=claim.stratum,
        n=int(rows.sum()),
        bad=int(bad[rows].sum()),
        found=case.mean(bad, rows) if rows.any() else None,
        bound=target if holds and target is not None else bound,
        target=target,
        certified=holds or (target is None and bool(rows.any())),
        needed=needed,
    )
