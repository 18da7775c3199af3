"""The library: batches in, decisions out; texts in, scores out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

import edgemod
from edgemod import features, records, store
from edgemod.encoder import normal_forms, pieces
from edgemod.errors import InputError, ModelError
from edgemod.filter import to_bytes
from edgemod.policy import Thresholds, load_policy
from edgemod.tally import Tally
from edgemod.triager import DECISIONS, Triager, probabilities_of
from edgemod.words import OUTPUTS
from samples import sentences
from test_cli import run


def test_a_batch_gives_a_decision_a_row(triager: Triager) -> None:
    batch = pa.record_batch({"id": ["a", "b", "c"], "text": ["hello there", None, "hello there"]})
    got = triager.triage_batch(batch, id="id")
    assert got.schema.equals(DECISIONS)
    assert got["record_id"].to_pylist() == ["a", "b", "c"]
    assert got["status"].to_pylist() == ["ok", "null_text", "ok"]
    assert got["duplicate_of"].to_pylist() == [None, None, "a"]
    assert got["p_any"][1].as_py() is None


def test_a_batch_without_ids_names_its_rows(triager: Triager) -> None:
    got = triager.triage_batch(pa.record_batch({"body": ["one", "two"]}), text="body")
    assert got["record_id"].to_pylist() == ["batch#0", "batch#1"]


def test_of_a_long_text_the_model_reads_what_the_filter_does_not_clear(triager: Triager) -> None:
    calm = " ".join(sentences(60))
    harsh = "you are a worthless idiot and everybody hates you, get lost"
    text = f"{calm} {harsh}. {harsh}! {calm}"
    batch = pa.record_batch({"text": [text]})
    (form,) = normal_forms(batch["text"].cast(pa.large_string()))
    cut = pieces(form)
    data = np.frombuffer(bytearray(b"".join(cut)), np.uint8)
    scores = triager.filter.scores((data, np.cumsum([0, *map(len, cut)], dtype=np.int64)))
    limits = triager.calibration.thresholds("filter", triager.policy)
    p = triager.calibration.probabilities("filter", scores)
    left = [piece for piece, row in zip(cut, p, strict=True) if (row >= limits.clear_below).any()]
    assert any(b"worthless" in piece for piece in left)
    assert len(left) < len(cut)
    chunk = records.chunk_of(
        batch,
        records.Columns(("text",), None, None, None, None, None, None, ()),
        max_text_bytes=1 << 16,
    )
    decisions, tally, _ = triager.triage_chunk(chunk)
    assert decisions["stage"].to_pylist() == ["model"]
    assert triager.model is not None
    read = [triager.model.score(pa.array([p.decode()], pa.large_string()), None) for p in left]
    assert tally.windows == sum(int(answer.windows[0]) for answer in read)
    greatest = np.max([answer.scores[0] for answer in read], axis=0)
    one = np.frombuffer(bytearray(form), np.uint8), np.array([0, len(form)])
    whole = triager.filter.scores(one)
    expected = triager.calibration.probabilities("cascade", whole, greatest[None])
    np.testing.assert_array_equal(probabilities_of(decisions), expected)


def test_without_the_filter_stage_all_of_a_text_is_read(triager: Triager) -> None:
    assert triager.model is not None
    texts = pa.array([" ".join(sentences(80))], pa.large_string())
    policy = replace(load_policy(), stages=("model",))
    with Triager(policy) as alone:
        got = alone.triage_batch(pa.record_batch({"text": texts}))
        scores = alone.model.score(texts, None).scores  # type: ignore[union-attr]
        by_filter = alone.filter.scores(features.extract(texts, alone.lexicons).normalised)
        expected = alone.calibration.probabilities("cascade", by_filter, scores)
    np.testing.assert_array_equal(probabilities_of(got), expected)


def test_columns_are_joined(triager: Triager) -> None:
    batch = pa.record_batch({"title": ["my card is"], "body": ["4111 1111 1111 1111"]})
    assert triager.triage_batch(batch, text=("title", "body"))["category"].to_pylist() == ["pii"]


def test_missing_columns_are_named(triager: Triager) -> None:
    with pytest.raises(InputError, match="nonesuch"):
        triager.triage_batch(pa.record_batch({"text": ["a"]}), text="nonesuch")


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.dictionary(pa.int8(), pa.string()),
    ],
)
def test_every_text_type_gives_the_same_decisions(triager: Triager, kind: pa.DataType) -> None:
    plain = pa.array(sentences(40))
    column = plain.dictionary_encode() if pa.types.is_dictionary(kind) else plain.cast(kind)
    got = triager.triage_batch(pa.record_batch({"text": column}))
    assert got.equals(triager.triage_batch(pa.record_batch({"text": plain})))


def test_the_neighbours_of_a_text_do_not_change_its_probabilities(triager: Triager) -> None:
    texts = sentences(60, seed=3)
    together = triager.triage_batch(pa.record_batch({"text": texts}))
    for i in range(0, 60, 7):
        alone = triager.triage_batch(pa.record_batch({"text": texts[i : i + 1]}))
        for name in OUTPUTS:
            assert alone[f"p_{name}"][0] == together[f"p_{name}"][i]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=8))
def test_any_text_gets_a_decision_and_clearing_needs_a_score(
    triager: Triager, texts: list[str]
) -> None:
    got = triager.triage_batch(pa.record_batch({"text": pa.array(texts, pa.string())}))
    assert got.num_rows == len(texts)
    for row in got.to_pylist():
        assert row["verdict"] in {"clear", "flag", "review"}
        assert row["reason"]
        if row["verdict"] == "clear":
            assert row["status"] == "ok"
            assert row["p_any"] is not None
        scored = [row[f"p_{name}"] for name in OUTPUTS]
        assert all(p is None or 0 <= p <= 1 for p in scored)


def test_what_the_filter_leaves_open_the_model_sees() -> None:
    """With thresholds that settle nothing, every record reaches the language model."""
    policy = load_policy()
    never = Thresholds(0.0, 1.0)
    open_policy = replace(
        policy, rules=(), categories=tuple(replace(c, filter=never) for c in policy.categories)
    )
    batch = pa.record_batch({"text": sorted(set(sentences(30)))})
    with Triager(open_policy) as made:
        got = made.triage_batch(batch)
    assert set(got["stage"].to_pylist()) == {"model"}
    with Triager(open_policy, model=None) as made:
        got = made.triage_batch(batch)
    assert set(got["stage"].to_pylist()) == {"filter"}
    assert set(got["verdict"].to_pylist()) == {"review"}


def test_probabilities_need_a_model_for_the_model_stage() -> None:
    from edgemod.records import Columns, chunk_of

    columns = Columns(("text",), None, None, None, None, None, None, ())
    chunk = chunk_of(pa.record_batch({"text": ["a"]}), columns, max_text_bytes=100)
    with Triager(model=None) as made, pytest.raises(ModelError, match="no language model"):
        made.probabilities(chunk, "model")


def test_score_explains_itself() -> None:
    one, two = edgemod.score(["see you at eight", "my card is 4111 1111 1111 1111"])
    assert one.verdict in {"clear", "review"}
    assert set(one.probabilities) == set(OUTPUTS)
    assert (two.verdict, two.category, two.stage) == ("flag", "pii", "rule")
    assert (11, 30, "cards") in two.fired
    assert edgemod.score([]) == []


def test_filter_scores_are_a_matrix() -> None:
    scores = edgemod.filter_scores(pa.array(["hello", None, "you stupid idiot"], pa.string()))
    assert scores.shape == (3, len(OUTPUTS))
    assert scores.dtype == np.float32
    assert np.isnan(scores[1]).all()
    toxic = OUTPUTS.index("toxic")
    assert scores[2, toxic] > scores[0, toxic]


def test_filter_scores_are_those_of_the_triager_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter of one's own, such as learned ones are: every weight of ``toxic`` is 0."""
    monkeypatch.setenv("EDGEMOD_HOME", str(tmp_path / "home"))
    toxic = OUTPUTS.index("toxic")
    tensors = load_file(store.quantized_dir() / "filter.safetensors")
    tensors["weights"][:, toxic] = 0
    own = tmp_path / "own.safetensors"
    own.write_bytes(to_bytes(tensors["weights"], tensors["scale"], tensors["bias"], {}))
    store.add_filter(own)
    document = json.loads((store.quantized_dir() / "calibration.json").read_text())
    document["filter"] = store.sha256(own)
    (tmp_path / "own.json").write_text(json.dumps(document))
    texts = ["hello", "you stupid idiot"]
    with Triager(None, None, calibration=tmp_path / "own.json") as mine:
        scores = edgemod.filter_scores(texts, triager=mine)
    shipped = edgemod.filter_scores(texts)
    assert (scores[:, toxic] == tensors["bias"][toxic]).all()
    others = [k for k in range(len(OUTPUTS)) if k != toxic]
    assert (scores[:, others] == shipped[:, others]).all()
    listed = json.loads(run("model", "list", "--json").stdout)
    filters = [one["sha256"] for one in listed if one["kind"] == "filter"]
    assert filters == [store.list_filters()[0][1], store.sha256(own)]
    assert store.sha256(own)[:12] in run("model", "list").stdout


def test_tallies_add_up_and_travel(triager: Triager) -> None:
    from edgemod.records import Columns, chunk_of

    columns = Columns(("text",), None, None, None, None, None, None, ())
    chunk = chunk_of(pa.record_batch({"text": sentences(20)}), columns, max_text_bytes=65536)
    tally = triager.triage_chunk(chunk).tally
    again = Tally.from_json(json.loads(json.dumps(tally.to_json())))
    assert again == tally
    again.add(tally)
    assert again.records == 40
    assert again.counts["verdict"].total() == 40
    assert again.seconds["features"] == pytest.approx(2 * tally.seconds["features"])
