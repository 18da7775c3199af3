"""Evaluation on small labelled files: what counts, what is left out, and what the command says."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import edgemod
import scoreboard
from edgemod import measuring, plots
from edgemod.encoder import Encoder
from edgemod.errors import InputError, ModelError, RunError
from edgemod.evaluation import Evaluation, Measured, assess, measure
from edgemod.labels import read_labels
from edgemod.llama import Tokens
from edgemod.metrics import figures, roc_auc, wilson
from edgemod.records import Columns, chunk_of, discover
from edgemod.triager import Triager
from edgemod.words import OUTPUTS, Verdict
from samples import HARSH, sentences
from test_cli import run
from training_data import TrainingData

K = len(OUTPUTS)
pytestmark = pytest.mark.usefixtures("measured_here")
TEXT = Columns(("text",), None, None, None, None, None, None, ())
DIGEST = {"policy": "a", "filter": "b", "model": "c", "calibration": "d"}


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def harsh(texts: list[str]) -> list[int]:
    return [int(any(text.startswith(start) for start in HARSH)) for text in texts]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """126 records in small row groups: a null and an empty text, and some without a label."""
    texts = sentences(120)
    toxic = harsh(texts)
    table = pa.table(
        {
            "body": [*texts, None, "", *texts[:4]],
            "toxic": pa.array([*toxic, 1, 0, None, None, None, None], pa.int8()),
            "unsafe": pa.array([*map(bool, toxic), True, None, None, None, None, False]),
            "sexual": pa.array([0.0] * 60 + [None] * 66),
            "pii": pa.nulls(126, pa.int8()),
        }
    )
    path = tmp_path_factory.mktemp("labelled") / "set.parquet"
    pq.write_table(table, path, row_group_size=50)
    return path


def scored(p: list[float], verdicts: list[Verdict], output: str = "toxic") -> Measured:
    """Records with one probability of an output and half of it for any other."""
    column = np.array(p, np.float32)
    matrix = np.repeat(column[:, None] / np.float32(2), K, axis=1)
    matrix[:, OUTPUTS.index(output)] = column
    return Measured({"cascade": matrix}, np.array(verdicts, np.int8))


CLEAR, REVIEW, FLAG = Verdict.clear, Verdict.review, Verdict.flag


# -- from scores to figures --------------------------------------------------------------------


def test_unknown_labels_and_missing_scores_are_left_out() -> None:
    labels = {"toxic": np.array([1, 0, 0, -1, 1], np.int8), "hate": np.full(5, -1, np.int8)}
    given = scored([0.9, 0.1, 0.95, 0.99, np.nan], [FLAG, CLEAR, REVIEW, FLAG, REVIEW])
    (line,) = assess("set", labels, given, DIGEST, resamples=20)
    assert (line.file, line.label, line.n, line.positives) == ("set", "toxic", 4, 2)
    own, anything = line.rankings
    assert (own.probability, anything.probability) == ("p_toxic", "p_any")
    assert (own.n, own.positives, own.unscored) == (3, 1, 1)
    assert (own.figures["auprc"].value, own.figures["auroc"].value) == (0.5, 0.5)
    # The record without a score has a verdict all the same.
    assert line.violating is not None
    assert line.violating.n == 2
    assert line.violating.clear == wilson(0, 2)
    assert line.violating.flag == line.violating.review == wilson(1, 2)
    assert line.harmless is not None
    assert line.harmless.clear == wilson(1, 2)


def test_one_class_has_rates_only() -> None:
    given = scored([0.9, 0.1], [FLAG, CLEAR])
    (line,) = assess("set", {"toxic": np.array([1, 1], np.int8)}, given, DIGEST)
    assert [rank.figures for rank in line.rankings] == [{}, {}]
    assert line.violating is not None
    assert line.violating.flag == wilson(1, 2)
    assert line.harmless is not None
    assert (line.harmless.n, line.harmless.clear) == (0, None)


def test_a_label_with_one_class_left_once_scored_has_no_area() -> None:
    given = scored([np.nan, 0.1], [REVIEW, CLEAR])
    (line,) = assess("set", {"toxic": np.array([1, 0], np.int8)}, given, DIGEST)
    assert line.rankings[0].figures == {}
    assert (line.n, line.positives, line.rankings[0].positives) == (2, 1, 0)


def test_a_harmless_set_also_has_a_line_for_any() -> None:
    labels = {"hate": np.array([0, -1, -1], np.int8), "toxic": np.array([0, 0, -1], np.int8)}
    given = scored([0.1, 0.2, 0.9], [CLEAR, REVIEW, FLAG])
    lines = assess("set", labels, given, DIGEST)
    assert [(line.label, line.n, line.positives) for line in lines] == [
        ("hate", 1, 0),
        ("toxic", 2, 0),
        ("any", 2, 0),
    ]
    assert lines[-1].harmless is not None
    assert lines[-1].harmless.review == wilson(1, 2)
    labels["unsafe"] = np.array([0, 0, -1], np.int8)
    assert [x.label for x in assess("set", labels, given, DIGEST)] == ["hate", "toxic", "unsafe"]


def test_any_and_unsafe_are_ranked_by_p_any_alone() -> None:
    labels = {name: np.array([1, 0], np.int8) for name in ("any", "unsafe")}
    lines = assess("set", labels, scored([0.9, 0.1], [FLAG, CLEAR], "any"), DIGEST, resamples=9)
    assert [[rank.probability for rank in line.rankings] for line in lines] == [["p_any"]] * 2


# -- label columns -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "wanted", "message"),
    [
        ({"text": ["a"]}, None, "has no label column"),
        ({"text": ["a"], "hate": [0]}, ["toxic"], "no column 'toxic'\n  Its labels are: hate"),
        ({"text": ["a"], "rude": [0]}, ["rude"], "'rude' is not a label\n  Labels are named hate,"),
        ({"text": ["a"], "hate": ["yes"]}, None, "column 'hate' is string, not numbers"),
        ({"text": ["a", "b"], "hate": [1, 2]}, None, "not 1, 0 or null in row 1"),
        ({"text": ["a"], "hate": [0.5]}, None, "not 1, 0 or null in row 0"),
        ({"text": ["a"], "hate": pa.nulls(1, pa.int8())}, None, "no record has a label"),
        (
            {"text": pa.array([], pa.string()), "hate": pa.array([], pa.int8())},
            None,
            "no record has a label",
        ),
    ],
)
def test_errors_of_labels(
    tmp_path: Path, columns: dict[str, Any], wanted: list[str] | None, message: str
) -> None:
    path = write(tmp_path / "set.parquet", **columns)
    with pytest.raises(InputError) as told:
        edgemod.evaluate(path, labels=wanted)
    assert message in str(told.value)
    assert told.value.where in ("set.parquet", "--label-columns")
    assert told.value.fix


def test_two_label_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), *[pa.array([1])] * 2], ["text", "hate", "hate"])
    pq.write_table(table, tmp_path / "set.parquet")
    with pytest.raises(InputError, match="two columns are named 'hate'"):
        edgemod.evaluate(tmp_path / "set.parquet")


def test_other_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text("text,hate\na,1\n")
    with pytest.raises(InputError, match="is not Parquet"):
        edgemod.evaluate(tmp_path / "set.csv")


def test_labels_of_every_numeric_type(tmp_path: Path) -> None:
    values = [1, 0, None]
    path = write(
        tmp_path / "set.parquet",
        text=["a", "b", "c"],
        hate=pa.array(values, pa.int8()),
        toxic=pa.array([1.0, 0.0, float("nan")], pa.float32()),
        pii=pa.array([True, False, None]),
        any=pa.array(values, pa.uint64()).dictionary_encode(),
        sexual=pa.nulls(3),
    )
    found = read_labels(discover([path])[0], None)
    assert [*read_labels(discover([path])[0], [*found, *found])] == [*found]
    assert [*found] == ["hate", "sexual", "pii", "toxic", "any"]
    assert found.pop("sexual").tolist() == [-1, -1, -1]
    assert {tuple(column.tolist()) for column in found.values()} == {(1, 0, -1)}


# -- the models --------------------------------------------------------------------------------


def test_verdicts_and_probabilities_are_those_of_a_run(labelled: Path, triager: Triager) -> None:
    lines = {line.label: line for line in edgemod.evaluate(labelled, resamples=20)}
    assert [*lines] == ["sexual", "toxic", "unsafe"]
    table = pq.read_table(labelled)
    (batch,) = table.combine_chunks().to_batches()
    decisions = triager.triage_batch(batch, text="body").to_pylist()
    for name, line in lines.items():
        for label, part in ((1, line.violating), (0, line.harmless)):
            got = [
                d["verdict"]
                for d, answer in zip(decisions, table[name].to_pylist(), strict=True)
                if answer == label
            ]
            assert part is not None
            assert part.n == len(got)
            for verdict in Verdict:
                expected = wilson(got.count(verdict.name), len(got))
                assert getattr(part, verdict.name) == expected
    toxic = lines["toxic"]
    assert (toxic.n, toxic.positives) == (122, sum(harsh(sentences(120))) + 1)
    assert [rank.unscored for rank in toxic.rankings] == [2, 2]
    answers = table["toxic"].to_pylist()
    for rank in toxic.rankings:
        known = [
            (label, d[rank.probability])
            for label, d in zip(answers, decisions, strict=True)
            if label is not None and d[rank.probability] is not None
        ]
        truth, p = map(np.array, zip(*known, strict=True))
        assert rank.n == len(known)
        assert rank.figures["auroc"].value == pytest.approx(roc_auc(truth, p))
    assert toxic.fingerprints == triager.fingerprints()


def test_a_file_that_changes_after_its_labels_were_read(labelled: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    shutil.copy(labelled, path)
    with pytest.raises(InputError, match="changed while it was being read"):
        edgemod.evaluate(
            path, stages=["filter"], resamples=1, on_notice=lambda _: os.utime(path, (0, 0))
        )


def test_sample_seed_and_workers(labelled: Path) -> None:
    def found(**options: Any) -> list[Evaluation]:
        return edgemod.evaluate(
            labelled, stages=["filter"], labels=["toxic"], resamples=20, **options
        )

    assert found() == found(workers=2)
    assert found(rows=40, seed=1) == found(rows=40, seed=1) != found(rows=40, seed=2)
    assert [line.n for line in found(rows=40)] == [40]
    assert found(rows=1000) == found()
    assert found()[0].violating is None  # verdicts are the cascade's


def test_a_folder_is_evaluated_file_by_file(tmp_path: Path) -> None:
    for name, label in (("a", "hate"), ("b", "pii")):
        write(tmp_path / f"{name}.parquet", text=["hello", "you idiot"], **{label: [0, 1]})
    lines = edgemod.evaluate(tmp_path, stages=["filter"], resamples=9)
    assert [(line.file, line.label) for line in lines] == [
        ("a.parquet", "hate"),
        ("b.parquet", "pii"),
    ]


def test_stage_model_needs_a_model(labelled: Path) -> None:
    with pytest.raises(ModelError, match="no language model"):
        edgemod.evaluate(labelled, stages=["model"], model=None)


def test_no_window_is_read_twice_for_several_stages(
    triager: Triager, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*sentences(40), "", "you are a worthless idiot and everyone hates you"]
    texts.append(" ".join([*sentences(30), texts[-1], *sentences(30)]))
    chunk = chunk_of(
        pa.record_batch({"text": texts}), TEXT, max_text_bytes=triager.policy.max_text_bytes
    )
    encoder = triager.model
    assert isinstance(encoder, Encoder)
    encoder._seen.clear()
    read: list[bytes] = []
    vector = encoder.vector

    def watched(window: Tokens) -> Any:
        read.append(window.tobytes())
        return vector(window)

    monkeypatch.setattr(encoder, "vector", watched)
    both = measure(triager, chunk, ["model", "cascade"])
    assert len(read) == len({*read}) > len(texts)
    encoder._seen.clear()
    alone = measure(triager, chunk, ["cascade"])
    assert np.array_equal(both.probabilities["cascade"], alone.probabilities["cascade"], True)


# -- the command -------------------------------------------------------------------------------


def test_command_says_figures_and_no_text(labelled: Path) -> None:
    told = run("evaluate", labelled, "--stage", "filter", "--stage", "cascade", "--bootstrap", 50)
    assert told.returncode == 0, told.stderr
    assert "text column: using 'body'" in told.stderr
    for word in ("set.parquet", "AUPRC", "p_toxic", "p_any", "violating", "not scored", "95 %"):
        assert word in told.stdout
    quoted = run(
        "evaluate", labelled, "--stage", "model", "--stage", "cascade", "--bootstrap", 50,
        "--label-columns", "toxic,unsafe", "--rows", 60, "--seed", 3, "--json",
    )  # fmt: skip
    assert quoted.returncode == 0, quoted.stderr
    lines = json.loads(quoted.stdout)["evaluations"]
    assert [line["label"] for line in lines] == ["toxic", "unsafe"]
    ranks = [(rank["stage"], rank["probability"]) for rank in lines[0]["rankings"]]
    assert ranks == [(s, p) for s in ("model", "cascade") for p in ("p_toxic", "p_any")]
    for output in (told.stdout, told.stderr, quoted.stdout, quoted.stderr):
        assert not any(text in output for text in sentences(120))


def test_command_refuses_labels_without_quoting_them(tmp_path: Path) -> None:
    path = write(tmp_path / "set.parquet", text=["a"], toxic=["a secret remark"])
    told = run("evaluate", path)
    assert told.returncode == 1
    assert "column 'toxic' is string" in told.stderr
    assert "secret" not in told.stderr
    assert run("evaluate").returncode == 2


# -- the scoreboard ----------------------------------------------------------------------------


def test_labels_on_the_scoreboard() -> None:
    def names(*rows: dict[str, int]) -> list[str]:
        labels = np.array([[row.get(name, -1) for name in OUTPUTS] for row in rows], np.int8)
        texts = ["a"] * len(rows)
        part = TrainingData(
            texts,
            labels,
            np.array(texts),
            np.ones(len(rows), np.float32),
            np.zeros(len(rows), bool),
        )
        return [*scoreboard.labels_of(part)]

    assert names({"hate": 1, "any": 1}, {"hate": 0, "any": 0}) == ["hate"]
    assert names({"hate": 1, "any": 1}, {"hate": 0}) == ["hate"]
    assert names({"hate": 1, "any": 1}, {"hate": 0, "any": 1}) == ["hate", "any"]
    assert names(dict.fromkeys(OUTPUTS, 0)) == ["any"]
    assert names({"illicit": 0, "any": 1}, {"any": 0}) == ["any"]


def test_scoreboard_writes_a_page_and_keeps_scores(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    texts = [*sentences(30), ""]
    write(tmp_path / "dev" / "mixed.parquet", text=texts, toxic=[*harsh(texts[:-1]), 0])
    write(tmp_path / "dev" / "benign.parquet", text=texts[:5], presumed_benign=[1] * 5)
    pages = []
    for _ in range(2):
        told = CliRunner().invoke(
            scoreboard.main,
            [str(tmp_path), "-o", str(tmp_path / "page.md"), "--rows", "30", "--bootstrap", "20",
             "--jobs", "1", "--peers", "--disguised", "4", "--cache", str(tmp_path / "cache")],
        )  # fmt: skip
        assert told.exit_code == 0, told.output
        pages.append((tmp_path / "page.md").read_text())
        assert len([*(tmp_path / "cache").iterdir()]) == 3
    assert pages[0] == pages[1]
    rows = [line.split(" | ") for line in pages[0].splitlines() if line.startswith("| mixed")]
    assert [row[1] for row in rows] == ["toxic", "toxic", "toxic"]
    assert len(rows[0]) == 4 + 6 + 1
    assert [line for line in pages[0].splitlines() if line.startswith("| benign | any | 0 | - ")]
    assert all(" to " in cell for cell in rows[2][2:])
    assert not any(text in pages[0] for text in texts[:-1])


def test_groups_and_curves(labelled: Path, tmp_path: Path) -> None:
    table = pq.read_table(labelled)
    where = ["even" if i % 2 else None for i in range(table.num_rows)]
    path = tmp_path / "grouped.parquet"
    pq.write_table(table.append_column("where", pa.array(where, pa.string())), path)
    command = ["evaluate", path, "--stage", "filter", "--by", "where", "--bootstrap", "5"]
    plots = tmp_path / "plots"
    result = run(*command, "--plots", plots, "--json")
    assert result.returncode == 0, result.stderr
    lines = [line for line in json.loads(result.stdout)["evaluations"] if line["label"] == "toxic"]
    assert [line["group"] for line in lines] == [None, "(none)", "even"]
    assert lines[0]["n"] == lines[1]["n"] + lines[2]["n"]
    found = lines[0]["rankings"][0]["figures"]
    assert found["f1_oracle"]["value"] >= found["f1_at_half"]["value"] > 0
    drawn = sorted(plots.glob("*.svg"))
    assert [one.name.split("-")[-1] for one in drawn] == ["toxic.svg", "unsafe.svg"]
    again = tmp_path / "again"
    assert run(*command, "--plots", again).returncode == 0
    for one in drawn:
        assert "<svg" in one.read_text()
        assert one.read_bytes() == (again / one.name).read_bytes()
    assert "even" in run(*command).stdout
    one = tmp_path / "one.parquet"
    pq.write_table(table.append_column("where", pa.array(["here"] * table.num_rows)), one)
    told = run("evaluate", one, *command[2:]).stdout
    assert "one.parquet, all of it here" in told
    assert (
        told.replace(", all of it here", "")
        == run("evaluate", one, *command[2:4], *command[6:]).stdout
    )
    assert "no one column 'colour'" in run("evaluate", path, "--by", "colour").stderr


def test_curves_are_those_of_the_figures() -> None:
    random = np.random.default_rng(0)
    answers, p = random.random(500) < 0.3, random.integers(0, 40, 500) / 40
    recall, precision = plots.precision_recall(answers, p)
    area = float((np.diff(recall, prepend=0) * precision).sum())
    kept, wrong = plots.risk_coverage(answers, p)
    found = figures(answers.astype(np.int8), p, resamples=2)
    assert area == pytest.approx(found["auprc"].value)
    assert np.trapezoid(wrong, kept) == pytest.approx(found["augrc"].value)
    x, y = plots.reliability(answers, p)
    assert np.mean(x) == pytest.approx(p.mean(), abs=0.01)
    assert np.mean(y) == pytest.approx(answers.mean(), abs=0.01)


def test_workers_must_have_loaded_what_the_caller_has(tmp_path: Path) -> None:
    """A policy that changes between the two would give figures under another's fingerprint."""
    with measuring.Measurers("evaluate", ("filter",), None, None, None, 1) as measurers:
        with Triager(model=None) as triager:
            loaded = triager.fingerprints()
        measurers.check(loaded)
        with pytest.raises(RunError, match="changed while it was read: policy"):
            measurers.check({**loaded, "policy": "another"})
