"""Learning from labels: moved filters and heads, what is adopted, and what is suggested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from scipy import sparse

import edgemod
from edgemod import features, labelled, learning, metrics, policy, refitting, store, suggesting
from edgemod.encoder import Head
from edgemod.errors import CalibrationError, ModelError, OutputError
from edgemod.filter import Filter
from edgemod.metrics import Estimate
from edgemod.refitting import Move
from edgemod.rehearsal import Catch
from edgemod.triager import Triager
from edgemod.words import OUTPUTS
from samples import sentences
from test_cli import run
from test_trends import WORDS

HATE = OUTPUTS.index("hate")
pytestmark = pytest.mark.usefixtures("measured_here")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry of one's own, empty."""
    monkeypatch.setenv("EDGEMOD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def shipped(name: str) -> Path:
    return store.quantized_dir() / name


def made_up(n: int, random: np.random.Generator, *, tell: bool) -> pa.Table:
    """Ordinary words; those that violate have a word that no model knows, if they tell."""
    label = (random.random(n) < 0.4).astype(np.int8)
    texts = []
    for one in label:
        words = [*random.choice(WORDS, random.integers(6, 14))]
        if one and tell:
            words.insert(int(random.integers(len(words))), "zorblaxian")
        texts.append(" ".join(words))
    return pa.table({"text": texts, "hate": label})


def moved(size: int, random: np.random.Generator) -> Move:
    return Move(random.normal(0, 0.1, size), np.zeros(0), 1.0)


def test_grams_are_what_the_filter_sums_and_a_moved_filter_adds_to_them(tmp_path: Path) -> None:
    texts = ["you are nice", "a " * 900 + "hello world", "Ca\u0301fe\u0301, 42 of them!", "x"]
    forms = features.extract(
        pa.array(texts, pa.large_string()), features.Lexicons.compile(())
    ).normalised
    path, old = shipped("filter.safetensors"), Filter.load(shipped("filter.safetensors"))
    before = old.scores(forms)
    x = refitting.grams(forms, path, HATE)
    weights = load_file(path)
    exact = x @ (weights["weights"][:, HATE] * weights["scale"][HATE]) + weights["bias"][HATE]
    assert exact == pytest.approx(before[:, HATE], abs=1e-4)
    move = moved(x.shape[1], np.random.default_rng(0))
    (tmp_path / "f").write_bytes(refitting.moved_filter(path, {HATE: move}, {"by": "test"}))
    new = Filter.load(tmp_path / "f")
    after = new.scores(forms)
    others = [k for k in range(len(OUTPUTS)) if k != HATE]
    assert (after[:, others] == before[:, others]).all()
    short = [0, 2, 3]  # another window of the long one may win
    assert after[short, HATE] == pytest.approx((exact + x @ move.weights)[short], abs=0.15)
    assert new.fingerprint != old.fingerprint


def test_a_moved_head_adds_a_linear_term(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    old = Head.load(shipped("head.safetensors"))
    move = moved(old.hidden.shape[1], random)
    (tmp_path / "h").write_bytes(refitting.moved_head(shipped("head.safetensors"), {HATE: move}))
    new = Head.load(tmp_path / "h")
    assert (new.base, new.window, new.overlap) == (old.base, old.window, old.overlap)
    for _ in range(5):
        vector = np.asarray(random.normal(0, 1, old.hidden.shape[1]), np.float32)
        expected = old(vector)
        expected[HATE] += vector @ move.weights
        assert new(vector) == pytest.approx(expected, abs=1e-4)


def test_a_fit_moves_where_features_tell_and_not_where_they_do_not() -> None:
    random = np.random.default_rng(2)
    x = random.normal(0, 1, (400, 20))
    old = random.normal(0, 1, 400)
    noise = (random.random(400) < 1 / (1 + np.exp(-old))).astype(np.int8)
    move = refitting.fit(x, old, noise)
    assert move is None or move.shrinkage >= 30
    telling = (random.random(400) < 1 / (1 + np.exp(-old - 3 * x[:, 0]))).astype(np.int8)
    found = refitting.fit(x, old, telling)
    assert found is not None
    assert np.abs(found.weights).argmax() == 0
    gain, low, high = refitting.difference(telling, old, found.crossed, resamples=200)
    assert 0 < low < gain < high


def test_copies_do_not_vouch_for_each_other() -> None:
    """Each text is there four times and has a word of its own: it says nothing of other texts."""
    random = np.random.default_rng(8)
    group = np.repeat(np.arange(100), 4)
    x = sparse.csr_array((np.ones(400), (np.arange(400), group)), (400, 100))
    old, labels = random.normal(0, 1, 400), np.repeat(random.integers(0, 2, 100), 4)
    assert refitting.fit(x, old, labels.astype(np.int8), group.astype(float)) is None
    alone = refitting.fit(x, old, labels.astype(np.int8))
    assert alone is not None
    assert alone.shrinkage < 10
    # All that violate are copies of one text: no fold could be fitted without it.
    one = (group == 0).astype(np.int8)
    assert refitting.fit(x, old, one, group.astype(float)) is None


def test_weights_are_those_of_least_loss() -> None:
    random = np.random.default_rng(6)
    x = random.normal(0, 1, (60, 4))
    labels = (random.random(60) < 0.5).astype(np.int8)
    offset = random.normal(0, 1, 60)
    w = refitting._residual(sparse.csr_array(x), labels, offset, 2.0)

    def loss(v: npt.NDArray[np.float64]) -> float:
        odds = offset + x @ v
        return float(np.logaddexp(0, np.where(labels == 1, -odds, odds)).sum() + v @ v)

    nearby = (loss(w + random.normal(0, 0.02, 4)) for _ in range(200))
    assert loss(w) < min(nearby)


def test_a_recorded_filter_is_the_one_that_a_calibration_names(tmp_path: Path) -> None:
    old = Filter.load(shipped("filter.safetensors"))
    assert (
        store.filter_path("0" * 64)
        == store.filter_path(old.fingerprint)
        == shipped("filter.safetensors")
    )
    path = tmp_path / "own.safetensors"
    move = moved(1 << 18, np.random.default_rng(0))
    path.write_bytes(refitting.moved_filter(shipped("filter.safetensors"), {HATE: move}, {}))
    document = json.loads(shipped("calibration.json").read_text())
    document["filter"] = store.sha256(path)
    own = tmp_path / "own.json"
    own.write_text(json.dumps(document))
    with pytest.raises(CalibrationError, match="was made for filter"):
        Triager(None, None, calibration=own)  # nobody recorded it, so it is not read
    store.add_filter(path)
    with Triager(None, None, calibration=own) as triager:
        assert triager.fingerprints()["filter"] == document["filter"]
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(ModelError, match="gone or has changed"):
        Triager(None, None, calibration=own)
    store.forget("", document["filter"])
    assert store.filter_path(document["filter"]) == shipped("filter.safetensors")


def test_labels_that_tell_move_filter_and_head(tmp_path: Path, home: Path) -> None:
    table = made_up(560, np.random.default_rng(3), tell=True)
    pq.write_table(table, tmp_path / "labels.parquet")
    out = tmp_path / "learned"
    found = learning.learn(tmp_path / "labels.parquet", out, max_miss_rate=0.15, workers=1)
    assert {one.stage for one in found.compared if one.adopted} == {"filter", "model"}
    assert all(one.low > 0.2 for one in found.compared if one.adopted)
    assert found.adopted
    assert found.after is not None
    assert found.after.found.shares["review"] < found.before.found.shares["review"] - 0.2
    assert found.model == "learned"
    assert sum(found.sizes) == 560
    card = json.loads((out / "card.json").read_text())
    assert card["adopted"]
    assert card["files"]["filter.safetensors"] == store.sha256(out / "filter.safetensors")
    assert "zorblaxian" not in json.dumps(card)
    assert {one.term for one in found.add} >= {"z*********"}
    dump = tmp_path / "dump.parquet"
    pq.write_table(made_up(200, np.random.default_rng(9), tell=True), dump)
    told = run("triage", dump, "-o", tmp_path / "out", "--workers", 1, "--json",
               "--model", "learned", "--calibration", out / "calibration.json")  # fmt: skip
    assert told.returncode == 0, told.stderr
    plan = json.loads((tmp_path / "out" / "run.json").read_text())["plan"]
    assert plan["filter"] == card["files"]["filter.safetensors"]
    verdicts = np.array(pq.read_table(tmp_path / "out" / "decisions")["verdict"].to_pylist())
    label = pq.read_table(dump)["hate"].to_numpy()
    assert (verdicts[label == 1] == "clear").mean() <= 0.15
    assert (verdicts[label == 0] == "clear").mean() >= 0.5
    with pytest.raises(OutputError, match="is there already"):
        learning.learn(tmp_path / "labels.parquet", out, name="another")
    # What was learned earlier keeps its name.
    with pytest.raises(ModelError, match='there already is a model "learned"'):
        learning.learn(tmp_path / "labels.parquet", tmp_path / "second")
    assert store.resolve("learned").name == "learned"


def test_labels_that_do_not_tell_change_nothing(tmp_path: Path, home: Path) -> None:
    table = made_up(700, np.random.default_rng(4), tell=False)
    table = table.append_column("reviewer", pa.array(["ann", "bob"] * 350))
    pq.write_table(table, tmp_path / "labels.parquet")
    out = tmp_path / "learned"
    told = run("learn", tmp_path / "labels.parquet", "-o", out, "--model", "none")
    assert told.returncode == 0, told.stderr
    assert "the models stay as shipped" in told.stdout
    assert sorted(path.name for path in out.iterdir()) == ["calibration.json", "card.json"]
    assert not store.list_models()[len(store._read(store.quantized_dir() / store.REGISTRY)) :]
    with Triager(None, None, calibration=out / "calibration.json") as triager:
        assert triager.filter.fingerprint == store.sha256(shipped("filter.safetensors"))


def test_what_certifies_less_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(made_up(560, np.random.default_rng(3), tell=True), tmp_path / "labels.parquet")
    claims = iter([{("miss", "hate")}, set()])
    monkeypatch.setattr(learning, "_certified", lambda made: next(claims))
    out = tmp_path / "learned"
    found = learning.learn(tmp_path / "labels.parquet", out, model=None, max_miss_rate=0.15)
    assert found.after is not None
    assert not found.adopted
    assert sorted(path.name for path in out.iterdir()) == ["calibration.json", "card.json"]
    assert store._filters() == {}
    document = json.loads((out / "calibration.json").read_text())
    assert document["filter"] == store.sha256(shipped("filter.safetensors"))


def test_near_copies_are_in_one_part() -> None:
    line = (
        "the purple tractors leave for the quarry tonight at nine, bring your own spoon number {}"
    )
    texts = [line.format(i) for i in range(5)] + ["short", "shore", "SHORT", *WORDS]
    column = pa.array(texts, pa.large_string())
    share, _ = labelled._shares(column, 0, [None] * len(texts))
    assert len({*share[:5].tolist()}) == 1
    assert share[5] == share[7] != share[6]
    assert len({*share[8:].tolist()}) == len(WORDS)
    assert 0.3 < (share[8:] < 0.5).mean() < 0.7
    assert (labelled._shares(column, 1, [None] * len(texts))[0] != share).all()


def test_records_of_a_thread_are_in_one_part() -> None:
    line = "the purple tractors leave for the quarry tonight at nine, bring your own spoon {}"
    texts = [line.format(i) for i in range(3)] + WORDS[:40]
    threads = ["a", "b", None, "a", "b", "c", "c", *([None] * 36)]
    share, apart = labelled._shares(pa.array(texts, pa.large_string()), 0, threads)
    assert not apart
    assert len({*share[:5].tolist()}) == 1  # near copies, and what is in their threads
    assert share[5] == share[6] != share[0]
    assert len({*share[7:].tolist()}) == 36
    # One thread that is most of the labels cannot be in one part.
    share, apart = labelled._shares(pa.array(texts, pa.large_string()), 0, ["a"] * 43)
    assert apart
    assert len({*share.tolist()}) == 41


def test_what_is_no_sample_is_left_out_where_its_thread_compares_or_certifies() -> None:
    texts = ["a text of a thread", "its answer, quite unlike it", *sentences(10, seed=5)]
    column, threads = pa.array(texts, pa.large_string()), ["a", "a", *[None] * 10]
    share = next(
        found for i in range(99) if (found := labelled._shares(column, i, threads)[0])[0] > 0.4
    )
    said: list[str] = []
    parts = labelled._to_fit(share, np.arange(12) == 0, said.append)
    assert np.isnan(parts[0])
    assert (parts[1:] == share[1:]).all()
    assert "1 of them are left out, near copies of a sample's or of its threads" in said[0]


def test_what_is_drawn_more_often_weighs_less_in_the_comparison() -> None:
    random = np.random.default_rng(7)
    labels = (random.random(400) < 0.3).astype(np.int8)
    old, new = random.normal(labels, 1), random.normal(2 * labels, 1)
    gain, low, high = refitting.difference(labels, old, new, resamples=300)
    areas = (metrics.average_precision(labels, scores) for scores in (new, old))
    assert gain == pytest.approx(next(areas) - next(areas))
    # A weight of 3 is the record three times over.
    times = random.integers(1, 4, 400)
    copies = np.repeat(np.arange(400), times)
    weighted, *_ = refitting.difference(labels, old, new, times.astype(float), resamples=2)
    repeated, *_ = refitting.difference(labels[copies], old[copies], new[copies], resamples=2)
    assert weighted == pytest.approx(repeated)
    _, wider, wide = refitting.difference(labels, old, new, alpha=0.05 / 20, resamples=4000)
    assert wider < low < gain < high < wide
    # Better in the sample, worse in what it stands for.
    rare = np.arange(400) % 10 == 0
    mixed = np.where(rare, -new, new)
    assert refitting.difference(labels, old, mixed, resamples=2)[0] > 0
    weights = np.where(rare, 60.0, 1.0)
    assert refitting.difference(labels, old, mixed, weights, resamples=2)[0] < 0


def test_nothing_is_adopted_that_certifies_nothing_and_nothing_stays_of_what_fails(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(made_up(560, np.random.default_rng(3), tell=True), tmp_path / "labels.parquet")
    monkeypatch.setattr(learning, "_certified", lambda made: set())
    found = learning.learn(tmp_path / "labels.parquet", tmp_path / "out", model=None)
    assert found.after is not None
    assert not found.adopted
    assert store._filters() == {}
    monkeypatch.setattr(learning, "_certified", lambda made: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        learning.learn(tmp_path / "labels.parquet", tmp_path / "failed", model=None)
    assert store._filters() == {}
    assert [*(tmp_path / "failed").iterdir()] == []


def test_few_labels_recalibrate_only(tmp_path: Path) -> None:
    pq.write_table(made_up(100, np.random.default_rng(5), tell=True), tmp_path / "labels.parquet")
    notices: list[str] = []
    found = learning.learn(
        tmp_path / "labels.parquet", tmp_path / "out", model=None, on_notice=notices.append
    )
    assert found.compared == ()
    assert not found.adopted
    assert "too few labels to move a model" in notices[0]
    assert (tmp_path / "out" / "calibration.json").is_file()


def test_what_is_suggested() -> None:
    def catch(
        kind: str, name: str, hits: int, precision: Any, recall: Any, label: str = "hate"
    ) -> Catch:
        return Catch(kind, name, label, hits, precision, recall, 0, None)

    rare, some = Estimate(0.0, 0.0, 0.01), Estimate(0.0, 0.0, 0.3)
    caught = [
        catch("rule", "dead", 0, None, rare),
        catch("rule", "too few labels", 0, None, some),
        catch("rule", "of no label", 0, None, rare, "any"),
        catch("term", "list: badword", 40, Estimate(0.02, 0.0, 0.08), some),
        catch("lexicon", "fine", 40, Estimate(0.5, 0.4, 0.6), some),
    ]
    # What keeps harmless records from a flag does well where nothing that it catches violates.
    caught.append(catch("rule", "quoted_not_flagged", 40, Estimate(0.02, 0.0, 0.08), some))
    caught.append(catch("rule", "quoted_not_flagged", 0, None, rare))
    found = suggesting.retire(caught, 0.1, policy.load_policy(), show=False)
    assert [(one.name, one.hits) for one in found] == [("dead", 0), ("list: b******", 40)]
    labels = np.full((40, 10), -1, np.int8)
    labels[:, HATE] = [1, 0] * 20
    labels[:, 4] = [1, 1] * 20
    keys, reviewers = [f"record {i // 2}" for i in range(40)], ["ann", "bob"] * 20
    (doubt,) = suggesting.doubts(keys, reviewers, labels)
    assert (doubt.label, doubt.pairs) == ("hate", 20)
    assert suggesting.doubts(keys, ["ann"] * 40, labels) == []
    assert suggesting.doubts(keys, [], labels) == []


def test_terms_of_a_lexicon_are_not_suggested_again() -> None:
    default = policy.load_policy()
    known = next(t for t in default.lexicons[0].terms if t.isalpha() and len(t) > 4)
    texts = [f"{WORDS[i % 40 + 1]} {known if i % 2 else 'fine'} zorblax{i % 2}" for i in range(200)]
    labels: npt.NDArray[np.int8] = np.full((200, 10), -1, np.int8)
    labels[:, HATE] = [i % 2 for i in range(200)]
    found = suggesting.add(pa.array(texts, pa.large_string()), labels, default, show=True)
    assert {one.term for one in found if " " not in one.term} == {"zorblax1"}
    assert not any(known in one.term for one in found)
    assert all(one.violating == 100 for one in found if one.term == "zorblax1")
    assert edgemod.OUTPUTS[HATE] == found[0].label
