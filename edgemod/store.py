"""Where models are, and which of them may be read.

Two registries in one format: ``quantized/models.toml``, shipped with edgemod, and the user's own,
written by ``edgemod model add``. A model file is read only if its SHA-256 is in one of them.

A calibration names its filter by SHA-256. Filters that are not the shipped one are read only if
they are in ``filters.toml``, in the user's folder, written by ``edgemod learn``.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib.util
import json
import os
import re
import shlex
import sys
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

from edgemod.errors import ModelError, OutputError
from edgemod.parts import replacing

Kind = Literal["encoder", "guard"]

KINDS: Final = ("encoder", "guard")
REGISTRY: Final = "models.toml"
FILTERS: Final = "filters.toml"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_GGUF: Final = b"GGUF"  # the first four bytes of every GGUF file (ggml/docs/gguf.md)


@dataclass(frozen=True)
class ModelEntry:
    """One model of a registry: where its files are and what their SHA-256 (hex) must be."""

    name: str
    kind: Kind
    path: Path
    """The GGUF; it need not exist (a package that is not installed)."""
    sha256: str
    head: Path | None = None
    """An encoder's head (safetensors)."""
    head_sha256: str = ""
    adapter: Path | None = None
    """A guard's adapter (a LoRA in GGUF)."""
    adapter_sha256: str = ""
    template: str | None = None
    """A guard's prompt template; None: recognised from the GGUF."""
    licence: str = ""
    source: str = ""
    made: str = ""
    """How the files came to be."""

    @property
    def present(self) -> bool:
        """Whether all its files exist."""
        return all(file.is_file() for file, _ in self.files)

    @property
    def files(self) -> tuple[tuple[Path, str], ...]:
        """Its files with their recorded SHA-256."""
        beside = ((self.head, self.head_sha256), (self.adapter, self.adapter_sha256))
        return ((self.path, self.sha256), *((file, sha) for file, sha in beside if file))


def quantized_dir() -> Path:
    """The folder of shipped files: edgemod/_quantized where installed, quantized/ in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "_quantized"
    return installed if installed.is_dir() else package.parent / "quantized"


def home() -> Path:
    """The folder of the user's registry: $EDGEMOD_HOME, or where this platform keeps settings."""
    if chosen := os.environ.get("EDGEMOD_HOME"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "edgemod"
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home()) / "edgemod"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgemod"


def list_models() -> list[ModelEntry]:
    """Every known model: the shipped registry, then the user's.

    Raises ``ModelError`` where a registry cannot be read.
    """
    return _read(quantized_dir() / REGISTRY) + _read(home() / REGISTRY)


def resolve(name_or_path: str) -> ModelEntry:
    """Return the entry of that name, or the one whose SHA-256 the file at that path has.

    Of several for one file, the one without an adapter. Raises ``ModelError`` for a name nobody
    recorded, and for a file nobody recorded or that is recorded with several adapters alone.
    """
    entries = list_models()
    for entry in entries:
        if entry.name == name_or_path:
            return entry
    path = Path(name_or_path)
    if not path.is_file():
        near = difflib.get_close_matches(name_or_path, [entry.name for entry in entries], 1)
        raise ModelError(
            f'there is no model or file "{name_or_path}"',
            fix=f'did you mean "{near[0]}"?' if near else "edgemod model list shows all models",
        )
    digest = sha256(path)
    known = [entry for entry in entries if entry.sha256 == digest]
    plain = [entry for entry in known if entry.adapter is None]
    if plain or len(known) == 1:
        return (plain or known)[0]
    if known:
        raise ModelError(
            f"this file is recorded with several adapters: {', '.join(e.name for e in known)}",
            where=str(path),
            fix="use one of these names",
        )
    raise ModelError(
        "this model file is not known, so it is not read",
        where=str(path),
        fix=f"if you trust it: edgemod model add {shlex.quote(str(path))} --name NAME",
    )


def check(entry: ModelEntry) -> None:
    """Raise ``ModelError`` unless the entry's files are here with the SHA-256 recorded.

    A file that this process has already hashed, unchanged in size and time, is not read again.
    """
    for file, expected in entry.files:
        _compare(entry, file, expected, sha256(file) if file.is_file() else None)


