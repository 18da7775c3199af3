"""Finding the files of a run, a sorted list of ``Source``, and opening them."""

from __future__ import annotations

import bz2
import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from edgemod import encryption
from edgemod.errors import InputError
from edgemod.words import Status

Format = Literal["parquet", "csv", "jsonl"]

SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".parq": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
"""Suffixes CSV and JSONL files may carry on top of their own."""

BLOCK_BYTES = 1 << 20
"""Bytes of CSV and JSONL read at a time, decompressed."""

READ_BYTES = 1 << 18
"""Bytes of each Parquet column read at a time; without it a row group would be read whole."""

DAMAGE = (pa.ArrowException, OSError, UnicodeError, MemoryError)
"""What pyarrow raises on bytes it cannot decode; a flipped length asks for absurd memory."""

_READABLE = (
    "edgemod reads .parquet, .csv, .tsv, .jsonl and .ndjson (the last four also .gz, .zst or .bz2)"
)
_NO_KEY = "is an encrypted Parquet file, and no key is given"
_OTHER_KEY = "is encrypted under another key than the one given, or damaged"
_COLUMN_KEYS = "is encrypted with keys for single columns, which pyarrow cannot be given"
_FIXES = {
    _NO_KEY: "give the key that it was encrypted under: --key-file KEYFILE",
    _OTHER_KEY: "give the key itself that footer and columns were encrypted under; what a key "
    "management service keeps it under is another",
    _COLUMN_KEYS: "encrypt it again under one key for footer and columns",
}
_SIGNATURE_BYTES = 28
_BZ2_BYTES = 1 << 13  # of which those after the end of a member are copied
_BZ2_BLOCK = 1 << 20
_MARK = b"\xef\xbb\xbf"
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_SHOWN_PROBLEMS = 20


class Lost(NamedTuple):
    """Rows of a file that were not read, and why; ok: nobody asked for them."""

    rows: int
    status: Status = Status.unreadable


@dataclass(frozen=True)
class Source:
    """One input file.

    ``path`` is how decisions show it: relative to the folder, glob or file's folder the user gave,
    with "/", unique within the run. ``size`` is in bytes. ``rows`` is None for CSV and JSONL,
    whose rows are only known once read. ``root`` is the folder that the user gave, above ``file``.
    ``modified`` is the time of its last change, in ns: taken before anything of it is read.
    """

    path: str
    file: Path
    format: Format
    size: int
    rows: int | None
    root: Path
    modified: int = 0


def discover(inputs: Sequence[str | Path]) -> list[Source]:
    """Find every input file, once, sorted by path; open every Parquet footer.

    An input is a file, a folder (read recursively, hive partitions included) or a glob. Inside
    folders and globs names that start with "." or "_" are skipped, and so are the folders of
    edgemod's own runs (a run.json beside decisions/ or work/). Raises InputError that lists every
    missing, unreadable, truncated or foreign file.
    """
    found: dict[str, tuple[Path, Path]] = {}
    for item in inputs:
        try:
            for root, file in _expand(item):
                found.setdefault(os.path.realpath(file), (root, file))
        except OSError as error:
            raise unreadable(str(error.filename or item), error) from error
    sources, problems = [], []
    shown = _shown([*found.values()])
    for path, (root, file) in zip(shown, found.values(), strict=True):
        try:
            sources.append(_source(path, file, root))
        except InputError as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        lines = [f"\n  {p.where}: {p.what}" for p in problems[:_SHOWN_PROBLEMS]]
        if len(problems) > _SHOWN_PROBLEMS:
            lines.append(f"\n  and {len(problems) - _SHOWN_PROBLEMS:,} more")
        fix = "copy these files again from where they were made, or leave them out"
        if {p.what for p in problems} <= _FIXES.keys():
            fix = problems[0].fix
        what = f"{len(problems):,} input files cannot be read{''.join(lines)}"
        raise InputError(what, fix=fix)
    return sorted(sources, key=lambda source: source.path)


def passed_over(inputs: Sequence[str | Path]) -> list[str]:
    """Name the files in the folders among the inputs that are in no format edgemod reads."""
    folders = [path for path in map(Path, inputs) if path.is_dir()]
    return [_text(f) for folder in folders for f in _walk(folder) if _format(f) is None]


