"""Parts are whole and on disk, or not there."""

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgemod.errors import OutputError
from edgemod.parts import PARTIAL, check_target, clean_parts, replacing, write_bytes, write_part

TABLE = pa.table({"id": ["a", "b", None], "p": pa.array([0.5, 1.0, 0.0], pa.float32())})


def test_a_target_is_checked_before_the_work(tmp_path: Path) -> None:
    labels, link = tmp_path / "labels.parquet", tmp_path / "link.parquet"
    labels.write_bytes(b"hours of work")
    link.symlink_to(labels)
    check_target(tmp_path / "own.json", [labels])
    check_target(labels, [tmp_path / "other.parquet"])
    for target in (labels, link):
        with pytest.raises(OutputError, match="is the input itself"):
            check_target(target, [tmp_path / "other.parquet", labels])
    with pytest.raises(OutputError, match="cannot be written"):
        check_target(tmp_path / "gone" / "own.json", [labels])
    assert {*tmp_path.iterdir()} == {labels, link}


def test_a_part_reads_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    write_part(TABLE, path)
    assert pq.read_table(path).equals(TABLE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    assert os.listdir(tmp_path) == [path.name]


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    table = pa.table({"t": [str(i % 97) for i in range(200_000)], "n": range(200_000)})
    cut = pa.concat_tables([table.slice(i, 12_345) for i in range(0, 200_000, 12_345)])
    pandas = cut.replace_schema_metadata({"pandas": "{}"})
    for name, version in (("a", table), ("b", cut), ("c", pandas)):
        write_part(version, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "c").read_bytes()


def test_metadata_that_is_not_of_pandas_stays(tmp_path: Path) -> None:
    write_part(TABLE.replace_schema_metadata({"run": "7", "pandas": "{}"}), tmp_path / "p")
    assert pq.read_schema(tmp_path / "p").metadata == {b"run": b"7"}


def test_bytes_replace_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_bytes(path, b"old and longer")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "run.json"
    with pytest.raises(OutputError) as caught:
        write_bytes(path, b"{}")
    assert str(caught.value) == (
        f"{path}: cannot be written: No such file or directory\n"
        "  check that the folder exists, that you may write to it and that it has space"
    )


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """In a child whose files may not pass 1,000 bytes: the write fails half way."""
    path = tmp_path / "part.parquet"
    path.write_bytes(b"old")
    child = f"""
import resource, signal
from pathlib import Path
from edgemod.parts import write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, {resource.RLIM_INFINITY}))
write_bytes(Path({str(path)!r}), bytes(5000))
"""
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-B", "-c", child], env={**os.environ, "PYTHONPATH": root},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "OutputError" in done.stderr
    assert "File too large" in done.stderr
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OutputError, match="Read-only file system"):
        write_part(TABLE, tmp_path / "part.parquet")
    assert os.listdir(tmp_path) == []


def test_the_file_is_on_disk_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(descriptor: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def seen_replace(source: Path, target: Path) -> None:
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    write_bytes(tmp_path / "x", b"x")
    assert calls == ["file", "replace", "folder"]


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with replacing(tmp_path / "x") as partial:
            partial.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_leftovers_of_killed_writers_are_cleaned(tmp_path: Path) -> None:
    write_part(TABLE, tmp_path / "part.parquet")
    (tmp_path / f".part.parquet.abc{PARTIAL}").write_bytes(b"half")
    (tmp_path / ".keep").write_bytes(b"")
    assert clean_parts(tmp_path) == 1
    assert sorted(os.listdir(tmp_path)) == [".keep", "part.parquet"]
