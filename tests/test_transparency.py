"""The tables of transparency reports: they add up, name nobody, and invent nothing."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import edgemod
from edgemod import audit, breakdown, run_folder, transparency
from edgemod.errors import InputError, OutputError
from edgemod.words import CATEGORIES
from samples import sentences
from test_cli import run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of 1,200 records in two languages, one with a name that would be a formula."""
    folder = tmp_path_factory.mktemp("public")
    texts = [f"{t} 4111 1111 1111 1111" if i % 9 == 4 else t for i, t in enumerate(sentences(1200))]
    table = {
        "id": [f"secret-id-{i}" for i in range(1200)],
        "text": texts,
        "lang": [("=1+1", "en")[i % 2] for i in range(1200)],
    }
    pq.write_table(pa.table(table), folder / "in.parquet")
    edgemod.triage(folder / "in.parquet", folder / "out", model=None, workers=1, chunk_rows=256)
    return folder / "out"


def rows(path: Path) -> list[dict[str, str]]:
    raw = path.read_bytes()
    assert raw.count(b"\n") == raw.count(b"\r\n")
    return list(csv.DictReader(raw.decode().splitlines(), strict=True))


def test_tables_add_up_and_name_nobody(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "t"
    done = run("report", finished, "--transparency", "-o", out, "--by", "lang",
               "--service", "Example", "--period", "2026-01-01/2026-06-30")  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads((finished / "report.json").read_text())
    flags = told["verdicts"].get("flag", 0)
    six = rows(out / "6_own_initiative_TC.csv")
    measure = "Number of measures taken at the provider's own initiative"
    assert six[0]["Service"] == "Example"
    assert int(six[0][measure]) == flags == sum(int(row[measure]) for row in six[1:])
    assert not any(row["Visibility restriction Removal"] for row in six)
    counts = rows(out / "counts.csv")
    for dimension in ("stage", "lang", "automation"):
        mine = [int(row["records"]) for row in counts if row["dimension"] == dimension]
        assert sum(mine) == told["records"]
    assert "'=1+1" in {row["value"] for row in counts}
    statements = [json.loads(x) for x in (out / "statements.jsonl").read_text().splitlines()]
    assert len(statements) == flags > 0
    assert {s["automated_decision"] for s in statements} == {"AUTOMATED_DECISION_FULLY"}
    assert all(s["puid"] is None and s["application_date"] is None for s in statements)
    everything = b"".join(path.read_bytes() for path in out.iterdir())
    assert b"secret-id" not in everything
    assert not any(text.encode() in everything for text in sentences(1200))
    with pytest.raises(OutputError, match="is there already"):
        transparency.write(finished, out)


def test_what_is_not_known_is_empty(finished: Path, tmp_path: Path) -> None:
    transparency.write(finished, tmp_path / "t")
    eight = rows(tmp_path / "t" / "8_automated_means.csv")
    assert [bool(row["Value"]) for row in eight] == [True, False, False, False, False]
    assert all("not known" in row["Contextual Information"] for row in eight[1:])
    for row in rows(tmp_path / "t" / "santa_clara.csv"):
        assert bool(row["value"]) != ("not known" in row["note"])


def test_ids_are_pseudonyms_or_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pseudonyms"):
        transparency.write(finished, tmp_path / "t", ids=True)
    assert not (tmp_path / "t").exists()


def test_rates_are_those_of_the_labels(finished: Path, tmp_path: Path) -> None:
    audit.sample(finished, tmp_path / "sample", n=400)
    table = pq.read_table(tmp_path / "sample" / "review-00000.parquet")
    truth = np.random.default_rng(0).random(table.num_rows) < 0.3
    labels = tmp_path / "labels.parquet"
    pq.write_table(table.append_column("any", pa.array(truth.astype(np.int8))), labels)
    state = run_folder.complete_state(finished)
    found = transparency._audited(finished, state, labels)
    shares = {s.what: s.share for s in audit.report(labels) if s.label == "any"}
    for name, what in (("Precision", "wrong flags"), ("Recall", "missed")):
        share = shares[what]
        assert share is not None
        assert float(found[name][0]) == pytest.approx(100 - 100 * share.value, abs=0.006)
        assert f"{1 - share.high:.2%} to {1 - share.low:.2%}" in found[name][1]
    risk = breakdown.risk(finished, state, labels).risk
    assert risk is not None
    assert float(found["Accuracy"][0]) == pytest.approx(100 - 100 * risk.value, abs=0.006)


def test_a_certificate_gives_bounds_and_no_values() -> None:
    risk = {"side": "miss", "category": "any", "stratum": None, "certified": True, "bound": 0.02}
    state = {"certificate": {"goal": {"delta": 0.05}, "risks": [risk]}}

    def rates(**certificate: Any) -> transparency.Rates:
        told: Any = SimpleNamespace(certificate=certificate)
        return transparency._certified(told, state)

    held = rates(void=False)
    assert held["Recall"][0] == ""
    assert "at least 98.00% with confidence 95%" in held["Recall"][1]
    assert "not known" in held["Precision"][1]
    assert all("void" in note for _, note in rates(void=True).values())
    risk["certified"] = False
    assert "not known" in rates(void=False)["Recall"][1]


def test_every_category_has_one_of_the_database() -> None:
    assert {*transparency.CATEGORY} == {*CATEGORIES}
