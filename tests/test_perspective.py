"""The attributes of the Perspective API: their shape, their map, and what has none."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import edgemod
from edgemod import perspective
from edgemod.perspective import ATTRIBUTES, GREATEST, LEXICONS
from edgemod.triager import Triager
from edgemod.words import CATEGORIES, OUTPUTS
from test_cli import run

TEXTS = (
    "you are a worthless idiot and everyone hates you",
    "the garden looks lovely after the rain this morning",
    "I will kill you tonight",
    "Ich gehe heute nach Hause und esse ein Brot mit Butter und Käse",
    "",
    "broken \udcff byte",
    "what the fuck",
    "my card is 4111 1111 1111 1111",
)


def values(answer: dict[str, Any]) -> dict[str, float]:
    return {name: of["summaryScore"]["value"] for name, of in answer["attributeScores"].items()}


def test_answers_have_the_shape_of_the_api(triager: Triager) -> None:
    answers = perspective.analyze(TEXTS, triager=triager)
    assert len(answers) == len(TEXTS)
    for answer in answers:
        assert {*answer} - {"status"} == {
            "attributeScores", "languages", "detectedLanguages", "fingerprints",
        }  # fmt: skip
        assert answer["languages"] == ["en"]
        assert answer["fingerprints"] == triager.fingerprints()
        assert bool(answer["attributeScores"]) != ("status" in answer)
        for of in answer["attributeScores"].values():
            assert of.keys() == {"summaryScore"}
            assert of["summaryScore"]["type"] == "PROBABILITY"
            assert 0 <= of["summaryScore"]["value"] <= 1
        json.dumps(answer, allow_nan=False)
    insult, garden, threat, german, empty, broken, swearing, card = answers
    assert tuple(values(insult)) == ATTRIBUTES
    assert german["status"] == "unsupported_language"
    assert german["detectedLanguages"] == ["de"]
    assert garden["detectedLanguages"] == ["en"]
    assert (empty["status"], broken["status"]) == ("empty_text", "not_utf8")
    assert card["attributeScores"]  # a rule settles it, and is not asked
    assert values(insult)["INSULT"] > 0.5 > values(garden)["INSULT"]
    assert values(threat)["THREAT"] > 0.5 > values(garden)["TOXICITY"]
    assert values(swearing)["PROFANITY"] == 0.75
    assert values(garden)["PROFANITY"] == 0


def test_a_text_is_scored_as_if_alone(triager: Triager) -> None:
    together = perspective.analyze(TEXTS, triager=triager)
    assert perspective.analyze([TEXTS[0]], triager=triager) == together[:1]
    assert perspective.analyze([], triager=triager) == []
    filtered = perspective.analyze(TEXTS[:1], triager=triager, stage="filter")
    assert values(filtered[0]) != values(together[0])


@given(
    hnp.arrays(np.float32, (3, len(OUTPUTS)), elements=st.floats(0, 1, width=32)),
    hnp.arrays(np.int32, (3, len(LEXICONS) + 1), elements=st.integers(0, 50)),
)
def test_attributes_are_what_the_map_says(p: Any, hits: Any) -> None:
    p[2] = np.nan
    found = perspective.attributes(p, hits, ("other", *LEXICONS))
    for k, of in enumerate(GREATEST.values()):
        assert found[0, k] == max(p[0, OUTPUTS.index(name)] for name in of)
    assert found[0, -1] == pytest.approx(1 - 0.25 ** hits[0, 1:].sum())
    assert np.isnan(found[2]).all()
    by_name = dict(zip(ATTRIBUTES, found[0], strict=True))
    assert by_name["TOXICITY"] >= max(by_name["SEVERE_TOXICITY"], by_name["INSULT"])


def test_the_map_names_what_there_is() -> None:
    assert {name for of in GREATEST.values() for name in of} <= {*CATEGORIES}
    assert {*LEXICONS} <= {lexicon.name for lexicon in edgemod.load_policy().lexicons}


def test_the_command_prints_json_lines_alone() -> None:
    done = run("score", "--attributes", "perspective", "--model", "none", *TEXTS[:2])
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [*values(lines[0])] == [*ATTRIBUTES]
    assert len(lines) == 2
    assert run("score", "--attributes", "perspective", "x.parquet", "-o", "y").returncode == 2
