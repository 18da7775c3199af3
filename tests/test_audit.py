"""Samples of a run with known chances, and what their labels say of the whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import edgemod
from edgemod import audit
from edgemod.errors import InputError, OutputError, RunError
from samples import sentences
from test_cli import run
from test_evaluation import harsh


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of two inputs and the run of it, by the filter alone."""
    folder = tmp_path_factory.mktemp("audited")
    data, out = folder / "in", folder / "out"
    data.mkdir()
    texts = sentences(1500)
    pq.write_table(pa.table({"text": [*texts[:900], None], "id": [*map(str, range(901))]}),
                   data / "a.parquet", row_group_size=100)  # fmt: skip
    (data / "b.csv").write_text(
        "id,text\n" + "".join(f"b{i},{json.dumps(t)}\n" for i, t in enumerate(texts[900:]))
    )
    edgemod.triage(data, out, model=None, workers=1, chunk_rows=256)
    return data, out


def read(folder: Path) -> pa.Table:
    return pq.read_table(folder / "review-00000.parquet")


def test_a_sample_has_the_texts_of_its_records(finished: Any, tmp_path: Path) -> None:
    _, out = finished
    made = audit.sample(out, tmp_path / "sample", n=300, seed=3)
    table = read(tmp_path / "sample")
    assert table.num_rows == made.exported
    assert 220 < table.num_rows < 380
    texts = {f"{i}": text for i, text in enumerate(sentences(1500)[:900])} | {"900": None}
    texts |= {f"b{i}": text for i, text in enumerate(sentences(1500)[900:])}
    decisions = pq.read_table(out / "decisions").to_pylist()
    by_id = {row["record_id"]: row for row in decisions}
    for row in table.to_pylist():
        assert row["text"] == texts[row["record_id"]]
        assert row["verdict"] == by_id[row["record_id"]]["verdict"]
        assert row["source_row"] == by_id[row["record_id"]]["source_row"]
        assert 0 < row["inclusion_probability"] <= 1
    assert {*table["verdict"].to_pylist()} >= {"clear", "review"}
    assert len({*table["record_id"].to_pylist()}) == table.num_rows
    again = audit.sample(out, tmp_path / "again", n=300, seed=3)
    assert again == made
    assert (tmp_path / "again" / made.files[0]).read_bytes() == (
        tmp_path / "sample" / made.files[0]
    ).read_bytes()
    assert read_ids(tmp_path / "sample") != sorted(read_ids(tmp_path / "sample"))  # shuffled


def read_ids(folder: Path) -> list[str]:
    return [str(x) for x in read(folder)["record_id"].to_pylist()]


def test_chances_add_up_and_none_is_left_out() -> None:
    p = np.array([0.0, 0.5, 1.0, np.nan, 0.2] * 200)
    none = np.zeros(1000, bool)
    chance, floors = audit.chances(p, none, 100)
    assert chance.sum() == pytest.approx(100)
    assert chance.min() == pytest.approx(50 / 1000)
    assert (floors == chance.min()).all()
    assert chance[1] == chance[3] > chance[4] > chance[0]
    assert (audit.chances(p, none, 10_000)[0] == 1).all()
    assert audit.chances(np.zeros(0), none[:0], 5)[0].tolist() == []
    for flagged in (none[:4], ~none[:4]):
        assert audit.chances(np.zeros(4), flagged, 2)[0].tolist() == [0.5] * 4


def test_flags_are_drawn_though_few_and_sure() -> None:
    p = np.full(20_000, 0.02)
    p[:26] = 0.995
    chance, floors = audit.chances(p, p > 0.9, 200)
    assert (chance[:26] == 1).all()  # all of them: fewer than a quarter of the sample
    assert (floors[:26] == 1).all()
    assert chance[26:] == pytest.approx((200 - 26) / (20_000 - 26), rel=1e-3)
    assert floors[26:] == pytest.approx(100 / 20_000)
    many = np.arange(20_000) < 2_000
    chance, floors = audit.chances(np.where(many, 0.995, 0.02), many, 200)
    assert (chance[many] == floors[many]).all()  # alike
    assert chance[many].sum() == pytest.approx(50 + 100 / 10)
    assert chance.sum() == pytest.approx(200)


def test_a_sample_tells_of_wrong_flags(tmp_path: Path) -> None:
    """26 flags of 20,000: found right is 0 of 26, and no more than one in four can be wrong."""
    random = np.random.default_rng(5)
    p = random.uniform(0.001, 0.3, 20_000)
    flagged = np.arange(20_000) < 26
    p[flagged] = 0.999
    chance, floors = audit.chances(p, flagged, 200)
    rows = np.flatnonzero(random.random(20_000) < chance)
    table = pa.table(
        {
            "source": ["a"] * len(rows),
            "source_row": rows,
            "verdict": np.where(flagged[rows], "flag", "clear"),
            "category": ["hate" if one else None for one in flagged[rows]],
            "inclusion_probability": chance[rows],
            "inclusion_floor": floors[rows],
            "any": flagged[rows].astype(np.int8),
        }
    )
    pq.write_table(table, tmp_path / "labelled.parquet")
    found = {one.what: one for one in audit.report(tmp_path / "labelled.parquet")}
    assert found["wrong flags"].n == 26
    share = found["wrong flags"].share
    assert share is not None
    assert share.value == 0
    assert share.high == pytest.approx(1 - 0.025 ** (1 / 26))  # exact: they were drawn alike
    # One least chance for all flags, one for all others; not one for each record.
    at = table.column_names.index("inclusion_floor")
    own = table.set_column(at, "inclusion_floor", table["inclusion_probability"])
    pq.write_table(own, tmp_path / "own.parquet")
    with pytest.raises(InputError, match="is not one number"):
        audit.report(tmp_path / "own.parquet")


