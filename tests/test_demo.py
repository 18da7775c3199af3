"""The demo's input: deterministic, of the stated shape, and with the stated mix."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import demo_seeds as seeds
import make_demo
from edgemod.words import CATEGORIES

ROWS = 2_000


@pytest.fixture(scope="module")
def made() -> tuple[pa.Table, pa.Table, pa.Table]:
    return make_demo.make(ROWS, seed=7)


def files(folder: Path, *arguments: str) -> dict[str, bytes]:
    make_demo.main([str(folder), *arguments])
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_equal_seeds_give_equal_files(tmp_path: Path) -> None:
    first = files(tmp_path / "a", "--rows", str(ROWS))
    assert set(first) == {"comments.parquet", "conversations.parquet", "truth.parquet"}
    assert files(tmp_path / "b", "--rows", str(ROWS), "--seed", "7") == first
    other = files(tmp_path / "c", "--rows", str(ROWS), "--seed", "8")
    assert all(other[name] != first[name] for name in first)


def test_schemas_and_counts(made: tuple[pa.Table, pa.Table, pa.Table]) -> None:
    comments, conversations, truth = made
    assert comments.schema == make_demo.COMMENTS
    assert conversations.schema == make_demo.CONVERSATIONS
    assert truth.schema == make_demo.TRUTH
    assert comments.num_rows + conversations.num_rows == truth.num_rows == ROWS
    assert comments.num_rows == 0.84 * ROWS
    ids = [*comments["id"].to_pylist(), *conversations["id"].to_pylist()]
    assert truth["record_id"].to_pylist() == ids
    assert len(set(ids)) == ROWS


def test_about_one_in_eight_violates_and_every_category_occurs(
    made: tuple[pa.Table, pa.Table, pa.Table],
) -> None:
    truth = made[2]
    assert 0.09 <= pc.mean(truth["any"].cast(pa.float32())).as_py() <= 0.15
    assert set(truth["category"].drop_null().to_pylist()) == set(CATEGORIES)
    rows = truth.to_pylist()
    assert all(row["any"] is (row["category"] is not None) or row["kind"] == "nothing"
               for row in rows)  # fmt: skip
    assert all(row["any"] is None for row in rows if row["kind"] == "nothing")
    assert {row["kind"] for row in rows} == {*make_demo.KINDS, *make_demo.TALK_KINDS}


def test_the_dump_is_as_untidy_as_a_real_one(made: tuple[pa.Table, pa.Table, pa.Table]) -> None:
    texts: list[str | None] = made[0]["text"].to_pylist()
    present = [text for text in texts if text]
    assert None in texts
    assert 0.02 < 1 - len(set(present)) / len(present) < 0.2  # exact duplicates
    assert max(len(text) for text in present) > 3_000
    assert any("\u200b" in text for text in present)
    assert any(re.search("[а-я]", text) for text in present)
    assert any(text.isascii() is False for text in present)
    conversations: list[list[Any] | None] = made[1]["messages"].to_pylist()
    assert not all(conversations)
    assert {m["role"] for c in conversations if c for m in c} == {"user", "agent", "assistant"}


def test_shares_add_up_to_one() -> None:
    assert sum(make_demo.KINDS.values()) == pytest.approx(1)
    assert sum(make_demo.TALK_KINDS.values()) == pytest.approx(1)


def test_every_seed_can_be_filled() -> None:
    writer = make_demo.Writer(1)
    pairs = [text for pair in (*seeds.SUPPORT, *seeds.ASSISTANT) for text in pair]
    groups = [*seeds.ORDINARY.values(), *seeds.VIOLATING.values()]
    templates = [template for group in groups for template in group] + pairs
    templates += [*seeds.HARD, *seeds.OPENERS, *seeds.CLOSERS, *seeds.BRIEF, *seeds.REPLIES]
    templates += [template for template, _ in seeds.FOREIGN]
    used = {name for template in templates for name in re.findall(r"\{(\w+)\}", template)}
    assert used == set(seeds.SLOTS)
    for template in templates:
        assert not re.search("[{}]", writer.fill(template))


def test_results_count_verdicts_by_what_is_true(tmp_path: Path) -> None:
    truth = [
        ("a", True, "hate", "violating"),
        ("b", False, None, "hard"),
        ("c", False, None, "hard"),
    ]
    names = make_demo.TRUTH.names
    table = pa.Table.from_pylist(
        [dict(zip(names, row, strict=True)) for row in truth], schema=make_demo.TRUTH
    )
    pq.write_table(table, tmp_path / "truth.parquet")
    for out, ids, verdicts in (("x", ["a", "b"], ["flag", "clear"]), ("y", ["c"], ["review"])):
        (tmp_path / out / "decisions").mkdir(parents=True)
        decided = pa.table({"record_id": ids, "verdict": pa.array(verdicts).dictionary_encode()})
        pq.write_table(decided, tmp_path / out / "decisions" / "part-00000.parquet")
    lines = make_demo.results(tmp_path, [tmp_path / "x", tmp_path / "y"]).splitlines()
    assert [line.split() for line in lines] == [
        ["what", "it", "is", "clear", "review", "flag"],
        ["hate", "0", "0", "1"],
        ["fine:", "hard", "1", "1", "0"],
    ]
