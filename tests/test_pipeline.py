"""Whole runs on real Parquet with the real filter and language model."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import edgemod
from edgemod import pipeline, run_folder, worker
from edgemod.errors import EdgemodError, InputError, OutputError, RunError
from edgemod.report import RunReport
from edgemod.triager import DECISIONS
from edgemod.words import STATUS_REASONS
from samples import sentences, write_dump

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "edgemod", "triage")


def contents(out: Path) -> dict[str, bytes]:
    """Every decision and review file of a run, by name."""
    folders = [out / "decisions", out / "review"]
    return {
        str(path.relative_to(out)): path.read_bytes()
        for folder in folders
        for path in sorted(folder.iterdir())
    }


def decisions(out: Path) -> pa.Table:
    parts = sorted((out / "decisions").glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(part) for part in parts])


@pytest.fixture(scope="module")
def finished(dump: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunReport]:
    out = tmp_path_factory.mktemp("finished") / "out"
    return out, edgemod.triage(dump, out, workers=1, chunk_rows=128)


def test_a_run_decides_every_record_once_and_in_order(
    dump: Path, finished: tuple[Path, RunReport]
) -> None:
    out, report = finished
    table = decisions(out)
    assert table.schema.equals(DECISIONS)
    assert table["record_id"].to_pylist() == pq.read_table(dump)["id"].to_pylist()
    assert table["source_row"].to_pylist() == list(range(600))
    assert set(table["verdict"].to_pylist()) <= {"clear", "flag", "review"}
    assert report.records == 600
    assert sum(report.verdicts.values()) == sum(report.stages.values()) == 600
    assert report.duplicates > 0
    assert report.coverage == pytest.approx(1 - report.verdicts.get("review", 0) / 600)
    assert not (out / "work").exists()
    assert json.loads((out / "report.json").read_text()) == report.to_json()
    assert json.loads((out / "run.json").read_text())["status"] == "complete"


def test_no_text_leaves_but_through_review(dump: Path, finished: tuple[Path, RunReport]) -> None:
    out, _ = finished
    texts = [t.encode() for t in set(pq.read_table(dump)["text"].to_pylist())]
    for path in [out / "report.json", out / "run.json"]:
        assert not any(text in path.read_bytes() for text in texts)
    for column in decisions(out).columns:
        if pa.types.is_string(column.type):
            assert not set(column.to_pylist()) & {t.decode() for t in texts}


def test_outputs_are_for_their_owner_alone(finished: tuple[Path, RunReport]) -> None:
    out, _ = finished
    for path in [out, *out.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_duplicates_take_the_first_ones_decision(finished: tuple[Path, RunReport]) -> None:
    rows = {row["record_id"]: row for row in decisions(finished[0]).to_pylist()}
    twins = [row for row in rows.values() if row["duplicate_of"]]
    assert twins
    for row in twins:
        first = rows[row["duplicate_of"]]
        assert row["stage"] == "duplicate"
        assert first["duplicate_of"] is None
        same = ["verdict", "category", "reason", "p_any", "p_hate"]
        assert [row[name] for name in same] == [first[name] for name in same]


def test_workers_do_not_change_a_byte(
    dump: Path, finished: tuple[Path, RunReport], tmp_path: Path
) -> None:
    edgemod.triage(dump, tmp_path / "out", workers=2, chunk_rows=128)
    assert contents(tmp_path / "out") == contents(finished[0])


def test_a_prefix_of_the_input_gets_the_same_decisions(
    dump: Path, finished: tuple[Path, RunReport], tmp_path: Path
) -> None:
    pq.write_table(pq.read_table(dump).slice(0, 200), tmp_path / "dump.parquet")
    edgemod.triage(tmp_path / "dump.parquet", tmp_path / "out", workers=1, chunk_rows=128)
    assert decisions(tmp_path / "out").equals(decisions(finished[0]).slice(0, 200))


def test_the_same_command_again_returns_the_report(
    dump: Path, finished: tuple[Path, RunReport]
) -> None:
    out, report = finished
    before = contents(out)
    assert edgemod.triage(dump, out, workers=2, chunk_rows=128) == report
    assert contents(out) == before


def test_a_complete_run_on_a_read_only_disk_prints_its_report(
    dump: Path, finished: tuple[Path, RunReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("unlink", "remove"):  # even where there is nothing to remove
        monkeypatch.setattr(os, name, refuse)
    out, report = finished
    assert edgemod.triage(dump, out, workers=1, chunk_rows=128) == report


def started(dump: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """A run in a process group of its own that has just finished its first chunk."""
    process = subprocess.Popen(
        [*COMMAND, str(dump), "-o", str(out), *options],
        stderr=subprocess.PIPE, cwd=ROOT, text=True, start_new_session=True,
        # A shell starts what it puts in the background with interrupts ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    limit = time.monotonic() + 120
    while not list(out.glob("decisions/part-*.parquet")) and process.poll() is None:
        assert time.monotonic() < limit
        time.sleep(0.01)
    return process


def test_a_killed_run_goes_on_to_the_same_bytes(
    dump: Path, finished: tuple[Path, RunReport], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ["--chunk-rows", "128", "--workers", "1"]
    process = started(dump, out, *options)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = subprocess.run(
        [*COMMAND, str(dump), "-o", str(out), *options],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert contents(out) == contents(finished[0])


def test_an_interrupt_exits_130_and_keeps_what_is_done(tmp_path: Path) -> None:
    long = write_dump(tmp_path / "long.parquet", 50_000)  # far from done when it is interrupted
    process = started(long, tmp_path / "out", "--chunk-rows", "64", "--workers", "2")
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again" in said
    assert "Traceback" not in said


def test_a_kill_between_any_two_first_steps_leaves_a_folder_that_goes_on(
    dump: Path, finished: tuple[Path, RunReport], tmp_path: Path
) -> None:
    early = tmp_path / "early"  # killed while run.json was written
    early.mkdir()
    (early / ".run.json.abc.partial").write_bytes(b"{")
    edgemod.triage(dump, early, workers=1, chunk_rows=128)
    assert contents(early) == contents(finished[0])

    restarting = tmp_path / "restarting"  # killed while --restart removed the earlier run
    shutil.copytree(finished[0], restarting)
    state = json.loads((restarting / "run.json").read_text())
    (restarting / "run.json").write_text(json.dumps({**state, "status": "restarting"}))
    (restarting / "decisions" / "part-000001.parquet").write_bytes(b"an earlier run's")
    edgemod.triage(dump, restarting, workers=1, chunk_rows=128)
    assert contents(restarting) == contents(finished[0])


def test_a_complete_run_that_lost_a_file_says_which(
    dump: Path, finished: tuple[Path, RunReport], tmp_path: Path
) -> None:
    names = ("report.json", "decisions/part-000002.parquet", "review/review-00000.parquet")
    for name in (*names, "half"):
        out = tmp_path / name.replace("/", "-")
        shutil.copytree(finished[0], out)
        (out / name).unlink(missing_ok=True)
        if name == "half":
            name = names[1]
            harmed(out, name, "half")
        with pytest.raises(RunError, match=Path(name).name):
            edgemod.triage(dump, out, workers=1, chunk_rows=128)


def harmed(out: Path, name: str, harm: str) -> None:
    """Do to a file of a run what a failing disk, or a person, does."""
    path = out / name
    if harm == "gone":
        path.unlink()
    elif harm == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), **json.loads(harm)}))


def test_a_chunk_whose_files_do_not_agree_is_done_again(dump: Path, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(progress: pipeline.Progress) -> None:
        if progress.records >= 512:
            raise StopError

    command = partial(edgemod.triage, dump, workers=1, chunk_rows=128, model=None)
    whole = command(tmp_path / "whole")
    with pytest.raises(StopError):
        command(tmp_path / "stopped", on_progress=stop)
    queue, tally, part = (
        str(path.relative_to(tmp_path)) for path in worker.files(tmp_path, index=1)
    )
    lies = [{"records": 49}, {"tokens": "x"}, {"seconds": None}, {"counts": []}, {"counts": {}}]
    for number, (name, harm) in enumerate(
        [*product((queue, tally, part), ("gone", "half")), *((tally, json.dumps(x)) for x in lies)]
    ):
        out = tmp_path / str(number)
        shutil.copytree(tmp_path / "stopped", out)
        harmed(out, name, harm)
        report = command(out)
        assert report.resumed_chunks < 5
        assert (report.verdicts, report.review) == (whole.verdicts, whole.review), (name, harm)
        assert contents(out) == contents(tmp_path / "whole"), (name, harm)

    out = tmp_path / "stopped"
    (out / part).rename(out / "decisions" / "part-1.parquet")  # not a name that edgemod gives
    for index in (999_999, 1_000_000):
        for old, new in zip(worker.files(out, 0), worker.files(out, index), strict=True):
            shutil.copy(old, new)
    assert [index for index, _ in run_folder.done(out, keep_scores=False)] == [
        0,
        2,
        3,
        999_999,
        1_000_000,
    ]


def test_files_that_go_while_a_run_goes_on_are_missed(dump: Path, tmp_path: Path) -> None:
    command = partial(edgemod.triage, dump, tmp_path / "out", workers=1, chunk_rows=300, model=None)

    def remove(progress: pipeline.Progress) -> None:
        if progress.chunk == 1:
            worker.files(tmp_path / "out", 0)[0].unlink()

    with pytest.raises(RunError, match="were removed or changed while it was going on"):
        command(on_progress=remove)
    report = command()
    assert report.records == 600
    assert report.review["total"] == report.verdicts["review"]


@pytest.mark.parametrize(
    ("name", "lie"),
    [
        ("run.json", {"chunks": "x"}),
        ("run.json", {"status": None}),
        ("report.json", {"records": 601}),
        ("report.json", {"seconds": None}),
        ("report.json", {"review": []}),
    ],
)
def test_a_complete_run_that_was_edited_is_told(
    dump: Path, finished: tuple[Path, RunReport], tmp_path: Path, name: str, lie: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    harmed(out, name, json.dumps(lie))
    with pytest.raises(RunError, match="is missing or damaged"):
        edgemod.triage(dump, out, workers=1, chunk_rows=128)


@pytest.mark.parametrize(
    "wrong", [{"chunk_rows": 0}, {"workers": 0}, {"review_budget": -1}, {"review_format": "xlsx"}]
)
def test_options_out_of_range_are_refused_before_anything_starts(
    dump: Path, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises(InputError):
        edgemod.triage(dump, tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.parquet"))
    write_dump(tmp_path / "plain.parquet", 10).rename(path)  # Arrow cannot write to such a name
    assert edgemod.triage(path, tmp_path / "out", workers=1).records == 10


def test_changed_plans_are_refused_by_name(
    dump: Path, finished: tuple[Path, RunReport], tmp_path: Path
) -> None:
    out, _ = finished
    policy = tmp_path / "policy.toml"
    default = ROOT / "edgemod" / "policies"
    policy.write_text(
        (default / "default.toml")
        .read_text()
        .replace("max_text_bytes = 65536", "max_text_bytes = 65537")
    )
    shutil.copytree(default / "lexicons", tmp_path / "lexicons")
    with pytest.raises(EdgemodError, match=r"changed: policy \([0-9a-f]{12} -> [0-9a-f]{12}\)"):
        edgemod.triage(dump, out, chunk_rows=128, policy=policy)
    with pytest.raises(RunError, match=r"changed: chunk_rows \(128 -> 64\)"):
        edgemod.triage(dump, out, chunk_rows=64)
    options = pipeline.Options(
        (str(dump),), out, None, "default", None, None, {}, 1, 64, "parquet", None
    )  # fmt: skip
    with pytest.raises(RunError, match=r"chunk_rows \(128 -> 64\)"):
        pipeline.plan(options)
    assert pipeline.plan(options, restart=True).identity["chunk_rows"] == 64
    other = write_dump(tmp_path / "other.parquet", 10)
    with pytest.raises(RunError, match="changed: input"):
        edgemod.triage(other, out, chunk_rows=128)


def test_an_input_that_changes_during_a_run_is_refused(tmp_path: Path) -> None:
    """Of equal size, so only its time tells; touched alone, the same command completes the run."""
    folder, out = tmp_path / "in" / "day=1", tmp_path / "out"
    folder.mkdir(parents=True)
    path = folder / "a.csv"
    path.write_text("id,text\n1,hello\n")

    def rewrite(_: pipeline.Progress) -> None:
        later = path.stat().st_mtime_ns + 10**9
        path.write_text(f"id,text\n1,{text}\n")
        os.utime(path, ns=(later, later))

    for text in ("hello", "world"):
        with pytest.raises(RunError, match="the input changed while it was being read"):
            edgemod.triage(
                tmp_path / "in", out, model=None, workers=1,
                on_progress=rewrite, restart=True,
            )  # fmt: skip
        if text == "hello":
            assert edgemod.triage(tmp_path / "in", out, model=None, workers=1).resumed_chunks == 1
    with pytest.raises(RunError, match="changed: input"):
        edgemod.triage(tmp_path / "in", out, model=None, workers=1)


def test_restart_begins_anew(tmp_path: Path) -> None:
    first = write_dump(tmp_path / "a.parquet", 30, seed=1)
    second = write_dump(tmp_path / "b.parquet", 40, seed=2)
    edgemod.triage(first, tmp_path / "out", workers=1)
    report = edgemod.triage(second, tmp_path / "out", workers=1, restart=True)
    assert report.records == 40
    assert decisions(tmp_path / "out").num_rows == 40
    for content in ("{", "{}"):
        (tmp_path / "out" / "run.json").write_text(content)
        with pytest.raises(RunError, match=r"run\.json: is missing or damaged"):
            edgemod.triage(second, tmp_path / "out", workers=1)
        assert edgemod.triage(first, tmp_path / "out", workers=1, restart=True).records == 30
    (tmp_path / "out" / "run.json").write_text("{}")
    (tmp_path / "out" / "precious.txt").write_text("mine")  # so it may be no run at all
    with pytest.raises(RunError, match="damaged"):
        edgemod.triage(first, tmp_path / "out", workers=1, restart=True)
    assert decisions(tmp_path / "out").num_rows == 30


def test_folders_that_are_not_a_run_are_left_alone(dump: Path, tmp_path: Path) -> None:
    mine = [tmp_path / name for name in ("precious.txt", ".download.partial", ".a.b.partial")]
    for path in mine:
        path.write_text("mine")
    for restart in (False, True):
        with pytest.raises(RunError, match="not empty and holds no edgemod run"):
            edgemod.triage(dump, tmp_path, workers=1, restart=restart)
    assert all(path.read_text() == "mine" for path in mine)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be used as the output folder"):
        edgemod.triage(dump, tmp_path / "file", workers=1)


def test_two_runs_do_not_share_a_folder(dump: Path, tmp_path: Path) -> None:
    with (
        run_folder.locked(tmp_path),
        pytest.raises(RunError, match="another edgemod is writing to this folder"),
    ):
        edgemod.triage(dump, tmp_path, workers=1)


def test_texts_that_cannot_be_scored_go_to_review_with_the_reason(tmp_path: Path) -> None:
    texts = [
        None,
        "",
        " \n\t",
        "x" * 70_000,
        "\x00\x00",
        "fine, thanks",
        "​",
        "это обычное сообщение о погоде и планах на выходные дни",
    ]
    pq.write_table(pa.table({"id": list(range(8)), "text": texts}), tmp_path / "odd.parquet")
    report = edgemod.triage(tmp_path / "odd.parquet", tmp_path / "out", workers=1)
    rows = decisions(tmp_path / "out").to_pylist()
    statuses = [
        "null_text",
        "empty_text",
        "empty_text",
        "too_long",
        "empty_text",
        "ok",
        "empty_text",
        "unsupported_language",
    ]
    assert [row["status"] for row in rows] == statuses
    assert [row["verdict"] for row in rows if row["status"] != "ok"] == ["review"] * 7
    assert {row["reason"] for row in rows if row["status"] != "ok"} <= set(STATUS_REASONS.values())
    assert report.failures == {
        "empty_text": 4,
        "null_text": 1,
        "too_long": 1,
        "unsupported_language": 1,
    }


def test_what_cannot_be_read_of_a_conversation_goes_to_review(tmp_path: Path) -> None:
    calm = {"role": "user", "content": "hello, can you help me plan a birthday dinner?"}
    image = {"role": "user", "content": [{"type": "image"}]}
    (tmp_path / "in").mkdir()
    chats = (
        {"messages": talk}
        for talk in ([calm], [calm, image], [calm, "my card is 4111 1111 1111 1111"])
    )
    (tmp_path / "in" / "a.jsonl").write_text("\n".join(["{}", *map(json.dumps, chats)]))
    (tmp_path / "in" / "notes.txt").write_text("")
    plans: list[pipeline.Plan] = []
    edgemod.triage(tmp_path / "in", tmp_path / "out", workers=1, on_plan=plans.append)
    rows = decisions(tmp_path / "out").to_pylist()
    assert [row["verdict"] for row in rows] == ["review", "clear", "review", "flag"]
    assert [row["status"] for row in rows] == ["null_text", "ok", "unreadable", "ok"]
    notice = f"passed over 1 file of no format that edgemod reads: {tmp_path}/in/notes.txt"
    assert notice in plans[0].columns.notices


def test_conversations_name_the_message_that_decided(tmp_path: Path) -> None:
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    calm = [
        {"role": "user", "content": "hello, can you help me plan a birthday dinner?"},
        {"role": "assistant", "content": "of course, how many guests will there be?"},
    ]
    harsh = [*calm, {"role": "user", "content": "my card number is 4111 1111 1111 1111, ok?"}]
    table = pa.table(
        {
            "id": ["calm", "harsh", "calm again", "none"],
            "messages": pa.array([calm, harsh, calm, []], kind),
        }
    )
    pq.write_table(table, tmp_path / "chats.parquet")
    edgemod.triage(tmp_path / "chats.parquet", tmp_path / "out", workers=1)
    rows = decisions(tmp_path / "out").to_pylist()
    assert rows[1]["verdict"] == "flag"
    assert (rows[1]["message"], rows[1]["category"], rows[1]["stage"]) == (2, "pii", "rule")
    assert rows[2]["duplicate_of"] == "calm"
    assert rows[3]["status"] == "null_text"


def test_without_a_language_model_the_rest_goes_to_review(dump: Path, tmp_path: Path) -> None:
    report = edgemod.triage(dump, tmp_path / "out", workers=1, model=None)
    assert "model" not in report.texts_seen
    assert set(report.stages) <= {"rule", "filter", "duplicate"}
    assert report.plan["model"] == "none"


def test_an_empty_input_is_a_run_too(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "none.parquet")
    report = edgemod.triage(tmp_path / "none.parquet", tmp_path / "out", workers=1)
    assert (report.records, report.coverage) == (0, 1.0)


def test_a_full_disk_is_a_clear_error_and_nothing_is_lost(
    dump: Path, finished: tuple[Path, RunReport], tmp_path: Path
) -> None:
    """A limit on file size fails writes as a full disk does, at whichever part meets it first."""
    out = tmp_path / "out"
    command = f"{sys.executable} -m edgemod triage {dump} -o {out} --chunk-rows 128"
    full = subprocess.run(
        ["bash", "-c", f"ulimit -f 4; {command}"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert full.returncode == 1
    assert "cannot be written" in full.stderr
    assert "Traceback" not in full.stderr
    after = subprocess.run(command.split(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert after.returncode == 0, after.stderr
    assert contents(out) == contents(finished[0])


def test_missing_input_and_model(tmp_path: Path, dump: Path) -> None:
    with pytest.raises(InputError):
        edgemod.triage(tmp_path / "nothing.parquet", tmp_path / "out", workers=1)
    fake = tmp_path / "fake.gguf"
    fake.write_bytes(b"not a model")
    with pytest.raises(EdgemodError):
        edgemod.triage(dump, tmp_path / "out2", workers=1, model=str(fake))
    assert not (tmp_path / "out2" / "decisions").exists()


def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    peaks = []
    for n in (2_000, 20_000):
        texts = [f"{text} {i}" for i, text in enumerate(sentences(n))]
        pq.write_table(pa.table({"text": texts}), tmp_path / f"{n}.parquet")
        # In a process of its own: what this one has used so far is not the run's.
        done = subprocess.run(
            [sys.executable, "-m", "edgemod", "triage", tmp_path / f"{n}.parquet", "-o",
             tmp_path / f"out{n}", "--workers", "1", "--model", "none", "--chunk-rows", "1000",
             "--json"],
            cwd=ROOT, capture_output=True, check=True,
        )  # fmt: skip
        peaks.append(json.loads(done.stdout)["peak_memory_bytes"])
    assert peaks[1] < peaks[0] * 1.25
    assert peaks[1] < 1.5e9