def fingerprint(sources: Sequence[Source]) -> str:
    """SHA-256 (hex) over the path and the SHA-256 of the bytes of each source, in order."""
    total = hashlib.sha256()
    for source in sources:
        try:
            with source.file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise unreadable(source.path, error) from error
        total.update(f"{source.path}\0{digest}\n".encode())
    return total.hexdigest()


def has_changed(source: Source) -> bool:
    """Whether a file is gone, or has another size or time than when it was found."""
    try:
        status = source.file.stat()
    except OSError:
        return True
    return (status.st_size, status.st_mtime_ns) != (source.size, source.modified)


def check_unchanged(source: Source) -> None:
    """Raise InputError if a file has changed: what was read of it may be of two files."""
    if has_changed(source):
        raise InputError(
            "changed while it was being read",
            where=source.path,
            fix="Start again when nothing writes to it.",
        )


def partitions(source: Source) -> dict[str, str | None]:
    """Hive partition columns in the folder names key=value below the root, percent-decoded."""
    folders = source.file.relative_to(source.root).parts[:-1]
    pairs = (part.split("=", 1) for part in folders if "=" in part)
    return {key: None if value == _NULL_PARTITION else unquote(value) for key, value in pairs}


def open_parquet(path: str, file: Path) -> pq.ParquetFile:
    """Open a Parquet file for streaming: nothing read ahead, checksums verified.

    Decrypted under the key in use (encryption.py), if there is one. Raises InputError that tells
    a foreign, a truncated, an encrypted and a damaged file apart.
    """
    try:
        # Not mapped: a file that is cut while it is read would kill the process (SIGBUS).
        stream = pa.OSFile(os.fsencode(file))  # a name as bytes: it need not be UTF-8
        parquet = pq.ParquetFile(
            stream,
            pre_buffer=False,
            buffer_size=READ_BYTES,
            page_checksum_verification=True,
            decryption_properties=encryption.decrypting(),
        )
        for field in parquet.schema_arrow:  # raises where a name is not UTF-8
            _ = field.name, getattr(field.type, "tz", None)
        problem = _trouble(parquet, stream)
        if not problem:
            return parquet
    except DAMAGE as error:
        problem = _diagnosis(file, error)
    fix = "copy the file again from where it was made, or leave it out"
    raise InputError(problem, where=path, fix=_FIXES.get(problem, fix))


def content(source: Source) -> Iterator[bytes]:
    """Yield a file's bytes, decompressed, a block at a time, without a byte order mark.

    Raises InputError where the file cannot be opened, OSError where it cannot be read or
    decompressed, after all that comes before.
    """
    blocks = 0
    try:
        with _open_stream(source) as stream:
            while block := stream.read(BLOCK_BYTES):
                yield block if blocks else block.removeprefix(_MARK)
                blocks += 1
        return
    except DAMAGE as error:
        damage = error
    # The read that met the damage gave nothing: what it had decoded comes byte by byte.
    found = bytearray()
    with suppress(*DAMAGE), _open_stream(source) as stream:
        for _ in range(blocks):
            stream.read(BLOCK_BYTES)
        while byte := stream.read(1):
            found += byte
    yield bytes(found) if blocks else bytes(found).removeprefix(_MARK)
    raise damage if isinstance(damage, OSError) else OSError("damaged") from damage


def _open_stream(source: Source) -> pa.NativeFile | _Bz2:
    try:
        file = pa.OSFile(os.fsencode(source.file))
    except OSError as error:
        raise unreadable(source.path, error) from error
    compression = COMPRESSIONS.get(source.file.suffix.lower())
    return _Bz2(file) if compression == "bz2" else pa.input_stream(file, compression=compression)


