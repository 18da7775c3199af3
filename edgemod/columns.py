"""Which columns are the text, id, thread, author and time: named by the user, or guessed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from edgemod import csv_files, formats
from edgemod.errors import InputError
from edgemod.messages import CONTENTS, PARTS, ROLES, plain_name
from edgemod.sources import Source, partitions
from edgemod.words import counted

NAMES: Final[dict[str, tuple[str, ...]]] = {
    "conversation": (
        "messages", "conversation", "conversations", "dialogue", "dialog", "turns", "chat",
    ),
    "text": (
        "text", "body", "content", "comment", "message", "comment_text", "message_text",
        "post_text", "tweet_text", "review_text", "tweet", "post", "review", "utterance",
        "sentence", "prompt", "description", "title",
    ),
    "heading": ("title", "subject", "headline"),
    "id": (
        "id", "record_id", "comment_id", "message_id", "post_id", "tweet_id", "review_id",
        "document_id", "doc_id", "uuid", "guid",
    ),
    "thread": (
        "thread_id", "thread", "conversation_id", "ticket_id", "session_id", "chat_id",
        "channel_id", "room_id", "link_id", "topic_id",
    ),
    "author": (
        "author_id", "user_id", "author", "user", "username", "user_name", "sender_id", "sender",
    ),
    "time": (
        "created_at", "timestamp", "created_utc", "time", "datetime", "date", "sent_at",
        "posted_at", "created", "published_at", "ts",
    ),
}  # fmt: skip
"""Names a column is recognised by, best first, as ``plain_name`` writes them."""

CLEAR_MARGIN: Final = 2.0
"""A column is taken for the text if its values are this many times longer than any other's."""

SAMPLE_ROWS: Final = 1000

_NAME: Final = re.compile(r"[\w.-]+( [\w.-]+){0,2}")
"""What the name of a CSV column looks like, if it has a letter: at most three words."""

SHOWN_NAMES: Final = 40
"""Most names of columns in a message."""

SHOWN_CHARACTERS: Final = 40
"""Longest name of a column, or of its type, in a message: what is longer may be a record."""


@dataclass(frozen=True)
class Columns:
    """The columns a run reads. Exactly one of ``text`` and ``conversation`` is given.

    Several text columns are joined with newlines. ``notices`` says what was guessed, and which
    option says otherwise.
    """

    text: tuple[str, ...]
    conversation: str | None
    id: str | None
    thread: str | None
    author: str | None
    time: str | None
    context: str | None
    notices: tuple[str, ...]
    stratum: str | None = None
    """Whose values a certificate tells apart; see ``certificate.py``."""


def resolve_columns(
    sources: Sequence[Source],
    *,
    text: Sequence[str] = (),
    conversation: str | None = None,
    id: str | None = None,
    thread: str | None = None,
    author: str | None = None,
    time: str | None = None,
    context: str | None = None,
) -> Columns:
    """Check the named columns in every file and guess the others; the context is never guessed.

    Id, thread, author and time may also be hive partition keys. Raises InputError for a column
    that is missing or of the wrong type in any file, and where the text cannot be told.
    """
    schemas = {source: formats.schema(source) for source in sources}
    # A CSV or JSONL file without a line has no columns, and no rows to miss them.
    schemas = {s: fields for s, fields in schemas.items() if len(fields) or s.format == "parquet"}
    if text and conversation:
        raise InputError(
            "a record is one text or one conversation, not both",
            fix="say either --text-column or --conversation-column",
        )
    if context and conversation:
        raise InputError(
            "the context of a message is the message before it",
            fix="leave out --context-column",
        )
    notices: list[str] = []
    texts = tuple(dict.fromkeys(text))
    named = {"id": id, "thread": thread, "author": author, "time": time}
    if schemas:
        first = next((source for source in schemas if source.rows != 0), next(iter(schemas)))
        fields = schemas[first]
        if not texts and conversation is None:
            role, name, why = _guess_text(first, fields)
            texts, conversation = ((name,), None) if role == "text" else ((), name)
            notices.append(_notice(role, name, why))
            # A post is its title as well, and many are no more than that.
            heading = _guess("heading", [*schemas.values()], {name}) if role == "text" else None
            if heading is not None and why == "by name":
                texts = (heading, name)
                notices[-1] = _joined_notice(heading, name)
        taken = {*texts, conversation, context, *named.values()}
        for role, given in named.items():
            if given is None:
                guess = _guess(role, [*schemas.values()], taken)
                if guess is not None:
                    named[role] = guess
                    taken.add(guess)
                    notices.append(_notice(role, guess, "by name"))
        if named["id"] is None:
            notices.append(
                "id column: none found, records are named <file>#<row>; say --id-column to choose"
            )
    columns = Columns(
        texts, conversation, named["id"], named["thread"], named["author"], named["time"],
        context, tuple(notices),
    )  # fmt: skip
    for source, fields in schemas.items():
        check_columns(source, fields, columns)
    return columns