def verify(entry: ModelEntry) -> None:
    """Do what ``check`` does, reading every byte again."""
    _digest.cache_clear()
    check(entry)


def add(
    path: Path,
    name: str,
    kind: Kind,
    template: str | None = None,
    *,
    head: Path | None = None,
    adapter: Path | None = None,
    replace: bool = False,
) -> ModelEntry:
    """Record a model file in the user's registry by absolute path and SHA-256.

    An encoder needs a ``head``, a guard may have an ``adapter``. Adding the same content under the
    same name again moves it; with ``replace`` the name may stand for other content from now on,
    unless it is a shipped one.
    Raises ``ModelError`` for a file that is not GGUF, a name that is not one, or a name that
    stands for other content; ``OutputError`` where the registry cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ModelError(
            f'"{name}" cannot be a name', fix="use up to 64 letters, digits, dots, - and _"
        )
    if kind not in KINDS:
        raise ModelError(f'"{kind}" is not a kind of model', fix=f"use one of {', '.join(KINDS)}")
    if (kind == "encoder") != (head is not None):
        raise ModelError("an encoder needs a head, and only an encoder has one", where=str(path))
    if adapter and kind != "guard":
        raise ModelError("only a guard has an adapter", where=str(adapter))
    for file in filter(None, (path, adapter)):
        _check_gguf(file)
    entry = ModelEntry(
        name=name,
        kind=kind,
        path=path.resolve(),
        sha256=sha256(path),
        head=head and head.resolve(),
        head_sha256=sha256(head) if head else "",
        adapter=adapter and adapter.resolve(),
        adapter_sha256=sha256(adapter) if adapter else "",
        template=template,
        source="added by the user",
    )
    mine = home() / REGISTRY
    shipped, added = _read(quantized_dir() / REGISTRY), _read(mine)
    for other in (*shipped, *added):
        same = [kind, *(sha for _, sha in entry.files)] == [
            other.kind,
            *(sha for _, sha in other.files),
        ]
        if other.name == name and (other in shipped or not (same or replace)):
            raise ModelError(
                f'there already is a model "{name}", with other content',
                where=str(path),
                fix="choose another name"
                if other in shipped
                else "choose another name, or say --replace to record this file in its place",
            )
    kept = [other for other in added if other.name != name]
    _write_registry(mine, "\n".join(map(_toml, (*kept, entry))))
    return entry


def _write_registry(registry: Path, text: str) -> None:
    try:
        registry.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot be made: {error.strerror}",
            where=str(registry.parent),
            fix="set EDGEMOD_HOME to a folder that you may write to",
        ) from error
    with replacing(registry) as temporary:
        temporary.write_text(text, encoding="utf-8")


def filter_path(fingerprint: str) -> Path:
    """The filter with this SHA-256 (hex), if it was recorded; else the shipped one.

    Raises ``ModelError`` where the recorded file is gone or has changed, or the registry cannot be
    read.
    """
    shipped = quantized_dir() / "filter.safetensors"
    recorded = _filters().get(fingerprint)
    if recorded is None:
        return shipped
    if not recorded.is_file() or sha256(recorded) != fingerprint:
        raise ModelError(
            "the recorded filter is gone or has changed",
            where=str(recorded),
            fix="restore the file, or run 'edgemod learn' again",
        )
    return recorded


def list_filters() -> list[tuple[Path, str]]:
    """Every known filter with its SHA-256 (hex): the shipped one, then those that were learned.

    Raises ``ModelError`` where the registry or the shipped one cannot be read.
    """
    shipped = quantized_dir() / "filter.safetensors"
    return [(shipped, sha256(shipped)), *((path, sha) for sha, path in _filters().items())]


def add_filter(path: Path) -> None:
    """Record a filter in the user's registry by absolute path and SHA-256.

    Raises ``ModelError`` where it or the registry cannot be read, ``OutputError`` where the latter
    cannot be written.
    """
    filters = {**_filters(), sha256(path): path.resolve()}
    tables = (_table("filter", {"sha256": sha, "file": str(p)}) for sha, p in filters.items())
    _write_registry(home() / FILTERS, "\n".join(tables))


def forget(name: str, filter: str) -> None:
    """Remove a model by name, and a filter by SHA-256, from the user's registries, if there.

    Raises as ``add`` does.
    """
    models, filters = _read(home() / REGISTRY), _filters()
    if any(entry.name == name for entry in models):
        kept = (entry for entry in models if entry.name != name)
        _write_registry(home() / REGISTRY, "\n".join(map(_toml, kept)))
    if filters.pop(filter, None):
        tables = (_table("filter", {"sha256": sha, "file": str(p)}) for sha, p in filters.items())
        _write_registry(home() / FILTERS, "\n".join(tables))


def _filters() -> dict[str, Path]:
    """The recorded filters by SHA-256."""
    registry = home() / FILTERS
    try:
        tables = tomllib.loads(registry.read_text(encoding="utf-8")).get("filter", [])
        return {str(table["sha256"]): Path(table["file"]) for table in tables}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise _unreadable(registry, error) from error


def _check_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            is_gguf = file.read(len(_GGUF)) == _GGUF
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not is_gguf:
        raise ModelError("this is not a GGUF file", where=str(path), fix="convert it to GGUF first")


def sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file; remembered for this process while it is unchanged.

    Raises ``ModelError`` where it cannot be read.
    """
    try:
        status = path.stat()
        return _digest(path.resolve(), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path)) from error