class _Bz2:
    """What the members of a .bz2 file hold, one after the other; a context.

    pyarrow 26 fails at an empty member, and Python's BZ2File takes a damaged one for the end. A
    block tells that it is damaged at its end only, so that as much as a block holds (900 kB, but
    for long runs of one byte) is kept back until it is known to be sound.
    """

    def __init__(self, file: pa.NativeFile) -> None:
        self._file, self._packed = file, b""
        self._member: bz2.BZ2Decompressor | None = None  # None between two
        self._held = b""
        self._fresh = 0  # bytes of the member at hand so far
        self._ended = False
        self._damage: OSError | None = None

    def __enter__(self) -> _Bz2:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """The next bytes, fewer only at the end. Raises OSError where it is cut or damaged."""
        while not self._ended and len(self._held) < size + _BZ2_BLOCK:
            try:
                self._held += self._next(size)
            except OSError as error:
                sound = len(self._held) - min(self._fresh, _BZ2_BLOCK)
                self._held = self._held[: max(sound, 0)]
                self._damage, self._ended = error, True
        found, self._held = self._held[:size], self._held[size:]
        if self._damage is not None and not found:
            raise self._damage
        return found

    def _next(self, size: int) -> bytes:
        if not self._packed and (self._member is None or self._member.needs_input):
            self._packed = self._file.read(_BZ2_BYTES)
            if not self._packed:
                self._ended = True
                if self._member is not None:
                    self._damage = OSError("a member is cut")
                return b""
        self._member = self._member or bz2.BZ2Decompressor()
        found = self._member.decompress(self._packed, size)
        self._packed = b""
        self._fresh += len(found)
        if self._member.eof:
            self._packed, self._member, self._fresh = self._member.unused_data, None, 0
        return found


def format_suffix(file: Path) -> str:
    """The suffix that tells a file's format, lower case: not that of its compression."""
    suffix = file.suffix.lower()
    return Path(file.stem).suffix.lower() if suffix in COMPRESSIONS else suffix


def unreadable(path: str, error: OSError) -> InputError:
    """Say why a file could not be read: the system's reason, or pyarrow's, which has none."""
    return InputError(
        f"cannot be read: {error.strerror or 'its bytes cannot be decompressed'}",
        where=path,
        fix="check that it is whole, still there, and that you may read it",
    )


def _expand(item: str | Path) -> Iterator[tuple[Path, Path]]:
    """Yield (root the shown path is relative to, file) for one input."""
    path = Path(item)
    if path.is_dir():
        if _is_run(path):
            fix = "name the folder that the run's input is in"
            raise InputError("holds what an edgemod run wrote", where=str(item), fix=fix)
        files = [file for file in _walk(path) if _format(file) is not None]
        if not files:
            raise InputError("no input file in this folder", where=str(item), fix=_READABLE)
        for file in files:
            yield path, file
    elif path.is_file():
        yield path.parent, path
    elif path.exists():
        fix = f"write what comes out of it to a file; {_READABLE}"
        raise InputError("is neither a file nor a folder", where=str(item), fix=fix)
    elif glob.has_magic(str(item)):
        yield from _glob(str(item))
    else:
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, siblings, n=1)
        raise InputError(
            "no such file or folder",
            where=str(item),
            fix=f"did you mean '{path.with_name(near[0])}'?" if near else "check the path",
        )


def _glob(pattern: str) -> Iterator[tuple[Path, Path]]:
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    matched = False
    for match in sorted(glob.glob(pattern, recursive=True)):
        path = Path(match)
        if any(_hidden(part) for part in path.parts[fixed:]):
            continue
        if any(map(_is_run, accumulate(path.parts[fixed:], Path.joinpath, initial=root))):
            continue
        for file in _walk(path) if path.is_dir() else [path]:
            # A "**" also matches files edgemod cannot read; a pattern is not a promise.
            if _format(file) is not None:
                matched = True
                yield root, file
    if not matched:
        raise InputError(
            "no input file matches this pattern",
            where=pattern,
            fix=f"quote the pattern so that the shell leaves it alone; {_READABLE}",
        )


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder. Links are followed; a folder is entered only once.

    Raises OSError for a folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    entered = {os.path.realpath(folder)}
    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        keep = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(parent, name))
            if not _hidden(name) and real not in entered and not _is_run(Path(real)):
                entered.add(real)
                keep.append(name)
        folders[:] = keep
        for name in sorted(files):
            if not _hidden(name):
                yield Path(parent, name)


def _is_run(folder: Path) -> bool:
    """Whether a folder holds an edgemod run: what a run writes inside its input is no input."""
    # Not Path.is_file: that raises where the folder cannot be read, which the walk will tell.
    written = (folder / "decisions", folder / "work")
    return os.path.isfile(folder / "run.json") and any(map(os.path.isdir, written))


