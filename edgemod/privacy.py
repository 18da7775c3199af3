"""Outputs that name nobody: pseudonyms for ids, placeholders for personal data in texts.

A pseudonym is HMAC-SHA256 (RFC 2104, FIPS 198-1) under the user's key, the first ``BITS`` of it in
hex. One value always gets the same one under a key, so that decisions, queue and later runs still
join; without the key nobody can compute or test one. Records, authors and threads have pseudonyms
of their own kind: the same value as an author and as a record gives two that do not match.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from edgemod import features
from edgemod.encryption import read_key_file
from edgemod.errors import InputError
from edgemod.kernels import pii
from edgemod.records import CONTEXT_BYTES, Chunk, Columns, Source
from edgemod.sources import partitions
from edgemod.words import Status

BITS: Final = 128
"""Two of a billion values share a pseudonym with a chance below 1e-20 (birthday bound)."""

KINDS: Final = ("record_id", "author_id", "thread_id")
"""Columns of records that get pseudonyms; also the domains that keep them apart."""

PLACEHOLDERS: Final = {
    "emails": "[email]",
    "phones": "[phone]",
    "cards": "[card]",
    "ibans": "[iban]",
    "ips": "[ip]",
    "national_ids": "[national id]",
}
"""What stands for personal data, by the feature that counts it (``words.FEATURES``)."""

CUT: Final = "[cut]"
_FIRST_OF_CUT: Final = r"(?s)^.{0,64}\S*"
_LAST_OF_CUT: Final = r"(?s)\S*.{0,64}$"
"""What may be a part of personal data that a cut went through: 64 characters hold any number with
its spaces, and the word that they end in an address."""

_IN_LINK: Final = re.compile(rb"[^/?&=#;]+")


class Pseudonyms:
    """The pseudonyms of one key. The key is in memory alone, and in no representation of this."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.fingerprint = self._of("fingerprint", b"")
        """HMAC of a constant, hex: tells keys apart, and nothing that pseudonyms do not tell."""

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Those of the key in a file, all bytes of it, a line feed at its end too.

        Raises InputError as ``encryption.read_key_file`` does.
        """
        return cls(read_key_file(path))

    def of(self, kind: str, value: bytes) -> str:
        """The pseudonym of a value of one of ``KINDS``, ``BITS`` / 4 hex digits."""
        return self._of(kind, value)[: BITS // 4]

    def _of(self, kind: str, value: bytes) -> str:
        return hmac.digest(self._key, kind.encode() + b"\0" + value, "sha256").hex()

    def rename(self, chunk: Chunk) -> Chunk:
        """The chunk with pseudonyms for its ``KINDS``; null stays null."""
        records = chunk.records
        for kind in KINDS:
            at = records.schema.get_field_index(kind)
            values = records[kind].cast(pa.binary()).dictionary_encode()
            names = [self.of(kind, value) for value in values.dictionary.to_pylist()]
            named = pa.array(names, pa.string()).take(values.indices)
            records = records.set_column(at, records.schema.field(at), named)
        return replace(chunk, records=records)

    def check_run(self, plan: dict[str, Any], where: str) -> None:
        """Raise InputError unless a run (its plan in run.json) has the pseudonyms of this key."""
        if plan.get("pseudonyms") != self.fingerprint:
            raise InputError(
                "is not the key that the run was made with",
                where=where,
                fix="Give that one; run.json has its fingerprint under pseudonyms.",
            )

    def check_shown(self, sources: tuple[Source, ...], columns: Columns) -> None:
        """Raise InputError if what is to get pseudonyms is shown in paths, or as strata of a
        certificate."""
        hidden = {columns.id, columns.author, columns.thread} - {None}
        if columns.stratum in hidden:
            raise InputError(
                f"tells strata apart by '{columns.stratum}', which is to get pseudonyms",
                where="--calibration",
                fix="The certificate names them: calibrate without --by, or by another column.",
            )
        for source in sources:
            if shown := hidden & {*partitions(source)}:
                raise InputError(
                    f"has {', '.join(sorted(map(str, shown)))} in its path, which decisions show",
                    where=source.path,
                    fix="Pseudonyms need it in a column of the files, and other folder names.",
                )


def redact(rows: pa.Table) -> pa.Table:
    """Rows of the review queue with placeholders for personal data in ``text`` and ``context``.

    Where a text was cut, what stands at the cut may be a part of some, and goes as well.
    """
    long = pc.equal(rows["status"].cast(pa.string()), Status.too_long.name).to_pylist()
    for name in ("text", "context"):
        at = rows.column_names.index(name)
        field = rows.schema.field(at)
        column = rows[name].combine_chunks()
        if name == "context":
            cut = pc.greater(pc.binary_length(column), CONTEXT_BYTES - 4).fill_null(False)
            shortened = pc.replace_substring_regex(column, _FIRST_OF_CUT, CUT, max_replacements=1)
        else:
            cut = pa.array(long)
            shortened = pc.replace_substring_regex(column, _LAST_OF_CUT, CUT, max_replacements=1)
        column = pc.if_else(cut, shortened, column)
        rows = rows.set_column(at, field, column.cast(field.type))
        counts = pii.contacts(*features.buffers(column.fill_null("")))
        some = np.flatnonzero(counts[:, : len(pii.COLUMNS)].any(axis=1))
        if len(some):
            texts = column.to_pylist()
            for row in some.tolist():
                texts[row] = redacted(texts[row])
            rows = rows.set_column(at, field, pa.array(texts, field.type))
    return rows


def redacted(text: str) -> str:
    """A text with placeholders for personal data."""
    return _redacted(text.encode()).decode()


def _redacted(text: bytes) -> bytes:
    """Again until nothing is found: what is gone may have hidden what stood right beside it."""
    while found := [*_personal(text)]:
        parts, done = [], 0
        for what, low, high in found:
            parts += [text[done:low], PLACEHOLDERS[what].encode()]
            done = high
        text = b"".join([*parts, text[done:]])
    return text


def _personal(text: bytes) -> Iterator[tuple[str, int, int]]:
    """Personal data in order, also in the pieces of a link: kind, byte offsets."""
    for what, low, high in _found(text):
        if what in PLACEHOLDERS:
            yield what, low, high
            continue
        for piece in _IN_LINK.finditer(text, low, high):
            for inner, start, end in _found(piece.group()):
                if inner in PLACEHOLDERS:
                    yield inner, piece.start() + start, piece.start() + end


def _found(text: bytes) -> list[tuple[str, int, int]]:
    return pii.find_contacts(np.frombuffer(text, np.uint8))
