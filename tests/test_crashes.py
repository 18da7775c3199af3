"""Workers that die or hang, parents that are killed, disks that fill up: nothing is lost.

Faults come from outside the package: a ``sitecustomize`` on the path of the worker processes makes
texts with certain words fatal, and a stand-in for ``crew.Worker`` does the same in this process,
where many cases can be tried without waiting for processes to start.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgemod
from edgemod import crew, language, pipeline, quarantine, records, worker
from edgemod.commands.run import triage as triage_command
from edgemod.errors import InputError, ModelError, OutputError, RunError
from edgemod.records import Chunk, Columns
from edgemod.scoring import score_file
from edgemod.screen import run as screen
from edgemod.triager import Triager
from edgemod.words import Status
from samples import sentences, write_dump

ROOT = Path(__file__).parents[1]

FATAL = '''
"""Makes texts fatal to the worker that reads them, by a word in them."""
import os, signal, sys, time
if "edgemod.worker" in sys.orig_argv:
    from edgemod import features
    extract = features.extract
    def end(number):
        with open(os.environ["DEATHS"], "a") as log:
            log.write("x")
        os.kill(os.getpid(), number)
    ACTS = {
        "segfaults": lambda: end(signal.SIGSEGV),
        "hangs": lambda: time.sleep(3600),
    }
    def fatal(texts, lexicons):
        for text in texts.to_pylist():
            for word, act in ACTS.items():
                if word in text:
                    act()
        return extract(texts, lexicons)
    features.extract = fatal
'''


def write(path: Path, texts: Sequence[str | None]) -> Path:
    ids = [f"r{i}" for i in range(len(texts))]
    pq.write_table(pa.table({"id": ids, "text": pa.array(texts, pa.string())}), path)
    return path


def decisions(out: Path) -> list[dict[str, Any]]:
    parts = sorted((out / "decisions").glob("part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def contents(out: Path) -> dict[str, bytes]:
    paths = sorted([*(out / "decisions").iterdir(), *(out / "review").iterdir()])
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


# -- the search ------------------------------------------------------------------------------


@given(st.integers(0, 5000), st.data())
def test_the_search_finds_what_fails_and_spares_the_rest(count: int, data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.integers(0, max(count - 1, 0)), max_size=min(count, 40)))
    trials = 0

    def fails(some: Sequence[int]) -> bool:
        nonlocal trials
        trials += 1
        return not bad.isdisjoint(some)

    crashed, suspect = quarantine.search(count, fails, quarantine.TRIALS)
    assert trials <= quarantine.TRIALS
    assert {*crashed} <= bad <= {*crashed, *suspect}
    assert not {*crashed} & {*suspect}
    if len(bad) <= 4:
        assert {*crashed} == bad
        assert not suspect
    if len(bad) == 1:
        assert trials <= 2 * (count - 1).bit_length() + quarantine.ALONE


@given(st.integers(1, 500), st.integers(0, 2**32))
def test_a_search_after_a_chance_failure_blames_nobody(count: int, seed: int) -> None:
    """As long as no record fails alone twice."""
    draw = random.Random(seed)
    alone: Counter[int] = Counter({0: count == 1})

    def fails(some: Sequence[int]) -> bool:
        if draw.random() < 0.7 or (len(some) == 1 and alone[some[0]]):
            return False
        alone.update(some if len(some) == 1 else ())
        return True

    assert quarantine.search(count, fails, 10_000) == ([], [])


def test_a_search_among_nothing_but_faults_is_bounded() -> None:
    crashed, suspect = quarantine.search(4096, lambda _: True, quarantine.TRIALS)
    assert (crashed, suspect) == ([], [*range(4096)])


# -- the crew, with workers in this process ----------------------------------------------------


Fault = Callable[[list[str]], None]


class DeadError(Exception):
    """Stands for the end of a worker process."""


class Stand:
    """A worker that lives in this process: real decisions and files, deaths by ``fault``."""

    fault: Fault
    word = "xyzzy"
    triager: Triager
    asked = 0

    def __init__(self, setup: crew.Setup) -> None:
        self._setup = asdict(setup)
        self._dead = False
        self.fingerprints = self.triager.fingerprints()
        self.note, self.certificate = "", None
        self.max_text_bytes, self.reads_context = 65536, False

    def wait_ready(self, limit: float) -> str | None:
        return None

    def tick(self) -> None:
        pass

    def stop(self) -> None:
        self._dead = True

    def ask(self, chunk: Chunk, lost: Counter[str], keep: bool, limit: float) -> dict[str, Any]:
        assert not self._dead
        type(self).asked += 1
        ok = pa.array(chunk.texts["status"].to_numpy() == Status.ok)
        try:
            type(self).fault(chunk.texts["text"].filter(ok).to_pylist())
            if what := self._setup["measure"]:
                found = worker.measured(self.triager, chunk, what)
                return {"peak_bytes": 1, "batches": [worker.packed(found)]}
            header = {"keep": keep, "lost": lost}
            tally = worker._triage(self.triager, chunk, self._setup, header, os.getppid())
        except DeadError:
            return {"kind": "ended by signal 9"}
        except Exception as error:
            return worker.describe(error)
        return {"tally": json.loads(json.dumps(tally)), "peak_bytes": 1}


@pytest.fixture(scope="module")
def light() -> Iterator[Triager]:
    with Triager(model=None) as made:
        yield made


@pytest.fixture
def stand(light: Triager, monkeypatch: pytest.MonkeyPatch) -> type[Stand]:
    class Here(Stand):
        triager = light

        @staticmethod
        def fault(texts: list[str]) -> None:
            if any(Here.word in text for text in texts):
                raise DeadError

    monkeypatch.setattr(crew, "Worker", Here)
    return Here


@pytest.mark.parametrize("bad", [[7], [0, 63], [20, 21, 22], [31, 32]])
def test_the_others_are_decided_as_if_the_poisoned_records_were_not_there(
    stand: type[Stand], tmp_path: Path, bad: list[int]
) -> None:
    texts: list[str | None] = [*sentences(64), *sentences(64)]  # duplicates, also of the poison
    for i in bad:
        texts[i] = texts[i + 64] = f"{texts[i]} xyzzy {i}"
    report = edgemod.triage(write(tmp_path / "a.parquet", texts), tmp_path / "a", workers=1)
    worst = [*bad, *(i + 64 for i in bad)]
    for i in worst:
        texts[i] = None
    edgemod.triage(write(tmp_path / "b.parquet", texts), tmp_path / "b", workers=1)
    got, expected = decisions(tmp_path / "a"), decisions(tmp_path / "b")
    for i in range(128):
        if i in worst:
            assert (got[i]["verdict"], got[i]["status"]) == ("review", "crashed")
            assert (got[i]["stage"], got[i]["duplicate_of"]) == ("status", None)
            assert got[i]["p_any"] is None
        else:
            expected[i]["source"] = got[i]["source"]
            assert got[i] == expected[i]
    assert report.failures == {"crashed": len(worst)}
    assert [row["source_row"] for row in report.quarantined] == sorted(worst)
    assert report.quarantined[0]["record_id"] == f"r{min(worst)}"
    assert report.workers_lost == {"ended by signal 9": sum(report.workers_lost.values())}
    told = (tmp_path / "a" / "report.json").read_text()
    assert "xyzzy" not in told
    queue = pq.read_table(tmp_path / "a" / "review").to_pylist()
    assert sum("xyzzy" in (row["text"] or "") for row in queue) == len(worst)


def test_one_record_among_many_takes_few_workers(stand: type[Stand], tmp_path: Path) -> None:
    texts = [f"{text} {i}" for i, text in enumerate(sentences(4096))]
    texts[2731] = "xyzzy"
    report = edgemod.triage(write(tmp_path / "a.parquet", texts), tmp_path / "out", workers=1)
    assert report.failures["crashed"] == 1
    assert stand.asked <= 2 + 26 + 1


def test_too_many_at_fault_are_not_scored_and_not_lost(stand: type[Stand], tmp_path: Path) -> None:
    texts = [f"{text} {i}" for i, text in enumerate(sentences(512))]
    for i in range(0, 512, 4):
        texts[i] += " xyzzy"
    report = edgemod.triage(write(tmp_path / "a.parquet", texts), tmp_path / "out", workers=1)
    assert report.records == 512
    assert stand.asked <= 2 + quarantine.TRIALS + 1
    rows = decisions(tmp_path / "out")
    assert all(rows[i]["status"] in ("crashed", "failed") for i in range(0, 512, 4))
    assert {r["verdict"] for r in rows if r["status"] != "ok"} == {"review"}


def test_records_that_fail_only_together_go_to_review(stand: type[Stand], tmp_path: Path) -> None:
    def together(texts: list[str]) -> None:
        if len(texts) > 40:
            raise DeadError

    stand.fault = staticmethod(together)
    texts: list[str | None] = [f"{text} {i}" for i, text in enumerate(sentences(64))]
    texts[5] = None
    report = edgemod.triage(write(tmp_path / "a.parquet", texts), tmp_path / "out", workers=1)
    assert report.failures == {"failed": 63, "null_text": 1}
    assert report.quarantined == []


def test_score_evaluate_and_calibrate_do_without_the_poisoned_records(
    stand: type[Stand], tmp_path: Path
) -> None:
    texts: list[str | None] = [*sentences(30)]
    labels = pa.array([i % 2 for i in range(30)], pa.int8())
    paths = {}
    for name, odd in (("bad", "xyzzy"), ("good", None)):
        texts[7] = texts[20] = odd
        paths[name] = write(tmp_path / f"{name}.parquet", texts)
        pq.write_table(pq.read_table(paths[name]).append_column("toxic", labels), paths[name])
    said: list[str] = []

    (good,) = edgemod.evaluate(paths["good"], model=None, resamples=5)
    (bad,) = edgemod.evaluate(
        paths["bad"], model=None, resamples=5, workers=2, on_notice=said.append
    )
    assert bad.quarantined == ("bad.parquet#7 (crashed)", "bad.parquet#20 (crashed)")
    assert good.rankings[0].unscored == 2
    assert bad == replace(good, file="bad.parquet", quarantined=bad.quarantined)

    tables = []
    for name, expected in (("bad", ("r7 (crashed)", "r20 (crashed)")), ("good", ())):
        done = score_file(paths[name], tmp_path / "out.parquet", model=None, text=["text"])
        assert done.quarantined == expected
        tables.append(pq.read_table(tmp_path / "out.parquet").drop_columns("text"))
    assert tables[0].equals(tables[1])
    assert tables[0]["p_any"].null_count == 2

    calibrate = partial(edgemod.calibrate, model=None, max_miss_rate=0.3, on_notice=said.append)
    made = calibrate(paths["bad"], tmp_path / "bad.json")
    assert made.quarantined == bad.quarantined
    assert made.found.shares == calibrate(paths["good"], tmp_path / "good.json").found.shares
    assert sum("bad.parquet#7 (crashed)" in line for line in said) == 2
    assert not any("xyzzy" in line for line in said)


def test_a_conversation_is_quarantined_as_one(
    stand: type[Stand], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    talk = [{"role": "user", "content": text} for text in (None, "good morning", "see you")]
    poison = [*talk, {"role": "user", "content": "xyzzy"}]
    table = pa.table({"id": ["a", "b", "c"], "messages": pa.array([talk, poison, talk], kind)})
    pq.write_table(table, tmp_path / "chats.parquet")
    report = edgemod.triage(tmp_path / "chats.parquet", tmp_path / "out", workers=1)
    screen.summary(report, tmp_path / "out")
    said = "".join(capsys.readouterr().err.split())
    assert "workerslostandreplaced:" in said
    assert "quarantined:b(" in said
    rows = decisions(tmp_path / "out")
    assert [row["status"] for row in rows] == ["ok", "crashed", "ok"]
    assert rows[2]["duplicate_of"] == "a"


def test_a_text_that_cannot_even_be_copied_goes_to_review_without_it(
    stand: type[Stand], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgemod import review

    pending = review.pending

    def broken(chunk: Chunk, *rest: Any) -> pa.Table:
        if any("xyzzy" in (text or "") for text in chunk.texts["text"].to_pylist()):
            raise ArithmeticError("xyzzy")
        return pending(chunk, *rest)

    monkeypatch.setattr(review, "pending", broken)
    stand.fault = staticmethod(lambda texts: None)
    texts = ["hello there", "xyzzy", "good night", "see you at eight"]
    report = edgemod.triage(write(tmp_path / "a.parquet", texts), tmp_path / "out", workers=1)
    assert [row["status"] for row in decisions(tmp_path / "out")] == ["ok", "crashed", "ok", "ok"]
    assert len(report.workers_lost) == 1
    assert next(iter(report.workers_lost)).startswith("ArithmeticError ")
    assert "xyzzy" not in (tmp_path / "out" / "report.json").read_text()


def test_what_says_that_the_set_up_is_wrong_ends_the_run(
    stand: type[Stand], tmp_path: Path
) -> None:
    def wrong(texts: list[str]) -> None:
        raise ModelError("the model is gone", where="there")

    stand.fault = staticmethod(wrong)
    with pytest.raises(ModelError, match="the model is gone"):
        edgemod.triage(write(tmp_path / "a.parquet", ["a"]), tmp_path / "out", workers=1)
    assert stand.asked == 1


def test_the_next_record_of_a_thread_still_reads_what_was_said_before() -> None:
    batch = pa.record_batch(
        {"text": ["one", "xyzzy", "two", "one", None], "thread": ["t", "t", "t", "u", "u"]}
    )
    columns = Columns(("text",), None, None, "thread", None, None, None, ())
    chunk = records.chunk_of(batch, columns, max_text_bytes=100)
    assert [rows.tolist() for rows in quarantine.alike(chunk, False)] == [[0, 3], [1], [2]]
    assert [rows.tolist() for rows in quarantine.alike(chunk, True)] == [[0, 3], [1], [2]]
    rest = quarantine.without(chunk, np.array([1]), Status.crashed)
    assert rest.texts["context"].to_pylist() == [None, "one", "xyzzy", None, "one"]
    assert rest.texts["status"].to_pylist() == [0, Status.crashed, 0, 0, Status.null_text]
    blank = quarantine.without(chunk, np.array([1]), Status.crashed, text=False)
    assert blank.texts["text"].to_pylist() == ["one", None, "two", "one", None]
    part = quarantine.only(chunk, np.array([2, 1]))
    assert part.records["source_row"].to_pylist() == [1, 2]
    assert part.texts["record"].to_pylist() == [0, 1]
    assert part.texts["context"].to_pylist() == ["one", "xyzzy"]


def test_a_clock_that_jumps_changes_nothing(
    stand: type[Stand], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = write(tmp_path / "a.parquet", [*sentences(40), "xyzzy"])
    edgemod.triage(dump, tmp_path / "before", workers=1, chunk_rows=16)
    draw = random.Random(1)
    monkeypatch.setattr(time, "time", lambda: draw.uniform(-1e9, 4e9))
    report = edgemod.triage(dump, tmp_path / "after", workers=1, chunk_rows=16)
    assert contents(tmp_path / "after") == contents(tmp_path / "before")
    assert 0 <= report.wall_seconds < 1e6


# -- real processes ----------------------------------------------------------------------------


@pytest.fixture
def fatal(tmp_path: Path) -> Path:
    """A folder with a ``sitecustomize`` to which certain texts are fatal."""
    folder = tmp_path / "fatal"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(FATAL)
    return folder


def faults_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the workers of this process, and of commands, start with what is in ``folder``."""
    monkeypatch.setattr(sys, "path", [sys.path[0], str(folder), *sys.path[1:]])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT)]))
    monkeypatch.setenv("DEATHS", str(folder / "deaths"))