@functools.cache
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compare(entry: ModelEntry, file: Path, expected: str, found: str | None) -> None:
    if found is None:
        raise ModelError(
            f'a file of model "{entry.name}" is missing',
            where=str(file),
            fix=f"put it back, or add it where it is now: {_again(entry)}"
            if entry in _read(home() / REGISTRY)
            else f"it comes from: {entry.source}",
        )
    if found != expected:
        raise ModelError(
            f'a file of model "{entry.name}" has changed: its SHA-256 is {found[:12]}..., '
            f"recorded is {expected[:12]}...",
            where=str(file),
            fix=f"restore the file, or if you trust it: {_again(entry)}"
            if entry in _read(home() / REGISTRY)
            else "install edgemod, or the package that the file is in, again",
        )


def _again(entry: ModelEntry) -> str:
    """The command that records the file of a guard anew."""
    template = f" --template {entry.template}" if entry.template else ""
    adapter = f" --adapter {shlex.quote(str(entry.adapter))}" if entry.adapter else ""
    path = shlex.quote(str(entry.path))
    return f"edgemod model add {path} --name {entry.name}{adapter}{template} --replace"


def _read(registry: Path) -> list[ModelEntry]:
    try:
        tables = tomllib.loads(registry.read_text(encoding="utf-8")).get("model", [])
        return [_entry(table, registry.parent) for table in tables]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise _unreadable(registry, error) from error


def _unreadable(registry: Path, error: Exception) -> ModelError:
    return ModelError(
        f"the model registry cannot be read: {error}",
        where=str(registry),
        fix="repair or remove this file",
    )


def _entry(table: dict[str, Any], folder: Path) -> ModelEntry:
    known = {field.name for field in fields(ModelEntry)} - {"path", "head", "adapter"}
    values = {key: value for key, value in table.items() if key in known}
    if table["kind"] not in KINDS:
        raise KeyError(f"kind {table['kind']!r}")
    base = folder / table["package"] if "package" in table else folder
    adapter = folder / table["adapter"] if "adapter" in table else None  # edgemod's, or the user's
    if "package" in table:
        spec = importlib.util.find_spec(table["package"])
        if spec is not None and spec.origin is not None:
            base = Path(spec.origin).parent
    head = base / table["head"] if "head" in table else None
    return ModelEntry(path=base / table["file"], head=head, adapter=adapter, **values)


def _toml(entry: ModelEntry) -> str:
    values = {
        "name": entry.name,
        "kind": entry.kind,
        "file": str(entry.path),
        "sha256": entry.sha256,
        "head": entry.head and str(entry.head),
        "head_sha256": entry.head_sha256,
        "adapter": entry.adapter and str(entry.adapter),
        "adapter_sha256": entry.adapter_sha256,
        "template": entry.template,
        "source": entry.source,
    }
    return _table("model", values)


def _table(kind: str, values: dict[str, Any]) -> str:
    """A table of an array in TOML."""
    # JSON strings are TOML basic strings, but for DEL, which TOML wants escaped.
    lines = (
        f"{key} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
        for key, value in values.items()
        if value
    )
    return f"[[{kind}]]\n" + "\n".join(lines) + "\n"
