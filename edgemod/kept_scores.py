"""The scores behind a run's decisions, kept beside them when asked (``--keep-scores``).

One row a text, in the order of the chunk's texts: ``scores/part-k.parquet`` goes with
``decisions/part-k.parquet``. They hold no text. Whoever tries another policy on the run reads them
instead of having the language model read every text again: by far the most of its time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from edgemod.calibration import FloatMatrix
from edgemod.parts import open_part
from edgemod.records import Chunk
from edgemod.triager import Scores
from edgemod.words import OUTPUTS

SCHEMA: Final = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("source_row", pa.int64(), nullable=False),
        pa.field("message", pa.int32()),
        *(pa.field(f"{s}_{name}", pa.float32()) for s in ("filter", "model") for name in OUTPUTS),
    ]
)
"""``message`` is the 0-based message of a conversation, null in a flat record. ``filter_*`` and
``model_*`` are log-odds before any calibration, null where the stage did not read the text."""

_READING: Final = b"edgemod.reading"
"""Metadata: ``Triager.reading`` of the run."""


def table(chunk: Chunk, scores: Scores, reading: str) -> pa.Table:
    """What is kept of a chunk; schema ``SCHEMA``, with ``Triager.reading`` as metadata."""
    owner, message = chunk.texts["record"], chunk.texts["message"].to_numpy()
    columns: list[pa.Array] = [
        chunk.records["record_id"].take(owner),
        chunk.records["source_row"].take(owner),
        pa.array(message, pa.int32(), mask=message < 0),
    ]
    for matrix in vars(scores).values():
        for k in range(len(OUTPUTS)):
            values = np.ascontiguousarray(matrix[:, k])
            columns.append(pa.array(values, pa.float32(), mask=np.isnan(values)))
    return pa.Table.from_arrays(columns, schema=SCHEMA.with_metadata({_READING: reading}))


def of_model(part: Path, chunk: Chunk, reading: str) -> FloatMatrix | None:
    """What the language model said of each text of a chunk, float32 (texts, K), NaN where nothing.

    None if the file is not there or damaged, is of other texts, or if that model, filter or policy
    would have read other pieces of them (another ``Triager.reading``).
    """
    try:
        with open_part(part) as file:
            kept = file.read()
    except (OSError, pa.ArrowException):
        return None
    if not kept.schema.equals(SCHEMA) or kept.schema.metadata.get(_READING) != reading.encode():
        return None
    texts = chunk.texts
    rows = chunk.records["source_row"].take(texts["record"])
    message = pc.if_else(
        pc.less(texts["message"], 0), pa.scalar(None, pa.int32()), texts["message"]
    )
    if kept["source_row"].combine_chunks() != rows or kept["message"].combine_chunks() != message:
        return None
    return np.column_stack([kept[f"model_{name}"].to_numpy() for name in OUTPUTS])