def _hidden(name: str) -> bool:
    # Spark and Hive write _SUCCESS, _metadata and ._crc files beside the data. A partition
    # folder "_key=value" is data.
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _format(file: Path) -> Format | None:
    """Tell a format by suffix, or where there is none (Hive) by the Parquet magic.

    A pipe or device has none, whatever its name: reading it might never end. Raises OSError for a
    file without suffix that cannot be read.
    """
    if os.path.exists(file) and not os.path.isfile(file):
        return None
    form = SUFFIXES.get(format_suffix(file))
    if form is not None:
        return None if form == "parquet" and file.suffix.lower() in COMPRESSIONS else form
    if not file.suffixes and file.is_file():  # another suffix may mark a copy: dump.parquet.bak
        with file.open("rb") as stream:
            return "parquet" if stream.read(4) in (b"PAR1", b"PARE") else None
    return None


def _shown(found: Sequence[tuple[Path, Path]]) -> list[str]:
    """Shown paths, lengthened by the names of the folders above where two would be equal.

    Raises InputError for two files whose whole paths are shown alike.
    """
    whole = [_text(Path(os.path.abspath(file))) for _, file in found]
    for path, count in Counter(whole).items():
        if count > 1:
            what = "two files have this name: in one of them \\x.. stands for a byte"
            raise InputError(f"{what} that is not UTF-8", where=path, fix="Rename one of them.")
    full = [path.split("/") for path in whole]
    lengths = [len(file.relative_to(root).parts) for root, file in found]
    while True:
        paths = ["/".join(parts[-n:]) for parts, n in zip(full, lengths, strict=True)]
        counts = Counter(paths)
        if len(counts) == len(paths):
            return paths
        lengths = [n + (counts[path] > 1) for path, n in zip(paths, lengths, strict=True)]


def _text(path: Path) -> str:
    """Return a path as Unicode: file names are bytes, and need not be UTF-8."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _source(path: str, file: Path, root: Path) -> Source:
    form = _format(file)
    if form is None:
        raise InputError("is in no format edgemod reads", where=path, fix=_READABLE)
    try:
        status = file.stat()
        with file.open("rb"):
            pass
    except OSError as error:
        raise unreadable(path, error) from error
    rows = None
    if form == "parquet":
        with open_parquet(path, file) as parquet:
            rows = parquet.metadata.num_rows
    return Source(path, file, form, status.st_size, rows, root, status.st_mtime_ns)


def _trouble(parquet: pq.ParquetFile, stream: pa.NativeFile) -> str:
    """Say what is wrong with a Parquet file whose footer can be read, "" if nothing is."""
    if not _consistent(parquet.metadata):
        return "the Parquet footer is damaged"
    if encryption.key_file() is None:
        stream.seek(stream.size() - 8)
        size = int.from_bytes(stream.read(4), "little")
        # Columns are encrypted, and a footer that is not is signed: 28 bytes behind it.
        return _NO_KEY if size - parquet.metadata.serialized_size == _SIGNATURE_BYTES else ""
    for name in parquet.schema_arrow.names if parquet.num_row_groups else ():
        try:
            next(parquet.iter_batches(1, [0], columns=[name], use_threads=False), None)
        except DAMAGE as error:
            if "Wrong key length" in str(error):  # what pyarrow 26 says of a column key it lacks
                return _COLUMN_KEYS
    return ""


def _consistent(metadata: pq.FileMetaData) -> bool:
    """Whether the row counts in a footer agree: it carries no checksum of its own."""
    # Not ``row_group(i).column(k)``: on damaged metadata it ends the process (pyarrow 26).
    counts = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    return min(counts, default=0) >= 0 and sum(counts) == metadata.num_rows


def _diagnosis(file: Path, error: BaseException) -> str:
    """Say what is wrong with a file that does not open as Parquet.

    The format starts and ends with "PAR1"; an encrypted footer ends with "PARE"
    (https://parquet.apache.org/docs/file-format/).
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(4)
            stream.seek(-min(4, os.fstat(stream.fileno()).st_size), os.SEEK_END)
            tail = stream.read(4)
    except OSError as failure:
        return f"cannot be read: {failure.strerror}"
    if not head:
        return "is empty (0 bytes)"
    if b"PARE" in (head, tail) or "crypt" in str(error):
        return _OTHER_KEY if encryption.key_file() else _NO_KEY
    if head != b"PAR1":
        return "is not a Parquet file"
    if tail != b"PAR1":
        return "is truncated: the Parquet footer is missing"
    return "the Parquet footer is damaged"


def absolute(path: str | None) -> str | None:
    """The path of a file for processes in other folders; what names no file as it is.

    A folder is none: it may be called as a model is.
    """
    return str(Path(path).absolute()) if path and Path(path).is_file() else path
