"""Inspection says what a file holds and how to start."""

import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgemod.errors import InputError
from edgemod.inspection import SAMPLE_ROWS, Column, inspect


def test_a_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "my dump.parquet"
    texts = ["", None, "x" * 19, "x" * 20, "\u00e9" * 49, "y" * 200_000]
    table = pa.table({"uid": range(6), "comment_id": range(6), "body": texts, "n": [0.5] * 6})
    pq.write_table(table, path, row_group_size=2, compression="gzip")
    found = inspect(path)
    assert (found.format, found.rows, found.row_groups) == ("parquet", 6, 3)
    assert found.codecs == ("GZIP",)
    assert found.columns == (
        Column("uid", "int64", ""),
        Column("comment_id", "int64", "id"),
        Column("body", "string", "text"),
        Column("n", "double", ""),
    )
    assert (found.sampled, found.unscored) == (6, 2)
    counts = dict(found.histogram)
    assert {label: n for label, n in counts.items() if n} == {
        "0": 1, "1 to 19": 1, "20 to 49": 2, "100,000 and more": 1,
    }  # fmt: skip
    assert found.notices == (
        "text column: using 'body' (guessed by name); say --text-column to choose",
        "id column: using 'comment_id' (guessed by name); say --id-column to choose",
    )
    assert shlex.split(found.command) == [
        "edgemod", "triage", str(path), "-o", "my dump-triage",
        "--text-column", "body", "--id-column", "comment_id",
    ]  # fmt: skip
    assert found.headline == (
        f"{path}: parquet, {path.stat().st_size:,} bytes, 6 rows in 3 row groups, GZIP compression"
    )


def test_only_the_first_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["hello"] * (2 * SAMPLE_ROWS)}), path)
    assert inspect(path).sampled == SAMPLE_ROWS


def test_a_column_that_cannot_be_told(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"left": ["aaaa"], "right": ["bbbb"], "n": [1]}), path)
    found = inspect(path)
    assert found.command.endswith("-o a-triage --text-column COLUMN")
    assert found.notices == (
        "cannot tell which column is the text; say --text-column or --conversation-column; "
        "candidates: left, right",
    )
    assert [column.role for column in found.columns] == ["text?", "text?", ""]
    assert found.histogram == ()


def test_conversations(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": "x", "messages": [{"role": "user", "content": "hi"}]}\n')
    found = inspect(path)
    assert (found.format, found.rows, found.row_groups, found.codecs) == ("jsonl", None, None, ())
    assert found.headline.endswith("rows not counted")
    assert "--conversation-column messages --id-column id" in found.command
    assert dict(found.histogram)["1 to 19"] == 1


def test_a_file_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"")
    found = inspect(path)
    assert (found.columns, found.histogram) == ((), ())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("-x.csv", ["./-x.csv", "-o", "x-triage"]),
        (".x.csv", [".x.csv", "-o", "x-triage"]),
        ("-.csv", ["./-.csv", "-o", "csv-triage"]),
    ],
)
def test_names_that_begin_oddly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("text\na\n")
    assert shlex.split(inspect(Path(name)).command)[2:5] == words


def test_the_files_of_a_folder_or_glob_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "dump"
    for day, rows in (("1", 3), ("2", 4)):
        (folder / f"day={day}").mkdir(parents=True)
        pq.write_table(pa.table({"id": range(rows), "text": ["hello"] * rows}),
                       folder / f"day={day}" / "a.parquet", row_group_size=2)  # fmt: skip
    found = inspect(folder)
    assert (found.files, found.rows, found.row_groups, found.sampled) == (2, 7, 4, 7)
    assert found.size == sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    assert found.headline.startswith(f"{folder}: 2 files, parquet, {found.size:,} bytes, 7 rows in")
    assert found.command.startswith(f"edgemod triage {folder} -o dump-triage --text-column text")
    (folder / "b.csv").write_text("id,text\n1,hello\n")
    mixed = inspect(f"{folder}/**/*.*")
    assert (mixed.files, mixed.rows, mixed.format) == (3, None, "csv and parquet")
    assert mixed.row_groups is None
    assert f"'{folder}/**/*.*'" in mixed.command
    (folder / "b.csv").write_text("id,comment\n1,hello\n")
    assert "day=1/a.parquet: no column 'comment'" in inspect(folder).notices[0]


def test_a_folder_without_a_dump_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no input file in this folder"):
        inspect(tmp_path)
