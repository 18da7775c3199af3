"""Label columns: what people said of the records of a Parquet file.

A label is 1 (violates), 0 (does not) or null (unknown); unknown is never negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from edgemod import formats
from edgemod.columns import is_number
from edgemod.errors import InputError
from edgemod.formats import Rows
from edgemod.metrics import Labels
from edgemod.sources import Source
from edgemod.words import ANY, CATEGORIES

UNSAFE: Final = "unsafe"
"""Another name of the label ``any``, common in public sets."""

INCLUSION: Final = "inclusion_probability"
"""Column of the chance that a record had of being drawn into the labels; audits write it."""

LABELS: Final = (*CATEGORIES, ANY, UNSAFE)
"""Names that a label column may have."""


def read_labels(source: Source, wanted: Sequence[str] | None) -> dict[str, Labels]:
    """The label columns of a Parquet file by name, each int8 (rows,); null and NaN are -1.

    ``wanted``: columns among ``LABELS``; None for those that the file has. Raises InputError for a
    file that is not Parquet or cannot be decoded, a column that is missing, there twice or no
    label, a value other than 1, 0, true, false and null, and a file without a labelled row.
    """
    where = source.path
    if source.format != "parquet":
        raise InputError("is not Parquet", where=where, fix="Convert it: labels need types.")
    present = formats.schema(source).names
    for name in wanted or ():
        if name not in LABELS:
            fix = f"Labels are named {', '.join(LABELS)}."
            raise InputError(f"'{name}' is not a label", where="--label-columns", fix=fix)
        if name not in present:
            has = ", ".join(label for label in LABELS if label in present) or "none"
            raise InputError(f"no column '{name}'", where=where, fix=f"Its labels are: {has}")
    asked = LABELS if wanted is None else dict.fromkeys(wanted)
    names = [name for name in asked if name in present]
    if not names:
        raise InputError(
            "has no label column",
            where=where,
            fix=f"Name columns of 1, 0 and null after categories: {', '.join(LABELS)}.",
        )
    twice = [name for name in names if present.count(name) > 1]
    if twice:
        raise InputError(f"two columns are named '{twice[0]}'", where=where, fix="Rename one.")
    parts = [_checked(run, names) for run in formats.rows(source, names)]
    if not any((part >= 0).any() for part in parts):
        raise InputError("no record has a label", where=where, fix="null is unknown: give 0 or 1.")
    return dict(zip(names, np.concatenate(parts, axis=1), strict=True))


def read_inclusion(source: Source) -> npt.NDArray[np.float64] | None:
    """The chance, over 0 and at most 1, that each record had of being drawn; None: no such column.

    Raises InputError for another value, null among them.
    """
    if INCLUSION not in formats.schema(source).names:
        return None
    parts = []
    for run in formats.rows(source, [INCLUSION]):
        column = _decoded(run)[INCLUSION]
        if not is_number(column.type):
            fix = "Write the chance that each record had of being drawn, over 0 and at most 1."
            raise InputError(f"column '{INCLUSION}' is {column.type}", where=source.path, fix=fix)
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(~((values > 0) & (values <= 1)))
        if len(wrong):
            raise InputError(
                f"column '{INCLUSION}' is not over 0 and at most 1 in row {run.first + wrong[0]}",
                where=source.path,
                fix="Rows count from 0. Drop the column if all records were drawn alike.",
            )
        parts.append(values)
    return np.concatenate(parts) if parts else np.zeros(0)


def read_groups(source: Source, name: str) -> npt.NDArray[np.str_]:
    """A column as text, (rows,), null as an empty text. Raises InputError if there is none such."""
    names = formats.schema(source).names
    if names.count(name) != 1:
        fix = f"Its columns are {', '.join(names)}"
        raise InputError(f"no one column '{name}'", where=source.path, fix=fix)
    parts = []
    for run in formats.rows(source, [name]):
        column = _decoded(run)[name]
        try:
            words = column.cast(pa.string()).fill_null("")
        except pa.ArrowException as error:
            fix = "Group by a column of words, numbers or dates."
            what = f"column '{name}' is {column.type}"
            raise InputError(what, where=source.path, fix=fix) from error
        parts.append(np.array(words.to_pylist(), np.str_))
    return np.concatenate(parts) if parts else np.zeros(0, np.str_)


def _decoded(run: Rows) -> pa.RecordBatch:
    if run.batch is None:
        raise InputError(
            "labels cannot be decoded", where=run.source.path, fix="Copy or write the file again."
        )
    return run.batch


def _checked(run: Rows, names: Sequence[str]) -> Labels:
    """The labels of a run, (labels, rows)."""
    return np.stack([_label(run, name) for name in names])


def _label(run: Rows, name: str) -> Labels:
    column = _decoded(run)[name]
    kind = column.type
    if not (is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        fix = "Write 1 for violates, 0 for does not, null for unknown."
        raise InputError(f"column '{name}' is {kind}, not numbers", where=run.source.path, fix=fix)
    values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(~np.isnan(values) & (values != 0) & (values != 1))
    if len(wrong):
        raise InputError(
            f"column '{name}' has a value that is not 1, 0 or null in row {run.first + wrong[0]}",
            where=run.source.path,
            fix="Rows count from 0. Write 1 for violates, 0 for does not, null for unknown.",
        )
    return np.where(np.isnan(values), -1, values).astype(np.int8)
