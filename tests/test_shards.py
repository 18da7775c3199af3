"""Shares of a run, and what they make together."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgemod
from edgemod import merging, parts, pipeline, records, review, run_folder, shards, worker
from edgemod.errors import InputError, OutputError, RunError
from edgemod.rehearsal import Archive
from edgemod.report import RunReport
from samples import sentences

ROOT = Path(__file__).parents[1]


pytestmark = pytest.mark.usefixtures("one_process")

run = partial(edgemod.triage, model=None, workers=1, chunk_rows=64)


@pytest.fixture(scope="module")
def whole(
    dump: Path, tmp_path_factory: pytest.TempPathFactory, one_process: None
) -> tuple[Path, RunReport]:
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, run(dump, out, review_budget=30)


@pytest.fixture(scope="module")
def three(dump: Path, tmp_path_factory: pytest.TempPathFactory, one_process: None) -> list[Path]:
    """The three shards of ``whole``."""
    return sharded(dump, tmp_path_factory.mktemp("three"), 3, review_budget=30)


@pytest.fixture(scope="module")
def with_scores(
    dump: Path, tmp_path_factory: pytest.TempPathFactory, one_process: None
) -> list[Path]:
    """Two shards that keep scores."""
    return sharded(dump, tmp_path_factory.mktemp("scores"), 2, keep_scores=True)


def sharded(source: Path, folder: Path, count: int, **options: Any) -> list[Path]:
    folders = [folder / f"s{k}" for k in range(1, count + 1)]
    for k, out in enumerate(folders, 1):
        run(source, out, shard=f"{k}/{count}", **options)
    return folders


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a run but its report, by name."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "report.json"
    }


@contextmanager
def chunks_of_bytes(limit: int) -> Iterator[None]:
    """Let every chunk end where its strings reach so many bytes."""
    with pytest.MonkeyPatch.context() as patch:
        small = partial(records.read_chunks, chunk_bytes=limit)
        patch.setattr(records, "read_chunks", small)
        yield


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12])
def test_shards_together_are_the_whole_run(
    dump: Path, whole: tuple[Path, RunReport], tmp_path: Path, count: int
) -> None:
    folders = sharded(dump, tmp_path, count, review_budget=30)
    out = tmp_path / "out"
    report = edgemod.merge(folders[::-1], out)
    assert contents(out) == contents(whole[0])  # run.json, too
    told, expected = report.to_json(), whole[1].to_json()
    costs = ["seconds", "rates", "wall_seconds", "records_per_second", "workers", "shards"]
    for name in [*costs, "peak_memory_bytes"]:
        del told[name], expected[name]
    assert told == expected
    assert report.review["exported"] == 30 < report.review["total"]
    assert json.loads((out / "report.json").read_text()) == report.to_json()
    # The command without --shard finds the run that it would have made.
    assert run(dump, out, review_budget=30) == report


def test_costs_are_sums_and_maxima(three: list[Path], tmp_path: Path) -> None:
    reports = [run_folder.read_report(folder) for folder in three]
    merged = edgemod.merge(three, tmp_path / "out")
    walls = [report.wall_seconds for report in reports]
    peaks = [report.peak_memory_bytes for report in reports]
    assert merged.wall_seconds == merged.shards["wall_seconds_max"] == max(walls)
    assert merged.shards["wall_seconds_sum"] == pytest.approx(sum(walls), abs=0.001)
    assert merged.peak_memory_bytes == merged.shards["peak_memory_bytes_max"] == max(peaks)
    assert merged.shards["peak_memory_bytes_sum"] == sum(peaks)
    assert (merged.shards["count"], merged.shards["workers_sum"], merged.workers) == (3, 3, 3)
    for stage, seconds in merged.seconds.items():
        total = sum(report.seconds.get(stage, 0) for report in reports)
        assert seconds == pytest.approx(total, abs=0.01)


@settings(deadline=None, max_examples=8)
@given(
    sizes=st.lists(st.integers(0, 30), max_size=30),
    form=st.sampled_from(["parquet", "csv", "jsonl"]),
    files=st.integers(1, 3),
    chunk_rows=st.integers(1, 9),
    chunk_bytes=st.integers(1, 90),
    count=st.integers(1, 6),
    budget=st.none() | st.integers(0, 9),
)
def test_any_chunks_in_any_number_of_shards(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    form: str,
    files: int,
    chunk_rows: int,
    chunk_bytes: int,
    count: int,
    budget: int | None,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    texts = [f"{text} "[:size] for text, size in zip(sentences(30), sizes, strict=False)]
    (folder / "in").mkdir()
    each = -(-len(texts) // files)
    for k in range(files):
        write(folder / "in" / f"{k}.{form}", texts[k * each : (k + 1) * each])
    command = partial(run, folder / "in", text="text", chunk_rows=chunk_rows, review_budget=budget)
    with chunks_of_bytes(chunk_bytes):
        command(folder / "whole")
        for k in range(1, count + 1):
            command(folder / f"s{k}", shard=f"{k}/{count}")
    edgemod.merge([folder / f"s{k}" for k in range(1, count + 1)], folder / "out")
    assert contents(folder / "out") == contents(folder / "whole")
    shutil.rmtree(folder)


def write(path: Path, texts: list[str]) -> None:
    if path.suffix == ".parquet":
        table = {"text": pa.array(texts, pa.string())}
        pq.write_table(pa.table(table), path, row_group_size=4)
    elif path.suffix == ".csv":
        path.write_text("text\n" + "".join(f'"{text}"\n' for text in texts))
    else:
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@given(
    rows=st.integers(0, 10**6), chunk_rows=st.integers(1, 10**5), count=st.integers(1, 50)
)  # fmt: skip
def test_shares_follow_each_other_and_are_alike(rows: int, chunk_rows: int, count: int) -> None:
    shares = [shards.share(f"{k}/{count}", rows, chunk_rows) for k in range(1, count + 1)]
    assert [0, *(stop for _, stop in shares)] == [*(first for first, _ in shares), rows]
    assert all(first % chunk_rows == 0 for first, stop in shares)
    multiples = [-(-(stop - first) // chunk_rows) for first, stop in shares]
    assert max(multiples) - min(multiples) <= 1


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "1/0", "-1/2", "1/2/3", "a/b", "", " 1/2"])
def test_what_is_no_shard_is_told(dump: Path, tmp_path: Path, shard: str) -> None:
    with pytest.raises(InputError, match="is not a shard"):
        run(dump, tmp_path / "out", shard=shard)
    assert not (tmp_path / "out").exists()


def test_a_shard_reads_only_its_rows(
    dump: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dump.parquet"
    pq.write_table(pq.read_table(dump), path, row_group_size=50)
    opened, iter_batches = [], pq.ParquetFile.iter_batches

    def watched(self: pq.ParquetFile, size: int, groups: list[int], **more: Any) -> Any:
        opened.extend(groups)
        return iter_batches(self, size, groups, **more)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    monkeypatch.setattr("edgemod.formats.BATCH_ROWS", 50)
    report = run(path, tmp_path / "out", shard="2/3")
    state = run_folder.complete_state(tmp_path / "out")
    assert state["rows"] == [192, 384]
    assert report.records == 192
    assert opened == [3, 4, 5, 6, 7]
    # Its chunks have the numbers that they have in the whole run.
    assert [part.name for part in run_folder.parts(tmp_path / "out", state)] == [
        worker.part_name(index) for index in (3, 4, 5)
    ]


def test_the_shard_is_part_of_what_a_run_is(dump: Path, three: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(three[1], out)
    report = run_folder.read_report(out)
    assert run(dump, out, shard="02/3", review_budget=30) == report
    assert (out / "work").is_dir()  # for the merge
    for shard in ("1/3", "2/4", None):
        with pytest.raises(RunError, match="changed: shard"):
            run(dump, out, shard=shard, review_budget=30)


def test_a_stopped_shard_goes_on_to_the_same_bytes(
    dump: Path, three: list[Path], tmp_path: Path
) -> None:
    command = partial(run, dump, tmp_path / "out", shard="2/3", review_budget=30)

    def stop(_: pipeline.Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        command(on_progress=stop)
    report = command()
    assert report.resumed_chunks >= 1
    kept, whole = contents(tmp_path / "out"), contents(three[1])
    # Tallies have times, and run.json their digests.
    assert {k: v for k, v in kept.items() if not re.search("tally|run.json", k)} == {
        k: v for k, v in whole.items() if not re.search("tally|run.json", k)
    }
    assert edgemod.verify(tmp_path / "out").head == edgemod.verify(three[1]).head


def test_everything_wrong_with_the_shards_is_named(
    dump: Path, whole: tuple[Path, RunReport], three: list[Path], tmp_path: Path
) -> None:
    one, _, last = three
    (tmp_path / "empty").mkdir()
    other, of_four, running = tmp_path / "other", tmp_path / "of_four", tmp_path / "running"
    run(dump, other, shard="2/3", review_budget=31)
    run(dump, of_four, shard="2/4", review_budget=30)
    shutil.copytree(last, running)
    edit(running / "run.json", status="running")
    shutil.copytree(one, tmp_path / "again")
    folders = [one, other, of_four, running, whole[0], tmp_path / "again", tmp_path / "empty"]
    with pytest.raises(RunError) as caught:
        edgemod.merge(folders, tmp_path / "out")
    assert str(caught.value).split("\n  ")[:-1] == [
        "these are not all shards of one run, each once:",
        f"{other}: is of another run; differs in: review_budget (30 -> 31)",
        f"{of_four}: is shard 2/4, where others are of 3",
        f"{running}: is not the folder of a complete run",
        f"{whole[0]}: is a whole run, not a shard",
        f"{tmp_path / 'again'}: is shard 1/3, as {one} is",
        f"{tmp_path / 'empty'}: is not the folder of a complete run",
        "missing: shard 2/3, 3/3",
    ]
    assert not (tmp_path / "out").exists()


def test_shards_of_another_version_are_not_merged(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "code_version", lambda: "0.0.9+abc")
    with pytest.raises(RunError, match=r"was made by edgemod .*, this is 0\.0\.9\+abc"):
        edgemod.merge(three, tmp_path / "out")


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("harm", ["gone", "flipped", "of another chunk"])
@pytest.mark.parametrize("folder", ["decisions", "scores", "work/review", "work/tally"])
def test_a_file_that_is_not_what_the_shard_wrote_is_named(
    with_scores: list[Path], tmp_path: Path, folder: str, harm: str
) -> None:
    """Also where it has as many rows as before, and where it is a whole part."""
    shards = [tmp_path / "s1", tmp_path / "s2"]
    for source, copy in zip(with_scores, shards, strict=True):
        shutil.copytree(source, copy)
    assert edgemod.verify(shards[1]).sound
    parent, _, kind = folder.partition("/")
    path, another = sorted((shards[1] / parent).glob(f"{kind}*"))[:2]
    if harm == "gone":
        path.unlink()
    elif harm == "flipped":
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 3] ^= 1
        path.write_bytes(whole)
    else:
        shutil.copyfile(another, path)
    with pytest.raises(RunError, match="is missing, or not the file that shard 2/2 wrote") as told:
        edgemod.merge(shards, tmp_path / "out")
    assert told.value.where == str(path)
    assert not edgemod.verify(shards[1]).sound


def test_a_killed_merge_goes_on(
    whole: tuple[Path, RunReport], three: list[Path], tmp_path: Path
) -> None:
    """Stopped before each of its steps, as by a kill: nothing of it is undone."""
    steps = [(parts, "place"), (review, "export"), (review, "_publish"), (run_folder, "finish"),
             (run_folder, "_write_state"), (run_folder, "_remove_work")]  # fmt: skip
    stopped = 0
    for number, (module, name) in enumerate(steps):
        for after in (0, 1, 4):
            out = tmp_path / f"{number}-{after}"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(module, name, killed(getattr(module, name), after))
                try:
                    edgemod.merge(three, out)
                except KeyboardInterrupt:
                    stopped += 1
                    if (out / "decisions").is_dir() and not run_folder.is_complete(out):
                        (out / "decisions" / ".part-000000.parquet.x.partial").touch()
            edgemod.merge(three, out)
            assert contents(out) == contents(whole[0]), (name, after)
    assert stopped == 9  # most steps are made once or twice


def killed(step: Callable[..., Any], after: int) -> Callable[..., Any]:
    """A step that ends the process when it is called once more than ``after`` times."""
    calls = iter(range(1 << 30))

    def call(*arguments: Any, **named: Any) -> Any:
        if next(calls) == after:
            raise KeyboardInterrupt
        return step(*arguments, **named)

    return call


def test_decisions_are_copied_where_links_fail(
    whole: tuple[Path, RunReport],
    three: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    edgemod.merge(three, tmp_path / "linked")
    part = tmp_path / "linked" / "decisions" / worker.part_name(0)
    assert part.stat().st_nlink > 1

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    edgemod.merge(three, tmp_path / "copied")
    assert contents(tmp_path / "copied") == contents(whole[0])
    assert all(p.stat().st_nlink == 1 for p in (tmp_path / "copied" / "decisions").iterdir())
    assert part.stat().st_mode & 0o077 == 0

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OutputError, match="No space left"):
        edgemod.merge(three, tmp_path / "full")


def test_out_cannot_be_a_shard_or_another_run(
    dump: Path, three: list[Path], tmp_path: Path
) -> None:
    before = contents(three[0])
    for restart in (False, True):
        with pytest.raises(InputError, match="is one of the shards"):
            edgemod.merge(three, three[0], restart=restart)
    assert contents(three[0]) == before
    run(dump, tmp_path / "out")
    with pytest.raises(RunError, match="changed: review_budget"):
        edgemod.merge(three, tmp_path / "out")
    assert edgemod.merge(three, tmp_path / "out", restart=True).records == 600


def test_commands_that_read_a_run_read_a_shard(three: list[Path], dump: Path) -> None:
    chunks = [*Archive.open(three[1]).chunks(10_000)]
    ids = [name for chunk in chunks for name in chunk.records["record_id"].to_pylist()]
    assert ids == pq.read_table(dump)["id"].to_pylist()[192:384]


def test_memory_does_not_grow_with_the_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every record goes to review, with a text of 20 kB: 2.4 MB in all, in six chunks."""
    monkeypatch.setattr(review, "BATCH_BYTES", 2**19)
    texts = [f"{i} {'ich bin ein Text in einer anderen Sprache ' * 500}" for i in range(120)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "dump.parquet", row_group_size=20)
    peaks = []
    for count in (1, 6):
        folders = sharded(tmp_path / "dump.parquet", tmp_path / str(count), count, chunk_rows=20)
        before = pa.default_memory_pool()
        pool = pa.proxy_memory_pool(before)
        pa.set_memory_pool(pool)
        try:
            report = edgemod.merge(folders, tmp_path / f"out{count}")
            peaks.append(pool.max_memory())
        finally:
            pa.set_memory_pool(before)
        assert report.review["total"] == 120
    assert peaks[1] < 1.2 * peaks[0]


def test_the_command_line(dump: Path, tmp_path: Path) -> None:
    """Two shards at the same time, by real workers, and their merge."""

    def start(*arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "edgemod", *map(str, arguments)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    options = ["--model", "none", "--workers", "1", "--chunk-rows", "128"]
    jobs = [
        start("triage", dump, "-o", tmp_path / f"s{k}", "--shard", f"{k}/2", *options)
        for k in (1, 2)
    ]
    for job in jobs:
        _, said = job.communicate(timeout=120)
        assert job.returncode == 0, said
    told = start("merge", tmp_path / "s1", "-o", tmp_path / "out")
    _, said = told.communicate(timeout=60)
    assert (told.returncode, "missing: shard 2/2" in said) == (1, True)
    told = start("merge", tmp_path / "s1", tmp_path / "s2", "-o", tmp_path / "out", "--json")
    printed, said = told.communicate(timeout=60)
    assert told.returncode == 0, said
    assert json.loads(printed)["records"] == 600
    assert "merged from 2 shards" in said
    run(dump, tmp_path / "whole", chunk_rows=128)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
