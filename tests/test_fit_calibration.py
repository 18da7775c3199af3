"""How the shipped thresholds are chosen and counted."""

from __future__ import annotations

import numpy as np

import fit_calibration
from edgemod.words import OUTPUTS
from test_fitting import drawn

K = len(OUTPUTS)


def test_both_stages_in_a_row_are_counted_as_a_run_decides() -> None:
    first, labels = drawn(500, 3)
    second, _ = drawn(500, 4)
    pairs = {
        name: {"clear_below": 0.4, "flag_above": None if name == "any" else 0.9} for name in OUTPUTS
    }
    thresholds = {"filter": pairs, "model": pairs}
    rows = np.arange(500) % 2 == 0
    found = fit_calibration._run({"filter": first, "cascade": second}, thresholds, labels, rows)

    cleared, flagged = [], []
    for i in np.flatnonzero(rows):
        verdict, by = "review", set()
        for p in (first[i], second[i]):
            over = {k for k in range(K - 1) if p[k] >= np.float32(0.9)}
            if over:
                verdict, by = "flag", over
                break
            if all(p < np.float32(0.4)):
                verdict = "clear"
                break
        cleared.append(verdict == "clear")
        flagged.append(by)
    for k, name in enumerate(OUTPUTS):
        violating = labels[rows, k] == 1
        hit = [bool(by) if name == "any" else k in by for by in flagged]
        assert found[name]["violating"] == violating.sum()
        assert found[name]["missed"] == round(float(np.mean(np.array(cleared)[violating])), 5)
        assert found[name]["violating flagged"] == round(
            float(np.mean(np.array(hit)[violating])), 5
        )


def test_any_joins_what_models_learn_apart_and_is_no_less_than_a_category() -> None:
    maps = {name: {"model": 0.0, "filter": 1.0, "bias": 0.0} for name in OUTPUTS}
    scores = np.full((1, K), -50.0, np.float32)
    assert fit_calibration._table(maps).probabilities(scores, None)[0, -1] < 1e-6
    scores[0, OUTPUTS.index("spam_scam")] = 0.0
    p = fit_calibration._table(maps).probabilities(scores, None)
    assert p[0, -1] == np.float32(0.5)
    scores[0, OUTPUTS.index("pii")] = 0.0
    p = fit_calibration._table(maps).probabilities(scores, None)
    assert p[0, -1] == np.float32(0.75)
    scores[0, OUTPUTS.index("hate")] = 2.0  # what violates one category violates some
    p = fit_calibration._table(maps).probabilities(scores, None)
    assert p[0, -1] == p[0, OUTPUTS.index("hate")] > 0.8
    scores[0, OUTPUTS.index("hate")] = -50.0
    scores[0, OUTPUTS.index("spam_scam")] = np.nan  # a model that was not asked about it
    p = fit_calibration._table(maps).probabilities(scores, None)
    assert p[0, -1] == np.float32(0.5)


def test_a_flag_threshold_holds_among_all_texts_and_among_hard_ones() -> None:
    p, labels = drawn(8000, 5)
    hard = np.arange(8000) < 2000
    p[hard] = np.sqrt(p[hard])  # harmless ones look worse
    chosen = fit_calibration._thresholds(
        p, 0.05, 0.01, ["hate", "toxic"], labels=labels, usual=~hard, hard=hard
    )
    for k, name in enumerate(OUTPUTS):
        flag = chosen[name]["flag_above"]
        assert (flag is None) == (name not in ("hate", "toxic"))
        if flag is not None:
            assert (p[~hard & (labels[:, k] == 0), k] >= flag).mean() <= 0.01
            assert 0.01 < (p[hard & (labels[:, k] == 0), k] >= flag).mean() <= 0.02
    clear = np.array([chosen[name]["clear_below"] for name in OUTPUTS], np.float32)
    cleared = (p < clear).all(axis=1) & ~hard
    missed = [cleared[~hard & (labels[:, k] == 1)].mean() for k in range(K)]
    assert 0 < max(missed) <= 0.05


def test_few_hard_texts_flag_nothing() -> None:
    p, labels = drawn(3000, 6)
    hard = np.arange(3000) < 40
    chosen = fit_calibration._thresholds(
        p, 0.05, 0.01, ["hate"], labels=labels, usual=~hard, hard=hard
    )
    assert chosen["hate"]["flag_above"] is None


def test_maps_fit_the_scores_they_read() -> None:
    p, labels = drawn(3000, 7)
    odds = np.log(p / (1 - p)).astype(np.float32)
    noise = np.random.default_rng(8).normal(size=odds.shape).astype(np.float32)
    rows = np.ones(3000, bool)
    alone = fit_calibration._maps(None, odds, labels, rows)
    both = fit_calibration._maps(odds, noise, labels, rows)
    for name in OUTPUTS:
        assert alone[name]["model"] == 0 < alone[name]["filter"]
        assert both[name]["model"] > 0.5
        assert abs(both[name]["filter"]) < 0.2 * both[name]["model"]
    table = fit_calibration._table(alone)
    k = 2
    known = labels[:, k] >= 0
    found = table.probabilities(odds, None)[known, k]
    assert abs(found.mean() - (labels[known, k] == 1).mean()) < 0.01