def check_columns(source: Source, fields: pa.Schema, columns: Columns) -> None:
    """Raise InputError if a column is missing from a file, there twice, or of a wrong type."""
    named = [("text", name) for name in columns.text]
    roles = ("conversation", "id", "thread", "author", "time", "context", "stratum")
    named += [(role, name) for role in roles if (name := getattr(columns, role)) is not None]
    for role, name in named:
        count = fields.names.count(name)
        if count > 1:
            raise _twice(source, name)
        if not count:
            if role in ("id", "thread", "author", "time", "stratum") and name in partitions(source):
                continue
            if source.format == "csv" and len(fields) == 1 and csv_files.separator(source):
                raise csv_files.no_header(source)
            near = get_close_matches(name, fields.names, n=1)
            hint = f"did you mean '{_clipped(near[0])}'? " if near else ""
            if role == "text" and {part.strip() for part in name.split(",")} <= set(fields.names):
                hint = "give --text-column once for each of them; "
            raise InputError(
                f"no column '{_clipped(name)}'",
                where=source.path,
                fix=f"{hint}its columns are: {_listed(fields)}"
                if is_header(source, fields)
                else f"its first line has {counted(len(fields), 'column')}, and may be a record",
            )
        kind = fields.field(name).type
        if not _USABLE[role](kind):
            usable = [_clipped(f.name) for f in fields if _USABLE[role](f.type)]
            expected = _KINDS.get(role, "a text or a number")
            raise InputError(
                f"column '{_clipped(name)}' is {_clipped(kind)}, not {expected}",
                where=source.path,
                fix=f"columns that can be the {role}: {_some(usable)}",
            )


