"""Disguises change words and nothing else, the same way each time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import disguises
import scoreboard
import training_data
from edgemod.words import OUTPUTS
from training_data import TrainingData

TEXT = "you are a dreadful horrible awful person and everybody knows that about you"


@pytest.mark.parametrize(
    ("way", "written"),
    [
        (disguises.leet, "h473ful"),
        (disguises.homoglyphs, "hаtеful"),
        (disguises.zero_width, "ha\u200bte\u200bfu\u200bl"),
        (disguises.spaced, "h a t e f u l"),
        (disguises.stretched, "haaaateful"),
        (disguises.starred, "h*teful"),
    ],
)
def test_ways_to_write_a_word(way: Callable[[str], str], written: str) -> None:
    assert way("hateful") == written


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_the_words_is_changed(share: float) -> None:
    random = np.random.default_rng(1)
    changed = disguises.disguise(TEXT, random, share, (str.upper,))
    assert changed == (TEXT if share == 0 else TEXT.upper().replace(" A ", " a "))


def rows(label: int, count: int) -> TrainingData:
    texts = [f"{TEXT} {k}" for k in range(count)]
    labels = np.full((count, len(OUTPUTS)), label, np.int8)
    sets = np.full(count, "some")
    return TrainingData(texts, labels, sets, np.ones(count, np.float32), np.zeros(count, bool))


def test_the_scoreboard_changes_half_of_the_words_and_no_label() -> None:
    part = rows(1, 8)
    veiled = scoreboard.disguised_rows(part)
    assert scoreboard.disguised_rows(part).texts == veiled.texts
    assert all(new != old for new, old in zip(veiled.texts, part.texts, strict=True))
    pairs = zip(veiled.texts, part.texts, strict=True)
    kept = np.mean([len({*new.split()} & {*old.split()}) for new, old in pairs])
    assert 3 < kept < 12
    np.testing.assert_array_equal(veiled.labels, part.labels)


def test_training_disguises_as_many_harmless_texts_as_violating_ones() -> None:
    both = training_data.concatenate([rows(1, 5), rows(0, 50)])
    hidden = training_data.disguised(both, 40, seed=3)
    assert (hidden.labels[:, -1] == 1).sum() == (hidden.labels[:, -1] == 0).sum() == 20
    assert {*hidden.sets} == {"disguised"}
    assert training_data.disguised(both, 40, seed=3).texts == hidden.texts
    assert not {*hidden.texts} & {*both.texts}
