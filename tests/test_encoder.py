from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from edgemod import store
from edgemod.encoder import (
    PARITY,
    PIECE,
    SHARED,
    Encoder,
    Head,
    normal_forms,
    pieces,
    reading,
    windows,
)
from edgemod.errors import ModelError
from edgemod.llama import Tokens
from edgemod.model import open_model
from edgemod.policy import load_policy
from edgemod.words import OUTPUTS

LONG = "we walked along the river and talked about the garden for an hour " * 30
HARSH = " you are a worthless idiot and I will break your legs "


def column(*texts: str) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


@pytest.fixture(scope="module")
def opened() -> Iterator[Encoder]:
    model = open_model("default", policy=load_policy())
    assert isinstance(model, Encoder)
    yield model
    model.close()


@pytest.fixture
def encoder(opened: Encoder) -> Encoder:
    opened._seen.clear()
    return opened


@given(st.integers(0, 700), st.integers(1, 130), st.data())
def test_windows_cover_every_token_and_overlap(n: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    tokens = np.arange(n, dtype=np.int32)
    parts = windows(tokens, size, overlap)
    assert sorted({int(t) for part in parts for t in part}) == list(range(n))
    assert all(0 < len(part) <= size for part in parts)
    for before, after in itertools.pairwise(parts):
        assert (after[:overlap] == before[size - overlap :]).all()
        assert len(after) > overlap, "a window with nothing new"


def test_scores_are_log_odds_of_every_output(encoder: Encoder) -> None:
    answer = encoder.score(column("have a lovely day", HARSH), None)
    assert answer.scores.shape == (2, len(OUTPUTS))
    assert answer.scores.dtype == np.float32
    assert answer.windows.tolist() == [1, 1]
    for output in ("toxic", "any"):
        k = OUTPUTS.index(output)
        assert answer.scores[0, k] < 0 < answer.scores[1, k]


@st.composite
def forms(draw: st.DrawFn) -> bytes:
    """Words and long runs without a space, no part of which comes twice."""
    sizes = draw(st.lists(st.sampled_from([1, 3, 700]), max_size=60))
    letter = draw(st.sampled_from(["", "é", "😀"]))
    numbers = iter(range(10_000, 100_000))
    return " ".join("".join(f"{next(numbers)}{letter}" for _ in range(n)) for n in sizes).encode()


@given(forms())
def test_pieces_cover_every_byte_in_order(form: bytes) -> None:
    end = 0
    for number, piece in enumerate(pieces(form)):
        piece.decode()
        assert len(piece) <= PIECE
        at = form.index(piece)
        assert at <= end <= at + SHARED + 4 or not number, "a gap, or too much twice"
        assert at + len(piece) > end or not form, "a piece with nothing new"
        assert at == 0 or form[at - 1 : at] == b" " or b" " not in form[at - 20 : at]
        end = at + len(piece)
    assert end == len(form)


def test_a_short_form_is_one_piece() -> None:
    for form in (b"", b"one", b"x" * PIECE):
        assert pieces(form) == [form]
    assert len(pieces(b"x" * (PIECE + 1))) == 2


def naive(encoder: Encoder, parts: list[bytes]) -> list[np.ndarray[Any, Any]]:
    """The scores of every window of the pieces, one by one."""
    tokens = [encoder._llama.tokenize(part) for part in parts]
    size, step = encoder.head.window, encoder.head.window - encoder.head.overlap
    found = []
    for some in tokens:
        start = 0
        while True:
            found.append(encoder.head(encoder.vector(some[start : start + size])))
            if start + size >= len(some):
                break
            start += step
    return found


@pytest.mark.parametrize("text", [LONG, "a b " * 300, "xyz" * 400])
def test_a_text_has_the_greatest_of_its_windows(encoder: Encoder, text: str) -> None:
    (form,) = normal_forms(column(text))
    scores = naive(encoder, pieces(form))
    answer = encoder.score(column(text))
    assert (answer.scores[0] == np.max(scores, axis=0)).all()
    assert answer.windows[0] == len(scores) > 1


def test_pieces_that_the_filter_clears_go_unread(encoder: Encoder) -> None:
    text = LONG + HARSH * 4 + LONG
    (form,) = normal_forms(column(text))
    cut = pieces(form)
    harsh = [piece for piece in cut if b"worthless" in piece]
    asked: list[bytes] = []

    def cleared(given: tuple[Any, Any]) -> Any:
        data, offsets = given
        asked.extend(data[low:high].tobytes() for low, high in itertools.pairwise(offsets))
        return np.array([b"worthless" not in piece for piece in asked])

    answer = encoder.score(column("short", text, "shorter"), None, cleared)
    assert asked == cut, "short texts are read, whatever the filter thinks"
    assert 0 < len(harsh) < len(cut)
    assert (answer.scores[1] == np.max(naive(encoder, harsh), axis=0)).all()
    assert answer.windows.tolist() == [1, len(naive(encoder, harsh)), 1]
    whole = encoder.score(column("short", text, "shorter"))
    assert (answer.scores <= whole.scores).all()
    assert (answer.tokens < whole.tokens).tolist() == [False, True, False]


def test_a_text_whose_pieces_are_all_cleared_is_read_in_full(encoder: Encoder) -> None:
    def cleared(given: tuple[Any, Any]) -> Any:
        return np.ones(len(given[1]) - 1, bool)

    whole, read = encoder.score(column(LONG)), encoder.score(column(LONG), None, cleared)
    assert (whole.scores == read.scores).all()


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
def test_harm_anywhere_in_a_long_text_counts(encoder: Encoder, at: float) -> None:
    cut = int(at * len(LONG))
    hidden = LONG[:cut] + HARSH * 4 + LONG[cut:]
    clean, harsh = encoder.score(column(LONG, hidden)).scores[:, OUTPUTS.index("toxic")]
    assert harsh > clean + 1


def test_alone_and_among_neighbours(encoder: Encoder) -> None:
    assert encoder.self_test() <= PARITY
    texts = ["ok", LONG, HARSH, "é" * 300, "漢字 😀", "a\0b"] * 2
    together = encoder.score(column(*texts)).scores
    alone = []
    for text in texts:
        encoder._seen.clear()
        alone.append(encoder.score(column(text)).scores)
    assert (together == np.concatenate(alone)).all()


def test_self_test_notices_scores_that_move(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector, random = encoder.vector, np.random.default_rng(0)
    monkeypatch.setattr(encoder, "vector", lambda w: vector(w) + random.normal(0, 0.1, 384))
    with pytest.raises(ModelError, match="scores move by"):
        encoder.self_test()


def test_few_windows_are_kept(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgemod.encoder._KEPT", 5)
    texts = column(*(f"text number {k}" for k in range(12)), LONG)
    kept = encoder.score(texts).scores
    assert 0 < len(encoder._seen) <= 5
    monkeypatch.setattr("edgemod.encoder._KEPT", 1000)
    encoder._seen.clear()
    assert (encoder.score(texts).scores == kept).all()
    assert len(encoder._seen) > 12


@pytest.mark.parametrize("text", ["", "   \n\t", "\0\0", "\u200b\ufeff", "\x01\x07"])
def test_a_text_without_tokens_is_not_scored(encoder: Encoder, text: str) -> None:
    answer = encoder.score(column("fine", text, "fine"))
    assert np.isnan(answer.scores[1]).all()
    assert (answer.windows[1], answer.tokens[1]) == (0, 0)
    assert np.isfinite(answer.scores[[0, 2]]).all()


def test_no_texts(encoder: Encoder) -> None:
    assert encoder.score(column()).scores.shape == (0, len(OUTPUTS))


def test_slices_of_a_column(encoder: Encoder) -> None:
    whole = column("one thing", "another thing", "a third thing")
    assert (encoder.score(whole[1:]).scores == encoder.score(whole).scores[1:]).all()


def test_equal_windows_are_scored_once(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    vector = encoder.vector

    def counted(window: Tokens) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        calls.append(len(window))
        return vector(window)

    monkeypatch.setattr(encoder, "vector", counted)
    encoder.score(column("Same text", "same TEXT", "other text", "same text"))
    assert len(calls) == 2


def test_a_failing_call_costs_only_its_text(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = encoder.vector

    def failing(window: Tokens) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        if len(window) == 2:
            raise ModelError("no")
        return vector(window)

    monkeypatch.setattr(encoder, "vector", failing)
    scores = encoder.score(column("one", "one two", "one two three")).scores
    assert np.isnan(scores).all(axis=1).tolist() == [False, True, False]


def test_invalid_utf8_is_safe(encoder: Encoder) -> None:
    texts = pa.array([b"fine", b"\xff\xfe", b"fine"], pa.large_binary()).view(pa.large_string())
    scores = encoder.score(texts).scores
    assert (scores[0] == scores[2]).all()
    assert (scores[1] == encoder.score(column("??")).scores[0]).all()


@pytest.mark.parametrize(
    "text",
    [
        "YOU are a worthless idiot",
        "ｙｏｕ are a w0rthless id1ot",
        "you\u200b are a wor\u0301thless i\u180bdiot",
        "уou are a wоrthless idiоt",
        "you are a w-o-r-t-h-l-e-s-s i•d•i•o•t",
    ],
)
def test_a_disguise_changes_no_score(encoder: Encoder, text: str) -> None:
    plain, disguised = encoder.score(column("you are a worthless idiot", text)).scores
    assert (plain == disguised).all()


def test_emoji_are_read_as_what_they_show() -> None:
    assert reading(column("nice 🎂", "ok")) == ["nice  birthday cake ", "ok"]


def test_a_head_is_bound_to_its_gguf() -> None:
    entry = store.resolve("default")
    with pytest.raises(ModelError, match="trained on another GGUF"):
        Encoder.open(dataclasses.replace(entry, sha256="0" * 64))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"outputs": OUTPUTS[::-1]}, "not one this version of edgemod can use"),
        ({"aggregation": "mean"}, "not one this version of edgemod can use"),
        ({"overlap": 128}, "not one this version of edgemod can use"),
        ({"window": "many"}, "the head cannot be read"),
    ],
)
def test_a_head_for_something_else_is_refused(
    tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    head = store.resolve("default").head
    assert head is not None
    facts: dict[str, object] = {"outputs": OUTPUTS, "aggregation": "max", "window": 128}
    facts |= {"overlap": 32, "base_sha256": "0" * 64} | changed
    save_file(load_file(head), tmp_path / "head", {"head": json.dumps(facts)})
    with pytest.raises(ModelError, match=message):
        Head.load(tmp_path / "head")


def test_a_damaged_head_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "head").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match="the head cannot be read"):
        Head.load(tmp_path / "head")


def test_the_fingerprint_covers_both_files(encoder: Encoder) -> None:
    entry = store.resolve("default")
    other = Encoder.open(dataclasses.replace(entry, head_sha256="0" * 64))
    assert other.fingerprint != encoder.fingerprint
    assert len(other.fingerprint) == 64
    other.close()