def is_header(source: Source, fields: pa.Schema) -> bool:
    """Whether column names may be shown: the first line of a CSV may be a record."""
    return source.format != "csv" or all(
        not name or (_NAME.fullmatch(name) and any(map(str.isalpha, name))) for name in fields.names
    )


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type can be read as text: strings, UTF-8 bytes, or all null."""
    kind = _stored(kind)
    return bool(is_string(kind) or is_binary(kind) or pa.types.is_null(kind))


def is_string(kind: pa.DataType) -> bool:
    """Whether a type is a string of any layout, dictionary-encoded ones included."""
    kind = _stored(kind)
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def is_binary(kind: pa.DataType) -> bool:
    """Whether a type is bytes of any layout, dictionary-encoded ones included."""
    kind = _stored(kind)
    types = pa.types
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is a list with offsets or of fixed size."""
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether a type is a number of any kind."""
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def message_fields(kind: pa.DataType) -> tuple[list[int], list[int]] | None:
    """Find the positions of (roles, contents) in list<struct<...>>, best first.

    None if it is no conversation: if no content can hold text.
    """
    if not is_list(kind) or not pa.types.is_struct(kind.value_type):
        return None
    roles = [i for i in fields_named(ROLES, kind.value_type) if is_text(kind.value_type[i].type)]
    contents = fields_named(CONTENTS, kind.value_type)
    return (roles, contents) if any(_has_text(kind.value_type[i].type) for i in contents) else None


def fields_named(names: Sequence[str], kind: pa.StructType) -> list[int]:
    """Positions of the fields of these plain names, in the order of the names."""
    found = [plain_name(field.name) for field in kind]
    return [i for name in names for i, other in enumerate(found) if other == name]


def as_text(column: pa.Array) -> tuple[pa.LargeStringArray, npt.NDArray[np.bool_]]:
    """Read a column as text, shape (n,): (texts, null where not UTF-8; which those are).

    Parquet and CSV readers do not check that strings are UTF-8: this does, for every type.
    """
    data = _bytes(column)
    try:
        return data.cast(pa.large_string()), np.zeros(len(data), np.bool_)
    except pa.ArrowInvalid:
        bad = np.fromiter((not _is_utf8(value) for value in data.to_pylist()), np.bool_, len(data))
        # A plain null scalar keeps the values that are left untouched.
        kept = pc.if_else(pa.array(bad), pa.scalar(None, pa.large_binary()), data)
        return kept.cast(pa.large_string()), bad


def as_group(column: pa.Array) -> pa.StringArray:
    """Read a column as names of groups, (n,): null for what is null, empty or not UTF-8.

    Raises ArrowException for a type that no text can be made of.
    """
    texts = as_text(column)[0] if is_text(column.type) else column
    names = texts.cast(pa.string())
    return pc.if_else(pc.equal(pc.binary_length(names), 0), pa.scalar(None, pa.string()), names)


def text_bytes(column: pa.Array) -> npt.NDArray[np.int64]:
    """Bytes of text in each row of a text column or a list of messages, shape (n,), int64."""
    if is_list(column.type):
        lengths = column.value_lengths().fill_null(0).to_numpy()
        inner = np.append(0, np.cumsum(text_bytes(column.flatten())))
        ends = np.cumsum(lengths, dtype=np.int64)
        return np.asarray(inner[ends] - inner[ends - lengths], np.int64)
    if pa.types.is_struct(column.type):
        sizes = np.zeros(len(column), np.int64)
        for field in column.flatten():
            sizes += text_bytes(field)
        return sizes
    if not is_text(column.type):
        return np.zeros(len(column), np.int64)
    return np.asarray(pc.binary_length(_bytes(column)).fill_null(0), np.int64)


def _bytes(column: pa.Array) -> pa.LargeBinaryArray:
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary())


def _is_utf8(value: bytes | None) -> bool:
    try:
        return value is None or value.decode() is not None
    except UnicodeDecodeError:
        return False


def _stored(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _has_text(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_has_text(kind[i].type) for i in fields_named(PARTS, kind))
    return _has_text(kind.value_type) if is_list(kind) else is_text(kind)


def _is_key(kind: pa.DataType) -> bool:
    return is_number(kind) or is_text(kind)


def _is_time(kind: pa.DataType) -> bool:
    temporal = pa.types.is_temporal(kind) and not pa.types.is_duration(kind)
    return bool(temporal or _is_key(kind))


_USABLE: Final[Mapping[str, Callable[[pa.DataType], bool]]] = {
    "text": is_text,
    "heading": is_text,
    "context": is_text,
    "conversation": lambda kind: message_fields(kind) is not None,
    "id": _is_key,
    "thread": _is_key,
    "author": _is_key,
    "time": _is_time,
    "stratum": _is_key,
}
_KINDS: Final = {
    "text": "text",
    "context": "text",
    "conversation": "a list of messages with a role and a content",
    "time": "a time, a text or a number",
}


def _by_name(role: str, fields: pa.Schema) -> str | None:
    names = {plain_name(f.name): f.name for f in reversed(fields) if _USABLE[role](f.type)}
    return next((names[name] for name in NAMES[role] if name in names), None)


def _guess(role: str, schemas: Sequence[pa.Schema], taken: set[str | None]) -> str | None:
    """Guess an optional column: one that every file has, under one name."""
    common = set.intersection(
        *({f.name for f in fields if _USABLE[role](f.type)} for fields in schemas)
    )
    free = common - taken
    return _by_name(role, pa.schema([f for f in schemas[0] if f.name in free]))


def _guess_text(source: Source, fields: pa.Schema) -> tuple[str, str, str]:
    """Guess (role, column, why) by name, else by type, else by length."""
    for role in ("conversation", "text"):
        name = _by_name(role, fields)
        if name is not None:
            return role, name, "by name"
    if not is_header(source, fields):
        fix = "begin the file with a line of column names, or say which is the --text-column"
        raise csv_files.no_header(source, fix)
    conversations = [f.name for f in fields if message_fields(f.type) is not None]
    if len(conversations) == 1:
        return "conversation", conversations[0], "by type"
    known = {name for role in ("id", "thread", "author", "time") for name in NAMES[role]}
    strings = [f.name for f in fields if is_string(f.type) and plain_name(f.name) not in known]
    if len(strings) == 1 and not conversations:
        return "text", strings[0], "as the only text"
    lengths = sorted(zip(_mean_lengths(source, strings), strings, strict=True), reverse=True)
    if lengths and not conversations:
        (longest, name), (second, _) = lengths[:2]
        if longest and longest >= CLEAR_MARGIN * second:
            return "text", name, "by length"
    candidates = [_clipped(name) for name in conversations + strings]
    raise InputError(
        "cannot tell which column is the text" if candidates else "no column holds text",
        where=source.path,
        fix=f"say --text-column or --conversation-column; candidates: {_some(candidates)}"
        if candidates
        else "write the texts to a column of strings and name it with --text-column; "
        f"its columns are: {_listed(fields)}",
    )


def _mean_lengths(source: Source, names: Sequence[str]) -> list[float]:
    """Mean bytes of text columns over the first rows of a file; 0 where there are none."""
    counts = Counter(names)
    for name in counts:
        if counts[name] > 1 and name.strip():
            raise _twice(source, name)
    once = [name for name in names if counts[name] == 1]  # a CSV may have columns without a name
    run = next(formats.rows(source, once, spare=once), None)
    if run is not None and run.batch is None and len(once) > 1:  # one that is damaged costs all
        return [_mean_lengths(source, [n])[0] if counts[n] == 1 else 0.0 for n in names]
    if run is None or run.batch is None:
        return [0.0] * len(names)
    batch = run.batch.slice(0, SAMPLE_ROWS)
    lengths = {name: pc.mean(pc.binary_length(as_text(batch.column(name))[0])) for name in once}
    return [float(lengths[name].as_py() or 0.0) if name in lengths else 0.0 for name in names]


def _twice(source: Source, name: str) -> InputError:
    what = f"two columns are named '{_clipped(name)}'"
    return InputError(what, where=source.path, fix="rename one of them")


def _notice(role: str, name: str, why: str) -> str:
    return f"{role} column: using '{_clipped(name)}' (guessed {why}); say --{role}-column to choose"


def _joined_notice(heading: str, name: str) -> str:
    both = f"'{_clipped(heading)}' and '{_clipped(name)}'"
    return f"text columns: joining {both} (guessed by name); say --text-column to choose"


def _listed(fields: pa.Schema) -> str:
    return _some([f"{_clipped(f.name)} ({_clipped(f.type)})" for f in fields])


def _some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - SHOWN_NAMES
    shown = ", ".join(names[:SHOWN_NAMES]) or "none"
    return f"{shown} and {more:,} more" if more > 0 else shown


def _clipped(name: object) -> str:
    shown = str(name)
    over = len(shown) > SHOWN_CHARACTERS
    return shown[: SHOWN_CHARACTERS - 3] + "..." if over else shown
