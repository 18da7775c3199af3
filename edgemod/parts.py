"""Writing files that are either whole and on disk, or not there."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from edgemod import encryption
from edgemod.errors import OutputError

PARTIAL = ".partial"
"""Suffix of a file that is still being written, or whose writer was killed."""

ROW_GROUP_ROWS = 65_536


def write_part(table: pa.Table, path: Path) -> None:
    """Write a table as ``encoded`` gives it, as ``write_bytes`` does. Raises OutputError."""
    write_bytes(path, encoded(table))


def encoded(table: pa.Table) -> pa.Buffer:
    """A table as the bytes of a Parquet file, in memory: a part is one chunk.

    Equal tables give equal bytes, but for those of a key (encryption.py): how the table is cut
    into batches, and metadata of pandas, leave no trace.
    """
    metadata = {k: v for k, v in (table.schema.metadata or {}).items() if k != b"pandas"}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.combine_chunks().replace_schema_metadata(metadata or None),
        sink,
        row_group_size=ROW_GROUP_ROWS,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        use_dictionary=True,
        write_statistics=True,
        write_page_checksum=True,
        store_schema=True,
        encryption_properties=encryption.encrypting(),
    )
    return sink.getvalue()


def decoded(data: bytes) -> pa.Table:
    """The table that ``encoded`` was given. Raises pa.ArrowException, or OSError."""
    return _opened(pa.BufferReader(data)).read()


def open_part(path: Path) -> pq.ParquetFile:
    """Open a Parquet file of edgemod's own, a context. Raises OSError, pa.ArrowException."""
    return _opened(pa.OSFile(os.fsencode(path)))  # a name as bytes: it need not be UTF-8


def _opened(stream: pa.NativeFile) -> pq.ParquetFile:
    decryption = encryption.decrypting()
    return pq.ParquetFile(stream, page_checksum_verification=True, decryption_properties=decryption)


def writer(where: Path | BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    """Write a Parquet file table by table, a row group each; a context."""
    encrypted = encryption.encrypting()
    return pq.ParquetWriter(where, schema, compression="zstd", encryption_properties=encrypted)


def write_bytes(path: Path, data: bytes | pa.Buffer) -> None:
    """Replace or create a file as ``replacing`` does. Raises OutputError."""
    with replacing(path) as partial, partial.open("wb") as stream:
        stream.write(data)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, each for its owner alone.

    Whatever the umask is; one that is there keeps its mode. Raises OutputError.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o700)
            folder.chmod(0o700)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise OutputError(
            f"cannot be used as the output folder: {error.strerror}",
            where=str(path),
            fix="Name a folder that you may write to, with -o.",
        ) from error


def place(source: Path, target: Path) -> None:
    """Give a file a second name, or where that cannot be a copy, as ``replacing`` does.

    ``target`` must not be there. Raises OutputError.
    """
    try:
        os.link(source, target)
        _sync(target.parent)
    except OSError:  # another disk, or a file system that has no hard links
        with replacing(target) as partial:
            shutil.copyfile(source, partial)


def check_target(path: Path, inputs: Iterable[Path]) -> None:
    """Before the work: raise OutputError if a file cannot be written or is one of ``inputs``."""
    if path.exists() and any(one.exists() and path.samefile(one) for one in inputs):
        raise OutputError(
            "is the input itself, which would be replaced",
            where=str(path),
            fix="Name another file with -o.",
        )
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot be written: {error.strerror or error}",
        where=str(path),
        fix="check that the folder exists, that you may write to it and that it has space",
    )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of an empty file to write; on leaving, it takes the place of ``path``.

    Atomic and durable: whoever opens ``path``, even after a power cut, finds the old content or
    all of the new. Readable by its owner alone. On any error nothing is left behind; those of the
    system become OutputError.
    """
    partial = None
    try:
        descriptor, partial = tempfile.mkstemp(PARTIAL, f".{path.name}.", path.parent)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
        yield Path(partial)
        _sync(Path(partial))
        os.replace(partial, path)
        partial = None
        _sync(path.parent)  # a rename is on disk only once its folder is
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if partial is not None:
            with suppress(OSError):
                os.unlink(partial)


def remove(*paths: Path) -> None:
    """Remove files and folders, where they are. Raises OutputError."""
    for path in paths:
        try:
            if path.is_dir():
                shutil.rmtree(path)
            elif os.path.lexists(path):  # a read-only file system refuses before it looks
                path.unlink()
        except OSError as error:
            raise OutputError(
                f"cannot be removed: {error.strerror}",
                where=str(path),
                fix="Make it writable for you, or name another folder with -o.",
            ) from error


def unfinished(folder: Path, *names: str) -> list[Path]:
    """What killed writers of the files ``names`` left in a folder (none given: of any file)."""
    patterns = [f".{glob.escape(name)}.*{PARTIAL}" for name in names] or [f".*{PARTIAL}"]
    return [file for pattern in patterns for file in folder.glob(pattern)]


def clean_parts(folder: Path, *names: str) -> int:
    """Remove what is ``unfinished`` in a folder; return how many files. Raises OutputError."""
    count = 0
    try:
        for file in unfinished(folder, *names):
            file.unlink(missing_ok=True)
            count += 1
    except OSError as error:
        raise OutputError(
            f"an unfinished file cannot be removed: {error.strerror}",
            where=str(folder),
            fix="check that you may write to the folder",
        ) from error
    return count


def hold(partial: Path) -> IO[bytes]:
    """Mark a file of ``replacing`` as being written for as long as what this returns is open."""
    stream = partial.open("rb")
    fcntl.flock(stream, fcntl.LOCK_SH)
    return stream


def clean_abandoned(path: Path) -> None:
    """Remove what killed writers of a file left beside it, but for what somebody still holds."""
    drawn = "[a-z0-9_]" * 8  # by mkstemp: not the rest of a longer name
    for partial in path.parent.glob(f".{glob.escape(path.name)}.{drawn}{PARTIAL}"):
        with suppress(OSError), partial.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
