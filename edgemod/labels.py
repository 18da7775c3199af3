"""Label columns: what people said of the records of a Parquet file.

A label is 1 (violates), 0 (does not) or null (unknown); unknown is never negative.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from edgemod import formats
from edgemod.columns import as_group, is_number
from edgemod.errors import InputError
from edgemod.formats import Rows
from edgemod.metrics import Labels
from edgemod.sources import Source, partitions
from edgemod.words import ANY, CATEGORIES, NO_GROUP

UNSAFE: Final = "unsafe"
"""Another name of the label ``any``, common in public sets."""

INCLUSION: Final = "inclusion_probability"
"""Column of the chance that a record had of being drawn into the labels; audits write it."""

FLOOR: Final = "inclusion_floor"
"""Column of the least chance that any record of the whole had, the same in every row; or that any
with the same ``verdict`` had."""

VERDICT: Final = "verdict"
"""Column of what the run decided; audits write it."""

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


@dataclass(frozen=True)
class Inclusion:
    """The chance of each record (rows,) of being drawn, and the least that any of the whole had.

    ``floors`` (rows,): the least that any record with the same verdict had.
    """

    chance: npt.NDArray[np.float64]
    floor: float
    floors: npt.NDArray[np.float64]


def is_sample(source: Source) -> bool:
    """Whether labels may be a sample: not if column ``FLOOR`` says that some record had no chance.

    A part of a queue is none, nor are appeals: nobody drew what somebody objected to.
    """
    if FLOOR not in formats.schema(source).names:
        return True
    return not any(
        pc.any(pc.equal(_decoded(run)[FLOOR], 0)).as_py()
        for run in formats.rows(source, [FLOOR])
        if is_number(_decoded(run)[FLOOR].type)
    )


def read_inclusion(source: Source) -> Inclusion | None:
    """The chances that the records of a file had of being drawn; None: no such column.

    Raises InputError for a file that ``is_sample`` says is none, for a chance that is not over 0
    and at most 1, and where the column ``FLOOR`` does not say one least chance, over 0, of which no
    record has less; or one a verdict.
    """
    if not is_sample(source):
        raise InputError(
            f"is no sample: its '{FLOOR}' is 0, some records had no chance of being in it",
            where=source.path,
            fix="It proves nothing of the whole. Label an audit sample, or all of the queue; "
            "'edgemod learn' takes this file beside such a one, to fit with.",
        )
    if INCLUSION not in formats.schema(source).names:
        return None
    if FLOOR not in formats.schema(source).names:
        raise InputError(
            f"has a column {INCLUSION}, and none {FLOOR}",
            where=source.path,
            fix="Write there the least chance that any record of the whole had, also of those that "
            "were not drawn; drop both columns if all records were drawn alike.",
        )
    chance, floors = _shares(source, INCLUSION), _shares(source, FLOOR)
    floor = float(floors.min(initial=1.0))
    alike = [floors]
    if VERDICT in formats.schema(source).names and (floors != floor).any():
        verdicts = read_groups(source, VERDICT)
        alike = [floors[verdicts == one] for one in {*verdicts.tolist()}]
    if any((one != one[:1]).any() for one in alike) or (chance < floors * (1 - 1e-9)).any():
        raise InputError(
            f"column '{FLOOR}' is not one number that no chance is below",
            where=source.path,
            fix="It is the least chance that any record of the whole had of being drawn.",
        )
    return Inclusion(chance, floor, floors)


def _shares(source: Source, name: str) -> npt.NDArray[np.float64]:
    """A column of numbers over 0 and at most 1, (rows,)."""
    parts = [np.zeros(0)]
    for run in formats.rows(source, [name]):
        column = _decoded(run)[name]
        if not is_number(column.type):
            fix = "Write the chance that each record had of being drawn, over 0 and at most 1."
            raise InputError(f"column '{name}' is {column.type}", where=source.path, fix=fix)
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(~((values > 0) & (values <= 1)))
        if len(wrong):
            raise InputError(
                f"column '{name}' is not over 0 and at most 1 in row {run.first + wrong[0]}",
                where=source.path,
                fix="Rows count from 0. Records that had no chance of being drawn are not spoken "
                "for: draw all of them by some chance.",
            )
        parts.append(values)
    return np.concatenate(parts)


Groups = npt.NDArray[np.object_]
"""The names of the groups of records, (n,) of str."""

MOST_GROUPS: Final = 100
MOST_CHARACTERS: Final = 100
"""Of the name of a group."""


def read_groups(source: Source, name: str) -> Groups:
    """A column of few different values as text, (rows,); null and empty are ``NO_GROUP``.

    Raises InputError if there is no one such column, if it cannot be text, or if it has more than
    ``MOST_GROUPS`` values or one of more than ``MOST_CHARACTERS``: what is in it is shown.
    """
    codes: dict[str, int] = {}
    found: list[int] = []
    for value in read_values(source, name):
        if value not in codes:
            long, many = len(value) > MOST_CHARACTERS, len(codes) == MOST_GROUPS
            if long or many:
                what = f"a value of more than {MOST_CHARACTERS} characters"
                what = what if long else f"more than {MOST_GROUPS} values"
                fix = "Name a column of groups: a language, a channel, a kind."
                raise InputError(f"column '{name}' has {what}", where=source.path, fix=fix)
            codes[value] = len(codes)
        found.append(codes[value])
    # Objects: each row holds a reference to its name, not the name.
    return np.array([*codes, ""], object)[found] if found else np.zeros(0, object)


def read_values(source: Source, name: str) -> Iterator[str]:
    """A column, or a partition of the path, as text, row by row; null and empty are ``NO_GROUP``.

    Raises InputError if there is no one such column, or if it cannot be text.
    """
    names = formats.schema(source).names
    partition = partitions(source).get(name)
    if names.count(name) != 1 and partition is None:
        fix = f"Its columns are {', '.join(names)}"
        raise InputError(f"no one column '{name}'", where=source.path, fix=fix)
    for run in formats.rows(source, [name]):
        if name not in names:
            yield from itertools.repeat(partition or NO_GROUP, run.count)
            continue
        try:
            yield from as_group(_decoded(run)[name]).fill_null(NO_GROUP).to_pylist()
        except (pa.ArrowException, UnicodeError) as error:
            fix = "Name a column of words, numbers or dates."
            what = f"column '{name}' cannot be read as words"
            raise InputError(what, where=source.path, fix=fix) from error


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