def test_a_parent_killed_while_it_searches_goes_on_to_the_same_bytes(
    stand: type[Stand], fatal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["hello there", "this segfaults", "see you at eight", "hello there"]
    dump = write(tmp_path / "a.parquet", texts)
    triage = partial(edgemod.triage, dump, workers=1, chunk_rows=2, model=None)
    stand.word = "segfaults"
    whole = triage(tmp_path / "whole")
    monkeypatch.undo()
    faults_on_path(fatal, monkeypatch)

    out = tmp_path / "killed"
    command = [sys.executable, "-m", "edgemod", "triage", str(dump), "-o", str(out)]
    command += ["--workers", "1", "--chunk-rows", "2", "--model", "none"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    deaths, limit = Path(os.environ["DEATHS"]), time.monotonic() + 120
    while not deaths.exists() or deaths.stat().st_size < 3:  # two for the chunk, so it searches
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not list(out.glob("decisions/part-*"))
    report = triage(out)
    assert report.workers_lost == {f"ended by signal {signal.SIGSEGV:d}": 4}
    assert report.quarantined == whole.quarantined
    assert contents(out) == contents(tmp_path / "whole")


def test_a_worker_that_hangs_is_replaced(
    fatal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults_on_path(fatal, monkeypatch)
    dump = write(tmp_path / "a.parquet", ["this hangs", "hello there"])
    report = edgemod.triage(
        dump, tmp_path / "out", workers=1, chunk_rows=1, model=None, stall_seconds=2
    )
    assert [row["status"] for row in decisions(tmp_path / "out")] == ["crashed", "ok"]
    assert report.workers_lost == {"killed because it hung": 3}


def test_score_of_a_file_does_without_a_record_that_ends_processes(
    fatal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults_on_path(fatal, monkeypatch)
    dump, out = write(tmp_path / "a.parquet", ["this segfaults", "hello"]), tmp_path / "out.parquet"
    done = score_file(dump, out, model=None, text=["text"])
    assert done.quarantined == ("r0 (crashed)",)
    assert [p is None for p in pq.read_table(out)["p_any"].to_pylist()] == [True, False]


def test_the_option_has_the_seconds_of_the_library() -> None:
    (option,) = (o for o in triage_command.params if o.name == "stall_seconds")
    assert option.default == crew.STALL_SECONDS
    assert isinstance(option, click.Option)
    assert f"Default: {crew.STALL_SECONDS:.0f}." in str(option.help)


def test_a_slow_worker_that_gets_on_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calls of the network take longer together than a worker may be silent."""
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys, time\n"
        "if 'edgemod.worker' in sys.orig_argv:\n"
        "    from edgemod.llama import Llama\n"
        "    embed = Llama.embed\n"
        "    def slow(self, tokens):\n"
        "        time.sleep(0.5)\n"
        "        return embed(self, tokens)\n"
        "    Llama.embed = slow\n"
    )
    faults_on_path(folder, monkeypatch)
    texts = [f"you are a worthless idiot number {i}, some would say" for i in range(10)]
    report = edgemod.triage(
        write(tmp_path / "a.parquet", texts), tmp_path / "out", workers=1, stall_seconds=3
    )
    assert report.texts_seen["model"] == 10
    assert report.seconds["model"] > 4
    assert report.workers_lost == {}


def test_workers_killed_from_outside_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = write_dump(tmp_path / "dump.parquet", 120)
    edgemod.triage(dump, tmp_path / "whole", workers=2, chunk_rows=20, model=None)
    alive: list[subprocess.Popen[bytes]] = []
    made = crew.Worker.__init__

    def remember(self: crew.Worker, setup: crew.Setup) -> None:
        made(self, setup)
        alive.append(self._process)

    monkeypatch.setattr(crew.Worker, "__init__", remember)
    draw, killed = random.Random(5), 0

    def kill(_: pipeline.Progress) -> None:
        nonlocal killed
        time.sleep(draw.uniform(0, 0.02))
        victims = [process for process in alive if process.poll() is None]
        if victims and killed < 3:
            os.kill(draw.choice(victims).pid, signal.SIGKILL)
            killed += 1

    report = edgemod.triage(
        dump, tmp_path / "out", workers=2, chunk_rows=20, model=None, on_progress=kill
    )
    assert killed == 3
    assert {*report.workers_lost} <= {f"ended by signal {signal.SIGKILL:d}"}
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_worker_that_cannot_start_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RunError, match="could not start: ended with status 1"):
        edgemod.triage(write(tmp_path / "a.parquet", ["a"]), tmp_path / "out", workers=1)


def test_a_folder_that_was_replaced_is_left_to_the_run_that_has_it_now(tmp_path: Path) -> None:
    dump, out, moved = write_dump(tmp_path / "a.parquet", 200), tmp_path / "out", tmp_path / "moved"

    def replace_it(at: int, progress: pipeline.Progress) -> None:
        if progress.chunk == at:
            out.rename(moved)
            for name in ("decisions", "work"):
                (out / name).mkdir(parents=True)

    triage = partial(edgemod.triage, dump, out, workers=1, chunk_rows=20, model=None)
    for at in (1, 9):  # a worker is to write there next; only the end of the run is
        with pytest.raises(RunError, match="removed or replaced"):
            triage(on_progress=partial(replace_it, at))
        assert not [path for path in out.rglob("*") if path.is_file()]
        shutil.rmtree(out)
        moved.rename(out)  # and the next time round it goes on
    assert triage().records == 200


# -- the disk and the input ----------------------------------------------------------------------


class Disk:
    """Refuses changes in a folder after the first ``room`` of them, and goes on to refuse."""

    def __init__(self, folder: Path, room: int, number: int) -> None:
        self._folder, self._number = str(folder), number
        self.room = room

    def take(self, path: object) -> None:
        if isinstance(path, str | os.PathLike) and str(path).startswith(self._folder):
            self.room -= 1
            if self.room < 0:
                raise OSError(self._number, os.strerror(self._number), str(path))

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        for module, name, at in (
            (os, "replace", 0), (os, "rename", 0), (os, "unlink", 0), (os, "mkdir", 0),
            (os, "chmod", 0), (tempfile, "mkstemp", 2),
        ):  # fmt: skip
            patch.setattr(module, name, partial(self._call, getattr(module, name), at))

    def _call(self, real: Callable[..., Any], at: int, *args: Any, **named: Any) -> Any:
        self.take(args[at] if len(args) > at else None)
        return real(*args, **named)


def test_a_disk_that_fails_at_any_moment_is_told_and_the_run_goes_on(
    stand: type[Stand], tmp_path: Path
) -> None:
    texts = ["hello there", "xyzzy", "see you at eight", "good night"]
    triage = partial(edgemod.triage, write(tmp_path / "a.parquet", texts), workers=1, chunk_rows=2)
    triage(tmp_path / "whole")
    out, told = tmp_path / "out", set()
    numbers = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO)
    for room in range(100):
        disk = Disk(out, room, numbers[room % len(numbers)])
        with pytest.MonkeyPatch.context() as patch:
            disk.watch(patch)
            with contextlib.suppress(OutputError):
                triage(out)
                break
        assert disk.room < 0
        told.add(room)
        triage(out)
        assert contents(out) == contents(tmp_path / "whole"), room
        shutil.rmtree(out)
    assert len(told) > 12
    assert contents(out) == contents(tmp_path / "whole")


def test_a_small_disk_that_is_full_for_real(stand: type[Stand], tmp_path: Path) -> None:
    """Where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("may not mount a file system")
    try:
        dump = write(
            tmp_path / "a.parquet", [f"{text} {i}" for i, text in enumerate(sentences(99))]
        )
        triage = partial(edgemod.triage, dump, disk / "out", workers=1, chunk_rows=20)
        with pytest.raises(OutputError, match="No space left on device"):
            triage()
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        assert triage().records == 99
        edgemod.triage(dump, tmp_path / "whole", workers=1, chunk_rows=20)
        assert contents(disk / "out") == contents(tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("how", ["replaced", "cut", "gone"])
def test_an_input_that_goes_while_it_is_read_ends_the_run_with_a_reason(
    stand: type[Stand], tmp_path: Path, how: str
) -> None:
    dump = write_dump(tmp_path / "a.parquet", 600)

    def harm(progress: pipeline.Progress) -> None:
        if progress.chunk:
            return
        if how == "replaced":
            os.replace(write_dump(tmp_path / "b.parquet", 600, seed=1), dump)
        elif how == "cut":
            os.truncate(dump, dump.stat().st_size // 3)
        else:
            dump.unlink()

    with pytest.raises((InputError, RunError), match=r"changed|no such file"):
        edgemod.triage(dump, tmp_path / "out", workers=1, chunk_rows=50, on_progress=harm)
    assert not (tmp_path / "out" / "report.json").exists()


def test_a_full_temporary_folder_ends_the_run_and_blames_no_record(
    stand: type[Stand], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the tables that tell languages are unpacked, when a text first needs them."""

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    texts = ["hello there", "je ne comprends pas pourquoi vous avez fait cela hier soir"]
    triage = partial(edgemod.triage, write(tmp_path / "a.parquet", texts), tmp_path / "out")
    language._identifier.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", full)
        with pytest.raises(OutputError, match="No space left on device"):
            triage(workers=1)
    assert stand.asked == 1
    assert triage(workers=1).workers_lost == {}


def test_a_full_disk_does_not_keep_kernels_from_being_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of edgemod; what other packages make of a full disk is left to them."""
    from numba.core import caching

    import edgemod.kernels

    code = "from numba import njit\n@njit(cache=True)\ndef one_more(x):\n    return x + 1\n"
    for folder in (tmp_path, tmp_path / "within"):
        folder.mkdir(exist_ok=True)
        (folder / "made_up_kernel.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(edgemod.kernels, "__path__", [str(tmp_path / "within")])
    disk = Disk(tmp_path, 0, errno.ENOSPC)

    def refuse(self: Any, *_: Any) -> None:
        disk.take(self._cache_path)

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", refuse)
    ours = importlib.import_module("edgemod.kernels.made_up_kernel")
    assert ours.one_more(1) == 2
    assert ours.one_more(1.5) == 2.5
    assert disk.room < 0
    with pytest.raises(OSError, match="No space left"):
        importlib.import_module("made_up_kernel").one_more(1)
