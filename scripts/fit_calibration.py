"""Fit the calibration that ships with edgemod, from rows that nobody trained on.

    python scripts/fit_calibration.py DATA [--cache FOLDER] [-o quantized/calibration.json]

DATA is the folder that holds train/ and archive/. The holdout rows (see training_data.py) are
split in two by their hash: maps and thresholds come from one half, and the risks that are
reported, on the screen and in the file, from the other. The language model scores every
holdout row, about 8 minutes on two cores; --cache keeps its scores for a second run. Subreddits
as weak labels, short rows buried in longer ones, and texts written to be hard help to fit; the
risks are those of rows as people wrote and labelled them.

Thresholds are class-conditional (see edgemod/calibration.py). A stage clears a record only if
every output is below its threshold, so the miss rate that counts is that of all thresholds
together: they are raised, first in common and then one by one, until no category can spare more
(fitting.py). Flagging needs one output only, so each has its own target of false positives.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import numpy.typing as npt

from edgemod import calibration, decide, features, fitting, store
from edgemod.filter import Filter
from edgemod.parts import write_bytes
from edgemod.policy import load_policy
from edgemod.triager import Cleared
from edgemod.words import ANY, CATEGORIES, OUTPUTS
from model_scores import fingerprint, model_scores
from training_data import (
    TrainingData,
    bury,
    canonical,
    concatenate,
    is_weak,
    load_train,
    load_weak_topics,
    load_written,
    without_apart,
)

FILTER_MISS_RATE: Final = 0.08
FILTER_FALSE_POSITIVES: Final = 0.001
MODEL_MISS_RATE: Final = 0.05
MODEL_FALSE_POSITIVES: Final = 0.01
FILTER_FLAGS: Final = ("hate", "harassment", "threat_violence", "sexual", "toxic")
"""What the filter may flag: abuse that is in the words. Whether a text about crime, suicide, offers
or addresses violates depends on what is said of them, which n-grams do not read."""
FILTER_SHARE: Final = 0.5
"""How much of the filter's weight beside the model is kept. It is fitted on rows of the sets that
both were trained on; on others the filter, which knows words alone, loses more than the model."""
HARD_FALSE_POSITIVES: Final = 0.02
"""And both stages' among harmless texts written to look like violations (``load_written``).
The labelled sets hold hardly any, so their false positives say little of requests about crime."""
BURIED: Final = 3_000
"""Short holdout rows put into harmless ones: whoever hides a sentence shall not have it cleared."""
SEED: Final = 20
NOTE: Final = "public data, not certified for yours"

Floats = npt.NDArray[np.float32]


@click.command(help=__doc__)
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=store.quantized_dir() / "calibration.json",
    show_default=True,
)
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False))
@click.option("--workers", default=2, show_default=True)
def main(data: Path, out: Path, cache: Path | None, workers: int) -> None:
    """Fit, report and write."""
    rows = concatenate([load_train(data), load_weak_topics(data)])
    rows = rows.take(rows.holdout)
    half = _fitting(rows)  # short rows are buried in texts of their own half
    buried = [bury(rows.take(some), BURIED // 2, SEED) for some in (half, ~half)]
    written = load_written()
    written = written.take(written.holdout)
    fitting = np.concatenate(
        (half, np.ones(len(buried[0].texts), bool), np.zeros(len(buried[1].texts), bool))
    )
    rows = concatenate([rows, *buried, written])
    fitting = np.concatenate((fitting, _fitting(written)))
    policy = load_policy()
    weights = Filter.load(store.quantized_dir() / "filter.safetensors")
    texts = rows.arrow()
    lexicons = features.Lexicons.compile(policy.lexicons)
    by_filter = weights.scores(features.extract(texts, lexicons).normalised)
    click.echo(f"{len(texts):,} holdout rows")

    made = rows.sets == "buried"
    # Too few of them violate one category: for thresholds they say only that a text violates.
    labels = np.where(made[:, None] & (np.arange(len(OUTPUTS)) < len(OUTPUTS) - 1), -1, rows.labels)
    hard = np.char.startswith(rows.sets, "written/")
    reported = ~fitting & ~is_weak(rows) & ~hard
    fit = partial(_maps, labels=without_apart(rows), rows=fitting & ~made)
    choose = partial(_thresholds, labels=labels, usual=fitting & ~hard, hard=fitting & hard)

    maps = {"filter": fit(None, by_filter)}
    p = {"filter": _table(maps["filter"]).probabilities(by_filter, None)}
    rates = FILTER_MISS_RATE, FILTER_FALSE_POSITIVES
    thresholds = {"filter": choose(p["filter"], *rates, FILTER_FLAGS)}
    # A run leaves pieces unread that the filter clears: what is fitted for runs is fitted on that.
    by_filter_alone = Cleared(weights, _table(maps["filter"]), _limits(thresholds["filter"]))
    in_full, in_run = model_scores(texts, cache, workers, by_filter_alone)
    maps |= {"model": fit(in_full, None), "cascade": fit(in_run, by_filter)}
    p["cascade"] = _table(maps["cascade"]).probabilities(by_filter, in_run)
    rates = MODEL_MISS_RATE, MODEL_FALSE_POSITIVES
    thresholds["model"] = choose(p["cascade"], *rates, CATEGORIES)

    document: dict[str, Any] = {
        "format": calibration.FORMAT,
        "note": NOTE,
        "filter": weights.fingerprint,
        "model": fingerprint(),
        "maps": maps,
        "thresholds": thresholds,
        "evidence": {
            "rows": {"fitted on": int(fitting.sum()), "reported on": int(reported.sum())},
            "targets": {
                "filter": {
                    "miss rate": FILTER_MISS_RATE,
                    "false positives": FILTER_FALSE_POSITIVES,
                },
                "model": {"miss rate": MODEL_MISS_RATE, "false positives": MODEL_FALSE_POSITIVES},
                "false positives among texts written to be hard": HARD_FALSE_POSITIVES,
            },
            "miss rate": "share of the records that violate the category that the stage clears",
            "false positives": "share of those that do not violate it with p >= flag_above",
            "found on other rows": {},
        },
        "made": datetime.now(UTC).date().isoformat(),
    }
    for stage, by in (("filter", "filter"), ("model", "cascade")):
        below = decide.below(p[by][reported], _limits(thresholds[stage]))
        cleared = np.asarray(below.all(axis=1))
        document["evidence"]["found on other rows"][stage] = {
            name: _risks(
                p[by][reported, k], cleared, rows.labels[reported, k], thresholds[stage][name]
            )
            for k, name in enumerate(OUTPUTS)
        }
    found = document["evidence"]["found on other rows"]
    found["run"] = _run(p, document["thresholds"], rows.labels, reported)
    of_buried = _run(p, document["thresholds"], rows.labels, ~fitting & made)
    found["run, short rows buried in harmless texts"] = {ANY: of_buried[ANY]}
    of_hard = _run(p, document["thresholds"], rows.labels, ~fitting & hard)
    found["run, texts written to be hard"] = of_hard
    write_bytes(out, (json.dumps(document, indent=1) + "\n").encode())
    out.chmod(0o644)  # it ships; outputs of a run are their owner's alone
    calibration.Calibration.load(out)
    for stage, risks in document["evidence"]["found on other rows"].items():
        click.echo(
            f"\n{stage[:16]:16} {'clear<':>8} {'flag>=':>8} {'n1':>6} {'missed':>8} {'n0':>6} "
            f"{'false+':>8} {'cleared':>8} {'flagged':>8}"
        )
        for name, risk in risks.items():
            pair = document["thresholds"].get(stage, {}).get(name, {})
            clear, flag = pair.get("clear_below"), pair.get("flag_above")
            click.echo(
                f"{name:16} {_number(clear):>8} {_number(flag):>8} {risk['violating']:6} "
                f"{_percent(risk['missed']):>8} {risk['harmless']:6} "
                f"{_percent(risk['falsely flagged']):>8} "
                f"{_percent(risk['harmless cleared']):>8} "
                f"{_percent(risk['violating flagged']):>8}"
            )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _fitting(rows: TrainingData) -> npt.NDArray[np.bool_]:
    """The half of the rows that maps and thresholds come from, by the second byte of a hash."""
    digests = (hashlib.sha1(canonical(t).encode("utf-8", "replace")).digest() for t in rows.texts)
    return np.fromiter((digest[1] < 128 for digest in digests), bool, len(rows.texts))


def _maps(
    model: Floats | None,
    filter: Floats | None,
    labels: npt.NDArray[np.int8],
    rows: npt.NDArray[np.bool_],
) -> dict[str, dict[str, float]]:
    """Maps of a stage by output, from the scores (n, K) that it reads of the rows of a mask."""
    maps = {}
    for k, name in enumerate(OUTPUTS):
        scores = [s[:, k] for s in (model, filter) if s is not None]
        known = rows & (labels[:, k] >= 0) & np.isfinite(scores).all(axis=0)
        answers = labels[known, k]
        weights = [1.0] * len(scores)
        if len(scores) == 2:
            own, beside, _ = fitting.fit_map(np.stack(scores, axis=1)[known], answers)
            weights[1] = FILTER_SHARE * max(beside, 0.0) / max(own, 1e-6)
        joined = np.average(scores, axis=0, weights=weights)[known] * sum(weights)
        slope, bias = fitting.fit_map(joined, answers)
        parts = {"model": 0.0, "filter": 0.0, "bias": float(bias)}
        read = [part for part, s in (("model", model), ("filter", filter)) if s is not None]
        parts |= {part: float(slope * w) for part, w in zip(read, weights, strict=True)}
        maps[name] = parts
    return maps


def _thresholds(
    p: Floats,
    miss_rate: float,
    false_positives: float,
    flags: Sequence[str],
    *,
    labels: npt.NDArray[np.int8],
    usual: npt.NDArray[np.bool_],
    hard: npt.NDArray[np.bool_],
) -> dict[str, dict[str, float | None]]:
    """Threshold pairs of one stage by output, from probabilities (n, K) of rows of two masks.

    Half of the texts written to be hard violate, which is no one's archive: for clear thresholds
    they are a kind of their own, of which no greater share may be cleared.
    """
    chosen = {}
    ladder = fitting.Ladder.of(p[usual], labels[usual])
    kinds = np.column_stack((np.where(usual[:, None], labels, -1), hard & (labels[:, -1] == 1)))
    both = usual | hard
    steps = fitting.clear_steps(ladder.needs(p[both]), kinds[both].astype(np.int8), miss_rate)
    clear = ladder.at(steps).tolist()
    for k, name in enumerate(OUTPUTS):
        limits = [max(clear[k], 0.5)]
        for some, most in ((usual, false_positives), (hard, HARD_FALSE_POSITIVES)):
            harmless = p[some & (labels[:, k] == 0), k]
            limits.append(fitting.flag_threshold(harmless, most))
        never = name not in flags or math.isinf(max(limits))
        chosen[name] = {"clear_below": clear[k], "flag_above": None if never else max(limits)}
    return chosen


def _limits(pairs: dict[str, dict[str, Any]]) -> calibration.Limits:
    columns = ([pairs[name][key] for name in OUTPUTS] for key in ("clear_below", "flag_above"))
    clear, flag = (
        np.array([math.inf if value is None else value for value in column], np.float32)
        for column in columns
    )
    return calibration.Limits(clear, flag)


def _table(maps: dict[str, dict[str, float]]) -> calibration.Maps:
    columns = {
        part: np.array([maps[name][part] for name in OUTPUTS], np.float32)
        for part in ("model", "filter", "bias")
    }
    return calibration.Maps(**columns)


def _risks(
    p: Floats, cleared: npt.NDArray[np.bool_], labels: npt.NDArray[np.int8], chosen: dict[str, Any]
) -> dict[str, Any]:
    flag = math.inf if chosen["flag_above"] is None else chosen["flag_above"]

    def share(of: npt.NDArray[np.bool_]) -> float | None:
        return round(float(of.mean()), 5) if len(of) else None

    return {
        "violating": int((labels == 1).sum()),
        "harmless": int((labels == 0).sum()),
        "missed": share(cleared[labels == 1]),
        "falsely flagged": share(p[labels == 0] >= flag),
        "harmless cleared": share(cleared[labels == 0]),
        "violating flagged": share(p[labels == 1] >= flag),
    }


def _run(
    p: dict[str, Floats], thresholds: Any, labels: npt.NDArray[np.int8], rows: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """What both stages in a row do, without rules: shares cleared and flagged by either."""
    cleared, flagged = np.zeros(rows.sum(), bool), np.zeros(rows.sum(), bool)
    by_category = np.zeros((rows.sum(), len(OUTPUTS)), bool)
    for stage, probability in (("filter", p["filter"][rows]), ("model", p["cascade"][rows])):
        pairs = [thresholds[stage][name] for name in OUTPUTS]
        clear = np.array([pair["clear_below"] for pair in pairs], np.float32)
        flag = [math.inf if q["flag_above"] is None else q["flag_above"] for q in pairs]
        over = probability >= np.array(flag, np.float32)
        still = ~cleared & ~flagged
        by_category |= over & still[:, None]
        cleared |= still & ~over.any(axis=1) & (probability < clear).all(axis=1)
        flagged |= still & over.any(axis=1)
    by_category[:, -1] = flagged
    never = {"flag_above": 0.5}
    return {
        name: _risks(by_category[:, k].astype(np.float32), cleared, labels[rows, k], never)
        for k, name in enumerate(OUTPUTS)
    }


if __name__ == "__main__":
    main()
