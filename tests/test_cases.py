"""The hand-written training texts: every slot is filled, and no text has two answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import assistant_cases
import hard_cases
import training_data
from edgemod.words import OUTPUTS

ALL = (
    (hard_cases.PATTERNS, hard_cases.SLOTS),
    (assistant_cases.REQUESTS, assistant_cases.ASSISTANT_SLOTS),
    (assistant_cases.REPLIES, assistant_cases.ASSISTANT_SLOTS),
)


def test_cases_are_filled_and_never_contradict_each_other() -> None:
    answers: dict[str, dict[str, int]] = {}
    for patterns, slots in ALL:
        for text, labels in hard_cases.cases(patterns, slots, 30, seed=4):
            assert "{" not in text
            assert "}" not in text
            known = {name: label for name, label in labels.items() if label >= 0}
            assert set(known) <= set(OUTPUTS)
            before = answers.setdefault(text.casefold(), known)
            assert all(known.get(name, label) == label for name, label in before.items())
    assert len(answers) > 4000


@pytest.mark.parametrize(("patterns", "slots"), ALL)
def test_each_style_has_harmless_and_violating_texts(
    patterns: hard_cases.Patterns, slots: dict[str, str]
) -> None:
    found = {labels.get("any") for _, labels in hard_cases.cases(patterns, slots, 2, seed=1)}
    assert {0, 1} <= found


def test_frames_go_around_a_request_and_keep_its_labels() -> None:
    cases = training_data.load_hard_cases(5, seed=2)
    framed = training_data.frame(cases, 400, seed=3)
    requests = cases.take(cases.sets == "requests")
    by_text = dict(zip(requests.texts, requests.labels, strict=True))
    for text, labels in zip(framed.texts, framed.labels, strict=True):
        inner = max((one for one in by_text if one in text), key=len)
        assert len(text) > len(inner)
        assert (labels == by_text[inner]).all()
    # As many of each kind, so that a frame says nothing about what is in it.
    assert (framed.labels[:, -1] == 1).sum() == (framed.labels[:, -1] == 0).sum() == 200
    assert set(framed.sets) == {"framed"}
    assert not framed.holdout.any()
    again = training_data.frame(cases, 400, seed=3)
    assert again.texts == framed.texts
    assert np.array_equal(again.labels, framed.labels)


def test_buried_texts_violate_what_is_put_into_them() -> None:
    harmless = np.zeros(len(OUTPUTS), np.int8)
    cruel = np.full(len(OUTPUTS), -1, np.int8)
    cruel[[0, -1]] = 1
    texts = ["One. " * 50, "Bad sentence here!", "Good sentence here."]
    data = training_data.TrainingData(
        texts,
        np.stack([harmless, cruel, harmless]),
        np.array(["a", "b", "b"]),
        np.ones(3, np.float32),
        np.zeros(3, bool),
    )
    buried = training_data.bury(data, 40, seed=5)
    assert len(buried.texts) == 40
    for text, labels in zip(buried.texts, buried.labels, strict=True):
        bad = "Bad sentence here!" in text
        assert bad != ("Good sentence here." in text)
        assert text.count("One.") == 50
        assert (labels == (cruel if bad else harmless)).all()
    assert (buried.labels[:, -1] == 1).sum() == 20


def test_written_texts_are_labelled_varied_and_paired() -> None:
    written = training_data.load_written()
    anything = written.labels[:, -1]
    assert len({" ".join(text.casefold().split()) for text in written.texts}) == len(written.texts)
    assert set(np.unique(anything)) == {0, 1}
    assert (written.labels[anything == 0] == 0).all()
    assert (written.labels[anything == 1, :-1] == 1).any(axis=1).all()
    for name in np.unique(written.sets):
        share = anything[written.sets == name].mean()
        assert 0.3 < share < 0.6, name  # else the style of a file would stand in for the label
    openings = [" ".join(text.casefold().split()[:4]) for text in written.texts]
    assert max(openings.count(one) for one in set(openings)) < len(openings) / 100


def test_a_violating_line_says_nothing_of_what_overlaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some.tsv").write_text("hate,toxic\tone\\ntwo\nillicit\tthree\nharmless\tfour\n")
    monkeypatch.setattr(training_data, "WRITTEN", tmp_path)
    written = training_data.load_written()
    assert written.texts == ["one\ntwo", "three", "four"]
    assert [*written.sets] == ["written/some"] * 3
    labels = [dict(zip(OUTPUTS, row.tolist(), strict=True)) for row in written.labels]
    assert labels[0]["hate"] == labels[0]["toxic"] == labels[0]["any"] == labels[1]["illicit"] == 1
    assert labels[0]["harassment"] == labels[1]["toxic"] == labels[1]["pii"] == -1
    assert labels[0]["illicit"] == labels[1]["sexual"] == 0
    assert set(labels[2].values()) == {0}
