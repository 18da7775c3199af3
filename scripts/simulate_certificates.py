"""Do certificates hold as often as they say? A thousand draws of labels from sets that are known.

    python scripts/simulate_certificates.py DATA [--draws 1000] [--labels 3000]

Each of three development sets is taken for all records there are, so that the true risk of any
setting is known. Labels are drawn from it, thresholds are certified on them as by ``edgemod
calibrate``, and what the thresholds truly do is looked up. The page printed has, for each set and
way of drawing, in how many of the draws something was certified and in how many a claim was false,
of all draws: at most delta / 2 for either side, and delta for both; and the mean review rate.
Models score each set once, 5 minutes in all; then about a quarter of a second a draw.
docs/calibration.md has the result.

--compare N prints instead the review rate that the cascade, the filter alone, the language model
alone and alt-profanity-check can certify on the same labels, the mean of N halvings, and in
brackets in how many of them a miss and a false-flag rate were certified.

The ways: labels drawn alike; drawn by score, with known chances; the safest thresholds for a review
budget, whose bounds must hold; risks that must hold in either of two strata (short and long texts).
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from edgemod import records
from edgemod.bounds import Drawn
from edgemod.calibrating import joined_labels
from edgemod.certificate import Case, Claim, Goal, Level, Risk, applied, find
from edgemod.decide import Evidence
from edgemod.records import Columns
from edgemod.triager import Examined, Triager
from edgemod.words import OUTPUTS
from training_data import load_dev

SETS: Final = ("surge_toxicity", "hatemoji_check", "beavertails_test_response")
WAYS: Final = ("alike", "by score", "budget", "strata")
GOAL: Final = Goal(max_miss_rate=0.05, max_false_flag_rate=0.05, delta=0.05)
BUDGET: Final = 0.4
FLOOR: Final = 0.3
"""Share of the labels that are drawn alike where the rest are drawn by score."""


@dataclass(frozen=True)
class Trial:
    """What came of one draw: whether each side made claims, whether all of them were true, and the
    true review rate."""

    claimed: dict[str, bool]
    true: dict[str, bool]
    review: float


def whole(data: Path, name: str) -> Case:
    """A development set as if it were all records there are."""
    part = load_dev(data)[name]
    with Triager() as triager:
        columns = Columns(("text",), None, None, None, None, None, None, ())
        chunk = records.chunk_of(
            pa.record_batch({"text": pa.array(part.texts, pa.large_string())}),
            columns,
            max_text_bytes=triager.policy.max_text_bytes,
        )
        given = {
            o: part.labels[:, k] for k, o in enumerate(OUTPUTS) if (part.labels[:, k] >= 0).any()
        }
        labels, names = joined_labels([given], [])
        return Case(
            examined=triager.examine(chunk),
            labels=labels,
            asked=tuple(o for o in OUTPUTS if o in names),
            policy=triager.policy,
            calibration=triager.calibration,
            answers=OUTPUTS,
            has_model=True,
            strata=np.where([len(text) < 120 for text in part.texts], "short", "long"),
        )


def taken(
    case: Case, rows: npt.NDArray[np.int64], drawn: Drawn | None, *, by_stratum: bool
) -> Case:
    """Some records of a case, each text a record."""
    given = case.examined.evidence
    of: dict[str, Any] = {k: None if v is None else v[rows] for k, v in vars(given).items()}
    evidence = Evidence(**of)
    owner = np.arange(len(rows), dtype=np.int32)
    return replace(
        case,
        examined=Examined(evidence, owner, case.examined.failed[rows], len(rows)),
        labels=case.labels[rows],
        drawn=drawn,
        strata=case.strata[rows] if by_stratum and case.strata is not None else None,
    )


def draw(case: Case, way: str, count: int, seed: int) -> Trial:
    """Draw labels, certify, look up the truth."""
    random = np.random.default_rng(seed)
    n = len(case.labels)
    goal = replace(GOAL, max_miss_rate=None, review_budget=BUDGET) if way == "budget" else GOAL
    drawn = None
    if way == "by score":
        score = np.nan_to_num(case.greatest["model"][:, -1], nan=0.5).astype(np.float64)
        share = FLOOR / n + (1 - FLOOR) * score / score.sum()
        chance = np.minimum(count * share, 1.0)
        rows = np.flatnonzero(random.random(n) < chance)
        drawn = Drawn(1 / chance[rows], 1 / float(chance.min()))
    else:
        rows = random.integers(0, n, count)  # with replacement: from as many as one likes
    sample = taken(case, rows, drawn, by_stratum=way == "strata")
    choosing = random.permutation(len(rows)) % 2 == 0
    found = find(sample, choosing, goal)
    everywhere = applied(case if way == "strata" else replace(case, strata=None), found)
    claimed, true = {"miss": False, "false flag": False}, {"miss": True, "false flag": True}
    for risk in found.risks:
        if risk.certified:
            claimed[risk.side] = True
            most = risk.bound if risk.target is None else risk.target
            true[risk.side] &= truth(everywhere, risk) <= most
    return Trial(claimed, true, float((everywhere.verdicts[0] == 1).mean()))


def truth(everywhere: Level, risk: Risk) -> float:
    """The risk among all records."""
    kind, bad = Claim(risk.side, risk.category, risk.stratum).kind_and_bad(everywhere)
    return float(bad[kind].mean()) if kind.any() else 0.0


# -- what a certificate costs, and what would not need one --------------------------------------


def compared(data: Path, splits: int) -> None:
    """Print the review rate that each stage, and a peer, can certify on the same labels."""
    from profanity_check import predict_prob

    click.echo(
        "| set | labels | whole cascade | filter alone | language model alone "
        "| alt-profanity-check |\n|---|---|---|---|---|---|"
    )
    for name in SETS:
        case = replace(whole(data, name), strata=None)
        given = case.examined.evidence
        assert given.filter is not None
        peer = np.zeros_like(given.filter)
        likely = predict_prob(load_dev(data)[name].texts)
        peer[:, [OUTPUTS.index(output) for output in case.asked]] = np.asarray(likely)[:, None]
        ways = (
            (given, True),
            (replace(given, model=None), False),
            (replace(given, filter=None), True),
            (replace(given, filter=peer, model=None), False),
        )
        cells = []
        for evidence, has_model in ways:
            examined = replace(case.examined, evidence=evidence)
            way = replace(case, examined=examined, has_model=has_model)
            rates, proved = [], {"miss": 0, "false flag": 0}
            for seed in range(splits):
                half = np.random.default_rng(seed).permutation(len(case.labels)) % 2 == 0
                found = find(way, half, GOAL)
                rates.append(found.shares["review"])
                for side in proved:
                    proved[side] += any(r.certified for r in found.risks if r.side == side)
            cells.append(
                f"{np.mean(rates):.1%} ({proved['miss'] / splits:.0%}, "
                f"{proved['false flag'] / splits:.0%})"
            )
        click.echo(f"| {name} | {len(case.labels):,} | {' | '.join(cells)} |")


@click.command(help=__doc__)
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--draws", default=1000, show_default=True)
@click.option("--labels", "count", default=3000, show_default=True, help="Labels a draw.")
@click.option("--jobs", default=2, show_default=True, help="Processes.")
@click.option("--compare", "splits", type=int, help="Review rates instead, by so many halvings.")
def main(data: Path, draws: int, count: int, jobs: int, splits: int | None) -> None:
    """Draw, certify, look up, print."""
    if splits:
        compared(data, splits)
        return
    click.echo(
        "| set | way | certified: miss | false flags | false claims: miss | false flags | either "
        "| mean review rate |\n|---|---|---|---|---|---|---|---|"
    )
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for name in SETS:
            case = whole(data, name)
            for way in WAYS:
                found = [*pool.map(partial(draw, case, way, count), range(draws), chunksize=20)]
                sides = ("miss", "false flag")
                cells = [f"{np.mean([one.claimed[side] for one in found]):.1%}" for side in sides]
                cells += [f"{np.mean([not one.true[side] for one in found]):.1%}" for side in sides]
                cells.append(f"{np.mean([not all(one.true.values()) for one in found]):.1%}")
                review = float(np.mean([one.review for one in found]))
                click.echo(f"| {name} | {way} | {' | '.join(cells)} | {review:.1%} |")


if __name__ == "__main__":
    main()
