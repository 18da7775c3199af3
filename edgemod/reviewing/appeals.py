"""Appeals: decisions that somebody objected to, and what they turn out to be.

An appeal may be against any decision of a run, so records are looked up in its decisions and their
texts in its input. Nobody drew them by chance: who appeals does so for a reason. Their labels have
no inclusion probability and an ``inclusion_floor`` of 0, by which all that proves something of a
whole refuses them (``labels.is_sample``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from edgemod import originals, privacy, review, run_folder
from edgemod.labels import INCLUSION
from edgemod.parts import open_part
from edgemod.policy import Policy
from edgemod.reviewing.answer_files import Appeal, Known, Rename, named
from edgemod.reviewing.answers import Answer, Key, label_row
from edgemod.triager import DECISIONS
from edgemod.words import OUTPUTS, Verdict

PEOPLE: Final = "people"
"""Where a stage would be named: reviewers decided, not edgemod."""

_MORE: Final = pa.schema(
    [
        *((name, pa.int8()) for name in OUTPUTS),
        *((name, pa.string()) for name in ("reviewer", "answered_at", "policy", "appeal")),
    ]
)


def names_of_input(run: Path, key_file: Path) -> Rename:
    """The pseudonyms of a run with the key that it was made with.

    Raises RunError where there is no complete run, InputError for another key.
    """
    key = privacy.Pseudonyms.open(key_file)
    key.check_run(run_folder.finished_state(run)["plan"], str(key_file))
    return lambda name: key.of("record_id", name.encode("utf-8", "replace"))


def decisions(run: Path, ids: Collection[str], keys: Collection[Key]) -> pa.Table:
    """The decisions of a complete run on the records of these ids and keys, in input order.

    Raises RunError if ``run`` is none.
    """
    found = [DECISIONS.empty_table()]
    wanted_ids = pa.array(sorted(ids), pa.string())
    wanted_rows = pa.array(sorted({row for _, row in keys}), pa.int64())
    for part in run_folder.parts(run, run_folder.complete_state(run)):
        with open_part(part) as file:
            names = file.read(["record_id", "source", "source_row"])
            by_id = pc.is_in(names["record_id"].cast(pa.string()), wanted_ids)
            by_row = pc.is_in(names["source_row"], wanted_rows)
            some = np.flatnonzero(pc.or_(by_id, by_row).to_numpy())
            if len(some):
                found.append(file.read().take(pa.array(some)).cast(DECISIONS))
    table = pa.concat_tables(found).combine_chunks()
    rows = zip(*(table[name].to_pylist() for name in ("record_id", "source", "source_row")),
               strict=True)  # fmt: skip
    asked = [name in ids or (source, row) in keys for name, source, row in rows]
    return table.filter(pa.array(asked, pa.bool_()))


def known(
    run: Path, appeals: Iterable[Appeal], standing: Iterable[Answer], categories: Sequence[str]
) -> Known:
    """What rows of appeals are about, and what had been decided: by the run or, where it left a
    record to people, by the answers of theirs that stand."""
    table = decisions(run, *named(appeals))
    keys = _keys(table)
    said = by_people(standing)
    decided = {}
    for key, verdict, category in zip(
        keys, table["verdict"].to_pylist(), table["category"].to_pylist(), strict=True
    ):
        if verdict == Verdict.review.name:
            if key in said:
                decided[key] = said[key]
        else:
            decided[key] = verdict if verdict == Verdict.clear.name else category or verdict
    whole = "run"
    if run_folder.finished_state(run)["plan"].get("pseudonyms"):
        whole += ", whose ids are pseudonyms (--pseudonymise KEYFILE takes those of the input)"
    return Known.of(keys, table["record_id"].to_pylist(), categories, decided, whole)


def by_people(standing: Iterable[Answer]) -> dict[Key, str]:
    """What reviewers decided of each record, where they agree: "clear", a category or "flag"."""
    given: dict[Key, list[Answer]] = defaultdict(list)
    for one in standing:
        given[one.key].append(one)
    found = {}
    for key, of_record in given.items():
        last = [one for one in of_record if one.settles] or of_record
        kinds, says = {one.answer for one in last}, {one.says for one in last}
        if len(kinds) == 1 and kinds != {"escalate"}:
            found[key] = says.pop() if len(says) == 1 else "flag"
    return found


def labels(run: Path, policy: Policy, appeals: Sequence[Answer]) -> pa.Table:
    """The records of appeals with their labels, in input order.

    Columns as of labels of a queue, but for ``rank``, ``priority`` and ``decided_alike``; and
    ``appeal``, its outcome. Raises InputError if the input of the run is gone or has changed.
    """
    after = {one.key: one for one in appeals}
    found = [review.PENDING.empty_table()]
    if after:
        state = run_folder.complete_state(run)
        table = decisions(run, (), after)
        sources, columns = originals.inputs(state), originals.columns(state)
        for chunk, rows in originals.chunks(table, sources, columns, policy):
            chances, whole = np.zeros(len(rows)), np.arange(len(rows))
            rows_of = review.queued(chunk, table.take(rows), policy, whole, chances, 0.0)
            found.append(privacy.redact(rows_of) if state["plan"].get("redact_pii") else rows_of)
    made = pa.concat_tables(found).combine_chunks().drop_columns(["priority", "size"])
    at = made.column_names.index(INCLUSION)
    made = made.set_column(at, made.schema.field(at), pa.nulls(len(made), pa.float64()))
    of_policy = {c.name for c in policy.categories}
    answers = [after[key] for key in _keys(made)]
    labelled = [
        {**vars(one), **label_row(one.answer == "flag", one.answer_category, of_policy)}
        for one in answers
    ]
    more = pa.Table.from_pylist([{n: row[n] for n in _MORE.names} for row in labelled], _MORE)
    for name in _MORE.names:
        made = made.append_column(_MORE.field(name), more[name])
    return made


def _keys(table: pa.Table) -> list[Key]:
    return [*zip(table["source"].to_pylist(), table["source_row"].to_pylist(), strict=True)]
