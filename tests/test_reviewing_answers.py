"""The store of answers: kills, claims, undo, and any order of adding."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgemod.errors import OutputError, RunError
from edgemod.reviewing.answers import (
    UNDO,
    Answer,
    Answers,
    Key,
    is_double,
    moment,
    new_id,
    standing,
)

ROOT = Path(__file__).parents[1]
REVIEWERS = ("anna", "ben")
KEYS: list[Key] = [("a.parquet", row) for row in range(4)]


def answer(key: Key, reviewer: str, said: str = "clear", **more: object) -> Answer:
    one = Answer(new_id(), None, *key, reviewer, said, answered_at=moment())
    return replace(one, **more)  # type: ignore[arg-type]


class Store(RuleBasedStateMachine):
    """The store against a dictionary; ``kill`` opens what the disk holds at that moment."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.killed = 0
        self.store = Answers.open(self.folder / "0.sqlite")
        self.stands: dict[tuple[Key, str], str] = {}
        self.acts: dict[str, list[list[Key]]] = {name: [] for name in REVIEWERS}
        self.claims: dict[Key, str] = {}
        self.rows = 0

    @rule(reviewer=st.sampled_from(REVIEWERS), said=st.sampled_from(["clear", "escalate"]),
          keys=st.lists(st.sampled_from(KEYS), min_size=1, unique=True))  # fmt: skip
    def answers(self, reviewer: str, said: str, keys: list[Key]) -> None:
        free = [key for key in keys if (key, reviewer) not in self.stands]
        if not free:
            return
        lead = answer(free[0], reviewer, said)
        others = [
            answer(key, reviewer, said, decided_with=lead.answer_id, answered_at=lead.answered_at)
            for key in free[1:]
        ]
        assert self.store.add([lead, *others]) == len(free)
        assert self.store.add([lead]) == 0
        self.rows += len(free)
        self.acts[reviewer].append(free)
        for key in free:
            self.stands[key, reviewer] = said
            if self.claims.get(key) == reviewer:
                del self.claims[key]

    @rule(reviewer=st.sampled_from(REVIEWERS))
    def undoes(self, reviewer: str) -> None:
        taken = self.store.undo(reviewer)
        last = self.acts[reviewer].pop() if self.acts[reviewer] else []
        assert {one.key for one in taken} == {*last}
        assert not taken or taken[0].decided_with is None
        self.rows += len(last)
        for key in last:
            del self.stands[key, reviewer]
            if self.claims.get(key) == reviewer:
                del self.claims[key]

    @rule(reviewer=st.sampled_from(REVIEWERS),
          keys=st.lists(st.sampled_from(KEYS), min_size=1, unique=True))  # fmt: skip
    def claims_some(self, reviewer: str, keys: list[Key]) -> None:
        others = any(self.claims.get(key, reviewer) != reviewer for key in keys)
        assert self.store.claim(reviewer, keys, 600) is not others
        self.claims = {key: who for key, who in self.claims.items() if who != reviewer}
        if not others:
            self.claims |= dict.fromkeys(keys, reviewer)

    @precondition(lambda self: self.killed < 3)
    @rule()
    def kill(self) -> None:
        """What is on the disk while the store is open, as kill -9 leaves it."""
        before, self.killed = self.store.path, self.killed + 1
        after = self.folder / f"{self.killed}.sqlite"
        for suffix in ("", "-wal"):
            if Path(f"{before}{suffix}").exists():
                shutil.copy(f"{before}{suffix}", f"{after}{suffix}")
        self.store.close()
        self.store = Answers.open(after)

    @invariant()
    def is_as_the_model(self) -> None:
        assert {(o.key, o.reviewer): o.answer for o in self.store.standing()} == self.stands
        assert self.store.claimed() == self.claims
        assert len([*self.store.every()]) == self.rows

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    code = f"""
import sys
from edgemod.reviewing.answers import Answer, Answers, moment
store = Answers.open({str(tmp_path / "a.sqlite")!r})
for i in range(100000):
    both = [Answer(f"{{i}}-{{j}}", None, "a", 2 * i + j, "anna", "clear", answered_at=moment())
            for j in range(2)]
    store.add(both)
    if i % 3 == 2:
        store.undo("anna")
    print(i, flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout
    told = [process.stdout.readline() for _ in range(random.Random(0).randrange(20, 60))]
    process.send_signal(signal.SIGKILL)
    told += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    done = [int(line) for line in told if line.endswith("\n")]
    with Answers.open(tmp_path / "a.sqlite") as store:
        rows = [one.answer_id for one in store.every() if one.answer != UNDO]
        assert {f"{i}-{j}" for i in done for j in range(2)} <= {*rows}
        assert len(rows) % 2 == 0  # both or none
        taken = sum(one.answer == UNDO for one in store.every())
        assert len(store.standing()) == len(rows) - taken


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_the_order_of_adding_does_not_matter(data: st.DataObject) -> None:
    made: list[Answer] = []
    for i in range(data.draw(st.integers(0, 8))):
        earlier = [one.answer_id for one in made if one.answer != UNDO]
        said = data.draw(st.sampled_from(["clear", "flag", *([UNDO] if earlier else [])]))
        made.append(
            Answer(
                f"{i}",
                None,
                *data.draw(st.sampled_from(KEYS[:2])),
                data.draw(st.sampled_from(REVIEWERS)),
                said,
                answered_at=data.draw(st.sampled_from(["2026-01-01", "2026-01-02"])),
                supersedes=data.draw(st.sampled_from(earlier)) if said == UNDO else None,
            )
        )
    other = data.draw(st.permutations(made + made[:3]))
    assert standing(made) == standing(other)
    with tempfile.TemporaryDirectory() as folder, Answers.open(Path(folder) / "a") as store:
        for part in other:
            store.add([part])
        assert store.standing() == standing(made)


def test_the_last_answer_of_a_reviewer_stands_and_all_are_kept(tmp_path: Path) -> None:
    with Answers.open(tmp_path / "a.sqlite") as store:
        first, second = answer(KEYS[0], "anna"), answer(KEYS[0], "anna", "escalate")
        store.add([second, first, answer(KEYS[0], "ben")])
        assert [(o.reviewer, o.answer) for o in store.standing()] == [
            ("anna", "escalate"),
            ("ben", "clear"),
        ]
        assert len([*store.every()]) == 3


def test_rows_cannot_be_changed_or_deleted(tmp_path: Path) -> None:
    with Answers.open(tmp_path / "a.sqlite") as store:
        store.add([answer(KEYS[0], "anna")])
    connection = sqlite3.connect(tmp_path / "a.sqlite")
    for statement in ("UPDATE answers SET answer = 'flag'", "DELETE FROM answers"):
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(statement)
    connection.close()


def test_a_lease_runs_out(tmp_path: Path) -> None:
    with Answers.open(tmp_path / "a.sqlite") as store, Answers.open(tmp_path / "a.sqlite") as other:
        assert store.claim("anna", KEYS[:2], 600)
        assert not other.claim("ben", KEYS[1:3], 600)
        assert other.claim("ben", KEYS[2:], 600)
        assert store.claim("anna", KEYS[:2], -1)
        assert other.claim("ben", KEYS, 600)
        other.release("ben")
        assert store.claimed() == {}


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Answers.open(tmp_path / "a.sqlite") as store:
            store.add([answer(KEYS[0], "anna")])
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert {*modes.values()} == {0o600}
    assert len(modes) == 3


def test_strangers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, and longer than a header of one " * 9)
    sqlite3.connect(tmp_path / "other").execute("CREATE TABLE t (x)").connection.close()
    for name in ("text", "other"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(RunError, match="is no file of answers"):
            Answers.open(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    with pytest.raises(OutputError, match="cannot be used"):
        Answers.open(tmp_path / "none" / "a.sqlite")
    Answers.open(tmp_path / "a", {"input": "x"}).close()
    with pytest.raises(RunError, match="another input"):
        Answers.open(tmp_path / "a", {"input": "y"})


def test_double_review_draws_its_share() -> None:
    keys: Sequence[Key] = [("a.parquet", row) for row in range(4000)]
    drawn = sum(is_double(key, 0.1) for key in keys)
    assert 320 < drawn < 480  # about 4 standard deviations
    assert all(is_double(key, 0.3) for key in keys if is_double(key, 0.1))
    assert not any(is_double(key, 0) for key in keys)
    assert all(is_double(key, 1) for key in keys)


def test_own_pseudonym_is_the_same_each_time_and_differs_between_files(tmp_path: Path) -> None:
    names = []
    for path in ("a", "a", "b"):
        with Answers.open(tmp_path / path) as store:
            names.append(store.own_pseudonym())
    assert names[0] == names[1] != names[2]