def test_shares_of_the_whole_are_found_from_samples(finished: Any, tmp_path: Path) -> None:
    """All records have a label here, so that the truth is known."""
    _, out = finished
    audit.sample(out, tmp_path / "all", n=1_000_000)
    whole = read(tmp_path / "all")
    assert whole.num_rows == 1501
    known = [text or "" for text in whole["text"].to_pylist()]
    truth = np.array(harsh(known))
    verdict = np.array(whole["verdict"].to_pylist())
    expected = {
        "violate": truth.mean(),
        "missed": (verdict == "clear")[truth == 1].mean(),
        "violate among cleared": truth[verdict == "clear"].mean(),
        "wrong flags": (truth == 0)[verdict == "flag"].mean() if "flag" in verdict else 0,
    }
    inside = total = 0
    for seed in range(12):
        audit.sample(out, tmp_path / f"s{seed}", n=250, seed=seed)
        table = read(tmp_path / f"s{seed}")
        labels = harsh([text or "" for text in table["text"].to_pylist()])
        path = tmp_path / "labelled.parquet"
        pq.write_table(table.append_column("any", pa.array(labels)), path)
        found = {one.what: one for one in audit.report(path)}
        assert {*found} == {*expected}
        for what, one in found.items():
            if one.share is not None:
                total += 1
                inside += one.share.low <= expected[what] <= one.share.high
    assert inside >= 0.95 * total


def test_the_commands(finished: Any, tmp_path: Path) -> None:
    _, out = finished
    result = run("audit", "sample", out, "-o", tmp_path / "csv", "-n", 40, "--format", "csv")
    assert result.returncode == 0, result.stderr
    assert "review.csv" in result.stderr
    assert run("audit", "sample", out, "-o", tmp_path / "s", "-n", 60).returncode == 0
    table = read(tmp_path / "s")
    labelled = tmp_path / "labelled.parquet"
    labels = [int(i % 7 == 0) for i in range(table.num_rows)]
    pq.write_table(table.append_column("toxic", pa.array(labels)), labelled)
    result = run("audit", "report", labelled)
    assert "those that violate" in result.stdout
    shares = json.loads(run("audit", "report", labelled, "--json").stdout)["shares"]
    assert [one["what"] for one in shares][:2] == ["violate", "missed"]
    # The same labels calibrate, by their known chances.
    result = run("calibrate", labelled, "-o", tmp_path / "c.json", "--model", "none", "--json")
    assert json.loads(result.stdout)["labels"]["drawn by known chances"]


def test_what_cannot_be_audited(finished: Any, tmp_path: Path) -> None:
    data, out = finished
    with pytest.raises(RunError, match="not the folder of a complete run"):
        audit.sample(tmp_path, tmp_path / "s")
    with pytest.raises(InputError, match="sample of 0"):
        audit.sample(out, tmp_path / "s", n=0)
    shipped = Path(edgemod.__file__).parent / "policies"
    shutil.copytree(shipped, tmp_path / "policies")
    policy = tmp_path / "policies" / "default.toml"
    policy.write_text(policy.read_text().replace("severity = 4", "severity = 3", 1))
    with pytest.raises(InputError, match="another policy"):
        audit.sample(out, tmp_path / "s", policy=policy)
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": ["a"], "toxic": [1]}), path)
    with pytest.raises(InputError, match="has no column inclusion_probability"):
        audit.report(path)
    whole = {"verdict": ["clear", "flag"], "category": [None, "toxic"], "source": ["a", "a"]}
    whole |= {"source_row": [0, 1], "toxic": [0, 1]}
    whole |= {"inclusion_probability": [0.5, 0.5], "inclusion_floor": [0.5, 0.5]}
    for change, what in (
        ({}, ""),
        ({"verdict": ["clear", "Flag"]}, "has verdicts that are none"),
        ({"verdict": ["review", "review"]}, "nothing but records for review"),
        ({"source_row": [1, 1]}, "holds a record twice"),
    ):
        pq.write_table(pa.table(whole | change), path)
        if what:
            with pytest.raises(InputError, match=what):
                audit.report(path)
        else:
            assert audit.report(path)[0].n == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "labels.csv").write_text("work of days")
    with pytest.raises(OutputError, match="is there already"):
        audit.sample(out, tmp_path / "mine")
    part = sorted((out / "decisions").glob("*"))[1]
    content = part.read_bytes()
    part.write_bytes(content[:100])
    with pytest.raises(RunError, match="damaged"):
        audit.sample(out, tmp_path / "s")
    part.write_bytes(content)
    before = (data / "b.csv").read_text()
    (data / "b.csv").write_text(before + "more,text\n")
    try:
        with pytest.raises(InputError, match="has changed since the run"):
            audit.sample(out, tmp_path / "s")
    finally:
        (data / "b.csv").write_text(before)
